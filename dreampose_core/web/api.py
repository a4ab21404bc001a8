"""The HTTP API: what the page does, for programs. Mounted by `server` under /api/v1, with an OpenAPI document of its own."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..errors import Busy, DiskFull, DreamPoseError, InputError, StorageError, TooLarge, UnknownJob, shown
from ..jobs.records import MAX_MORE_PHOTOS, JobRequest, JobStatus, Kind
from ..jobs.service import JobService
from ..settings import AnimateOptions, Settings, validated
from .api_records import Failure, JobLinks, JobList, JobView, Motions, NewToken, People, Sample, Step, Submitted
from .examples import Motion, Person, example_motions, example_people
from .forms import Form, received
from .links import ResultLinks
from .owners import is_token, new_token

log = logging.getLogger("dreampose.api")

FILES = {
    "photo": "The photo: PNG, JPEG or WebP.",
    "motion": "The motion: a video of one person, or DensePose in any form that the page takes.",
    "photo_poses": "The photo's own DensePose, if it is known; with more_photos, a file of as many maps as photos is of them all.",
    "more_photos": f"Up to {MAX_MORE_PHOTOS} further photos of the same person, for the learning alone; a preview leaves them aside.",
}
TEXTS = {
    "person_name": "An example person instead of a photo, see GET /people.",
    "motion_name": "A shipped motion instead of a motion of your own, see GET /motions.",
    "options": "Options as a JSON object; those left out take their defaults.",
}
_FILES, _TEXTS = dict.fromkeys(FILES, 1) | {"more_photos": MAX_MORE_PHOTOS}, dict.fromkeys(TEXTS, 1)  # how often each may be given
_STATUS = ((UnknownJob, 404), (TooLarge, 413), (Busy, 429), (InputError, 422), (StorageError, 503))  # the first that fits
_NOWHERE = {
    404: "There is nothing at this address; /api/v1/openapi.json says what there is.",
    405: "This address does not take this method; /api/v1/openapi.json says what there is.",
}
_MEANINGS = {
    401: "No owner token, or none of the right form.", 404: "No such job, or somebody else's.", 409: "The job has no result (yet).",
    413: "Something sent is too large.", 422: "What was sent cannot be used.", 429: "Too much waits or is kept already; try again later.",
    503: "The server cannot store anything at the moment.",
}  # fmt: skip


def _refusals(*codes: int) -> dict[int | str, dict]:
    """Of an endpoint, for the OpenAPI document."""
    return {code: {"model": Failure, "description": _MEANINGS[code]} for code in codes}


def _form_body() -> dict:
    """The form of a submission, for the OpenAPI document: it is read by `forms`, as it comes, and not by FastAPI."""
    fields = {name: {"type": "string", "format": "binary", "description": words} for name, words in FILES.items()}
    fields |= {name: {"type": "string", "description": words} for name, words in TEXTS.items()}
    several = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_MORE_PHOTOS}
    fields["more_photos"] = several | {"description": FILES["more_photos"]}
    fields["options"] = {"allOf": [{"$ref": "#/components/schemas/AnimateOptions"}], "description": TEXTS["options"]}
    form = {"schema": {"type": "object", "properties": fields}, "encoding": {"options": {"contentType": "application/json"}}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}


def _owner(given: Annotated[HTTPAuthorizationCredentials | None, Depends(
    HTTPBearer(auto_error=False, description="An owner token; POST /tokens makes one.")
)]) -> str:  # fmt: skip
    if given is None or not is_token(given.credentials):
        sentence = "Send your owner token as 'Authorization: Bearer TOKEN'; POST /api/v1/tokens makes one."
        raise HTTPException(401, sentence, {"WWW-Authenticate": "Bearer"})
    return given.credentials


Owner = Annotated[str, Depends(_owner)]
Key = Annotated[
    str | None,
    Header(
        min_length=1, max_length=100, pattern="^[ -~]*$",
        description="1 to 100 printable ASCII characters: the same owner and key are one job, however often it is submitted.",
    ),
]  # fmt: skip


def build_api(settings: Settings, service: JobService, links: ResultLinks, examples: Path) -> FastAPI:
    """The API as an application of its own, with its own answers to errors: every one is {"error": "one sentence"}."""
    api = FastAPI(
        title="DreamPose", version=__version__, summary="One photo of a person and a motion become a video of that person moving.",
        openapi_url="/openapi.json", docs_url=None, redoc_url=None,  # the pages behind these two load scripts from elsewhere
        redirect_slashes=False, generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    api.include_router(api_router(settings, service, links, example_people(examples), example_motions(examples)))
    answers = {
        DreamPoseError: _refused, StarletteHTTPException: _not_here, RequestValidationError: _not_valid, ClientDisconnect: _gone,
        Exception: _broken,
    }  # fmt: skip
    for kind, answer in answers.items():
        api.add_exception_handler(kind, answer)
    return api


def api_router(settings: Settings, service: JobService, links: ResultLinks, people: list[Person], motions: list[Motion]) -> APIRouter:
    """The endpoints. people, motions: the shipped ones, by name."""
    router = APIRouter()
    shipped = {"person_name": {person.name: person for person in people}, "motion_name": {motion.name: motion for motion in motions}}

    @router.post("/tokens", status_code=201, tags=["owners"])
    def make_token() -> NewToken:
        """A new owner token. Keep it: it alone shows your jobs, and the server does not store it."""
        return NewToken(token=new_token())

    @router.get("/people", tags=["examples"])
    def list_people() -> People:
        """The names of the example people."""
        return People(people=list(shipped["person_name"]))

    @router.get("/motions", tags=["examples"])
    def list_motions() -> Motions:
        """The names of the shipped motions."""
        return Motions(motions=list(shipped["motion_name"]))

    submission = {"status_code": 202, "openapi_extra": _form_body(), "responses": _refusals(401, 413, 422, 429, 503), "tags": ["jobs"]}

    @router.post("/jobs", **submission)
    async def submit_job(request: Request, owner: Owner, idempotency_key: Key = None) -> Submitted:
        """Queues a video: one of photo and person_name, one of motion and motion_name."""
        return await submit(request, owner, "animate", idempotency_key)

    @router.post("/previews", **submission)
    async def submit_preview(request: Request, owner: Owner, idempotency_key: Key = None) -> Submitted:
        """Queues a preview, which takes seconds: what the motion does to the photo, or how a photo alone is understood (a PNG)."""
        return await submit(request, owner, "preview", idempotency_key)

    async def submit(request: Request, owner: str, kind: Kind, key: str | None) -> Submitted:
        # before the files come, which may take minutes
        job = await run_in_threadpool(service.admit, owner, kind, key)
        if job is None:
            async with received(request, settings.home / "incoming", _FILES, _TEXTS, settings.max_upload_mb) as form:
                job = await run_in_threadpool(service.submit, owner, job_request(kind, form), key)
        return view(request, await run_in_threadpool(service.status, owner, job))  # of which FastAPI sends what Submitted has

    def job_request(kind: Kind, form: Form) -> JobRequest:
        person, motion = (example(form, *fields) for fields in (("photo", "person_name"), ("motion", "motion_name")))
        image, poses = form.file("photo") or (person and person.image), form.file("motion") or (motion and motion.poses)
        if kind == "animate" and not (image and poses):
            raise InputError("A video needs a photo or a person_name, and a motion or a motion_name.")
        if not (image or poses):
            raise InputError("A preview needs a photo, a person_name, a motion or a motion_name.")
        image_poses = form.file("photo_poses") or (person and person.poses)
        more, options = form.files.get("more_photos", ()) if kind == "animate" else (), _options(form.texts.get("options", ""))
        return JobRequest(kind=kind, image=image, poses=poses, image_poses=image_poses, more_images=tuple(more), options=options)

    def example(form: Form, file: str, field: str) -> Person | Motion | None:
        """The example that the field names; None where it is empty."""
        if not (name := form.texts.get(field)):
            return None
        if form.file(file):
            raise InputError(f"Both {file} and {field} are given; give one of them.")
        if name not in shipped[field]:
            raise InputError(f"{field} is {shown(name)!r}; these are shipped: {', '.join(shipped[field])}.")
        return shipped[field][name]

    def sample(job_id: str, path: Path, outside: str) -> Sample:
        return Sample(step=int(path.stem), picture=f"{outside}/{links.make(job_id, path.name, f'sample_{path.stem}')}")

    def view(request: Request, status: JobStatus) -> JobView:
        here, outside = request.scope["root_path"], request.scope.get("app_root_path", "")  # .../api/v1, and where the page is
        result = f"{outside}/{links.make(status.id, f'{status.id}.mp4')}" if status.result else None
        step = status.progress
        return JobView(
            id=status.id, state=status.state, kind=status.kind, created=datetime.fromtimestamp(status.created, UTC), place=status.place,
            progress=step and Step(stage=step.stage, step=step.step, total=step.total, seconds_left=step.seconds_left),
            error=status.error, code=status.code, notices=list(status.notices), num_frames=len(status.frames),
            samples=[sample(status.id, path, outside) for path in status.samples],
            options=status.request and status.request.options,
            links=JobLinks(status=f"{here}/jobs/{status.id}", cancel=f"{here}/jobs/{status.id}/cancel", result=result),
        )  # fmt: skip

    @router.get("/jobs", responses=_refusals(401, 503), tags=["jobs"])
    def list_jobs(request: Request, owner: Owner) -> JobList:
        """Your videos, newest first; previews are not listed."""
        return JobList(jobs=[view(request, status) for status in service.jobs(owner)])

    @router.get("/jobs/{job_id}", responses=_refusals(401, 404, 422, 503), tags=["jobs"])
    def show_job(request: Request, owner: Owner, job_id: str) -> JobView:
        """How a job stands; once it is done, links.result serves the MP4 for ten minutes to whoever has the link."""
        return view(request, service.status(owner, job_id))

    @router.post("/jobs/{job_id}/cancel", status_code=202, responses=_refusals(401, 404, 422, 503), tags=["jobs"])
    def cancel_job(request: Request, owner: Owner, job_id: str) -> JobView:
        """Stops a job soon; one that has ended stays as it is."""
        service.cancel(owner, job_id)
        return view(request, service.status(owner, job_id))

    served = {"description": "The video, or the picture of a preview without a motion.", "content": {"video/mp4": {}, "image/png": {}}}

    @router.get(
        "/jobs/{job_id}/result", response_class=FileResponse, responses={200: served, **_refusals(401, 404, 409, 422, 503)}, tags=["jobs"]
    )
    def get_result(owner: Owner, job_id: str) -> FileResponse:
        """The finished MP4."""
        status = service.status(owner, job_id)
        path = status.result or status.look
        if path is None:
            raise HTTPException(409, _no_result(status))
        if not path.is_file():  # its time was over just now
            raise UnknownJob("The result of this job is no longer kept.")
        headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
        media_type = "video/mp4" if status.result else "image/png"
        return FileResponse(path, media_type=media_type, filename=f"{status.id}{path.suffix}", headers=headers)

    return router


def _options(text: str) -> AnimateOptions:
    """Options from a JSON object; all defaults where the text is empty."""
    try:
        values = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InputError("options is not JSON; give an object, for example {\"recipe\": \"none\", \"seed\": 7}.") from error
    if not isinstance(values, dict):
        raise InputError("options is JSON, but no object; give one, for example {\"recipe\": \"none\", \"seed\": 7}.")
    return validated(AnimateOptions, values)


def _no_result(status: JobStatus) -> str:
    if status.state == "failed":
        return f"This job failed and has no result: {status.error}"
    if status.state == "cancelled":
        return "This job was stopped and has no result."
    return "This job is not done yet; ask again when its state is 'done'."


def _failure(code: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """In one line of printable characters, whatever the request's own that it repeats."""
    sentence = "".join(c if c.isprintable() else "?" for c in sentence)
    return JSONResponse({"error": sentence if len(sentence) <= 500 else f"{sentence[:497]}..."}, code, headers)


async def _refused(request: Request, error: DreamPoseError) -> JSONResponse:
    code = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, InputError | DiskFull):
        return _failure(code, str(error))
    log.error("%s", error)  # it may name folders of the server
    return _failure(code, "The server cannot store anything at the moment; please try again in a few minutes.")


async def _not_here(request: Request, error: StarletteHTTPException) -> JSONResponse:
    """Refusals made in this module have sentences; those of the framework get some."""
    sentence = error.detail if isinstance(error, HTTPException) else _NOWHERE.get(error.status_code, "The request cannot be understood.")
    return _failure(error.status_code, sentence, error.headers)


async def _not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    return _failure(422, f"{first['loc'][-1]}: {first['msg'][0].lower()}{first['msg'][1:]}.")


async def _gone(request: Request, error: ClientDisconnect) -> JSONResponse:
    return _failure(400, "The request was broken off.")  # nobody reads this


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """The server's log has the rest."""
    return _failure(500, "Something went wrong on the server; please tell the operator when it happened.")
