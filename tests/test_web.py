"""The web application without a browser: server, links, form, every event of the page, and app.py as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from fastapi.testclient import TestClient
from test_jobs_service import files, request, stored_request, wait_state  # noqa: F401
from test_web_api import asgi, fails, make_service, save_person, unopened  # noqa: F401

from dreampose_core.errors import InputError, StorageError
from dreampose_core.jobs.records import JobRequest, Timings
from dreampose_core.media import read_image
from dreampose_core.poses import read_poses
from dreampose_core.settings import EXAMPLES, REPOSITORY, AnimateOptions, MotionOptions, Settings
from dreampose_core.web import server
from dreampose_core.web.examples import MOTIONS, PEOPLE, READY, poses_of
from dreampose_core.web.form import option, uploaded, words
from dreampose_core.web.links import LIFETIME_S, ResultLinks, installation_secret, is_token, new_token
from dreampose_core.web.programs import BROKEN
from dreampose_core.web.server import MAX_EVENT, build_app
from examples.make_ready import PAIRS, weights

JOB, OTHER_JOB = "0" * 32, "1" * 32
MP4, NPZ = bytes(range(256)) * 8, b"PK of a motion"
IDS = ("x", "../../secret", "' OR 1=1 --", "\x00", "a" * 10_000, 7, None, [], {"id": 1}, True)


class Page:
    """The page of one visitor, whose events are asked as the browser asks. Fields are named by elem_id or label."""

    def __init__(self, client: TestClient):
        self.client, self.service, self.owner, self.session = client, client.service, new_token(), "session"
        self.config = client.get("/config").json()
        self.parts = {part["id"]: part for part in self.config["components"]}
        self.events = {
            (self.name(part), event): dependency
            for dependency in self.config["dependencies"]
            for part, event in dependency["targets"]
        }

    def name(self, part: int | None) -> str:
        found = self.parts.get(part, {"type": "page", "props": {}})
        return found["props"].get("elem_id") or found["props"].get("label") or found["type"]

    def answer(self, part: str, event: str, fields: dict | None = None, sent: dict | None = None, owner: object = None):
        """The HTTP answer to an event. fields: the values that differ from those of a page just opened; sent: the
        event's own data."""
        dependency, values = self.events[part, event], {"browserstate": {"owner": owner or self.owner}} | (fields or {})
        assert set(values) <= {"browserstate"} | {self.name(i) for i in dependency["inputs"]}
        data = [values.get(self.name(i), self.parts[i]["props"].get("value")) for i in dependency["inputs"]]
        body = {"fn_index": dependency["id"], "data": data, "event_data": sent, "session_hash": self.session}
        return self.client.post("/gradio_api/run/predict", json=body)

    def __call__(self, *args, **kwargs) -> dict:
        """What changes in the page, by name."""
        answer = self.answer(*args, **kwargs)
        assert answer.status_code == 200, answer.text
        changes = {}
        for part, value in zip(self.events[args[:2]]["outputs"], answer.json()["data"], strict=True):
            if isinstance(value, dict) and value.pop("__type__", None) == "update":
                value.pop("props", None)
                if not value:
                    continue
                value = value["value"] if list(value) == ["value"] else value
            changes[self.name(part)] = value
        return changes

    def refused(self, *args, **kwargs) -> str:
        """The sentence of an event that is refused, which says nothing of the server's insides."""
        answer = self.answer(*args, **kwargs)
        assert answer.status_code == 500, answer.text
        for word in ("Traceback", "jobs.sqlite3", "a secret", str(REPOSITORY), str(self.service.home)):
            assert word not in answer.text
        return answer.json()["error"]

    def upload(self, path: Path) -> dict:
        """A file as Gradio names it after the browser has sent it."""
        [place] = self.client.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())}).json()
        return {"path": place, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def stored(self, stage: dict, what: str) -> JobRequest:
        """The request of the job that the stage shows."""
        return stored_request(self.service, stage[what])


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("web") / "uploads"
        patch.setenv("GRADIO_TEMP_DIR", str(folder))  # as app.py does
        yield folder


@contextmanager
def client_of(folder: Path, **settings):
    with make_service(folder, max_queue=1000, **settings) as service:
        with TestClient(build_app(service), raise_server_exceptions=False) as client:
            client.service = service
            yield client


@pytest.fixture(scope="module")
def client(uploads, tmp_path_factory):
    """A server whose jobs wait for ever; tests do not share owners."""
    with client_of(tmp_path_factory.mktemp("waiting")) as client:
        yield client


@pytest.fixture(scope="module")
def working_client(uploads, tmp_path_factory):
    """A server whose jobs are done, by the real light queue and the device queue of job_worker.py."""
    with client_of(tmp_path_factory.mktemp("working"), works=True, model="of/the-hub") as client:
        yield client


@pytest.fixture
def page(client) -> Page:
    return Page(client)


@pytest.fixture
def working(working_client) -> Page:
    return Page(working_client)


@pytest.fixture
def job(working, files) -> str:  # noqa: F811
    """A finished job of the page's visitor."""
    job = working.service.submit(working.owner, request(files).model_copy(update={"consent": "given"}))
    wait_state(working.service, job, "done", owner=working.owner)
    return job


ADA = {"photo": {"path": str(EXAMPLES / "people" / "ada.png"), "meta": {"_type": "gradio.FileData"}}}


# -- server ------------------------------------------------------------------------------------------------------------


def test_the_page_is_served_with_the_settings_that_keep_visitors_safe(page):
    client, config = page.client, page.config
    assert client.get("/").status_code == 200 and client.get("/monitoring").status_code in (403, 404)
    assert not (config["show_error"] or config["analytics_enabled"] or config["run_history"])
    assert config["max_file_size"] == client.service.settings.max_upload_mb << 20 and config["footer_links"] == []
    for dependency in config["dependencies"]:
        assert dependency["queue"] is False, "a queued event can be lost when the queue's stream closes"
        assert dependency["api_visibility"] == ("private" if dependency["targets"] else "public")
    assert page.parts[page.events["photo", "input"]["inputs"][0]]["props"]["type"] == "filepath"


def test_few_sessions_are_kept_and_nothing_of_a_visitor_lies_in_one(uploads, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "SESSIONS", 2)
    with client_of(tmp_path) as client:
        page = Page(client)
        assert "state" not in {part["type"] for part in page.parts.values()}
        for number in range(8):
            page.session = f"session {number % 4}"
            assert "job" in page("run", "click", ADA)["stage-part"]
        [blocks] = [mount.app.get_blocks() for mount in client.app.routes if getattr(mount, "path", "/") == ""]
    assert len(blocks.state_holder.session_data) <= 3


def test_what_the_browser_gets_is_not_what_links_are_signed_with(page):
    [secret] = [part["props"]["secret"] for part in page.parts.values() if part["type"] == "browserstate"]
    assert "a secret" not in page.client.get("/config").text
    assert page.client.get("/" + ResultLinks(secret).make(JOB, "video.mp4")).status_code == 404


def test_browsers_are_recognised_after_a_restart(uploads, tmp_path):
    def told(**settings) -> dict:
        with client_of(tmp_path, **settings) as client:
            parts = Page(client).parts.values()
        [props] = [part["props"] for part in parts if part["type"] == "browserstate"]
        return {name: props[name] for name in ("secret", "storage_key")}

    assert told() == told() != told(secret="another")


def test_a_tab_that_is_closed_during_an_upload_is_no_error(client):
    begun = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf'
    status, _, _ = asgi(client.app, "/gradio_api/upload", [begun], vanish=True)  # raises nothing
    assert status == 400


def test_health_is_the_services_as_a_status(client, monkeypatch):
    for health, code, status in (
        (lambda: {"healthy": True, "queue": 3}, 200, {"status": "ok", "queue": 3}),
        (lambda: {"healthy": False}, 503, {"status": "degraded"}),
        (fails(StorageError("The job store cannot be used.")), 503, {"status": "down"}),
    ):
        monkeypatch.setattr(client.service, "health", health)
        answer = client.get("/healthz")
        assert (answer.status_code, answer.json()) == (code, status)


@pytest.mark.parametrize("path", ["jobs.sqlite3", "secret", "workers", "../secret", "jobs/{job}/result.mp4"])
def test_no_route_serves_the_data_folder(client, result, path):
    path, home = path.format(job=JOB), client.service.home
    for url in (
        f"/{path}",
        f"/results/{path}",
        f"/results/{JOB}/{path}",
        f"/results/..%2f{path}/x.mp4",
        f"/static/{path}",
        f"/assets/..%2f{path}",
        f"/gradio_api/file={home}/{path}",
        f"/gradio_api/file=./{path}",
        f"/gradio_api/file={os.environ['GRADIO_TEMP_DIR']}/../{path}",
        f"/gradio_api/stream/{path}",
    ):
        answer = client.get(url)
        assert answer.status_code >= 400 or b"gradio" in answer.content, url
        assert b"SQLite" not in answer.content and answer.content != MP4


def test_nothing_private_of_gradio_is_used():
    private = re.compile(r"(?<!self)(?<!cls)\._[a-z]\w*|from gradio\S* import .*\b_\w+")
    assert private.findall("page._queue.size, self._own, cls._own, a.__name__") == ["._queue"]
    for path in (REPOSITORY / "dreampose_core" / "web").glob("*.py"):
        assert private.findall(path.read_text().replace("os._exit", "")) == [], path.name


def test_about_says_what_this_server_is(page):
    [told] = page("about", "expand").values()
    assert "| Model | mini |" in told and "| the model is being loaded |" in told and "| 72; Delete" in told


# -- links -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def result(client) -> Path:
    for job in (JOB, OTHER_JOB):
        path = client.service.home / "jobs" / job / "result.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MP4)
        path.with_name("motion.npz").write_bytes(NPZ)
    return client.service.home / "jobs" / JOB / "result.mp4"


def test_a_fresh_link_serves_the_video_and_parts_of_it(client, result):
    link = "/" + ResultLinks("a secret").make(JOB, "dreampose-walk.mp4")
    whole = client.get(link)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, MP4, "video/mp4")
    assert whole.headers["content-disposition"].startswith("inline")
    head = client.head(link)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(MP4)))
    part = client.get(link, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, MP4[10:20])
    saved = client.get(f"{link}&download=1")
    assert saved.headers["content-disposition"] == 'attachment; filename="dreampose-walk.mp4"'
    assert "no" in saved.headers["x-content-type-options"] and "private" in saved.headers["cache-control"]


