"""What the two queues do with a job: the light queue reads the uploads, makes previews and motions, the device queue
makes the video.

torch is imported only where a network or a texture is at work, so the light queue stays small and starts at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from ..densepose import Estimates
from ..errors import Cancelled, DiskFull, InputError
from ..files import appearing
from ..inputs.framing import check_options, frame_size, known_charts, make_scene
from ..inputs.photos import Photo, naming
from ..media import read_image
from ..poses import PoseSequence, Reading, convertible, has_joints, read_poses, write_poses
from ..poses.reading import FORM_ESTIMATED, FORM_NPZ
from ..progress import Progress, ShouldStop, check_stop
from ..settings import EditOptions, Settings
from .bucket import Bucket
from .decoding import Decoded, Decoder
from .pose_cache import PoseCache
from .records import Queue, Upload, Work
from .timings import Timings

if TYPE_CHECKING:
    from ..animate import LocalEngine
    from ..cluster import Cluster

Notices = tuple[str, ...]


def for_queue(queue: Queue, settings: Settings) -> Callable[[Work], Notices]:
    """The handler of `queue`: takes a job's Work, returns sentences for its owner."""
    return LightTasks(settings) if queue == "light" else DeviceTasks(settings)


class LightTasks:
    """Turns the uploads into files of our own making and deletes them; makes the preview or the motion, where that is
    the job."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __call__(self, work: Work) -> Notices:
        """Raises InputError with the reader's sentence, about the file by the name its owner knows."""
        if work.request.kind == "motion":
            return self._motion(work)
        said = self._read_uploads(work)
        if work.request.kind == "animate":
            return said
        return (*said, *self._preview(work))

    def _read_uploads(self, work: Work) -> Notices:
        """What an attempt that was interrupted later has read before is left alone.

        Each file is opened by a child process (`decoding`) and goes as soon as what it holds is there; a refusal takes
        them all.
        """
        request, folder = work.request, work.folder
        settings = self.settings
        decoder = Decoder(work.should_stop)
        estimates = Estimates(
            settings.estimator,
            "cpu",
            settings.estimator_file,
            settings.estimator_colours,
            on_progress=work.on_progress,
            should_stop=work.should_stop,
        )
        kept = PoseCache(settings.home / "readings")

        def key(path: Path, *role: str) -> str:
            return kept.key(path, settings.estimator, str(settings.estimator_file), settings.estimator_colours, *role)

        def estimated(name: str, find: Callable[[], Reading | Decoded | None]) -> Reading | Decoded | None:
            """What `find` gives, or what was kept under `name` because it had to be estimated; the estimator's words
            included."""
            reading = kept.get(name)
            if reading is None:
                reading = find()
                if isinstance(reading, Reading):
                    reading = replace(reading, notices=(*reading.notices, *estimates.notices))
                    kept.keep(name, reading)
            return reading

        def read(upload: Upload, target: Path, convert: Callable[[Path], Notices]) -> Notices:
            path = folder.input / upload.file
            said = _once(target, lambda: _named(path, upload, convert))
            path.unlink(missing_ok=True)
            check_stop(work.should_stop)
            return said

        def photo(target: Path) -> Callable[[Path], Notices]:
            return lambda path: decoder.photo(path, target)

        def motion(path: Path) -> Notices:
            options = request.options
            found = estimated(key(path), lambda: decoder.motion(path, folder.poses, options, estimates.callback))
            if isinstance(found, Reading):
                check_options(found.poses, options)
                write_poses(found.poses, folder.poses)
                found = Decoded.of(found)
            animate = request.kind == "animate"
            sound = decoder.sound(path, folder.sound, found, options) if animate and options.keep_sound else ()
            plain = animate and found.form == FORM_NPZ  # nothing had to be found out
            return (*(() if plain else (f"The motion: {found.description}.",)), *found.notices, *sound)

        def own_map(path: Path) -> Notices:
            number = 1 + len(request.more_images)
            role = ("map",) if number == 1 else ("maps", str(number))
            found = estimated(
                key(path, *role), lambda: decoder.map(path, folder.image_poses, estimates.callback, number)
            )
            if isinstance(found, Reading):
                write_poses(found.poses, folder.image_poses)
                found = Decoded.of(found)
            of_all = (
                (f"{path.name} holds {number} maps: one for each photo, in their order.",)
                if found.num_frames > 1
                else ()
            )
            return (*found.notices, *of_all)

        def estimated_map(image: Path, target: Path) -> Notices:
            about: Notices = ()

            def find() -> Reading | None:
                nonlocal about
                own, about = estimates.of_photo(read_image(image))
                return None if own is None else Reading(own, FORM_ESTIMATED, about)

            found = estimated(key(image, "photo"), find)
            if found is None:
                return (*about, *estimates.notices)
            write_poses(found.poses, target)
            return found.notices

        def further_map(index: int, name: str) -> Notices:
            """Unless it was given with the first one's."""
            if folder.image_poses.exists() and len(read_poses(folder.image_poses)) > 1:
                return ()
            return naming(estimated_map(folder.more_image(index), folder.more_poses(index)), name)

        def joints(target: Path) -> Notices:
            """Looks for them where a map came without; a model that knows real DensePose does without."""
            fed_real = not convertible("body", known_charts(settings.model))
            if settings.estimator != "body" or fed_real or has_joints(target):
                return ()
            name = kept.key(target, "joints")
            found = kept.get(name)
            if found is None:
                found = Reading(estimates.with_joints(read_poses(target)), FORM_NPZ, estimates.notices)
                kept.keep(name, found)
            write_poses(found.poses, target)
            return found.notices

        said: Notices = ()
        try:
            if request.image is not None:
                said += read(request.image, folder.image, photo(folder.image))
            for index, upload in enumerate(request.more_images):
                said += read(upload, folder.more_image(index), photo(folder.more_image(index)))
            if request.poses is not None:
                said += read(request.poses, folder.poses, motion)
            if request.image_poses is not None:
                said += read(request.image_poses, folder.image_poses, own_map)
            elif request.image is not None:
                said += _once(folder.image_poses, partial(estimated_map, folder.image, folder.image_poses))
            if request.options.recipe != "none":  # else nobody is learned
                for index, upload in enumerate(request.more_images):
                    said += _once(folder.more_poses(index), partial(further_map, index, upload.name))
            if request.image is not None and request.options.align == "body":
                for target in (folder.poses, folder.image_poses):
                    if target.exists():
                        said += _once(target.with_suffix(".joints"), partial(joints, target))
        except (Cancelled, DiskFull):
            raise  # a later attempt may go on from what is there
        except Exception:  # this job has failed
            folder.delete_uploads()
            raise
        return tuple(dict.fromkeys(said))

    def _preview(self, work: Work) -> Notices:
        folder, options = work.folder, work.request.options
        work.on_progress(Progress("preview", 0, 1))  # said first: the import of torch takes seconds
        from ..inputs.preview import preview_size, write_look, write_preview

        model, scene = self.settings.model, None
        own = read_poses(folder.image_poses) if folder.image_poses.exists() else None
        if work.request.poses is None:
            image = read_image(folder.image)
            return write_look(image, own, frame_size(model, image.shape[:2]), options, folder.look)
        poses = read_poses(folder.poses)
        if work.request.image is not None:
            image = read_image(folder.image)
            size = preview_size(model, image.shape[:2])
            scene = make_scene(image, poses, own, size, options, known_charts(model))
        notices = write_preview(
            poses, folder.result, options, scene, on_progress=work.on_progress, should_stop=work.should_stop
        )
        return (*(scene.notices if scene is not None else ()), *notices)

    def _motion(self, work: Work) -> Notices:
        """The maps of a mannequin's motion, and a video of them in colours. What was drawn lately is not drawn
        again."""
        folder, options = work.folder, work.request.motion
        work.on_progress(Progress("drawing", 0, options.num_frames))  # said first: the import of torch takes seconds
        from ..inputs.preview import preview_size, write_preview
        from ..synthetic.acting import acted

        size, kept = preview_size(self.settings.model), PoseCache(self.settings.home / "readings")
        name = kept.key_of(options.model_dump_json(), size)
        found = kept.get(name)
        if found is None:
            poses = acted(options, size, on_progress=work.on_progress, should_stop=work.should_stop)
            found = Reading(poses, "drawn by a mannequin", ())
            kept.keep(name, found)
        write_poses(found.poses, folder.motion)
        write_preview(
            found.poses, folder.result, EditOptions(), on_progress=work.on_progress, should_stop=work.should_stop
        )
        return (f"The motion: {found.describe()}.",)


