"""What a job is made of: the typed request, the row it becomes, what a worker is given, what watchers read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

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


class JobRequest(Options):
    """One job: the uploaded files as they came (server-made paths), and the options.

    kind: "animate" makes the video; "preview" shows in seconds, in the light queue alone, what the motion does to the
    photo; "motion" has a mannequin do what `motion` says, in the light queue, too, and needs no file.
    image: the photo. poses: the motion. image_poses: the photo's own DensePose, None when unknown. A preview may do
    without the photo, or without the motion: then it shows how the photo is understood. more_images: further photos of
    the same person, for the learning alone; where the file `image_poses` holds as many maps as there are photos these
    are theirs, in the same order. consent: asked for at the doors, see `web.consent`.
    """

    kind: Kind = "animate"
    image: Path | None = None
    poses: Path | None = None
    image_poses: Path | None = None
    more_images: tuple[Path, ...] = Field((), max_length=MAX_MORE_PHOTOS)
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


class Upload(Options):
    """A user's file inside a job's folder: `file` is our name for it under input/, `name` is what the user calls it."""

    file: str = Field(pattern=r"^upload-[a-z0-9_]+(\.[a-z0-9]{1,5})?$")
    name: str


class StoredRequest(Options):
    """A request as it lies in the store and in request.json: no path of the outside world is left in it."""

    kind: Kind = "animate"
    image: Upload | None
    poses: Upload | None
    image_poses: Upload | None = None
    # left out where there are none, as in what was stored before there could be any
    more_images: tuple[Upload, ...] = Field((), exclude_if=lambda uploads: not uploads)
    options: AnimateOptions
    motion: MotionOptions | None = None
    consent: Consent | None = Field(None, exclude_if=lambda consent: consent is None)


THINGS = {
    "video": ".mp4",
    "side_by_side": ".mp4",
    "gif": ".gif",
    "frames": ".zip",
    "settings": ".json",
    "motion": ".npz",
}
"""What of a job can be kept, by name, and how its file's name ends."""


@dataclass(frozen=True)
class JobFolder:
    """The places inside one job's folder; the only spot where their names are written down."""

    path: Path

    @property
    def request(self) -> Path:
        return self.path / "request.json"

    @property
    def input(self) -> Path:
        return self.path / "input"

    def delete_uploads(self) -> None:
        """Removes the files as they came, which nobody needs once they are decoded or the job has ended."""
        for upload in self.input.glob("upload-*"):
            upload.unlink(missing_ok=True)

    @property
    def image(self) -> Path:
        """The photo, decoded and written anew as PNG."""
        return self.input / "image.png"

    @property
    def poses(self) -> Path:
        return self.input / "poses.npz"

    @property
    def image_poses(self) -> Path:
        """The photo's own DensePose; the file is absent when it is unknown. One map, or one for each of several
        photos."""
        return self.input / "image_poses.npz"

    def more_image(self, index: int) -> Path:
        """Further photo `index`, counted from 0, as PNG."""
        return self.input / f"more_{index}.png"

    def more_poses(self, index: int) -> Path:
        """Its own DensePose; the file is absent when it is unknown, not needed, or given with the first one's."""
        return self.input / f"more_{index}_poses.npz"

    @property
    def sound(self) -> Path:
        """The motion clip's sound; the file is absent when there is none or it is not wanted."""
        return self.input / "sound.m4a"

    @property
    def frames(self) -> Path:
        return self.path / "frames"

    @property
    def chunks(self) -> Path:
        return self.path / "chunks"

    @property
    def latent_preview(self) -> Path:
        """What the first frame is about to be; the file is there while the first frames are denoised."""
        return self.path / "latent_preview.png"

    @property
    def samples(self) -> Path:
        """What the model made of the person while it learned them: 000017.png after 17 steps; absent where nobody was
        learned."""
        return self.path / "samples"

    @property
    def result(self) -> Path:
        return self.path / "result.mp4"

    @property
    def partial(self) -> Path:
        """What was made of the video of a job that was stopped, in whole chunks."""
        return self.path / "partial.mp4"

    @property
    def settings(self) -> Path:
        """What the run was asked for, and what it used and took."""
        return self.path / "result.json"

    def thing(self, name: str) -> Path | None:
        """One of THINGS, or of the pictures "photo", "first" (of the video), "look" (of a preview) and "sample_000017"
        (after 17 steps); None where there is none. "frames" is a folder."""
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
        if sample := re.fullmatch(r"sample_(\d{6})", name, re.ASCII):
            places[name] = (self.samples / f"{sample[1]}.png",)
        return next((path for path in places.get(name, ()) if path.exists()), None)

    @property
    def motion(self) -> Path:
        """The maps of a motion that was made."""
        return self.path / "motion.npz"

    @property
    def look(self) -> Path:
        """A preview's picture of how the photo is understood."""
        return self.path / "look.png"


