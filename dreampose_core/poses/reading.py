"""Read a motion from any file: every DensePose format, detected by its content, and videos by an estimator."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from ..errors import InputError, shown
from ..media import is_video
from . import maps
from .npz import read_poses
from .numbered import Folder, refusing
from .renderings import SAME_COLOUR, Palette, is_overlay, looks_drawn, palette_of, parts_of, shows_ramps
from .sequence import Charts, PoseSequence
from .sources import FORM_NPZ, NO_RATE, SUFFIXES, Pictures, Reading, Video, numbered_frames

Estimate = Callable[[Iterable[np.ndarray]], PoseSequence]
"""uint8 (H, W, 3) RGB frames of one size -> maps of that size; frames without a person are all 0. `read_any` gives it
`Frames`."""

_PICKLES = (".pkl", ".pickle", ".pth", ".pt")
# Pickles from protocol 2 on start with a marker, older ones with a global's name or a container; all end with a ".".
_PICKLE_START = re.compile(rb"\x80[\x00-\x05]|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n|\((lp|dp|i[a-z_])|[\]}]q")
# How far a rendering's colours may be off before other ways to store them are tried, and at all; see `palette_of`.
_FITS, _MISFIT = 12.0, 40.0
_LEVELS = "limited", "full"
_STORED = [f"in_color_matrix={matrix}:in_range={levels}" for matrix in ("bt601", "bt709") for levels in _LEVELS]
# How files start that are read as those with this suffix, whatever their names; two for zips: one of an empty one.
_STARTS = {
    ".zip": rb"PK\x03\x04|PK\x05\x06",
    ".npy": rb"\x93NUMPY",
    ".png": rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP",
}
_ACCEPTED = (
    "accepted are pose files (.npz), frame_<n>_densepose.npy, IUV pictures, DensePose renderings and clips of a "
    "person, as a file, a folder or a zip"
)


def read_any(path: str | Path, estimate: Estimate | None = None) -> Reading:
    """Read the motion in the file or folder at `path`; the format is detected by its content.

    estimate: makes pose maps of ordinary pictures and videos of a person; without it they are refused.
    Raises InputError with one sentence, and whatever `estimate` raises.
    """
    path = Path(path)
    name = shown(path.name or str(path))
    start = b"" if os.path.isdir(path) else _start_of(path, name)
    kind = next((suffix for suffix, pattern in _STARTS.items() if re.match(pattern, start, re.DOTALL)), None)
    if start and kind is None:
        if is_video(path):
            return _from_frames(Video(path), estimate)
        raise InputError(f"{name} is of no kind that is known here, or it is damaged; {_ACCEPTED}.")
    with Folder(path) as folder:
        entries = [replace(folder.entries[0], suffix=kind)] if kind in (".npy", ".png") else folder.entries
        arrays, pictures, npzs, pickles = (
            [entry for entry in entries if entry.suffix in suffixes]
            for suffixes in ((".npy",), SUFFIXES, (".npz",), _PICKLES)
        )
        is_npz = path.suffix.lower() == ".npz" or {"version.npy", "charts.npy", "fps.npy"} <= {x.name for x in arrays}
        if kind == ".zip" and is_npz:
            return Reading(read_poses(path), FORM_NPZ, ())
        if kind is None and not arrays and len(npzs) == 1:
            notice = f"The poses are taken from {npzs[0].name} in {folder.name}."
            return Reading(read_poses(npzs[0].source), FORM_NPZ, (notice,))
        if arrays:
            left_out = (f"The pictures next to the maps in {folder.name} are left out.",) if pictures else ()
            return _original(folder, arrays, left_out)
        if pictures:
            return _from_frames(Pictures(folder, pictures), estimate)
        if pickles:
            raise _pickle(pickles[0].name)
        raise InputError(f"{folder.name} holds no pictures and no .npy maps; {_ACCEPTED}.")


def _start_of(path: Path, name: str) -> bytes:
    """The first bytes of a file. Raises InputError when it is missing, empty, unreadable or a pickle."""
    if not os.path.isfile(path):  # unlike Path.is_file, returns False for names that are too long or not accessible
        todo = "download it first" if re.match("https?:/", str(path)) else "please check the name"
        raise InputError(f"There is no file or folder at {shown(str(path))}; {todo}.")
    if os.path.getsize(path) == 0:
        raise InputError(f"{name} is empty (0 bytes); {_ACCEPTED}.")
    with refusing(f"{name} may not be read; please check its permissions; {_ACCEPTED}."), open(path, "rb") as file:
        start = file.read(128)
        file.seek(-1, os.SEEK_END)
        end = file.read(1)
    if path.suffix.lower() in _PICKLES or (end == b"." and _PICKLE_START.match(start)):
        raise _pickle(name)
    return start


def read_image_map(spec: str | Path, estimate: Estimate | None = None) -> Reading:
    """Read a photo's map from any format: `FILE` takes the first map, `FILE:K` map K.

    Raises InputError as `read_any` does.
    """
    text, frame = str(spec), 0
    head, colon, tail = text.rpartition(":")
    if colon and tail.isdecimal() and len(tail) < 10 and not os.path.exists(text):
        text, frame = head, int(tail)
    return _one_map(read_any(text, estimate), frame)


def image_poses_of(reading: Reading, num_photos: int) -> Reading:
    """Choose the photos' maps from a reading: one per photo, in order, if it holds `num_photos`; else its first map."""
    first = _one_map(reading, 0)
    return replace(first, poses=reading.poses) if len(reading.poses) == num_photos else first


