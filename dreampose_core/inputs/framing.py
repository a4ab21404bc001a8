"""A photo, its DensePose and a motion brought together for every door: fitted to one size, edited, aligned."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..media import Box, check_aspect, crop_box, extract_sound, fit_image, is_video, pad_box, same_aspect
from ..model.config import ModelConfig
from ..poses import MIRRORED, Charts, PoseSequence, aligned, convertible, edited, fitted, largest_alone, person_box
from ..settings import MAX_FRAMES, EditOptions, FrameOptions, SceneOptions

# share of a person that is alike in a map and another of the same moment; rows and columns that are compared
_SAME, _CELLS = 0.92, 96
_HEADROOM = 0.1  # of a person's height, above them, where the photo has it


@dataclass(frozen=True)
class Scene:
    """What frames are made of, all in one size.

    photo: uint8 (H, W, 3). image_poses: its map (one frame), or None. poses: the motion. box: where in the original
    photo `photo` was taken from. notices: sentences about what was done.
    """

    photo: np.ndarray
    image_poses: PoseSequence | None
    poses: PoseSequence
    box: Box
    notices: tuple[str, ...]


def make_scene(
    image: np.ndarray,
    poses: PoseSequence,
    image_poses: PoseSequence | None,
    size: tuple[int, int],
    options: SceneOptions,
    charts: Charts = "body",
    bilinear: bool = False,
) -> Scene:
    """The scene of a photo uint8 (H, W, 3), a motion and the photo's own map (one frame, of the photo's aspect) at
    (height, width).

    charts: whose U, V the model knows; one that knows real DensePose's is fed the maps as they came. bilinear: as in
    `poses.fitted`, where the motion is not aligned.
    Raises InputError when the map is another photo's, nobody is in it, or the motion is too long or has nobody in it.
    """
    photo, own, box = fit_photo(image, image_poses, size, options, bilinear)
    motion = edited(poses, options)
    check_length(motion)
    said = (MIRRORED,) if poses.uv is not None and motion.uv is None else ()
    of_the_photo = own is not None and not options.mirror and _is_frame_of(image_poses, poses)
    if of_the_photo or own is None or options.align == "none":
        # A motion in frames of the photo's shape is taken to lie on the photo: both are fitted alike.
        lies_on_it = of_the_photo or same_aspect(image.shape[:2], motion.size)
        there = on_map(box, image.shape[:2], motion.size) if lies_on_it else None
        return Scene(photo, own, fitted(motion, size, there, bilinear), box, said)
    if options.align == "body" and motion.joints and own.joints and convertible("body", charts):
        from ..body.retarget import in_our_charts, on_body

        if not convertible(own.charts, charts):
            own = in_our_charts(own)
        motion, notices = on_body(motion, own)
        return Scene(photo, own, motion, box, (*said, *notices))
    motion, alignment = aligned(motion, own, size)
    return Scene(photo, own, motion, box, said if alignment is None else (*said, alignment.sentence()))


def check_length(motion: PoseSequence) -> None:
    """Raises InputError where an edited motion is longer than what is made at once."""
    if len(motion) > MAX_FRAMES:
        raise InputError(
            f"The motion has {len(motion)} frames; at most {MAX_FRAMES} can be made at once, so choose a range of "
            "frames."
        )


def check_options(poses: PoseSequence, options: EditOptions) -> None:
    """Raises InputError where `poses` cannot be edited so, or become too long; tried on one pixel of every map, so it
    takes no time."""
    corner = {name: None if x is None else x[..., :1, :1] for name, x in (("parts", poses.parts), ("uv", poses.uv))}
    check_length(edited(replace(poses, **corner), options))


def keep_sound(clip: Path, num_frames: int, fps: float, options: SceneOptions, out: Path) -> tuple[str, ...]:
    """Writes the sound of the motion's file `clip` to `out` (.m4a), cut as `options` cut its frames; a sentence where
    there is none."""
    if not options.keeps_timing:
        return ("The clip's sound is left out, because the changes alter its timing.",)
    start = options.first_frame or 0
    length = (num_frames if options.last_frame is None else options.last_frame) - start
    if is_video(clip) and extract_sound(clip, out, start / fps, length / fps):
        return ()
    return ("There is no sound to keep: the motion's file has none.",)


def fit_photo(
    image: np.ndarray,
    image_poses: PoseSequence | None,
    size: tuple[int, int],
    options: FrameOptions,
    bilinear: bool = False,
) -> tuple[np.ndarray, PoseSequence | None, Box]:
    """The photo and its map at (height, width) `size`, and the box of the photo that they show; errors as `make_scene`.

    Of several people the map tells the largest alone: whoever tunes, animates or previews goes through here and means
    the same one.
    """
    source = image.shape[:2]
    if image_poses is not None:
        check_aspect(source, image_poses.size)
        image_poses = largest_alone(image_poses)
    if options.fit == "pad" or (options.fit == "auto" and image_poses is None):
        box = pad_box(source, size)
    else:
        box = crop_box(source, size, None if image_poses is None else _person(image_poses, source))
    box = _adjusted(box, options)
    if (
        min(box.top + box.height, source[0]) - max(box.top, 0) < 1
        or min(box.left + box.width, source[1]) - max(box.left, 0) < 1
    ):
        raise InputError("The frame lies beside the photo; move it back, or make it larger.")
    photo = fit_image(image, size, box)
    if image_poses is None:
        return photo, None, box
    return photo, fitted(image_poses, size, on_map(box, source, image_poses.size), bilinear), box


def _adjusted(box: Box, options: FrameOptions) -> Box:
    """The box made smaller by the zoom around its middle, and moved by shares of its size then."""
    height, width = box.height / options.zoom, box.width / options.zoom
    top, left = box.top + (box.height - height) / 2, box.left + (box.width - width) / 2
    return Box(top + options.shift_down * height, left + options.shift_right * width, height, width)


def on_map(box: Box, photo: tuple[int, int], poses: tuple[int, int]) -> Box:
    """A box in a photo of (height, width) `photo` as a box in its map of (height, width) `poses`."""
    down, across = poses[0] / photo[0], poses[1] / photo[1]
    return Box(box.top * down, box.left * across, box.height * down, box.width * across)


def _is_frame_of(own: PoseSequence, motion: PoseSequence) -> bool:
    """Whether one of the maps of `motion` is `own`, but for what compression and smoothing change: then the person is
    the one who moves, and the motion's maps show what they wear as nothing else does."""
    if motion.charts != own.charts or not same_aspect(own.size, motion.size):
        return False
    wanted = _coarse(own)[0]
    for seen in _coarse(motion):
        both = (seen > 0) & (wanted > 0)
        alike = np.count_nonzero(seen[both] == wanted[both])
        if both.any() and both.sum() >= _SAME * ((seen > 0) | (wanted > 0)).sum() and alike >= _SAME * both.sum():
            return True
    return False


