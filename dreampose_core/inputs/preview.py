"""The instant preview: a photo as it is understood, a motion laid over it, its texture moved by the motion; seconds,
without a model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
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
    convertible,
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

NOTICE = (
    "This is an instant preview: the photo's own pixels moved by the motion, without a model, so "
    "unseen sides are missing."
)
COLOURED = "Coloured is the person as found in the photo; the frame shows what the video will show."
COLOURS_ONLY = "Photo and motion share no U, V, so each part of the body has one colour here."
HOLES = "The motion has holes in frame {}, marked in the preview; closing holes fills them."
PANEL_HEIGHT = 320
_BATCH = 8
_CAPTION, _INK, _PAPER, _MARK = 22, (225, 225, 230), (24, 24, 28), (180, 83, 9)


def moved_frames(
    photo: np.ndarray, image_poses: PoseSequence, poses: PoseSequence, use_uv: bool = True
) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) frames: the texture of a photo (H, W, 3) with its map (one frame), moved to each map of `poses`.

    All of one size. Without U, V, with `use_uv` false or where the charts differ, each part takes its mean colour.
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
    return poses.uv is not None and convertible(poses.charts, image_poses.charts)


def can_move(scene: Scene) -> bool:
    """Whether the photo's texture can be moved: both maps know their parts, and somebody is in the photo."""
    return (
        scene.image_poses is not None
        and scene.image_poses.parts is not None
        and scene.poses.parts is not None
        and bool(scene.image_poses.mask.any())
    )


def preview_size(model: str | Path, photo: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) in which a preview for this model, and a photo of (height, width), is made: the frames' shape,
    small enough to take seconds."""
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
    """Writes an MP4 of panels side by side and returns sentences about it.

    motion: as it came. Without a scene the panel is the motion, edited, in colours. With one: the photo as it is
    fitted, the scene's motion over it, and the moved texture where it can be had. Below the motion stands which frame
    of the one that came it is, and a mark where that has holes. Raises StorageError, InputError as `edited`, and
    Cancelled when should_stop() is true.
    """
    numbers = source_frames(len(motion), motion.fps, options)
    holes = np.zeros(len(motion), bool) if options.fill_holes else frames_with_holes(motion)
    shown = np.unique(numbers[holes[numbers]])
    notices: tuple[str, ...] = (HOLES.format(frame_ranges(shown, range(len(motion)))),) if len(shown) else ()
    if scene is None:
        poses = edited(motion, options)
        panels = {
            "motion": (frame for index in range(len(poses)) for frame in render_colours(poses.clip(index, index + 1)))
        }
    else:
        poses = scene.poses
        panels = {"photo": repeat(scene.photo), "motion": overlay(scene.photo, poses)}
        if can_move(scene):
            textured = _share_charts(scene.image_poses, poses)
            panels["moved texture" if textured else "colours of the parts"] = moved_frames(
                scene.photo, scene.image_poses, poses
            )
            notices += (NOTICE,) if textured else (NOTICE, COLOURS_ONLY)
        else:
            notices += (
                "The photo's texture cannot be moved, because the parts of the body are unknown in the photo or in "
                "the motion.",
            )
    clock = StageClock("preview", len(poses), on_progress)

    def frames() -> Iterator[np.ndarray]:
        for index, row in enumerate(zip(*panels.values())):
            check_stop(should_stop)
            number = int(numbers[index])
            words = {"motion": f"motion, frame {number}" + (", holes" if holes[number] else "")}
            papers = {"motion": _MARK if holes[number] else _PAPER}
            pictures = [
                _panel(picture, words.get(name, name), papers.get(name, _PAPER)) for name, picture in zip(panels, row)
            ]
            yield np.concatenate(pictures, 1)
            clock.tick(index + 1)

    write_video(frames(), path, poses.fps)
    return notices


def write_look(
    image: np.ndarray, image_poses: PoseSequence | None, size: tuple[int, int], options: FrameOptions, path: Path
) -> tuple[str, ...]:
    """Writes a PNG of a photo uint8 (H, W, 3), its DensePose in colours, and a frame around what is taken for frames of
    `size`.

    size: of the model's own frames, (height, width): how sharp they can be is told, too. Returns sentences about the
    picture and about what the photo lacks. What lies outside the frame is dark. Raises InputError as `scene.fit_photo`,
    StorageError.
    """
    _, _, box = fit_photo(image, image_poses, size, options)
    said = photo_checks(image_poses, box, image.shape[:2], size)
    if image_poses is not None:
        image_poses = largest_alone(image_poses)
    (height, width), top, left = image.shape[:2], min(0.0, box.top), min(0.0, box.left)
    whole = Box(top, left, max(height, box.top + box.height) - top, max(width, box.left + box.width) - left)
    scale = PANEL_HEIGHT / whole.height
    canvas = PANEL_HEIGHT, max(1, round(whole.width * scale))
    picture = fit_image(image, canvas, whole)
    if image_poses is not None:
        own = fitted(image_poses, canvas, on_map(whole, image.shape[:2], image_poses.size))
        picture = next(overlay(picture, own, opacity=0.5))
    low, first = round((box.top - top) * scale), round((box.left - left) * scale)
    high, last = round((box.top + box.height - top) * scale), round((box.left + box.width - left) * scale)
    shown = picture // 3
    shown[low:high, first:last] = picture[low:high, first:last]
    drawing = Image.fromarray(shown)
    ImageDraw.Draw(drawing).rectangle((first, low, last - 1, high - 1), outline=_INK, width=2)
    write_png(np.asarray(drawing), path)
    return said if image_poses is None or not image_poses.mask.any() else (COLOURED, *said)


def _panel(picture: np.ndarray, words: str, paper: tuple[int, int, int]) -> np.ndarray:
    """A picture at the panels' height over a strip that says what it is."""
    height, width = picture.shape[:2]
    size = max(2, round(width * PANEL_HEIGHT / height / 2) * 2), PANEL_HEIGHT
    scaled = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    return np.concatenate([np.asarray(scaled), _strip(words, size[0], paper)])


@lru_cache(maxsize=8)  # most panels say the same on every frame
def _strip(words: str, width: int, paper: tuple[int, int, int]) -> np.ndarray:
    strip = Image.new("RGB", (width, _CAPTION), paper)
    ImageDraw.Draw(strip).text((width / 2, _CAPTION / 2), words, fill=_INK, anchor="mm", font=_font())
    return np.asarray(strip)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)
