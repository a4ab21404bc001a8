"""The page's form: a component for each option, and the way from the fields to a job request and back."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder, is_static_file

from ..errors import InputError
from ..jobs.records import JobRequest, Kind, SubjectEntry
from ..settings import AnimateOptions, FrameOptions, Options, frame_range, validated
from .forms import Form
from .programs import request_from

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


def uploaded(file: object) -> Path:
    """The path of an uploaded file or an example, {"path": ...} as Gradio names it.

    Raises InputError for any other path of the server, and for addresses.
    """
    path = file.get("path") if isinstance(file, dict) else None
    resolved = Path(path if isinstance(path, str) else "").resolve()
    if not (resolved.is_relative_to(Path(get_upload_folder()).resolve()) or is_static_file(str(resolved))):
        raise InputError("A file was not uploaded here; please choose it again, or give it as handle_file(path).")
    return resolved


def request_of(kind: Kind, fields: dict[str, object]) -> JobRequest:
    """The form's fields by name as a request; empty ones take their defaults. Raises InputError."""
    photo, motion = fields["photo"], fields["motion_file"]
    files = {"photo": photo, "motion": motion, "photo_poses": photo and fields["photo_poses"]}
    form = {name: uploaded(file) for name, file in files.items() if file}
    form["more_photos"] = [uploaded(file) for file in fields["more_photos"] or ()]
    form["motion_name"] = "" if motion else fields["motion"] or ""
    form["consent"] = fields["consent"] is True
    frames, place = (str(fields[name] or "").strip() for name in ("frames", "person_at"))
    given = {name: fields[name] for name in AnimateOptions.model_fields if fields.get(name) not in (None, "")}
    given["first_frame"], given["last_frame"] = frame_range(frames, "Frames")
    given["person_at"] = place.split(",") if place else None
    return request_from(kind, validated(Form, form | {"options": validated(AnimateOptions, given)}))


def fields_of(request: JobRequest) -> dict[str, object]:
    """The form's fields as they were for a job."""
    own = {name: "" if value is None else value for name, value in request.options.model_dump().items()}
    frames = f"{own['first_frame']}:{own['last_frame']}"
    return own | {
        "photo": copied(request.image, "photo.png"),
        "photo_poses": request.image_poses and copied(request.image_poses, "photo_poses.npz"),
        "more_photos": [copied(path, path.name) for path in request.more_images] or None,
        "motion": None,
        "motion_file": copied(request.poses, "motion.npz"),
        "consent": request.consent is not None,
        "frames": "" if frames == ":" else frames,
        "person_at": "",  # its DensePose is known
        "speed": min(4, own["speed"] * own["stride"]),
    }


def fields_of_person(subject: SubjectEntry) -> dict[str, object]:
    """The fields with which a saved person is found again; their photos are in the model's shape already, which "pad"
    leaves as it is."""
    return FrameOptions().model_dump() | {
        "photo": copied(subject.photo, "photo.png"),
        "photo_poses": subject.poses and copied(subject.poses, "photo_poses.npz"),
        "more_photos": [copied(path, path.name) for path in subject.more] or None,
        "consent": True,
        "fit": "pad",
        "person_at": "",
        "recipe": subject.recipe,
        "seed": subject.seed,
    }


def copied(path: Path, name: str) -> str:
    """A copy among the uploads, as if the browser had sent it: the original may be deleted."""
    copy = Path(get_upload_folder(), secrets.token_hex(16), name)
    copy.parent.mkdir(parents=True)
    shutil.copyfile(path, copy)
    return str(copy)