def test_the_file_of_a_motion_has_a_link_of_its_own(client, result):
    link = "/" + ResultLinks("a secret").make(JOB, "dreampose-a.npz", "motion")
    saved = client.get(f"{link}&download=1")
    assert (saved.status_code, saved.content, saved.headers["content-type"]) == (200, NPZ, "application/octet-stream")
    assert client.get(link.replace("/motion/", "/video/")).status_code == 404, "the signature is that of the motion"
    (result.parent / "motion.npz").unlink()
    assert client.get(link).status_code == 404  # of a job that made none


def test_expired_forged_and_foreign_links_get_the_same_answer_as_unknown_jobs(client, result, monkeypatch):
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: 1e9)
        expired = ResultLinks("a secret").make(JOB, "a.mp4")
        clock.setattr(time, "time", lambda: 1e9 + LIFETIME_S)
        assert ResultLinks("a secret").valid(JOB, "a.mp4", expired.split("signed=")[1])
        clock.setattr(time, "time", lambda: 1e9 + LIFETIME_S + 1)
        assert not ResultLinks("a secret").valid(JOB, "a.mp4", expired.split("signed=")[1])
    links = ResultLinks("a secret")
    good = links.make(JOB, "a.mp4")
    bad = {
        "expired": expired,
        "forged": good[:-9] + ("0" if good[-9] != "0" else "1") + good[-8:],
        "another installation's": ResultLinks("another secret").make(JOB, "a.mp4"),
        "for another job": good.replace(JOB, OTHER_JOB),
        "for another name": good.replace("a.mp4", "b.mp4"),
        "made to last longer": good.replace("signed=", "signed=z"),
        "unsigned": good.split("?")[0],
        "unknown job": links.make("2" * 32, "a.mp4"),
        "not ASCII": good[:-9] + "%C3%A9",
        "a climbing name": links.make("..", "a.mp4"),
        "for another thing": good.replace("/video/", "/photo/"),
        "a missing thing": links.make(JOB, "a.gif", "gif"),
        "no thing": links.make(JOB, "a.sqlite3", "../../jobs"),
    }
    answers = {name: client.get(f"/{link}") for name, link in bad.items()}
    assert client.get(f"/{good}").status_code == 200
    assert {answer.status_code for answer in answers.values()} == {404}
    plain = {answer.text for name, answer in answers.items() if name not in ("a climbing name", "no thing")}
    assert plain == {answers["unknown job"].text} and "unknown or has expired" in plain.pop()


