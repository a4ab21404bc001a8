"""Combine photos, their pose maps and a motion: fit them to one size, edit and align the motion.

The page, the HTTP API and the command line all use this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import model_config
from ..media import Box, check_aspect, crop_box, extract_sound, fit_image, is_video, pad_box, same_aspect
from ..model.config import ModelConfig
from ..poses import MIRRORED, Charts, PoseSequence, aligned, edited, fitted, largest_alone, people, person_box, several
from ..progress import ShouldStop, never_stop
from ..settings import MAX_FRAMES, EditOptions, FrameOptions, SceneOptions

# A map of the motion equals the photo's when the share _SAME of the person is equal on a grid of _CELLS x _CELLS.
_SAME, _CELLS = 0.92, 96
_HEADROOM = 0.1  # space kept above the person where the photo has it, as a share of their height
NOT_USED = "Only the first photo was used: the others serve fine-tuning, and nothing was fine-tuned here."


@dataclass(frozen=True)
class Scene:
    """The inputs of frames: photo, its map and the motion, all at one size.

    photo: uint8 (H, W, 3). image_poses: its map (one frame), or None. poses: the motion. box: the part of the original
    photo that `photo` shows. notices: sentences about what was changed.
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
    should_stop: ShouldStop = never_stop,
) -> Scene:
    """Make the scene of a photo, uint8 (H, W, 3), its own map (one frame, of the photo's aspect) and a motion.

    size: (height, width) of the scene. charts: the charts that the model was trained on; a model trained on DensePose's
    charts gets the maps as read, not redrawn on the photo's body. bilinear: as in `poses.fitted`, where the motion is
    not aligned.
    Raises InputError when the map belongs to another photo or shows no person, or the motion is too long or shows no
    person.
    """
    photo, photo_map, box = fit_photo(image, image_poses, size, options, bilinear)
    motion = edited(poses, options)
    check_length(motion)
    notices = (MIRRORED,) if poses.uv is not None and motion.uv is None else ()
    of_the_photo = photo_map is not None and not options.mirror and _is_frame_of(image_poses, poses)
    if of_the_photo or photo_map is None or options.align == "none":
        # A motion with the photo's aspect is assumed to lie on the photo, so both are fitted with the same box.
        lies_on_it = of_the_photo or same_aspect(image.shape[:2], motion.size)
        there = on_map(box, image.shape[:2], motion.size) if lies_on_it else None
        motion = fitted(motion, size, there, bilinear)
    elif options.align == "body" and motion.joints and photo_map.joints and charts == "body":
        from ..body.retarget import in_our_charts, on_body

        photo_map = photo_map if photo_map.charts == "body" else in_our_charts(photo_map)
        motion, more = on_body(motion, photo_map, should_stop)
        notices += more
    else:
        motion, alignment = aligned(motion, photo_map)
        notices += (alignment.sentence(),)
    return Scene(photo, photo_map, motion, box, notices)


def check_length(motion: PoseSequence) -> None:
    """Raise InputError when an edited motion is longer than MAX_FRAMES."""
    if len(motion) > MAX_FRAMES:
        many = f"The motion has {len(motion)} frames"
        raise InputError(f"{many}; at most {MAX_FRAMES} can be made at once, so choose a range of frames.")


def check_options(poses: PoseSequence, options: EditOptions) -> None:
    """Raise InputError when `poses` cannot be edited so, or become too long; fast, as it edits one pixel per map."""
    corner = {name: None if x is None else x[..., :1, :1] for name, x in (("parts", poses.parts), ("uv", poses.uv))}
    check_length(edited(replace(poses, **corner), options))


def keep_sound(clip: Path, num_frames: int, fps: float, options: SceneOptions, out: Path) -> tuple[str, ...]:
    """Write the sound of the motion's file `clip` to `out` (.m4a), cut like its frames by `options`.

    Returns a notice when no sound is kept: the options alter the timing, or the file has none.
    """
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
    """Fit the photo and its map to (height, width) `size`; returns both and the part of the photo that they show.

    If the map shows several people, only the largest one is kept; fine-tuning, animation and previews all use this
    function, so they show the same person. Raises InputError as `make_scene` does, and when the frame misses the photo.
    """
    source = image.shape[:2]
    if image_poses is not None:
        check_aspect(source, image_poses.size)
        image_poses = largest_alone(image_poses)
    if options.fit == "pad" or (options.fit == "auto" and image_poses is None):
        box = pad_box(source, size)
    else:
        person = None if image_poses is None else person_box(image_poses)
        if person is not None:  # in the photo's pixels
            (top, left, bottom, right), (height, width) = person, image_poses.size
            top = max(0.0, top - _HEADROOM * (bottom - top))  # for a person who straightens up or raises their hands
            down, across = source[0] / height, source[1] / width
            person = top * down, left * across, bottom * down, right * across
        box = crop_box(source, size, person)
    # Shrink the box around its centre by the zoom, then move it by shares of its new size.
    height, width = box.height / options.zoom, box.width / options.zoom
    top, left = box.top + (box.height - height) / 2, box.left + (box.width - width) / 2
    box = Box(top + options.shift_down * height, left + options.shift_right * width, height, width)
    inside = min(box.top + height, source[0]) - max(box.top, 0), min(box.left + width, source[1]) - max(box.left, 0)
    if min(inside) < 1:
        raise InputError("The frame lies outside the photo; move it back, or make it larger.")
    photo = fit_image(image, size, box)
    if image_poses is None:
        return photo, None, box
    return photo, fitted(image_poses, size, on_map(box, source, image_poses.size), bilinear), box


