"""Reads what detectron2's `apply_net.py dump` writes: a pickle, so for the command line on the user's own machine only.

A pickle may run any code when it is read naively. Here torch's restricted reader takes it: tensors, lists, dicts, texts
and numbers, and in place of DensePose's two classes for results one inert stand-in that only keeps tensors. Every other
name is refused.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from ..errors import InputError, shown
from ..media import read_image
from ..media.images import MAX_PIXELS, MAX_SIDE
from ..poses import NUM_PARTS, PoseSequence
from ..poses.gaps import gap_notices, repeat_nearest
from ..poses.numbered import in_time
from ..poses.pictures import kept, reduction_notice
from ..poses.reading import DEFAULT_FPS, MAX_FRAMES_READ, NO_RATE, Reading
from .follow import Detection, followed

FORM = "detectron2 dump"
_CLASSES = ("DensePoseChartResult", "DensePoseChartResultQuantized")
_MODULE = "densepose.structures.chart_result"
_ACCEPTED = (
    "a .pkl that detectron2's `apply_net.py dump` wrote with a chart model (such as densepose_rcnn_R_50_FPN_s1x) "
    "is accepted"
)


class _ChartResult:
    """Stands for DensePose's classes while a dump is read: keeps the tensors of three known fields and does nothing."""

    labels = uv = labels_uv_uint8 = None

    def __setstate__(self, state: Any) -> None:
        for name in ("labels", "uv", "labels_uv_uint8"):
            if isinstance(state, dict) and isinstance(state.get(name), torch.Tensor):
                setattr(self, name, state[name])


@dataclass(frozen=True)
class _Picture:
    """One entry of the dump: who is seen in one picture. payload of the detections: their _ChartResult."""

    file_name: str
    people: list[Detection]

    @property
    def base(self) -> str:
        return re.split(r"[/\\]", self.file_name)[-1]

    @property
    def name(self) -> str:
        """For sentences."""
        return shown(self.base)


def read_dump(path: str | Path, person: int | None = None, size: tuple[int, int] | None = None) -> Reading:
    """The followed person's maps (charts "densepose") from the dump at `path`.

    person: whom to follow, see follow.followed. size: (height, width) of the pictures; None takes it from the pictures
    where they lie beside the dump or at their names below the working folder, else from the boxes. Frames are ordered
    by the last number in the pictures' names; numbers that are left out, and pictures without the person, are filled by
    poses.gaps.

    Raises InputError with one sentence for anything that is not such a dump.
    """
    path = Path(path)
    name = shown(path.name)
    frames, numbers, notices = _in_order([_picture(name, entry) for entry in _load(path)], name)
    people = [picture.people if picture else [] for picture in frames]
    try:
        chosen = followed(people, person)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    known = np.array([index is not None for index in chosen])
    if not known.any():
        raise InputError(
            f"{name} shows nobody in any of its {len(frames)} frames; please give a dump of pictures with a person."
        )
    gaps = gap_notices(known, f"In {name} the person is missing in", numbers)
    size, said = _frame_size([picture for picture in frames if picture], path, size)
    rows, columns = kept(*size)
    parts = np.zeros((len(frames), len(rows), len(columns)), np.uint8)
    uv = np.zeros((len(frames), 2, len(rows), len(columns)), np.float16)
    for i in np.flatnonzero(known):
        where = f"{frames[i].name} in {name}"
        if parts.shape[1:] == size:
            _paste(people[i][chosen[i]], parts[i], uv[i], where)
        else:
            whole_parts, whole_uv = np.zeros(size, np.uint8), np.zeros((2, *size), np.float16)
            _paste(people[i][chosen[i]], whole_parts, whole_uv, where)
            parts[i], uv[i] = whole_parts[rows[:, None], columns], whole_uv[:, rows[:, None], columns]
    for maps in (parts, uv):
        repeat_nearest(maps, known)
    notices += [*gaps, *said, *reduction_notice(size)]
    if len(frames) > 1:
        notices.append(NO_RATE)
    return Reading(PoseSequence(parts, uv, "densepose", DEFAULT_FPS), FORM, tuple(notices))


