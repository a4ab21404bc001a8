"""The HTTP API: every endpoint, used well and badly, and the examples that use it. Run: .venv/bin/pytest
tests/test_web_api.py"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from job_worker import GATED, REFUSES
from starlette.testclient import TestClient
from test_jobs_service import files, open_gate, running, stored_request, wait_for  # noqa: F401

from dreampose_core.errors import StorageError
from dreampose_core.jobs.records import MAX_MORE_PHOTOS, THINGS, JobFolder
from dreampose_core.jobs.service import JobService
from dreampose_core.jobs.store import Store
from dreampose_core.media import probe_video
from dreampose_core.settings import EXAMPLES, MAX_SEED, REPOSITORY, AnimateOptions, Settings
from dreampose_core.web.api import build_api
from dreampose_core.web.forms import MAX_TEXT
from dreampose_core.web.links import ResultLinks, add_results
from dreampose_core.web.server import build_app
from tests.serving import running_server
from tests.tiny import make_tiny_model

TOKEN = "a" * 43
ANNA, BEN = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, "b" * 43))
UNKNOWN = "0" * 32
ENDPOINTS = {
    tuple(line.split())
    for line in """post /tokens, get /people, get /motions, post /jobs, post /previews, get /jobs, get /jobs/{job_id},
    patch /jobs/{job_id}, delete /jobs/{job_id}, post /jobs/{job_id}/again, post /jobs/{job_id}/cancel,
    get /jobs/{job_id}/result, get /subjects, delete /subjects/{key}""".split(",")
}
SUBJECTS = {("get", "/subjects"), ("delete", "/subjects/{key}")}  # which need no store
OPEN = {("post", "/tokens"), ("get", "/people"), ("get", "/motions")}
ONE_JOB = [(method, path.format(job_id="{}")) for method, path in sorted(ENDPOINTS) if "{job_id}" in path]
CHANGE = {"json": {"name": "mine"}}  # what one of them needs, and the others leave aside
NO_FILES = {"person_name": "ada", "motion_name": "walk"}


@contextmanager
def make_service(tmp_path: Path, works: bool = False, **settings) -> Iterator[JobService]:
    """A service; where it does not work, jobs wait for ever."""
    given = {"home": tmp_path / "home", "estimator": "none", "secret": "a secret", "max_own": 100}
    settings = Settings(**given | settings)
    with running(settings) if works else JobService(settings) as service:
        yield service


def served(service: JobService) -> FastAPI:
    """The API and the results where the server has them; building the page takes longer than the rest of a test."""
    app, links = FastAPI(), ResultLinks("a secret")
    add_results(app, service.home, links)
    app.mount("/api/v1", build_api(service, links))
    return app


@contextmanager
def client_of(service: JobService) -> Iterator[TestClient]:
    """A client of `served`, with Anna's token."""
    how = {"base_url": "http://testserver/api/v1", "headers": ANNA, "raise_server_exceptions": False}
    with TestClient(served(service), **how) as client:
        client.service = service
        yield client


@pytest.fixture
def service(tmp_path):
    with make_service(tmp_path) as service:
        yield service


@pytest.fixture
def client(service):
    with client_of(service) as client:
        yield client


@pytest.fixture
def working(tmp_path):
    """A client whose jobs are done, by the real light queue and the device queue of job_worker.py."""
    with make_service(tmp_path, works=True) as service, client_of(service) as client:
        yield client


def fails(error: Exception):
    """A method that raises the error."""

    def method(*_, **__):
        raise error

    return method


@pytest.fixture
def unopened(monkeypatch):
    monkeypatch.setattr("PIL.Image.open", fails(AssertionError("the web process opens a picture")))


def form(files: Path, behaviour: int = 0, frames: int = 4, **options) -> dict:  # noqa: F811
    """A submission that the device queue of job_worker.py understands."""
    options = {"recipe": "none", "seed": behaviour, "steps": frames} | options
    named = {
        field: (name, (files / name).read_bytes()) for field, name in (("photo", "anna.png"), ("motion", "walk.npz"))
    }
    return {"files": named, "data": {"options": json.dumps(options), "consent": "true"}}


def save_person(service: JobService, owner: str) -> Path:
    """The folder of a subject of the owner's, as a worker leaves it."""
    folder = service.home / "subjects" / hashlib.sha256(owner.encode()).hexdigest() / ("a" * 32)
    folder.mkdir(parents=True)
    (folder / "photo_000.png").write_bytes(b"x" * 500_000)
    (folder / "photo_poses.npz").write_bytes(b"npz")
    (folder / "subject.json").write_text('{"recipe": "fast", "seed": 7}')
    return folder


def texts(**fields: str) -> dict:
    """A multipart form without files."""
    return {"files": {name: (None, text) for name, text in fields.items()}}


def submitted(client: TestClient, **given) -> str:
    answer = client.post("/jobs", **(given or texts(**NO_FILES)))
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def wait_job(client: TestClient, job: str, reached: Callable[[dict], bool]) -> dict:
    """The job's view once it is so."""

    def asked():
        told = client.get(f"/jobs/{job}").json()
        assert reached(told) or told["state"] not in ("done", "failed", "cancelled"), told
        return told if reached(told) else None

    return wait_for(asked, "the job")


