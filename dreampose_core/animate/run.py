"""One whole run: photo and poses in, tuned subject, frames, chunks, MP4 and result.json out; the same for every
door."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..errors import Cancelled, ModelError, StorageError
from ..files import appearing, locked, remove_all_unfinished
from ..inputs.framing import Scene, make_scene
from ..inputs.photo_checks import photo_checks
from ..inputs.photos import NOT_USED, Photo, crowds, fit_photos, maps_together
from ..media import add_sound, read_image, write_png, write_video
from ..media.watermark import COMMENT, labelled
from ..model.conditioning import encode_maps, pose_tensors
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import AnimateOptions, FrameOptions
from ..subject.folder import Subject, read_subject, subject_key
from ..subject.previews import SAMPLES
from ..subject.recipe import recipe_named
from .background import BackgroundWriter
from .engine import LocalEngine, sampling
from .outputs import PARTIAL, write_exports, write_partial

HIDDEN = "hidden.txt"  # numbers of the frames that the safety checker made black, a line each
LATENT_PREVIEW = "latent_preview.png"  # what the first frame is about to be, while it is denoised
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
    samples: bool = False,
    label: bool = False,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict:
    """Makes the video in `folder` and returns what stands in its result.json.

    engine: what makes the frames, also a `cluster.Cluster`. image: the photo, uint8 (H, W, 3). image_poses: its own
    map, of one frame, or None.
    more: further photos of the same person, which are learned from, too; the frames are made from `image`. sound: a
    sound file for the result.
    subjects: where tuned subjects are kept and found again by content, None for inside `folder`. subject: a subject
    folder to use instead of tuning one. bring(key): called before a subject is looked up in `subjects`, where it may be
    brought from elsewhere. exports, samples: whether what stands in `outputs` is written, too, and pictures of the
    person while they are learned, see `subject.previews`. label: whether each frame says in a corner that it is
    generated, see `media.watermark`; the videos' metadata always does.
    Writes frames/000000.png ..., chunks/000000.mp4 ... (a second of video each, in playing order), result.mp4,
    result.json; while the first frames are denoised, LATENT_PREVIEW.
    Frames that are there already are kept, so the same call after an interruption goes on where it was.
    Raises InputError, StorageError, or Cancelled when should_stop() is true, asked at every step.
    """
    config = engine.model.config
    size = config.shaped_like(image.shape[:2])
    scene = make_scene(image, poses, image_poses, size, options, config.charts, config.bilinear)
    said = (*scene.notices, *photo_checks(image_poses, scene.box, image.shape[:2], size))
    poses, image_poses = scene.poses, scene.image_poses
    for name in ("frames", "chunks", "."):
        (folder / name).mkdir(parents=True, exist_ok=True)
        remove_all_unfinished(folder / name)
    (folder / PARTIAL).unlink(missing_ok=True)  # of before an interruption
    run = _Run(engine, options, folder, on_progress, should_stop, {}, list(said), {}, label)
    for name, given in (("motion", poses), ("photo's DensePose", image_poses)):
        if given is not None and not config.knows_charts(given):
            run.notices.append(
                f"The {name} has U, V in {given.charts} charts and the model knows {config.charts} charts, "
                "so only its parts are used and no texture is moved."
            )
    for given in (poses, image_poses):
        if given is not None:
            # what the model cannot use is said before it is tuned
            encode_maps(*pose_tensors(given.clip(0, 1), config.charts), engine.model.factor, config.pose_encoding)
    if subject is None and options.recipe != "none":
        others = FrameOptions(fit=options.fit)  # zoom and shift are the first photo's
        photos = [
            Photo(scene.photo, scene.image_poses, "the first photo"),
            *fit_photos(more, size, others, config.bilinear),
        ]
        known, said = maps_together(photos)
        run.notices += (*said, *crowds(more))
        kept = subjects if subjects is not None else folder / "subjects"
        subject, loaded = run.tuned([photo.image for photo in photos], known, kept, bring, scene if samples else None)
    else:
        loaded = None if subject is None else read_subject(subject, engine.model.fingerprint)
        run.notices += [NOT_USED] if more else []
    run.notices += loaded.notices if loaded is not None else []
    run.make_frames(scene, subject)
    started = time.monotonic()
    write_video(run.read_frames(len(poses)), folder / "result.mp4", poses.fps, comment=COMMENT)
    if sound is not None:
        add_sound(folder / "result.mp4", sound, folder / "result.mp4")
    if exports:
        write_exports(scene, partial(run.read_frames, len(poses), False), folder)
    run.seconds["video"] = time.monotonic() - started
    result = run.result(scene, loaded)
    with appearing(folder / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    return result


@dataclass
class _Run:
    """The state of one `animate`: what it was given, seconds each stage took, sentences about fall-backs, peaks of
    memory."""

    engine: LocalEngine
    options: AnimateOptions
    folder: Path
    on_progress: OnProgress
    should_stop: ShouldStop
    seconds: dict[str, float]
    notices: list[str]
    peaks: dict[str, int]
    label: bool
    num_made: int = 0  # frames that were not there yet

    def tuned(
        self,
        photos: list[np.ndarray],
        image_poses: PoseSequence | None,
        subjects: Path,
        bring: Callable[[str], None] | None,
        shown: Scene | None,
    ) -> tuple[Path, Subject]:
        """The subject folder for these photos and the recipe, tuned now unless it is there, or another process is about
        to write it.

        shown: of what pictures are made of the learning.
        """
        started, base = time.monotonic(), self.engine.model.fingerprint
        key = subject_key(photos, image_poses, repr(recipe_named(self.options.recipe)), self.options.seed, base)
        folder = subjects / key
        if bring is not None:
            bring(key)
        with locked(folder.with_name(f".{key}.lock"), self.should_stop):
            with suppress(ModelError, FileNotFoundError):  # there is none yet, or it is damaged: then it is tuned now
                os.utime(folder / "subject.json")  # it is used: what nobody uses for long is removed
                return folder, read_subject(folder, base)
            checkpoints = self.folder / "checkpoints"  # of this subject: a model that changed meanwhile starts anew
            subject, samples_s = self.engine.tune(
                photos,
                image_poses,
                self.options,
                key=key,
                folder=folder,
                checkpoints=checkpoints / key,
                samples=self.folder / SAMPLES,
                scene=shown,
                on_progress=self.on_progress,
                should_stop=self.should_stop,
            )
            shutil.rmtree(checkpoints, ignore_errors=True)
        self.seconds["tuning"] = time.monotonic() - started
        if shown is not None:
            self.seconds["samples"] = samples_s  # of these
        return folder, subject

    def make_frames(self, scene: Scene, subject: Path | None) -> None:
        """Writes the frames that are not there yet, and a chunk whenever the next second of video is complete."""
        poses, batch = scene.poses, self.options.batch_size
        started, total = time.monotonic(), len(poses)
        steps = sampling(self.engine.model.config, self.options).num_inference_steps
        # batches are kept whole, so that a resumed clip equals an uninterrupted one
        batches = [range(start, min(start + batch, total)) for start in range(0, total, batch)]
        batches = [indices for indices in batches if not all(self.frame_path(index).is_file() for index in indices)]
        self.num_made = sum(map(len, batches))
        done = reached = total - self.num_made  # frames
        under_way: dict[int, int] = {}  # by the first frame of what is denoised, for how many frames its steps stand
        clock = StageClock("frames", total, self.on_progress, first=done)

        def tell() -> None:
            nonlocal reached
            reached = max(
                reached, min(done + sum(under_way.values()), total)
            )  # what was lost and is made again does not count back
            clock.tick(reached)

        def on_step(frame: int, step: int) -> None:
            under_way[frame] = min(batch, total - frame) * step // steps
            tell()

        def on_smaller(size: int) -> None:
            nonlocal batch
            if size < batch:
                batch = size
                self.notices.append(
                    f"Memory did not hold more, so frames are made {size} at a time."
                    if size > 1
                    else "Memory did not hold more, so frames are made one by one."
                )
                log.warning("%s", self.notices[-1])

        def on_latent_preview(frame: int, pixels: np.ndarray) -> None:
            write_png(pixels, self.folder / LATENT_PREVIEW)

        def on_hidden(frame: int) -> None:
            with open(self.folder / HIDDEN, "a", encoding="ascii") as file:
                file.write(f"{frame}\n")

        chunks = _Chunks(self, total, poses.fps)
        tell()
        chunks.write()
        (self.folder / LATENT_PREVIEW).unlink(missing_ok=True)  # of a run that was killed
        if not batches:
            self.seconds["frames"] = time.monotonic() - started
            return

        def write(index: int, frame: np.ndarray) -> None:
            if not self.frame_path(index).is_file():
                write_png(labelled(frame) if self.label else frame, self.frame_path(index))
            if index == 0:
                (self.folder / LATENT_PREVIEW).unlink(missing_ok=True)
            chunks.write()

        told = dict(on_step=on_step, on_smaller=on_smaller, on_latent_preview=on_latent_preview, on_hidden=on_hidden)
        frames = self.engine.frames(scene, self.options, subject, batches, self.should_stop, **told)
        try:
            with closing(frames), BackgroundWriter(2 * chunks.length) as writer:  # written while the next are made
                for index, frame in frames:
                    writer.do(write, index, frame)
                    under_way.pop(index, None)
                    done += 1
                    check_stop(self.should_stop)
        except Cancelled:
            with suppress(StorageError):  # then there is none
                self.write_partial(poses.fps)
            raise
        finally:
            (self.folder / LATENT_PREVIEW).unlink(missing_ok=True)
        self.peaks = self.engine.peaks
        self.seconds["frames"] = time.monotonic() - started

    @property
    def hidden(self) -> list[int]:
        """The frames that were made black, those of before an interruption, too."""
        told = self.folder / HIDDEN
        return sorted({int(line) for line in told.read_text("ascii").split()}) if told.is_file() else []

    def frame_path(self, index: int) -> Path:
        return self.folder / "frames" / f"{index:06d}.png"

    def write_partial(self, fps: float) -> None:
        """The video as far as it is there, for who stopped it."""
        chunks = sorted((self.folder / "chunks").glob("*.mp4"))
        first = len(chunks) * max(1, math.ceil(fps))
        rest = [read_image(path) for path in takewhile(Path.is_file, map(self.frame_path, count(first)))]
        if chunks or rest:
            write_partial(chunks, rest, fps, self.folder)

    def read_frames(self, total: int, tell: bool = True) -> Iterator[np.ndarray]:
        """The finished frames, for the video; how far it is is told on the way."""
        clock = StageClock("video", total, self.on_progress if tell else ignore_progress)
        clock.tick(0)
        for index in range(total):
            check_stop(self.should_stop)
            yield read_image(self.frame_path(index))
            clock.tick(index + 1)

    def result(self, scene: Scene, subject: Subject | None) -> dict:
        model, poses, hidden = self.engine.model, scene.poses, self.hidden
        config, used = model.config, asdict(sampling(model.config, self.options))
        if hidden:
            self.notices.append(
                f"The safety checker found {len(hidden)} of {len(poses)} frames unfit to be shown and made them black; "
                "another seed or motion may do better."
            )
        used = {
            **used,
            "guidance_interval": list(used["guidance_interval"]),
            "image_guidance": config.image_guidance
            if self.options.image_guidance is None
            else self.options.image_guidance,
            "pose_guidance": config.pose_guidance if self.options.pose_guidance is None else self.options.pose_guidance,
        }
        return {
            "num_frames": len(poses),
            "fps": poses.fps,
            "height": poses.size[0],
            "width": poses.size[1],
            "photo_box": {name: round(value, 2) for name, value in asdict(scene.box).items()},
            "options": self.options.model_dump(),
            "used": used,
            "seed": self.options.seed,
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


class _Chunks:
    """A run's chunks, a second of video each, of `length` frames but for the last; the next is written when all its
    frames are there."""

    def __init__(self, run: _Run, total: int, fps: float):
        self.run, self.total, self.fps, self.length = run, total, fps, max(1, math.ceil(fps))
        self._next = 0  # frame

    def write(self) -> None:
        """Writes what can be played on by now and is not there yet."""
        while self._next < self.total:
            indices = range(self._next, min(self._next + self.length, self.total))
            paths = [self.run.frame_path(index) for index in indices]
            if not all(path.is_file() for path in paths):
                return
            chunk = self.run.folder / "chunks" / f"{self._next // self.length:06d}.mp4"
            if not chunk.is_file():
                write_video(map(read_image, paths), chunk, self.fps, comment=COMMENT)
            self._next = indices.stop