def test_the_secret_is_made_once_and_readable_by_its_owner_only(tmp_path):
    settings = Settings(home=tmp_path / "new" / "home")
    secret = installation_secret(settings)
    assert len(secret) == 64 and installation_secret(settings) == secret
    assert stat.S_IMODE((settings.home / "secret").stat().st_mode) == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["secret"]
    assert installation_secret(settings.model_copy(update={"secret": "given"})) == "given"
    kept = settings.model_copy(update={"bucket": tmp_path / "bucket"})
    assert installation_secret(kept) == secret == (tmp_path / "bucket" / "secret").read_text()
    assert installation_secret(kept.model_copy(update={"home": tmp_path / "empty"})) == secret
    with pytest.raises(StorageError, match="could not be written: .* Choose a folder"):
        installation_secret(settings.model_copy(update={"home": Path("/proc/nothing")}))


# -- examples ----------------------------------------------------------------------------------------------------------


def test_each_example_is_whole_and_its_ready_made_video_is_of_the_shipped_weights(client):
    assert PEOPLE and all(poses_of(photo).is_file() for photo in PEOPLE.values())
    assert {motion: pair.person for motion, pair in READY.items()} == PAIRS and set(READY) == set(MOTIONS)
    assert (EXAMPLES / "ready" / "weights.txt").read_text().strip() == weights(), "run python -m examples.make_ready"
    assert READY["walk"].title == "Emil, walk"
    for pair in READY.values():
        assert client.get("/" + pair.shown["video"]).content == pair.video.read_bytes()
        assert client.get(f"/gradio_api/file={pair.video.with_suffix('.webp')}").status_code == 200