def _once(target: Path, make: Callable[[], Notices]) -> Notices:
    """The sentences of `make`, which writes `target`; kept beside it, so that a later attempt says them again without
    making it."""
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


class DeviceTasks:
    """Makes videos one after another with a pipeline that is loaded once and then kept warm.

    On a Ray cluster the pipelines are there, and none is here.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self._engine: LocalEngine | Cluster | None = None
        self._loading = Lock()

    @property
    def device(self) -> str | None:
        """What the model runs on and computes in, once it is loaded."""
        model = None if self._engine is None else self._engine.model
        return None if model is None else f"{model.device}, {model.precision}"

    def prepare(self) -> None:
        """Loads the model before the first job; models of a cluster are loaded there. Raises ModelError."""
        if self.settings.engine == "local":
            self._own()

    def __call__(self, work: Work) -> Notices:
        if self.device is None:
            work.on_progress(Progress("loading", 0, 1))
        from ..animate import animate

        engine = self._own() if self.settings.engine == "local" else self._on_the_cluster(work.should_stop)
        bucket = Bucket(self.settings.bucket, self.settings.home) if self.settings.bucket is not None else None
        check_stop(work.should_stop)
        folder = work.folder

        photo, *more = _photos(work)
        result = animate(
            engine,
            image=photo.image,
            poses=read_poses(folder.poses),
            image_poses=photo.image_poses,
            more=more,
            options=work.request.options,
            folder=folder.path,
            sound=folder.sound if folder.sound.exists() else None,
            subjects=work.subjects,
            bring=None if bucket is None else partial(bucket.bring_subject, work.subjects.name),
            exports=True,
            samples=True,
            label=self.settings.labels,
            on_progress=work.on_progress,
            should_stop=work.should_stop,
        )
        Timings(self.settings.home).add(result, self.device)
        return tuple(result.get("notices", ()))

    def _own(self) -> LocalEngine:
        """The model here, as soon as it is loaded; the import of torch alone takes seconds."""
        with self._loading:
            if self._engine is None:
                from ..animate import (
                    LocalEngine,
                )  # with all that `animate` needs: the first job should not have to wait for it
                from ..model.loading import load_pipeline

                settings = self.settings
                how = settings.device, settings.precision, settings.low_memory, settings.safety_checker
                self._engine = LocalEngine(load_pipeline(settings.model, *how))
            return self._engine

    def _on_the_cluster(self, should_stop: ShouldStop) -> Cluster:
        from ..cluster import Cluster

        self._engine = self._engine or Cluster(self.settings)
        return self._engine.wait(should_stop)


def _photos(work: Work) -> list[Photo]:
    """The photos with their maps: each has a file of its own, or all of them are in the first one's."""
    folder, uploads = work.folder, work.request.more_images

    def known(path: Path) -> PoseSequence | None:
        return read_poses(path) if path.exists() else None

    own = known(folder.image_poses)
    if own is not None and len(own) > 1:
        maps = [own.select([index]) for index in range(len(own))]
    else:
        maps = [own, *(known(folder.more_poses(index)) for index in range(len(uploads)))]
    places = [folder.image, *(folder.more_image(index) for index in range(len(uploads)))]
    names = [work.request.image.name, *(upload.name for upload in uploads)]
    return [Photo(read_image(place), own, name) for place, own, name in zip(places, maps, names)]
