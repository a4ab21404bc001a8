"""What a photo shows too little of, in plain sentences: found in the photo's DensePose and in the box of it that is
shown."""

from __future__ import annotations

import numpy as np

from ..media import Box, pad_box
from ..poses import PoseSequence, people, several

NO_DENSEPOSE = (
    "No DensePose for this photo: clothes come from the image encoder only, and the motion is not fitted to the person."
)
NOBODY = "Nobody is found in this DensePose: give the map that was made from this photo, or none."

_HEAD, _FEET, _SHINS, _THIGHS, _TORSO = (23, 24), (5, 6), (11, 12, 13, 14), (7, 8, 9, 10), (1, 2)
_LEFT_ARM, _RIGHT_ARM = (15, 17), (16, 18)  # above the elbow
_ARMS = (4, *_LEFT_ARM, 19, 21), (3, *_RIGHT_ARM, 20, 22)  # left and right, the hand first

# Measured on rendered people in all motions and from all sides, and on the body tracker's maps of them.
# Shares of the person, less than which is not seen; of whole ones head, thighs, shins and feet are 0.05, 0.17, 0.11 and
# 0.013 at least.
_SEEN = {_HEAD: 0.01, _THIGHS: 0.08, _SHINS: 0.07, _FEET: 0.003, (3,): 0.001, (4,): 0.001}
_WHOLE_FEET = 0.012  # less of them, at the edge, is cut off
_CUT_HEAD = 0.7  # of the head's greatest width, in the row at the edge: whole heads end narrow
_CUT_SIDE = 0.04  # of the person's height, along an edge at the side
_EDGE = 0.01  # of the person's height: what is nearer to an edge is at the edge
_LOST = 0.01  # of the person's pixels, outside the frame: less is rounding
_BEHIND, _SIDE_ON = 0.75, 0.9  # of the torso is its back; less than that is its front
_ONE_ARM, _NEAR_ARMS, _PROFILE = (
    0.8,
    0.35,
    0.85,
)  # from the side: shares of one upper arm and one half of the head; torso heights apart
_FEWEST_ROWS = 36  # of the person in the map: in fewer a foot is a pixel or two, or none
_SOFT = 2.0  # pixels of a frame for one of the photo, along each side: more is seen as blur
_LOW = 0.4  # of the frame's height: of somebody lower than this the model sees little


def photo_checks(own: PoseSequence | None, box: Box, photo: tuple[int, int], size: tuple[int, int]) -> tuple[str, ...]:
    """What somebody who wants a good video should know of a photo, the weightiest first; nothing where all is well.

    own: the photo's map, of one frame and the photo's aspect; None where it is unknown. box: what of the photo frames
    show, as `scene.fit_photo` gives it. photo, size: (height, width) of the photo and of a frame. Hands are not judged:
    they are often hidden, and matter little. A map without parts tells only how large the person is.
    """
    if own is None:
        lost = 1 - min(box.height / photo[0], 1) * min(box.width / photo[1], 1)
        cropped = (
            ("The frame shows only the middle of the photo; choose Pad to show all of it.",) if lost > 0.02 else ()
        )
        return (NO_DENSEPOSE, *cropped, *_sharpness(None, box, photo, size))
    labels = own.parts[0] if own.parts is not None else own.mask[0].astype(np.uint8)
    if not labels.any():
        return (NOBODY,)
    said = []
    if own.parts is not None:
        everybody = people(labels)
        if len(everybody) > 1:
            said.append(several(len(everybody)))
        labels = np.where(everybody[0], labels, np.uint8(0))
    rows = np.flatnonzero(labels.any(axis=1))
    num_rows = int(rows[-1] + 1 - rows[0])
    if own.parts is not None and num_rows >= _FEWEST_ROWS:
        lacking = _lacking(labels)
        said += _missing(labels, lacking, _shown(box, photo, own.size))
        if not {"left", "right"} & set(lacking):  # half of somebody looks as if seen from the side
            said += _turned(labels)
    return (*said, *_sharpness(num_rows * photo[0] / own.size[0], box, photo, size))