# -- form --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [AnimateOptions, MotionOptions])
def test_each_option_has_a_component_with_its_default_range_and_description(options):
    for name, schema in options.model_json_schema()["properties"].items():
        if name in ("first_frame", "last_frame", "person_at"):
            continue  # the form has text fields for these
        component, default = option(options, name), options.model_fields[name].default
        assert component.value == ("" if default is None else default) and component.info == schema["description"]
        for limit in ("minimum", "maximum"):
            if limit in schema:
                assert getattr(component, limit) == schema[limit], name
        if "enum" in schema:
            assert [value for _, value in component.choices] == schema["enum"]
    assert words("side_step") == "Side step" and words("dpm++") == "DPM++ 2M"


def test_the_form_offers_only_what_the_model_heeds(page, working):
    """mini makes frames in one step; a model made from Stable Diffusion in many."""
    few, many = (
        {each.name(part): each.parts[part] for part in each.events["run", "click"]["inputs"]}
        for each in (page, working)
    )
    assert set(many) - set(few) == {"Steps", "Image guidance", "Pose guidance", "Solver"} and set(few) < set(many)
    assert [form["Recipe"]["props"]["value"] for form in (few, many)] == ["none", "fast"]


def test_only_uploads_and_examples_are_taken_for_files(uploads, client, tmp_path):
    for path in ("abc/photo.png", "abc/../abc/photo.png"):
        assert uploaded({"path": str(uploads / path)}) == uploads / "abc" / "photo.png"
    assert uploaded({"path": str(EXAMPLES / "people" / "ada.png")}).name == "ada.png"
    (uploads / "abc").mkdir(parents=True, exist_ok=True)
    (uploads / "abc" / "link.png").symlink_to(tmp_path)
    home, link = client.service.home, uploads / "abc" / "link.png"
    for path in ("/etc/passwd", uploads / ".." / "secret", home / "jobs.sqlite3", link, EXAMPLES / "animate.py", ""):
        with pytest.raises(InputError, match="not uploaded"):
            uploaded({"path": str(path)})
    for other in ("http://127.0.0.1/a.png", 7, None, {}, {"path": 7}, ["x"]):
        with pytest.raises(InputError, match="not uploaded"):
            uploaded(other)


# -- files that an event names -----------------------------------------------------------------------------------------

PATHS = ["/etc/passwd", "http://127.0.0.1:1/a.png", "{home}/jobs.sqlite3", "{uploads}/../private.svg"]