def _load(path: Path) -> list:
    """The list that the pickle at `path` holds, with tensors mapped from the file where its form allows it."""
    if not os.path.isfile(path):
        raise InputError(f"There is no dump at {shown(str(path))}; please check the path.")
    names = [(_ChartResult, f"{_MODULE}.{name}") for name in _CLASSES]
    try:
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        with torch.serialization.safe_globals(names), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # about pickles of another protocol, which are then refused anyway
            entries = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # hostile and damaged files raise nearly every kind
        _refuse(path, error)
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f"{shown(path.name)} does not hold a list of pictures with their DensePose results; {_ACCEPTED}."
        )
    if len(entries) > MAX_FRAMES_READ:
        raise InputError(
            f"{shown(path.name)} holds {len(entries)} pictures; at most {MAX_FRAMES_READ} are accepted, please dump "
            "fewer."
        )
    return entries


def _refuse(path: Path, error: Exception) -> NoReturn:
    text = str(error)
    named = re.search(r"\bGLOBAL (\S{1,200})", text) or re.search(
        r"for unrecognized function (.{1,200}?)(?: which|\n|$)", text
    )
    name, wanted = shown(path.name), shown(named[1]) if named else ""
    if isinstance(error, PermissionError):
        raise InputError(f"{name} may not be read; please check the file's permissions.") from error
    if "mbedding" in wanted:
        raise InputError(
            f"{name} is a dump of a CSE model ({wanted}), which has no parts and no U, V; {_ACCEPTED}."
        ) from error
    if wanted:
        raise InputError(
            f"{name} asks for {wanted}, which no dump of DensePose results needs; nothing of it was run, and "
            f"only {_ACCEPTED}."
        ) from error
    raise InputError(
        f"{name} cannot be read as a dump; it is damaged, cut short or of another kind: {_ACCEPTED}."
    ) from error


def _picture(name: str, entry: Any) -> _Picture:
    """One entry of the dump, checked but for the people's maps."""
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise InputError(f"{name} holds an entry without file_name; {_ACCEPTED}.")
    picture = _Picture(entry["file_name"], [])
    boxes = _array(entry.get("pred_boxes_XYXY", torch.zeros(0, 4)), 2)
    results = entry.get("pred_densepose", [])
    count = len(results) if isinstance(results, list) else -1
    scores = _array(entry.get("scores", torch.ones(max(count, 0))), 1)
    if boxes is None or scores is None or not count == len(boxes) == len(scores) or (count and boxes.shape[1] != 4):
        raise InputError(
            f"{picture.name} in {name} has scores, boxes and results that do not belong together; {_ACCEPTED}."
        )
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise InputError(
            f"{picture.name} in {name} has boxes or scores that are not finite numbers; please dump it again."
        )
    if not all(isinstance(result, _ChartResult) for result in results):
        raise InputError(f"{picture.name} in {name} has results that are not DensePose chart results; {_ACCEPTED}.")
    found = zip(boxes.astype(float).tolist(), scores.astype(float).tolist(), results)
    picture.people.extend(Detection(tuple(box), score, result) for box, score, result in found)
    return picture


def _in_order(pictures: list[_Picture], name: str) -> tuple[list[_Picture | None], Sequence[int], list[str]]:
    """The pictures by the last number in their names, None where one is left out; what the frames are called; and
    notices."""
    if len(pictures) == 1:
        return list(pictures), range(1), []
    if not all(re.search("[0-9]", os.path.splitext(picture.base)[0]) for picture in pictures):
        told = f"Not every picture in {name} has a number in its name, so the frames are in the order of the dump."
        return list(pictures), range(len(pictures)), [told]
    order, slots, known, numbers = in_time([picture.base for picture in pictures], name, "pictures")
    frames: list[_Picture | None] = [None] * len(known)
    for index, slot in zip(order, slots):
        frames[slot] = pictures[index]
    return frames, numbers, []


def _frame_size(
    pictures: list[_Picture], path: Path, size: tuple[int, int] | None
) -> tuple[tuple[int, int], list[str]]:
    """(height, width) of the pictures, and notices."""
    name = shown(path.name)
    boxes = np.array([person.box for picture in pictures for person in picture.people]).reshape(-1, 4)
    needed_width, needed_height = np.ceil(boxes[:, 2:].max(axis=0)).astype(float).tolist()
    _check_size(name, needed_height, needed_width)
    needed = max(math.ceil(needed_height), 1), max(math.ceil(needed_width), 1)
    if size is not None:
        _check_size(name, *size)
        if min(size) < 1 or needed[0] > size[0] + 1 or needed[1] > size[1] + 1:
            raise InputError(
                f"{name} has people reaching to {needed[1]} x {needed[0]} pixels, so its pictures are not {size[1]} x "
                f"{size[0]}; please give the pictures' true width and height."
            )
        return (int(size[0]), int(size[1])), []
    for photo in _photos(pictures, path):
        try:
            found = read_image(photo).shape[:2]
        except InputError:
            continue
        if needed[0] <= found[0] + 1 and needed[1] <= found[1] + 1:
            return found, [f"The frames' size, {found[1]} x {found[0]} pixels, is that of {shown(photo.name)}."]
    return needed, [
        f"{name} does not say how large its pictures are; {needed[1]} x {needed[0]} pixels is inferred from the "
        "people's boxes, so the border at the right and the bottom may be missing (to have it, put the pictures "
        "beside the dump or give their size)."
    ]