def _shown(box: Box, photo: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of a map of `size` that the box shows."""
    down, across = size[0] / photo[0], size[1] / photo[1]
    ends = (
        (box.top * down, (box.top + box.height) * down, size[0]),
        (box.left * across, (box.left + box.width) * across, size[1]),
    )
    return tuple(slice(max(round(low), 0), min(round(high), length)) for low, high, length in ends)


def _missing(labels: np.ndarray, in_photo: dict[str, str], shown: tuple[slice, slice]) -> list[str]:
    """Sentences about what of the person is not in the photo, see `_lacking`, or not in the part of it that is
    shown."""
    cropped = np.count_nonzero(labels[shown]) < (1 - _LOST) * np.count_nonzero(labels)
    in_frame = _lacking(labels[shown]) if cropped else in_photo
    return [
        f"{clause}, so the model will invent what is missing; a photo of the whole person works better."
        if in_photo.get(end) == clause
        else f"{clause.replace('the photo', 'the frame')}; choose Pad to show the whole photo."
        for end, clause in in_frame.items()
    ]


def _lacking(labels: np.ndarray) -> dict[str, str]:
    """What is not seen of the person in a map that ends where the photo does, for example {"legs": "The feet are
    outside the photo"}."""
    person = labels > 0
    if not person.any():
        return {"all": "The person is outside the photo"}
    share = {parts: np.count_nonzero(np.isin(labels, parts)) / np.count_nonzero(person) for parts in _SEEN}
    seen = {parts: share[parts] >= least for parts, least in _SEEN.items()}
    rows = np.flatnonzero(person.any(axis=1))
    near = max(1, round(_EDGE * (rows[-1] + 1 - rows[0])))
    above, below = rows[0] < near, rows[-1] >= len(labels) - near
    found = {}
    if not seen[_HEAD]:
        found["head"] = "The head is outside the photo" if above else "The head is hidden"
    elif above:
        width = np.isin(labels, _HEAD).sum(axis=1)
        if width[:near].max() > _CUT_HEAD * width.max():
            found["head"] = "The head is cut off at the upper edge of the photo"
    if not seen[_FEET] or (below and share[_FEET] < _WHOLE_FEET):
        what = "feet" if seen[_SHINS] else "lower legs" if seen[_THIGHS] else "legs"
        if what == "feet" and seen[_FEET]:
            found["legs"] = "The feet are cut off at the lower edge of the photo"
        else:
            found["legs"] = f"The {what} are outside the photo" if below else f"The {what} are hidden"
    for side, edge in (("left", labels[:, :near]), ("right", labels[:, -near:])):
        if (edge > 0).any(axis=1).sum() > _CUT_SIDE * (rows[-1] + 1 - rows[0]):
            arm = next((arm for arm in _ARMS if np.isin(edge[edge > 0], arm).mean() > 0.5), None)
            if arm is None:
                found[side] = f"The person is cut off at the {side} edge of the photo"
            elif (
                share[arm[:1]] < _SEEN[arm[:1]]
            ):  # an arm that bends out of the photo and comes back with its hand is no matter
                found[side] = f"An arm is cut off at the {side} edge of the photo"
    return found


def _turned(labels: np.ndarray) -> list[str]:
    """A sentence about somebody who does not face the camera."""
    columns = {parts: np.nonzero(np.isin(labels, parts))[1] for parts in (_LEFT_ARM, _RIGHT_ARM)}
    left, right = columns.values()
    torso, head = np.isin(labels, _TORSO), np.isin(labels, _HEAD)
    arms = len(left) + len(right)
    if not (torso.any() and arms):
        return []
    apart = (left.mean() - right.mean()) / max(np.ptp(np.nonzero(torso)[0]), 1) if len(left) and len(right) else 0.0
    half = np.count_nonzero(labels == _HEAD[0]) / max(np.count_nonzero(head), 1)
    profile = not 1 - _PROFILE < half < _PROFILE
    sides = np.count_nonzero(labels == _TORSO[1]) < _SIDE_ON * np.count_nonzero(torso)
    if max(len(left), len(right)) >= _ONE_ARM * arms and abs(apart) < _NEAR_ARMS and profile and sides:
        return [
            "The person is seen from the side, so the model will invent the other side; a photo from the "
            "front works better."
        ]
    if np.count_nonzero(labels == _TORSO[0]) >= _BEHIND * np.count_nonzero(torso) and apart < 0:
        what = "the front" if profile else "the face and the front"
        return [
            f"The person is seen from behind, so the model will invent {what}; a photo from the front works better."
        ]
    return []


def _sharpness(tall: float | None, box: Box, photo: tuple[int, int], size: tuple[int, int]) -> list[str]:
    """A sentence where a frame shows the photo much enlarged, or the person very small. tall: pixels of the photo, None
    where unknown."""
    enlarged = size[0] / box.height
    if size[0] / pad_box(photo, size).height > _SOFT or (tall is None and enlarged > _SOFT):
        pixels = f"{photo[0]} x {photo[1]} pixels and a frame {size[0]} x {size[1]} (height x width)"
        return [f"The photo has {pixels}, so the video will be soft; a larger photo works better."]
    if tall is not None and enlarged > _SOFT:
        pixels = f"{tall:.0f} pixels tall in the photo and {tall * enlarged:.0f} in a frame"
        return [f"The person is {pixels}, so the video will be soft; a photo taken from nearer works better."]
    if tall is not None and tall < _LOW * box.height:
        share = f"{tall / box.height:.0%}"
        return [
            f"The person fills {share} of the frame's height, so little detail is left; choose Crop to bring them "
            "nearer."
        ]
    return []
