"""The parts of a job: its request, folder and row in the store, a worker's claim, and the status its owner sees."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ..files import appearing
from ..progress import OnProgress, Progress, ShouldStop
from ..settings import AnimateOptions, MotionOptions, Options

State = Literal["queued", "running", "cancelling", "interrupted", "done", "failed", "cancelled"]
FINAL_STATES: frozenset[str] = frozenset({"done", "failed", "cancelled"})
Queue = Literal["light", "device"]
QUEUES: tuple[Queue, ...] = ("light", "device")
Kind = Literal["animate", "preview", "motion"]
Consent = Literal["given", "drawn"]
"""Why a photo may be used: somebody said that the people in it agreed, or it is a shipped one of a person who was
drawn."""
Losses = tuple[tuple[int, float], ...]  # (step, loss) pairs in order of steps
MAX_MORE_PHOTOS = 4
# Stores of earlier versions have {"file": ..., "name": ...} for a file's name.
_File = Annotated[Path, BeforeValidator(lambda file: file["name"] if isinstance(file, dict) else file)]


class JobRequest(Options):
    """A request for one job: its files and options. The store has the files' names as their owner calls them.

    kind: "animate" makes the video; "preview" shows within seconds what the motion does to the photo; "motion" makes
    one as `motion` says and needs no file. The latter two run in the light queue alone.
    image: the photo. poses: the motion. image_poses: the photo's own pose map, None if unknown. A preview may lack the
    photo or the motion; without a motion it shows how the photo is understood. more_images: further photos of the same
    person, for fine-tuning alone; if the file `image_poses` holds as many maps as there are photos, they belong to the
    photos in the same order. consent: the page and the API ask for it, see `web.programs`.
    """

    kind: Kind = "animate"
    image: _File | None = None
    poses: _File | None = None
    image_poses: _File | None = None
    more_images: tuple[_File, ...] = Field((), max_length=MAX_MORE_PHOTOS)
    options: AnimateOptions = AnimateOptions()
    motion: MotionOptions | None = None
    consent: Consent | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> JobRequest:
        given = [self.image is not None, self.poses is not None]
        if self.kind == "motion":
            suits = self.motion is not None and not any((*given, self.image_poses is not None))
        else:
            suits = self.motion is None and (all(given) if self.kind == "animate" else any(given))
        if not suits:
            raise ValueError(
                "an animation needs a photo and a motion, a preview one of them, a motion to be made its options alone"
            )
        if self.more_images and self.kind != "animate":
            raise ValueError("further photos are for animations alone")
        return self

    def with_files(self, folder: JobFolder, place: Callable[[Path, Path], Path]) -> JobRequest:
        """Return a copy with `place(decoded, file)` for each file; `decoded`: its path in `folder` once it is
        decoded."""
        names = [name for name in ("image", "poses", "image_poses") if getattr(self, name)]
        files = {name: place(getattr(folder, name), getattr(self, name)) for name in names}
        more = tuple(place(folder.more_image(index), file) for index, file in enumerate(self.more_images))
        return self.model_copy(update=files | {"more_images": more})

    def decoded(self, folder: JobFolder) -> JobRequest:
        """Return a copy with the decoded files in `folder`, also with a map of the photo that was estimated."""
        own = folder.image_poses if folder.image_poses.exists() else None
        return self.with_files(folder, lambda decoded, _: decoded).model_copy(update={"image_poses": own})


THINGS = {
    "video": ".mp4",
    "side_by_side": ".mp4",
    "gif": ".gif",
    "frames": ".zip",
    "settings": ".json",
    "motion": ".npz",
}
"""What of a job can be kept, by name, and how its file's name ends."""


class JobFolder:
    """The paths inside one job's folder; their names are defined only here."""

    def __init__(self, path: Path):
        self.path = path
        self.input = path / "input"
        self.image = self.input / "image.png"  # the photo, decoded
        self.poses = self.input / "poses.npz"
        self.image_poses = self.input / "image_poses.npz"  # of the photo, or of all photos; absent when unknown
        self.sound = self.input / "sound.m4a"  # the motion clip's sound; absent if it has none or it is not wanted
        self.frames = path / "frames"
        self.chunks = path / "chunks"
        self.result = path / "result.mp4"
        self.partial = path / "partial.mp4"  # the frames that a stopped job had finished, as a video
        self.settings = path / "result.json"  # the options, what the run used, its time and memory
        self.motion = path / "motion.npz"  # the motion that a motion job made
        self.look = path / "look.png"  # a preview's picture of how the photo is understood

    def upload(self, decoded: Path, name: Path) -> Path:
        """Return the path of the file as it came that becomes `decoded`; of its owner's `name` only the suffix is
        used."""
        suffix = name.suffix.lower()
        return self.input / (f"upload-{decoded.stem}" + (suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""))

    def more_image(self, index: int) -> Path:
        """Return the path of further photo `index`, counted from 0, as PNG."""
        return self.input / f"more_{index}.png"

    def more_poses(self, index: int) -> Path:
        """Return the path of further photo `index`'s pose map; no file if unknown, not needed or in `image_poses`."""
        return self.input / f"more_{index}_poses.npz"

    def delete_uploads(self) -> None:
        """Delete the files as they came; they are of no use once they are decoded or the job has ended."""
        for upload in self.input.glob("upload-*"):
            upload.unlink(missing_ok=True)

    def thing(self, name: str) -> Path | None:
        """Return the path of a thing, or None if it does not exist. "frames" is a folder, all others are files.

        name: one of THINGS; or a picture: "photo", "first" (frame of the video), "look" (of a preview); or
        "chunk_000003".
        """
        places = {
            "video": (self.result, self.partial),
            "side_by_side": (self.path / "side_by_side.mp4",),
            "gif": (self.path / "result.gif",),
            "frames": (self.frames,),
            "settings": (self.settings,),
            "motion": (self.motion, self.poses),
            "photo": (self.image,),
            "first": (self.frames / "000000.png",),
            "look": (self.look,),
        }
        if chunk := re.fullmatch(r"chunk_(\d{6})", name, re.ASCII):
            places[name] = (self.chunks / f"{chunk[1]}.mp4",)
        return next((path for path in places.get(name, ()) if path.exists()), None)


