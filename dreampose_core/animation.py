"""One whole run: photo and poses in, tuned subject, frames, chunks, MP4 and result.json out; the same for every door."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from . import __version__, memory
from .behind import Behind
from .conditioning import Sampling, encode_maps, pose_tensors
from .errors import Cancelled, InputError, ModelError, StorageError
from .exports import PARTIAL, write_exports, write_partial
from .files import appearing, locked, remove_all_unfinished
from .images import read_image, write_png
from .marking import COMMENT, labelled
from .photo_checks import photo_checks
from .photos import NOT_USED, Photo, crowds, fit_photos, maps_together
from .pipeline import DreamPosePipeline
from .poses import PoseSequence
from .progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .samples import SAMPLES, Samples
from .scene import Scene, make_scene
from .settings import AnimateOptions, FrameOptions
from .subject import Subject, base_restored, check_subject_folder, fingerprint, read_subject, save_subject, subject_key, subject_loaded
from .training.ladder import Rung, ladder, on_ladder
from .training.subject import recipe_named, tune_subject
from .video import add_sound, write_video

HIDDEN = "hidden.txt"  # numbers of the frames that the safety checker made black, a line each
GLIMPSE = "glimpse.png"  # what the first frame is about to be, while it is denoised
log = logging.getLogger("dreampose.animation")


def animate(
    pipe: DreamPosePipeline, *, image: np.ndarray, poses: PoseSequence, image_poses: PoseSequence | None, options: AnimateOptions,
    folder: Path, more: Sequence[Photo] = (), sound: Path | None = None, subjects: Path | None = None, subject: Path | None = None,
    bring: Callable[[str], None] | None = None, exports: bool = False, samples: bool = False,
    label: bool = False, on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop,
) -> dict:  # fmt: skip
    """Makes the video in `folder` and returns what stands in its result.json.

    image: the photo, uint8 (H, W, 3). image_poses: its own map, of one frame, or None. more: further photos of the same person, which
    are learned from, too; the frames are made from `image`. sound: a sound file for the result.
    subjects: where tuned subjects are kept and found again by content, None for inside `folder`. subject: a subject folder to
    use instead of tuning one. bring(key): called before a subject is looked up in `subjects`, where it may be brought from elsewhere.
    exports, samples: whether what stands in `exports` is written, too, and pictures of the person while they are learned, see `samples`.
    label: whether each frame says in a corner that it is generated, see `marking`; the videos' metadata always does.
    Writes frames/000000.png ..., chunks/000000.mp4 ... (a second of video each, in playing order), result.mp4, result.json; while the first
    frames are denoised, GLIMPSE.
    Frames that are there already are kept, so the same call after an interruption goes on where it was.
    Raises InputError, StorageError, or Cancelled when should_stop() is true, asked at every step.
    """
    scene = make_scene(image, poses, image_poses, pipe.form.size, options, pipe.bilinear)
    said = (*scene.notices, *photo_checks(image_poses, scene.box, image.shape[:2], pipe.form.size))
    poses, image_poses = scene.poses, scene.image_poses
    for name in ("frames", "chunks", "."):
        (folder / name).mkdir(parents=True, exist_ok=True)
        remove_all_unfinished(folder / name)
    (folder / PARTIAL).unlink(missing_ok=True)  # of before an interruption
    run = _Run(pipe, options, folder, on_progress, should_stop, {}, list(said), {}, label)
    for name, given in (("motion", poses), ("photo's DensePose", image_poses)):
        if given is not None and not pipe.knows_charts(given):
            run.notices.append(f"The {name} has U, V in {given.charts} charts and the model knows {pipe.form.charts} charts, so only its "
                               "parts are used and no texture is moved.")  # fmt: skip
    for given in (poses, image_poses):
        if given is not None:
            # what the model cannot use is said before it is tuned
            encode_maps(*pose_tensors(given.clip(0, 1), pipe.form.charts), pipe.factor, pipe.form.pose_encoding)
    base = fingerprint(pipe)
    if subject is None and options.recipe != "none":
        others = FrameOptions(fit=options.fit)  # zoom and shift are the first photo's
        photos = [Photo(scene.photo, scene.image_poses, "the first photo"), *fit_photos(more, pipe.form.size, others, pipe.bilinear)]
        known, said = maps_together(photos)
        run.notices += (*said, *crowds(more))
        taken = Samples(pipe, scene, options, folder / SAMPLES, should_stop) if samples else None
        kept = subjects if subjects is not None else folder / "subjects"
        subject = run.tuned([photo.image for photo in photos], known, base, kept, bring, taken)
    elif more:
        run.notices.append(NOT_USED)
    with subject_loaded(pipe, subject) if subject is not None else nullcontext() as loaded, memory.peaks() as run.peaks:
        run.notices += loaded.notices if loaded is not None else []
        run.make_frames(scene)
    started = time.monotonic()
    write_video(run.read_frames(len(poses)), folder / "result.mp4", poses.fps, comment=COMMENT)
    if sound is not None:
        add_sound(folder / "result.mp4", sound, folder / "result.mp4")
    if exports:
        write_exports(scene, partial(run.read_frames, len(poses), False), folder)
    run.seconds["video"] = time.monotonic() - started
    result = run.result(scene, base, loaded)
    with appearing(folder / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    return result


@dataclass
class _Run:
    """The state of one `animate`: what it was given, seconds each stage took, sentences about fall-backs, peaks of memory."""

    pipe: DreamPosePipeline
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
        self, photos: list[np.ndarray], image_poses: PoseSequence | None, base: str, subjects: Path, bring: Callable[[str], None] | None,
        samples: Samples | None,
    ) -> Path:  # fmt: skip
        """The subject folder for these photos and the recipe, tuned now unless it is there, or another process is about to write it."""
        started = time.monotonic()
        key = subject_key(photos, image_poses, repr(recipe_named(self.options.recipe)), self.options.seed, base)
        folder = subjects / key
        if bring is not None:
            bring(key)
        with locked(folder.with_name(f".{key}.lock"), self.should_stop):
            with suppress(ModelError, FileNotFoundError):  # there is none yet, or it is damaged: then it is tuned now
                os.utime(folder / "subject.json")  # it is used: what nobody uses for long is removed
                read_subject(folder, base)
                return folder
            checkpoints = self.folder / "checkpoints"  # of this subject: a model that changed meanwhile starts anew
            if samples is not None and not (checkpoints / key).is_dir():
                samples.clear()
            finetune(self.pipe, photos, image_poses, self.options.recipe, self.options.seed, folder, key=key, base=base,
                     checkpoints=checkpoints / key, samples=samples, on_progress=self.on_progress,
                     should_stop=self.should_stop)  # fmt: skip
            shutil.rmtree(checkpoints, ignore_errors=True)
        self.seconds["tuning"] = time.monotonic() - started
        if samples is not None:
            self.seconds["samples"] = samples.seconds  # of these
        return folder

    def make_frames(self, scene: Scene) -> None:
        """Writes the frames that are not there yet, and a chunk whenever a second of video is complete."""
        poses = scene.poses
        started, total, sampling = time.monotonic(), len(poses), self.sampling
        chunk = max(1, math.ceil(poses.fps))
        done = 0
        while done < total and self.frame_path(done).is_file():
            done += 1
        batch = self.options.batch_size
        first = done - done % batch  # batches are kept whole, so that a resumed clip equals an uninterrupted one
        self.num_made = total - first if done < total else 0
        clock = StageClock("frames", total, self.on_progress, first=first)
        clock.tick(done)

        def on_step(frame: int, step: int) -> None:
            clock.tick(frame + min(batch, total - frame) * step // sampling.num_inference_steps)

        def on_smaller(size: int) -> None:
            nonlocal batch
            batch = size
            self.notices.append(f"Memory did not hold more, so frames are made {size} at a time." if size > 1 else
                                "Memory did not hold more, so frames are made one by one.")  # fmt: skip
            log.warning("%s", self.notices[-1])

        def on_glimpse(frame: int, pixels: np.ndarray) -> None:
            write_png(pixels, self.folder / GLIMPSE)

        def on_hidden(frame: int) -> None:
            with open(self.folder / HIDDEN, "a", encoding="ascii") as file:
                file.write(f"{frame}\n")

        for start in range(0, total if done == total else done - done % chunk, chunk):
            self.write_chunk(start, min(start + chunk, total), poses.fps)
        (self.folder / GLIMPSE).unlink(missing_ok=True)  # of a run that was killed
        if done == total:
            self.seconds["frames"] = time.monotonic() - started
            return
        stream = self.pipe.stream(
            scene.photo, poses, scene.image_poses, image_guidance=self.options.image_guidance,
            pose_guidance=self.options.pose_guidance, generator=torch.Generator().manual_seed(self.options.seed), batch_size=batch,
            first_frame=first, on_step=on_step, should_stop=self.should_stop, on_smaller=on_smaller,
            on_glimpse=on_glimpse if first == 0 else None, on_hidden=on_hidden, **vars(sampling),
        )  # fmt: skip

        def write(index: int, frame: np.ndarray) -> None:
            if index >= done:
                write_png(labelled(frame) if self.label else frame, self.frame_path(index))
            (self.folder / GLIMPSE).unlink(missing_ok=True)
            if (index + 1) % chunk == 0 or index + 1 == total:
                self.write_chunk(index - index % chunk, index + 1, poses.fps)

        try:
            with Behind(2 * chunk) as behind:  # frames are written while the next are made
                for index, frame in enumerate(stream, start=first):
                    behind.do(write, index, frame)
                    check_stop(self.should_stop)
        except Cancelled:
            with suppress(StorageError):  # then there is none
                self.write_partial(poses.fps)
            raise
        finally:
            (self.folder / GLIMPSE).unlink(missing_ok=True)
        self.seconds["frames"] = time.monotonic() - started

    @property
    def sampling(self) -> Sampling:
        given = {"num_inference_steps": self.options.steps, "solver": self.options.solver}
        return replace(self.pipe.form.sampling(self.options.quality), **{name: value for name, value in given.items() if value is not None})

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
        rest = [read_image(path) for path in sorted((self.folder / "frames").glob("*.png"))[first:]]
        if chunks or rest:
            write_partial(chunks, rest, fps, self.folder)

    def write_chunk(self, start: int, stop: int, fps: float) -> None:
        path = self.folder / "chunks" / f"{start // max(1, math.ceil(fps)):06d}.mp4"
        if not path.is_file():
            write_video((read_image(self.frame_path(index)) for index in range(start, stop)), path, fps, comment=COMMENT)

    def read_frames(self, total: int, tell: bool = True) -> Iterator[np.ndarray]:
        """The finished frames, for the video; how far it is is told on the way."""
        clock = StageClock("video", total, self.on_progress if tell else ignore_progress)
        clock.tick(0)
        for index in range(total):
            check_stop(self.should_stop)
            yield read_image(self.frame_path(index))
            clock.tick(index + 1)

    def result(self, scene: Scene, base: str, subject: Subject | None) -> dict:
        form, poses, hidden = self.pipe.form, scene.poses, self.hidden
        if hidden:
            self.notices.append(f"The safety checker found {len(hidden)} of {len(poses)} frames unfit to be shown and made them black; "
                                "another seed or motion may do better.")  # fmt: skip
        used = {
            **asdict(self.sampling), "guidance_interval": list(self.sampling.guidance_interval),
            "image_guidance": form.image_guidance if self.options.image_guidance is None else self.options.image_guidance,
            "pose_guidance": form.pose_guidance if self.options.pose_guidance is None else self.options.pose_guidance,
        }
        return {
            "num_frames": len(poses), "fps": poses.fps, "height": form.height, "width": form.width,
            "photo_box": {name: round(value, 2) for name, value in asdict(scene.box).items()},
            "options": self.options.model_dump(), "used": used, "seed": self.options.seed, "model": base,
            "subject": None if subject is None else subject.key, "seconds": {k: round(v, 2) for k, v in self.seconds.items()},
            "seconds_per_frame": round(self.seconds["frames"] / self.num_made, 4) if self.num_made else None,
            "label": self.label, "safety_checker": self.pipe.safety_checker is not None, "hidden_frames": hidden,
            "notices": self.notices, "versions": {"dreampose": __version__, "torch": torch.__version__},
            "device": str(self.pipe._execution_device), "precision": self.pipe.precision, "peak_memory": self.peaks,
        }  # fmt: skip


def finetune(
    pipe: DreamPosePipeline, photos: list[np.ndarray], image_poses: PoseSequence | None, recipe: str, seed: int, folder: Path, *,
    steps: int | None = None, key: str | None = None, base: str | None = None, checkpoints: Path | None = None,
    samples: Samples | None = None, on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop,
) -> Subject:  # fmt: skip
    """Tunes the model to the person in `photos`, uint8 (H, W, 3) each, and writes the subject folder; the model is left as it was.

    A subject that is there already and was tuned to the same is returned as it is. image_poses: the photos' maps, one each, or None: the
    pose is then dropped in tuning. steps: of the UNet, see `recipe_named`. checkpoints: a folder from which an interrupted call resumes,
    removed when the subject is written. samples: what takes pictures on the way. Where memory does not hold the tuning it goes on with
    less, see `training.ladder`, and the subject's notices say how. Raises InputError, also when what is resumed was another tuning, and
    ModelError where memory does not hold the last of the ladder either.
    """
    base, how = fingerprint(pipe) if base is None else base, recipe_named(recipe, steps)
    key = subject_key(photos, image_poses, repr(how), seed, base) if key is None else key
    check_subject_folder(folder)
    with suppress(ModelError):  # there is none yet, or another model's, or a damaged one
        if (found := read_subject(folder, base)).key == key:
            return found
    if image_poses is not None and len(image_poses) != len(photos):
        raise InputError(f"There are {len(photos)} photos and {len(image_poses)} DensePose maps for them; give one map for each.")
    if image_poses is not None and not (seen := image_poses.mask.any((1, 2))).all():
        which = "The photo's DensePose" if len(photos) == 1 else f"The DensePose of photo {int(np.argmin(seen)) + 1}"
        raise InputError(f"{which} shows nobody; give the map that was made from that photo, or none for any photo.")
    content = subject_key(photos, image_poses, "", 0, "")
    tuning = {"recipe": recipe, "steps": how.unet_steps, "seed": seed, "model": base, "photos": content}
    start = "full" if checkpoints is None else _check_resumed(checkpoints, tuning)

    def tune(rung: Rung) -> Subject:
        losses = tune_subject(pipe, pipe.fit_photos(photos, image_poses), image_poses, rung.how, seed, folder=checkpoints,
                              sample=samples and samples.take, on_progress=on_progress, should_stop=should_stop)  # fmt: skip
        if samples is not None:
            done = sum(map(len, losses.values()))
            samples.take(done, done)
        notices = [rung.notice] if rung.notice else []
        subject = Subject(key, base, rung.recipe, seed, image_poses is not None, losses, notices)
        save_subject(pipe, folder, subject, photos, image_poses)
        return subject

    def on_lower(before: Rung, rung: Rung) -> None:
        log.warning("%s", rung.notice)
        if samples is not None and rung.recipe != before.recipe:
            samples.clear()
        if checkpoints is not None:
            if rung.recipe != before.recipe:
                for stage in ("tuning", "decoder"):  # of other weights, and gone before the rung is told: whoever dies here starts anew
                    shutil.rmtree(checkpoints / stage, ignore_errors=True)
            _write_resumed(checkpoints, tuning | {"rung": rung.name})

    with memory.enough_for("to tune the model"), memory.all_there(pipe):
        subject = on_ladder(pipe, ladder(recipe, steps), start, tune, on_lower)
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return subject


def _check_resumed(checkpoints: Path, tuning: dict) -> str:
    """Writes what is being tuned to tuning.json and returns the name of the rung to go on from, see `ladder`; raises InputError when the
    checkpoints that are there are of another tuning."""
    told = checkpoints / "tuning.json"
    before = {"rung": "full", **(json.loads(told.read_text()) if told.is_file() else tuning)}
    if changed := [name for name in tuning if before.get(name) != tuning[name]]:
        raise InputError(f"The tuning to go on with has another {' and another '.join(changed)}; give the same, or start anew.")
    _write_resumed(checkpoints, before)
    return before["rung"]


def _write_resumed(checkpoints: Path, tuning: dict) -> None:
    checkpoints.mkdir(parents=True, exist_ok=True)
    with appearing(checkpoints / "tuning.json") as temporary:
        temporary.write_text(json.dumps(tuning, indent=1))


@contextmanager
def tuned_to(
    pipe: DreamPosePipeline, photo: np.ndarray, image_poses: PoseSequence | None, recipe: str, should_stop: ShouldStop = never_stop
) -> Iterator[None]:
    """The model carries a subject freshly tuned to `photo` inside the block and nowhere else."""
    how = recipe_named(recipe)
    with memory.all_there(pipe), base_restored(pipe, whole=how.rank is None):
        tune_subject(pipe, pipe.fit_photos([photo]), image_poses, how, should_stop=should_stop)
        yield
