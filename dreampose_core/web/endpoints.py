"""Gradio endpoints for programs that use gradio_client; the HTTP API can do more."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import gradio as gr

from ..errors import DreamPoseError, InputError
from ..jobs.service import JobService
from ..settings import validated
from .form import uploaded
from .forms import Form, options_of
from .links import ResultLinks, is_token, new_token
from .programs import BROKEN, job_view, no_result, refusal, request_from

log = logging.getLogger("dreampose.api")
File = gr.FileData | None


def add_gradio_endpoints(service: JobService, links: ResultLinks) -> None:
    """Adds make_token, submit, status, result and cancel to the page that is being built."""

    def submit(
        token: str,
        photo: File = None,
        motion: File = None,
        photo_poses: File = None,
        person_name: str = "",
        motion_name: str = "",
        consent: bool = False,
        options: dict | None = None,
    ) -> str:
        """Queues a video; returns the job's id. Files are given as handle_file(path); options are those of the HTTP
        API, for example {"recipe": "none", "seed": 7}."""
        sent = {"photo": photo, "motion": motion, "photo_poses": photo_poses}
        given = {name: uploaded(file) for name, file in sent.items() if file}
        given |= {"person_name": person_name, "motion_name": motion_name, "consent": consent is True}
        form = validated(Form, given | {"options": options_of(options or {})})
        return service.submit(_owner(token), request_from("animate", form))

    def status(token: str, job: str, request: gr.Request) -> dict:
        """How a job stands; it has ended when its state is done, failed or cancelled."""
        return job_view(service.status(_owner(token), job), links, _page(request)).model_dump(mode="json")

    def result(token: str, job: str, request: gr.Request) -> str:
        """The address of the finished MP4; it works for ten minutes."""
        if link := status(token, job, request)["links"]["result"]:
            return link
        raise InputError(no_result(service.status(token, job)))

    def cancel(token: str, job: str, request: gr.Request) -> dict:
        """Stops a job."""
        service.cancel(_owner(token), job)
        return status(token, job, request)

    for function in (new_token, submit, status, result, cancel):
        name = "make_token" if function is new_token else function.__name__
        gr.api(one_sentence(function), api_name=name, queue=False, concurrency_limit=None)


def one_sentence(function: Callable) -> Callable:
    """The same function, whose every error is one sentence."""

    @functools.wraps(function)
    def answer(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except DreamPoseError as error:
            raise gr.Error(refusal(error), print_exception=False) from error
        except Exception as error:
            log.exception("%s failed", function.__name__)
            raise gr.Error(BROKEN, print_exception=False) from error

    return answer


def _page(request: gr.Request) -> str:
    """The page's address as the client sees it, through proxies, too."""
    seen = {"scheme": "x-forwarded-proto", "netloc": "x-forwarded-host"}
    seen = {part: request.request.headers[name].split(",")[0] for part, name in seen.items() if name in request.headers}
    return str(request.request.base_url.replace(**seen)).rstrip("/")


def _owner(token: object) -> str:
    if not is_token(token):
        raise InputError("Give your owner token as token; make_token makes one.")
    return token
