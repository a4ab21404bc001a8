"""Check a photo for problems, such as missing feet or low resolution, by its pose map and the part that frames show."""

from __future__ import annotations

import numpy as np

from ..media import Box, pad_box
from ..poses import PoseSequence, people, several
from ..poses.sequence import FEET, HEAD, SHINS, THIGHS, TORSO
from .framing import on_map

NO_DENSEPOSE = (
    "No DensePose for this photo: clothes come from the image encoder only, and the motion is not fitted to the person."
)
_FROM_THE_FRONT = "a photo from the front works better."
NO_PERSON = "No person is found in this DensePose: give the map that was made from this photo, or none."

_LEFT_ARM, _RIGHT_ARM = (15, 17), (16, 18)  # upper arms
_ARMS = (4, *_LEFT_ARM, 19, 21), (3, *_RIGHT_ARM, 20, 22)  # left and right, each with the hand first

# The limits below were measured on rendered people in all motions and from all sides, and on the body tracker's maps of
# them. Parts count as seen from these shares of the person's pixels; for whole people head, thighs, shins and feet have
# at least 0.05, 0.17, 0.11 and 0.013.
_SEEN = {HEAD: 0.01, THIGHS: 0.08, SHINS: 0.07, FEET: 0.003, (3,): 0.001, (4,): 0.001}
_WHOLE_FEET = 0.012  # share of the person; feet at the edge with less are cut off
_CUT_HEAD = 0.7  # head width at the edge, of the greatest, above which the head is cut off; whole heads end narrow
_CUT_SIDE = 0.04  # contact with a side edge, as a share of the person's height, from which the person is cut off
_EDGE = 0.01  # distance that counts as touching an edge, as a share of the person's height
_LOOKED_AT = 9  # frames of a motion that are checked
_LOST = 0.01  # share of the person outside the frame that still counts as rounding, not as cropping
# Seen from behind: least share of the torso that is back. From the side: the share that is front is below _SIDE_ON.
_BEHIND, _SIDE_ON = 0.75, 0.9
# Seen from the side: least share of one upper arm in both, largest distance between them in torso heights, least share
# of one half of the head.
_ONE_ARM, _NEAR_ARMS, _PROFILE = 0.8, 0.35, 0.85
_FEWEST_ROWS = 36  # least height of the person in the map, in rows; in smaller ones a foot has a pixel or two, or none
_SOFT = 2.0  # enlargement of the photo per side, in frame pixels per photo pixel, above which blur is visible
_LOW = 0.4  # share of the frame's height below which a person is too small for the model to see details


def photo_checks(
    image_poses: PoseSequence | None, box: Box, photo: tuple[int, int], size: tuple[int, int]
) -> tuple[str, ...]:
    """List the problems of a photo as sentences, the most important first; empty when there are none.

    image_poses: the photo's map (one frame, of the photo's aspect); None when unknown. box: the part of the photo that
    frames show, from `framing.fit_photo`. photo, size: (height, width) of the photo and of a frame. Hands are not
    checked: they are often hidden and matter little. A map without parts only shows how large the person is.
    """
    if image_poses is None:
        lost = 1 - min(box.height / photo[0], 1) * min(box.width / photo[1], 1)
        cropped = ("The frame shows only the middle of the photo; choose Pad to show all of it.",) * (lost > 0.02)
        return (NO_DENSEPOSE, *cropped, *_sharpness(None, box, photo, size))
    labels = (image_poses.mask if image_poses.parts is None else image_poses.parts)[0].astype(np.uint8)
    if not labels.any():
        return (NO_PERSON,)
    notices = []
    if image_poses.parts is not None:
        everybody = people(labels)
        notices += [several(len(everybody))] * (len(everybody) > 1)
        labels = np.where(everybody[0], labels, np.uint8(0))
    rows = np.flatnonzero(labels.any(axis=1))
    num_rows = int(rows[-1] + 1 - rows[0])
    if image_poses.parts is not None and num_rows >= _FEWEST_ROWS:
        in_photo = _lacking(labels)
        seen = on_map(box, photo, image_poses.size)
        ends = zip((seen.top, seen.left), (seen.height, seen.width), image_poses.size)
        shown = labels[tuple(slice(max(round(low), 0), min(round(low + n), whole)) for low, n, whole in ends)]
        cropped = np.count_nonzero(shown) < (1 - _LOST) * np.count_nonzero(labels)
        for end, clause in (_lacking(shown) if cropped else in_photo).items():
            if in_photo.get(end) == clause:
                clause += ", so the model will invent what is missing; a photo of the whole person works better."
            else:
                clause = f"{clause.replace('the photo', 'the frame')}; choose Pad to show the whole photo."
            notices.append(clause)
        if not {"left", "right"} & set(in_photo):  # a person cut off at the side looks like one seen from the side
            notices += _turned(labels)
    return (*notices, *_sharpness(num_rows * photo[0] / image_poses.size[0], box, photo, size))