@pytest.mark.parametrize("path", PATHS)
def test_an_event_that_names_a_file_of_the_server_is_refused(page, uploads, path):
    (uploads.parent / "private.svg").write_text("<svg>private</svg>")
    path = path.format(home=page.service.home, uploads=uploads)
    file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
    before = set(uploads.rglob("*"))
    events = [dependency["id"] for dependency in page.config["dependencies"]]
    doors = [f"{door}/{name}" for door in ("run", "api", "call", "call/v2") for name in ("predict", "submit", "upload")]
    for door in (*doors, "queue/join", "run/predict/"):
        for data in ([file], [[file]], [{"x": file}]):
            body = {"fn_index": events[0], "data": data, "session_hash": "session"}
            answer = page.client.post(f"/gradio_api/{door}", json=body)
            assert answer.status_code == 403 and "not uploaded" in answer.json()["error"], (door, answer.text)
    for event in events:
        asked = {"fn_index": event, "session_hash": "session", "data": [file] * 40, "event_data": {"name": "x"}}
        for body in (asked, asked | {"data": [], "event_data": file}):
            assert page.client.post("/gradio_api/run/predict", json=body).status_code == 403
    assert set(uploads.rglob("*")) == before, "nothing was copied to where it can be fetched"
    assert page.client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_an_event_that_cannot_be_checked_is_refused(client):
    for body, sentence in ((b"{", "no JSON"), (b"[" * 100_000, "no JSON"), (b" " * (MAX_EVENT + 1), "too large")):
        answer = client.post("/gradio_api/run/predict", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 403 and sentence in answer.json()["error"]


def test_uploads_are_never_opened_in_this_process(page, tmp_path, unopened):  # noqa: F811
    (tmp_path / "a.png").write_bytes(b"\x89PNG hostile")
    photo = page.upload(tmp_path / "a.png")
    page("photo", "input", {"photo": photo})
    page("motion-file", "upload", {"motion-file": photo})
    fields = {"photo": photo, "motion-file": photo, "photo-poses": photo, "more-photos": [photo], "consent": True}
    assert "preview" in page("consent", "input", fields)["stage-part"]
    stored = page.stored(page("run", "click", fields)["stage-part"], "job")
    assert (stored.image.name, stored.poses.name, len(stored.more_images)) == ("a.png", "a.png", 1)


# -- first visit, button -----------------------------------------------------------------------------------------------


def test_the_first_visit_makes_a_token_and_shows_an_example(page):
    first = page("page", "load", {"browserstate": None})
    kept = first["browserstate"]
    assert is_token(kept["owner"]) and first["run"]["value"] == "Add a photo"
    assert first["stage-part"] == kept | {"example": READY["fashion"].shown}
    assert page("page", "load", {"browserstate": kept}) == first
    for wrong in ({"owner": "made up"}, {"owner": 7}, {}, "x", [kept]):
        owner = page("page", "load", {"browserstate": wrong})["browserstate"]["owner"]
        assert is_token(owner) and owner not in (kept["owner"], "made up")


@pytest.mark.parametrize(
    "timings, fields, words",
    [
        ({}, {"photo": None}, "Add a photo"),
        ({}, {"motions": None}, "Add a motion"),
        ({}, {"photo": "own"}, "Tick the box: they agreed"),
        ({}, {}, "Make my video"),
        ({}, {"photo": "own", "consent": True}, "Make my video"),
        ({"frame standard": [0.8]}, {}, "Make my video, about 80 s"),
        ({"frame standard": [1.0]}, {"motions": "walk"}, "Make my video, about 60 s"),
        ({"frame standard": [0.01]}, {}, "Make my video, about 5 s"),
        ({"frame standard": [1.0], "learning fast": [500.0]}, {"Recipe": "fast"}, "Make my video, about 10 min"),
        ({"frame draft": [1.0]}, {}, "Make my video"),
    ],
)
def test_the_button_says_what_is_missing_or_how_long_it_takes(page, files, timings, fields, words):  # noqa: F811
    path = Timings(page.service.home).path
    path.write_text(json.dumps(timings))
    if fields.get("photo"):
        fields = fields | {"photo": page.upload(files / "anna.png")}
    button = page("consent", "input", ADA | fields)["run"]
    path.unlink()
    assert button == {"value": words, "interactive": words.startswith("Make")}


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_choices_are_previewed_and_a_photo_moves_only_with_consent(page, files):  # noqa: F811
    photo, motion = page.upload(files / "anna.png"), page.upload(files / "walk.npz")

    def previewed(**fields) -> tuple:
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        stage = page("consent", "input", fields)["stage-part"]
        stored = page.stored(stage, "preview")
        assert stage["owner"] == page.owner and stored.kind == "preview" and not stored.more_images
        return tuple(upload and upload.name for upload in (stored.image, stored.poses)) + (stored.consent,)

    assert previewed(**ADA) == ("ada.png", "fashion.npz", "drawn")
    assert previewed(photo=photo) == ("anna.png", None, None), "only looked at"
    assert previewed(photo=photo, consent=True, more_photos=[photo]) == ("anna.png", "fashion.npz", "given")
    assert previewed(photo=photo, consent=True, motion_file=motion) == ("anna.png", "walk.npz", "given")
    assert previewed(motion_file=motion) == (None, "walk.npz", None)
    assert "stage-part" not in page("consent", "input", {}), "nothing to preview"
    assert page.service.jobs(page.owner) == []


def test_an_example_person_is_picked_and_an_own_photo_takes_its_place(page, files):  # noqa: F811
    picked = page("people", "pick", sent={"name": "ada"})
    assert Path(picked["photo"]["path"]).name == "ada.png" and picked["consent"] == {"value": False, "visible": False}
    assert picked["photo-poses"] is picked["more-photos"] is None, "nothing of the photo before"
    own = page("photo", "input", {"photo": page.upload(files / "anna.png")})
    assert own["people"] is own["photo-poses"] is own["more-photos"] is None and own["Person"] == ""
    assert own["consent"] == {"value": False, "visible": True}, "another person did not agree yet"
    assert page("photo", "input", {"photo": None})["consent"]["visible"] is False
    assert page("photo", "select", sent={"index": [120.4, 60.6], "value": None}) == {"Person": "120, 61"}


def test_a_motion_is_picked_or_uploaded(page, files):  # noqa: F811
    picked = page("motions", "pick", sent={"name": "side_step"})
    assert picked == {"motion-file": {"value": None, "label": "Upload a video or DensePose"}, "Motion": "side_step"}
    own = page("motion-file", "upload", {"motion-file": page.upload(files / "walk.npz")})
    assert own == {"motions": None, "motion-file": {"label": "Your motion: walk.npz"}}


def test_a_ready_made_pair_plays_at_once_and_fills_the_form(page):
    seen = page("pairs", "pick", sent={"name": "walk"})
    assert seen["stage-part"]["example"]["caption"] == "Emil, walk" and seen["run"]["interactive"]
    assert page.client.get("/" + seen["stage-part"]["example"]["video"]).headers["content-type"] == "video/mp4"
    fields = {name: seen[name] for name in ("photo", "motions")}
    stored = page.stored(page("run", "click", fields)["stage-part"], "job")
    assert (stored.image.name, stored.image_poses.name, stored.poses.name, stored.consent) == (
        "emil.png",
        "emil.poses.npz",
        "walk.npz",
        "drawn",
    )


@pytest.mark.parametrize("part, event", [("people", "pick"), ("pairs", "pick")])
def test_a_pick_outside_the_examples_does_nothing(page, part, event):
    for name in ("../ada", "", None, 7):
        assert page.refused(part, event, sent={"name": name}) is None


# -- making a video ----------------------------------------------------------------------------------------------------

CHOSEN = {"Fit": "pad", "Zoom": 1.25, "Shift right": 0.1, "Shift down": -0.1, "Speed": 1.5, "FPS": 12.5, "Loops": 2}
CHOSEN |= {"Align": "none", "Frames": "1:3", "Recipe": "none", "Quality": "best", "Solver": "unipc", "Seed": 0}
CHOSEN |= {"Steps": 4, "Image guidance": 2.5, "Pose guidance": 3}
CHOSEN |= dict.fromkeys(("Smooth", "Fill holes", "Mirror", "Reverse", "Keep sound"), True)
OPTIONS = AnimateOptions(
    **{name.lower().replace(" ", "_"): value for name, value in CHOSEN.items() if name != "Frames"},
    first_frame=1,
    last_frame=3,
)


def test_the_form_becomes_a_job_and_the_job_the_same_form_again(working, files):  # noqa: F811
    """All options and files there and back: what `again` puts into the form makes the same request once more."""
    photo, motion = (working.upload(files / name) for name in ("anna.png", "walk.npz"))
    fields = CHOSEN | {"photo": photo, "motion-file": motion, "consent": True, "more-photos": [photo, photo]}
    seen = working("run", "click", fields | {"Person": " 3, 4 "})
    job = seen["stage-part"]["job"]
    done = wait_state(working.service, job, "done", owner=working.owner).request
    assert done.options == OPTIONS.model_copy(update={"person_at": (3, 4)}) and done.consent == "given"
    filled = working("library-part", "again", sent={"id": job})
    assert filled["consent"] == {"value": True, "visible": True} and filled["motion-file"]["label"] == "Your motion"
    own = {"photo", "motions", "motion-file", "photo-poses", "more-photos", "consent", "Person"}
    texts = {"FPS": "12.5", "Steps": "4", "Image guidance": "2.5", "Pose guidance": "3.0"}
    assert {name: value for name, value in filled.items() if name not in own} == CHOSEN | texts
    assert filled["Person"] == "" and filled["motions"] is None is filled["photo-poses"]
    filled |= {name: filled[name]["value"] for name in ("motion-file", "consent")}
    copy = Path(filled["photo"]["path"])
    assert copy != done.image and copy.read_bytes() == done.image.read_bytes()
    again = working("run", "click", filled)["stage-part"]["job"]
    made = wait_state(working.service, again, "done", owner=working.owner).request
    assert made.options == OPTIONS and made.consent == "given" and len(made.more_images) == 2
    assert all((read_image(a) == read_image(b)).all() for a, b in zip(made.more_images, done.more_images))
    assert (read_poses(made.poses).parts == read_poses(done.poses).parts).all()
    opened = working("page", "load")
    assert opened["stage-part"] == {"owner": working.owner, "job": again}
    assert opened["Zoom"] == 1.25 and opened["photo"] and opened["run"]["interactive"]


def test_strides_and_open_ends_are_shown_as_the_form_has_them(working, files):  # noqa: F811
    options = AnimateOptions(recipe="none", steps=4, first_frame=1, stride=2, speed=1.5)
    job = working.service.submit(working.owner, request(files, options=options))
    wait_state(working.service, job, "done", owner=working.owner)
    seen = working("library-part", "again", sent={"id": job})
    assert (seen["Frames"], seen["Speed"], seen["FPS"], seen["Solver"]) == ("1:", 3, "", "")


def test_a_job_whose_files_are_not_decoded_fills_no_form(page):
    """It waits, or its photo could not be read: the page opens all the same."""
    job = page("run", "click", ADA)["stage-part"]["job"]
    seen = page("page", "load")
    assert seen["stage-part"]["job"] == job and "photo" not in seen and seen["run"]["value"] == "Add a photo"
    assert "still being read" in page.refused("library-part", "again", sent={"id": job})


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"photo": None}, "A video needs a photo"),
        ({"motions": None}, "a motion or a motion_name"),
        ({"motions": "../walk"}, "motion_name is '../walk'"),
        ({"photo": {"path": "own"}}, "the person in the photo agreed"),
        ({"photo": {"path": "own"}, "consent": "yes"}, "the person in the photo agreed"),
        ({"more-photos": [{"path": "own"}]}, "the person in the photo agreed"),
        ({"more-photos": [{"path": "own"}] * 5, "consent": True}, "at most 4"),
        ({"Seed": -1}, "seed: "),
        ({"Seed": 0.5}, "seed: "),
        ({"FPS": 0}, "fps: "),
        ({"Speed": -1e12}, "speed: "),
        ({"Zoom": ["walk"]}, "zoom: "),
        ({"Recipe": {"value": 1}}, "recipe: "),
        ({"Align": "perhaps"}, "align: "),
        ({"Frames": "20"}, "Frames must be FIRST:LAST"),
        ({"Frames": "a:b"}, "Frames must be FIRST:LAST"),
        ({"Person": "left"}, "person at"),
        ({"Person": "1, 2, 3"}, "person at"),
    ],
)
def test_a_wrong_form_is_one_sentence_on_the_stage(page, files, fields, sentence):  # noqa: F811
    own = page.upload(files / "anna.png")
    fields = json.loads(json.dumps(fields).replace('{"path": "own"}', json.dumps(own)))
    seen = page("run", "click", ADA | fields)
    assert sentence in seen["stage-part"]["problem"] and "\n" not in seen["stage-part"]["problem"]
    assert "job" not in seen["stage-part"] and page.service.jobs(page.owner) == []