def _one_map(reading: Reading, frame: int) -> Reading:
    """Take map `frame` of a reading as a photo's map. Raises InputError when there is none."""
    notices = tuple(notice for notice in reading.notices if notice != NO_RATE)  # a single map needs no rate
    return replace(reading, poses=reading.poses.clip(frame, frame + 1), notices=notices)


def _original(folder: Folder, entries: list, notices: tuple[str, ...] = ()) -> Reading:
    """Read the original DreamPose's maps, which have no parts."""
    charts, fps = maps.read_sidecar(folder)
    frames = numbered_frames(folder, entries, "maps", lambda entry: maps.read_original(folder, entry), notices)
    return frames.decoded(lambda uv: {"uv": uv.transpose(2, 0, 1).astype(np.float32)}, charts, maps.FORM_ORIGINAL, fps)


def _from_frames(source: Video | Pictures, estimate: Estimate | None) -> Reading:
    """Decode the frames if they are pose maps, else estimate the maps."""
    samples = source.samples()
    charts = source.text.get("charts")  # this program writes it into IUV pictures
    charts = charts if charts in get_args(Charts) else None
    order = maps.RGB if charts else maps.order_of(samples)
    if order is not None:
        return _iuv(source, order, charts or "densepose")
    palette, shown = _palette(source, samples)
    if palette is not None:
        if shows_ramps(shown, palette):
            raise InputError(
                f"{source.name} shows U or V in colours, which rise along the body, not its parts; please bring the "
                "rendering of the parts, or IUV pictures."
            )
        frames = source.frames(raw=True)
        if palette.swapped:
            notice = f"Red and blue are swapped in {source.name}; they were put right."
            frames = replace(frames, notices=(notice, *frames.notices))
        return frames.decoded(lambda frame: {"parts": parts_of(frame, palette)}, "none", palette.form)
    if is_overlay(samples):
        raise InputError(
            f"{source.name} seems to be detectron2's picture of DensePose over the photo, which hides the parts; let "
            "detectron2 dump instead (apply_net.py dump), then: python -m dreampose_core poses convert FILE poses.npz."
        )
    halves = ((*np.split(x, [x.shape[1] // 2], 1), *np.split(x, [x.shape[0] // 2])) for x in samples)
    if any(map(palette_of, zip(*halves))):
        raise InputError(
            f"{source.name} shows a DensePose rendering next to another picture; cut it to the one that is meant."
        )
    if estimate is None:
        raise InputError(
            f"{source.name} shows no DensePose that is known here (IUV, or the colours of MagicAnimate, vid2densepose "
            "or parula on black), and no estimator is chosen (--estimator, DREAMPOSE_ESTIMATOR); choose one, or bring "
            "a pose file (.npz), frame_<n>_densepose.npy, IUV pictures or a rendering."
        )
    frames = source.frames(raw=False)
    if looks_drawn(samples):
        notice = (
            f"{source.name} looks like a drawing in flat colours and was read as pictures of a person; if it is a "
            "DensePose rendering, its colours are not known here, so please bring IUV pictures or a pose file (.npz)."
        )
        frames = replace(frames, notices=(notice, *frames.notices))  # before they leave this process
    return frames.estimated(estimate(frames))


def _palette(source: Video | Pictures, samples: list[np.ndarray]) -> tuple[Palette | None, list[np.ndarray]]:
    """Recognise the style of a rendering; returns it and the samples as read. Where a video's colours fit badly, it is
    read in all usual ways, and the one that fits best is kept in `source`. Raises InputError if none fits."""
    ways = {None: (palette_of(samples) or (None, np.inf), samples)}
    fits_badly = ways[None][0][1] > _FITS and isinstance(source, Video) and source.lossy
    if fits_badly and palette_of(samples, 3 * SAME_COLOUR) is not None:
        for source.stored in _STORED:
            read = source.samples()
            ways[source.stored] = palette_of(read) or (None, np.inf), read
        source.stored = min(ways, key=lambda way: ways[way][0][1])
    (palette, error), samples = ways[getattr(source, "stored", None)]
    if len(ways) > 1 and palette is not None and error > _MISFIT:
        raise InputError(
            f"{source.name} seems to be a {palette.form} whose colours were changed, so its parts cannot be told; "
            "please bring it as it was made, or IUV pictures."
        )
    return palette, samples


def _iuv(source: Video | Pictures, order: str, charts: Charts) -> Reading:
    kind, form = ("video", maps.FORM_VIDEO) if source.kind == "video" else ("picture", maps.FORM_IMAGES)
    lossy = InputError(
        f"{source.name} looks like an IUV {kind} that was compressed with loss ({source.format}), which changes parts "
        "and U, V; please save the IUV frames as PNG, in a folder or a zip, or as FFV1 in .mkv."
    )
    if order == maps.LOSSY or source.lossy:
        raise lossy

    def decode(frame: np.ndarray) -> dict[str, np.ndarray]:
        if not maps.is_exact(frame):
            raise lossy
        found = maps.decode(frame)
        return {"parts": found["parts"]} if charts == "none" else found

    frames = source.frames(raw=True)
    if order == maps.BGR:
        notice = f"{source.name} holds V, U, I instead of I, U, V, as red and blue swapped; it was put right."
        frames = replace(frames, frames=(frame[..., ::-1] for frame in frames), notices=(notice, *frames.notices))
    try:
        fps = float(source.text["fps"])  # this program writes it into IUV pictures
    except (KeyError, ValueError):
        fps = 0.0
    return frames.decoded(decode, charts, form, fps if 1 <= fps <= 240 else None)


def poses_beside(video: Path) -> Path | None:
    """Find the DensePose of the video NAME.mp4 next to it; None without any.

    Looks for NAME.npz, NAME.zip, a folder NAME of maps or pictures, NAME.densepose.mp4 and NAME.densepose.mkv.
    """
    for ending in (".npz", ".zip", "", ".densepose.mp4", ".densepose.mkv"):
        path = video.with_name(video.stem + ending)
        suffixes = {file.suffix.lower() for file in path.iterdir()} if path.is_dir() else set()
        if path != video and (path.is_file() or suffixes & {".npy", ".npz", *SUFFIXES}):
            return path
    return None


def is_densepose_of(video: Path) -> bool:
    """Whether this video is itself the DensePose rendering of another one, by its name."""
    return Path(video.stem).suffix == ".densepose"


def _pickle(name: str) -> InputError:
    return InputError(
        f"{name} is a pickle, which may run code when opened, so it is never opened here; turn it into a safe file on "
        "your own machine with: python -m dreampose_core poses convert FILE poses.npz."
    )