def wait_state(client: TestClient, job: str, state: str) -> dict:
    return wait_job(client, job, lambda told: told["state"] == state)


def wait_gated(client: TestClient, job: str) -> dict:
    """Until the job waits in its middle, and says so."""
    return wait_job(client, job, lambda told: told["num_frames"] == 2 == (told["progress"] or {}).get("step"))


def refused(answer: httpx.Response, status: int) -> str:
    """The sentence; every refusal has one, alone, and says nothing of the server's insides."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert sentence[-1] in ".!" and sentence.isprintable() and len(sentence) <= 500, sentence
    for word in ("Traceback", "/home/", "incoming", "jobs.sqlite3", "a secret", str(REPOSITORY)):
        assert word not in sentence
    return sentence


def on_disk(service: JobService) -> list[str]:
    """All that requests may leave behind in the data folder."""
    folders = [service.home / "jobs", service.home / "incoming"]
    return [str(path.relative_to(service.home)) for folder in folders if folder.is_dir() for path in folder.rglob("*")]


# -- the document, tokens, examples ------------------------------------------------------------------------------------


def test_the_document_lists_exactly_the_endpoints(service):
    with TestClient(build_app(service)) as whole:
        told = whole.get("/api/v1/openapi.json").json()
    assert {(method, path) for path, methods in told["paths"].items() for method in methods} == ENDPOINTS
    assert told["servers"] == [{"url": "/api/v1"}]
    assert told["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    text, schemas = json.dumps(told), told["components"]["schemas"]
    assert (
        set(re.findall(r'"#/components/schemas/([\w-]+)"', text)) == set(schemas) and "HTTPValidationError" not in text
    )
    for path, methods in told["paths"].items():
        for method, endpoint in methods.items():
            assert endpoint["description"] and bool(endpoint.get("security")) == ((method, path) not in OPEN)
            for status, answer in endpoint["responses"].items():
                if not status.startswith("2"):
                    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Failure"}
    body = told["paths"]["/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    fields = "photo motion photo_poses more_photos person_name motion_name options consent"
    assert set(body) == set(fields.split())
    assert (body["more_photos"]["type"], body["more_photos"]["maxItems"]) == ("array", MAX_MORE_PHOTOS)
    assert set(schemas["AnimateOptions"]["properties"]) == set(AnimateOptions.model_fields)


def test_what_is_not_there_is_refused_in_the_same_form(client):
    for path in ("", "/", "/jobs/", "/job", "/jobs/x/y", "/docs", "/redoc", "/tokens/"):
        sentence = refused(client.get(f"http://testserver/api/v1{path or '/'}"), 404)
        assert "/api/v1/openapi.json" in sentence
    for method, path in (
        ("get", "/tokens"),
        ("put", "/jobs"),
        ("put", f"/jobs/{UNKNOWN}"),
        ("get", f"/jobs/{UNKNOWN}/cancel"),
    ):
        assert "method" in refused(client.request(method, path), 405)


def test_a_token_is_made_and_nothing_is_stored(client, service):
    before = sorted(service.home.rglob("*"))
    tokens = {client.post("/tokens", headers={"Authorization": ""}).json()["token"] for _ in range(3)}
    assert len(tokens) == 3 and all(re.fullmatch(r"[0-9A-Za-z_-]{43}", token) for token in tokens)
    for token in tokens:
        assert client.get("/jobs", headers={"Authorization": f"Bearer {token}"}).json() == {"jobs": []}
    assert sorted(service.home.rglob("*")) == before


HEADERS = [None, "", "Bearer", "Bearer ", "Bearer short", f"Bearer {TOKEN}a", f"Bearer {TOKEN[1:]}!", f"Basic {TOKEN}"]


@pytest.mark.parametrize("header", [*HEADERS, TOKEN, f"Bearer {TOKEN} x", f"Bearer {TOKEN[1:]}\xe9"])
def test_without_a_token_nothing_is_shown_or_taken(service, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    asked = 0
    with TestClient(served(service), base_url="http://testserver/api/v1") as stranger:
        for method, path in sorted(ENDPOINTS - OPEN):
            more = texts(**NO_FILES) if path in ("/jobs", "/previews") and method == "post" else {}
            answer = stranger.request(method, path.format(job_id=UNKNOWN, key=UNKNOWN), headers=headers, **more)
            assert "POST /api/v1/tokens" in refused(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
            asked += 1
    assert asked == len(ENDPOINTS - OPEN) and on_disk(service) == []


def test_shipped_people_and_motions_are_named(client):
    people, motions = client.get("/people").json()["people"], client.get("/motions").json()["motions"]
    assert "ada" in people and all((EXAMPLES / "people" / f"{name}.png").is_file() for name in people)
    assert "walk" in motions and all((EXAMPLES / "motions" / f"{name}.npz").is_file() for name in motions)


# -- jobs from their beginning to their end ----------------------------------------------------------------------------


def test_a_job_from_its_files_to_its_video(working, files):  # noqa: F811
    answer = working.post("/jobs", **form(files, GATED, mirror=True))
    told = answer.json()
    assert answer.status_code == 202 and told["state"] == "queued"
    job = told["id"]
    assert told["links"] == {"status": f"/api/v1/jobs/{job}", "cancel": f"/api/v1/jobs/{job}/cancel", "result": None}
    assert "not done yet" in refused(working.get(f"/jobs/{job}/result"), 409)
    told = wait_gated(working, job)
    expected = {"state": "running", "place": 0, "error": None, "code": None, "kind": "animate", "title": "anna-walk"}
    assert told | expected | {"chunks": [], "things": {}} == told
    assert told["progress"] | {"stage": "frames", "step": 2, "total": 4} == told["progress"]
    assert told["options"] == AnimateOptions(recipe="none", seed=GATED, steps=4, mirror=True).model_dump()
    assert told["losses"] == [1, 1 / 2, 1 / 3]
    folder = JobFolder(working.service.home / "jobs" / job)
    folder.chunks.mkdir()
    for number in range(2):
        (folder.chunks / f"{number:06d}.mp4").write_bytes(b"chunk %d" % number)
    told = working.get(f"/jobs/{job}").json()
    with TestClient(working.app) as anybody:
        assert [anybody.get(link).content for link in told["chunks"]] == [b"chunk 0", b"chunk 1"]
        assert anybody.get(told["picture"]).content == b"frame 0"
    open_gate(working.service)
    told = wait_state(working, job, "done")
    assert (told["num_frames"], told["notices"][-1]) == (4, "A sentence about a fall-back.")
    assert told["megabytes"] == 0 and len(told["chunks"]) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", told["created"])
    video = working.get(f"/jobs/{job}/result")
    assert (video.status_code, video.content, video.headers["content-type"]) == (200, b"video", "video/mp4")
    assert f'filename="{job}.mp4"' in video.headers["content-disposition"]
    assert "private" in video.headers["cache-control"]
    with TestClient(working.app) as anybody:  # a link works without a token, and not when it is changed
        link = told["links"]["result"]
        assert link.startswith(f"/results/{job}/") and anybody.get(link).content == b"video"
        assert anybody.get(link[:-9] + ("0" if link[-9] != "0" else "1") + link[-8:]).status_code == 404
        assert anybody.get(told["chunks"][0].replace("chunk_000000", "chunk_000001")).status_code == 404
    assert [one["id"] for one in working.get("/jobs").json()["jobs"]] == [job]
    assert not list((working.service.home / "incoming").iterdir())


def test_another_owner_is_answered_as_if_the_job_did_not_exist(working, files):  # noqa: F811
    done, waiting = submitted(working, **form(files)), submitted(working, **form(files, GATED))
    wait_state(working, done, "done")
    wait_gated(working, waiting)
    for job in (done, waiting):
        for method, path in ONE_JOB:
            theirs, none = (working.request(method, path.format(i), headers=BEN, **CHANGE) for i in (job, UNKNOWN))
            assert refused(theirs, 404) == refused(none, 404) and theirs.headers == none.headers
    assert working.get("/jobs", headers=BEN).json() == {"jobs": []}
    assert [one["id"] for one in working.get("/jobs").json()["jobs"]] == [waiting, done]
    assert working.get(f"/jobs/{waiting}").json()["state"] == "running"
    assert working.get(f"/jobs/{done}/result").content == b"video"  # what the others did not get is there
    working.post(f"/jobs/{waiting}/cancel")
    wait_state(working, waiting, "cancelled")


def test_a_job_is_stopped_once_and_for_all(client, service):
    job = submitted(client)
    for _ in range(2):
        answer = client.post(f"/jobs/{job}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert client.get(f"/jobs/{job}").json()["state"] == "cancelled"
    assert "stopped" in refused(client.get(f"/jobs/{job}/result"), 409)


def test_a_job_is_renamed_repeated_and_deleted(working, files):  # noqa: F811
    job = submitted(working, **form(files))
    done = wait_state(working, job, "done")
    assert done["name"] is None
    assert working.patch(f"/jobs/{job}", json={"name": " Anna  <b>walks</b> "}).json()["name"] == "Anna <b>walks</b>"
    assert "1 to 60 letters" in refused(working.patch(f"/jobs/{job}", json={"name": ""}), 422)
    again = working.post(f"/jobs/{job}/again", json={"recipe": "fast"})
    assert again.status_code == 202
    options = wait_state(working, again.json()["id"], "done")["options"]
    assert options == done["options"] | {"recipe": "fast"}
    better = working.post(f"/jobs/{job}/again", json={"quality": "best"}).json()["id"]
    options = working.get(f"/jobs/{better}").json()["options"]
    assert options == done["options"] | {"quality": "best", "steps": None}, "own steps would override it"
    assert working.service.status("a" * 43, better).request.consent == "given"
    assert "quality" in refused(working.post(f"/jobs/{job}/again", json={"quality": "perfect"}), 422)
    assert working.delete(f"/jobs/{better}").status_code == 204
    assert working.delete(f"/jobs/{job}").status_code == 204
    refused(working.get(f"/jobs/{job}"), 404)
    assert [one["id"] for one in working.get("/jobs").json()["jobs"]] == [again.json()["id"]]


def test_everything_that_can_be_kept_is_served(working, files):  # noqa: F811
    job = submitted(working, **form(files))
    wait_state(working, job, "done")
    for name in ("side_by_side.mp4", "result.gif", "result.json"):
        (working.service.home / "jobs" / job / name).write_bytes(name.encode())
    things = working.get(f"/jobs/{job}").json()["things"]
    assert list(things) == list(THINGS) and things["gif"].split("?")[0].endswith("/anna-walk-gif.gif")
    types = ["video/mp4", "video/mp4", "image/gif", "application/zip", "application/json", "application/octet-stream"]
    with TestClient(working.app) as anybody:
        answers = {thing: anybody.get(f"{link}&download=1") for thing, link in things.items()}
        assert [answer.headers["content-type"].partition(";")[0] for answer in answers.values()] == types
        assert all(answer.headers["content-disposition"].startswith("attachment") for answer in answers.values())
        with zipfile.ZipFile(io.BytesIO(answers["frames"].content)) as archive:
            assert len(archive.namelist()) == 4 and archive.read("000001.png") == b"frame 1"
        for link, thing in itertools.product(things.values(), ("photo", "video", "frames", "../request")):
            other = re.sub(r"^(/results/\w+)/\w+/", rf"\1/{thing}/", link)
            assert other == link or anybody.get(other).status_code == 404, "a link is for its thing alone"


def test_what_is_not_kept_is_not_repeated(client, service):
    job = submitted(client)
    assert "please choose it again" in refused(client.post(f"/jobs/{job}/again", json={}), 422), "not decoded yet"
    assert [one["id"] for one in client.get("/jobs").json()["jobs"]] == [job]


def test_subjects_are_listed_and_deleted_by_their_owner(working):
    assert working.get("/subjects").json() == {"subjects": []}
    folder = save_person(working.service, TOKEN)
    (one,) = working.get("/subjects").json()["subjects"]
    assert one["recipe"] == "fast" and one["megabytes"] == 0.5
    outside = TestClient(working.app, base_url="http://testserver")
    assert outside.get(one["picture"]).content == b"x" * 500_000
    with zipfile.ZipFile(io.BytesIO(outside.get(one["weights"]).content)) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 3
    assert "no such person" in refused(working.delete(f"/subjects/{'b' * 32}"), 422)
    other = {"Authorization": f"Bearer {'c' * 43}"}
    assert working.get("/subjects", headers=other).json() == {"subjects": []}
    assert "no such person" in refused(working.delete(f"/subjects/{one['key']}", headers=other), 422)
    assert working.delete(f"/subjects/{one['key']}").status_code == 204 and not folder.exists()


def test_a_job_that_fails_says_why(working, files):  # noqa: F811
    job = submitted(working, **form(files, REFUSES))
    told = wait_state(working, job, "failed")
    assert (told["code"], told["error"]) == ("input", "The photo shows nobody; please choose another.")
    assert told["links"]["result"] is None
    assert "shows nobody" in refused(working.get(f"/jobs/{job}/result"), 409)
    assert working.post(f"/jobs/{job}/cancel").json()["state"] == "failed"


def test_previews_of_both_and_of_the_photo_alone(working, files):  # noqa: F811
    given = form(files)
    both = working.post("/previews", **given).json()["id"]
    alone = working.post("/previews", **texts(person_name="ada")).json()["id"]
    told = wait_state(working, both, "done")
    assert told["kind"] == "preview" and told["links"]["result"]
    video = working.get(f"/jobs/{both}/result")
    assert video.headers["content-type"] == "video/mp4" and b"ftyp" in video.content[:16]
    wait_state(working, alone, "done")
    picture = working.get(f"/jobs/{alone}/result")
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    assert working.get("/jobs").json() == {"jobs": []}
    assert "A preview needs" in refused(working.post("/previews", **texts(options="{}")), 422)


# -- what may be submitted ---------------------------------------------------------------------------------------------


def test_examples_stand_for_files_with_what_belongs_to_them(client, service):
    job = submitted(client)
    stored = stored_request(service, job)
    assert (stored.image.name, stored.poses.name, stored.image_poses.name) == ("ada.png", "walk.npz", "ada.poses.npz")
    assert stored.options == AnimateOptions()
    copied = service.home / "jobs" / job / "input"
    assert (copied / "upload-image.png").read_bytes() == (EXAMPLES / "people" / "ada.png").read_bytes()


def test_more_photos_are_a_field_that_is_repeated(client, service):
    motion, agreed = ("motion_name", (None, "walk")), ("consent", (None, "true"))
    photos = [("more_photos", (f"{name}.png", name.encode())) for name in ("side", "back", "side")]
    job = client.post("/jobs", files=[("photo", ("front.png", b"front")), motion, agreed, *photos]).json()["id"]
    folder = service.home / "jobs" / job
    stored = stored_request(service, job)
    assert [upload.name for upload in stored.more_images] == ["side.png", "back.png", "side.png"]
    contents = [(folder / "input" / f"upload-more_{index}.png").read_bytes() for index in range(3)]
    assert contents == [b"side", b"back", b"side"]
    assert not list((service.home / "incoming").iterdir())
    look = client.post("/previews", files=[("photo", ("front.png", b"front")), motion, agreed, *photos]).json()["id"]
    assert not stored_request(service, look).more_images
    five = [("more_photos", ("a.png", b"a"))] * (MAX_MORE_PHOTOS + 1)
    before = on_disk(service)
    assert "5 more photos are given; at most 4" in refused(
        client.post("/jobs", files=[("person_name", (None, "ada")), motion, *five]), 422
    )
    assert "more_photos is given as a text" in refused(
        client.post("/jobs", files=[motion, ("more_photos", (None, "a"))]), 422
    )
    assert on_disk(service) == before
    sent = [("photo", "front.png", b"front"), ("motion_name", None, b"walk"), ("consent", None, b"true")]
    sent += [("more_photos", "", b""), ("more_photos", "side.png", b"side")]
    status, told, _ = ask(service, [multipart(sent)])  # a browser sends a field without a file so
    stored = stored_request(service, told["id"])
    assert [upload.name for upload in stored.more_images] == ["side.png"]
    answer = client.post("/jobs", files=[("person_name", (None, "ada")), motion, *photos])
    assert "the person in the photo agreed" in refused(answer, 422), "the further photos show a person, too"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"options": ""}, "needs a photo or a person_name"),
        ({"person_name": "ada"}, "a motion or a motion_name"),
        ({"motion_name": "walk"}, "A video needs"),
        ({"person_name": "", "motion_name": "walk"}, "A video needs"),
        ({"person_name": "eve", "motion_name": "walk"}, "person_name is 'eve'; these are shipped: ada, "),
        ({"person_name": "ada", "motion_name": "walk.npz"}, "motion_name is 'walk.npz'"),
        *(
            ({"person_name": "ada", "motion_name": name}, "motion_name is ")
            for name in ("../people/ada", "/etc/passwd", "..", "walk\x00", "%2e%2e/walk", "walk\u202e\n", "x" * 5000)
        ),
        (NO_FILES | {"model": "/etc"}, "There is no field 'model'"),
        (NO_FILES | {"photo": "/etc/passwd"}, "photo is given as a text; send it as a file"),
    ],
)
def test_wrong_fields_are_one_sentence(client, service, fields, words):
    assert words in refused(client.post("/jobs", **texts(**fields)), 422)
    assert on_disk(service) == []
    assert client.get("/jobs").json() == {"jobs": []}


@pytest.mark.parametrize("consent", [{}, {"consent": ""}, {"consent": "no"}, {"consent": "false"}])
def test_only_who_agreed_is_moved(client, service, files, consent):  # noqa: F811
    given = form(files)["files"]
    for path in ("/jobs", "/previews"):
        assert "the person in the photo agreed" in refused(client.post(path, files=given, data=consent), 422)
    assert on_disk(service) == []
    looked_at = client.post("/previews", files={"photo": given["photo"]}, data=consent)
    assert looked_at.status_code == 202
    jobs = submitted(client, **texts(**NO_FILES)), submitted(client, files=given, data={"consent": "True"})
    assert [stored_request(service, job).consent for job in jobs] == ["drawn", "given"]


def test_a_file_and_an_example_at_once_are_refused(client, service, files):  # noqa: F811
    given = form(files)["files"]
    for file, name in (("photo", "person_name"), ("motion", "motion_name")):
        answer = client.post("/jobs", files=given, data={name: NO_FILES[name]})
        assert f"Both {file} and {name} are given" in refused(answer, 422)
    assert on_disk(service) == []


@pytest.mark.parametrize(
    "options, words",
    [
        *(
            (text, "options is no JSON object")
            for text in ("{", "seed=7", "[" * 9000, "7" * 6000, "[]", "null", '"fast"')
        ),
        ('{"sed": 7}', "sed: "),
        ('{"home": "/etc"}', "home: "),
        ('{"self": 1}', "self: "),
        ('{"__class__": 1}', "class"),
        ('{"\\ud800": 1}', "unicode"),
        ('{"seed\\n\\u0000": 1}', "seed??: "),
        *(
            (f'{{"seed": {value}}}', "seed: ")
            for value in (-1, MAX_SEED + 1, '"\\ud800"', "1e999", '"fast"', '{"seed": 7}')
        ),
        ('{"steps": 0}', "steps: "),
        ('{"steps": null, "fps": NaN}', "fps: "),
        ('{"fps": Infinity}', "fps: "),
        ('{"recipe": "best"}', "recipe: "),
        ('{"recipe": ["none"]}', "recipe: "),
        ('{"loops": 101}', "loops: "),
        ('{"batch_size": 65}', "batch size: "),
    ],
)
def test_wrong_options_are_one_sentence(client, service, options, words):
    assert words in refused(client.post("/jobs", **texts(**NO_FILES, options=options)), 422)
    assert on_disk(service) == []


def test_options_are_taken_as_a_text_or_a_file(client, service):
    for part in ((None, '{"seed": 7}'), ("options.json", '{"seed": 7}', "application/json")):
        answer = client.post("/jobs", files={name: (None, text) for name, text in NO_FILES.items()} | {"options": part})
        assert client.get(f"/jobs/{answer.json()['id']}").json()["options"]["seed"] == 7
    job = submitted(client, **texts(**NO_FILES, options=" "))
    assert client.get(f"/jobs/{job}").json()["options"] == AnimateOptions().model_dump()


HOSTILE_NAMES = {
    "../../evil.png": "evil.png",
    "/etc/passwd": "passwd",
    "..\\..\\evil.png": "evil.png",
    "..": "photo",
    ".": "photo",
    "a/..": "photo",
    "C:\\Windows\\evil.png": "evil.png",
    "$(reboot).png": "_(reboot).png",
    "-rf.png": "-rf.png",
    "a\x00b.png": "a_b.png",
    "%2e%2e%2fevil.png": "_2e_2e_2fevil.png",
    "Фото.png": "Фото.png",
    "é" * 300 + ".png": "é" * 56 + ".png",
    ".png": "png",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=[ascii(name)[:20] for name in HOSTILE_NAMES])
def test_names_of_files_lead_nowhere(service, tmp_path, name):
    body = multipart([("photo", name, b"a photo"), ("motion_name", None, b"walk"), ("consent", None, b"true")])
    before = set(tmp_path.rglob("*"))
    status, told, _ = ask(service, [body])
    assert status == 202, told
    stored = stored_request(service, told["id"])
    assert stored.image.name == HOSTILE_NAMES[name] and stored.image_poses is None
    folder = JobFolder(service.home / "jobs" / told["id"])
    assert folder.upload(folder.image, stored.image).read_bytes() == b"a photo"
    job, incoming = service.home / "jobs" / told["id"], service.home / "incoming"
    assert {
        path for path in set(tmp_path.rglob("*")) - before if path not in (job, incoming) and job not in path.parents
    } == set()


def test_files_are_never_opened_in_this_process(client, unopened):
    hostile = {"photo": ("a.png", b"\x89PNG hostile"), "motion": ("a.npz", b"PK hostile")}
    assert submitted(client, files=hostile, data={"consent": "true"})


@pytest.mark.parametrize(
    "hostile", ["x", "..", "%2e%2e", "' OR 1=1 --", "%00", "a" * 5000, "-1", "null", "0" * 31 + "g", "0" * 33, "%ff"]
)
def test_ids_that_are_none_get_the_same_answer_as_unknown_ones(client, service, hostile):
    for method, path in ONE_JOB:
        expected = refused(client.request(method, path.format(UNKNOWN), **CHANGE), 404)
        answer = client.request(method, f"http://testserver/api/v1{path.format(hostile)}", **CHANGE)
        assert refused(answer, 404) in (expected, refused(client.get("/nowhere"), 404))
    for path in ("/jobs/..%2f..%2fsecret", "/jobs/%2e%2e/%2e%2e/secret", f"/jobs/{UNKNOWN}/..%2fresult"):
        refused(client.get(f"http://testserver/api/v1{path}"), 404)


# -- bodies as they come over the wire ---------------------------------------------------------------------------------


def split(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]


def multipart(parts: Iterable[tuple[str, str | None, bytes]], end: bytes = b"--edge--\r\n") -> bytes:
    """A body of (field, file name, content), with the boundary "edge"."""
    body = b""
    for field, name, content in parts:
        given = "" if name is None else f'; filename="{name}"'
        body += b'--edge\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
            field.encode(),
            given.encode(),
            content,
        )
    return body + end


def asgi(app: FastAPI, path: str, blocks: Iterable[bytes], vanish: bool = False, **headers: str):
    """POST a form over ASGI: the status, the answer, and how many blocks of the body were read. vanish: the client goes
    after the last block."""
    given = {"host": "testserver", "content-type": "multipart/form-data; boundary=edge"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    scope |= {"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""}
    scope |= {"server": ("testserver", 80), "client": ("1.2.3.4", 5)}
    scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    waiting, num_read, sent = iter(blocks), 0, []

    async def receive() -> dict:
        nonlocal num_read
        block = next(waiting, None)
        if block is None:
            return {"type": "http.disconnect"} if vanish else {"type": "http.request", "body": b"", "more_body": False}
        num_read += 1
        return {"type": "http.request", "body": block, "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:])), num_read


def ask(service: JobService, body: Iterable[bytes], vanish: bool = False, **headers: str) -> tuple[int, dict, int]:
    """`asgi` for /jobs."""
    return asgi(served(service), "/api/v1/jobs", body, vanish, authorization=ANNA["Authorization"], **headers)


def test_what_is_too_large_is_cut_off_while_it_is_read(tmp_path):
    with make_service(tmp_path, max_upload_mb=1) as service:
        head, blocks = multipart([("photo", "big.png", b"")], end=b"")[:-2], [bytes(1 << 16)] * 1000
        # before the first part anything may stand, so the whole is counted, too
        for body in ([head, *blocks], [b"\r" + blocks[0]] * 1000):
            status, told, num_read = ask(service, body)
            assert status == 413 and "request is too large" in told["error"]
            assert num_read < 16 * (3 + MAX_MORE_PHOTOS + 1) + 2
        head = multipart([("options", None, b"")], end=b"")[:-2]
        status, told, num_read = ask(service, [head, *[b" " * 1000] * 1000])
        assert status == 413 and f"more than {MAX_TEXT} bytes" in told["error"] and num_read <= 20
        assert on_disk(service) == []
        largest, consent = bytes(1 << 20), ("consent", None, b"true")
        more = [("more_photos", "c.png", largest)] * 4
        for parts in ([("motion", "b.npz", largest)], [("motion", "b", b"b"), *more]):
            status, told, _ = ask(service, split(multipart([("photo", "a.png", largest), *parts, consent]), 50_000))
            assert status == 202, told  # the most that is accepted is accepted
        before = on_disk(service)
        large = multipart([("more_photos", "c.png", b"c"), ("more_photos", "large.png", largest + b"x")])
        status, told, _ = ask(service, [large])
        assert (status, told) == (413, {"error": "large.png is larger than 1 MB, the most that is accepted."})
        assert on_disk(service) == before


def test_a_client_that_goes_away_leaves_nothing_behind(service):
    whole = multipart([("photo", "a.png", bytes(200_000)), ("motion", "b.npz", bytes(200_000))])
    for share in (10, 100, 150_000, 300_000):
        status, _, _ = ask(service, [whole[:share]], vanish=True)
        assert status == 400 and on_disk(service) == []


EXAMPLE = [("person_name", None, b"ada"), ("motion_name", None, b"walk")]


def test_bodies_that_are_no_form_or_cut_short_are_one_sentence(service):
    whole = multipart([*EXAMPLE, ("photo_poses", "p.npz", b"poses")])
    bodies = dict.fromkeys((b"", whole[:-20], whole[: len(whole) // 2]), "ends before")
    odd = [b"hello", whole.replace(b"edge", b"hedge"), whole.replace(b"Content-Disposition", b"Content")]
    odd += [b"--edge\r\n" + b"A: b\r\n" * 1000, b"--edge\r\n" + b"a" * 100_000]
    bodies |= dict.fromkeys(odd, "not the multipart")
    bodies[multipart([("photo", "a", b"1"), ("photo", "a", b"2")])] = "photo is given twice"
    bodies[multipart([("options", None, b"{}")] * 2)] = "options is given twice"
    bodies[multipart([("../photo", "a", b"1")])] = "no field '../photo'"
    bodies[multipart([("x" * 3000, "a", b"1")])] = "no field 'xxx"
    for body, words in bodies.items():
        for blocks in ([body], [*split(body[:3000], 6), body[3000:]]):
            status, told, _ = ask(service, blocks)
            assert status == 422 and words in told["error"], (body[:60], told)
    form = "multipart/form-data"
    for kind in ("application/json", "application/x-www-form-urlencoded", form, f"{form}; boundary=", ""):
        status, told, num_read = ask(service, [whole], content_type=kind)
        assert status == 422 and form in told["error"] and num_read == 0
    assert ask(service, [whole], content_type=f"{form}; boundary={'e' * 5000}")[0] == 422
    assert on_disk(service) == []
    assert ask(service, split(whole, 1))[0] == 202, "whole, in whatever blocks"


def test_a_field_in_which_no_file_was_chosen_is_as_if_it_were_not_there(service):
    assert ask(service, [multipart([("photo", "", b""), *EXAMPLE, ("motion", "", b"")])])[0] == 202


def test_a_disk_that_takes_no_file_is_said(client, service, monkeypatch):
    (service.home / "incoming").write_text("in the way")
    assert "cannot store anything" in refused(client.post("/jobs", files={"photo": ("a.png", b"a")}), 503)


# -- submitting again, and too much ------------------------------------------------------------------------------------


def test_the_same_key_is_one_job(client, service):
    def job(key: str, headers=ANNA, **fields) -> str:
        answer = client.post("/jobs", headers=headers | {"Idempotency-Key": key}, **texts(**NO_FILES | fields))
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    first = job("a key")
    assert job("a key") == first == job("a key", motion_name="turn")
    assert len({first, job("another"), job("a key", BEN), submitted(client), submitted(client)}) == 5
    assert len(client.get("/jobs").json()["jobs"]) == 4
    job("~" * 100)


@pytest.mark.parametrize("key", ["", "x" * 101, "caf\xe9", "tab\there"])
def test_keys_that_are_none_are_refused(client, service, key):
    answer = client.post("/jobs", headers={"Idempotency-Key": key.encode("latin-1")}, **texts(**NO_FILES))
    assert "idempotency-key: " in refused(answer, 422).lower() and client.get("/jobs").json() == {"jobs": []}


@pytest.mark.parametrize(
    "limits, words", [({"max_queue": 2}, "The queue is full (2 jobs"), ({"max_own": 2}, "2 of your jobs")]
)
def test_too_many_jobs_are_refused_before_their_files_are_read(tmp_path, limits, words):
    with make_service(tmp_path, **limits) as service, client_of(service) as client:
        known = client.post("/jobs", headers={"Idempotency-Key": "k"}, **texts(**NO_FILES)).json()["id"]
        submitted(client)
        body = multipart([("photo", "a.png", b"photo"), ("motion", "b.npz", b"motion")])
        status, told, num_read = ask(service, [body])
        assert status == 429 and words in told["error"] and num_read == 0
        status, told, num_read = ask(service, [body], idempotency_key="k")
        assert (status, told["id"], num_read) == (202, known, 0)
        client.post(f"/jobs/{known}/cancel")
        submitted(client)  # there is room again


def test_results_that_take_too_much_are_429_and_a_full_disk_is_503(client, service, monkeypatch):
    usage = shutil.disk_usage(service.home)._replace(free=1 << 20)
    monkeypatch.setattr("dreampose_core.jobs.service.shutil.disk_usage", lambda path: usage)
    assert "less than 200 MB left" in refused(client.post("/jobs", **texts(**NO_FILES)), 503)
    monkeypatch.undo()
    job = submitted(client)
    (service.home / "jobs" / job / "result.mp4").write_bytes(bytes(2_000_000))
    client.post(f"/jobs/{job}/cancel")
    monkeypatch.setattr(service, "settings", service.settings.model_copy(update={"max_own_mb": 1}))
    assert "Your results take" in refused(client.post("/jobs", **texts(**NO_FILES)), 429)


def test_what_breaks_inside_is_not_told(client, service, monkeypatch, caplog):
    locked = StorageError(f"The job store {service.home}/jobs.sqlite3 cannot be used: locked.")
    monkeypatch.setattr(service, "status", fails(locked))
    assert "try again" in refused(client.get(f"/jobs/{UNKNOWN}"), 503)
    assert "jobs.sqlite3" in caplog.text  # the operator is told
    monkeypatch.setattr(service, "jobs", fails(ValueError(f"a detail in {service.home}")))
    assert "tell the operator" in refused(client.get("/jobs"), 500)
    monkeypatch.undo()
    closed = Store(service.home / "jobs.sqlite3")
    closed.close()
    monkeypatch.setattr(service, "store", closed)
    for method, path in sorted(ENDPOINTS - OPEN - SUBJECTS):
        more = texts(**NO_FILES) if (method, path) in (("post", "/jobs"), ("post", "/previews")) else CHANGE
        refused(client.request(method, path.format(job_id=UNKNOWN, key=UNKNOWN), **more), 503)


# -- the examples, on the real server ----------------------------------------------------------------------------------


def program(*arguments: object) -> str:
    """The output of a program that must succeed."""
    given = {"cwd": REPOSITORY, "env": {**os.environ, "no_proxy": "127.0.0.1"}, "text": True, "timeout": 300}
    done = subprocess.run([*map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **given)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_below_a_path_of_a_reverse_proxy(tmp_path):
    """The proxy takes /dream off; every address that the server writes begins with it."""
    seen = {"Host": "example.org", "X-Forwarded-Host": "example.org", "X-Forwarded-Proto": "https"}
    with (
        running_server(tmp_path / "home", make_tiny_model(tmp_path / "model"), root_path="/dream") as server,
        httpx.Client(base_url=server.url, headers=ANNA | seen, trust_env=False, timeout=60) as client,
    ):
        page = client.get("/").text
        assert "https://example.org/dream" in page and server.url not in page
        links = client.post("/api/v1/previews", **texts(**NO_FILES)).json()["links"].values()
        assert all(link is None or link.startswith("/dream/") for link in links)
        assert client.get(next(iter(links)).removeprefix("/dream")).is_success


@pytest.mark.skipif(shutil.which("curl") is None, reason="the example needs curl")
def test_the_examples_and_a_file_that_is_too_large_on_the_real_server(tmp_path):
    with running_server(tmp_path / "home", make_tiny_model(tmp_path / "model"), max_upload_mb=1) as server:
        assert "bytes in" in program(sys.executable, "-m", "examples.api_client", server.url, tmp_path / "python.mp4")
        assert program("bash", "examples/api.sh", server.url, tmp_path / "curl.mp4").split()[-2] == "done"
        for name in ("python.mp4", "curl.mp4"):
            assert probe_video(tmp_path / name).num_frames == 60
        files = {"photo": ("big.png", bytes(5 << 20))}
        answer = httpx.post(f"{server.url}/api/v1/jobs", files=files, headers=ANNA, trust_env=False, timeout=60)
        assert "big.png is larger than 1 MB" in refused(answer, 413)
        (tmp_path / "big.png").write_bytes(bytes(20 << 20))
        given = "-H", f"Authorization: {ANNA['Authorization']}", "-F", f"photo=@{tmp_path / 'big.png'}"
        said = program("curl", "-sS", *given, f"{server.url}/api/v1/jobs")
        assert "1 MB is the most that is accepted for a file" in json.loads(said)["error"]
        assert not list((tmp_path / "home" / "incoming").iterdir())


def test_the_examples_say_a_refusal_in_one_sentence(tmp_path):
    given = {"cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 120}
    for name in ("api_client", "gradio_api"):
        done = subprocess.run([sys.executable, "-m", f"examples.{name}"], **given)
        assert done.returncode == 1 and f"python -m examples.{name} http" in done.stderr
        assert "Traceback" not in done.stderr
    done = subprocess.run(["bash", "examples/api.sh"], **given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
