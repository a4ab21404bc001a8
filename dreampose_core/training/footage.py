"""Clips on disk: numbered pictures of a person with the DensePose of each, read from disk on demand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from ..media import read_image
from ..poses import Charts, PoseSequence, read_any

REPORT = "report.json"  # written by `train prepare`: lists the clips that count
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
    parts, uv = (
        None if getattr(maps[0], kind) is None else np.concatenate([getattr(one, kind) for one in maps])
        for kind in ("parts", "uv")
    )
    return PoseSequence(parts, uv, maps[0].charts)


def read_map(path: Path) -> PoseSequence:
    """Read the map next to a picture. Raises InputError."""
    return read_any(path).poses.select(slice(0, 1))
