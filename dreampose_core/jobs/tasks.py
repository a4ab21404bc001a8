"""The two queues' handlers of a job: the light queue reads the uploads and makes previews and motions, the device queue
makes the video.

torch is imported only for code that runs a network or moves a texture, so the light queue stays small and starts at
once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING

from ..densepose import Estimates
from ..errors import Cancelled, DiskFull, InputError
from ..files import appearing
from ..inputs.framing import Photo, check_options, frame_size, known_charts, make_scene, naming
from ..inputs.photo_checks import motion_checks, photo_checks
from ..media import read_image, reduced_by
from ..poses import PoseSequence, Reading, convertible, has_joints, read_poses, write_poses
from ..poses.sources import FORM_ESTIMATED, FORM_NPZ
from ..progress import Progress, ShouldStop, check_stop
from ..settings import EXAMPLES, AnimateOptions, EditOptions, Settings
from .cleanup import Bucket
from .decoding import Decoder
from .pose_cache import PoseCache
from .records import Timings, Upload, Work

if TYPE_CHECKING:
    from ..animate import LocalEngine
    from ..cluster import Cluster

_MEASURED = 8  # frames made at the start
Notices = tuple[str, ...]


class LightTasks:
    """Handler of the light queue: decodes the uploads to canonical files and deletes them; makes the preview or the
    motion if that is the job."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __call__(self, work: Work) -> Notices:
        """Run one job and return its notices. Raises InputError with the decoder's sentence, which names the file as
        its owner does."""
        if work.request.kind == "motion":
            return self._motion(work)
        said = self._read_uploads(work)
        if work.request.kind == "animate":
            return said
        return (*said, *self._preview(work))

    def _read_uploads(self, work: Work) -> Notices:
        """Decode the uploads, except those that an interrupted attempt has decoded before; return the notices.

        A child process (`decoding`) opens each file, which is deleted as soon as its content is written; if one file is
        rejected, all are deleted.
        """
        request, folder, settings = work.request, work.folder, self.settings
        options, num_photos = request.options, 1 + len(request.more_images)
        decoder, kept = Decoder(work.should_stop), PoseCache(settings.home / "readings")
        estimator = settings.estimator, settings.estimator_file, settings.estimator_colours
        estimates = Estimates(
            estimator[0], "cpu", *estimator[1:], on_progress=work.on_progress, should_stop=work.should_stop
        )

        def key(path: Path, *role: str) -> str:
            return kept.key(path, *map(str, estimator), *role)

        def read(upload: Upload, target: Path, convert: Callable[[Path, Path], Notices]) -> Notices:
            """Decode one upload to `target`; notices and errors call the file by its owner's name."""
            path = folder.input / upload.file

            def named(sentence: str) -> str:
                return sentence.replace(str(path), upload.name).replace(path.name, upload.name)

            def make() -> Notices:
                try:
                    return tuple(named(notice) for notice in convert(path, target))
                except InputError as error:
                    raise type(error)(named(str(error))) from error

            said = _once(target, make)
            path.unlink(missing_ok=True)
            check_stop(work.should_stop)
            return said

        def poses(name: str, target: Path, read: Callable[[], Reading]) -> Reading:
            """Return the reading cached under `name`, else what `read` returns, and write it to `target` unless `read`
            did. `read` writes what needs no estimating; an estimated reading is cached with the estimator's notices."""
            reading = kept.get(name)
            if reading is None:
                reading = read()
                if not target.exists():
                    reading = replace(reading, notices=(*reading.notices, *estimates.notices))
                    kept.keep(name, reading)
            if not target.exists():
                if target == folder.poses:
                    check_options(reading.poses, options)
                write_poses(reading.poses, target)
            return reading

        def motion(path: Path, target: Path) -> Notices:
            reading = poses(key(path), target, lambda: decoder.motion(path, target, options, estimates.callback))
            about, sound = (f"The motion: {reading.describe()}.",), ()
            if request.kind == "animate":
                about = () if reading.form == FORM_NPZ else about  # an npz needs no detection
                sound = decoder.sound(path, folder.sound, reading.poses, options) if options.keep_sound else ()
            return (*about, *reading.notices, *sound)

        def own_map(path: Path, target: Path) -> Notices:
            name = key(path, "map") if num_photos == 1 else key(path, "maps", str(num_photos))
            reading = poses(name, target, lambda: decoder.map(path, target, estimates.callback, num_photos))
            of_all = (f"{path.name} holds {num_photos} maps: one for each photo, in their order.",)
            return reading.notices + (of_all if len(reading.poses) > 1 else ())

        def estimated_map(image: Path, target: Path, person_at: tuple[int, int] | None) -> Notices:
            name = key(image, "photo", str(person_at))
            reading = kept.get(name)
            if reading is None:
                if person_at is not None:
                    person_at = tuple(place // reduced_by(image) for place in person_at)
                own, notices = estimates.of_photo(read_image(image), person_at)
                if own is None:
                    return notices
                notices += estimates.notices
                reading = Reading(own, FORM_ESTIMATED, notices)
                kept.keep(name, reading)
            write_poses(reading.poses, target)
            return reading.notices

        def further_map(index: int, name: str) -> Notices:
            """Estimate the map of a further photo, unless it was given together with the first photo's."""
            if folder.image_poses.exists() and len(read_poses(folder.image_poses)) > 1:
                return ()
            try:
                said = estimated_map(folder.more_image(index), folder.more_poses(index), None)
            except InputError as error:  # one photo less to learn from
                said = (str(error),)
            return naming(said, name)

        def joints(target: Path) -> Notices:
            """Estimate the joints of a pose file that lacks them; a model that knows real DensePose needs none."""
            fed_real = not convertible("body", known_charts(settings.model))
            if settings.estimator != "body" or fed_real or has_joints(target):
                return ()
            name = kept.key(target, "joints")
            reading = kept.get(name)
            if reading is None:
                reading = Reading(estimates.with_joints(read_poses(target)), FORM_NPZ, estimates.notices)
                kept.keep(name, reading)
            write_poses(reading.poses, target)
            return reading.notices

        said: Notices = ()
        try:
            if request.image is not None:
                said += read(request.image, folder.image, decoder.photo)
            for index, upload in enumerate(request.more_images):
                said += read(upload, folder.more_image(index), decoder.photo)
            if request.poses is not None:
                said += read(request.poses, folder.poses, motion)
            if request.image_poses is not None:
                said += read(request.image_poses, folder.image_poses, own_map)
            elif request.image is not None:
                first = partial(estimated_map, folder.image, folder.image_poses, options.person_at)
                said += _once(folder.image_poses, first)
            if options.recipe != "none":  # they serve fine-tuning alone
                for index, upload in enumerate(request.more_images):
                    said += _once(folder.more_poses(index), partial(further_map, index, upload.name))
            if request.image is not None and options.align == "body":
                for target in (folder.poses, folder.image_poses):
                    if target.exists():
                        said += _once(target.with_suffix(".joints"), partial(joints, target))
        except (Cancelled, DiskFull):
            raise  # a later attempt can continue with the files that exist
        except Exception:  # this job has failed
            folder.delete_uploads()
            raise
        return tuple(dict.fromkeys(said))

    def _preview(self, work: Work) -> Notices:
        folder, options = work.folder, work.request.options
        work.on_progress(Progress("preview", 0, 1))  # before the import of torch, which takes seconds
        from ..inputs.preview import preview_size, write_look, write_preview

        model, scene, checks = self.settings.model, None, ()
        own = read_poses(folder.image_poses) if folder.image_poses.exists() else None
        if work.request.poses is None:
            image = read_image(folder.image)
            return write_look(image, own, frame_size(model, image.shape[:2]), options, folder.look)
        poses = read_poses(folder.poses)
        if work.request.image is not None:
            image = read_image(folder.image)
            size = preview_size(model, image.shape[:2])
            charts = known_charts(model)
            scene = make_scene(image, poses, own, size, options, charts, should_stop=work.should_stop)
            box, whole = scene.box, frame_size(model, image.shape[:2])
            checks = (*scene.notices, *photo_checks(own, box, image.shape[:2], whole), *motion_checks(own, poses))
        notices = write_preview(
            poses, folder.result, options, scene, on_progress=work.on_progress, should_stop=work.should_stop
        )
        return (*checks, *notices)

    def _motion(self, work: Work) -> Notices:
        """Draw the pose maps of a mannequin's motion and a coloured video of them; reuse recently drawn maps."""
        folder, options = work.folder, work.request.motion
        work.on_progress(Progress("drawing", 0, options.num_frames))  # before the import of torch, which takes seconds
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
    """Call `make`, which writes `target`, and return its notices. They are stored next to `target`, so a later attempt
    returns them without calling `make` again."""
    kept = target.with_suffix(".said.json")
    if kept.exists():
        return tuple(json.loads(kept.read_text(encoding="utf-8")))
    said = make()
    with appearing(kept) as temporary:
        temporary.write_text(json.dumps(said), encoding="utf-8")
    return said


class DeviceTasks:
    """Handler of the device queue: makes videos one after another with a pipeline that is loaded once and kept.

    With a Ray cluster, the pipelines are on its nodes and this process loads none.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self._engine: LocalEngine | Cluster | None = None
        self._loading = Lock()

    @property
    def device(self) -> str | None:
        """The model's device and precision, None until it is loaded."""
        model = None if self._engine is None else self._engine.model
        return None if model is None else f"{model.device}, {model.precision}"

    def prepare(self) -> None:
        """Load the model before the first job, and measure it where no job has done so; a cluster loads its own models.
        Raises ModelError."""
        if self.settings.engine == "local":
            self._own(measure=True)

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

    def _own(self, measure: bool = False) -> LocalEngine:
        """Return this process's engine; the first call loads its model, and importing torch alone takes seconds.

        measure: also make a few frames, so that the page can tell how long a video takes.
        """
        with self._loading:
            if self._engine is None:
                # This imports all that `animate` needs, so that the first job does not wait for it.
                from ..animate import LocalEngine
                from ..model.loading import load_pipeline

                settings = self.settings
                how = settings.device, settings.precision, settings.low_memory, settings.safety_checker
                self._engine = LocalEngine(load_pipeline(settings.model, *how))
                if measure and (settings.is_mini or self._engine.model.device != "cpu"):
                    self._measure()  # a large model on a CPU would keep the first job waiting
            return self._engine

    def _measure(self) -> None:
        from ..animate import animate

        timings, person = Timings(self.settings.home), EXAMPLES / "people" / "ada.png"
        if timings.of("none", "standard").frame_s is not None or not person.exists():
            return
        with TemporaryDirectory() as folder:
            result = animate(
                self._engine,
                image=read_image(person),
                image_poses=read_poses(person.with_suffix(".poses.npz")),
                poses=read_poses(EXAMPLES / "motions" / "walk.npz"),
                options=AnimateOptions(recipe="none", last_frame=_MEASURED),
                folder=Path(folder),
            )
        timings.add(result, self.device)

    def _on_the_cluster(self, should_stop: ShouldStop) -> Cluster:
        from ..cluster import Cluster

        self._engine = self._engine or Cluster(self.settings)
        return self._engine.wait(should_stop)


def _photos(work: Work) -> list[Photo]:
    """Return the photos with their pose maps, which are in a file each or all in the first photo's file."""
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
