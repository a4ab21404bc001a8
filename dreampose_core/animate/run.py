"""Run one animation: photo and poses in; subject, frames, chunks, MP4 and result.json out; for all interfaces."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..errors import Cancelled, ModelError, StorageError
from ..files import appearing, locked, remove_unfinished
from ..inputs.framing import NOT_USED, Photo, Scene, crowds, fit_photos, make_scene, maps_together
from ..inputs.photo_checks import motion_checks, photo_checks
from ..media import add_sound, join_videos, read_image, write_png, write_video
from ..media.watermark import COMMENT, labelled
from ..model.conditioning import encode_maps, pose_tensors
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import AnimateOptions, FrameOptions
from ..subject.folder import Subject, read_subject, subject_key
from ..subject.recipe import recipe_named
from .engine import LocalEngine, sampling
from .outputs import PARTIAL, write_exports

HIDDEN = "hidden.txt"  # numbers of the frames that the safety checker blackened, one per line
log = logging.getLogger("dreampose.animation")


def animate(
    engine: LocalEngine,
    *,
    image: np.ndarray,
    poses: PoseSequence,
    image_poses: PoseSequence | None,
    options: AnimateOptions,
    folder: Path,
    more: Sequence[Photo] = (),
    sound: Path | None = None,
    subjects: Path | None = None,
    subject: Path | None = None,
    bring: Callable[[str], None] | None = None,
    exports: bool = False,
    label: bool = False,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict:
    """Make the video in `folder` and return the content of its result.json.

    engine: runs the model, a LocalEngine or a `cluster.Cluster`. image: the photo, uint8 (H, W, 3). image_poses: its
    pose map, of one frame, or None.
    more: further photos of the same person for tuning; the frames are made from `image`. sound: a sound file for the
    result.
    subjects: folder for tuned subjects, found again by content, None for one inside `folder`. subject: a subject folder
    to use instead of tuning one. bring(key): called before a subject is looked up in `subjects`, to fetch it from
    elsewhere. exports: write the files of `outputs`, too. label: mark each frame as generated in a corner, see
    `media.watermark`; the videos' metadata always does.
    Writes frames/000000.png ..., chunks/000000.mp4 ... (a second of video each, in playing order), result.mp4,
    result.json.
    Existing frames are kept, so the same call resumes after an interruption.
    Raises InputError, ModelError, StorageError, or Cancelled when should_stop() returns true, checked at every step.
    """
    config = engine.model.config
    size = config.shaped_like(image.shape[:2])
    scene = make_scene(image, poses, image_poses, size, options, config.charts, config.bilinear, should_stop)
    checks = (*photo_checks(image_poses, scene.box, image.shape[:2], size), *motion_checks(image_poses, poses))
    notices = (*scene.notices, *checks)
    poses, image_poses = scene.poses, scene.image_poses
    for name in ("frames", "chunks", "."):
        (folder / name).mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder / name)
    (folder / PARTIAL).unlink(missing_ok=True)  # from before an interruption
    run = _Run(engine, options, scene, folder, on_progress, should_stop, label, list(notices))
    given = {"motion": poses} | ({} if image_poses is None else {"photo's DensePose": image_poses})
    for name, sequence in given.items():
        if not config.knows_charts(sequence):
            run.notices.append(
                f"The {name} has U, V in {sequence.charts} charts and the model knows {config.charts} charts, "
                "so only its parts are used and no texture is moved."
            )
        # fails before tuning if the model cannot use these poses
        encode_maps(*pose_tensors(sequence.clip(0, 1), config.charts), engine.model.factor, config.pose_encoding)
    if subject is None and options.recipe != "none":
        others = FrameOptions(fit=options.fit)  # zoom and shift apply to the first photo only
        first = Photo(scene.photo, image_poses, "the first photo")
        photos = [first, *fit_photos(more, size, others, config.bilinear)]
        known, notices = maps_together(photos)
        run.notices += (*notices, *crowds(more))
        pixels = [photo.image for photo in photos]
        subject, loaded = run.tuned(pixels, known, subjects or folder / "subjects", bring)
    else:
        loaded = None if subject is None else read_subject(subject, engine.model.fingerprint)
        run.notices += [NOT_USED] if more else []
    run.notices += loaded.notices if loaded is not None else []
    run.make_frames(subject)
    started = time.monotonic()
    write_video(run.read_frames(on_progress), folder / "result.mp4", poses.fps, comment=COMMENT)
    if sound is not None:
        add_sound(folder / "result.mp4", sound, folder / "result.mp4")
    if exports:
        write_exports(scene, run.read_frames, folder)
    run.seconds["video"] = time.monotonic() - started
    result = run.result(loaded)
    with appearing(folder / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    return result


@dataclass
class _Run:
    """The state of one `animate`: its arguments, seconds per stage, notices, peaks of memory."""

    engine: LocalEngine
    options: AnimateOptions
    scene: Scene
    folder: Path
    on_progress: OnProgress
    should_stop: ShouldStop
    label: bool
    notices: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    num_made: int = 0  # frames made in this call

    def tuned(
        self,
        photos: list[np.ndarray],
        image_poses: PoseSequence | None,
        subjects: Path,
        bring: Callable[[str], None] | None,
    ) -> tuple[Path, Subject]:
        """Return the subject folder for these photos and the recipe; tune it unless it exists. Waits while another
        process writes it."""
        started, base = time.monotonic(), self.engine.model.fingerprint
        key = subject_key(photos, image_poses, repr(recipe_named(self.options.recipe)), self.options.seed, base)
        folder = subjects / key
        if bring is not None:
            bring(key)
        with locked(folder.with_name(f".{key}.lock"), lambda: check_stop(self.should_stop)):
            with suppress(ModelError, FileNotFoundError):  # no subject yet, or a damaged one
                os.utime(folder / "subject.json")  # marks it as used: unused subjects are removed after a while
                return folder, read_subject(folder, base)
            checkpoints = self.folder / "checkpoints"  # a folder per key: another model must not resume from them
            subject = self.engine.tune(
                photos,
                image_poses,
                self.options,
                folder,
                checkpoints=checkpoints / key,
                on_progress=self.on_progress,
                should_stop=self.should_stop,
            )
            shutil.rmtree(checkpoints, ignore_errors=True)
        self.seconds["tuning"] = time.monotonic() - started
        return folder, subject

    def make_frames(self, subject: Path | None) -> None:
        """Make the missing frames, and write a chunk whenever the next second of video is complete."""
        batch, total = self.options.batch_size, len(self.scene.poses)
        started = time.monotonic()
        steps = sampling(self.engine.model.config, self.options).num_inference_steps
        # batches are kept whole, so that a resumed clip equals an uninterrupted one
        batches = [range(start, min(start + batch, total)) for start in range(0, total, batch)]
        batches = [indices for indices in batches if not all(map(Path.is_file, map(self.frame_path, indices)))]
        self.num_made = sum(map(len, batches))
        done = reached = total - self.num_made  # frames
        under_way: dict[int, int] = {}  # first frame of a batch -> frames that its steps so far are equivalent to
        clock = StageClock("frames", total, self.on_progress, first=done)

        def tell() -> None:
            nonlocal reached
            # progress does not go back when lost frames are made again
            reached = max(reached, min(done + sum(under_way.values()), total))
            clock.tick(reached)

        def on_step(frame: int, step: int) -> None:
            under_way[frame] = min(batch, total - frame) * step // steps
            tell()

        def on_smaller(size: int) -> None:
            nonlocal batch
            if size < batch:
                batch = size
                how = f"{size} at a time" if size > 1 else "one by one"
                self.notices.append(f"Larger batches did not fit in memory, so frames are made {how}.")
                log.warning("%s", self.notices[-1])

        def on_hidden(frame: int) -> None:
            with open(self.folder / HIDDEN, "a", encoding="ascii") as file:
                file.write(f"{frame}\n")

        def write(index: int, frame: np.ndarray) -> None:
            if not self.frame_path(index).is_file():
                write_png(labelled(frame) if self.label else frame, self.frame_path(index))
            self.write_chunks()

        tell()
        self.write_chunks()
        if not batches:
            self.seconds["frames"] = time.monotonic() - started
            return
        calls = dict(on_step=on_step, on_smaller=on_smaller, on_hidden=on_hidden)
        frames = self.engine.frames(self.scene, self.options, subject, batches, self.should_stop, **calls)
        waiting: deque[Future] = deque()
        try:
            with closing(frames), ThreadPoolExecutor(1) as writer:  # writes while the next are made
                for index, frame in frames:
                    waiting.append(writer.submit(write, index, frame))
                    while waiting and (waiting[0].done() or len(waiting) > 2 * self.chunk_length):
                        waiting.popleft().result()
                    under_way.pop(index, None)
                    done += 1
                    check_stop(self.should_stop)
            for one in waiting:
                one.result()
        except Cancelled:
            with suppress(StorageError):  # then there is no partial video
                self.write_partial()
            raise
        self.peaks = self.engine.peaks
        self.seconds["frames"] = time.monotonic() - started

    def frame_path(self, index: int) -> Path:
        return self.folder / "frames" / f"{index:06d}.png"

    @property
    def chunk_length(self) -> int:
        """Frames of a chunk: a second of video."""
        return max(1, math.ceil(self.scene.poses.fps))

    def write_chunks(self) -> None:
        """Write all chunks that are complete and do not exist yet, in order."""
        total, length = len(self.scene.poses), self.chunk_length
        for first in range(0, total, length):
            chunk = self.folder / "chunks" / f"{first // length:06d}.mp4"
            if chunk.is_file():
                continue
            paths = [self.frame_path(index) for index in range(first, min(first + length, total))]
            if not all(map(Path.is_file, paths)):
                return
            write_video(map(read_image, paths), chunk, self.scene.poses.fps, comment=COMMENT, part=True)

    def write_partial(self) -> None:
        """Write PARTIAL, unless there is nothing, for users who cancelled: the finished chunks, unchanged, and the
        frames after them. Raises StorageError."""
        parts, last = sorted((self.folder / "chunks").glob("*.mp4")), self.folder / ".part.rest.mp4"
        rest = list(takewhile(Path.is_file, map(self.frame_path, count(len(parts) * self.chunk_length))))
        try:
            if rest:
                write_video(map(read_image, rest), last, self.scene.poses.fps)
                parts.append(last)
            if parts:
                join_videos(parts, self.folder / PARTIAL, COMMENT)
        finally:
            last.unlink(missing_ok=True)

    def read_frames(self, on_progress: OnProgress = ignore_progress) -> Iterator[np.ndarray]:
        """Yield the finished frames for the video."""
        total = len(self.scene.poses)
        clock = StageClock("video", total, on_progress)
        clock.tick(0)
        for index in range(total):
            check_stop(self.should_stop)
            yield read_image(self.frame_path(index))
            clock.tick(index + 1)

    def result(self, subject: Subject | None) -> dict:
        model, poses, options = self.engine.model, self.scene.poses, self.options
        used = asdict(sampling(model.config, options))
        used["guidance_interval"] = list(used["guidance_interval"])
        for name in ("image_guidance", "pose_guidance"):
            asked = getattr(options, name)
            used[name] = getattr(model.config, name) if asked is None else asked
        record = self.folder / HIDDEN  # also has the frames from before an interruption
        hidden = sorted(set(map(int, record.read_text("ascii").split()))) if record.is_file() else []
        if hidden:
            self.notices.append(
                f"The safety checker classified {len(hidden)} of {len(poses)} frames as unsafe and blackened them; try "
                "another seed or motion."
            )
        return {
            "num_frames": len(poses),
            "fps": poses.fps,
            "height": poses.size[0],
            "width": poses.size[1],
            "photo_box": {name: round(value, 2) for name, value in asdict(self.scene.box).items()},
            "options": options.model_dump(),
            "used": used,
            "seed": options.seed,
            "model": model.fingerprint,
            "subject": None if subject is None else subject.key,
            "seconds": {k: round(v, 2) for k, v in self.seconds.items()},
            "seconds_per_frame": round(self.seconds["frames"] / self.num_made, 4) if self.num_made else None,
            "label": self.label,
            "safety_checker": model.safety_checker,
            "hidden_frames": hidden,
            "notices": self.notices,
            "versions": {"dreampose": __version__, "torch": torch.__version__},
            "device": model.device,
            "precision": model.precision,
            "peak_memory": self.peaks,
        }