def _coarse(poses: PoseSequence) -> np.ndarray:
    """(T, h, w) parts, or else U, V in steps, on a grid of _CELLS."""
    at = [((np.arange(_CELLS) + 0.5) * side / _CELLS).astype(int) for side in poses.size]
    if poses.parts is not None:
        return poses.parts[:, at[0]][:, :, at[1]]
    uv = (poses.uv[:, :, at[0]][..., at[1]].clip(0, 1) * 4).astype(np.uint8)
    return np.where(poses.mask[:, at[0]][:, :, at[1]], 1 + 5 * uv[:, 0] + uv[:, 1], 0)


def _person(image_poses: PoseSequence, source: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """top, left, bottom, right of the person in the photo's pixels, with room above; None where the map shows
    nobody."""
    person = person_box(image_poses)
    if person is None:
        return None
    down, across = source[0] / image_poses.size[0], source[1] / image_poses.size[1]
    top, left, bottom, right = person
    top = max(0.0, top - _HEADROOM * (bottom - top))  # who stands up straight, or raises their hands, needs it
    return top * down, left * across, bottom * down, right * across


def frame_size(model: str | Path, photo: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of this model's frames for a photo of (height, width), or without one; those of the paper's (640
    x 512) where it is a hub id, or no model at all."""
    config = ModelConfig(
        **{name: value for name, value in _config(model).items() if name in ModelConfig.__annotations__}
    )
    return config.size if photo is None else config.shaped_like(photo)


def known_charts(model: str | Path) -> Charts:
    """Whose U, V this model knows; real DensePose's where it is a hub id."""
    return _config(model)["charts"]


def _config(model: str | Path) -> dict:
    try:
        return json.loads((Path(model) / "model_index.json").read_text(encoding="utf-8"))["model_config"]
    except (OSError, ValueError, KeyError, TypeError):
        return {"height": 640, "width": 512, "charts": "densepose"}
