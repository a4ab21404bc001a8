"""The named Gradio endpoints: every one, used well and badly, and the example that uses them.

Run: .venv/bin/pytest tests/test_web_endpoints.py
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import closing

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import construct_args
from starlette.testclient import TestClient
from test_jobs_service import files  # noqa: F401
from test_web import IDS, Page, client, uploads  # noqa: F401
from test_web_api import NO_FILES, UNKNOWN, fails, program, unopened  # noqa: F401

from dreampose_core.media import probe_video
from dreampose_core.settings import EXAMPLES, AnimateOptions
from dreampose_core.web.links import is_token
from tests.serving import running_server
from tests.tiny import make_tiny_model

FILES = ["photo", "motion", "photo_poses"]
ENDPOINTS = {
    "make_token": [],
    "submit": ["token", *FILES, "person_name", "motion_name", "consent", "options"],
    "status": ["token", "job"],
    "result": ["token", "job"],
    "cancel": ["token", "job"],
}
ONE_JOB = ("status", "result", "cancel")


class Asked(Page):
    """A server in this process, asked as gradio_client asks: with the defaults of the endpoints' description."""

    def __init__(self, client: TestClient):  # noqa: F811
        super().__init__(client)
        self.info = client.get("/gradio_api/info").json()["named_endpoints"]

    def answer(self, name: str, **given):
        data = construct_args(self.info[f"/{name}"]["parameters"], (), given)
        headers = {"Content-Type": "application/json"}  # json.dumps takes half a character, too, which httpx does not
        return self.client.post(f"/gradio_api/run/{name}", content=json.dumps({"data": data}), headers=headers)

    def __call__(self, name: str, **given):
        """The endpoint's value."""
        answer = self.answer(name, **given)
        assert answer.status_code == 200, answer.text
        [value] = answer.json()["data"]
        return value

    def refused(self, name: str, **given) -> str:
        sentence = super().refused(name, **given)
        assert sentence[-1] in ".!" and sentence.isprintable() and len(sentence) <= 500, sentence
        return sentence

    def jobs(self) -> list[str]:
        """Of all owners, on the disk."""
        return sorted(path.name for path in (self.service.home / "jobs").iterdir())


@pytest.fixture
def ask(client) -> Asked:  # noqa: F811
    """A server whose jobs wait for ever."""
    return Asked(client)


# -- used well ---------------------------------------------------------------------------------------------------------


def test_exactly_the_endpoints_are_public_and_each_is_described(ask):
    assert set(ENDPOINTS) == {name.removeprefix("/") for name in ask.info}
    for name, expected in ENDPOINTS.items():
        told = ask.info[f"/{name}"]
        assert told["description"][-1] == "." and [p["parameter_name"] for p in told["parameters"]] == expected
        for parameter in told["parameters"]:
            required = parameter["parameter_name"] in ("token", "job")
            assert parameter["parameter_has_default"] != required and parameter["python_type"]["type"] != "Any"
            assert (parameter["python_type"]["type"] == "None | filepath") == (parameter["parameter_name"] in FILES)


def test_a_job_is_the_same_here_and_in_the_http_api(ask):
    token, other = ask("make_token"), ask("make_token")
    assert is_token(token) and is_token(other) and token != other
    options = {"recipe": "none", "seed": 7, "mirror": True, "first_frame": 2, "image_guidance": 3}
    job = ask("submit", token=token, **NO_FILES, options=options)
    record = ask("status", token=token, job=job)
    assert (record["id"], record["state"], record["kind"], record["title"]) == (job, "queued", "animate", "ada-walk")
    assert record["options"] == AnimateOptions(**options).model_dump()
    http = ask.client.get(f"/api/v1/jobs/{job}", headers={"Authorization": f"Bearer {token}"}).json()
    for name in ("status", "cancel"):  # whole addresses: a client of Gradio knows no other
        assert record["links"][name] == "http://testserver" + http["links"][name]
    assert record | {"links": None} == http | {"links": None}
    stored = ask.stored({"job": job}, "job")
    assert (stored.image.name, stored.poses.name, stored.image_poses.name) == ("ada.png", "walk.npz", "ada.poses.npz")
    assert stored.consent == "drawn" and "not done yet" in ask.refused("result", token=token, job=job)
    for name in ONE_JOB:
        assert ask.refused(name, token=other, job=job) == ask.refused(name, token=other, job=UNKNOWN)
    for _ in range(2):
        assert ask("cancel", token=token, job=job)["state"] == "cancelled"
    assert "stopped" in ask.refused("result", token=token, job=job)