def test_a_text_is_no_file(page):
    for name in ("photo", "motion-file", "photo-poses", "more-photos"):
        for text in ("/etc/passwd", str(EXAMPLES / "people" / "bela.png"), "http://127.0.0.1/a.png", 7):
            assert page.refused("run", "click", ADA | {name: text}) is None
    assert page.service.jobs(page.owner) == []


def test_a_storage_that_fails_is_one_sentence_without_its_place(page, monkeypatch, caplog):
    failing = fails(StorageError(f"The job store {page.service.home}/jobs.sqlite3 cannot be used."))
    monkeypatch.setattr(page.service, "submit", failing)
    monkeypatch.setattr(page.service, "status", failing)
    for part, event in (("run", "click"), ("consent", "input"), ("draw", "click")):
        fields = {} if part == "draw" else ADA
        assert "try again in a few minutes" in page(part, event, fields)["stage-part"]["problem"]
    assert "try again in a few minutes" in page.refused("library-part", "again", sent={"id": JOB})
    assert "jobs.sqlite3" in caplog.text, "the log names it for the operator"


def test_what_cannot_be_previewed_stops_the_button(page):
    said = {"value": "Choose another photo or motion", "interactive": False}
    assert page("stage-part", "refused") == {"run": said}


# -- motions to order, saved people, owners ----------------------------------------------------------------------------