@dataclass(frozen=True)
class Photo:
    """A photo of a person, uint8 (H, W, 3). image_poses: its map (one frame), or None. name: as its owner calls it."""

    image: np.ndarray
    image_poses: PoseSequence | None
    name: str


def fit_photos(
    photos: Sequence[Photo], size: tuple[int, int], options: FrameOptions, bilinear: bool = False
) -> list[Photo]:
    """Fit each photo and its map to (height, width) `size`, around its own person, see `fit_photo`.

    Raises InputError with the photo's name.
    """
    done = []
    for photo in photos:
        try:
            image, image_poses, _ = fit_photo(photo.image, photo.image_poses, size, options, bilinear)
        except InputError as error:
            raise InputError(f"{photo.name}: {error}") from error
        done.append(replace(photo, image=image, image_poses=image_poses))
    return done


def maps_together(photos: Sequence[Photo]) -> tuple[PoseSequence | None, tuple[str, ...]]:
    """Join the maps of fitted photos, in order, to one sequence for fine-tuning; returns it with notices.

    The sequence is None when a map is unknown, because fine-tuning takes all maps or none. U, V are dropped when their
    charts differ, and parts when some maps lack them; the notices say so. Raises InputError when the maps have nothing
    in common.
    """
    maps = [photo.image_poses for photo in photos]
    if len(maps) == 1:
        return maps[0], ()
    unknown = [photo.name for photo in photos if photo.image_poses is None]
    if unknown:
        names = ", ".join(unknown)
        notice = f"The DensePose of {names} is unknown, so the person is learned without that of any photo."
        return None, (notice,) * (len(unknown) < len(maps))
    charts = {image_poses.charts for image_poses in maps}
    has_parts = all(image_poses.parts is not None for image_poses in maps)
    has_uv = len(charts) == 1 and maps[0].uv is not None
    if not has_parts and not has_uv:
        raise InputError("Some of the photos' maps know only the parts and some only U, V; give maps of one kind.")
    parts = np.concatenate([image_poses.parts for image_poses in maps]) if has_parts else None
    uv = np.concatenate([image_poses.uv for image_poses in maps]) if has_uv else None
    notice = "Not all the photos' maps have U, V in the same charts, so the person is learned with their parts alone."
    dropped = not has_uv and any(image_poses.uv is not None for image_poses in maps)
    return PoseSequence(parts, uv, maps[0].charts if has_uv else "none"), (notice,) * dropped


def naming(sentences: Iterable[str], name: str) -> tuple[str, ...]:
    """Replace "in the photo" in an estimator's sentences by the photo's name."""
    return tuple(sentence.replace("in the photo", f"in {name}") for sentence in sentences)


def crowds(photos: Sequence[Photo]) -> tuple[str, ...]:
    """One notice for each photo whose map shows several people."""
    known = [photo for photo in photos if photo.image_poses is not None and photo.image_poses.parts is not None]
    numbers = [(photo.name, len(people(photo.image_poses.parts[0]))) for photo in known]
    return tuple(f"{name}: {several(number)}" for name, number in numbers if number > 1)


def on_map(box: Box, photo: tuple[int, int], poses: tuple[int, int]) -> Box:
    """Convert a box in a photo of (height, width) `photo` to a box in its map of (height, width) `poses`."""
    down, across = poses[0] / photo[0], poses[1] / photo[1]
    return Box(box.top * down, box.left * across, box.height * down, box.width * across)


def _is_frame_of(image_poses: PoseSequence, motion: PoseSequence) -> bool:
    """Whether the photo is a frame of the motion: one of its maps equals the photo's, up to compression and smoothing.

    Then the photo's person is the one who moves, and the motion's maps show their clothes best, so it is not aligned.
    """
    if motion.charts != image_poses.charts or not same_aspect(image_poses.size, motion.size):
        return False
    seen, wanted = _coarse(motion), _coarse(image_poses)[0]
    both, either = (seen > 0) & (wanted > 0), (seen > 0) | (wanted > 0)
    alike, both, either = (x.sum((1, 2)) for x in (both & (seen == wanted), both, either))
    return bool(((both > 0) & (both >= _SAME * either) & (alike >= _SAME * both)).any())


def _coarse(poses: PoseSequence) -> np.ndarray:
    """Labels on a grid of _CELLS x _CELLS: (T, h, w), parts, or quantised U, V without parts."""
    poses = fitted(poses, (_CELLS, _CELLS), Box(0, 0, *poses.size))
    if poses.parts is not None:
        return poses.parts
    uv = (poses.uv.clip(0, 1) * 4).astype(np.uint8)
    return np.where(poses.mask, 1 + 5 * uv[:, 0] + uv[:, 1], 0)


def frame_size(model: str | Path, photo: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of the model's frames, for a photo of (height, width) if given.

    A hub id, or no model, counts as the paper's model (640 x 512).
    """
    known = {name: value for name, value in model_config(model).items() if name in ModelConfig.__annotations__}
    config = ModelConfig(**known)
    return config.size if photo is None else config.shaped_like(photo)


def known_charts(model: str | Path) -> Charts:
    """The charts that the model was trained on; DensePose's when `model` is a hub id."""
    return model_config(model)["charts"]
