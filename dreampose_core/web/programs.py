"""The parts that the HTTP API, the Gradio endpoints and the page share: the job request made from a form, and the
answers, whose classes are the schemas of the OpenAPI document."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field

from ..errors import DiskFull, DreamPoseError, InputError, shown
from ..jobs.records import MAX_MORE_PHOTOS, THINGS, JobRequest, JobStatus, Kind, State, SubjectEntry
from ..settings import AnimateOptions, Recipe
from .examples import MOTIONS, PEOPLE, is_example, poses_of
from .forms import Form
from .links import ResultLinks

log = logging.getLogger("dreampose.api")

BROKEN = "Something went wrong on the server; please tell the operator when it happened."
MAX_SENTENCE = 500  # characters


def request_from(kind: Kind, form: Form) -> JobRequest:
    """Return the request for a video ("animate") or a preview.

    Raises InputError if something is missing or given twice, if no example has the given name, or if consent is needed
    and missing.
    """
    image, poses = _chosen(form, "photo", "person_name", PEOPLE), _chosen(form, "motion", "motion_name", MOTIONS)
    if kind == "animate" and not (image and poses):
        raise InputError("A video needs a photo or a person_name, and a motion or a motion_name.")
    if not (image or poses):
        raise InputError("A preview needs a photo, a person_name, a motion or a motion_name.")
    if len(form.more_photos) > MAX_MORE_PHOTOS:
        raise InputError(f"{len(form.more_photos)} more photos are given; at most {MAX_MORE_PHOTOS} are accepted.")
    more, consent = tuple(form.more_photos) if kind == "animate" else (), None
    if image and poses:  # a preview of the photo alone, which is not moved, needs no consent
        consent = "drawn" if all(map(is_example, (image, *more))) else "given"
        if consent == "given" and not form.consent:
            raise InputError(
                "Say first that the person in the photo agreed: tick the box above the button, or send consent=true."
            )
    return JobRequest(
        kind=kind,
        image=image,
        poses=poses,
        image_poses=form.photo_poses or (poses_of(image) if image and is_example(image) else None),
        more_images=more,
        options=form.options,
        consent=consent,
    )


def _chosen(form: Form, file: str, field: str, examples: dict[str, Path]) -> Path | None:
    """Return the form's file, or the example that the field names; None if neither is given. Raises InputError."""
    sent, name = getattr(form, file), getattr(form, field)
    if not name:
        return sent
    if sent:
        raise InputError(f"Both {file} and {field} are given; give one of them.")
    if name not in examples:
        raise InputError(f"{field} is {shown(name)!r}; these are shipped: {', '.join(examples)}.")
    return examples[name]


class JobLinks(BaseModel):
    """Addresses of one job, on this server."""

    status: str
    cancel: str
    result: str | None = Field(
        description="The finished MP4, for ten minutes and without a token; null while there is none."
    )


class Step(BaseModel):
    """How far the present stage of a job is."""

    stage: str = Field(description="For example 'tuning', 'frames' or 'video'.")
    step: int = Field(description="Steps finished.")
    total: int = Field(description="Steps in all.")
    seconds_left: float | None = Field(description="An estimate for this stage; null while unknown.")


class JobView(BaseModel):
    """How a job stands. Every link works for ten minutes, for anyone who has it."""

    id: str
    state: State
    links: JobLinks
    kind: Kind
    name: str | None = Field(description="What its owner calls it.")
    title: str = Field(description="The names of its photo and motion, for example 'bela-dance'.")
    megabytes: float | None = Field(description="Size of the MP4.")
    created: datetime = Field(description="When it was submitted, UTC.")
    place: int = Field(description="In the queue: 1 is the next; 0 once it has started.")
    progress: Step | None
    error: str | None = Field(description="One sentence when the state is 'failed', or why it is 'interrupted'.")
    code: str | None = Field(description="Why it failed: 'input' (what was given), 'crash_loop' or 'internal'.")
    notices: list[str] = Field(description="Sentences about what was done otherwise than asked for.")
    num_frames: int = Field(description="Frames finished.")
    losses: list[float] = Field(description="The training loss so far, one value a step, thinned.")
    chunks: list[str] = Field(description="Links to the finished seconds of video (fragmented MP4), in order.")
    picture: str | None = Field(description="A PNG: the first frame, the photo, or what was found in the photo.")
    things: dict[str, str] = Field(description="Links to what can be kept, by name: video, gif, side_by_side, ...")
    options: AnimateOptions | None


class SubjectView(BaseModel):
    """A person that the model was fine-tuned to."""

    key: str
    recipe: Recipe
    used: datetime = Field(description="When a video of them was last made, UTC.")
    megabytes: float
    picture: str = Field(description="Link to the photo.")
    weights: str = Field(description="Link to the subject folder as a zip.")


def subject_view(subject: SubjectEntry, links: ResultLinks, page: str) -> SubjectView:
    """Return the owner's view of a subject. page: the address of the page, with which links begin."""
    made = {
        "megabytes": round(subject.size_mb, 1),
        "picture": f"{page}/{links.make(subject.whose, 'person.png', 'person')}",
        "weights": f"{page}/{links.make(subject.whose, 'person.zip', 'subject')}",
    }
    return SubjectView.model_validate(vars(subject) | made)


def job_view(status: JobStatus, links: ResultLinks, page: str) -> JobView:
    """Return the owner's view of a job. page: the address of the page, with which links begin."""

    def link(thing: str, name: str) -> str:
        return f"{page}/{links.make(status.id, name, thing)}"

    asked, address = status.request, f"{page}/api/v1/jobs/{status.id}"
    photo = asked is not None and asked.image is not None and asked.image.is_file()
    picture = "look" if status.look else "first" if status.frames else "photo" if photo else None
    endings = {thing: "" if thing == "video" else f"-{thing}" for thing in status.things}
    made = {
        "num_frames": len(status.frames),
        "chunks": [link(f"chunk_{path.stem}", path.name) for path in status.chunks],
        "picture": picture and link(picture, f"{picture}.png"),
        "things": {thing: link(thing, f"{status.title}{end}{THINGS[thing]}") for thing, end in endings.items()},
        "options": asked and asked.options,
        "links": {
            "status": address,
            "cancel": f"{address}/cancel",
            "result": link("video", f"{status.id}.mp4") if status.result else None,
        },
    }
    return JobView.model_validate(vars(status) | made, from_attributes=True)


def no_result(status: JobStatus) -> str:
    """Return a sentence about why the job has no result."""
    if status.state == "failed":
        return f"This job failed and has no result: {status.error}"
    if status.state == "cancelled":
        return "This job was stopped and has no result."
    return "This job is not done yet; ask again when its state is 'done'."


def refusal(error: DreamPoseError) -> str:
    """Return one line about an error for the client; an error that may name folders of the server is only logged, and
    the line is a general one."""
    if isinstance(error, InputError | DiskFull):
        return one_line(str(error))
    log.error("%s", error)
    return "The server cannot store anything at the moment; please try again in a few minutes."


def one_line(sentence: str) -> str:
    """Return the sentence in printable characters, at most MAX_SENTENCE, whatever text of the request it quotes."""
    sentence = "".join(c if c.isprintable() else "?" for c in sentence)
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[: MAX_SENTENCE - 3]}..."
