"""The joints of a person over time: what a motion is without the person who does it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from ..errors import InputError

BODY_VERSION = 1  # of the skeleton, and of what the numbers of a body mean
JOINTS = (
    "root",
    "spine",
    "head",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_hip",
    "right_knee",
    "right_ankle",
)
JOINT_INDEX = {name: i for i, name in enumerate(JOINTS)}
_OTHER = {"left": "right", "right": "left"}
_OTHER_SIDE = [JOINT_INDEX["_".join(_OTHER.get(word, word) for word in name.split("_"))] for name in JOINTS]
_MIRROR = np.array([-1, 1, 1], np.float32)
_MOST_NUMBERS = 256  # of a body


@dataclass(frozen=True, eq=False)
class Joints:
    """A person's joints in T frames. Axes: x to the right in the picture, y up, z towards the viewer; a person who
    faces the viewer at rest has rotations 1, and their left is x. All arrays are float32.

    rotations: (T, J, 3, 3) of the joints, see JOINTS, from rest to the picture's axes. positions: (T, J, 3) in body
    heights, the root at 0. camera: (T, 3): a body height in frame heights; the root's place from the left, in frame
    widths, and from the top, in frame heights. confidence: (T, J), 0..1. body: (N,), the person's bones and widths, in
    numbers that `body.fitting.Build` reads; the same in all frames.

    Raises InputError when an array has another type, shape or range.
    """

    rotations: np.ndarray
    positions: np.ndarray
    camera: np.ndarray
    confidence: np.ndarray
    body: np.ndarray

    def __post_init__(self):
        count, joints = len(self.camera), len(JOINTS)
        shapes = {
            "rotations": (count, joints, 3, 3),
            "positions": (count, joints, 3),
            "camera": (count, 3),
            "confidence": (count, joints),
            "body": self.body.shape[:1],
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.dtype != np.float32 or array.shape != shape:
                raise InputError(f"The joints' {name} are {array.dtype} {array.shape}; expected float32 {shape}.")
            if not np.isfinite(array).all():
                raise InputError(f"The joints' {name} hold values that are not finite numbers.")
        if not 0 < len(self.body) <= _MOST_NUMBERS or np.abs(self.body).max() > 10 or np.abs(self.positions).max() > 10:
            raise InputError("The joints' body or positions are not those of a person.")
        scale, place = self.camera[:, :1], self.camera[:, 1:]
        if scale.min(initial=1) < 0.01 or scale.max(initial=1) > 100 or np.abs(place).max(initial=0) > 100:
            raise InputError("The joints' camera shows the person too small, too large or too far off.")
        if self.confidence.min(initial=0) < 0 or self.confidence.max(initial=0) > 1:
            raise InputError("The joints' confidence must lie between 0 and 1.")
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
        """What a mirror shows."""
        camera = self.camera.copy()
        camera[:, 1] = 1 - camera[:, 1]
        return replace(
            self,
            rotations=self.rotations[:, _OTHER_SIDE] * _MIRROR * _MIRROR[:, None],
            positions=self.positions[:, _OTHER_SIDE] * _MIRROR,
            camera=camera,
            confidence=self.confidence[:, _OTHER_SIDE],
        )

    def seen_in(self, source: tuple[int, int], top: float, left: float, height: float, width: float) -> Joints:
        """The same in a part of the frames: its place and size in pixels of frames of (height, width) `source`."""
        scale, x, y = self.camera.T
        camera = [scale * source[0] / height, (x * source[1] - left) / width, (y * source[0] - top) / height]
        return replace(self, camera=np.stack(camera, 1).astype(np.float32))
