"""The parts that the HTTP API and the Gradio endpoints share: the fields that programs send, the job request made from
them, and the answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiskFull, DreamPoseError, InputError, shown
from ..jobs.records import MAX_MORE_PHOTOS, THINGS, JobRequest, JobStatus, Kind, SubjectEntry
from ..jobs.service import JobService
from ..settings import AnimateOptions
from .api_records import JobView, SubjectView
from .examples import Person, example_motions, example_people
from .forms import Form
from .links import ResultLinks
from .owners import consent_to

log = logging.getLogger("dreampose.api")

FILES = {
    "photo": "The photo: PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP or GIF.",
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
    """Maker of job requests from forms and of answers about jobs. people, motions: shipped, by name."""

    service: JobService
    links: ResultLinks
    people: dict[str, Person]
    motions: dict[str, Path]

    @classmethod
    def with_examples(cls, service: JobService, links: ResultLinks, examples: Path) -> Desk:
        """Make a desk with the people and motions of the folder `examples`."""
        return cls(service, links, example_people(examples), example_motions(examples))

    def request(self, kind: Kind, form: Form, options: AnimateOptions) -> JobRequest:
        """Return the request for a video ("animate") or a preview. form: has fields from FILES and TEXTS.

        Raises InputError if something is missing or given twice, if no example has the given name, or if consent is
        needed and missing.
        """
        person, motion = self._example(form, "photo", "person_name"), self._example(form, "motion", "motion_name")
        image, poses = form.file("photo") or (person and person.image), form.file("motion") or motion
        if kind == "animate" and not (image and poses):
            raise InputError("A video needs a photo or a person_name, and a motion or a motion_name.")
        if not (image or poses):
            raise InputError("A preview needs a photo, a person_name, a motion or a motion_name.")
        image_poses = form.file("photo_poses") or (person and person.poses)
        more = tuple(form.files.get("more_photos", ())) if kind == "animate" else ()
        if len(more) > MAX_MORE_PHOTOS:
            raise InputError(f"{len(more)} more photos are given; at most {MAX_MORE_PHOTOS} are accepted.")
        moved = image and poses  # a preview of the photo alone needs no consent
        agreed = form.texts.get("consent", "").strip().lower() == "true"
        consent = consent_to((image, *more), self.people.values(), agreed) if moved else None
        return JobRequest(
            kind=kind,
            image=image,
            poses=poses,
            image_poses=image_poses,
            more_images=more,
            options=options,
            consent=consent,
        )

    def _example(self, form: Form, file: str, field: str) -> Person | Path | None:
        """Return the example that the field names, None if the field is empty. Raises InputError."""
        shipped = {"person_name": self.people, "motion_name": self.motions}[field]
        if not (name := form.texts.get(field)):
            return None
        if form.file(file):
            raise InputError(f"Both {file} and {field} are given; give one of them.")
        if name not in shipped:
            raise InputError(f"{field} is {shown(name)!r}; these are shipped: {', '.join(shipped)}.")
        return shipped[name]

    def person(self, subject: SubjectEntry, page: str) -> SubjectView:
        """Return the owner's view of a subject. page: the address of the page, with which its links begin."""
        made = {
            "megabytes": round(subject.size_mb, 1),
            "picture": f"{page}/{self.links.make(subject.whose, 'person.png', 'person')}",
            "weights": f"{page}/{self.links.make(subject.whose, 'person.zip', 'subject')}",
        }
        return SubjectView.model_validate(vars(subject) | made)

    def record(self, status: JobStatus, page: str, api: str) -> JobView:
        """Return the owner's view of a job. page, api: the addresses of the page and the HTTP API, with which its links
        begin."""

        def link(thing: str, name: str) -> str:
            return f"{page}/{self.links.make(status.id, name, thing)}"

        asked, address = status.request, f"{api}/jobs/{status.id}"
        photo = asked is not None and asked.image is not None and asked.image.is_file()
        picture = "look" if status.look else "first" if status.frames else "photo" if photo else None
        endings = {thing: "" if thing == "video" else f"-{thing}" for thing in status.things}
        made = {
            "num_frames": len(status.frames),
            "samples": [
                {"step": int(path.stem), "picture": link(f"sample_{path.stem}", path.name)} for path in status.samples
            ],
            "chunks": [link(f"chunk_{path.stem}", path.name) for path in status.chunks],
            "latent_preview": None if status.latent_preview is None else link("latent_preview", "preview.png"),
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