def test_a_motion_drawn_to_order_becomes_the_forms(working, files):  # noqa: F811
    chosen = {"Motion": "wave", "Seconds": 1, "FPS": 8, "Clothes": "skirt", "Seed": 7}
    job = working("draw", "click", chosen)["stage-part"]["preview"]
    options = MotionOptions(motion="wave", seconds=1, fps=8, clothes="skirt", seed=7)
    assert wait_state(working.service, job, "done", owner=working.owner).request.motion == options
    seen = working("stage-part", "drawn", sent={"id": job})
    assert seen["motions"] is None and seen["motion-file"]["label"] == "Your motion: wave"
    stage = working("run", "click", ADA | {"motion-file": seen["motion-file"]["value"]})["stage-part"]
    assert working.stored(stage, "job").poses.name == "wave.npz" and working.service.jobs(working.owner)
    assert len(read_poses(seen["motion-file"]["value"]["path"]).parts) == 8


def test_a_motion_of_impossible_values_is_one_sentence(page):
    before = len(list((page.service.home / "jobs").iterdir()))
    for field in ("Motion", "Seconds", "FPS", "Speed", "Amplitude", "Height", "View", "Distance", "Seed"):
        for value in (None, "x" * 50, [], {"value": 1}, -1e12, 1e12):
            assert page("draw", "click", {field: value})["stage-part"]["problem"].startswith(f"{field.lower()}: ")
    assert len(list((page.service.home / "jobs").iterdir())) == before


