"""Clips for evaluation: held-out drawn people with the body tracker's maps, and real videos with their DensePose; and
errors like an estimator's for the photo's map, to measure how robust a model is to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..densepose import Estimator
from ..errors import InputError, shown
from ..media import fit_image, is_video, probe_video, read_video, same_aspect
from ..model.config import ModelConfig
from ..poses import PoseSequence, fitted, is_densepose_of, poses_beside, read_any
from ..synthetic import HELD_OUT, Person
from ..synthetic.clips import SHAPES, draw_clip, exact_clip

LATER, MOST, FEWEST = 5, 50, 12  # a real clip's frames: left out at the start, scored at most, needed in all
DISTURBED = ("displaced_1", "displaced_2", "uv_noise", "holes", "parts_only", "absent")
UV_NOISE = 0.05  # standard deviation; U and V are 0..1
HOLES, HOLE = 6, 0.08  # number of missing squares, and their side as a share of the picture's height
_BLOCK = 0.05  # share of the picture's height over which U, V noise is alike, since an estimator's errors are smooth


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


def disturbances(image_poses: PoseSequence, seed: int) -> dict[str, PoseSequence | None]:
    """Perturb a photo's pose map (one frame) in every way; returns the results by the names in DISTURBED.

    displaced_1, displaced_2: moved by 1 and 2 % of the height, up, down, left or right. uv_noise: smooth noise on U and
    V. holes: squares of the person missing. parts_only: without U, V. absent: None. Perturbations that need parts or
    U, V are left out where these are missing. `seed` determines all randomness.
    """
    random = np.random.default_rng(seed)
    axis, sign = int(random.integers(2)), int(random.choice((-1, 1)))
    made: dict[str, PoseSequence | None] = {}
    for percent in (1, 2):
        pixels = max(1, round(percent / 100 * image_poses.size[0]))
        made[f"displaced_{percent}"] = displaced(image_poses, axis, sign * pixels)
    if image_poses.uv is not None:
        made["uv_noise"] = with_uv_noise(image_poses, random)
    made["holes"] = with_holes(image_poses, random)
    if image_poses.parts is not None:
        made["parts_only"] = replace(image_poses, uv=None, charts="none")
    return {**made, "absent": None}


def displaced(poses: PoseSequence, axis: int, pixels: int) -> PoseSequence:
    """Move pose maps by `pixels` down (axis 0) or to the right (axis 1); the uncovered pixels become background."""

    def moved(array: np.ndarray) -> np.ndarray:
        out = np.roll(array, pixels, axis - 2)
        np.moveaxis(out, axis - 2, 0)[slice(pixels) if pixels > 0 else slice(pixels, None)] = 0
        return out

    return replace(poses, **{name: moved(array) for name, array in poses.maps.items()})


def with_uv_noise(poses: PoseSequence, random: np.random.Generator) -> PoseSequence:
    """Add smooth noise of standard deviation UV_NOISE to the person's U and V, clipped to 0..1."""
    height, width = poses.size
    block = max(1, round(_BLOCK * height))
    noise = np.empty(poses.uv.shape, np.float32)
    for plane in noise.reshape(-1, height, width):
        coarse = random.normal(0, UV_NOISE, (height // block + 2, width // block + 2)).astype(np.float32)
        plane[:] = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise *= UV_NOISE / noise.std()  # interpolation reduces the deviation
    uv = np.where(poses.mask[:, None], (poses.uv + noise).clip(0, 1), 0)
    return replace(poses, uv=uv.astype(np.float16))


def with_holes(poses: PoseSequence, random: np.random.Generator) -> PoseSequence:
    """Turn HOLES squares around random pixels of the person into background."""
    side = max(1, round(HOLE * poses.size[0]))
    arrays = {name: array.copy() for name, array in poses.maps.items()}
    for index, mask in enumerate(poses.mask):
        rows, columns = np.nonzero(mask)
        for middle in random.integers(len(rows), size=HOLES) if len(rows) else ():
            top, left = max(0, rows[middle] - side // 2), max(0, columns[middle] - side // 2)
            for array in arrays.values():
                array[index, ..., top : top + side, left : left + side] = 0
    return replace(poses, **arrays)