def motion_checks(image_poses: PoseSequence | None, motion: PoseSequence) -> tuple[str, ...]:
    """A sentence when most frames of the motion end above the legs and the photo does not; empty otherwise.

    image_poses: the photo's map. Maps without parts say nothing.
    """
    if image_poses is None or image_poses.parts is None or motion.parts is None or motion.size[0] < _FEWEST_ROWS:
        return ()
    frames = motion.parts[np.linspace(0, len(motion) - 1, _LOOKED_AT).astype(int)]
    ends = [_lacking(frame.astype(np.uint8)).get("legs", "") for frame in frames if frame.any()]
    cut = [clause for clause in ends if "legs are outside" in clause]
    if 2 * len(cut) <= len(frames) or "outside" in _lacking(image_poses.parts[0].astype(np.uint8)).get("legs", ""):
        return ()
    what = cut[0].replace("photo", "clip")
    return (
        f"{what}, not the photo, so their motion is invented; crop the photo, or choose a clip of all of the body.",
    )


def _lacking(labels: np.ndarray) -> dict[str, str]:
    """What is not visible of the person, for example {"legs": "The feet are outside the photo"}.

    labels: the map (H, W), cut where the photo or the frame ends.
    """
    person = labels > 0
    if not person.any():
        return {"all": "The person is outside the photo"}
    share = {parts: np.count_nonzero(np.isin(labels, parts)) / np.count_nonzero(person) for parts in _SEEN}
    seen = {parts: share[parts] >= least for parts, least in _SEEN.items()}
    rows = np.flatnonzero(person.any(axis=1))
    near = max(1, round(_EDGE * (rows[-1] + 1 - rows[0])))
    above, below = rows[0] < near, rows[-1] >= len(labels) - near
    found = {}
    if not seen[HEAD]:
        found["head"] = "The head is outside the photo" if above else "The head is hidden"
    elif above:
        width = np.isin(labels, HEAD).sum(axis=1)
        if width[:near].max() > _CUT_HEAD * width.max():
            found["head"] = "The head is cut off at the upper edge of the photo"
    if not seen[FEET] or (below and share[FEET] < _WHOLE_FEET):
        what = "feet" if seen[SHINS] else "lower legs" if seen[THIGHS] else "legs"
        if what == "feet" and seen[FEET]:
            found["legs"] = "The feet are cut off at the lower edge of the photo"
        else:
            found["legs"] = f"The {what} are outside the photo" if below else f"The {what} are hidden"
    for side, edge in (("left", labels[:, :near]), ("right", labels[:, -near:])):
        if (edge > 0).any(axis=1).sum() > _CUT_SIDE * (rows[-1] + 1 - rows[0]):
            arm = next((arm for arm in _ARMS if np.isin(edge[edge > 0], arm).mean() > 0.5), None)
            if arm is None:
                found[side] = f"The person is cut off at the {side} edge of the photo"
            # an arm that leaves the photo is no problem when its hand is visible
            elif share[arm[:1]] < _SEEN[arm[:1]]:
                found[side] = f"An arm is cut off at the {side} edge of the photo"
    return found


def _turned(labels: np.ndarray) -> list[str]:
    """A sentence about a person who does not face the camera; empty otherwise."""
    columns = {parts: np.nonzero(np.isin(labels, parts))[1] for parts in (_LEFT_ARM, _RIGHT_ARM)}
    left, right = columns.values()
    torso, head = np.isin(labels, TORSO), np.isin(labels, HEAD)
    arms = len(left) + len(right)
    if not (torso.any() and arms):
        return []
    apart = (left.mean() - right.mean()) / max(np.ptp(np.nonzero(torso)[0]), 1) if len(left) and len(right) else 0.0
    half = np.count_nonzero(labels == HEAD[0]) / max(np.count_nonzero(head), 1)
    profile = not 1 - _PROFILE < half < _PROFILE
    sides = np.count_nonzero(labels == TORSO[1]) < _SIDE_ON * np.count_nonzero(torso)
    if max(len(left), len(right)) >= _ONE_ARM * arms and abs(apart) < _NEAR_ARMS and profile and sides:
        return [f"The person is seen from the side, so the model will invent the other side; {_FROM_THE_FRONT}"]
    if np.count_nonzero(labels == TORSO[0]) >= _BEHIND * np.count_nonzero(torso) and apart < 0:
        what = "the front" if profile else "the face and the front"
        return [f"The person is seen from behind, so the model will invent {what}; {_FROM_THE_FRONT}"]
    return []


def _sharpness(tall: float | None, box: Box, photo: tuple[int, int], size: tuple[int, int]) -> list[str]:
    """A sentence when frames enlarge the photo much, or show the person very small; empty otherwise.

    tall: the person's height in pixels of the photo, None when unknown.
    """
    enlarged = size[0] / box.height
    if size[0] / pad_box(photo, size).height > _SOFT or (tall is None and enlarged > _SOFT):
        pixels = f"{photo[0]} x {photo[1]} pixels and a frame {size[0]} x {size[1]} (height x width)"
        return [f"The photo has {pixels}, so the video will be soft; a larger photo works better."]
    if tall is not None and enlarged > _SOFT:
        pixels = f"{tall:.0f} pixels tall in the photo and {tall * enlarged:.0f} in a frame"
        return [f"The person is {pixels}, so the video will be soft; a photo taken from nearer works better."]
    if tall is not None and tall < _LOW * box.height:
        share = f"{tall / box.height:.0%} of the frame's height"
        return [f"The person fills {share}, so little detail is left; choose Crop to bring them nearer."]
    return []
