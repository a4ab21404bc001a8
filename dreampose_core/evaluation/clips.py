"""The clips that models are measured on: held-out mannequins with exact truth, and real videos with their DensePose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..densepose import Estimator
from ..errors import InputError, shown
from ..media import VideoInfo, fit_image, is_video, probe_video, read_video, same_aspect
from ..model.config import ModelConfig
from ..poses import PoseSequence, fitted, read_any
from ..poses.sidecar import is_densepose_of, poses_beside
from ..synthetic import HELD_OUT, Figure, render_clip
from ..synthetic.motion import HELD_OUT_MOTIONS

FRAMES, FPS, LATER_S = 40, 20.0, 1.0  # of a mannequin's clip, which begins so long after the photo
FRONT, NEARLY = 2, 0.8  # DensePose's part for the front of the torso; a photo shows so much of it as can be seen at all
LATER, MOST, FEWEST = 5, 50, 12  # of a real one: frames that are not scored, that are scored at most, and in all


@dataclass(frozen=True)
class Clip:
    """A photo, T target maps and the true frames, in the model's size.

    photo: uint8 (H, W, 3) with its map image_poses (one frame); poses: T maps; truth: uint8 (T, H, W, 3).
    """

    name: str
    photo: np.ndarray
    image_poses: PoseSequence
    poses: PoseSequence
    truth: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    def first(self, count: int) -> Clip:
        """The clip cut to its first `count` frames."""
        return self._cut(slice(0, count))

    def last(self, count: int) -> Clip:
        """The clip cut to its last `count` frames."""
        return self._cut(slice(-count, None))

    def _cut(self, cut: slice) -> Clip:
        return replace(self, poses=self.poses.select(cut), truth=self.truth[cut])


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
            yield Clip(f"{seed} {motion}", photo[0].numpy(), own, poses, rgb.numpy())


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
    """Real videos: the photo is frame 0, frames from the sixth on are compared, at most MOST of them.

    The folder holds NAME.mp4 (or another video) and its DensePose in any form that gives a map for each frame:
    NAME.npz, NAME.zip, a folder NAME, or a rendering NAME.densepose.mp4; where there is none `estimator` makes it. The
    whole picture is kept; what it lacks of the model's shape is padded.
    """

    kind = "videos"

    def __init__(
        self, folder: str | Path, config: ModelConfig, most: int | None = None, estimator: Estimator | None = None
    ):
        """config: how the model is fed, which says the frames' size. most: only so many videos, the first by name.
        Raises InputError when one has no poses and there is no estimator."""
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; give one that holds videos.")
        if most is not None and most < 1:
            raise InputError(f"The number of people is {most}; it must be at least 1.")
        videos = sorted(
            path for path in folder.iterdir() if path.is_file() and not is_densepose_of(path) and is_video(path)
        )
        if not videos:
            raise InputError(f"There is no video in {folder}; it must hold NAME.mp4, or another kind of video.")
        self.config, self.size, self.estimator = config, config.size, estimator
        self.pairs = [(video, poses_beside(video)) for video in videos[:most]]
        alone = next((video for video, maps in self.pairs if maps is None), None)
        if estimator is None and alone is not None:
            name = alone.stem
            raise InputError(
                f"There is no DensePose for {shown(alone.name)}; add {name}.npz, {name}.zip, a folder {name} or "
                f"{name}.densepose.mp4 to its folder."
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Clip]:
        for video, maps in self.pairs:
            info, name = probe_video(video), shown(video.name)
            if info.num_frames < FEWEST:
                raise InputError(f"{name} has {info.num_frames} frames; give a video of {FEWEST} or more.")
            size = self.config.shaped_like((info.height, info.width))
            frames = np.stack([fit_image(frame, size) for frame in islice(read_video(video), LATER + MOST)])
            if maps is None:
                poses = self.estimator.estimate(list(frames))
            else:
                poses = read_any(maps).poses
                _check(name, info, poses)
                poses = fitted(poses.clip(0, len(frames)), size)
            own, poses = poses.select([0]), poses.clip(LATER, len(frames))
            if not (own.mask.any() and poses.mask.any()):
                raise InputError(f"No person is found in the frames of {name} that are needed; please leave it out.")
            yield Clip(name, frames[0], own, replace(poses, fps=info.fps), frames[LATER:])


def _check(name: str, info: VideoInfo, poses: PoseSequence) -> None:
    """Raises InputError unless there is a map for each frame, of the frames' shape."""
    if len(poses) != info.num_frames:
        raise InputError(
            f"{name} has {info.num_frames} frames and its DensePose {len(poses)}; give one map for each frame."
        )
    if not same_aspect((info.height, info.width), poses.size):
        sizes = f"{info.height} x {info.width} and its DensePose {poses.size[0]} x {poses.size[1]} (height x width)"
        raise InputError(f"{name} is {sizes}; give maps that were made from this video.")
