"""PoseSequence: DensePose maps over time, the one form in which poses travel through the program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from ..errors import InputError
from .joints import Joints

Charts = Literal["densepose", "mannequin", "body", "none"]
NUM_PARTS = 24
WINDOW = (-2, -1, 0, 1, 2)  # paper, section 4.2.2: five consecutive poses around the target
UNCLAMPED = (
    -1.0,
    2.0,
)  # U, V as a DensePose network says them lie a little beyond 0..1 at the edges of parts; further out they are none


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """DensePose maps of T frames.

    parts: uint8 (T, H, W), 0 background, 1..24 DensePose's parts; None in UV-only files.
    uv: float16 (T, 2, H, W), U then V, each 0..1, 0 outside the person; None when unknown. The original's maps, which
    have no parts, are kept as they are written: float32, and not clamped (about 0..1, see UNCLAMPED).
    charts: whose U, V these are; "none" exactly when uv is None.
    fps: frames per second, 1..240.
    joints: the person's in the same frames, None where they are not known.

    Raises InputError when an array has another type, shape or range.
    """

    parts: np.ndarray | None
    uv: np.ndarray | None
    charts: Charts
    fps: float = 30.0
    joints: Joints | None = None

    def __post_init__(self):
        if self.parts is None and self.uv is None:
            raise InputError("The pose sequence holds neither parts nor U, V; at least one of them is needed.")
        if self.charts not in get_args(Charts):
            raise InputError(
                f"The pose sequence's charts are {self.charts!r}; expected one of {', '.join(get_args(Charts))}."
            )
        if (self.charts == "none") != (self.uv is None):
            known = "missing" if self.uv is None else "given"
            raise InputError(f"The pose sequence says charts {self.charts!r}, but its U, V are {known}.")
        if not (isinstance(self.fps, (int, float)) and np.isfinite(self.fps) and 1 <= self.fps <= 240):
            raise InputError(
                f"The pose sequence's rate is {self.fps} frames per second; it must lie between 1 and 240."
            )
        halves = ("float16",) if self.parts is not None else ("float16", "float32")
        for name, array, dtypes, dims in (("parts", self.parts, ("uint8",), 3), ("uv", self.uv, halves, 4)):
            if array is None:
                continue
            if array.dtype.name not in dtypes or array.ndim != dims:
                expected = f"{' or '.join(dtypes)} with {dims} dimensions"
                raise InputError(f"The pose sequence's {name} are {array.dtype} {array.shape}; expected {expected}.")
            if len(array) == 0:
                raise InputError("The pose sequence has no frames; it needs at least one.")
            if 0 in array.shape:
                raise InputError(f"The pose sequence's {name} have shape {array.shape}; no side may be 0.")
        if self.uv is not None and self.uv.shape[1] != 2:
            raise InputError(f"The pose sequence's uv has {self.uv.shape[1]} channels; expected 2 (U and V).")
        if (
            self.parts is not None
            and self.uv is not None
            and self.parts.shape != (self.uv.shape[0], *self.uv.shape[2:])
        ):
            raise InputError(
                f"The pose sequence's parts {self.parts.shape} and uv {self.uv.shape} differ in frames or size."
            )
        if self.parts is not None and self.parts.max() > NUM_PARTS:
            raise InputError(f"The pose sequence has part {self.parts.max()}; DensePose's parts are 0 to {NUM_PARTS}.")
        if self.joints is not None and len(self.joints) != len(self):
            raise InputError(f"The pose sequence has {len(self)} maps, but joints of {len(self.joints)} frames.")
        if self.uv is not None:
            check_uv_range(self.uv, *((0, 1) if self.parts is not None or self.uv.dtype == np.float16 else UNCLAMPED))

    def __len__(self) -> int:
        return len(self.parts if self.parts is not None else self.uv)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        array = self.parts if self.parts is not None else self.uv
        return array.shape[-2], array.shape[-1]

    @property
    def mask(self) -> np.ndarray:
        """bool (T, H, W), true on the person."""
        return self.parts > 0 if self.parts is not None else (self.uv > 0).any(axis=1)

    def select(self, indices) -> PoseSequence:
        """The frames at `indices`, in that order (an index array or a slice)."""
        return replace(
            self,
            parts=None if self.parts is None else self.parts[indices],
            uv=None if self.uv is None else self.uv[indices],
            joints=None if self.joints is None else self.joints.select(indices),
        )

    def clip(self, first: int | None, last: int | None) -> PoseSequence:
        """Frames first..last-1; raises InputError when that range is empty or leaves the sequence."""
        first, stop = first or 0, len(self) if last is None else last
        if not 0 <= first < stop <= len(self):
            raise InputError(f"Frames {first}:{stop} are not inside the sequence, which has frames 0:{len(self)}.")
        return self.select(slice(first, stop))


def check_uv_range(uv: np.ndarray, least: float = 0, most: float = 1) -> None:
    """Raises InputError unless every value of `uv` (any float type, any shape but empty) is finite and lies in
    least..most."""
    low, high = float(uv.min()), float(uv.max())  # both are NaN where one value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("The pose sequence has U, V values that are not finite numbers.")
    if low < least or high > most:
        raise InputError(
            f"The pose sequence's U, V reach from {low:g} to {high:g}; they must lie between {least:g} and {most:g}."
        )


def window_indices(index: int, length: int, missing: Literal["nearest", "centre"] = "nearest") -> list[int]:
    """The frames whose maps surround frame `index`: five.

    missing: what stands for those beyond the ends of a clip of `length` frames: the nearest there is, or frame `index`
    itself, as in the original.
    """
    near = [min(max(index + offset, 0), length - 1) for offset in WINDOW]
    return near if missing == "nearest" else [at if at == index + offset else index for at, offset in zip(near, WINDOW)]