def test_a_saved_person_is_used_again_with_all_photos(working):
    folder = save_person(working.service, working.owner)
    key = folder.name
    (folder / "photo_001.png").write_bytes(b"photo 1")
    seen = working("library-part", "use", sent={"key": key})
    assert Path(seen["photo"]["path"]).read_bytes() == b"x" * 500_000
    assert Path(seen["photo-poses"]["path"]).read_bytes() == b"npz"
    assert [Path(file["path"]).read_bytes() for file in seen["more-photos"]] == [b"photo 1"]
    assert (seen["Recipe"], seen["Seed"], seen["Zoom"], seen["consent"]["value"]) == ("fast", 7, 1, True)
    assert seen["Fit"] == "pad", "another crop would be another person"
    assert "motion-file" not in seen and "motions" not in seen
    (folder / "photo_001.png").unlink()
    assert working("library-part", "use", sent={"key": key})["more-photos"] is None, "no photo of others stays"


@pytest.mark.parametrize("event", ["again", "drawn", "use"])
def test_another_owners_things_are_answered_as_unknown_ones(working, job, event):
    part, name = "stage-part" if event == "drawn" else "library-part", "key" if event == "use" else "id"
    key = save_person(working.service, working.owner).name
    what = key if event == "use" else job
    unknown = working.refused(part, event, sent={name: "0" * 32}, owner=new_token())
    assert unknown and unknown.endswith(".")
    for owner in (new_token(), working.owner[:-1] + "b", "x"):
        assert working.refused(part, event, sent={name: what}, owner=owner) == unknown
    for owner in ({"owner": working.owner}, [working.owner], 5):
        assert working.refused(part, event, sent={name: what}, owner=owner) in (BROKEN, unknown)
    for hostile in IDS:
        assert working.refused(part, event, sent={name: hostile}, owner=new_token()) == unknown
    assert working.service.status(working.owner, job).state == "done"


def test_another_owner_opens_an_empty_page(working, job):
    assert working("page", "load")["stage-part"]["job"] == job
    assert job not in working.answer("page", "load", owner=new_token()).text


# -- the program -------------------------------------------------------------------------------------------------------


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    given = {"cwd": REPOSITORY, "env": os.environ | environment, "timeout": 300}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **given)


def test_app_imports_next_to_nothing():
    light = "sorted({'gradio', 'fastapi', 'uvicorn', 'torch', 'numpy'} & set(sys.modules))"
    assert python("-c", f"import sys, app; print({light})").stdout.strip() == "[]"


def test_a_taken_port_and_a_wrong_setting_are_one_sentence_and_exit_code_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = python("app.py", "--port", port, "--home", str(tmp_path))
    assert done.returncode == 2 and port in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    done = python("app.py", "--home", str(tmp_path), DREAMPOSE_PORT="many")
    assert done.returncode == 2 and "DREAMPOSE_PORT" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_app_prints_its_address_and_leaves_no_process_behind(tmp_path, end: signal.Signals):
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0", "--home", str(tmp_path / "home")],
        cwd=REPOSITORY,
        env=os.environ | {"ALL_PROXY": "socks5://127.0.0.1:9"},  # which nothing here goes through
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        with urllib.request.urlopen(f"{url}/", timeout=60) as answer:
            assert b"DreamPose" in answer.read()
        children = psutil.Process(process.pid).children()
        assert len(children) == 3, "the web process and two workers"
        process.send_signal(end)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (-9 if end == signal.SIGKILL else 0), stderr
    assert stdout == "" and "Traceback" not in stderr
    _, alive = psutil.wait_procs(children, timeout=60 if end == signal.SIGKILL else 0)
    assert all(child.status() == psutil.STATUS_ZOMBIE for child in alive), "no process is left"