def test_addresses_are_those_that_the_client_sees(ask):
    job = ask("submit", token=ask.owner, **NO_FILES)
    headers = {"X-Forwarded-Host": "dreampose.example", "X-Forwarded-Proto": "https"}  # behind a proxy
    answer = ask.client.post("/gradio_api/run/status", json={"data": [ask.owner, job]}, headers=headers).json()
    assert answer["data"][0]["links"]["status"] == f"https://dreampose.example/api/v1/jobs/{job}"


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "x", "a" * 42, "a" * 44, "a" * 42 + "!", 5, ["a" * 43], {"a": 1}, True])
def test_without_a_token_nothing_is_shown_or_taken(ask, token):
    before = ask.jobs()
    for name, parameters in ENDPOINTS.items():
        if parameters:
            more = {"job": UNKNOWN} if name in ONE_JOB else NO_FILES
            assert "make_token" in ask.refused(name, token=token, **more)
    assert ask.jobs() == before


@pytest.mark.parametrize("job", [*IDS, UNKNOWN + "0", "\ud800", ""], ids=ascii)
def test_ids_that_are_none_get_the_same_answer_as_unknown_ones(ask, job):
    for name in ONE_JOB:
        assert ask.refused(name, token=ask.owner, job=job) == ask.refused(name, token=ask.owner, job=UNKNOWN)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "needs a photo or a person_name"),
        (NO_FILES | {"motion_name": "\ud800"}, "motion_name is "),
        *((NO_FILES | {"person_name": name}, "person name: ") for name in (7, ["ada"], {"ada": 1})),
        *(
            (NO_FILES | {name: path}, "not uploaded here; please choose it again, or give it as handle_file(path)")
            for name in FILES
            for path in ("/etc/passwd", str(EXAMPLES / "people" / "ada.png"), 7, ["x"], True, {"path": 7}, {"url": "x"})
        ),
        (NO_FILES | {"options": "fast"}, "options is no JSON object"),
        (NO_FILES | {"options": {"seed": "\ud800"}}, "seed: "),
    ],
)
def test_wrong_fields_are_one_sentence(ask, fields, words):
    before = ask.jobs()
    assert words in ask.refused("submit", token=ask.owner, **fields)
    assert ask.jobs() == before


def test_own_photos_need_consent(ask, files):  # noqa: F811
    given = {"token": ask.owner, "photo": ask.upload(files / "anna.png"), "motion_name": "walk"}
    for consent in (False, "true", 1, None):
        assert "the person in the photo agreed" in ask.refused("submit", **given, consent=consent)
    assert ask.stored({"job": ask("submit", **given, consent=True)}, "job").consent == "given"


def test_an_upload_is_copied_as_it_is_and_never_opened(ask, tmp_path, unopened):  # noqa: F811
    (tmp_path / "a.png").write_bytes(b"\x89PNG hostile")
    photo = ask.upload(tmp_path / "a.png")
    job = ask("submit", token=ask.owner, photo=photo, motion=photo, consent=True)
    [copied] = (ask.service.home / "jobs" / job / "input").glob("upload-image*")
    assert ask.stored({"job": job}, "job").image.name == "a.png" and copied.read_bytes() == b"\x89PNG hostile"


def test_what_breaks_inside_is_not_told(ask, monkeypatch, caplog, capfd):
    ask.refused("status", token=ask.owner, job=7)
    ask.refused("submit", token=ask.owner, photo="/etc/passwd")
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr()), "a visitor's mistake is not logged"
    monkeypatch.setattr(ask.service, "status", fails(ValueError(f"a detail in {ask.service.home}")))
    assert "tell the operator" in ask.refused("status", token=ask.owner, job=UNKNOWN) and "a detail in" in caplog.text


# -- the example, and gradio_client, on the real server ----------------------------------------------------------------


def test_the_example_and_gradio_client_on_the_real_server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    how = {"token": False, "verbose": False, "download_files": False, "analytics_enabled": False}
    with (
        running_server(tmp_path / "home", make_tiny_model(tmp_path / "model")) as server,
        closing(Client(server.url, **how)) as asked,
    ):
        text = asked.view_api(print_info=False, return_format="str")
        assert re.search(r"photo: .*filepath.* \(not required", text)
        assert set(re.findall(r'api_name="/(\w+)"', text)) == set(ENDPOINTS)
        given = {"token": asked.predict(api_name="/make_token"), "motion_name": "walk", "api_name": "/submit"}
        with pytest.raises(AppError, match="person_name is 'eve'; these are shipped: ada, "):
            asked.predict(person_name="eve", **given)
        # an address, which a server might fetch
        secret = {"path": f"{server.url}/healthz", "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(Exception, match="403"):
            asked.predict(photo=secret, **given)
        with pytest.raises(AppError, match="the person in the photo agreed"):
            asked.predict(photo=handle_file(EXAMPLES / "people" / "bela.png"), **given)
        with pytest.raises(ValueError, match="Cannot find a function"):
            asked.predict(api_name="/nothing")
        private = next(d["id"] for d in asked.config["dependencies"] if d["targets"])
        with pytest.raises(ValueError, match="Invalid function index"):
            asked.predict(fn_index=private)
        assert "bytes in" in program(sys.executable, "-m", "examples.gradio_api", server.url, tmp_path / "ada.mp4")
        assert probe_video(tmp_path / "ada.mp4").num_frames == 60
