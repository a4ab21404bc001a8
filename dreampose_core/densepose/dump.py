"""Read the dumps of detectron2's `apply_net.py dump`: pickles, so only from the command line on the user's own machine.

Naive unpickling may run any code. Here torch's restricted unpickler reads the file: it allows tensors, lists, dicts,
strings and numbers, and replaces DensePose's two result classes by an inert class that only keeps tensors. It refuses
every other name.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, shown
from ..media import read_image
from ..media.images import MAX_PIXELS, MAX_SIDE
from ..poses import NUM_PARTS, Frames, Reading
from ..poses.numbered import MAX_FRAMES_READ, gap_notices, in_time, refusing
from ..poses.sources import reduced, reduction_notice
from .follow import Detection, followed, place

FORM = "detectron2 dump"
_CLASSES = ("DensePoseChartResult", "DensePoseChartResultQuantized")
_MODULE = "densepose.structures.chart_result"
_ACCEPTED = (
    "a .pkl that detectron2's `apply_net.py dump` wrote with a chart model (such as densepose_rcnn_R_50_FPN_s1x) "
    "is accepted"
)


class _ChartResult:
    """Replaces DensePose's result classes while a dump is read: keeps three fields' tensors and does nothing else."""

    labels = uv = labels_uv_uint8 = None

    def __setstate__(self, state: Any) -> None:
        for name in ("labels", "uv", "labels_uv_uint8"):
            if isinstance(state, dict) and isinstance(state.get(name), torch.Tensor):
                setattr(self, name, state[name])


@dataclass(frozen=True)
class _Picture:
    """One entry of the dump: a picture's path, its name without folders, and its people, each with a _ChartResult."""

    path: str
    name: str
    people: list[Detection]


def read_dump(path: str | Path, person: int | None = None, size: tuple[int, int] | None = None) -> Reading:
    """Read the maps (charts "densepose") of the followed person from the dump at `path`.

    person: which person to follow, see follow.followed. size: (height, width) of the pictures; None takes it from the
    pictures if they lie next to the dump, or under their names in the working folder, else from the boxes. Frames are
    ordered by the last number in the pictures' names. Missing numbers, and pictures without the person, repeat the
    nearest map.

    Raises InputError with one sentence for any other file.
    """
    path = Path(path)
    name = shown(path.name)
    frames, numbers, notices = _in_order([_picture(name, entry) for entry in _load(path)], name)
    people = [picture.people if picture else [] for picture in frames]
    with refusing(f"{name} cannot be followed.", f"{name}: "):
        chosen = followed(people, person)
    known = np.array([index is not None for index in chosen])
    if not known.any():
        raise InputError(f"{name} shows no person in any of its {len(frames)} frames; give a dump with a person.")
    notices += gap_notices(known, f"In {name} the person is missing in", numbers)
    size, size_notices = _frame_size([picture for picture in frames if picture], path, size)

    def decode(index: int) -> dict[str, np.ndarray]:
        detection = people[index][chosen[index]]
        whole = np.zeros((3, *size), np.float16)
        place(_maps(detection, f"{shown(frames[index].name)} in {name}"), detection.box, whole)
        small = reduced(whole.transpose(1, 2, 0)).transpose(2, 0, 1)
        return {"parts": small[0].astype(np.uint8), "uv": small[1:]}

    slots = tuple(np.flatnonzero(known).tolist())
    notices += (*size_notices, *reduction_notice(size))
    return Frames(slots, name, "pictures", slots, numbers, notices=notices).decoded(decode, "densepose", FORM)


def _load(path: Path) -> list:
    """Load the list in the pickle at `path`; tensors are memory-mapped where the format allows it."""
    if not os.path.isfile(path):
        raise InputError(f"There is no dump at {shown(str(path))}; please check the path.")
    name = shown(path.name)
    try:
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        names = [(_ChartResult, f"{_MODULE}.{class_name}") for class_name in _CLASSES]
        with torch.serialization.safe_globals(names), warnings.catch_warnings():
            # torch warns of pickles of another protocol, which it then refuses anyway
            warnings.simplefilter("ignore", UserWarning)
            entries = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # hostile and damaged files may raise any exception
        found = re.search(r"\bGLOBAL (\S{1,200})|for unrecognized function (.{1,200}?)(?: which|\n|$)", str(error))
        wanted = shown(found[1] or found[2]) if found else ""
        reason = f"cannot be read as a dump; it is damaged, cut short or of another kind: {_ACCEPTED}"
        if isinstance(error, PermissionError):
            reason = "may not be read; please check the file's permissions"
        elif "mbedding" in wanted:
            reason = f"is a dump of a CSE model ({wanted}), which has no parts and no U, V; {_ACCEPTED}"
        elif wanted:
            reason = f"asks for {wanted}, which no dump needs; nothing of it was run, and only {_ACCEPTED}"
        raise InputError(f"{name} {reason}.") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{name} does not hold a list of pictures with their DensePose results; {_ACCEPTED}.")
    if len(entries) > MAX_FRAMES_READ:
        raise InputError(f"{name} holds {len(entries)} pictures; at most {MAX_FRAMES_READ} are accepted.")
    return entries