@dataclass(frozen=True)
class Limits:
    """How much may wait. waiting: jobs of one kind, of all owners. own: unfinished jobs of one kind of one owner.
    workers: how many share the work, by which the time until there is room is told."""

    waiting: int
    own: int = 1000
    workers: int = 1


@dataclass(frozen=True)
class Claim:
    """One worker's right to work on one job: valid until the job's fence has risen above `fence`."""

    id: str
    owner: str
    queue: Queue
    fence: int
    request: str
    losses: Losses


@dataclass(frozen=True)
class Job:
    """A row as readers see it. request: the JSON of a StoredRequest."""

    id: str
    queue: Queue
    state: State
    place: int
    progress: Progress | None
    losses: Losses
    notices: tuple[str, ...]
    error: str | None
    code: str | None
    request: str
    created: float
    name: str | None


@dataclass(frozen=True)
class Work:
    """What a queue's handler is given: one job, where it lies, and how to report and to learn that it should stop."""

    job_id: str
    folder: JobFolder
    subjects: Path
    request: StoredRequest
    on_progress: OnProgress
    should_stop: ShouldStop


@dataclass(frozen=True)
class Timing:
    """What is known of a recipe and a quality, None where nothing is: seconds to learn a person, seconds a frame; the
    most memory in MB, of the GPU where there is one; what the model runs on."""

    learning_s: float | None
    frame_s: float | None
    memory_mb: float | None
    device: str | None


@dataclass(frozen=True)
class SubjectEntry:
    """A tuned subject as its owner sees it.

    recipe, seed: that it was tuned with. photo, poses, more: of the person, as it was tuned to, with the maps of all
    photos in one file and the further photos; with these it is found again. used: seconds since 1970. whose: names it
    in a link to the photo.
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
class JobStatus:
    """A job as its owner sees it.

    place: 1 for the next job to run on the device, 0 once it has started.
    losses: the tuning loss so far, one value a step (thinned to a few hundred points). samples: small PNGs of what the
    model made of the person while it learned them, in order; each is called by the number of steps before it.
    chunks: finished video chunks in playing order. frames: finished frames. result: the MP4 once state is "done".
    look: a preview's picture of the photo alone, once state is "done". motion: the npz of a motion that was made,
    likewise. name: what its owner calls it. things: those of THINGS that there are, once it is final. latent_preview: a
    PNG of what the first frame is about to be, while that is denoised.
    notices: sentences about fall-backs taken. error: one sentence when state is "failed", or why it is "interrupted".
    code: why it failed, for programs: "input" (what was given), "crash_loop" (it ended its worker again and again),
    "internal".
    request: the options, and where the decoded inputs lie (from the moment the upload has been checked).
    """

    id: str
    state: State
    place: int
    progress: Progress | None
    created: float
    kind: Kind = "animate"
    losses: tuple[float, ...] = ()
    samples: tuple[Path, ...] = ()
    chunks: tuple[Path, ...] = ()
    frames: tuple[Path, ...] = ()
    result: Path | None = None
    look: Path | None = None
    motion: Path | None = None
    name: str | None = None
    things: tuple[str, ...] = ()
    latent_preview: bytes | None = None
    error: str | None = None
    code: str | None = None
    notices: tuple[str, ...] = field(default=())
    request: JobRequest | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES
