"""The named Gradio endpoints: every one, used well and badly, and the example that uses them.

Run: .venv/bin/pytest tests/test_web_endpoints.py
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from gradio_client.utils import construct_args
from pydantic import Field
from starlette.testclient import TestClient
from test_jobs_service import command, files, wait_for  # noqa: F401
from test_web_api import make_service

from dreampose_core.errors import StorageError
from dreampose_core.jobs.records import THINGS, StoredRequest
from dreampose_core.jobs.service import JobService
from dreampose_core.media import probe_video
from dreampose_core.poses import read_poses
from dreampose_core.settings import EXAMPLES, REPOSITORY, AnimateOptions, MotionOptions, Options, SceneOptions
from dreampose_core.web.endpoints import _parameters
from dreampose_core.web.programs import FILES, TEXTS
from dreampose_core.web.server import build_app
from tests.serving import Layout, Server
from tests.tiny import make_tiny_model

ANNA, BEN = "a" * 43, "b" * 43
UNKNOWN = "0" * 32
NO_FILES = {"person_name": "ada", "motion_name": "walk"}
ENDPOINTS = {
    "make_token": [],
    "list_people": [],
    "list_motions": [],
    "submit_job": ["token", *FILES, *TEXTS, *AnimateOptions.model_fields],
    "submit_preview": ["token", *FILES, *TEXTS, *SceneOptions.model_fields],
    "submit_motion": ["token", *MotionOptions.model_fields],
    "list_jobs": ["token"],
    "show_job": ["job", "token"],
    "cancel_job": ["job", "token"],
    "get_result": ["job", "token", "thing"],
}
ONE_JOB = ("show_job", "cancel_job", "get_result")


class Asked:
    """A whole server in this process, asked as gradio_client asks: with the defaults that the endpoints' description
    gives."""

    def __init__(self, client: TestClient, service: JobService):
        self.http, self.service = client, service
        [self.page] = [
            route.app.get_blocks() for route in client.app.routes if hasattr(getattr(route, "app", None), "get_blocks")
        ]
        self.info = client.get("/gradio_api/info").json()["named_endpoints"]

    def answer(self, name: str, **given):
        data = construct_args(self.info[f"/{name}"]["parameters"], (), given)
        headers = {"Content-Type": "application/json"}  # json.dumps takes half a character, too, which httpx does not
        return self.http.post(f"/gradio_api/run/{name}", content=json.dumps({"data": data}), headers=headers)

    def __call__(self, name: str, **given):
        """What the endpoint gives."""
        answer = self.answer(name, **given)
        assert answer.status_code == 200, answer.text
        [value] = answer.json()["data"]
        return value

    def refused(self, name: str, **given) -> str:
        """The sentence; every refusal has one, which says nothing of the server's insides."""
        answer = self.answer(name, **given)
        assert answer.status_code == 500, answer.text
        sentence = answer.json()["error"]
        assert sentence and sentence[-1] in ".!" and sentence.isprintable() and len(sentence) <= 500, sentence
        for word in ("Traceback", "/home/", "jobs.sqlite3", "a secret", str(REPOSITORY), str(self.service.home)):
            assert word not in answer.text
        return sentence

    def upload(self, name: str, content: bytes) -> dict:
        """A file as gradio_client names it after it has sent it."""
        [path] = self.http.post("/gradio_api/upload", files={"files": (name, content)}).json()
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def jobs(self) -> list[str]:
        """Of everybody, on the disk."""
        return sorted(path.name for path in (self.service.home / "jobs").iterdir())


def asked_of(tmp_path: Path, **more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "home" / "uploads"))  # as app.py does
        with make_service(tmp_path, **more) as service, TestClient(build_app(service.settings, service)) as client:
            yield Asked(client, service)


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A server whose jobs wait for ever; the page is built once."""
    yield from asked_of(tmp_path_factory.mktemp("endpoints"), max_queue=1000)


@pytest.fixture
def working(tmp_path):
    """A server whose jobs are done, by the real light queue and the device queue of job_worker.py."""
    yield from asked_of(tmp_path, workers=command)


def done(ask: Asked, job: str, owner: str = ANNA) -> dict:
    def reached():
        record = ask("show_job", job=job, token=owner)
        assert record["state"] not in ("failed", "cancelled"), record
        return record if record["state"] == "done" else None

    return wait_for(reached, "the job to be done")


def fetched(ask: Asked, **given) -> bytes:
    """What lies at the address that get_result gives; whoever has it may fetch it."""
    address = ask("get_result", **given)
    assert address.startswith(f"http://testserver/results/{given['job']}/")
    answer = ask.http.get(address)
    assert answer.status_code == 200, answer.text
    return answer.content


# -- what is described -------------------------------------------------------------------------------------------------


def test_exactly_the_endpoints_are_public_and_each_is_described(ask):
    dependencies = ask.http.get("/config").json()["dependencies"]
    public = {d["api_name"] for d in dependencies if d["api_visibility"] != "private"}
    assert public == set(ENDPOINTS) == {name.removeprefix("/") for name in ask.info}
    for name, expected in ENDPOINTS.items():
        told = ask.info[f"/{name}"]
        assert told["description"][-1] == "." and [p["parameter_name"] for p in told["parameters"]] == expected
        for parameter in told["parameters"]:
            assert parameter["python_type"]["description"].endswith("."), (name, parameter["parameter_name"])
            required = parameter["parameter_name"] in ("token", "job")
            assert parameter["parameter_has_default"] != required and parameter["python_type"]["type"] != "Any", (
                parameter
            )
        [answer] = told["returns"]
        assert answer["python_type"]["description"] and answer["python_type"]["type"] != "Any"


def test_types_defaults_and_ranges_are_those_of_the_options(ask):
    told = {p["parameter_name"]: p for p in ask.info["/submit_job"]["parameters"]}
    types = {name: parameter["python_type"]["type"] for name, parameter in told.items()}
    assert types["photo"] == types["motion"] == types["photo_poses"] == "filepath"
    assert (types["recipe"], types["seed"], types["align"]) == (
        "Literal['none', 'fast', 'paper']",
        "int",
        "Literal['body', 'outline', 'none']",
    )
    assert (types["person_name"], types["steps"], types["fps"]) == (
        "str",
        "int",
        "float",
    )  # to which gradio_client adds None
    for options, name in (
        (AnimateOptions, "submit_job"),
        (SceneOptions, "submit_preview"),
        (MotionOptions, "submit_motion"),
    ):
        told = {p["parameter_name"]: p for p in ask.info[f"/{name}"]["parameters"]}
        assert {field: told[field]["parameter_default"] for field in options.model_fields} == options().model_dump()
    words = {p["parameter_name"]: p["python_type"]["description"] for p in ask.info["/submit_job"]["parameters"]}
    assert (
        "1 to 250." in words["steps"] and "0 to 2147483647." in words["seed"] and "0 or more." in words["first_frame"]
    )
    [record] = ask.info["/show_job"]["returns"]
    for part in (
        "state: Literal['queued', ",
        "seconds_left: float | None",
        "num_frames: int (Frames finished.)",
        "quality: Literal[",
    ):
        assert part in record["python_type"]["type"]


def test_a_field_that_must_be_given_comes_before_those_with_defaults():
    class Strict(Options):
        steps: int = 1
        agreed: bool = Field()

    found = _parameters(("photo", "person_name"), Strict)
    assert list(found) == ["token", "agreed", "photo", "person_name", "steps"]
    assert [p.default for p in found.values()] == [*[found["token"].empty] * 2, None, None, 1]


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_a_token_is_made_and_examples_are_named(ask):
    tokens = {ask("make_token") for _ in range(3)}
    assert len(tokens) == 3 and all(re.fullmatch(r"[0-9A-Za-z_-]{43}", token) for token in tokens)
    assert all(ask("list_jobs", token=token) == [] for token in tokens)
    assert ask("list_people") == ask.http.get("/api/v1/people").json()["people"]
    assert ask("list_motions") == ask.http.get("/api/v1/motions").json()["motions"]


def test_a_job_is_the_same_here_and_in_the_http_api(ask):
    token = ask("make_token")
    job = ask(
        "submit_job", token=token, **NO_FILES, recipe="none", seed=7, mirror=True, first_frame=2, image_guidance=3
    )
    record = ask("show_job", job=job, token=token)
    assert (record["id"], record["state"], record["kind"]) == (job, "queued", "animate")
    chosen = AnimateOptions(recipe="none", seed=7, mirror=True, first_frame=2, image_guidance=3)
    assert record["options"] == chosen.model_dump()
    http = ask.http.get(f"/api/v1/jobs/{job}", headers={"Authorization": f"Bearer {token}"}).json()
    for name in ("status", "cancel"):
        assert (
            record["links"][name] == "http://testserver" + http["links"][name]
        )  # whole: who asks Gradio knows no other address
    assert record | {"links": None} == http | {"links": None}
    assert ask("list_jobs", token=token) == [record]
    stored = StoredRequest.model_validate_json((ask.service.home / "jobs" / job / "request.json").read_bytes())
    assert (stored.image.name, stored.poses.name, stored.image_poses.name) == ("ada.png", "walk.npz", "ada.poses.npz")
    assert "not done yet" in ask.refused("get_result", job=job, token=token)
    for _ in range(2):
        assert ask("cancel_job", job=job, token=token)["state"] == "cancelled"
    assert "stopped" in ask.refused("get_result", job=job, token=token)


def test_addresses_are_those_that_the_client_sees(ask):
    token = ask("make_token")
    job = ask("submit_job", token=token, **NO_FILES)
    headers = {"X-Forwarded-Host": "dreampose.example", "X-Forwarded-Proto": "https"}  # behind a proxy
    answer = ask.http.post("/gradio_api/run/show_job", json={"data": [job, token]}, headers=headers).json()
    assert answer["data"][0]["links"]["status"] == f"https://dreampose.example/api/v1/jobs/{job}"


def test_files_from_their_upload_to_everything_that_is_made_of_them(working, files):  # noqa: F811
    ask = working
    photo, motion = (ask.upload(name, (files / name).read_bytes()) for name in ("anna.png", "walk.npz"))
    job = ask("submit_job", token=ANNA, photo=photo, motion=motion, consent="true", recipe="none", seed=0, steps=4)
    look = ask("submit_preview", token=ANNA, photo=photo)
    both = ask("submit_preview", token=ANNA, photo=photo, motion=motion, consent="true", reverse=True)
    acted = ask("submit_motion", token=ANNA, seconds=1, fps=8)
    record = done(ask, job)
    assert (record["num_frames"], record["notices"][-1]) == (4, "A sentence about a fall-back.")
    assert fetched(ask, job=job, token=ANNA) == b"video" == ask.http.get(record["links"]["result"]).content
    assert fetched(ask, job=job, token=ANNA, thing="frames").startswith(b"PK")
    sentence = ask.refused("get_result", job=job, token=ANNA, thing="gif")
    assert sentence == "This job has no gif; it has video, frames, motion."
    for thing in ("", "first", "photo", "look", "../video", None, 7, [], {"a": []}):
        assert ", ".join(THINGS) in ask.refused("get_result", job=job, token=ANNA, thing=thing)
    done(ask, look), done(ask, both), done(ask, acted)
    assert fetched(ask, job=look, token=ANNA).startswith(b"\x89PNG")
    assert b"ftyp" in fetched(ask, job=both, token=ANNA)[:16]
    (files / "acted.npz").write_bytes(fetched(ask, job=acted, token=ANNA, thing="motion"))
    assert len(read_poses(files / "acted.npz").parts) == 8
    for made in (job, look, both, acted):
        for name in ONE_JOB:
            assert ask.refused(name, job=made, token=BEN) == ask.refused(name, job=UNKNOWN, token=BEN)
    assert [one["id"] for one in ask("list_jobs", token=ANNA)] == [job] and ask("list_jobs", token=BEN) == []


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token", [None, "", "x", "a" * 42, "a" * 44, "a" * 42 + "!", 5, [], [ANNA], {"owner": ANNA}, True]
)
def test_without_a_token_nothing_is_shown_or_taken(ask, token):
    before = ask.jobs()
    for name, parameters in ENDPOINTS.items():
        if "token" in parameters:
            more = {"job": UNKNOWN} if name in ONE_JOB else NO_FILES if name == "submit_job" else {}
            assert "make_token" in ask.refused(name, token=token, **more)
    assert ask.jobs() == before


@pytest.mark.parametrize(
    "job", ["x", "", "..", "' OR 1=1 --", "\x00", "a" * 5000, UNKNOWN + "0", "\ud800", 7, None, [], {"id": 1}, True]
)
def test_ids_that_are_none_get_the_same_answer_as_unknown_ones(ask, job):
    for name in ONE_JOB:
        assert ask.refused(name, job=job, token=ANNA) == ask.refused(name, job=UNKNOWN, token=ANNA)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "needs a photo or a person_name"),
        ({"person_name": "ada"}, "a motion or a motion_name"),
        ({"motion_name": "walk"}, "A video needs"),
        ({"person_name": "", "motion_name": "walk"}, "A video needs"),
        ({"person_name": "nobody", "motion_name": "walk"}, "person_name is 'nobody'; these are shipped: ada, "),
        *(
            (NO_FILES | {"motion_name": name}, "motion_name is ")
            for name in ("walk.npz", "../people/ada", "/etc/passwd", "walk\x00", "walk\u202e\n", "\ud800", "x" * 5000)
        ),
        *((NO_FILES | {"person_name": name}, "person_name is no text") for name in (7, True, ["ada"], {"ada": 1})),
        *(
            (NO_FILES | {name: path}, f"{name} is not given as a file")
            for name in FILES
            for path in ("/etc/passwd", str(EXAMPLES / "people" / "ada.png"), "", 7, ["x"], True)
        ),
        (NO_FILES | {"photo": {}}, "not uploaded"),
        (NO_FILES | {"photo": {"path": 7}}, "not uploaded"),
        (NO_FILES | {"photo": {"path": "/etc/passwd"}}, "not uploaded"),
        (NO_FILES | {"motion": {"url": "http://[::1]/"}}, "not uploaded"),
        (
            NO_FILES | {"photo": {"path": "http://127.0.0.1:1/a.png", "meta": {"_type": "gradio.FileData"}}},
            "not uploaded",
        ),
        (NO_FILES | {"seed": -1}, "seed: "),
        (NO_FILES | {"seed": None}, "seed: "),
        (NO_FILES | {"seed": "\ud800"}, "seed: "),
        (NO_FILES | {"steps": 0}, "steps: "),
        (NO_FILES | {"steps": [4]}, "steps: "),
        (NO_FILES | {"fps": "fast"}, "fps: "),
        (NO_FILES | {"recipe": "best"}, "recipe: "),
        (NO_FILES | {"recipe": ["none"]}, "recipe: "),
        (NO_FILES | {"loops": 101}, "loops: "),
        (NO_FILES | {"align": "perhaps"}, "align: "),
        (NO_FILES | {"quality": "x" * 5000}, "quality: "),
    ],
)
def test_wrong_fields_are_one_sentence(ask, fields, words):
    before = ask.jobs()
    assert words in ask.refused("submit_job", token=ANNA, **fields)
    assert ask.jobs() == before


def test_wrong_fields_of_previews_and_motions_are_one_sentence(ask):
    before = ask.jobs()
    assert "A preview needs" in ask.refused("submit_preview", token=ANNA)
    assert "fit: " in ask.refused("submit_preview", token=ANNA, person_name="ada", fit="stretch")
    for name, value in (
        ("motion", ""),
        ("motion", 7),
        ("seconds", 21),
        ("fps", None),
        ("clothes", ["close"]),
        ("seed", 2**31),
    ):
        assert f"{name}: " in ask.refused("submit_motion", token=ANNA, **{name: value})
    assert ask.jobs() == before


def test_a_file_and_an_example_at_once_are_refused(ask):
    photo = ask.upload("a.png", b"a photo")
    assert "Both photo and person_name are given" in ask.refused("submit_job", token=ANNA, photo=photo, **NO_FILES)
    assert "Both motion and motion_name are given" in ask.refused("submit_job", token=ANNA, motion=photo, **NO_FILES)


def test_an_upload_is_copied_as_it_is_and_never_opened(ask, monkeypatch):
    from PIL import Image

    def opened(*_, **__):
        raise AssertionError("the web process opens a picture")

    monkeypatch.setattr(Image, "open", opened)
    job = ask(
        "submit_job",
        token=ANNA,
        photo=ask.upload("a.png", b"\x89PNG hostile"),
        motion=ask.upload("a.npz", b"PK"),
        consent="true",
    )
    folder = ask.service.home / "jobs" / job
    stored = StoredRequest.model_validate_json((folder / "request.json").read_bytes())
    assert (stored.image.name, stored.poses.name) == ("a.png", "a.npz")
    assert (folder / "input" / stored.image.file).read_bytes() == b"\x89PNG hostile"


def test_what_breaks_inside_is_not_told(ask, monkeypatch, caplog, capfd):
    def fails(error: Exception):
        def method(*_):
            raise error

        return method

    monkeypatch.setattr(
        ask.service, "status", fails(StorageError(f"The job store {ask.service.home}/jobs.sqlite3 cannot be used."))
    )
    assert "try again" in ask.refused("show_job", job=UNKNOWN, token=ANNA)
    assert "jobs.sqlite3" in caplog.text  # the operator is told
    monkeypatch.setattr(ask.service, "jobs", fails(ValueError(f"a detail in {ask.service.home}")))
    assert "tell the operator" in ask.refused("list_jobs", token=ANNA)
    assert "a detail in" in caplog.text
    monkeypatch.undo()
    caplog.clear()
    ask.refused("show_job", job=7, token=ANNA)
    ask.refused("submit_job", token=ANNA, photo={"path": "/etc/passwd"})
    assert "Traceback" not in caplog.text + "".join(
        capfd.readouterr()
    )  # what a visitor gives wrong is not the operator's business


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_endpoints_do_not_wait_for_the_many_pages_that_watch_their_jobs(ask):
    """gradio_client sends everything through Gradio's queue, where each page that watches a job is an event that goes
    on."""
    job = ask("submit_job", token=ANNA, **NO_FILES)
    layout = Layout(ask.http.get("/config").json())

    def join(dependency: dict, data: list, session: str) -> None:
        body = {"data": data, "fn_index": dependency["id"], "session_hash": session, "trigger_id": None}
        assert ask.http.post("/gradio_api/queue/join", json=body).status_code == 200

    for number in range(60):
        join(layout.watch, [{"owner": ANNA, "job": job}, job], f"page {number}")
    show = next(d for d in ask.http.get("/config").json()["dependencies"] if d["api_name"] == "show_job")
    join(show, [job, ANNA], "client")
    wait_for(lambda: ask.http.get("/gradio_api/queue/status").json()["queue_size"] == 0, "the queue to be empty", 20)
    told = ask.http.get("/gradio_api/queue/data", params={"session_hash": "client"}).text
    messages = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
    completed = next(message for message in messages if message["msg"] == "process_completed")
    assert completed["success"] and completed["output"]["data"][0]["id"] == job
    assert ask.page._queue.cached_event_analytics_summary == {"functions": {}}  # no statistics with every answer
    ask("cancel_job", job=job, token=ANNA)  # the pages have seen the end


def test_what_goes_through_the_queue_is_not_answered_past_it(ask):
    watch = Layout(ask.http.get("/config").json()).watch
    answer = ask.http.post(
        "/gradio_api/run/predict", json={"data": [None, None], "fn_index": watch["id"], "session_hash": "s"}
    )
    assert answer.status_code == 404 and "join the queue" in answer.text


# -- the example, and gradio_client, on the real server ----------------------------------------------------------------


def test_the_example_and_gradio_client_on_the_real_server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def told(url: str) -> None:
        """What gradio_client makes of the endpoints, in a thread of its own: it waits."""
        with closing(Client(url, token=False, verbose=False, download_files=False, analytics_enabled=False)) as client:
            text = client.view_api(print_info=False, return_format="str")
            assert f"Named API endpoints: {len(ENDPOINTS)}" in text and "photo: filepath | None (not required" in text
            for name in ENDPOINTS:
                assert f'api_name="/{name}"' in text
            token = client.predict(api_name="/make_token")
            before = client.predict(token=token, api_name="/list_jobs")
            with pytest.raises(AppError, match="person_name is 'nobody'; these are shipped: ada, "):
                client.predict(token=token, person_name="nobody", motion_name="walk", api_name="/submit_job")
            secret = {
                "path": f"{url}/healthz",
                "meta": {"_type": "gradio.FileData"},
            }  # an address, which a server might fetch
            with pytest.raises(AppError, match="was not uploaded"):
                client.predict(token=token, photo=secret, motion_name="walk", api_name="/submit_job")
            with pytest.raises(ValueError, match="Cannot find a function"):
                client.predict(api_name="/nothing")
            private = next(d["id"] for d in client.config["dependencies"] if d["api_name"] == "submit")
            with pytest.raises(ValueError, match="Invalid function index"):
                client.predict(fn_index=private)
            assert before == client.predict(token=token, api_name="/list_jobs") == []

    async def run() -> None:
        server = Server(tmp_path / "home", make_tiny_model(tmp_path / "model"))
        await server.start()
        try:
            await asyncio.to_thread(told, server.url)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "examples.gradio_api",
                server.url,
                str(tmp_path / "ada.mp4"),
                cwd=REPOSITORY,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(os.environ),
            )
            said, _ = await asyncio.wait_for(process.communicate(), 300)
            assert process.returncode == 0 and b"bytes in" in said, said.decode()
            assert probe_video(tmp_path / "ada.mp4").num_frames == 60
        finally:
            await server.stop()
        assert "Traceback" not in server.log_file.read_text()
        assert await server.leftovers() == []

    asyncio.run(run())


def test_the_example_says_how_it_is_called():
    done = subprocess.run(
        [sys.executable, "-m", "examples.gradio_api"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert (
        done.returncode == 1 and "python -m examples.gradio_api http" in done.stderr and "Traceback" not in done.stderr
    )
