"""Prepare clips of people for training: one folder per clip, with frames cropped to the person and their DensePose."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, ModelError, shown
from ..files import appearing, flush, storage_error
from ..inputs.framing import on_map
from ..media import crop_box, fit_image, is_video, probe_video, read_image, read_video, same_aspect, write_png
from ..poses import MAX_MAP_SIDE, Estimate, PoseSequence, fitted, is_densepose_of, poses_beside, read_any, write_poses
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .footage import LEAST, REPORT, folder_maps, frames_in

_LEAST_SHARE = 0.01  # of the frame: a smaller person does not count as one
_ABOUT = "clip.json"
MAX_FRAMES = 3000  # of a clip, whose maps are held in memory


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`. frames: number of frames of each usable clip, by name; before: clips prepared earlier.

    fewer: number of frames of a clip left out because they show no person. left_out: why a clip could not be used.
    """

    frames: dict[str, int]
    before: tuple[str, ...]
    fewer: dict[str, int]
    left_out: dict[str, str]


@dataclass(frozen=True)
class _Source:
    """A clip's source. about: identifies it, so that a prepared folder is reused only for the same source."""

    about: dict
    count: int
    size: tuple[int, int]
    fps: float
    frames: Callable[[], Iterator[np.ndarray]]
    maps: Callable[[Estimate | None], PoseSequence]


