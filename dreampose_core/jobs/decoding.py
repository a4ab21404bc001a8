"""Opens what users brought, in a child process of its own for each file; canonical PNG, npz and pictures for the
estimator come out.

    python -m dreampose_core.jobs.decoding

is that child: see `confinement` for what it may do, `sandbox` for how it is spoken to. It imports neither torch nor
what serves the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ..files import remove_unfinished
from ..inputs.framing import check_options, keep_sound
from ..media import read_photo, write_png
from ..poses import MAX_FRAMES_READ, MAX_MAP_SIDE, Estimate, Photos, Reading, own_maps, read_any, write_poses
from ..poses.npz import MAX_BYTES
from ..progress import ShouldStop
from ..settings import AnimateOptions, Options
from .confinement import Limits
from .sandbox import Channel, Child, serve

# Memory and files: the largest motion that is read takes MAX_BYTES, ffmpeg's own limits (video.process) lie below
# these.
LIMITS = Limits(memory=MAX_BYTES + (2 << 30), cpu_s=600, file_bytes=MAX_BYTES + (1 << 26), open_files=64, wait_s=600.0)
PROGRAM = ("-m", "dreampose_core.jobs.decoding")


class Request(Options):
    """What is asked of a child: `source` is decoded to `target`, both of them names in its folder.

    do: "photo" to PNG; "motion" to npz, and `options` are tried on it; "map" to npz, the first map alone, or one for
    each of `num_photos` where the file holds as many; "sound" of the motion's file, of which `num_frames` at `fps` were
    read, to .m4a, cut as `options` say. estimate: pictures of a person are sent, not refused.
    """

    do: Literal["photo", "motion", "map", "sound"]
    source: str
    target: str
    options: AnimateOptions | None = None
    estimate: bool = False
    num_photos: int = 1
    num_frames: int = 0
    fps: float = 0.0


class Decoded(Options):
    """What is to be said of a motion or map that lies in its target: see `Reading`."""

    form: str
    description: str
    num_frames: int = Field(ge=1)
    fps: float = Field(ge=1, le=240)
    notices: tuple[str, ...]

    @classmethod
    def of(cls, reading: Reading) -> Decoded:
        return cls(
            form=reading.form,
            description=reading.describe(),
            num_frames=len(reading.poses),
            fps=reading.poses.fps,
            notices=reading.notices,
        )


class Facts(Options):
    """`Photos` without its frames, as it is sent; numbers: the first and the step."""

    name: str
    kind: Literal["video", "pictures"]
    slots: tuple[int, ...] = Field(min_length=1, max_length=MAX_FRAMES_READ)
    length: int = Field(ge=1, le=MAX_FRAMES_READ)
    numbers: tuple[int, int] | None
    fps: float | None
    notices: tuple[str, ...]

    @model_validator(mode="after")
    def _places_are_there(self) -> Facts:
        if not all(a < b for a, b in zip((-1, *self.slots), (*self.slots, self.length))):
            raise ValueError("the places of the frames must rise and lie within the length")
        return self

    @classmethod
    def of(cls, photos: Photos) -> Facts:
        numbers = None if photos.numbers is None else (photos.numbers.start, photos.numbers.step)
        return cls(
            name=photos.name,
            kind=photos.kind,
            slots=photos.slots,
            length=photos.length,
            numbers=numbers,
            fps=photos.fps,
            notices=photos.notices,
        )

    def photos(self, frames: Iterator[np.ndarray]) -> Photos:
        numbers = None
        if self.numbers is not None:
            first, step = self.numbers
            numbers = range(first, first + step * self.length, step)
        return Photos(frames, self.name, self.kind, self.slots, self.length, numbers, self.fps, self.notices)


# ---- what the worker asks for ----------------------------------------------------------------------------------------


class Decoder:
    """Has files decoded, one child after another; a file and what comes of it lie in one folder.

    All raise InputError with one sentence about the file by its name there, StorageError, and Cancelled within about
    0.2 seconds of `should_stop`.
    """

    def __init__(self, should_stop: ShouldStop, limits: Limits = LIMITS):
        self._should_stop, self._limits = should_stop, limits

    def photo(self, source: Path, target: Path) -> tuple[str, ...]:
        """Writes the photo as PNG; returns sentences for the user."""
        return self._ask(source, target, do="photo")

    def sound(self, source: Path, target: Path, motion: Decoded, options: AnimateOptions) -> tuple[str, ...]:
        """Writes the sound of a motion's file, where there is one; returns sentences for the user."""
        return self._ask(source, target, do="sound", options=options, num_frames=motion.num_frames, fps=motion.fps)

    def motion(
        self, source: Path, target: Path, options: AnimateOptions, estimate: Estimate | None
    ) -> Decoded | Reading:
        """Writes the motion as npz; one that was estimated is returned instead, and nothing is written or tried.

        The estimator works in this process, on frames that the child sends as it decodes them.
        """
        return self._poses(source, target, estimate, do="motion", options=options)

    def map(self, source: Path, target: Path, estimate: Estimate | None, num_photos: int = 1) -> Decoded | Reading:
        """As `motion`, of the first map alone, or of one for each photo where the file holds as many."""
        found = self._poses(source, target, estimate, do="map", num_photos=num_photos)
        return own_maps(found, num_photos) if isinstance(found, Reading) else found

    @contextmanager
    def _child(self, source: Path, target: Path, **asked) -> Iterator[Child]:
        request = Request(source=source.name, target=target.name, **asked)
        try:
            with Child(
                PROGRAM, request.model_dump(mode="json"), source.parent, source.name, self._limits, self._should_stop
            ) as child:
                yield child
        finally:
            remove_unfinished(target)  # of a child that was killed

    def _ask(self, source: Path, target: Path, **asked) -> tuple[str, ...]:
        with self._child(source, target, **asked) as child:
            match child.message():
                case {"notices": [*notices]} if all(isinstance(notice, str) for notice in notices):
                    return tuple(notices)
            raise child.broken("no notices")

    def _poses(self, source: Path, target: Path, estimate: Estimate | None, **asked) -> Decoded | Reading:
        with self._child(source, target, estimate=estimate is not None, **asked) as child:
            try:
                match child.message():
                    case {"decoded": decoded}:
                        return Decoded.model_validate(decoded)
                    case {"photos": facts} if estimate is not None:
                        photos = Facts.model_validate(facts).photos(_frames(child))
                        return photos.reading(estimate(photos))
            except ValidationError as error:
                raise child.broken(f"an answer of another form: {error}") from error
            raise child.broken("no answer to what was asked")