def _picture(name: str, entry: Any) -> _Picture:
    """Check one entry of the dump, except for the people's maps."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise InputError(f"{name} holds an entry without file_name; {_ACCEPTED}.")
    file_name = re.split(r"[/\\]", entry["file_name"])[-1]
    where = f"{shown(file_name)} in {name}"
    results = entry.get("pred_densepose", [])
    results = results if isinstance(results, list) else [None]
    boxes = _array(entry.get("pred_boxes_XYXY", torch.zeros(0, 4)), 2)
    scores = _array(entry.get("scores", torch.ones(len(results))), 1)
    fits = boxes is not None and scores is not None and len(boxes) == len(scores) == len(results)
    fits = fits and boxes.shape[1] == 4 and np.isfinite(boxes).all() and np.isfinite(scores).all()
    if not fits or not all(isinstance(result, _ChartResult) for result in results):
        raise InputError(f"{where} has no scores, boxes and chart results that belong together; {_ACCEPTED}.")
    found = zip(boxes.astype(float).tolist(), scores.astype(float).tolist(), results)
    people = [Detection(tuple(box), score, result) for box, score, result in found]
    return _Picture(entry["file_name"], file_name, people)


def _in_order(pictures: list[_Picture], name: str) -> tuple[list[_Picture | None], Sequence[int], tuple[str, ...]]:
    """Order the pictures by the last number in their names: pictures (None for a gap), frame numbers, notices."""
    if len(pictures) > 1 and not all(re.search("[0-9]", os.path.splitext(picture.name)[0]) for picture in pictures):
        notice = f"Not every picture in {name} has a number in its name, so the frames are in the order of the dump."
        return list(pictures), range(len(pictures)), (notice,)
    ordered, slots, numbers = in_time(pictures, name, "pictures")
    known = dict(zip(slots, ordered))
    return [known.get(slot) for slot in range(len(numbers))], numbers, ()


def _frame_size(
    pictures: list[_Picture], path: Path, size: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Determine (height, width) of the pictures; returns it with notices."""
    name = shown(path.name)
    boxes = np.array([person.box for picture in pictures for person in picture.people]).reshape(-1, 4)
    width, height = np.ceil(boxes[:, 2:].max(axis=0)).clip(1)
    high, wide = size or (height, width)
    if max(height, width, high, wide) > MAX_SIDE or high * wide > MAX_PIXELS:
        raise InputError(
            f"{name} is about pictures of {wide:g} x {high:g} pixels; at most {MAX_PIXELS // 1_000_000} megapixels "
            f"and {MAX_SIDE} pixels per side are accepted, please scale the pictures down and dump them again."
        )
    if height > high + 1 or width > wide + 1:
        true = f"so its pictures are not {wide} x {high}; give their true size"
        raise InputError(f"{name} has people reaching to {width:g} x {height:g} pixels, {true}.")
    if size is not None:
        return size, ()
    height, width = int(height), int(width)
    for photo in _photos(pictures, path):
        with suppress(InputError):
            found = read_image(photo).shape[:2]
            if height <= found[0] + 1 and width <= found[1] + 1:
                return found, (f"The frames' size, {found[1]} x {found[0]} pixels, is that of {shown(photo.name)}.",)
    notice = (
        f"{name} does not say how large its pictures are; {width} x {height} pixels is inferred from the "
        "people's boxes, so the border at the right and the bottom may be missing (to have it, put the pictures "
        "next to the dump or give their size)."
    )
    return (height, width), (notice,)


def _photos(pictures: list[_Picture], path: Path) -> Iterable[Path]:
    """Find pictures of the dump that still exist, only in the dump's and the working folder, whatever their names."""
    for picture in pictures[:1] + pictures[1:][-1:]:
        folders = re.split(r"[/\\]", picture.path)
        names = (picture.path, picture.name) if folders[0] and ".." not in folders else (picture.name,)
        for folder in (path.parent, Path()):
            yield from (folder / name for name in names if os.path.isfile(folder / name))


def _maps(person: Detection, where: str) -> np.ndarray:
    """Read a person's label, U and V (3, h, w), U, V in 0..1, within their box. Raises InputError."""
    x0, y0, x1, y1 = person.box
    box, result = (max(int(y1 - y0), 1), max(int(x1 - x0), 1)), person.payload
    labels, uv, both = _array(result.labels, 2), _array(result.uv, 3), _array(result.labels_uv_uint8, 3)
    if both is not None and both.dtype == np.uint8 and len(both) == 3:
        labels, uv = both[0], both[1:].astype(np.float32) / 255
    fits = labels is not None and labels.dtype.kind in "iu" and uv is not None and uv.dtype.kind == "f"
    fits = fits and labels.size and uv.shape == (2, *labels.shape) and labels.min() >= 0 and labels.max() <= NUM_PARTS
    uv = np.where(labels > 0, uv, 0) if fits else np.nan
    if not np.isfinite(uv).all() or max(abs(a - b) for a, b in zip(labels.shape, box)) > 1:
        what = f"labels from 0 to {NUM_PARTS} and finite U, V that fit its box of {box[1]} x {box[0]} pixels"
        raise InputError(f"The result of {where} does not have {what}; please dump it again.")
    return np.stack([labels, *uv.clip(0, 1)])


def _array(tensor: Any, dims: int) -> np.ndarray | None:
    """Convert a plain tensor of `dims` dimensions to numpy, without a copy where possible; None for anything else."""
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != dims or tensor.is_complex():
        return None
    if 0 in tensor.shape[1:] or tensor.numel() > 3 * MAX_PIXELS:
        return None
    try:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    except (TypeError, RuntimeError):  # sparse, or of a dtype that numpy lacks
        return None