def prepare(
    folder: Path,
    out: Path,
    size: tuple[int, int],
    *,
    estimate: Estimate | None = None,
    estimator: str = "none",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Prepared:
    """Write one folder of frame_<n>.png and frame_<n>.npz into `out` for every clip below `folder`, and report.json.

    A clip is a video, or a folder of frame_<n>.png. Its DensePose is a file or folder next to it (see `poses_beside`;
    the original's frame_<n>_densepose.npy next to the pictures), else the result of `estimate`; `estimator` describes
    that, and clips are prepared again when it changes. Frames are cropped to (height, width) = `size` around the area
    that the person covers during the clip; frames without a person and unusable clips are left out: report.json says
    why, and which folders count.
    Prepared clips are reused; folders that were not made here are never replaced. Raises InputError if there are no
    clips or none is usable, ModelError, StorageError, Cancelled.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {shown(str(folder))}; give one that holds videos of people.")
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"--out is {shown(str(out))}, which holds the clips themselves; give another folder.")
    if (out / REPORT).exists() and "clips" not in _read(out / REPORT):
        raise InputError(f"There is a {REPORT} in {shown(str(out))} from another program; give another folder.")
    paths = _clips(folder, out)
    if not paths:
        raise InputError(
            f"There is no video and no folder of frame_<n>.png in {shown(str(folder))}; give a folder of clips."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, out) from error
    for left in out.glob(".*.part"):  # left by a crash
        shutil.rmtree(left, ignore_errors=True)
    frames, before, fewer, left_out = {}, [], {}, {}
    clock = StageClock("clips", len(paths), on_progress)
    for number, (name, path) in enumerate(paths.items()):
        check_stop(should_stop)
        about = {"source": name, "files": _state(path), "size": list(size), "estimator": estimator}
        ready = _ready(out / name, about)
        try:
            if ready is None:
                ready = _prepared(_source(path, about), out / name, size, estimate, should_stop)
            else:
                before.append(name)
            frames[name] = ready["frames"]
            if ready["nobody"]:
                fewer[name] = ready["nobody"]
        except ModelError:  # without an estimator every clip would fail
            raise
        except InputError as error:
            left_out[name] = str(error)
        with appearing(out / REPORT) as temporary:
            temporary.write_text(
                json.dumps({"clips": frames, "frames_left_out": fewer, "left_out": left_out}, indent=1)
            )
        clock.tick(number + 1)
    if not frames:
        name, why = next(iter(left_out.items()))
        raise InputError(f"None of the {len(paths)} clips can be used; {REPORT} says why. {shown(name)}: {why}")
    return Prepared(frames, tuple(before), fewer, left_out)


def _clips(folder: Path, out: Path) -> dict[str, Path]:
    """List all videos and folders of pictures below `folder`, by the names of their prepared folders; prepared folders
    are skipped."""
    clips = {folder.resolve().name: folder} if frames_in(folder) else {}
    for path in sorted(folder.rglob("*")):
        inside = out.resolve() in (path.resolve(), *path.resolve().parents)
        if inside or any(part.startswith(".") for part in path.relative_to(folder).parts) or _is_prepared(path.parent):
            continue
        if path.is_dir():
            # a folder with a video's name holds its maps, not another clip
            of_video = any(
                other.stem == path.name and other.is_file() and is_video(other) for other in path.parent.iterdir()
            )
            clip = bool(frames_in(path)) and not of_video and not _is_prepared(path)
        else:
            clip = path.is_file() and is_video(path) and not is_densepose_of(path)
        if clip:
            name = "_".join(path.relative_to(folder).with_suffix("").parts)
            if name in clips:
                name += path.suffix.replace(".", "_")
            while name in clips:
                name += "_"
            clips[name] = path
    return clips


def _source(path: Path, about: dict) -> _Source:
    """Open a clip. Raises InputError if it cannot be read."""
    if path.is_dir():
        frames = frames_in(path)

        def pictures() -> Iterator[np.ndarray]:
            return (read_image(frame.picture) for frame in frames)

        def maps(estimate: Estimate | None) -> PoseSequence:
            if (stored := folder_maps(path, frames)) is not None:
                return stored
            beside = poses_beside(path)
            return _estimated(path, map(_reduced, pictures()), estimate) if beside is None else read_any(beside).poses

        return _Source(about, len(frames), next(pictures()).shape[:2], 30.0, pictures, maps)
    info = probe_video(path)

    def of_video(estimate: Estimate | None) -> PoseSequence:
        beside = poses_beside(path)
        if beside is None:
            return _estimated(path, read_video(path, max_side=MAX_MAP_SIDE), estimate)
        return read_any(beside, estimate).poses

    return _Source(about, info.num_frames, (info.height, info.width), info.fps, lambda: read_video(path), of_video)


def _prepared(
    source: _Source, final: Path, size: tuple[int, int], estimate: Estimate | None, should_stop: ShouldStop
) -> dict:
    """Write the folder of a clip, whole or not at all, and return its clip.json. Raises InputError, StorageError,
    Cancelled."""
    if final.exists() and not _is_prepared(final):
        raise InputError(
            f"There is a {shown(final.name)} in the output folder that is no prepared clip; give another folder."
        )
    if source.count > MAX_FRAMES:
        raise InputError(
            f"It has {source.count} frames, and at most {MAX_FRAMES} are held at once; cut it into shorter clips."
        )
    poses = source.maps(estimate)
    if len(poses) != source.count:
        raise InputError(f"It has {source.count} frames and its DensePose {len(poses)}; give one map for each frame.")
    if not same_aspect(source.size, poses.size):
        sizes = (
            f"{source.size[0]} x {source.size[1]} and its DensePose {poses.size[0]} x {poses.size[1]} (height x width)"
        )
        raise InputError(f"It is {sizes}; give maps that were made from it.")
    shows = poses.mask.mean((1, 2)) >= _LEAST_SHARE
    if shows.sum() < LEAST:
        raise InputError(
            f"Only {int(shows.sum())} of its {source.count} frames show a person, and at least {LEAST} are needed."
        )
    box = crop_box(source.size, size, _anywhere(poses, shows, source.size))
    about = {**source.about, "frames": int(shows.sum()), "nobody": int((~shows).sum()), "fps": source.fps}
    temporary = final.with_name(f".{final.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for index, frame in enumerate(source.frames()):
            check_stop(should_stop)
            if frame.shape[:2] != source.size:
                raise InputError(
                    f"Its frames differ in size: {source.size[0]} x {source.size[1]} and {frame.shape[0]} x "
                    f"{frame.shape[1]}."
                )
            if shows[index]:
                write_png(fit_image(frame, size, box), temporary / f"frame_{index:05d}.png")
                pose_map = fitted(poses.select(slice(index, index + 1)), size, on_map(box, source.size, poses.size))
                write_poses(pose_map, temporary / f"frame_{index:05d}.npz")
        with appearing(temporary / _ABOUT) as file:
            file.write_text(json.dumps(about, indent=1))
        flush(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except OSError as error:
        raise storage_error(error, final) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about


def _anywhere(poses: PoseSequence, shows: np.ndarray, source: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return top, left, bottom, right of the area that the person covers in the clip, in pixels of the pictures."""
    mask = poses.mask[shows].any(0)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    down, across = source[0] / poses.size[0], source[1] / poses.size[1]
    return (
        rows[0] * down,
        columns[0] * across,
        min((rows[-1] + 1) * down, source[0]),
        min((columns[-1] + 1) * across, source[1]),
    )


def _estimated(path: Path, frames: Iterator[np.ndarray], estimate: Estimate | None) -> PoseSequence:
    if estimate is None:
        name = shown(path.stem)
        raise InputError(
            f"There is no DensePose next to it and no estimator was chosen; put {name}.npz next to it, or give "
            "--estimator."
        )
    return estimate(frames)


def _reduced(picture: np.ndarray) -> np.ndarray:
    """Shrink a picture to the largest side that maps have."""
    scale = min(1.0, MAX_MAP_SIDE / max(picture.shape[:2]))
    return (
        picture if scale == 1 else fit_image(picture, tuple(max(1, round(side * scale)) for side in picture.shape[:2]))
    )


def _ready(folder: Path, about: dict) -> dict | None:
    """Return clip.json of a prepared folder, or None if it was made from other files or in another way."""
    before = _read(folder / _ABOUT)
    same = _is_prepared(folder) and all(before.get(key) == value for key, value in about.items())
    return before if same else None


def _is_prepared(folder: Path) -> bool:
    """Whether `prepare` made this folder."""
    return {"source", "size", "frames", "nobody"} <= _read(folder / _ABOUT).keys()


def _read(path: Path) -> dict:
    """Read a JSON file's object; empty if there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _state(path: Path) -> str:
    """Return a digest of the names, sizes and times of a clip's files and of the DensePose next to it."""
    digest = hashlib.sha256()
    for source in (path, poses_beside(path)):
        files = (
            []
            if source is None
            else [source]
            if source.is_file()
            else sorted(file for file in source.iterdir() if file.is_file())
        )
        for file in files:
            about = file.stat()
            digest.update(f"{file.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
