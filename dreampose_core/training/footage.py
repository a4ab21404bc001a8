"""Clips on disk to train on: numbered pictures of a person with the DensePose of each, read frame by frame when they are asked for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError, shown
from ..images import read_image
from ..poses import Charts, PoseSequence, read_any, read_poses
from ..scene import same_aspect

LEAST = 2  # frames of a clip: a photo and a target that is another
REPORT = "report.json"  # of `train prepare`: the clips that count, where it made the folder
WHOLE = "poses.npz"  # the maps of all frames in one file, as `mannequin render` writes them
_PICTURE = re.compile(r"frame_(\d+)\.png")


@dataclass(frozen=True)
class Footage:
    """A clip: the folder, its frames' numbers in order of time, and whose U, V its maps have ("none" where they have parts only).

    Beside each frame_<n>.png lies frame_<n>.npz (one map, as `train prepare` writes it) or the original's frame_<n>_densepose.npy; or
    one poses.npz holds the maps of all frames.
    """

    folder: Path
    numbers: tuple[int, ...]
    charts: Charts
    has_parts: bool

    def __len__(self) -> int:
        return len(self.numbers)

    def picture(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 (H, W, 3), RGB. Raises InputError when it is damaged."""
        return read_image(picture_path(self.folder, self.numbers[index]))

    def maps(self, indices: list[int]) -> PoseSequence:
        """The maps of frames `indices`, at the clip's own size. Raises InputError when one is damaged."""
        if (self.folder / WHOLE).is_file():
            return _whole(self.folder / WHOLE).select(np.array(indices))
        unique = sorted(set(indices))
        return _joined([_read_map(self.folder, self.numbers[index]) for index in unique]).select(np.searchsorted(unique, indices))


def find_footage(folder: Path) -> list[Footage]:
    """The clips in `folder`, itself one or with one in each of its folders, by name.

    Raises InputError when there is none, one has a single frame, maps are missing or of another shape than their pictures, or the clips
    have U, V of different charts.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {shown(str(folder))}; give mannequin, or a folder that train prepare made.")
    listed = _listed(folder)
    paths = [folder] if picture_numbers(folder) else sorted(
        path for path in folder.iterdir() if path.is_dir() and path.name[0] != "." and (listed is None or path.name in listed)
        and picture_numbers(path)
    )  # fmt: skip
    if not paths:
        raise InputError(
            f"There are no clips in {shown(str(folder))}; it must hold folders of frame_<n>.png with their DensePose. "
            "Give the folder that `train prepare` made of your videos."
        )
    found = [_footage(path) for path in paths]
    if len(charts := sorted({clip.charts for clip in found} - {"none"})) > 1:
        raise InputError(f"The clips' U, V are of different charts ({', '.join(charts)}); train on clips of one kind.")
    return found


def picture_numbers(folder: Path) -> tuple[int, ...]:
    """The numbers of the pictures frame_<n>.png in a folder, in order."""
    matches = (_PICTURE.fullmatch(path.name) for path in folder.iterdir())
    return tuple(sorted({int(match[1]) for match in matches if match}))


def picture_path(folder: Path, number: int) -> Path:
    """Picture <number> of a folder, with or without zeros before the number."""
    return _named(folder, number, ".png")


def folder_maps(folder: Path) -> PoseSequence | None:
    """The maps of all pictures in a folder; None unless each has one. Raises InputError when one is damaged or they are not of one kind."""
    if (folder / WHOLE).is_file():
        return _whole(folder / WHOLE)
    numbers = picture_numbers(folder)
    if any(_map_path(folder, number) is None for number in numbers):
        return None
    return _joined([_read_map(folder, number) for number in numbers])


def _footage(folder: Path) -> Footage:
    numbers, name = picture_numbers(folder), shown(folder.name)
    if len(numbers) < LEAST:
        raise InputError(f"The clip {name} has one frame; a photo and another frame are needed, so give {LEAST} or more.")
    if (folder / WHOLE).is_file():
        first = _whole(folder / WHOLE)
        if len(first) != len(numbers):
            raise InputError(f"The clip {name} has {len(numbers)} pictures and {len(first)} maps in {WHOLE}; give one map a picture.")
    else:
        missing = next((number for number in numbers if _map_path(folder, number) is None), None)
        if missing is not None:
            raise InputError(f"The clip {name} has no DensePose for frame {missing}; run `train prepare` on it, or remove that frame.")
        first = _read_map(folder, numbers[0])
    size = read_image(picture_path(folder, numbers[0])).shape[:2]
    if not same_aspect(size, first.size):
        sizes = f"{size[0]} x {size[1]} and their DensePose {first.size[0]} x {first.size[1]} (height x width)"
        raise InputError(f"The pictures of clip {name} are {sizes}; give maps that were made from these pictures.")
    return Footage(folder, numbers, first.charts, first.parts is not None)


def _joined(maps: list[PoseSequence]) -> PoseSequence:
    if len({(own.size, own.charts, own.parts is None) for own in maps}) > 1:
        raise InputError("A clip's maps differ in size or kind from frame to frame; give maps of one size and one kind.")
    parts, uv = (
        None if getattr(maps[0], kind) is None else np.concatenate([getattr(own, kind) for own in maps]) for kind in ("parts", "uv")
    )
    return PoseSequence(parts, uv, maps[0].charts)


def _map_path(folder: Path, number: int) -> Path | None:
    paths = (_named(folder, number, ending) for ending in (".npz", "_densepose.npy"))
    return next((path for path in paths if path.is_file()), None)


def _read_map(folder: Path, number: int) -> PoseSequence:
    return read_any(_map_path(folder, number)).poses.select(slice(0, 1))


def _named(folder: Path, number: int, ending: str) -> Path:
    names = (folder / f"frame_{number:0{digits}d}{ending}" for digits in (5, 1, 2, 3, 4, 6, 7, 8, 9, 10))
    return next((path for path in names if path.is_file()), folder / f"frame_{number}{ending}")


def _listed(folder: Path) -> set[str] | None:
    """The clips of the last `train prepare` into this folder, None where it was not made so."""
    try:
        return set(json.loads((folder / REPORT).read_text())["clips"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=4)
def _whole(path: Path) -> PoseSequence:
    return read_poses(path)
