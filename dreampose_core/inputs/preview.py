"""The instant preview: the fitted photo, the motion over it, and its texture moved by the motion; seconds, no model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..media import Box, fit_image, write_png, write_video
from ..model.conditioning import pose_tensors, to_pixels, to_uint8
from ..model.texture import harvest, move
from ..poses import (
    PoseSequence,
    edited,
    fitted,
    frame_ranges,
    frames_with_holes,
    largest_alone,
    overlay,
    render_colours,
    source_frames,
)
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import EditOptions, FrameOptions
from .framing import Scene, fit_photo, frame_size, on_map
from .photo_checks import photo_checks

NOTICE = "This is an instant preview: the photo's pixels moved by the motion, no model; unseen sides are missing."
NOT_MOVED = "The photo's texture cannot be moved: the body's parts are unknown in the photo or in the motion."
COLOURED = "Coloured is the person as found in the photo; the frame shows what the video will show."
COLOURS_ONLY = "Photo and motion share no U, V, so each part of the body has one colour here."
HOLES = "The motion has holes in frame {}, marked in the preview; closing holes fills them."
PANEL_HEIGHT = 320
_BATCH = 8
_CAPTION, _INK, _PAPER, _MARK = 22, (225, 225, 230), (24, 24, 28), (180, 83, 9)


def moved_frames(
    photo: np.ndarray, image_poses: PoseSequence, poses: PoseSequence, use_uv: bool = True
) -> Iterator[np.ndarray]:
    """Yield uint8 frames (H, W, 3): the texture of a photo (H, W, 3), moved to each map of `poses`.

    image_poses: the photo's map (one frame). All have one size. Without U, V, if `use_uv` is false or if the charts
    differ, each part has its mean colour.
    """
    use_uv = use_uv and _share_charts(image_poses, poses)
    charts = poses.charts if use_uv else "none"
    photo_parts, photo_uv = pose_tensors(image_poses, charts)
    texture = harvest(to_pixels(torch.from_numpy(photo))[None], photo_parts, photo_uv)
    for start in range(0, len(poses), _BATCH):
        parts, uv = pose_tensors(poses.clip(start, min(start + _BATCH, len(poses))), charts)
        planes = move(texture.expand(len(parts)), parts, uv, background=True)
        yield from to_uint8(planes[:, :3]).numpy()


def _share_charts(image_poses: PoseSequence, poses: PoseSequence) -> bool:
    return poses.uv is not None and poses.charts == image_poses.charts


def preview_size(model: str | Path, photo: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of a preview for this model and a photo of (height, width): the frames' shape, but smaller.

    Small enough that the preview takes seconds.
    """
    height, width = frame_size(model, photo)
    while height > PANEL_HEIGHT:
        height, width = height // 2, width // 2
    return height, width


def write_preview(
    motion: PoseSequence,
    path: Path,
    options: EditOptions,
    scene: Scene | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> tuple[str, ...]:
    """Write an MP4 of panels side by side; returns notices.

    motion: the unedited motion. Without a scene the only panel is the edited motion in colours. With a scene: the
    fitted photo, the scene's motion over it, and the moved texture if possible. The caption below the motion gives the
    frame number in the unedited motion and marks frames with holes. Raises StorageError, InputError as `edited`, and
    Cancelled when should_stop() returns true.
    """
    numbers = source_frames(len(motion), motion.fps, options)
    holes = np.zeros(len(motion), bool) if options.fill_holes else frames_with_holes(motion)
    shown = np.unique(numbers[holes[numbers]])
    notices: tuple[str, ...] = (HOLES.format(frame_ranges(shown, range(len(motion)))),) if len(shown) else ()
    if scene is None:
        poses = edited(motion, options)
        panels = {"motion": (render_colours(poses.select([index]))[0] for index in range(len(poses)))}
    else:
        poses = scene.poses
        panels = {"photo": repeat(scene.photo), "motion": overlay(scene.photo, poses)}
        photo_parts = None if scene.image_poses is None else scene.image_poses.parts
        if photo_parts is None or poses.parts is None or not photo_parts.any():
            notices += (NOT_MOVED,)
        else:
            textured = _share_charts(scene.image_poses, poses)
            moved = moved_frames(scene.photo, scene.image_poses, poses)
            panels["moved texture" if textured else "colours of the parts"] = moved
            notices += (NOTICE,) if textured else (NOTICE, COLOURS_ONLY)
    clock = StageClock("preview", len(poses), on_progress)

    def frames() -> Iterator[np.ndarray]:
        for index, row in enumerate(zip(*panels.values())):
            check_stop(should_stop)
            number = int(numbers[index])
            words = {"motion": f"motion, frame {number}" + (", holes" if holes[number] else "")}
            papers = {"motion": _MARK if holes[number] else _PAPER}
            named = zip(panels, row)
            yield np.concatenate([_panel(x, words.get(name, name), papers.get(name, _PAPER)) for name, x in named], 1)
            clock.tick(index + 1)

    write_video(frames(), path, poses.fps)
    return notices


def write_look(
    image: np.ndarray, image_poses: PoseSequence | None, size: tuple[int, int], options: FrameOptions, path: Path
) -> tuple[str, ...]:
    """Write a PNG of a photo, uint8 (H, W, 3), with its pose map in colours and a rectangle around what frames show.

    size: (height, width) of the model's own frames, used to judge their sharpness. Returns notices about the picture
    and the photo's problems. The area outside the rectangle is darkened. Raises InputError as `framing.fit_photo`,
    StorageError.
    """
    _, _, box = fit_photo(image, image_poses, size, options)
    notices = photo_checks(image_poses, box, image.shape[:2], size)
    (height, width), top, left = image.shape[:2], min(0.0, box.top), min(0.0, box.left)
    whole = Box(top, left, max(height, box.top + box.height) - top, max(width, box.left + box.width) - left)
    scale = PANEL_HEIGHT / whole.height
    canvas = PANEL_HEIGHT, max(1, round(whole.width * scale))
    picture = fit_image(image, canvas, whole)
    if image_poses is not None:
        whole_map = on_map(whole, image.shape[:2], image_poses.size)
        picture = next(overlay(picture, fitted(largest_alone(image_poses), canvas, whole_map), opacity=0.5))
    low, first = round((box.top - top) * scale), round((box.left - left) * scale)
    high, last = round((box.top + box.height - top) * scale), round((box.left + box.width - left) * scale)
    shown = picture // 3
    shown[low:high, first:last] = picture[low:high, first:last]
    drawing = Image.fromarray(shown)
    ImageDraw.Draw(drawing).rectangle((first, low, last - 1, high - 1), outline=_INK, width=2)
    write_png(np.asarray(drawing), path)
    return notices if image_poses is None or not image_poses.mask.any() else (COLOURED, *notices)


def _panel(picture: np.ndarray, words: str, paper: tuple[int, int, int]) -> np.ndarray:
    """Scale a picture to the panels' height and add a caption strip below it."""
    width = max(2, round(picture.shape[1] * PANEL_HEIGHT / picture.shape[0] / 2) * 2)
    scaled = Image.fromarray(picture).resize((width, PANEL_HEIGHT), Image.Resampling.BICUBIC)
    strip, font = Image.new("RGB", (width, _CAPTION), paper), ImageFont.load_default(13)
    ImageDraw.Draw(strip).text((width / 2, _CAPTION / 2), words, fill=_INK, anchor="mm", font=font)
    return np.concatenate([np.asarray(scaled), np.asarray(strip)])
