"""The common types of a motion: pose maps over time (`PoseSequence`), and the skeleton's motion behind them (`Joints`).

Joints describe the motion independently of the person, so that it can be transferred to another one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np

from ..errors import InputError
from ..media import Box

Charts = Literal["densepose", "body", "none"]
NUM_PARTS = 24
# numbers of parts
HEAD, TORSO, HANDS, THIGHS, SHINS, FEET = (23, 24), (1, 2), (3, 4), (7, 8, 9, 10), (11, 12, 13, 14), (5, 6)
WINDOW = (-2, -1, 0, 1, 2)  # paper, section 4.2.2: five consecutive poses around the target
# A DensePose network outputs U, V a little outside 0..1 at the edges of parts; values beyond these limits are invalid.
UNCLAMPED = (-1.0, 2.0)

BODY_VERSION = 1  # version of the skeleton and of the meaning of `Joints.body`
SIDES = ("left", "right")
_LIMBS = {"spine": ("shoulder", "elbow", "wrist"), "root": ("hip", "knee", "ankle")}
JOINTS = ("root", "spine", "head", *(f"{side}_{name}" for limb in _LIMBS.values() for side in SIDES for name in limb))
JOINT_INDEX = {name: i for i, name in enumerate(JOINTS)}
PARENTS = [0, 0, 1]  # of each joint, the index of the one that it hangs on; the root's own is itself
for _start, _limb in _LIMBS.items():
    for _side in SIDES:
        PARENTS += [JOINT_INDEX[name] for name in (_start, *(f"{_side}_{joint}" for joint in _limb[:-1]))]
OTHER_SIDE = [JOINTS.index(n.replace("left", "x").replace("right", "left").replace("x", "right")) for n in JOINTS]
_MIRROR = np.array([-1, 1, 1], np.float32)
_MOST_NUMBERS = 256  # of `Joints.body`


def both(joint: str) -> list[int]:
    """Indices of the left and the right joint with this name."""
    return [JOINT_INDEX[f"{side}_{joint}"] for side in SIDES]


@dataclass(frozen=True, eq=False)
class Joints:
    """A person's joints in T frames.

    Axes: x to the right in the picture, y up, z towards the viewer. For a person who faces the viewer at rest all
    rotations are the identity, and +x is the person's left. All arrays are float32.

    rotations: (T, J, 3, 3), of the joints in JOINTS, from rest to the picture's axes. positions: (T, J, 3) in body
    heights, relative to the root. camera: (T, 3): the body height in frame heights; the root's distance from the left
    in frame widths, and from the top in frame heights. confidence: (T, J), 0..1. body: (N,), the person's bones and
    widths as numbers that `body.build.Build` reads; the same in all frames.

    Raises InputError when an array has another type, shape or range.
    """

    rotations: np.ndarray
    positions: np.ndarray
    camera: np.ndarray
    confidence: np.ndarray
    body: np.ndarray

    def __post_init__(self):
        count, joints = len(self.camera), len(JOINTS)
        for name, shape, least, most in (
            ("rotations", (count, joints, 3, 3), -2, 2),
            ("positions", (count, joints, 3), -10, 10),
            ("camera", (count, 3), -100, 100),
            ("confidence", (count, joints), 0, 1),
            ("body", self.body.shape[:1], -10, 10),
        ):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != shape:
                raise InputError(f"The joints' {name} are {array.dtype} {array.shape}; expected float32 {shape}.")
            if not (least <= array.min(initial=most) and array.max(initial=least) <= most):  # also rejects NaN
                raise InputError(f"The joints' {name} must be finite and lie between {least} and {most}.")
        if not 0 < len(self.body) <= _MOST_NUMBERS or self.camera[:, 0].min(initial=1) < 0.01:
            raise InputError("The joints' body or camera are not those of a person.")
        off = self.rotations @ self.rotations.swapaxes(-1, -2) - np.eye(3, dtype=np.float32)
        if np.abs(off).max(initial=0) > 0.01:
            raise InputError("The joints' rotations are no rotations.")

    def __len__(self) -> int:
        return len(self.camera)

    def select(self, indices) -> Joints:
        """The frames at `indices`, in that order (an index array or a slice)."""
        moving = {field.name: getattr(self, field.name)[indices] for field in fields(self) if field.name != "body"}
        return replace(self, **moving)

    def mirrored(self) -> Joints:
        """The joints of the mirror image."""
        camera = self.camera.copy()
        camera[:, 1] = 1 - camera[:, 1]
        rotations = self.rotations[:, OTHER_SIDE] * _MIRROR * _MIRROR[:, None]
        return Joints(
            rotations, self.positions[:, OTHER_SIDE] * _MIRROR, camera, self.confidence[:, OTHER_SIDE], self.body
        )

    def seen_in(self, size: tuple[int, int], box: Box) -> Joints:
        """The joints in a crop of frames of (height, width) `size`, in whose pixels `box` is."""
        scale, x, y = self.camera.T
        down, across = (y * size[0] - box.top) / box.height, (x * size[1] - box.left) / box.width
        return replace(self, camera=np.stack([scale * size[0] / box.height, across, down], 1).astype(np.float32))


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """The pose maps of T frames.

    parts: uint8 (T, H, W), 0 for background, 1..24 for DensePose's parts; None in UV-only files.
    uv: float16 (T, 2, H, W), U then V, each 0..1, 0 outside the person; None when unknown. The original's maps, which
    have no parts, stay as they are in the file: float32 and not clamped (about 0..1, see UNCLAMPED).
    charts: the charts of uv; "none" exactly when uv is None.
    fps: frames per second, 1..240.
    joints: the person's joints in the same frames; None when unknown.

    Raises InputError when an array has another type, shape or range.
    """

    parts: np.ndarray | None
    uv: np.ndarray | None
    charts: Charts
    fps: float = 30.0
    joints: Joints | None = None

    def __post_init__(self):
        parts, uv = self.parts, self.uv
        if not self.maps:
            raise InputError("The pose sequence holds neither parts nor U, V; at least one of them is needed.")
        charts = ("none",) if uv is None else tuple(name for name in get_args(Charts) if name != "none")
        if self.charts not in charts:
            where = "without" if uv is None else "with"
            expected = " or ".join(charts)
            raise InputError(f"The charts of a pose sequence {where} U, V are {self.charts!r}; expected {expected}.")
        if not (isinstance(self.fps, (int, float)) and 1 <= self.fps <= 240):
            raise InputError(f"The pose sequence has {self.fps} frames per second; 1 to 240 are accepted.")
        kinds = {"parts": (3, "uint8"), "uv": (4, "float16", *(("float32",) if parts is None else ()))}
        for name, array in self.maps.items():
            dims, *dtypes = kinds[name]
            if array.dtype.name not in dtypes or array.ndim != dims:
                expected = f"{' or '.join(dtypes)} with {dims} dimensions"
                raise InputError(f"The pose sequence's {name} are {array.dtype} {array.shape}; expected {expected}.")
            if 0 in array.shape:
                raise InputError(f"The pose sequence's {name} have shape {array.shape}: no frames, or no pixels.")
        if uv is not None and uv.shape != (len(self), 2, *self.size):
            raise InputError(f"The pose sequence's uv have shape {uv.shape}; expected {(len(self), 2, *self.size)}.")
        if parts is not None and parts.max() > NUM_PARTS:
            raise InputError(f"The pose sequence has part {parts.max()}; DensePose's parts are 0 to {NUM_PARTS}.")
        if self.joints is not None and len(self.joints) != len(self):
            raise InputError(f"The pose sequence has {len(self)} maps, but joints of {len(self.joints)} frames.")
        if uv is not None:
            check_uv_range(uv, *((0, 1) if parts is not None or uv.dtype == np.float16 else UNCLAMPED))

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """Those of parts and uv that are known, by name."""
        return {name: array for name in ("parts", "uv") if (array := getattr(self, name)) is not None}

    def __len__(self) -> int:
        return len(self.parts if self.parts is not None else self.uv)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return (self.parts if self.parts is not None else self.uv).shape[-2:]

    @property
    def mask(self) -> np.ndarray:
        """bool (T, H, W), true on the person."""
        return self.parts > 0 if self.parts is not None else (self.uv > 0).any(axis=1)

    def mask_of(self, index: int) -> np.ndarray:
        """bool (H, W), true on the person in one frame."""
        return self.select(slice(index, index + 1)).mask[0]

    def select(self, indices) -> PoseSequence:
        """The frames at `indices`, in that order (an index array or a slice)."""
        joints = None if self.joints is None else self.joints.select(indices)
        return replace(self, **{name: array[indices] for name, array in self.maps.items()}, joints=joints)

    def clip(self, first: int | None, last: int | None) -> PoseSequence:
        """Cut out frames first..last-1; raises InputError when that range is empty or leaves the sequence."""
        return self.select(check_range(first, last, len(self)))


def check_range(first: int | None, last: int | None, length: int) -> slice:
    """The slice of frames first..last-1 of `length` frames, None for the ends.

    Raises InputError when that range is empty or leaves the sequence.
    """
    first, stop = first or 0, length if last is None else last
    if not 0 <= first < stop <= length:
        raise InputError(f"Frames {first}:{stop} are not inside the sequence, which has frames 0:{length}.")
    return slice(first, stop)


def check_uv_range(uv: np.ndarray, least: float = 0, most: float = 1) -> None:
    """Raise InputError unless all values of `uv` (any float type and non-empty shape) are finite and in least..most."""
    low, high = float(uv.min()), float(uv.max())  # both are NaN if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("The pose sequence has U, V values that are not finite numbers.")
    if low < least or high > most:
        limits = f"{least:g} and {most:g}"
        raise InputError(f"The pose sequence's U, V reach from {low:g} to {high:g}; they must lie between {limits}.")


def window_indices(index: int, length: int, missing: Literal["nearest", "centre"] = "nearest") -> list[int]:
    """The five frames of the pose window around frame `index`.

    missing: replaces frames beyond the ends of a clip of `length` frames: by the nearest frame, or by frame `index`
    itself, as in the original.
    """
    near = [min(max(index + offset, 0), length - 1) for offset in WINDOW]
    return near if missing == "nearest" else [at if at == index + offset else index for at, offset in zip(near, WINDOW)]
