"""Training samples from clips on disk: pairs of a photo and a target frame with its pose window, a pure function of the
step."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..errors import InputError, shown
from ..inputs.framing import on_map
from ..media import Box, crop_box, fit_image, read_image
from ..poses import WINDOW, Charts, PoseSequence, fitted, mirrored, read_any
from .distributed import Draws, processes

REPORT = "report.json"  # written by `train prepare`: lists the clips that count
_FRAME = re.compile(r"frame_(\d+)(\.png|\.npz|_densepose\.npy)")
_ZOOM = 0.8  # the smallest crop, as a share of the largest that fits in the frame
_STRIDES = (1, 2)  # frames between the maps of a window
_MIRRORED = 0.5, 0.1  # share of mirrored samples if U, V can be mirrored, and if mirroring drops them
_HELD_EVERY = 20  # one clip of so many is held back from training
_WHOLE = 1.0, 0.5, 0.5  # the largest crop, centred
_THREADS = 4  # for reading frames


class Frame(NamedTuple):
    """A picture frame_<number>.png in a folder, with any zeros before the number, and its map next to it.

    map: frame_<number>.npz (from `train prepare`) or frame_<number>_densepose.npy (the original's); None without one.
    """

    number: int
    picture: Path
    map: Path | None


@dataclass(frozen=True)
class Footage:
    """A clip that `train prepare` made: its folder, its frames in order of time, and the charts of its maps ("none" for
    parts only)."""

    folder: Path
    frames: tuple[Frame, ...]
    charts: Charts
    has_parts: bool

    def __len__(self) -> int:
        return len(self.frames)

    def picture(self, index: int) -> np.ndarray:
        """Read frame `index`, uint8 (H, W, 3), RGB. Raises InputError if it is damaged."""
        return read_image(self.frames[index].picture)

    def maps(self, indices: list[int]) -> PoseSequence:
        """Read the maps of frames `indices`. Raises InputError if one is damaged."""
        unique = sorted(set(indices))
        return joined([read_map(self.frames[index].map) for index in unique]).select(np.searchsorted(unique, indices))


@dataclass
class Pairs:
    """B photos with their targets.

    photo: uint8 (B, H, W, 3), with its photo_parts (B, H, W) and photo_uv (B, 2, H, W). target: uint8 (B, H, W, 3).
    window_parts: (B, 5, H, W) and window_uv: (B, 5, 2, H, W); their middle maps are the target's own.
    has_parts, has_uv: (B,) 1 for samples whose maps have parts, or U, V, else 0.
    """

    photo: torch.Tensor
    photo_parts: torch.Tensor
    photo_uv: torch.Tensor
    target: torch.Tensor
    window_parts: torch.Tensor
    window_uv: torch.Tensor
    has_parts: torch.Tensor
    has_uv: torch.Tensor


class VideoSamples:
    """Endless samples of the clips that `train prepare` made in a folder: `batch(step)` is deterministic.

    A photo is frame i of a clip, its target another frame j of the same clip, each with its own crop, both mirrored or
    neither; picture and maps are cropped and mirrored together, and crops stay inside the frame.
    Every twentieth clip, and at least one of three, is held back, see `held_out`.

    size: (height, width). Each process makes only its part of every batch, whose size is a multiple of the processes.
    Raises InputError as `find_footage` does.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int],
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ):
        clips = find_footage(Path(folder))
        self.held = clips[::_HELD_EVERY] if len(clips) > 2 else []
        self.clips = [clip for clip in clips if clip not in self.held]
        self.charts = next((clip.charts for clip in clips if clip.charts != "none"), "none")
        self.size, self.batch_size, self.seed, self.device = size, batch_size, seed, device
        self._pool = ThreadPoolExecutor(_THREADS)

    def batch(self, step: int) -> Pairs:
        """Return the samples of training step `step`."""
        drawn = Draws(self.seed, step, 13).rand(self.batch_size // processes().num_processes, 11).tolist()
        columns = zip(*self._pool.map(self._sample, drawn))
        return Pairs(*(torch.from_numpy(np.stack(column)).to(self.device) for column in columns))

    def held_out(self, count: int) -> list[tuple[np.ndarray, PoseSequence, np.ndarray, PoseSequence]]:
        """Return photo uint8 (H, W, 3), its map, a true frame and its map, of held-back clips, or of training clips if
        there are none."""
        rows, clips = [], self.held or self.clips
        for number in range(count):
            turn, which = divmod(number, len(clips))
            clip = clips[which]
            target = len(clip) - 1 - turn % (len(clip) - 1)
            (photo, image_poses), (truth, poses) = (self._cut(clip, at, [at], _WHOLE, False) for at in (0, target))
            rows.append((photo, image_poses, truth, poses))
        return rows

    def _sample(self, drawn: list[float]) -> tuple:
        """Make one sample; drawn: 11 random numbers in 0..1."""
        which, i, j, stride, flip, *crops = drawn
        clip = self.clips[int(which * len(self.clips))]
        stride = _STRIDES[int(stride * len(_STRIDES))]
        # keep the whole window inside the clip if it is long enough: at its ends maps repeat
        edge = min(2 * stride, max(0, (len(clip) - 2) // 2))
        target = edge + int(j * (len(clip) - 2 * edge))
        others = [at for at in range(len(clip)) if at != target]
        photo = others[int(i * len(others))]
        # U, V without parts cannot be mirrored, because left and right parts are not known
        turn = clip.has_parts and flip < _MIRRORED[clip.charts == "densepose"]
        rgb, image_poses = self._cut(clip, photo, [photo], crops[:3], turn)
        truth, window = self._cut(clip, target, self._window(clip, target, stride), crops[3:], turn)
        has_parts = np.float32(image_poses.parts is not None and window.parts is not None)
        has_uv = np.float32(image_poses.uv is not None and window.uv is not None)
        photo_parts, photo_uv = _arrays(image_poses)
        return rgb, photo_parts[0], photo_uv[0], truth, *_arrays(window), has_parts, has_uv

    def _window(self, clip: Footage, target: int, stride: int) -> list[int]:
        """Return indices of the five frames around `target`; the nearest frame replaces ones left out of the clip."""
        numbers = np.array([frame.number for frame in clip.frames])
        return [int(np.abs(numbers - (numbers[target] + stride * offset)).argmin()) for offset in WINDOW]

    def _cut(
        self, clip: Footage, index: int, maps: list[int], crop: Sequence[float], flip: bool
    ) -> tuple[np.ndarray, PoseSequence]:
        """Cut a crop of a frame and of maps of the clip, in the model's size; crop: three random numbers in 0..1 for
        size and position."""
        rgb, poses = clip.picture(index), clip.maps(maps)
        source = rgb.shape[:2]
        whole = crop_box(source, self.size)
        share, down, across = _ZOOM + (1 - _ZOOM) * crop[0], crop[1], crop[2]
        height, width = share * whole.height, share * whole.width
        box = Box(down * (source[0] - height), across * (source[1] - width), height, width)
        rgb, poses = fit_image(rgb, self.size, box), fitted(poses, self.size, on_map(box, source, poses.size))
        if not flip:
            return rgb, poses
        return np.ascontiguousarray(rgb[:, ::-1]), mirrored(poses)


def _arrays(poses: PoseSequence) -> tuple[np.ndarray, np.ndarray]:
    """Return parts uint8 (T, H, W) and uv float16 (T, 2, H, W); unknown parts become the person's outline as part 1,
    unknown U, V zeros."""
    parts = poses.mask.astype(np.uint8) if poses.parts is None else poses.parts
    uv = np.zeros((len(poses), 2, *poses.size), np.float16) if poses.uv is None else poses.uv
    return parts, uv


def find_footage(folder: Path) -> list[Footage]:
    """Return the clips that `train prepare` made in `folder`, by name. Raises InputError if there is none, or they have
    U, V of different charts."""
    try:
        names = sorted(json.loads((folder / REPORT).read_text())["clips"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"There are no clips in {shown(str(folder))}; give a folder that train draw or train prepare made."
        ) from error
    clips = []
    for name in names:
        frames = frames_in(folder / name)
        first = read_map(frames[0].map)
        clips.append(Footage(folder / name, frames, first.charts, first.parts is not None))
    kinds = {clip.charts: clip.folder.name for clip in clips if clip.charts != "none"}
    if len(kinds) > 1:
        which = ", ".join(f"{charts} in {shown(name)}" for charts, name in sorted(kinds.items()))
        raise InputError(f"The clips' U, V are of different charts ({which}); train on clips of one kind.")
    return clips


def frames_in(folder: Path) -> tuple[Frame, ...]:
    """List the frames in a folder, in the order of their numbers."""
    by_number: dict[int, dict[str, Path]] = {}
    for path in folder.iterdir():
        if match := _FRAME.fullmatch(path.name):
            by_number.setdefault(int(match[1]), {})[match[2]] = path
    return tuple(
        Frame(number, files[".png"], files.get(".npz") or files.get("_densepose.npy"))
        for number, files in sorted(by_number.items())
        if ".png" in files
    )


def joined(maps: list[PoseSequence]) -> PoseSequence:
    """Join single maps. Raises InputError if they differ in size or kind."""
    if len({(one.size, one.charts, one.parts is None) for one in maps}) > 1:
        raise InputError(
            "A clip's maps differ in size or kind from frame to frame; give maps of one size and one kind."
        )
    arrays = {name: np.concatenate([getattr(one, name) for one in maps]) for name in maps[0].maps}
    return PoseSequence(arrays.get("parts"), arrays.get("uv"), maps[0].charts)


def read_map(path: Path) -> PoseSequence:
    """Read the map next to a picture. Raises InputError."""
    return read_any(path).poses.select(slice(0, 1))