@dataclass(frozen=True)
class Claim:
    """One worker's right to work on one job, valid until the job's fence rises above `fence`."""

    id: str
    owner: str
    fence: int
    request: str
    losses: Losses


@dataclass(frozen=True)
class Job:
    """A job's row as readers see it.

    place: 1 for the next job to run on the device, 0 once it has started. losses: the fine-tuning loss so far, one
    value a step. notices: sentences about what was done differently than asked. error: one sentence if state is
    "failed", or why it is "interrupted". code: why it failed, for programs: "input" (unusable input), "crash_loop" (it
    ended its worker repeatedly), "storage" (server trouble, such as a full disk), "internal". name: its owner's name
    for it. request: None if another version of the program wrote it.
    """

    id: str
    kind: Kind
    queue: Queue
    state: State
    place: int
    progress: Progress | None
    losses: tuple[float, ...]
    notices: tuple[str, ...]
    error: str | None
    code: str | None
    request: JobRequest | None
    created: float
    name: str | None

    @classmethod
    def of(cls, row: Mapping) -> Job:
        """Make a job of its row in the store."""
        try:
            request = JobRequest.model_validate_json(row["request"])
        except ValidationError:
            request = None
        parsed = {
            "progress": Progress(**json.loads(row["progress"])) if row["progress"] else None,
            "losses": tuple(loss for _, loss in json.loads(row["losses"])),
            "notices": tuple(json.loads(row["notices"])),
            "request": request,
        }
        return cls(**{field.name: parsed.get(field.name, row[field.name]) for field in fields(cls)})


@dataclass(frozen=True)
class Work:
    """The input of a queue's handler: the job, its folder, its owner's subjects, and two callbacks (progress, stop)."""

    folder: JobFolder
    subjects: Path
    request: JobRequest
    on_progress: OnProgress
    should_stop: ShouldStop

    @property
    def watch(self) -> dict[str, object]:
        """The callbacks as keyword arguments."""
        return {"on_progress": self.on_progress, "should_stop": self.should_stop}


class Timing(NamedTuple):
    """Seconds that fine-tuning with a recipe takes, and seconds a frame in a quality; None if unknown."""

    learning_s: float | None
    frame_s: float | None


class Timings:
    """Measurements of finished jobs on this machine, in a file of the data folder, to estimate the next job's time."""

    LAST = 5  # values in each median, so that one resumed or slowed job does not distort it

    def __init__(self, home: Path):
        self.path = home / "timings.json"

    def of(self, recipe: str, quality: str) -> Timing:
        """Return the medians measured for a recipe and a quality."""
        figures = self._read()
        names = f"learning {recipe}", f"frame {quality}"
        return Timing(*(median(figures[name]) if name in figures else None for name in names))

    def add(self, result: dict, device: str | None) -> None:
        """Add the measurements of a finished run from the content of its result.json. Raises StorageError.

        Measurements on another device or with another model are dropped first.
        """
        figures, where, options = self._read(), [result["model"], device], result["options"]
        if figures.get("where") != where:
            figures = {"where": where}
        measured = {f"learning {options['recipe']}": result["seconds"].get("tuning")}
        if options["steps"] is None:  # custom steps belong to no quality
            measured[f"frame {options['quality']}"] = result["seconds_per_frame"]
        for name, value in measured.items():
            if value is not None:
                figures[name] = [*figures.get(name, ()), value][-self.LAST :]
        with appearing(self.path) as temporary:
            temporary.write_text(json.dumps(figures, indent=1))

    def _read(self) -> dict:
        return json.loads(self.path.read_text()) if self.path.exists() else {}


@dataclass(frozen=True)
class SubjectEntry:
    """A tuned subject as its owner sees it.

    recipe, seed: of its fine-tuning. photo, poses, more: what it was tuned to, namely the first photo, the maps of all
    photos in one file, and the further photos; a job with the same ones finds it again. used: time of the last use,
    seconds since 1970. whose: names the subject in a link to its photo.
    """

    key: str
    whose: str
    recipe: str
    seed: int
    size_mb: float
    used: float
    photo: Path
    poses: Path | None
    more: tuple[Path, ...] = ()


@dataclass(frozen=True)
class JobStatus(Job):
    """A job as its owner sees it.

    title: names its files, for example "bela-dance". megabytes: size of its video, once the state is final.
    chunks: finished video chunks in playing order. frames: finished frames. result: the MP4 once state is "done".
    look: a preview's picture of the photo alone, once state is "done". motion: the npz of a motion job, once state is
    "done". things: the existing ones of THINGS, once the state is final.
    request: the options and the paths of the decoded inputs (which exist once the upload has been checked).
    """

    title: str
    megabytes: float | None
    chunks: tuple[Path, ...]
    frames: tuple[Path, ...]
    result: Path | None
    look: Path | None
    motion: Path | None
    things: tuple[str, ...]