def _photos(pictures: list[_Picture], path: Path) -> Iterable[Path]:
    """Pictures of the dump that are still there; looked for below the dump's and the working folder only, whatever
    their names say."""
    for picture in pictures[:1] + pictures[1:][-1:]:
        names = [picture.base]
        if not (
            os.path.isabs(picture.file_name)
            or ".." in re.split(r"[/\\]", picture.file_name)
            or picture.file_name[:1] in "/\\"
        ):
            names.insert(0, picture.file_name)
        for folder in (path.parent, Path()):
            yield from (folder / name for name in names if "\0" not in name and os.path.isfile(folder / name))


def _check_size(name: str, height: float, width: float) -> None:
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise InputError(
            f"{name} is about pictures of {width:g} x {height:g} pixels; at most {MAX_PIXELS // 1_000_000} megapixels "
            f"and {MAX_SIDE} pixels per side are accepted, please scale the pictures down and dump them again."
        )


def _paste(person: Detection, parts: np.ndarray, uv_out: np.ndarray, where: str) -> None:
    """Writes one person into a frame's `parts` uint8 (H, W) and `uv_out` float16 (2, H, W); raises InputError with
    `where` in it."""
    x0, y0, x1, y1 = person.box
    box = max(int(y1 - y0), 1), max(int(x1 - x0), 1)
    labels, uv = _maps(person.payload)
    if labels is None or uv is None or not labels.size or uv.shape != (2, *labels.shape):
        raise InputError(
            f"The result of {where} has no labels (h, w) and U, V (2, h, w) that fit each other; {_ACCEPTED}."
        )
    if max(abs(a - b) for a, b in zip(labels.shape, box)) > 1:
        raise InputError(
            f"The result of {where} has {labels.shape[1]} x {labels.shape[0]} pixels, but its box has {box[1]} x "
            f"{box[0]}; please dump it again."
        )
    if labels.min() < 0 or labels.max() > NUM_PARTS:
        raise InputError(
            f"The result of {where} has labels from {labels.min()} to {labels.max()}; DensePose's are 0 to {NUM_PARTS}."
        )
    uv = np.where(labels > 0, uv, 0)
    if not np.isfinite(uv).all():
        raise InputError(f"The result of {where} has U, V that are not finite numbers; please dump it again.")
    top, left = math.floor(y0), math.floor(x0)
    rows, columns = (slice(max(-a, 0), max(whole - a, 0)) for a, whole in zip((top, left), parts.shape))
    labels, uv = labels[rows, columns], uv[:, rows, columns].clip(0, 1)
    place = np.s_[max(top, 0) : max(top, 0) + labels.shape[0], max(left, 0) : max(left, 0) + labels.shape[1]]
    parts[place], uv_out[:, *place] = labels, uv


def _maps(result: _ChartResult) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Labels (h, w) and U, V (2, h, w) as the dump has them, or None where they are no such arrays."""
    if result.labels_uv_uint8 is not None:
        both = _array(result.labels_uv_uint8, 3)
        if both is None or both.dtype != np.uint8 or len(both) != 3:
            return None, None
        return both[0], both[1:].astype(np.float32) / 255
    labels, uv = _array(result.labels, 2), _array(result.uv, 3)
    if labels is None or labels.dtype.kind not in "iu" or uv is None or uv.dtype.kind != "f":
        return None, None
    return labels, uv


def _array(tensor: Any, dims: int) -> np.ndarray | None:
    """A plain tensor of `dims` dimensions as numpy, without a copy where numpy has its type; None for anything else."""
    if (
        not isinstance(tensor, torch.Tensor)
        or tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.device.type != "cpu"
    ):
        return None
    if tensor.ndim != dims or tensor.is_complex() or 0 in tensor.shape[1:] or tensor.numel() > 3 * MAX_PIXELS:
        return None
    try:
        tensor = tensor.detach().resolve_neg()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (TypeError, RuntimeError):  # types that numpy does not have
        return None
