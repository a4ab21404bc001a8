"""The two queues' handlers of a job: the light queue reads the uploads and makes previews and motions, the device queue
makes the video.

torch is imported only for code that runs a network or moves a texture, so the light queue stays small and starts at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING

from ..densepose import Estimates
from ..errors import InputError
from ..inputs.framing import Photo, check_options, frame_size, known_charts, make_scene, naming
from ..inputs.photo_checks import motion_checks, photo_checks
from ..media import read_image, reduced_by
from ..poses import Reading, read_poses, write_poses
from ..poses.sources import FORM_ESTIMATED, FORM_NPZ
from ..progress import Progress, check_stop
from ..settings import EXAMPLES, AnimateOptions, EditOptions, Settings
from .cleanup import Bucket
from .decoding import Decoder
from .pose_cache import PoseCache
from .records import Timings, Work

if TYPE_CHECKING:
    from ..animate import LocalEngine
    from ..cluster import Cluster

_MEASURED = 8  # frames made at the start
Notices = tuple[str, ...]


class LightTasks:
    """Handler of the light queue: decodes the uploads to canonical files; makes the preview or the motion if that is
    the job."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __call__(self, work: Work) -> Notices:
        """Run one job and return its notices. Raises InputError with the decoder's sentence, which names the file as
        its owner does."""
        if work.request.kind == "motion":
            return self._motion(work)
        notices = _Uploads(self.settings, work).read()
        return notices if work.request.kind == "animate" else (*notices, *self._preview(work))

    def _preview(self, work: Work) -> Notices:
        folder, options = work.folder, work.request.options
        if work.request.poses is not None:  # a photo alone stays at the stage in which its person was found
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
        return (*checks, *write_preview(poses, folder.result, options, scene, **work.watch))

    def _motion(self, work: Work) -> Notices:
        """Draw the pose maps of a made motion and a coloured video of them; reuse recently drawn maps."""
        folder, options = work.folder, work.request.motion
        work.on_progress(Progress("drawing", 0, options.num_frames))  # before the import of torch, which takes seconds
        from ..inputs.preview import preview_size, write_preview
        from ..synthetic.acting import acted

        size, kept = preview_size(self.settings.model), PoseCache(self.settings.home / "readings")
        name = kept.key_of(options.model_dump_json(), size)
        found = kept.get(name)
        if found is None:
            found = Reading(acted(options, size, **work.watch), "made motion", ())
            kept.keep(name, found)
        write_poses(found.poses, folder.motion)
        write_preview(found.poses, folder.result, EditOptions(), **work.watch)
        return (f"The motion: {found.describe()}.",)


