"""What the two lanes do with a job: the light lane checks and decodes the uploads, the device lane makes the video.

torch is imported only inside the device lane, so the light lane stays small and starts at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..images import read_image, write_png
from ..poses import PoseSequence, read_image_poses, read_poses, write_poses
from ..progress import Progress, check_stop
from ..settings import MAX_FRAMES, Settings
from .records import Lane, Upload, Work


def for_lane(lane: Lane, settings: Settings) -> Callable[[Work], tuple[str, ...]]:
    """The handler of `lane`: takes a job's Work, returns sentences for its owner."""
    return prepare if lane == "light" else DeviceLane(settings)


def prepare(work: Work) -> tuple[str, ...]:
    """Turns the uploads into files of our own making and deletes them; an upload that was converted before is left alone.

    Raises InputError with the reader's sentence, about the file by the name its owner knows.
    """
    request, folder = work.request, work.folder
    uploads = [upload for upload in (request.image, request.poses, request.image_poses) if upload is not None]
    try:
        _convert(folder.input, request.image, folder.image, lambda path: write_png(read_image(path), folder.image))
        check_stop(work.should_stop)
        _convert(folder.input, request.poses, folder.poses, lambda path: write_poses(_checked(read_poses(path), work), folder.poses))
        check_stop(work.should_stop)
        if request.image_poses is not None:
            _convert(
                folder.input, request.image_poses, folder.image_poses,
                lambda path: write_poses(read_image_poses(path), folder.image_poses),
            )
    except InputError:
        _delete(folder.input, uploads)
        raise
    _delete(folder.input, uploads)
    return ()


def _convert(folder: Path, upload: Upload, target: Path, convert: Callable[[Path], None]) -> None:
    source = folder / upload.file
    if target.exists():  # done by an attempt that was interrupted later
        return
    try:
        convert(source)
    except InputError as error:
        raise type(error)(str(error).replace(str(source), upload.name).replace(source.name, upload.name)) from error


def _checked(poses: PoseSequence, work: Work) -> PoseSequence:
    # Said here, and not only by the device lane, so that a wrong range is known at once while the device is busy.
    options = work.request.options
    num_frames = len(poses.clip(options.first_frame, options.last_frame))
    if num_frames > MAX_FRAMES:
        raise InputError(f"The motion has {num_frames} frames; at most {MAX_FRAMES} can be made at once, so choose a range of frames.")
    return poses


def _delete(folder: Path, uploads: list[Upload]) -> None:
    for upload in uploads:
        (folder / upload.file).unlink(missing_ok=True)


class DeviceLane:
    """Makes videos one after another with a pipeline that is loaded at the first job and then kept warm."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._pipe = None

    def __call__(self, work: Work) -> tuple[str, ...]:
        if self._pipe is None:
            work.on_progress(Progress("loading", 0, 1))  # said first: the import of torch alone takes seconds
        from .. import animation

        if self._pipe is None:
            self._pipe = animation.load_pipeline(self.settings.model, self.settings.device)
        check_stop(work.should_stop)
        folder = work.folder
        result = animation.animate(
            self._pipe,
            image=read_image(folder.image),
            poses=read_poses(folder.poses),
            image_poses=read_poses(folder.image_poses) if folder.image_poses.exists() else None,
            options=work.request.options,
            folder=folder.path,
            subjects=work.subjects,
            on_progress=work.on_progress,
            should_stop=work.should_stop,
        )
        return tuple(result.get("notices", ()))
