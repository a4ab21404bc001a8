"""The named Gradio endpoints: what the HTTP API does, for programs that use gradio_client; `Client(address).view_api()`
describes them."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Collection
from typing import Any, Literal, get_type_hints

import gradio as gr
from gradio.route_utils import API_PREFIX, get_root_url

from ..errors import DreamPoseError, InputError, shown
from ..jobs.records import MAX_MORE_PHOTOS, THINGS, JobRequest, JobStatus
from ..settings import AnimateOptions, MotionOptions, Options, SceneOptions, validated
from .api_records import JobView
from .forms import Form
from .handlers import uploaded
from .mannequins import MOTIONS
from .owners import is_token, new_token
from .programs import BROKEN, FILES, TEXTS, Desk, no_result, refusal

log = logging.getLogger("dreampose.api")

# gradio_client sends everything through the queue: there each endpoint has a lane of its own, in which nothing waits
# for anything. Who asks directly (POST /gradio_api/run/NAME), as browsers' programs do, is answered in the request.
_AT_ONCE = {"queue": False, "concurrency_limit": None}

Thing = Literal[tuple(THINGS)]
_FILE = gr.FileData | None
_FILES = list[gr.FileData] | None
_SEVERAL = ("more_photos",)
# As much of its schema as gradio_client looks at: Gradio sends all schemas with every page, four times.
_FILE_META = {"properties": {"_type": {"const": "gradio.FileData"}}}
_FILE_SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}, "meta": _FILE_META}}
_ASKED = {
    "token": "Your owner token; make_token makes one.",
    "job": "The job's id.",
    "thing": "What of it: the video (of a preview without a motion the picture), or something that is kept beside it.",
}
_ID = {"type": "string", "description": "The job's id."}


def add_endpoints(page: gr.Blocks, desk: Desk) -> None:
    """Adds the endpoints to the page that is being built.

    They are answered by the service that answers the HTTP API, under the names that its document has for the same
    actions; every error is a gr.Error of one sentence.
    """
    service = desk.service

    def record(status: JobStatus, request: gr.Request) -> dict:
        root = _root(request)
        return desk.record(status, root, f"{root}/api/v1").model_dump(mode="json")

    def make_token() -> str:
        """A new owner token. Keep it: it alone shows your jobs, and the server does not store it."""
        return new_token()

    def list_people() -> list[str]:
        """The names of the example people."""
        return list(desk.people)

    def list_motions() -> list[str]:
        """The names of the shipped motions."""
        return list(desk.motions)

    def submission(
        name: str, about: str, form: Collection[str], options: type[Options], asked: Callable[[Form, Any], JobRequest]
    ) -> Callable:
        """The endpoint that submits what `asked` makes of a form with the fields `form`, and of options."""
        parameters = _parameters(form, options)

        def submit(*given: object) -> str:
            told = dict(zip(parameters, given))
            owner = _owner(told["token"])
            chosen = validated(options, {name: told[name] for name in options.model_fields})
            return service.submit(owner, asked(_form({name: told[name] for name in form}), chosen))

        submit.__name__, submit.__doc__ = name, about
        submit.__signature__ = inspect.Signature(list(parameters.values()), return_annotation=str)
        submit.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()} | {
            "return": str
        }
        return submit

    submit_job = submission(
        "submit_job",
        "Queues a video: one of photo and person_name, one of motion and motion_name. Files are given as "
        "handle_file(path).",
        (*FILES, *TEXTS),
        AnimateOptions,
        lambda form, options: desk.request("animate", form, options),
    )
    submit_preview = submission(
        "submit_preview",
        "Queues a preview, which takes seconds: what the motion does to the photo, or how a photo alone is understood.",
        (*FILES, *TEXTS),
        SceneOptions,
        lambda form, options: desk.request("preview", form, AnimateOptions(**options.model_dump())),
    )
    submit_motion = submission(
        "submit_motion",
        "Queues a motion that a mannequin does, which takes seconds; get_result has it as the thing "
        "motion, to be submitted with a photo.",
        (),
        MotionOptions,
        lambda form, options: JobRequest(kind="motion", motion=options),
    )

    def list_jobs(token: str, request: gr.Request) -> list:
        """Your videos, newest first; previews and motions are not listed."""
        return [record(status, request) for status in service.jobs(_owner(token))]

    def show_job(job: str, token: str, request: gr.Request) -> dict:
        """How a job stands. It has ended when its state is done, failed or cancelled."""
        return record(service.status(_owner(token), job), request)

    def cancel_job(job: str, token: str, request: gr.Request) -> dict:
        """Stops a job soon; one that has ended stays as it is."""
        service.cancel(_owner(token), job)
        return show_job(job, token, request)

    def get_result(job: str, token: str, request: gr.Request, thing: Thing = "video") -> str:
        """The address of what a job has made; it works for ten minutes, for whoever has it."""
        status = service.status(_owner(token), job)
        if thing not in list(THINGS):
            raise InputError(f"thing is {shown(str(thing))!r}; these are kept: {', '.join(THINGS)}.")
        if thing in status.things:
            name, ending = thing, THINGS[thing]
        elif thing == "video" and status.look is not None:
            name, ending = "look", ".png"
        elif thing == "video" or not status.things:
            raise InputError(no_result(status))
        else:
            raise InputError(f"This job has no {thing}; it has {', '.join(status.things)}.")
        return f"{_root(request)}/{desk.links.make(status.id, f'{status.id}-{name}{ending}', name)}"

    names = {"type": "array", "items": {"type": "string"}, "description": "Their names."}
    form = _ASKED | FILES | TEXTS
    _add(page, make_token, {}, "token", {"type": "string", "description": "For all the others."})
    _add(page, list_people, {}, "people", names)
    _add(page, list_motions, {}, "motions", names)
    _add(page, submit_job, form | AnimateOptions.described(), "job", _ID)
    _add(page, submit_preview, form | SceneOptions.described(), "job", _ID)
    _add(
        page,
        submit_motion,
        _ASKED | MotionOptions.described() | {"motion": f"What the mannequin does: {', '.join(MOTIONS.values())}."},
        "job",
        _ID,
    )
    _add(
        page,
        list_jobs,
        _ASKED,
        "jobs",
        {"type": "array", "items": {"type": "object"}, "description": "As show_job tells of each."},
    )
    _add(page, show_job, _ASKED, "record", _short(JobView.model_json_schema(mode="serialization")))
    _add(page, cancel_job, _ASKED, "record", {"type": "object", "description": "As show_job tells of it."})
    _add(
        page, get_result, _ASKED, "address", {"type": "string", "description": "Of an MP4, GIF, zip, npz, JSON or PNG."}
    )


def _add(page: gr.Blocks, function: Callable, words: dict[str, str], label: str, answer: dict) -> None:
    """Adds one endpoint, with what view_api says of it: words, of its parameters, by name; label and answer, the name
    and the JSON schema of what it gives."""
    # as types, not as texts: Gradio does not evaluate the one of the answer
    function.__annotations__ = hints = get_type_hints(function)
    event = gr.api(_refusing(function), api_name=function.__name__, **_AT_ONCE)
    sent = {name: hint for name, hint in hints.items() if name != "return" and hint is not gr.Request}
    for (name, hint), number in zip(sent.items(), event["inputs"]):
        schemas = {_FILE: _FILE_SCHEMA, _FILES: {"type": "array", "items": _FILE_SCHEMA}}
        schema = schemas[hint] if hint in schemas else page.blocks[number].api_info()
        # that it may be left out, gradio_client says itself
        schema = next((part for part in schema.get("oneOf", []) if part != {"type": "null"}), schema)
        _tell(page.blocks[number], name, schema | {"additional_description": words.get(name, "")})
    _tell(page.blocks[event["outputs"][0]], label, answer)


def _tell(part: gr.components.Component, label: str, schema: dict) -> None:
    """What view_api says of a parameter or an answer."""
    part.label = label
    told = part.api_info()  # as Gradio keeps it
    told.clear()
    told.update(schema)


def _short(schema: Any) -> Any:
    """The schema of an answer without what view_api makes no words of, some of which it stumbles over
    (additionalProperties: false)."""
    needless = ("title", "default", "minimum", "maximum", "required", "additionalProperties")
    if isinstance(schema, dict):
        return {name: _short(part) for name, part in schema.items() if name not in needless or isinstance(part, dict)}
    return [_short(part) for part in schema] if isinstance(schema, list) else schema


def _refusing(function: Callable) -> Callable:
    """The same function, whose every error is one sentence."""

    @functools.wraps(function)
    def answer(*given: object) -> object:
        try:
            return function(*given)
        except DreamPoseError as error:
            raise gr.Error(refusal(error), print_exception=False) from error
        except Exception as error:
            log.exception("%s failed", function.__name__)
            raise gr.Error(BROKEN, print_exception=False) from error

    return answer


def _parameters(form: Collection[str], options: type[Options]) -> dict[str, inspect.Parameter]:
    """Of an endpoint that submits, by name: the token, then the form's fields and the options with their defaults;
    those without one come first."""
    empty = inspect.Parameter.empty
    told = [("token", str, empty), *((name, _kind(name), None) for name in form)]
    told += [
        (name, field.annotation, empty if field.is_required() else field.default)
        for name, field in options.model_fields.items()
    ]
    told.sort(key=lambda one: one[2] is not empty)
    how = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return {name: inspect.Parameter(name, how, default=default, annotation=hint) for name, hint, default in told}


def _kind(field: str) -> Any:
    """The type of a form's field."""
    return _FILES if field in _SEVERAL else _FILE if field in FILES else str | None


def _owner(token: object) -> str:
    if not is_token(token):
        raise InputError("Give your owner token as token; make_token makes one.")
    return token


def _form(told: dict[str, object]) -> Form:
    """Fields of FILES and TEXTS, as they were sent, as a form; None leaves one out. Raises InputError for what is no
    upload, or no text."""
    form = Form()
    for name, value in told.items():
        if value is None:
            continue
        if name in FILES:
            given = value if isinstance(value, list) and name in _SEVERAL else [value]
            if not all(isinstance(one, dict) for one in given):
                raise InputError(f"{name} is not given as a file; give handle_file(path) of gradio_client.")
            if len(given) > MAX_MORE_PHOTOS:
                raise InputError(f"{name} may hold at most {MAX_MORE_PHOTOS} files.")
            form.files[name] = [uploaded(one) for one in given]
        elif isinstance(value, str):
            form.texts[name] = value
        else:
            raise InputError(f"{name} is no text; give one.")
    return form


def _root(request: gr.Request) -> str:
    """The page's whole address, found as Gradio finds it for the links that it makes itself."""
    path = request.request.url.path
    return get_root_url(request.request, path[path.rindex(API_PREFIX) :], None)
