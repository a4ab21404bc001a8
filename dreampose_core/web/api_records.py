"""The HTTP API's answers as types; these classes are the schemas of its OpenAPI document."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from ..jobs.records import Kind, State
from ..settings import AnimateOptions, Recipe


class Failure(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="One sentence: what is wrong, what is accepted, what to do.")


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


class Sample(BaseModel):
    """What the model made of the person so far."""

    step: int = Field(description="After so many steps of learning.")
    picture: str = Field(description="A small PNG, for ten minutes and without a token.")


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
    samples: list[Sample] = Field(
        description="Pictures from the learning, about five; none where the person had been learned before."
    )
    losses: list[float] = Field(description="The training loss so far, one value a step, thinned.")
    chunks: list[str] = Field(description="Links to the finished seconds of video (fragmented MP4), in order.")
    latent_preview: str | None = Field(description="A PNG of the first frame while it is denoised.")
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
