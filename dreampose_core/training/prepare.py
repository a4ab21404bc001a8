"""Prepare clips of people for training: one folder per clip, with frames cropped to the person and their DensePose."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError, ModelError, shown
from ..files import appearing, appearing_folder, flush
from ..inputs.framing import on_map
from ..media import crop_box, fit_image, is_video, probe_video, read_image, read_video, same_aspect, write_png
from ..poses import (
    MAX_MAP_SIDE,
    Estimate,
    PoseSequence,
    fitted,
    frame_ranges,
    is_densepose_of,
    person_box,
    poses_beside,
    read_any,
    write_poses,
)
from ..poses.sources import reduced_size
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .videos import REPORT, frames_in, joined, read_map

LEAST = 2  # frames of a clip: a photo and a different target
_WHOLE = "poses.npz"  # the maps of all frames in one file
_LEAST_SHARE = 0.01  # of the frame: a smaller person does not count as one
_ABOUT = "clip.json"
_VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".gif")


@dataclass
class Prepared:
    """The result of `prepare`, which is also written to report.json. clips: the clip.json of each usable clip by name;
    before: clips prepared earlier. left_out: why a clip could not be used.

    A clip.json has the number of "frames", "without": sentences about frames that are left out, and "maps": where the
    maps come from.
    """

    clips: dict[str, dict] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


class _Source(NamedTuple):
    """A clip's source: `count` pictures of (height, width) `size`, which frames() reads, and their maps, which come
    from `origin`. without: sentences about frames that are left out."""

    count: int
    size: tuple[int, int]
    fps: float
    frames: Callable[[], Iterator[np.ndarray]]
    poses: PoseSequence
    origin: str
    without: list[str]


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
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".part.*"):  # left by a crash
        shutil.rmtree(left, ignore_errors=True)
    done, clock = Prepared(), StageClock("clips", len(paths), on_progress)
    for number, (name, path) in enumerate(paths.items()):
        check_stop(should_stop)
        about = {"source": name, "files": _state(path), "size": list(size), "estimator": estimator}
        try:
            ready = _read(out / name / _ABOUT)
            if (out / name).exists() and not {"source", "size", "frames", "without"} <= ready.keys():
                raise InputError(
                    f"There is a {shown(name)} in the output folder that is no prepared clip; give another folder."
                )
            if about.items() <= ready.items():
                done.before.append(name)
            else:
                source = (_folder if path.is_dir() else _video)(path, estimate)
                ready = _prepared(source, about, out / name, size, should_stop)
            done.clips[name] = ready
        except ModelError:  # without an estimator every clip would fail
            raise
        except InputError as error:
            done.left_out[name] = str(error)
        with appearing(out / REPORT) as temporary:
            temporary.write_text(json.dumps(vars(done), indent=1))
        clock.tick(number + 1)
    if not done.clips:
        name, why = next(iter(done.left_out.items()))
        raise InputError(f"None of the {len(done.left_out)} clips can be used; {REPORT} says why. {shown(name)}: {why}")
    return done


def _clips(folder: Path, out: Path) -> dict[str, Path]:
    """List all videos and folders of pictures below `folder`, but not in `out`, by the names of their prepared
    folders."""
    clips = {folder.resolve().name: folder} if frames_in(folder) else {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or out.resolve() in (path.resolve(), *path.resolve().parents):
            continue
        if path.is_dir():
            # a folder with a video's name holds its maps, not another clip
            of_video = any(other.stem == path.name and _is_clip(other) for other in path.parent.iterdir())
            clip = bool(frames_in(path)) and not of_video
        else:
            clip = _is_clip(path) and not is_densepose_of(path)
        if clip:
            name = "_".join(path.relative_to(folder).with_suffix("").parts)
            while name in clips:
                name += "_"
            clips[name] = path
    return clips


def _is_clip(path: Path) -> bool:
    return path.is_file() and (path.suffix.lower() in _VIDEOS or is_video(path))


def _video(path: Path, estimate: Estimate | None) -> _Source:
    """Open a video, and read or estimate its maps. Raises InputError if it cannot be read."""
    info = probe_video(path, partly=True)
    frames = read_video(path, max_side=MAX_MAP_SIDE, partly=True)
    poses, origin = _maps(path, poses_beside(path), frames, estimate)
    without = []
    if info.left_out:
        poses, without = poses.select(slice(info.num_frames)), [f"It {info.left_out}"]
    size, again = (info.height, info.width), partial(read_video, path, partly=True)
    return _Source(info.num_frames, size, info.fps, again, poses, origin, without)


def _folder(path: Path, estimate: Estimate | None) -> _Source:
    """Open a folder of pictures. Frames whose picture or map is damaged are left out, and those without a map where
    others have one."""
    given, whole = frames_in(path), path / _WHOLE
    has_maps = any(frame.map for frame in given) and not whole.is_file()
    read = {}
    for index, frame in enumerate(given):
        if frame.map or not has_maps:
            with suppress(InputError):
                read[index] = read_image(frame.picture).shape[:2], read_map(frame.map) if has_maps else None
    without = []
    if lost := [index for index in range(len(given)) if index not in read]:
        names = frame_ranges(np.array(lost), [frame.number for frame in given])
        plural = "s" * (len(lost) > 1)
        without = [f"The picture or the DensePose of frame{plural} {names} is missing or damaged."]
    if len(read) < LEAST:
        raise InputError(" ".join([f"Only {len(read)} of its {len(given)} frames can be used.", *without]))

    def pictures() -> Iterator[np.ndarray]:
        return (read_image(given[index].picture) for index in read)

    if has_maps:
        poses, origin = joined([one for _, one in read.values()]), "the folder"
    else:
        small = (fit_image(one, reduced_size(one.shape[:2])) for one in pictures())
        poses, origin = _maps(path, whole if whole.is_file() else poses_beside(path), small, estimate)
        if origin != "estimator" and len(poses) == len(given):
            poses = poses.select(list(read))
    size = next(iter(read.values()))[0]
    return _Source(len(read), size, 30.0, pictures, poses, "the folder" if origin == _WHOLE else origin, without)


def _maps(
    path: Path, file: Path | None, frames: Iterator[np.ndarray], estimate: Estimate | None
) -> tuple[PoseSequence, str]:
    """Read a clip's maps from a file, or estimate them if there is none; return them and where they come from."""
    if file is not None:
        return read_any(file, estimate).poses, file.name
    if estimate is None:
        raise InputError(
            "There is no DensePose next to it and no estimator was chosen; put "
            f"{shown(path.stem)}.npz next to it, or give --estimator."
        )
    return estimate(frames), "estimator"


