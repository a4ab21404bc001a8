"""Clips for evaluation: held-out mannequins with exact pose maps, held-out drawn people with the body tracker's pose
maps, and real videos with their DensePose."""

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
from ..synthetic import HELD_OUT, Figure, render_clip
from ..synthetic.clips import SHAPES, draw_clip
from ..synthetic.motion import HELD_OUT_MOTIONS

FRAMES, FPS, LATER_S = 40, 20.0, 1.0  # a mannequin's clip; it begins LATER_S seconds after the photo
FRONT, NEARLY = 2, 0.8  # DensePose's part for the torso's front; the photo shows at least this share of its maximum
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


class MannequinClips:
    """Clips of held-out figures: person k is figure 10,000 + k, in the held-out motions by turns.

    A clip's frames begin LATER_S seconds after the photo. The photo shows the person from the front,
    as real photos do: a photo from behind would not show the face.
    """

    kind = "held-out mannequins"

    def __init__(self, people: int, size: tuple[int, int], num_frames: int = FRAMES):
        """people: at least 1. size: the model's (height, width). num_frames: of each clip."""
        self.people, self.size, self.num_frames = people, size, num_frames

    def __len__(self) -> int:
        return self.people

    def __iter__(self) -> Iterator[Clip]:
        for person in range(self.people):
            seed, motion = HELD_OUT + person, HELD_OUT_MOTIONS[person % len(HELD_OUT_MOTIONS)]
            figure = Figure.from_seed(seed)
            start_s = photo_s(figure, motion)
            photo, image_poses = render_clip(figure, motion, 1, self.size, fps=FPS, start_s=start_s)
            rgb, poses = render_clip(figure, motion, self.num_frames, self.size, fps=FPS, start_s=start_s + LATER_S)
            yield Clip(f"{seed} {motion}", photo[0].numpy(), image_poses, poses, rgb.numpy())


def walking(size: tuple[int, int], count: int) -> Clip:
    """Draw a mannequin's photo and `count` frames with exact maps, eight of them again and again."""
    figure = Figure.from_seed(HELD_OUT)
    photo, image_poses = render_clip(figure, "walk", 1, size)
    frames, poses = render_clip(figure, "walk", min(count, 8), size, fps=10.0, start_s=1.0)
    again = np.resize(np.arange(len(poses)), count)
    return Clip("walking", photo[0].numpy(), image_poses, poses.select(again), frames.numpy()[again])


class DrawnPeople:
    """Clips of people drawn as triangle meshes in held-out motions, with the body tracker's pose maps, which are not
    exact. The photo comes before the frames, which are scored from the sixth on."""

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


def photo_s(figure: Figure, motion: str) -> float:
    """Choose when to take the figure's photo: seconds from the motion's start, a multiple of 0.5 below 5.

    Candidates show at least the share NEARLY of the most front torso that any moment shows. Among them, the function
    takes the one after which the least of the front is visible, so the model has the most to invent.
    """
    _, poses = render_clip(figure, motion, 16, (80, 64), fps=2)
    front = (poses.parts == FRONT).sum((1, 2))
    later = np.array([front[moment + 2 : moment + 6].mean() for moment in range(10)])  # the scored frames
    return float(np.where(front[:10] >= NEARLY * front[:10].max(), later, np.inf).argmin()) / 2


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
