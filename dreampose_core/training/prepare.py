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

import numpy as np

from ..errors import InputError, ModelError, shown
from ..files import appearing, appearing_folder, flush, storage_error
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
from .footage import REPORT, frames_in, joined, read_map

LEAST = 2  # frames of a clip: a photo and a different target
_WHOLE = "poses.npz"  # the maps of all frames in one file
_LEAST_SHARE = 0.01  # of the frame: a smaller person does not count as one
_ABOUT = "clip.json"
_VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".gif")
MAX_FRAMES = 3000  # of a clip, whose maps are held in memory


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


@dataclass(frozen=True)
class _Source:
    """A clip's source. frames(): reads its pictures of (height, width) `size`; poses: their maps, which come from
    `origin`. without: sentences about frames that are left out."""

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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, out) from error
    for left in out.glob(".part.*"):  # left by a crash
        shutil.rmtree(left, ignore_errors=True)
    done, clock = Prepared(), StageClock("clips", len(paths), on_progress)
    for number, (name, path) in enumerate(paths.items()):
        check_stop(should_stop)
        about = {"source": name, "files": _state(path), "size": list(size), "estimator": estimator}
        try:
            ready = _read(out / name / _ABOUT)
            if (out / name).exists() and not _is_prepared(ready):
                raise InputError(
                    f"There is a {shown(name)} in the output folder that is no prepared clip; give another folder."
                )
            if about.items() <= ready.items():
                done.before.append(name)
            else:
                ready = _prepared(_source(path, estimate), about, out / name, size, should_stop)
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
    """List all videos and folders of pictures below `folder`, by the names of their prepared folders; prepared folders
    are skipped."""
    clips = {folder.resolve().name: folder} if frames_in(folder) else {}
    for path in sorted(folder.rglob("*")):
        inside = out.resolve() in (path.resolve(), *path.resolve().parents)
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if inside or hidden or _is_prepared(_read(path.parent / _ABOUT)):
            continue
        if path.is_dir():
            # a folder with a video's name holds its maps, not another clip
            of_video = any(other.stem == path.name and _is_clip(other) for other in path.parent.iterdir())
            clip = bool(frames_in(path)) and not of_video and not _is_prepared(_read(path / _ABOUT))
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


def _source(path: Path, estimate: Estimate | None) -> _Source:
    """Open a clip, and read or estimate its maps. Raises InputError if it cannot be read."""
    map_file = poses_beside(path)
    if path.is_dir():
        return _folder(path, map_file, estimate)
    info = probe_video(path, partly=True)
    _check_length(info.num_frames)
    if map_file is None:
        poses = _estimated(path, read_video(path, max_side=MAX_MAP_SIDE, partly=True), estimate)
    else:
        poses = read_any(map_file, estimate).poses
        poses = poses.select(slice(info.num_frames)) if info.left_out else poses
    _check_one_each(info.num_frames, poses)
    without = [f"It {info.left_out}"] if info.left_out else []
    origin = "estimator" if map_file is None else map_file.name
    return _Source((info.height, info.width), info.fps, partial(read_video, path, partly=True), poses, origin, without)


def _folder(path: Path, map_file: Path | None, estimate: Estimate | None) -> _Source:
    """Open a folder of pictures. Frames whose picture or map is damaged are left out, and those without a map where
    others have one."""
    given, whole = frames_in(path), path / _WHOLE
    map_file = whole if whole.is_file() else map_file
    has_maps = any(frame.map for frame in given) and map_file != whole
    read = {}
    for index, frame in enumerate(given):
        if frame.map or not has_maps:
            with suppress(InputError):
                read[index] = read_image(frame.picture).shape[:2], read_map(frame.map) if has_maps else None
    lost = [index for index in range(len(given)) if index not in read]
    names = frame_ranges(np.array(lost), [frame.number for frame in given]) if lost else ""
    plural = "s" * (len(lost) > 1)
    without = [f"The picture or the DensePose of frame{plural} {names} is missing or damaged."] if lost else []
    if len(read) < LEAST:
        raise InputError(" ".join([f"Only {len(read)} of its {len(given)} frames can be used.", *without]))
    _check_length(len(read))

    def pictures() -> Iterator[np.ndarray]:
        return (read_image(given[index].picture) for index in read)

    if has_maps:
        poses, origin = joined([one for _, one in read.values()]), "the folder"
    elif map_file is not None:
        poses, origin = read_any(map_file).poses, "the folder" if map_file == whole else map_file.name
        poses = poses.select(list(read)) if len(poses) == len(given) else poses
    else:
        small = (fit_image(one, reduced_size(one.shape[:2])) for one in pictures())
        poses, origin = _estimated(path, small, estimate), "estimator"
    _check_one_each(len(read), poses)
    return _Source(next(iter(read.values()))[0], 30.0, pictures, poses, origin, without)


def _check_length(count: int) -> None:
    if count > MAX_FRAMES:
        raise InputError(
            f"It has {count} frames, and at most {MAX_FRAMES} are held at once; cut it into shorter clips."
        )


def _check_one_each(count: int, poses: PoseSequence) -> None:
    if len(poses) != count:
        raise InputError(f"It has {count} frames and its DensePose {len(poses)}; give one map for each frame.")


def _prepared(source: _Source, about: dict, final: Path, size: tuple[int, int], should_stop: ShouldStop) -> dict:
    """Write the folder of a clip, whole or not at all, and return its clip.json: `about`, which identifies the source,
    so that the folder is reused only for the same, and the figures. Raises InputError, StorageError, Cancelled."""
    poses = source.poses
    if not same_aspect(source.size, poses.size):
        sizes = (
            f"{source.size[0]} x {source.size[1]} and its DensePose {poses.size[0]} x {poses.size[1]} (height x width)"
        )
        raise InputError(f"It is {sizes}; give maps that were made from it.")
    shows = poses.mask.mean((1, 2)) >= _LEAST_SHARE
    count, unseen = int(shows.sum()), int((~shows).sum())
    if count < LEAST:
        raise InputError(f"Only {count} of its {len(poses)} frames show a person, and at least {LEAST} are needed.")
    anyone = PoseSequence(poses.mask[shows].any(0)[None].astype(np.uint8), None, "none")  # all that the person covers
    (top, left, bottom, right), (height, width) = person_box(anyone), poses.size
    down, across = source.size[0] / height, source.size[1] / width
    box = crop_box(source.size, size, (top * down, left * across, bottom * down, right * across))
    without = source.without + ([f"No person is seen in {unseen} frame{'s' * (unseen > 1)}."] if unseen else [])
    about = {**about, "frames": count, "fps": source.fps, "without": without, "maps": source.origin}
    with appearing_folder(final) as temporary:
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
        (temporary / _ABOUT).write_text(json.dumps(about, indent=1))
        flush(temporary / _ABOUT)
        shutil.rmtree(final, ignore_errors=True)
    return about


def _estimated(path: Path, frames: Iterator[np.ndarray], estimate: Estimate | None) -> PoseSequence:
    if estimate is None:
        name = shown(path.stem)
        raise InputError(
            f"There is no DensePose next to it and no estimator was chosen; put {name}.npz next to it, or give "
            "--estimator."
        )
    return estimate(frames)


def _is_prepared(about: dict) -> bool:
    """Whether `prepare` wrote this clip.json."""
    return {"source", "size", "frames", "without"} <= about.keys()


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
