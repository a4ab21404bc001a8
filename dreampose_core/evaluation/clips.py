"""The clips that models are measured on: held-out mannequins with exact truth, and real videos with their DensePose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError, shown
from ..media import VideoInfo, fit_image, is_video, probe_video, read_video, same_aspect
from ..poses import PoseSequence, fitted, read_any
from ..poses.sidecar import is_densepose_of, poses_beside
from ..synthetic import HELD_OUT, Figure, render_clip
from ..synthetic.motion import HELD_OUT_MOTIONS

FRAMES, FPS, LATER_S = 40, 20.0, 1.0  # of a mannequin's clip, which begins so long after the photo
FRONT, NEARLY = 2, 0.8  # DensePose's part for the front of the torso; a photo shows so much of it as can be seen at all
DISTANCE, TESTED, HEIGHT = 50, 50, 256  # of a real one, as in the paper: frames from the photo, frames in all, pixels


@dataclass(frozen=True)
class Clip:
    """A photo, T target maps and the true frames.

    photo: uint8 (h, w, 3) with its map image_poses (one frame); poses: T maps; truth: uint8 (T, h, w, 3); all in the
    model's size. scored_truth, scored_poses: the same in the size in which frames are compared, which may be another.
    """

    name: str
    photo: np.ndarray
    image_poses: PoseSequence
    poses: PoseSequence
    truth: np.ndarray
    scored_truth: np.ndarray
    scored_poses: PoseSequence

    def __len__(self) -> int:
        return len(self.truth)

    def scored(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 (T, h, w, 3) of the model's size in the size in which they are compared."""
        height, width = self.scored_truth.shape[1:3]
        if frames.shape[1:3] == (height, width):
            return frames
        return np.stack(
            [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)) for frame in frames]
        )

    def first(self, count: int) -> Clip:
        """The clip cut to its first `count` frames."""
        return self._cut(slice(0, count))

    def last(self, count: int) -> Clip:
        """The clip cut to its last `count` frames."""
        return self._cut(slice(-count, None))

    def _cut(self, cut: slice) -> Clip:
        return replace(
            self,
            poses=self.poses.select(cut),
            truth=self.truth[cut],
            scored_truth=self.scored_truth[cut],
            scored_poses=self.scored_poses.select(cut),
        )


class MannequinClips:
    """Person k is figure 10,000 + k in one of the held-out motions, in turn; scored are FRAMES frames from LATER_S
    seconds after the photo.

    The photo is taken when the person has turned their front to us, as for a photo: from behind, nothing of a face
    could be known.
    """

    kind = "held-out mannequins"

    def __init__(self, people: int, size: tuple[int, int]):
        """size: the model's (height, width). Raises InputError when there are no people."""
        if people < 1:
            raise InputError(f"The number of people is {people}; it must be at least 1.")
        self.people, self.size = people, size

    def __len__(self) -> int:
        return self.people

    def __iter__(self) -> Iterator[Clip]:
        for person in range(self.people):
            seed, motion = HELD_OUT + person, HELD_OUT_MOTIONS[person % len(HELD_OUT_MOTIONS)]
            figure = Figure.from_seed(seed)
            start_s = photo_s(figure, motion)
            photo, own = render_clip(figure, motion, 1, self.size, fps=FPS, start_s=start_s)
            rgb, poses = render_clip(figure, motion, FRAMES, self.size, fps=FPS, start_s=start_s + LATER_S)
            yield Clip(f"{seed} {motion}", photo[0].numpy(), own, poses, rgb.numpy(), rgb.numpy(), poses)


def photo_s(figure: Figure, motion: str) -> float:
    """When the figure's photo is taken, in seconds from the motion's start; looked for every half second of the first
    five.

    Of all moments that show nearly as much of the front as any, the one after which the least of it is seen: there is
    the most to invent.
    """
    _, poses = render_clip(figure, motion, 16, (80, 64), fps=2)
    front = (poses.parts == FRONT).sum((1, 2))
    later = np.array([front[moment + 2 : moment + 6].mean() for moment in range(10)])  # what will be scored
    return float(np.where(front[:10] >= NEARLY * front[:10].max(), later, np.inf).argmin()) / 2


class VideoClips:
    """Real videos in the paper's protocol: the photo is frame 0, fifty frames from frame 50 on are compared at a height
    of 256 pixels.

    In the folder lie NAME.mp4 (or another video) and beside each its DensePose in any form that gives a map for each
    frame: NAME.npz, NAME.zip, a folder NAME, or a rendering NAME.densepose.mp4. The whole picture is kept; what it
    lacks of the model's shape is padded.
    """

    kind = "videos"

    def __init__(self, folder: str | Path, size: tuple[int, int], most: int | None = None):
        """size: the model's (height, width). most: only so many videos, the first by name. Raises InputError when one
        has no poses."""
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; give one that holds videos and their DensePose.")
        if most is not None and most < 1:
            raise InputError(f"The number of people is {most}; it must be at least 1.")
        videos = sorted(
            path for path in folder.iterdir() if path.is_file() and not is_densepose_of(path) and is_video(path)
        )
        if not videos:
            raise InputError(
                f"There is no video in {folder}; it must hold NAME.mp4 and its DensePose beside it, for example "
                "NAME.npz."
            )
        self.size = size
        self.pairs = [(video, _poses_beside(video)) for video in videos[:most]]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Clip]:
        height, width = self.size
        at = HEIGHT, max(1, round(HEIGHT * width / height))
        for video, beside in self.pairs:
            info, poses = probe_video(video), read_any(beside).poses
            name = shown(video.name)
            _check(name, info, poses)
            own, poses = poses.select([0]), poses.select(slice(DISTANCE, DISTANCE + TESTED))
            if not (own.mask.any() and poses.mask.any()):
                raise InputError(
                    f"The DensePose of {name} shows nobody in the frames that are needed; please leave this video out."
                )
            frames = read_video(video)
            photo = fit_image(next(frames), self.size)
            pairs = [
                [fit_image(frame, to) for to in (self.size, at)]
                for frame in islice(frames, DISTANCE - 1, DISTANCE + TESTED - 1)
            ]
            truth, scored_truth = (np.stack(x) for x in zip(*pairs))
            yield Clip(
                name,
                photo,
                fitted(own, self.size),
                replace(fitted(poses, self.size), fps=info.fps),
                truth,
                scored_truth,
                fitted(poses, at),
            )


def _check(name: str, info: VideoInfo, poses: PoseSequence) -> None:
    """Raises InputError unless there is a map for each frame, of the frames' shape, and enough of them."""
    if len(poses) != info.num_frames:
        raise InputError(
            f"{name} has {info.num_frames} frames and its DensePose {len(poses)}; give one map for each frame."
        )
    if info.num_frames < DISTANCE + 2:
        raise InputError(
            f"{name} has {info.num_frames} frames, of which those from {DISTANCE} on are scored; give "
            f"{DISTANCE + 2} or more."
        )
    if not same_aspect((info.height, info.width), poses.size):
        sizes = f"{info.height} x {info.width} and its DensePose {poses.size[0]} x {poses.size[1]} (height x width)"
        raise InputError(f"{name} is {sizes}; give maps that were made from this video.")


def _poses_beside(video: Path) -> Path:
    if (path := poses_beside(video)) is not None:
        return path
    name = video.stem
    raise InputError(
        f"There is no DensePose for {shown(video.name)}; put {name}.npz, {name}.zip, a folder {name} or "
        f"{name}.densepose.mp4 beside it."
    )
