"""Pose sequences into the forms that other programs read: npz, IUV pictures, a coloured video, the original DreamPose's
maps."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files import appearing, flush, storage_error
from ..media import write_video
from .iuv import encode
from .npy import SIDECAR
from .npz import write_poses
from .renderings import MAGIC_ANIMATE
from .sequence import PoseSequence


def check_target(path: str | Path) -> None:
    """Raises InputError where `write_any` could not write to `path` whatever the poses are."""
    path = Path(path)
    if path.suffix.lower() not in ("", ".npz", ".zip", ".mp4"):
        raise InputError(
            f"{path.name} has the ending {path.suffix}; poses are written as .npz, .zip, .mp4 or, without one, a "
            "folder."
        )
    if not path.parent.is_dir():
        raise InputError(f"{path.name} cannot be written: there is no folder {path.parent}; create it first.")
    if path.suffix == "" and os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path.name} is there already and is not an empty folder; please choose another name.")


def write_any(poses: PoseSequence, path: str | Path) -> tuple[str, ...]:
    """Writes `poses` in the form that the name of `path` asks for; it appears whole or not at all. Returns what the
    form left out.

    .npz: all there is. .zip: IUV pictures frame_00000.png, ..., which say charts and fps; U, V in steps of 1/255. .mp4:
    parts in MagicAnimate's colours; an odd side grows by one pixel. No suffix: a folder of the original's
    frame_<n>_densepose.npy, U, V only.
    Raises InputError when the form cannot hold these poses, StorageError when the place cannot be written.
    """
    check_target(path)
    path = Path(path)
    form = path.suffix.lower()
    if form in (".zip", ".mp4") and poses.parts is None:
        raise InputError(
            f"{path.name} needs parts, which these poses (U, V only) do not have; write .npz or a folder instead."
        )
    if form == "" and poses.uv is None:
        raise InputError(
            f"{path.name} would be a folder of U, V maps, but these poses have parts only; write .npz, .zip "
            "or .mp4 instead."
        )
    if form == ".npz":
        write_poses(poses, path)
    elif form == ".zip":
        _write_iuv(poses, path)
    elif form == ".mp4":
        colours = MAGIC_ANIMATE.array()
        write_video((colours[frame] for frame in poses.parts), path, poses.fps, crf=8)  # small maps need it
    else:
        _write_maps(poses, path)
    left_out = (
        "U, V"
        if form == ".mp4" and poses.uv is not None
        else "parts"
        if form == "" and poses.parts is not None
        else None
    )
    return (
        ()
        if left_out is None
        else (f"{path.name} cannot hold {left_out}, which are left out; .npz and .zip hold both.",)
    )


def _write_iuv(poses: PoseSequence, path: Path) -> None:
    about = PngInfo()
    about.add_text("charts", poses.charts)
    about.add_text("fps", repr(float(poses.fps)))
    with (
        appearing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):  # PNG is packed already
        for index, parts in enumerate(poses.parts):
            file = io.BytesIO()
            Image.fromarray(encode(parts, None if poses.uv is None else poses.uv[index])).save(
                file, "PNG", pnginfo=about
            )
            archive.writestr(f"frame_{index:05d}.png", file.getvalue())


def _write_maps(poses: PoseSequence, path: Path) -> None:
    temporary = path.with_name(f".part.{path.name}")
    try:
        temporary.mkdir()
        for index, uv in enumerate(poses.uv):
            np.save(temporary / f"frame_{index}_densepose.npy", uv.astype(np.float64))
        (temporary / SIDECAR).write_text(json.dumps({"charts": poses.charts, "fps": poses.fps}))
        for file in temporary.iterdir():
            flush(file)
        if path.is_dir():
            path.rmdir()  # empty; not every system renames onto a folder
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
