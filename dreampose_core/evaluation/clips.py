"""Clips for evaluation: held-out drawn people with the body tracker's maps, and real videos with their DensePose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch

from ..densepose import Estimator
from ..errors import InputError, shown
from ..media import fit_image, is_video, probe_video, read_video, same_aspect
from ..model.config import ModelConfig
from ..poses import PoseSequence, fitted, is_densepose_of, poses_beside, read_any
from ..synthetic import HELD_OUT, Person
from ..synthetic.clips import SHAPES, draw_clip, exact_clip

LATER, MOST, FEWEST = 5, 50, 12  # a real clip's frames: left out at the start, scored at most, needed in all


@dataclass(frozen=True)
class Clip:
    """A photo, T target pose maps and the true frames, in the model's size.

    photo: uint8 (H, W, 3). image_poses: its pose map (one frame). poses: T pose maps. truth: uint8 (T, H, W, 3).
    """

    name: str
    photo: np.ndarray
    image_poses: PoseSequence
    poses: PoseSequence
    truth: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    def cut(self, frames: slice) -> Clip:
        """Return the clip with only these frames."""
        return replace(self, poses=self.poses.select(frames), truth=self.truth[frames])

    def made_by(self, pipe, seed: int, count: int | None = None, **options) -> np.ndarray:
        """Generate the clip's first `count` frames, or all, with the model from the photo: uint8 (T, H, W, 3)."""
        generator = torch.Generator().manual_seed(seed)
        stream = pipe.stream(self.photo, self.poses, self.image_poses, generator=generator, **options)
        return np.stack(list(islice(stream, count)))


def walking(size: tuple[int, int], count: int) -> Clip:
    """Draw a held-out person's photo and `count` frames with exact maps, eight of them again and again."""
    person = Person.from_seed(HELD_OUT)
    times = torch.cat([torch.zeros(1), 1 + torch.arange(min(count, 8)) / 10])
    rgb, poses = exact_clip(person, person.moments("walk", times), size, 10.0)
    again = 1 + np.resize(np.arange(len(poses) - 1), count)
    return Clip("walking", rgb[0], poses.select([0]), poses.select(again), rgb[again])


class DrawnPeople:
    """Clips of held-out people in held-out motions, with the body tracker's pose maps, which are not exact.

    The photo comes before the frames, which are scored from the sixth on.
    """

    kind = "held-out drawn people, tracked"

    def __init__(self, people: int, config: ModelConfig, estimator: Estimator):
        """people: at least 1. config: the model's config, which sets the frames' size."""
        self.people, self.size, self.estimator = people, config.size, estimator
        self.sizes = SHAPES if config.free_shape else (config.size,)

    def __len__(self) -> int:
        return self.people

    def __iter__(self) -> Iterator[Clip]:
        drawn = (draw_clip(0, number, self.estimator, sizes=self.sizes, held_out=True) for number in count())
        for number, clip in enumerate(islice((clip for clip in drawn if clip is not None), self.people)):
            poses = clip.poses.clip(LATER, len(clip.frames))
            yield Clip(f"drawn {number}", clip.photo, clip.image_poses, poses, clip.frames[LATER:])


class VideoClips:
    """Clips from real videos: the photo is frame 0; frames from the sixth on are scored, at most MOST of them.

    The folder holds NAME.mp4 (or another video) and its DensePose with one pose map for each frame: NAME.npz, NAME.zip,
    a folder NAME, or a rendering NAME.densepose.mp4. Without such a file `estimator` makes the pose maps. Frames are
    padded to the model's shape, not cropped.
    """

    kind = "videos"

    def __init__(
        self, folder: str | Path, config: ModelConfig, most: int | None = None, estimator: Estimator | None = None
    ):
        """config: the model's config, which sets the frames' size. most: use only the first so many videos by name.
        Raises InputError when the folder is missing or has no video, or a video has no DensePose and there is no
        estimator."""
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; give one that holds videos.")
        files = sorted(path for path in folder.iterdir() if path.is_file() and not is_densepose_of(path))
        videos = [path for path in files if is_video(path)]
        if not videos:
            raise InputError(f"There is no video in {folder}; it must hold NAME.mp4, or another kind of video.")
        self.config, self.size, self.estimator = config, config.size, estimator
        self.pairs = [(video, poses_beside(video)) for video in videos[:most]]
        alone = next((video for video, maps in self.pairs if maps is None), None)
        if estimator is None and alone is not None:
            forms = f"{alone.stem}.npz, {alone.stem}.zip, a folder {alone.stem} or {alone.stem}.densepose.mp4"
            raise InputError(f"There is no DensePose for {shown(alone.name)}; add {forms} to its folder.")

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
                if len(poses) != info.num_frames:
                    counts = f"{name} has {info.num_frames} frames and its DensePose {len(poses)}"
                    raise InputError(f"{counts}; give one map for each frame.")
                if not same_aspect((info.height, info.width), poses.size):
                    sizes = f"{info.height} x {info.width} and its DensePose {poses.size[0]} x {poses.size[1]}"
                    raise InputError(f"{name} is {sizes} (height x width); give maps that were made from this video.")
                poses = fitted(poses.clip(0, len(frames)), size)
            image_poses, poses = poses.select([0]), poses.clip(LATER, len(frames))
            if not (image_poses.mask.any() and poses.mask.any()):
                raise InputError(f"{name} shows no person in its first frame or in the scored frames; leave it out.")
            yield Clip(name, frames[0], image_poses, replace(poses, fps=info.fps), frames[LATER:])
