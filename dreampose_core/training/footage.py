"""Clips on disk to train on: numbered pictures of a person with the DensePose of each, read from disk on demand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from ..media import read_image, same_aspect
from ..poses import Charts, PoseSequence, read_any, read_poses

LEAST = 2  # frames of a clip: a photo and a different target
REPORT = "report.json"  # written by `train prepare`: lists the clips that count
WHOLE = "poses.npz"  # the maps of all frames in one file, as written by `mannequin render`
_FRAME = re.compile(r"frame_(\d+)(\.png|\.npz|_densepose\.npy)")


@dataclass(frozen=True)
class Frame:
    """A picture frame_<number>.png in a folder, with any zeros before the number, and its map next to it.

    map: frame_<number>.npz (from `train prepare`) or frame_<number>_densepose.npy (the original's); None without one.
    """

    number: int
    picture: Path
    map: Path | None


@dataclass(frozen=True)
class Footage:
    """A clip: its folder, its frames in order of time, and the charts of its maps ("none" for parts only).

    Maps are files next to the frames' pictures, or one poses.npz holds the maps of all frames.
    """

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
        """Read the maps of frames `indices`, at the clip's own size. Raises InputError if one is damaged."""
        if (self.folder / WHOLE).is_file():
            return _whole(self.folder / WHOLE).select(np.array(indices))
        unique = sorted(set(indices))
        return joined([read_map(self.frames[index].map) for index in unique]).select(np.searchsorted(unique, indices))


def find_footage(folder: Path) -> list[Footage]:
    """Find the clips in `folder`, by name: the folder itself, or one in each of its folders.

    Raises InputError if there is none, one has a single frame, maps are missing or of another shape than their
    pictures, or the clips have U, V of different charts.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {shown(str(folder))}; give one that train draw or train prepare made.")
    if frames := frames_in(folder):
        return [_footage(folder, frames)]
    listed = _listed(folder)
    paths = (
        path
        for path in folder.iterdir()
        if path.is_dir() and path.name[0] != "." and (listed is None or path.name in listed)
    )
    clips = [_footage(path, frames) for path in sorted(paths) if (frames := frames_in(path))]
    if not clips:
        raise InputError(
            f"There are no clips in {shown(str(folder))}; it must hold folders of frame_<n>.png with their DensePose. "
            "Give the folder that `train prepare` made of your videos."
        )
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


def _footage(folder: Path, frames: tuple[Frame, ...]) -> Footage:
    name = shown(folder.name)
    if len(frames) < LEAST:
        raise InputError(
            f"The clip {name} has one frame; a photo and another frame are needed, so give {LEAST} or more."
        )
    if (folder / WHOLE).is_file():
        first = _whole(folder / WHOLE)
        if len(first) != len(frames):
            raise InputError(
                f"The clip {name} has {len(frames)} pictures and {len(first)} maps in {WHOLE}; give one map a picture."
            )
    else:
        missing = next((frame.number for frame in frames if frame.map is None), None)
        if missing is not None:
            raise InputError(
                f"The clip {name} has no DensePose for frame {missing}; run `train prepare` on it, or remove that "
                "frame."
            )
        first = read_map(frames[0].map)
    size = read_image(frames[0].picture).shape[:2]
    if not same_aspect(size, first.size):
        sizes = f"{size[0]} x {size[1]} and their DensePose {first.size[0]} x {first.size[1]} (height x width)"
        raise InputError(f"The pictures of clip {name} are {sizes}; give maps that were made from these pictures.")
    return Footage(folder, frames, first.charts, first.parts is not None)


def joined(maps: list[PoseSequence]) -> PoseSequence:
    """Join single maps. Raises InputError if they differ in size or kind."""
    if len({(one.size, one.charts, one.parts is None) for one in maps}) > 1:
        raise InputError(
            "A clip's maps differ in size or kind from frame to frame; give maps of one size and one kind."
        )
    parts, uv = (
        None if getattr(maps[0], kind) is None else np.concatenate([getattr(one, kind) for one in maps])
        for kind in ("parts", "uv")
    )
    return PoseSequence(parts, uv, maps[0].charts)


def read_map(path: Path) -> PoseSequence:
    """Read the map next to a picture. Raises InputError."""
    return read_any(path).poses.select(slice(0, 1))


def _listed(folder: Path) -> set[str] | None:
    """Return the clips of the last `train prepare` into this folder, or None for a folder of other origin."""
    try:
        return set(json.loads((folder / REPORT).read_text())["clips"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=4)
def _whole(path: Path) -> PoseSequence:
    return read_poses(path)