def _frames(child: Child) -> Iterator[np.ndarray]:
    """The frames as they come, uint8 (H, W, 3)."""
    size = None
    for _ in range(MAX_FRAMES_READ + 1):
        match child.message():
            case {"frame": [int(height), int(width)]} if 0 < min(height, width) <= max(height, width) <= MAX_MAP_SIDE:
                size = size or (height, width)
                if size != (height, width):
                    break
                yield np.frombuffer(child.take(height * width * 3), np.uint8).reshape(height, width, 3)
            case {"end": True}:
                return
            case _:
                break
    raise child.broken("something else than frames")


# ---- what the child does ---------------------------------------------------------------------------------------------


class _Sent(Exception):
    """The frames went to the estimator; what remains is not the child's to do."""


def answer(asked: dict, channel: Channel) -> None:
    """Does what a `Request` asks for, in the current folder, and says what came of it."""
    request = Request.model_validate(asked)
    source, target = Path(request.source), Path(request.target)
    if request.do == "photo":
        pixels, notices = read_photo(source)
        write_png(pixels, target)
        channel.say({"notices": notices})
    elif request.do == "sound":
        channel.say({"notices": keep_sound(source, request.num_frames, request.fps, request.options, target)})
    else:
        try:
            reading = read_any(source, (lambda photos: _send(photos, channel)) if request.estimate else None)
        except _Sent:
            return
        if request.do == "motion":
            check_options(reading.poses, request.options)
        else:
            reading = own_maps(reading, request.num_photos)
        write_poses(reading.poses, target)
        channel.say({"decoded": Decoded.of(reading).model_dump(mode="json")})


def _send(photos: Photos, channel: Channel) -> None:
    channel.say({"photos": Facts.of(photos).model_dump(mode="json")})
    for frame in photos:
        height, width, _ = frame.shape
        channel.say({"frame": [height, width]}, np.ascontiguousarray(frame).data)
    channel.say({"end": True})
    raise _Sent


if __name__ == "__main__":
    sys.exit(serve(answer))
