"""The page's form: a component for each option, and the way from the fields to a job request and back."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder, is_static_file

from ..errors import InputError
from ..jobs.records import JobRequest, Kind, SubjectEntry
from ..settings import AnimateOptions, FrameOptions, Options, frame_range, validated
from .forms import Form
from .programs import Desk

GIVEN = ("photo", "photo_poses", "more_photos", "motion", "motion_file", "consent", "frames", "person_at")
_NUMBERS = ("fps", "steps", "image_guidance", "pose_guidance")  # None by default
_WORDS = {  # of options and values whose name does not say enough
    "body": "Draw it on this body",
    "outline": "Fit the outline",
    "none": "None",
    "paper": "As in the paper",
    "close": "Close-fitting",
    "dpm++": "DPM++ 2M",
    "unipc": "UniPC",
    "ddim": "DDIM",
    "pndm": "PNDM",
    "fps": "FPS",
}


def words(name: str) -> str:
    """A name as people read it: "side_step" becomes "Side step"."""
    return _WORDS.get(name) or name.replace("_", " ").replace("-", " ").capitalize()


def option(options: type[Options], name: str, **given) -> gr.components.Component:
    """The component for an option, with its values, range, default and description; empty where the default is None.
    given: other arguments of the component."""
    schema = options.model_json_schema()["properties"][name]
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    kind, default = kinds[0], schema["default"]
    how = {"value": default, "label": words(name), "info": schema["description"], "min_width": 120} | given
    if "enum" in kind:
        choices = [(words(value), value) for value in kind["enum"]]
        if default is None:
            return gr.Dropdown([("Default", ""), *choices], **how | {"value": ""})
        return (gr.Radio if len(choices) < 5 else gr.Dropdown)(choices, **how)
    if kind["type"] == "boolean":
        return gr.Checkbox(**how)
    if default is None:
        return gr.Textbox(placeholder="default", **how | {"value": ""})
    low, high, whole = kind["minimum"], kind["maximum"], kind["type"] == "integer"
    if high > 1000:
        return gr.Number(minimum=low, maximum=high, precision=0, **how)
    return gr.Slider(low, high, step=1 if whole else 5 if high - low > 50 else 0.05, **how)


def uploaded(file: str | dict) -> Path:
    """The path of an uploaded file or an example; `file` as Gradio names it, or {"path": ...}.

    Raises InputError for any other path of the server, and for addresses.
    """
    path = file.get("path") if isinstance(file, dict) else file
    resolved = Path(path if isinstance(path, str) else "").resolve()
    if not (resolved.is_relative_to(Path(get_upload_folder()).resolve()) or is_static_file(str(resolved))):
        raise InputError("One of the files was not uploaded to this page; please choose it again.")
    return resolved


def request_of(desk: Desk, kind: Kind, fields: dict[str, object]) -> JobRequest:
    """The form's fields, those of GIVEN and the options by name, as a request; empty ones take their defaults. Raises
    InputError."""
    more = fields["more_photos"]
    files = {
        "photo": [fields["photo"]],
        "motion": [fields["motion_file"]],
        "photo_poses": [fields["photo_poses"] if fields["photo"] else None],
        "more_photos": more if isinstance(more, list) else [more],
    }
    form = Form({name: [uploaded(file) for file in given if file] for name, given in files.items()})
    if fields["motion"] and not fields["motion_file"]:
        form.texts["motion_name"] = str(fields["motion"])
    form.texts["consent"] = "true" if fields["consent"] is True else ""
    given = {name: value for name, value in fields.items() if name not in GIVEN and value not in (None, "")}
    given["first_frame"], given["last_frame"] = frame_range(_text(fields["frames"]), "Frames")
    if place := _text(fields["person_at"]):
        given["person_at"] = [part.strip() for part in place.split(",")]
    return desk.request(kind, form, validated(AnimateOptions, given))


def fields_of(request: JobRequest) -> dict[str, object]:
    """The form's fields as they were for a job."""
    own = request.options.model_dump()
    ends = ["" if end is None else str(end) for end in (own["first_frame"], own["last_frame"])]
    return own | {
        "photo": _copied(request.image, "photo.png"),
        "photo_poses": _copied(request.image_poses, "photo_poses.npz"),
        "more_photos": _copies(request.more_images),
        "motion": None,
        "motion_file": _copied(request.poses, "motion.npz"),
        "consent": request.consent is not None,
        "frames": ":".join(ends) if any(ends) else "",
        "person_at": "",  # its DensePose is known
        "speed": min(4, own["speed"] * own["stride"]),
        **{name: "" if own[name] is None else f"{own[name]:g}" for name in _NUMBERS},
        "solver": own["solver"] or "",
    }


def fields_of_person(subject: SubjectEntry) -> dict[str, object]:
    """The fields with which a saved person is found again; their photos are in the model's shape already, which "pad"
    leaves as it is."""
    return FrameOptions().model_dump() | {
        "photo": _copied(subject.photo, "photo.png"),
        "photo_poses": _copied(subject.poses, "photo_poses.npz"),
        "more_photos": _copies(subject.more),
        "consent": True,
        "fit": "pad",
        "person_at": "",
        "recipe": subject.recipe,
        "seed": subject.seed,
    }


def copied_motion(motion: Path, name: str) -> str:
    """A copy of a motion that was made here, among the uploads."""
    return _copied(motion, f"{name}.npz")


def _text(value: object) -> str | None:
    return value.strip() if isinstance(value, str) else None


def _copies(paths: Sequence[Path]) -> list[str] | None:
    return [_copied(path, f"photo_{number}.png") for number, path in enumerate(paths, start=2)] or None


def _copied(path: Path | None, name: str) -> str | None:
    """A copy among the uploads, as if the browser had sent it: the original may be deleted."""
    if path is None:
        return None
    copy = Path(get_upload_folder(), secrets.token_hex(16), name)
    copy.parent.mkdir(parents=True)
    shutil.copyfile(path, copy)
    return str(copy)