def _prepared(source: _Source, about: dict, final: Path, size: tuple[int, int], should_stop: ShouldStop) -> dict:
    """Write the folder of a clip, whole or not at all, and return its clip.json: `about`, which identifies the source,
    so that the folder is reused only for the same, and the figures. Raises InputError, StorageError, Cancelled."""
    poses, given, of_maps = source.poses, source.size, source.poses.size
    if len(poses) != source.count:
        raise InputError(f"It has {source.count} frames and its DensePose {len(poses)}; give one map for each frame.")
    if not same_aspect(given, of_maps):
        sizes = f"{given[0]} x {given[1]} and its DensePose {of_maps[0]} x {of_maps[1]} (height x width)"
        raise InputError(f"It is {sizes}; give maps that were made from it.")
    shows = poses.mask.mean((1, 2)) >= _LEAST_SHARE
    count, unseen = int(shows.sum()), int((~shows).sum())
    if count < LEAST:
        raise InputError(f"Only {count} of its {len(poses)} frames show a person, and at least {LEAST} are needed.")
    anyone = PoseSequence(poses.mask[shows].any(0)[None].astype(np.uint8), None, "none")  # all that the person covers
    down, across = given[0] / of_maps[0], given[1] / of_maps[1]
    top, left, bottom, right = person_box(anyone)
    box = crop_box(given, size, (top * down, left * across, bottom * down, right * across))
    without = source.without + ([f"No person is seen in {unseen} frame{'s' * (unseen > 1)}."] if unseen else [])
    about = {**about, "frames": count, "fps": source.fps, "without": without, "maps": source.origin}
    with appearing_folder(final) as temporary:
        for index, frame in enumerate(source.frames()):
            check_stop(should_stop)
            if frame.shape[:2] != given:
                sizes = f"{given[0]} x {given[1]} and {frame.shape[0]} x {frame.shape[1]}"
                raise InputError(f"Its frames differ in size: {sizes}.")
            if shows[index]:
                write_png(fit_image(frame, size, box), temporary / f"frame_{index:05d}.png")
                pose_map = fitted(poses.select([index]), size, on_map(box, given, of_maps))
                write_poses(pose_map, temporary / f"frame_{index:05d}.npz")
        (temporary / _ABOUT).write_text(json.dumps(about, indent=1))
        flush(temporary / _ABOUT)
        shutil.rmtree(final, ignore_errors=True)
    return about


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
    for source in filter(None, (path, poses_beside(path))):
        for file in sorted(source.iterdir()) if source.is_dir() else [source]:
            if file.is_file():
                about = file.stat()
                digest.update(f"{file.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
