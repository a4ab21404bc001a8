"""Photo, motion and result next to each other as a GIF: python -m examples.side_by_side PHOTO POSES.npz RESULT.mp4
OUT.gif [more triples]

The README's animation is made by it, from `animate`'s results.
"""

import sys

import numpy as np
from PIL import Image

from dreampose_core.media import fit_image, read_image
from dreampose_core.poses import fitted, read_poses, render_colours
from dreampose_core.media import probe_video, read_video, write_gif


def panels(photo: str, motion: str, result: str, num_frames: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 (T, H, 3 W, 3): the photo, the poses and the video, the video over and over if it is too short."""

    def smaller(frame: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC))

    frames, picture = list(read_video(result)), fit_image(read_image(photo), size)
    poses = render_colours(fitted(read_poses(motion), frames[0].shape[:2]))
    rows = [np.hstack([picture, smaller(pose), smaller(frame)]) for pose, frame in zip(poses, frames)]
    return np.stack([rows[index % len(rows)] for index in range(num_frames)])


def main(arguments: list[str]) -> None:
    """Writes the GIF named by the last argument from triples of photo, poses and video."""
    *inputs, out = arguments
    triples = list(zip(inputs[0::3], inputs[1::3], inputs[2::3]))
    fps = probe_video(triples[0][2]).fps
    rows = [panels(*triple, num_frames=60, size=(240, 192)) for triple in triples]
    write_gif(np.concatenate(rows, axis=2)[::2], out, fps / 2)


if __name__ == "__main__":
    main(sys.argv[1:])
