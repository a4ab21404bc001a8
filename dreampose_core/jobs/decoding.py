"""Decode uploaded files, each in its own child process, to canonical PNG, npz and m4a, and to frames for the estimator.

    python -m dreampose_core.jobs.decoding

is that child; `sandbox` describes what it may do and its protocol. It imports neither torch nor the packages that serve
the page.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ..files import remove_unfinished, storage_error
from ..inputs.framing import check_options, keep_sound
from ..media import read_photo, write_png
from ..poses import (
    MAX_FRAMES_READ,
    MAX_MAP_SIDE,
    Estimate,
    Frames,
    PoseSequence,
    Reading,
    image_poses_of,
    read_any,
    read_poses,
    write_poses,
)
from ..poses.npz import MAX_BYTES
from ..progress import ShouldStop
from ..settings import AnimateOptions, Options
from .sandbox import Limits, Say, broken, run, serve

# The largest motion that is read takes MAX_BYTES, in memory and on disk; ffmpeg's own limits (video.process) are lower.
LIMITS = Limits(memory=MAX_BYTES + (2 << 30), file_bytes=MAX_BYTES + (1 << 26), open_files=64, wait_s=600.0)
PROGRAM = ("-m", "dreampose_core.jobs.decoding")


class Facts(Options):
    """`Frames` without the pictures, as the child sends it. size: (height, width) of the pictures."""

    size: tuple[Annotated[int, Field(ge=1, le=MAX_MAP_SIDE)], Annotated[int, Field(ge=1, le=MAX_MAP_SIDE)]]
    name: str
    kind: Literal["video", "pictures"]
    slots: tuple[int, ...] = Field(min_length=1, max_length=MAX_FRAMES_READ)
    numbers: tuple[int, ...] = Field(max_length=MAX_FRAMES_READ)
    fps: float | None
    notices: tuple[str, ...]

    @model_validator(mode="after")
    def _places_are_there(self) -> Facts:
        if list(self.slots) != sorted({*self.slots} & {*range(len(self.numbers))}):
            raise ValueError("the places of the frames must rise and lie within their numbers")
        return self


# ---- the worker's half -----------------------------------------------------------------------------------------------


class Decoder:
    """Decoder of uploaded files, one child process after another; `source` and `target` must be in the same folder.

    All methods raise InputError with one sentence that names the file as it is named there, StorageError, and Cancelled
    within about 0.2 seconds of `should_stop`.
    """

    def __init__(self, should_stop: ShouldStop, limits: Limits = LIMITS):
        self._should_stop, self._limits = should_stop, limits

    def photo(self, source: Path, target: Path) -> tuple[str, ...]:
        """Write the photo as PNG and return notices."""
        return self._ask(source, target, do="photo")

    def sound(self, source: Path, target: Path, poses: PoseSequence, options: AnimateOptions) -> tuple[str, ...]:
        """Write the sound of the file that `poses` were read from, if it has any, and return notices."""
        return self._ask(source, target, do="sound", options=options, num_frames=len(poses), fps=poses.fps)

    def motion(self, source: Path, target: Path, options: AnimateOptions, estimate: Estimate | None) -> Reading:
        """Write the motion as npz, unless it was estimated, and return its reading.

        `estimate` runs in this process, on frames that the child has decoded; None: they are refused.
        """
        return self._poses(source, target, estimate, do="motion", options=options)

    def map(self, source: Path, target: Path, estimate: Estimate | None, num_photos: int = 1) -> Reading:
        """Do as `motion` for the first map alone, or for one map a photo if the file holds as many."""
        return image_poses_of(self._poses(source, target, estimate, do="map", num_photos=num_photos), num_photos)

    def _answer(self, source: Path, target: Path, options: AnimateOptions | None = None, **asked) -> dict:
        asked |= {"source": source.name, "target": target.name, "options": options and options.model_dump(mode="json")}
        try:
            return run(PROGRAM, asked, source.parent, source.name, self._limits, self._should_stop)
        finally:
            remove_unfinished(target.parent)  # left by a child that was killed

    def _ask(self, source: Path, target: Path, **asked) -> tuple[str, ...]:
        return _notices(source, self._answer(source, target, **asked))

    def _poses(self, source: Path, target: Path, estimate: Estimate | None, **asked) -> Reading:
        pictures = _pictures(source)
        try:
            answer = self._answer(source, target, estimate=estimate is not None, **asked)
            if estimate is None or "frames" not in answer:
                return Reading(read_poses(target), str(answer.get("form")), _notices(source, answer))
            try:
                facts = Facts.model_validate(answer["frames"])
                pixels = np.memmap(pictures, np.uint8, "c").reshape(-1, *facts.size, 3)
            except (ValueError, OSError) as error:
                raise broken(source.name, f"an answer of another form: {error}") from error
            frames = Frames(pixels, **facts.model_dump(exclude={"size"}))
            return frames.estimated(estimate(frames))
        finally:
            pictures.unlink(missing_ok=True)


def _pictures(source: Path) -> Path:
    """Return the file of the decoded frames of `source`; it goes with the uploads if the worker dies."""
    return source.with_name(f"{source.name}.frames")


def _notices(source: Path, answer: dict) -> tuple[str, ...]:
    match answer:
        case {"notices": [*notices]} if all(isinstance(notice, str) for notice in notices):
            return tuple(notices)
    raise broken(source.name, "no notices")


# ---- the child's half ------------------------------------------------------------------------------------------------


def answer(asked: dict, say: Say) -> None:
    """Decode what a `Decoder` asks for in the current folder and answer with `say`."""
    source, target = Path(asked["source"]), Path(asked["target"])
    options = AnimateOptions(**asked["options"] or {})
    if asked["do"] == "photo":
        pixels, notices, times = read_photo(source)
        write_png(pixels, target, times)
        say({"notices": notices})
    elif asked["do"] == "sound":
        say({"notices": keep_sound(source, asked["num_frames"], asked["fps"], options, target)})
    else:
        reading = read_any(source, partial(_hand_over, source, say) if asked["estimate"] else None)
        if asked["do"] == "motion":
            check_options(reading.poses, options)
        else:
            reading = image_poses_of(reading, asked["num_photos"])
        write_poses(reading.poses, target)
        say({"form": reading.form, "notices": reading.notices})


def _hand_over(source: Path, say: Say, frames: Frames) -> None:
    """Write frames for the estimator, which leaves this process nothing more to do, and end it."""
    try:
        with open(_pictures(source), "wb") as file:
            for frame in frames:
                file.write(np.ascontiguousarray(frame).data)
    except OSError as error:
        raise storage_error(error, source) from error
    facts = {name: getattr(frames, name) for name in Facts.model_fields if name != "size"}
    say({"frames": facts | {"numbers": tuple(frames.numbers), "size": frame.shape[:2]}})
    sys.exit()


if __name__ == "__main__":
    sys.exit(serve(answer))
