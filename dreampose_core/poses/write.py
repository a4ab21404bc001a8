"""Write pose sequences for other programs, and render them as pictures, alone or over a photo.

The formats are npz, IUV pictures, a coloured video and the original DreamPose's maps.
"""

from __future__ import annotations

import colorsys
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files import appearing, appearing_folder, check_new_folder, flush
from ..media import write_video
from .maps import SIDECAR, encode
from .npz import write_poses
from .renderings import MAGIC_ANIMATE
from .sequence import NUM_PARTS, PoseSequence

BACKGROUND = (24, 24, 28)
# Golden-ratio hues keep neighbouring part numbers apart.
_PALETTE = np.array(
    [BACKGROUND]
    + [[round(255 * c) for c in colorsys.hsv_to_rgb((i * 0.618034) % 1, 0.55, 0.95)] for i in range(1, NUM_PARTS + 1)],
    dtype=np.uint8,
)


def check_target(path: str | Path) -> None:
    """Raise InputError when `write_any` cannot write to `path`, whatever the poses are."""
    path = Path(path)
    if path.suffix.lower() not in ("", ".npz", ".zip", ".mp4"):
        known = ".npz, .zip, .mp4 or, without one, a folder"
        raise InputError(f"{path.name} has the ending {path.suffix}; poses are written as {known}.")
    if not path.parent.is_dir():
        raise InputError(f"{path.name} cannot be written: there is no folder {path.parent}; create it first.")
    if path.suffix == "":
        check_new_folder(path)


def write_any(poses: PoseSequence, path: str | Path) -> tuple[str, ...]:
    """Write `poses` in the format that the suffix of `path` names; returns notices about what the format leaves out.

    The file or folder appears complete or not at all. .npz: everything. .zip: IUV pictures frame_00000.png, ..., with
    charts and fps in their text fields; U, V in steps of 1/255. .mp4: parts in MagicAnimate's colours; an odd side
    grows by one pixel. No suffix: a folder of the original's frame_<n>_densepose.npy, U, V only.
    Raises InputError when the format cannot hold these poses, StorageError when the path cannot be written.
    """
    check_target(path)
    path = Path(path)
    form = path.suffix.lower()
    if form in (".zip", ".mp4") and poses.parts is None:
        raise InputError(f"{path.name} needs parts, but these poses have U, V only; write .npz or a folder.")
    if form == "" and poses.uv is None:
        raise InputError(f"{path.name} needs U, V, but these poses have parts only; write .npz, .zip or .mp4.")
    if form == ".npz":
        write_poses(poses, path)
    elif form == ".zip":
        about = PngInfo()
        about.add_text("charts", poses.charts)
        about.add_text("fps", repr(float(poses.fps)))
        # ZIP_STORED, because PNG is already compressed
        with appearing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for index, parts in enumerate(poses.parts):
                file = io.BytesIO()
                picture = Image.fromarray(encode(parts, None if poses.uv is None else poses.uv[index]))
                picture.save(file, "PNG", pnginfo=about)
                archive.writestr(f"frame_{index:05d}.png", file.getvalue())
    elif form == ".mp4":
        pictures = (MAGIC_ANIMATE.colours[frame] for frame in poses.parts)
        write_video(pictures, path, poses.fps, crf=8)  # high quality, because compression damages small maps
    else:
        with appearing_folder(path) as temporary:
            for index, uv in enumerate(poses.uv):
                np.save(temporary / f"frame_{index}_densepose.npy", uv.astype(np.float64))
            (temporary / SIDECAR).write_text(json.dumps({"charts": poses.charts, "fps": poses.fps}))
            for file in temporary.iterdir():
                flush(file)
    left_out = {".mp4": "U, V" * (poses.uv is not None), "": "parts" * (poses.parts is not None)}.get(form)
    return (f"{path.name} cannot hold {left_out}, which are left out; .npz and .zip hold both.",) if left_out else ()


# ---- pictures to look at ---------------------------------------------------------------------------------------------


def render_colours(poses: PoseSequence) -> np.ndarray:
    """Render maps as uint8 (T, H, W, 3): a hue for each part, darker towards low U and V; one hue without parts."""
    return np.stack([picture for picture, _ in _pictures(poses)])


def overlay(photo: np.ndarray, poses: PoseSequence, opacity: float = 0.6) -> Iterator[np.ndarray]:
    """Yield each map as uint8 (H, W, 3): the person's colours at `opacity` (0..1) over `photo`, elsewhere the photo.

    photo: uint8 (H, W, 3), of the maps' size.
    """
    for picture, mask in _pictures(poses):
        frame = photo.copy()
        mixed = picture[mask] * np.float32(opacity) + photo[mask] * np.float32(1 - opacity)
        frame[mask] = mixed.round().astype(np.uint8)
        yield frame


def _pictures(poses: PoseSequence) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each map as a picture, uint8 (H, W, 3), and the person's mask, bool (H, W)."""
    for index in range(len(poses)):
        mask = poses.mask_of(index)
        picture = _PALETTE[poses.parts[index] if poses.parts is not None else mask.astype(np.uint8) * 2]
        if poses.uv is not None:
            shade = 0.55 + 0.45 * poses.uv[index][:, mask].astype(np.float32).mean(axis=0)  # (N,)
            picture[mask] = (picture[mask] * shade[:, None]).round().astype(np.uint8)
        yield picture, mask
