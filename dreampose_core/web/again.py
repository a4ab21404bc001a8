"""What a job or a person was made from, put back into the form."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from gradio.utils import get_upload_folder

from ..jobs.records import JobRequest, SubjectEntry
from ..settings import AnimateOptions, FrameOptions, Quality

SWITCHES = ("smooth", "fill_holes", "mirror", "reverse", "keep_sound")
_TEXTS = ("fps", "loops", "steps", "image_guidance", "pose_guidance")
_FRAME = FrameOptions().model_dump()


def form_of(request: JobRequest) -> dict[str, object]:
    """The form's fields by the names of `PageHandlers._request`, as they were for this job."""
    return {
        "photo": _uploaded(request.image, "photo.png"),
        "photo_poses": _uploaded(request.image_poses, "photo_poses.npz"),
        "more_photos": _more(request.more_images),
        **motion_of(request),
        "consent": request.consent is not None,
        **_fields(request.options),
    }


def motion_of(request: JobRequest) -> dict[str, object]:
    """The fields that take the job's motion, as it came; the rest of the form stays."""
    return {"motion": None, "motion_file": _uploaded(request.poses, "motion.npz")}


def person_of(subject: SubjectEntry) -> dict[str, object]:
    """The fields that find the subject again; the rest of the form stays."""
    return {
        "photo": _uploaded(subject.photo, "photo.png"),
        "photo_poses": _uploaded(subject.poses, "photo_poses.npz"),
        # the photos are in the model's shape already: to pad them leaves them as they are, another crop would be
        # another person
        "more_photos": _more(subject.more),
        "consent": True,
        **_FRAME,
        "fit": "pad",
        "recipe": subject.recipe,
        "seed": subject.seed,
    }


def _fields(options: AnimateOptions) -> dict[str, object]:
    plain, own = AnimateOptions(), options.model_dump()
    ends = ["" if end is None else str(end) for end in (options.first_frame, options.last_frame)]
    return {
        "frames": ":".join(ends) if any(ends) else "",
        "changes": [name for name in SWITCHES if own[name]],
        # empty texts take their defaults
        **{name: "" if own[name] == getattr(plain, name) else f"{own[name]:g}" for name in _TEXTS},
        **{name: own[name] for name in (*_FRAME, "align", "recipe", "quality", "seed")},
        "solver": options.solver or "",
        "speed": min(4, options.speed * options.stride),  # the page has no stride
    }


def _more(paths: Sequence[Path]) -> list[str] | None:
    return [_uploaded(path, f"photo_{number}.png") for number, path in enumerate(paths, start=2)] or None


def _uploaded(path: Path | None, name: str) -> str | None:
    """A copy among the uploads, as if the browser had sent it: the page takes files from nowhere else, and the original
    may go."""
    if path is None:
        return None
    copy = Path(get_upload_folder(), secrets.token_hex(16), name)
    copy.parent.mkdir(parents=True)
    shutil.copyfile(path, copy)
    return str(copy)


def better(request: JobRequest) -> JobRequest | None:
    """The same in the next quality; None where there is no better one."""
    qualities = get_args(Quality)
    at = qualities.index(request.options.quality) + 1
    if at == len(qualities):
        return None
    return request.model_copy(
        update={"options": request.options.model_copy(update={"quality": qualities[at], "steps": None})}
    )
