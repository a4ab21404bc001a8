"""The HTTP API, which offers the page's functions to programs. `server` mounts it under /api/v1, with its own OpenAPI
document."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..errors import Busy, DreamPoseError, InputError, StorageError, TooLarge, UnknownJob
from ..jobs.records import MAX_MORE_PHOTOS, JobStatus, Kind
from ..settings import AnimateOptions, Settings, validated
from .api_records import Again, Change, Failure, JobList, JobView, Motions, NewToken, People, Subjects, Submitted
from .forms import received
from .owners import is_token, new_token
from .programs import BROKEN, FILES, TEXTS, Desk, no_result, one_line, refusal

FIELDS = TEXTS | {"options": "Options as a JSON object; those left out take their defaults."}
# How often a form may contain each file and each text field.
_OFTEN = (dict.fromkeys(FILES, 1) | {"more_photos": MAX_MORE_PHOTOS}, dict.fromkeys(FIELDS, 1))
# The first class that matches an error sets the status.
_STATUS = ((UnknownJob, 404), (TooLarge, 413), (Busy, 429), (InputError, 422), (StorageError, 503))
_NOWHERE = {
    404: "There is nothing at this address; /api/v1/openapi.json says what there is.",
    405: "This address does not take this method; /api/v1/openapi.json says what there is.",
}
_MEANINGS = {
    401: "No owner token, or none of the right form.",
    404: "No such job, or another owner's.",
    409: "The job has no result (yet).",
    413: "Something sent is too large.",
    422: "What was sent cannot be used.",
    429: "Too much waits or is kept already; try again later.",
    503: "The server cannot store anything at the moment.",
}


def _refusals(*codes: int) -> dict[int | str, dict]:
    """Return an endpoint's error responses for the OpenAPI document."""
    return {code: {"model": Failure, "description": _MEANINGS[code]} for code in codes}


def _form_body() -> dict:
    """Return the OpenAPI body of a submission; FastAPI cannot derive it, as `forms` reads the form while it arrives."""
    fields = {name: {"type": "string", "format": "binary", "description": words} for name, words in FILES.items()}
    fields |= {name: {"type": "string", "description": words} for name, words in FIELDS.items()}
    several = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_MORE_PHOTOS}
    fields["more_photos"] = several | {"description": FILES["more_photos"]}
    fields["options"] = {"allOf": [{"$ref": "#/components/schemas/AnimateOptions"}], "description": FIELDS["options"]}
    form = {
        "schema": {"type": "object", "properties": fields},
        "encoding": {"options": {"contentType": "application/json"}},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}


def _owner(
    given: Annotated[
        HTTPAuthorizationCredentials | None,
        Depends(HTTPBearer(auto_error=False, description="An owner token; POST /tokens makes one.")),
    ],
) -> str:
    if given is None or not is_token(given.credentials):
        sentence = "Send your owner token as 'Authorization: Bearer TOKEN'; POST /api/v1/tokens makes one."
        raise HTTPException(401, sentence, {"WWW-Authenticate": "Bearer"})
    return given.credentials


Owner = Annotated[str, Depends(_owner)]
Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=100,
        pattern="^[ -~]*$",
        description="1 to 100 printable ASCII characters: the same owner and key are "
        "one job, however often it is submitted.",
    ),
]


