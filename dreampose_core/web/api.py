"""The HTTP API, which offers the page's functions to programs. `server` mounts it under /api/v1, with its own OpenAPI
document."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..errors import Busy, DreamPoseError, InputError, StorageError, TooLarge, UnknownJob
from ..jobs.records import Kind
from ..jobs.service import JobService
from ..settings import Quality, Recipe
from .examples import MOTIONS, PEOPLE
from .forms import Form, received
from .links import ResultLinks, is_token, new_token
from .programs import BROKEN, JobView, SubjectView, job_view, no_result, one_line, refusal, request_from, subject_view

# The first class that matches an error sets the status.
_STATUS = ((UnknownJob, 404), (TooLarge, 413), (Busy, 429), (InputError, 422), (StorageError, 503))
_REFUSED = (
    "401: no owner token, or none of the right form; 404: no such job, or another owner's; 409: the job has no result "
    "(yet); 413: something sent is too large; 422: what was sent cannot be used; 429: too much waits or is kept "
    "already, try again later; 503: the server cannot store anything at the moment."
)


class Failure(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="One sentence: what is wrong, what is accepted, what to do.")


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


def _page(request: Request) -> str:
    return request.scope["app_root_path"]


Owner = Annotated[str, Depends(_owner)]
Page = Annotated[str, Depends(_page)]  # its address, with which links begin
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


def build_api(service: JobService, links: ResultLinks) -> FastAPI:
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
        responses={"default": {"model": Failure, "description": _REFUSED}},
        generate_unique_id_function=lambda route: route.name,
    )
    for kind in (DreamPoseError, StarletteHTTPException, RequestValidationError, ClientDisconnect, Exception):
        api.add_exception_handler(kind, failure)

    @api.post("/tokens", status_code=201)
    def make_token() -> dict[Literal["token"], str]:
        """A new owner token. Keep it: it alone shows your jobs, and the server does not store it."""
        return {"token": new_token()}

    @api.get("/people")
    def list_people() -> dict[Literal["people"], list[str]]:
        """The names of the example people."""
        return {"people": list(PEOPLE)}

    @api.get("/motions")
    def list_motions() -> dict[Literal["motions"], list[str]]:
        """The names of the shipped motions."""
        return {"motions": list(MOTIONS)}

    # FastAPI cannot derive the body, as `forms` reads it while it arrives.
    form = Form.model_json_schema(ref_template="#/components/schemas/{model}")
    del form["$defs"]  # AnimateOptions, which is also a part of JobView
    content = {"multipart/form-data": {"schema": form, "encoding": {"options": {"contentType": "application/json"}}}}
    submission = {"status_code": 202, "openapi_extra": {"requestBody": {"required": True, "content": content}}}

    @api.post("/jobs", **submission)
    async def submit_job(request: Request, page: Page, owner: Owner, idempotency_key: Key = None) -> JobView:
        """Queues a video: one of photo and person_name, one of motion and motion_name."""
        return await submit("animate", request, page, owner, idempotency_key)

    @api.post("/previews", **submission)
    async def submit_preview(request: Request, page: Page, owner: Owner, idempotency_key: Key = None) -> JobView:
        """Queues a preview, which takes seconds: what the motion does to the photo, or how a photo alone is understood
        (a PNG)."""
        return await submit("preview", request, page, owner, idempotency_key)

    async def submit(kind: Kind, request: Request, page: str, owner: str, key: str | None) -> JobView:
        # before the files arrive, which may take minutes
        job = await run_in_threadpool(service.admit, owner, kind, key)
        if job is None:
            async with received(request, service.home / "incoming", service.settings.max_upload_mb) as form:
                job = await run_in_threadpool(service.submit, owner, request_from(kind, form), key)
        return await run_in_threadpool(show_job, page, owner, job)

    @api.get("/jobs")
    def list_jobs(page: Page, owner: Owner) -> dict[Literal["jobs"], list[JobView]]:
        """Your videos, newest first; previews are not listed."""
        return {"jobs": [job_view(status, links, page) for status in service.jobs(owner)]}

    @api.get("/jobs/{job_id}")
    def show_job(page: Page, owner: Owner, job_id: str) -> JobView:
        """How a job stands; once it is done, links.result serves the MP4 for ten minutes to whoever has the link."""
        return job_view(service.status(owner, job_id), links, page)

    @api.patch("/jobs/{job_id}")
    def rename_job(page: Page, owner: Owner, job_id: str, name: Annotated[str, Body(embed=True)]) -> JobView:
        """Gives a job another name."""
        service.rename(owner, job_id, name)
        return show_job(page, owner, job_id)

    @api.delete("/jobs/{job_id}", status_code=204)
    def delete_job(owner: Owner, job_id: str) -> None:
        """Deletes a job with all its files; one that is at work is stopped first."""
        service.delete(owner, job_id)

    @api.post("/jobs/{job_id}/again", status_code=202)
    def repeat_job(
        page: Page,
        owner: Owner,
        job_id: str,
        recipe: Annotated[Recipe | None, Body()] = None,
        quality: Annotated[Quality | None, Body()] = None,
    ) -> JobView:
        """Queues the same video with another recipe or quality."""
        asked = service.status(owner, job_id).request
        if asked is None or asked.image is None or asked.poses is None:
            raise InputError("The photo and the motion of this video are no longer kept; submit them again.")
        changes = {"recipe": recipe or asked.options.recipe}
        changes |= {"quality": quality, "steps": None} if quality else {}
        options = asked.options.model_copy(update=changes)
        return show_job(page, owner, service.submit(owner, asked.model_copy(update={"options": options})))

    @api.post("/jobs/{job_id}/cancel", status_code=202)
    def cancel_job(page: Page, owner: Owner, job_id: str) -> JobView:
        """Stops a job soon; one that has ended stays as it is."""
        service.cancel(owner, job_id)
        return show_job(page, owner, job_id)

    served = {
        "description": "The video, or the picture of a preview without a motion.",
        "content": {"video/mp4": {}, "image/png": {}},
    }

    @api.get("/jobs/{job_id}/result", response_class=FileResponse, responses={200: served})
    def get_result(owner: Owner, job_id: str) -> FileResponse:
        """The finished MP4."""
        status = service.status(owner, job_id)
        path = status.result or status.look
        if path is None:
            raise HTTPException(409, no_result(status))
        if not path.is_file():  # it has just expired
            raise UnknownJob("The result of this job is no longer kept.")
        headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
        return FileResponse(path, filename=f"{status.id}{path.suffix}", headers=headers)

    @api.get("/subjects")
    def list_subjects(page: Page, owner: Owner) -> dict[Literal["subjects"], list[SubjectView]]:
        """The people that the model was fine-tuned to for your videos, the last used first."""
        return {"subjects": [subject_view(subject, links, page) for subject in service.subjects(owner)]}

    @api.delete("/subjects/{key}", status_code=204)
    def delete_subject(owner: Owner, key: str) -> None:
        """Deletes what was learned of a person."""
        service.delete_subject(owner, key)

    return api


async def failure(request: Request, error: Exception) -> JSONResponse:
    """The answer to an error: its sentence, or a general one where it may tell of the server's insides."""
    match error:
        case DreamPoseError():
            code = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
            sentence = refusal(error)
        case HTTPException():  # raised above
            code, sentence = error.status_code, error.detail
        case StarletteHTTPException():
            code = error.status_code
            why = {404: "There is nothing at this address", 405: "This address does not take this method"}
            why = why.get(code, "The request cannot be understood")
            sentence = f"{why}; /api/v1/openapi.json says what there is."
        case RequestValidationError():
            first = error.errors()[0]
            code, sentence = 422, f"{first['loc'][-1]}: {first['msg'][0].lower()}{first['msg'][1:]}."
        case ClientDisconnect():
            code, sentence = 400, "The request was broken off."  # the client is gone
        case _:
            code, sentence = 500, BROKEN
    return JSONResponse({"error": one_line(sentence)}, code, getattr(error, "headers", None))
