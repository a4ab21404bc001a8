"""What the two lanes do with a job: the light lane reads the uploads and makes previews, the device lane makes the video.

torch is imported only where a network or a texture is at work, so the light lane stays small and starts at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..densepose import Estimates
from ..errors import InputError
from ..files import appearing
from ..images import read_image, read_photo, write_png
from ..poses import PoseSequence, Reading, edited, read_any, read_image_map, read_poses, write_poses
from ..poses.reading import FORM_ESTIMATED, FORM_NPZ
from ..progress import Progress, check_stop
from ..scene import check_length, keep_sound, make_scene
from ..settings import AnimateOptions, Settings
from .bucket import Bucket
from .readings import Readings
from .records import Lane, Upload, Work

Notices = tuple[str, ...]


def for_lane(lane: Lane, settings: Settings) -> Callable[[Work], Notices]:
    """The handler of `lane`: takes a job's Work, returns sentences for its owner."""
    return LightLane(settings) if lane == "light" else DeviceLane(settings)


class LightLane:
    """Turns the uploads into files of our own making and deletes them; makes the preview, where that is the job."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __call__(self, work: Work) -> Notices:
        """Raises InputError with the reader's sentence, about the file by the name its owner knows."""
        said = self._read_uploads(work)
        if work.request.kind == "animate":
            return said
        return (*said, *self._preview(work))

    def _read_uploads(self, work: Work) -> Notices:
        """What an attempt that was interrupted later has read before is left alone."""
        request, folder = work.request, work.folder
        settings = self.settings
        estimates = Estimates(
            settings.estimator, "cpu", settings.estimator_file, settings.estimator_colours,
            on_progress=work.on_progress, should_stop=work.should_stop,
        )  # fmt: skip

        def read(upload: Upload, target: Path, convert: Callable[[Path], Notices]) -> Notices:
            return _once(target, lambda: _named(folder.input / upload.file, upload, convert))

        def photo(path: Path) -> Notices:
            pixels, notices = read_photo(path)
            write_png(pixels, folder.image)
            return notices

        def motion(path: Path) -> Notices:
            reading = self._read_once(path, estimates, lambda: read_any(path, estimates.callback))
            _check(reading.poses, request.options)
            animate = request.kind == "animate"
            sound = keep_sound(path, reading.poses, request.options, folder.sound) if animate and request.options.keep_sound else ()
            write_poses(reading.poses, folder.poses)
            plain = animate and reading.form == FORM_NPZ  # nothing had to be found out
            return (*(() if plain else (f"The motion: {reading.describe()}.",)), *reading.notices, *sound)

        def own_map(path: Path) -> Notices:
            reading = self._read_once(path, estimates, lambda: read_image_map(path, estimates.callback), "map")
            write_poses(reading.poses, folder.image_poses)
            return reading.notices

        def estimated_map() -> Notices:
            nobody: Notices = ()

            def estimate() -> Reading | None:
                nonlocal nobody
                own, nobody = estimates.of_photo(read_image(folder.image))
                return None if own is None else Reading(own, FORM_ESTIMATED, ())

            reading = self._read_once(folder.image, estimates, estimate, "photo")
            if reading is None:
                return (*nobody, *estimates.notices)
            write_poses(reading.poses, folder.image_poses)
            return reading.notices

        said: Notices = ()
        try:
            if request.image is not None:
                said += read(request.image, folder.image, photo)
                check_stop(work.should_stop)
            if request.poses is not None:
                said += read(request.poses, folder.poses, motion)
                check_stop(work.should_stop)
            if request.image_poses is not None:
                said += read(request.image_poses, folder.image_poses, own_map)
            elif request.image is not None:
                said += _once(folder.image_poses, estimated_map)
        except InputError:
            _delete_uploads(work)
            raise
        _delete_uploads(work)
        return tuple(dict.fromkeys(said))

    def _read_once(self, path: Path, estimates: Estimates, read: Callable[[], Reading | None], *role: str) -> Reading | None:
        """`read()`, or what it gave for the same content before, where that had to be estimated; the estimator's words included."""
        settings = self.settings
        kept = Readings(settings.home / "readings")
        key = kept.key(path, settings.estimator, str(settings.estimator_file), settings.estimator_colours, *role)
        reading = kept.get(key)
        if reading is None:
            reading = read()
            if reading is not None and estimates.used:
                reading = replace(reading, notices=(*reading.notices, *estimates.notices))
                if reading.form.startswith(FORM_ESTIMATED):
                    kept.keep(key, reading)
        return reading

    def _preview(self, work: Work) -> Notices:
        folder, options = work.folder, work.request.options
        work.on_progress(Progress("preview", 0, 1))  # said first: the import of torch takes seconds
        from ..preview import preview_size, write_look, write_preview

        size, scene = preview_size(self.settings.model), None
        own = read_poses(folder.image_poses) if folder.image_poses.exists() else None
        if work.request.poses is None:
            return write_look(read_image(folder.image), own, size, options.fit, folder.look)
        poses = read_poses(folder.poses)
        if work.request.image is None:
            poses = edited(poses, options)
        else:
            scene = make_scene(read_image(folder.image), poses, own, size, options)
        notices = write_preview(poses, folder.result, scene, on_progress=work.on_progress, should_stop=work.should_stop)
        return (*(scene.notices if scene is not None else ()), *notices)