def build_api(settings: Settings, desk: Desk) -> FastAPI:
    """Build the API as a separate application with its own error answers, each {"error": "one sentence"}."""
    api = FastAPI(
        title="DreamPose",
        version=__version__,
        summary="One photo of a person and a motion become a video of that person moving.",
        openapi_url="/openapi.json",
        # The pages at these two URLs would load scripts from other servers.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    api.include_router(api_router(settings, desk))
    answers = {
        DreamPoseError: _refused,
        StarletteHTTPException: _not_here,
        RequestValidationError: _not_valid,
        ClientDisconnect: _gone,
        Exception: _broken,
    }
    for kind, answer in answers.items():
        api.add_exception_handler(kind, answer)
    return api


def api_router(settings: Settings, desk: Desk) -> APIRouter:
    """Make the endpoints."""
    router, service = APIRouter(), desk.service

    @router.post("/tokens", status_code=201, tags=["owners"])
    def make_token() -> NewToken:
        """A new owner token. Keep it: it alone shows your jobs, and the server does not store it."""
        return NewToken(token=new_token())

    @router.get("/people", tags=["examples"])
    def list_people() -> People:
        """The names of the example people."""
        return People(people=list(desk.people))

    @router.get("/motions", tags=["examples"])
    def list_motions() -> Motions:
        """The names of the shipped motions."""
        return Motions(motions=list(desk.motions))

    submission = {
        "status_code": 202,
        "openapi_extra": _form_body(),
        "responses": _refusals(401, 413, 422, 429, 503),
        "tags": ["jobs"],
    }

    @router.post("/jobs", **submission)
    async def submit_job(request: Request, owner: Owner, idempotency_key: Key = None) -> Submitted:
        """Queues a video: one of photo and person_name, one of motion and motion_name."""
        return await submit(request, owner, "animate", idempotency_key)

    @router.post("/previews", **submission)
    async def submit_preview(request: Request, owner: Owner, idempotency_key: Key = None) -> Submitted:
        """Queues a preview, which takes seconds: what the motion does to the photo, or how a photo alone is understood
        (a PNG)."""
        return await submit(request, owner, "preview", idempotency_key)

    async def submit(request: Request, owner: str, kind: Kind, key: str | None) -> Submitted:
        # before the files arrive, which may take minutes
        job = await run_in_threadpool(service.admit, owner, kind, key)
        if job is None:
            async with received(request, settings.home / "incoming", *_OFTEN, settings.max_upload_mb) as form:
                asked = desk.request(kind, form, _options(form.texts.get("options", "")))
                job = await run_in_threadpool(service.submit, owner, asked, key)
        # FastAPI sends only the fields of Submitted.
        return view(request, await run_in_threadpool(service.status, owner, job))

    def view(request: Request, status: JobStatus) -> JobView:
        # the addresses of the page and of the API (.../api/v1)
        return desk.record(status, request.scope.get("app_root_path", ""), request.scope["root_path"])

    @router.get("/jobs", responses=_refusals(401, 503), tags=["jobs"])
    def list_jobs(request: Request, owner: Owner) -> JobList:
        """Your videos, newest first; previews are not listed."""
        return JobList(jobs=[view(request, status) for status in service.jobs(owner)])

    @router.get("/jobs/{job_id}", responses=_refusals(401, 404, 422, 503), tags=["jobs"])
    def show_job(request: Request, owner: Owner, job_id: str) -> JobView:
        """How a job stands; once it is done, links.result serves the MP4 for ten minutes to whoever has the link."""
        return view(request, service.status(owner, job_id))

    @router.patch("/jobs/{job_id}", responses=_refusals(401, 404, 422, 503), tags=["jobs"])
    def rename_job(request: Request, owner: Owner, job_id: str, change: Change) -> JobView:
        """Gives a job another name."""
        service.rename(owner, job_id, change.name)
        return view(request, service.status(owner, job_id))

    @router.delete("/jobs/{job_id}", status_code=204, responses=_refusals(401, 404, 422, 503), tags=["jobs"])
    def delete_job(owner: Owner, job_id: str) -> None:
        """Deletes a job with all its files; one that is at work is stopped first."""
        service.delete(owner, job_id)

    @router.post("/jobs/{job_id}/again", status_code=202, responses=_refusals(401, 404, 422, 429, 503), tags=["jobs"])
    def repeat_job(request: Request, owner: Owner, job_id: str, again: Again) -> Submitted:
        """Queues the same video with another recipe or quality."""
        asked = service.status(owner, job_id).request
        if asked is None or asked.image is None or asked.poses is None:
            raise InputError("The photo and the motion of this video are no longer kept; submit them again.")
        changes = again.model_dump(exclude_none=True)
        options = asked.options.model_copy(update=changes | ({"steps": None} if again.quality else {}))
        job = service.submit(owner, asked.model_copy(update={"options": options}))
        return view(request, service.status(owner, job))

    @router.get("/subjects", responses=_refusals(401, 503), tags=["subjects"])
    def list_subjects(request: Request, owner: Owner) -> Subjects:
        """The people that the model was fine-tuned to for your videos, the last used first."""
        page = request.scope.get("app_root_path", "")
        return Subjects(subjects=[desk.person(subject, page) for subject in service.subjects(owner)])

    @router.delete("/subjects/{key}", status_code=204, responses=_refusals(401, 422, 503), tags=["subjects"])
    def delete_subject(owner: Owner, key: str) -> None:
        """Deletes what was learned of a person."""
        service.delete_subject(owner, key)

    @router.post("/jobs/{job_id}/cancel", status_code=202, responses=_refusals(401, 404, 422, 503), tags=["jobs"])
    def cancel_job(request: Request, owner: Owner, job_id: str) -> JobView:
        """Stops a job soon; one that has ended stays as it is."""
        service.cancel(owner, job_id)
        return view(request, service.status(owner, job_id))

    served = {
        "description": "The video, or the picture of a preview without a motion.",
        "content": {"video/mp4": {}, "image/png": {}},
    }

    @router.get(
        "/jobs/{job_id}/result",
        response_class=FileResponse,
        responses={200: served, **_refusals(401, 404, 409, 422, 503)},
        tags=["jobs"],
    )
    def get_result(owner: Owner, job_id: str) -> FileResponse:
        """The finished MP4."""
        status = service.status(owner, job_id)
        path = status.result or status.look
        if path is None:
            raise HTTPException(409, no_result(status))
        if not path.is_file():  # it has just expired
            raise UnknownJob("The result of this job is no longer kept.")
        headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
        media_type = "video/mp4" if status.result else "image/png"
        return FileResponse(path, media_type=media_type, filename=f"{status.id}{path.suffix}", headers=headers)

    return router


def _options(text: str) -> AnimateOptions:
    """Return options from a JSON object, all defaults if the text is empty. Raises InputError."""
    text = text.lstrip("\ufeff")  # the mark that Windows' editors put first
    try:
        values = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InputError('options is not JSON; give an object, for example {"recipe": "none", "seed": 7}.') from error
    if not isinstance(values, dict):
        raise InputError('options is JSON, but no object; give one, for example {"recipe": "none", "seed": 7}.')
    return validated(AnimateOptions, values)


def _failure(code: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": one_line(sentence)}, code, headers)


async def _refused(request: Request, error: DreamPoseError) -> JSONResponse:
    return _failure(next((code for kind, code in _STATUS if isinstance(error, kind)), 500), refusal(error))


async def _not_here(request: Request, error: StarletteHTTPException) -> JSONResponse:
    """Answer an HTTP error with its sentence if this module raised it, else with one for the framework's status."""
    sentence = (
        error.detail
        if isinstance(error, HTTPException)
        else _NOWHERE.get(error.status_code, "The request cannot be understood.")
    )
    return _failure(error.status_code, sentence, error.headers)


async def _not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    return _failure(422, f"{first['loc'][-1]}: {first['msg'][0].lower()}{first['msg'][1:]}.")


async def _gone(request: Request, error: ClientDisconnect) -> JSONResponse:
    return _failure(400, "The request was broken off.")  # the client is gone


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """Answer an unexpected error without details, which are in the server's log."""
    return _failure(500, BROKEN)
