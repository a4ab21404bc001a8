"""What the HTTP API and the Gradio endpoints share: the fields that programs send, the request these make, and what is
answered."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import DiskFull, DreamPoseError, InputError, shown
from ..jobs.records import MAX_MORE_PHOTOS, JobRequest, JobStatus, Kind
from ..jobs.service import JobService
from ..settings import AnimateOptions
from .api_records import JobLinks, JobView, Sample, Step
from .consent import consent_to
from .examples import Motion, Person, example_motions, example_people
from .forms import Form
from .links import ResultLinks

log = logging.getLogger("dreampose.api")

FILES = {
    "photo": "The photo: PNG, JPEG or WebP.",
    "motion": "The motion: a video of one person, or DensePose in any form that the page takes.",
    "photo_poses": "The photo's own DensePose, if it is known; with more_photos, a file "
    "of as many maps as photos is of them all.",
    "more_photos": f"Up to {MAX_MORE_PHOTOS} further photos of the same person, for the learning alone; a preview "
    "leaves them aside.",
}
TEXTS = {
    "person_name": "An example person instead of a photo; list_people names them.",
    "motion_name": "A shipped motion instead of a motion of your own; list_motions names them.",
    "consent": "true: the person in the photo agreed to this, or is not real. Needed to move a photo of your own.",
}
BROKEN = "Something went wrong on the server; please tell the operator when it happened."
MAX_SENTENCE = 500  # characters


@dataclass(frozen=True)
class Desk:
    """Takes what programs submit and says how their jobs stand. people, motions: the shipped ones, by name."""

    service: JobService
    links: ResultLinks
    people: dict[str, Person]
    motions: dict[str, Motion]

    @classmethod
    def with_examples(cls, service: JobService, links: ResultLinks, examples: Path) -> Desk:
        """With the people and motions of the folder `examples`."""
        people, motions = example_people(examples), example_motions(examples)
        return cls(
            service, links, {person.name: person for person in people}, {motion.name: motion for motion in motions}
        )

    def request(self, kind: Kind, form: Form, options: AnimateOptions) -> JobRequest:
        """A video ("animate") or a preview as a typed request. form: of FILES and TEXTS.

        Raises InputError: something is missing, given twice, there is no example of that name, or nobody said that the
        person agreed.
        """
        person, motion = self._example(form, "photo", "person_name"), self._example(form, "motion", "motion_name")
        image, poses = form.file("photo") or (person and person.image), form.file("motion") or (motion and motion.poses)
        if kind == "animate" and not (image and poses):
            raise InputError("A video needs a photo or a person_name, and a motion or a motion_name.")
        if not (image or poses):
            raise InputError("A preview needs a photo, a person_name, a motion or a motion_name.")
        image_poses = form.file("photo_poses") or (person and person.poses)
        more = tuple(form.files.get("more_photos", ())) if kind == "animate" else ()
        moved = image and poses  # a photo that is only looked at needs no consent
        agreed = form.texts.get("consent", "").strip().lower() == "true"
        consent = consent_to((image, *more), list(self.people.values()), agreed) if moved else None
        return JobRequest(
            kind=kind,
            image=image,
            poses=poses,
            image_poses=image_poses,
            more_images=more,
            options=options,
            consent=consent,
        )

    def _example(self, form: Form, file: str, field: str) -> Person | Motion | None:
        """The example that the field names; None where it is empty."""
        shipped = {"person_name": self.people, "motion_name": self.motions}[field]
        if not (name := form.texts.get(field)):
            return None
        if form.file(file):
            raise InputError(f"Both {file} and {field} are given; give one of them.")
        if name not in shipped:
            raise InputError(f"{field} is {shown(name)!r}; these are shipped: {', '.join(shipped)}.")
        return shipped[name]

    def _sample(self, job_id: str, path: Path, page: str) -> Sample:
        return Sample(
            step=int(path.stem), picture=f"{page}/{self.links.make(job_id, path.name, f'sample_{path.stem}')}"
        )

    def record(self, status: JobStatus, page: str, api: str) -> JobView:
        """The job for whoever owns it. page, api: where the page and the HTTP API are, as its links begin."""
        result = f"{page}/{self.links.make(status.id, f'{status.id}.mp4')}" if status.result else None
        step = status.progress
        return JobView(
            id=status.id,
            state=status.state,
            kind=status.kind,
            created=datetime.fromtimestamp(status.created, UTC),
            place=status.place,
            progress=step and Step(stage=step.stage, step=step.step, total=step.total, seconds_left=step.seconds_left),
            error=status.error,
            code=status.code,
            notices=list(status.notices),
            num_frames=len(status.frames),
            samples=[self._sample(status.id, path, page) for path in status.samples],
            options=status.request and status.request.options,
            links=JobLinks(status=f"{api}/jobs/{status.id}", cancel=f"{api}/jobs/{status.id}/cancel", result=result),
        )


def no_result(status: JobStatus) -> str:
    """Why there is none, in a sentence."""
    if status.state == "failed":
        return f"This job failed and has no result: {status.error}"
    if status.state == "cancelled":
        return "This job was stopped and has no result."
    return "This job is not done yet; ask again when its state is 'done'."


def refusal(error: DreamPoseError) -> str:
    """What whoever asked is told of an error, in one line; where it may name folders of the server, that goes into the
    log instead."""
    if isinstance(error, InputError | DiskFull):
        return one_line(str(error))
    log.error("%s", error)
    return "The server cannot store anything at the moment; please try again in a few minutes."


def one_line(sentence: str) -> str:
    """The sentence in printable characters, not too many, whatever the request's own that it repeats."""
    sentence = "".join(c if c.isprintable() else "?" for c in sentence)
    return sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[: MAX_SENTENCE - 3]}..."