def _once(target: Path, make: Callable[[], Notices]) -> Notices:
    """The sentences of `make`, which writes `target`; kept beside it, so that a later attempt says them again without making it."""
    kept = target.with_suffix(".said.json")
    if kept.exists():
        return tuple(json.loads(kept.read_text(encoding="utf-8")))
    said = make()
    with appearing(kept) as temporary:
        temporary.write_text(json.dumps(said), encoding="utf-8")
    return said


def _named(source: Path, upload: Upload, convert: Callable[[Path], Notices]) -> Notices:
    """`convert(source)`, its sentences and errors speaking of the file by its owner's name."""

    def named(sentence: str) -> str:
        return sentence.replace(str(source), upload.name).replace(source.name, upload.name)

    try:
        return tuple(named(notice) for notice in convert(source))
    except InputError as error:
        raise type(error)(named(str(error))) from error


def _check(poses: PoseSequence, options: AnimateOptions) -> None:
    """Tries the options on one pixel of every map, so that what cannot be done is known at once while the device is busy."""
    corner = {name: None if x is None else x[..., :1, :1] for name, x in (("parts", poses.parts), ("uv", poses.uv))}
    check_length(edited(replace(poses, **corner), options))


def _delete_uploads(work: Work) -> None:
    for upload in (work.request.image, work.request.poses, work.request.image_poses):
        if upload is not None:
            (work.folder.input / upload.file).unlink(missing_ok=True)


class DeviceLane:
    """Makes videos one after another with a pipeline that is loaded at the first job and then kept warm.

    device: what the model runs on and computes in, once it is loaded.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.device: str | None = None
        self._pipe = None

    def __call__(self, work: Work) -> Notices:
        if self._pipe is None:
            work.on_progress(Progress("loading", 0, 1))  # said first: the import of torch alone takes seconds
        from .. import animation
        from ..pipeline import load_pipeline

        if self._pipe is None:
            self._pipe = load_pipeline(self.settings.model, self.settings.device, self.settings.precision, self.settings.low_memory)
            self.device = f"{self._pipe._execution_device}, {self._pipe.precision}"
        if self.settings.bucket is not None:
            Bucket(self.settings.bucket, self.settings.home).bring_subjects(work.subjects.name)
        check_stop(work.should_stop)
        folder = work.folder
        result = animation.animate(
            self._pipe,
            image=read_image(folder.image),
            poses=read_poses(folder.poses),
            image_poses=read_poses(folder.image_poses) if folder.image_poses.exists() else None,
            options=work.request.options,
            folder=folder.path,
            sound=folder.sound if folder.sound.exists() else None,
            subjects=work.subjects,
            on_progress=work.on_progress,
            should_stop=work.should_stop,
        )
        return tuple(result.get("notices", ()))