class _Uploads:
    """The uploads of one job."""

    def __init__(self, settings: Settings, work: Work):
        self._settings, self._work = settings, work
        self._folder, self._request, self._options = work.folder, work.request, work.request.options
        self._decoder, self._kept = Decoder(work.should_stop), PoseCache(settings.home / "readings")
        name, *how = self._estimator = settings.estimator, settings.estimator_file, settings.estimator_colours
        self._estimates = Estimates(name, "cpu", *how, **work.watch)

    def read(self) -> Notices:
        """Decode the uploads, each in a child process (`decoding`), and return the notices. A later attempt does it all
        again; what is estimated is cached."""
        request, folder, options = self._request, self._folder, self._options
        photos, notices = _photo_files(self._work), ()
        for name, image, _ in photos:
            notices += self._decoded(name, image, self._decoder.photo)
        if request.poses is not None:
            notices += self._decoded(request.poses, folder.poses, self._motion)
        if request.image_poses is not None:
            notices += self._decoded(request.image_poses, folder.image_poses, self._own_map)
        elif request.image is not None:
            notices += self._estimated_map(folder.image, folder.image_poses, options.person_at)
        if options.recipe != "none":  # they serve fine-tuning alone
            for name, image, target in photos[1:]:
                notices += self._further_map(image, target, name.name)
        if request.image is not None and options.align == "body":
            for target in (folder.poses, folder.image_poses):
                if target.exists():
                    notices += self._joints(target)
        return tuple(dict.fromkeys(notices))

    def _decoded(self, name: Path, target: Path, convert: Callable[[Path, Path], Notices]) -> Notices:
        """Decode one upload to `target`; notices and errors call the file by its owner's name."""
        path = self._folder.upload(target, name)

        def named(sentence: str) -> str:
            return sentence.replace(str(path), name.name).replace(path.name, name.name)

        check_stop(self._work.should_stop)
        try:
            return tuple(named(notice) for notice in convert(path, target))
        except InputError as error:
            raise type(error)(named(str(error))) from error

    def _key(self, path: Path, *role: str) -> str:
        return self._kept.key(path, *map(str, self._estimator), *role)

    def _reading(self, key: str, target: Path, read: Callable[[], Reading]) -> Reading:
        """Return the reading cached under `key`, else what `read` returns, and write it to `target` unless `read` did.
        `read` writes what needs no estimating; an estimated reading is cached with the estimator's notices."""
        reading = self._kept.get(key)
        if reading is None:
            if target.is_file():  # of an interrupted attempt
                target.unlink()
            reading = read()
            if target.exists():
                return reading
            reading = replace(reading, notices=(*reading.notices, *self._estimates.notices))
            self._kept.keep(key, reading)
        if target == self._folder.poses:
            check_options(reading.poses, self._options)
        write_poses(reading.poses, target)
        return reading

    def _motion(self, path: Path, target: Path) -> Notices:
        options, folder = self._options, self._folder
        read = partial(self._decoder.motion, path, target, options, self._estimates.callback)
        reading = self._reading(self._key(path), target, read)
        about, sound = (f"The motion: {reading.describe()}.",), ()
        if self._request.kind == "animate":
            about = () if reading.form == FORM_NPZ else about  # an npz needs no detection
            sound = self._decoder.sound(path, folder.sound, reading.poses, options) if options.keep_sound else ()
        return (*about, *reading.notices, *sound)

    def _own_map(self, path: Path, target: Path) -> Notices:
        num_photos = 1 + len(self._request.more_images)
        key = self._key(path, "map") if num_photos == 1 else self._key(path, "maps", str(num_photos))
        read = partial(self._decoder.map, path, target, self._estimates.callback, num_photos)
        reading = self._reading(key, target, read)
        of_all = (f"{path.name} holds {num_photos} maps: one for each photo, in their order.",)
        return reading.notices + (of_all if len(reading.poses) > 1 else ())

    def _estimated_map(self, image: Path, target: Path, person_at: tuple[int, int] | None = None) -> Notices:
        if self._estimates.callback is None:
            return ()

        def read() -> Reading:
            place = person_at and tuple(pixel // reduced_by(image) for pixel in person_at)
            poses, notices = self._estimates.of_photo(read_image(image), place)
            return Reading(poses, FORM_ESTIMATED, notices)

        return self._reading(self._key(image, "photo", str(person_at)), target, read).notices

    def _further_map(self, image: Path, target: Path, name: str) -> Notices:
        """Estimate the map of a further photo, unless it was given together with the first photo's."""
        if self._folder.image_poses.exists() and len(read_poses(self._folder.image_poses)) > 1:
            return ()
        try:
            notices = self._estimated_map(image, target)
        except InputError as error:  # one photo less to learn from
            notices = (str(error),)
        return naming(notices, name)

    def _joints(self, target: Path) -> Notices:
        """Estimate the joints of a pose file that lacks them; a model that knows real DensePose needs none."""
        fed_real = known_charts(self._settings.model) == "densepose"
        if self._settings.estimator != "body" or fed_real or (poses := read_poses(target)).joints is not None:
            return ()

        def read() -> Reading:
            return Reading(self._estimates.with_joints(poses), FORM_NPZ, ())

        return self._reading(self._kept.key(target, "joints"), target, read).notices


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
            self._own()

    def __call__(self, work: Work) -> Notices:
        if self.device is None:
            work.on_progress(Progress("loading", 0, 1))
        from ..animate import animate

        if self.settings.engine == "local":
            engine = self._own()
        else:
            from ..cluster import Cluster

            self._engine = self._engine or Cluster(self.settings)
            engine = self._engine.wait(work.should_stop)
        bucket = Bucket(self.settings.bucket, self.settings.home) if self.settings.bucket is not None else None
        check_stop(work.should_stop)
        folder, (photo, *more) = work.folder, _photos(work)
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
            label=self.settings.labels,
            **work.watch,
        )
        Timings(self.settings.home).add(result, self.device)
        return tuple(result.get("notices", ()))

    def _own(self) -> LocalEngine:
        """Return this process's engine; the first call loads its model, and importing torch alone takes seconds."""
        with self._loading:
            if self._engine is None:
                # This imports all that `animate` needs, so that the first job does not wait for it.
                from ..animate import LocalEngine
                from ..model.loading import load_pipeline

                settings = self.settings
                how = settings.device, settings.precision, settings.low_memory, settings.safety_checker
                self._engine = LocalEngine(load_pipeline(settings.model, *how))
                if settings.is_mini or self._engine.model.device != "cpu":
                    self._measure()  # a large model on a CPU would keep the first job waiting
            return self._engine

    def _measure(self) -> None:
        """Make a few frames, unless a job has been measured, so that the page can tell how long a video takes."""
        from ..animate import animate

        timings, person = Timings(self.settings.home), EXAMPLES / "people" / "ada.png"
        if timings.of("none", "standard").frame_s is not None:
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


def _photo_files(work: Work) -> list[tuple[Path, Path, Path]]:
    """Return each photo's name and the paths of the decoded photo and of its map; empty for a job without photos."""
    folder, request = work.folder, work.request
    if request.image is None:
        return []
    more = [(name, folder.more_image(i), folder.more_poses(i)) for i, name in enumerate(request.more_images)]
    return [(request.image, folder.image, folder.image_poses), *more]


def _photos(work: Work) -> list[Photo]:
    """Return the photos with their pose maps, which are in a file each or all in the first photo's file."""
    files = _photo_files(work)
    maps = [read_poses(path) if path.exists() else None for _, _, path in files]
    if maps[0] is not None and len(maps[0]) > 1:
        maps = [maps[0].select([index]) for index in range(len(maps[0]))]
    return [Photo(read_image(path), own, name.name) for (name, path, _), own in zip(files, maps)]
