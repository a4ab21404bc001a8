"""The web application without a browser: page, health, signed links, handlers, and app.py as a process."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from fastapi.testclient import TestClient

from dreampose_core.errors import InputError, StorageError, UnknownJob
from dreampose_core.jobs.records import JobRequest, JobStatus, Timing
from dreampose_core.jobs.service import JobService
from dreampose_core.media import write_video
from dreampose_core.progress import Progress
from dreampose_core.settings import REPOSITORY, AnimateOptions, Settings
from dreampose_core.web import render
from dreampose_core.web.examples import example_motions, example_people, title
from dreampose_core.web.handlers import PageHandlers
from dreampose_core.web.links import ResultLinks, installation_secret
from dreampose_core.web.live import SharedStream
from dreampose_core.web.server import build_app

JOB, OTHER_JOB = "0" * 32, "1" * 32
OWNER = "o" * 43
MP4, NPZ = bytes(range(256)) * 8, b"PK of a motion"


class StubService:
    """A job service whose answers the test sets; the real one has tests of its own."""

    def __init__(self, settings: Settings):
        self.home, self.healthy = settings.home, True
        self.requests: list[JobRequest] = []
        self.statuses: list[JobStatus] = []
        self.cancelled: list[str] = []

    def health(self):
        if self.healthy is None:
            raise StorageError("The job store cannot be used.")
        return {"healthy": self.healthy, "queue": 3}

    def submit(self, owner, request, key=None):
        self.requests.append(request)
        return JOB

    def status(self, owner, job_id):
        if owner != OWNER or not self.statuses:
            raise UnknownJob("There is no such job, or it has expired.")
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def pulse(self, owner, job_id):
        return object()  # another each time

    def jobs(self, owner):
        return self.statuses[-1:] if owner == OWNER else []

    def size_mb(self, owner, job_id):
        return 1.5

    def subjects(self, owner):
        return []

    def pace(self, recipe, quality):
        return (
            Timing(40.0, 0.1, 900.0, "cpu")
            if (recipe, quality) == ("fast", "standard")
            else Timing(None, None, None, None)
        )

    def cancel(self, owner, job_id):
        self.status(owner, job_id)
        self.cancelled.append(job_id)


def job_status(state="running", **changes) -> JobStatus:
    if state == "done":
        changes = {"things": ("video",)} | changes
    values = {"id": JOB, "state": state, "place": 0, "progress": Progress("frames", 3, 12, 20.0), "created": 0.0}
    return JobStatus(**(values | changes))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", secret="a secret of this installation")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for name in (
        "people/alba.png",
        "people/alba.poses.npz",
        "people/bo.png",
        "motions/side_step.npz",
        "motions/side_step.gif",
        "motions/walk.npz",
        "motions/walk.webp",
        "motions/no_picture.npz",
    ):
        path = tmp_path / "examples" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"example")
    return tmp_path / "examples"


@pytest.fixture
def service(settings: Settings) -> StubService:
    return StubService(settings)


@pytest.fixture
def client(settings: Settings, service: StubService, examples: Path):
    with TestClient(build_app(settings, service, examples)) as client:
        yield client


@pytest.fixture
def handlers(settings: Settings, service: StubService, examples: Path, monkeypatch: pytest.MonkeyPatch) -> PageHandlers:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/x")  # where uploads lie
    return PageHandlers(service, ResultLinks(settings.secret), example_people(examples), example_motions(examples))


# -- page --------------------------------------------------------------------------------------------------------------


def test_page_is_served_with_the_settings_that_keep_visitors_safe(client: TestClient, settings: Settings):
    assert client.get("/").status_code == 200
    config = client.get("/config").json()
    assert config["show_error"] is False and config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert config["max_file_size"] == settings.max_upload_mb << 20
    images = [c["props"] for c in config["components"] if c["type"] == "image"]
    assert [(image["type"], image.get("image_mode")) for image in images] == [("filepath", None)]
    stores = [c["props"] for c in config["components"] if c["type"] == "browserstate"]
    assert stores[0]["storage_key"] == "dreampose"
    assert all(
        dependency["api_visibility"] == "private" for dependency in config["dependencies"] if dependency["targets"]
    )
    assert config["footer_links"] == []
    assert client.get("/monitoring").status_code in (403, 404)


def test_only_what_answers_more_than_once_goes_through_the_queue(client: TestClient):
    """An event that comes while Gradio closes the queue's stream is never answered: a Run pressed then would be
    lost."""
    queued = [
        dependency for dependency in client.get("/config").json()["dependencies"] if dependency["queue"] is not False
    ]
    # the preview, the watch, the motion that is made
    assert len(queued) == 3 and all(dependency["types"]["generator"] for dependency in queued)


def test_what_the_browser_is_told_is_not_what_links_are_signed_with(client: TestClient, settings: Settings):
    text = client.get("/config").text
    secret = next(
        c["props"]["secret"] for c in client.get("/config").json()["components"] if c["type"] == "browserstate"
    )
    assert settings.secret not in text
    forged = ResultLinks(secret).make(JOB, "video.mp4")
    assert client.get(f"/{forged}").status_code == 404


def test_the_browser_secret_outlives_a_restart(settings: Settings, service: StubService, examples: Path):
    def told():
        with TestClient(build_app(settings, service, examples)) as client:
            return next(
                c["props"]["secret"] for c in client.get("/config").json()["components"] if c["type"] == "browserstate"
            )

    assert told() == told()


def test_mini_brings_its_notice_and_another_model_does_not(settings: Settings, service: StubService, examples: Path):
    def page(model_settings):
        with TestClient(build_app(model_settings, service, examples)) as client:
            return client.get("/config").text

    notice = "people drawn by our own program"
    assert notice in page(settings) and notice not in page(settings.model_copy(update={"model": "/another/model"}))


def test_examples_are_listed_by_name_with_what_belongs_to_them(examples: Path):
    people, motions = example_people(examples), example_motions(examples)
    assert [(person.name, person.poses and person.poses.name) for person in people] == [
        ("alba", "alba.poses.npz"),
        ("bo", None),
    ]
    assert [(motion.name, motion.thumbnail.suffix) for motion in motions] == [("side_step", ".gif"), ("walk", ".webp")]
    assert title("side_step") == "Side step"
    assert example_people(examples / "nowhere") == [] == example_motions(examples / "nowhere")


# -- health, links -----------------------------------------------------------------------------------------------------


def test_a_tab_that_is_closed_during_an_upload_is_no_error(client: TestClient):
    page, path = client.app, "/gradio_api/upload"
    begun = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf of it'
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "server": ("testserver", 80),
        "client": ("1.2.3.4", 5),
        "headers": [(b"content-type", b"multipart/form-data; boundary=edge"), (b"host", b"testserver")],
    }
    messages, sent = iter([{"type": "http.request", "body": begun, "more_body": True}]), []

    async def receive() -> dict:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(page(scope, receive, send))  # raises nothing
    assert sent[0]["status"] == 400


def test_health_is_what_the_service_says_in_a_status(client: TestClient, service: StubService):
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "queue": 3})
    for service.healthy, status in ((False, "degraded"), (None, "down")):
        answer = client.get("/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, status)


@pytest.fixture
def result(settings: Settings) -> Path:
    for job in (JOB, OTHER_JOB):
        path = settings.home / "jobs" / job / "result.mp4"
        path.parent.mkdir(parents=True)
        path.write_bytes(MP4)
        path.with_name("motion.npz").write_bytes(NPZ)
    return settings.home / "jobs" / JOB / "result.mp4"


def test_a_fresh_link_serves_the_video_and_parts_of_it(client: TestClient, settings: Settings, result: Path):
    link = "/" + ResultLinks(settings.secret).make(JOB, "dreampose-walk.mp4")
    whole = client.get(link)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, MP4, "video/mp4")
    assert whole.headers["content-disposition"].startswith("inline")
    part = client.get(link, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, MP4[10:20])
    saved = client.get(f"{link}&download=1")
    assert saved.headers["content-disposition"] == 'attachment; filename="dreampose-walk.mp4"'
    assert "no" in saved.headers["x-content-type-options"] and "private" in saved.headers["cache-control"]


def test_the_file_of_a_motion_has_a_link_of_its_own(client: TestClient, settings: Settings, result: Path):
    link = "/" + ResultLinks(settings.secret).make(JOB, "dreampose-a.npz", "motion")
    saved = client.get(f"{link}&download=1")
    assert (saved.status_code, saved.content, saved.headers["content-type"]) == (200, NPZ, "application/octet-stream")
    assert saved.headers["content-disposition"] == 'attachment; filename="dreampose-a.npz"'
    assert client.get(link.replace("/motion/", "/video/")).status_code == 404, "the signature is that of the motion"
    (result.parent / "motion.npz").unlink()
    assert client.get(link).status_code == 404  # of a job that made none


def test_expired_forged_and_foreign_links_get_the_same_answer_as_unknown_jobs(
    client: TestClient, settings: Settings, result: Path
):
    now = [1_000_000_000.0]
    clock = ResultLinks(settings.secret, clock=lambda: now[0])
    expired = clock.make(JOB, "a.mp4")
    good = ResultLinks(settings.secret).make(JOB, "a.mp4")
    last = good[-1]
    bad = {
        "expired": expired,
        "forged": good[:-1] + ("0" if last != "0" else "1"),
        "another installation's": ResultLinks("another secret").make(JOB, "a.mp4"),
        "for another job": good.replace(JOB, OTHER_JOB),
        "for another name": good.replace("a.mp4", "b.mp4"),
        "made to last longer": re.sub(r"expires=(\d+)", lambda match: f"expires={int(match[1]) + 1}", good),
        "unsigned": good.split("?")[0],
        "unknown job": ResultLinks(settings.secret).make("2" * 32, "a.mp4"),
        "not ASCII": good.split("&")[0] + "&signature=%C3%A9",
        "a climbing name": ResultLinks(settings.secret).make("..", "a.mp4"),
        "for another thing": good.replace("/video/", "/photo/"),
        "what is not there": ResultLinks(settings.secret).make(JOB, "a.gif", "gif"),
        "no thing": ResultLinks(settings.secret).make(JOB, "a.sqlite3", "../../jobs"),
    }
    answers = {name: client.get(f"/{link}") for name, link in bad.items()}
    assert client.get(f"/{good}").status_code == 200
    plain = {
        name: (answer.status_code, answer.text)
        for name, answer in answers.items()
        if name not in ("a climbing name", "no thing")
    }
    assert set(plain.values()) == {(404, answers["unknown job"].text)}
    assert "unknown or has expired" in answers["unknown job"].text
    assert {answers["a climbing name"].status_code, answers["no thing"].status_code} == {404}


def test_links_end_after_their_lifetime():
    now = [1000.0]
    links = ResultLinks("s", lifetime_s=600, clock=lambda: now[0])
    parts = re.fullmatch(r"results/(\w+)/video/(.+)\?expires=(\d+)&signature=(\w+)", links.make(JOB, "a.mp4")).groups()
    now[0] = 1599.0
    assert links.valid(*parts)
    now[0] = 1601.0
    assert not links.valid(*parts)


def test_the_secret_is_made_once_and_readable_by_its_owner_only(tmp_path: Path):
    settings = Settings(home=tmp_path / "new" / "home")
    secret = installation_secret(settings)
    assert len(secret) == 64 and installation_secret(settings) == secret
    assert stat.S_IMODE((settings.home / "secret").stat().st_mode) == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["secret"]
    assert installation_secret(settings.model_copy(update={"secret": "given"})) == "given"


# -- handlers ----------------------------------------------------------------------------------------------------------


FORM = {
    "motion": "walk",
    "motion_file": None,
    "recipe": "fast",
    "quality": "draft",
    "steps": "",
    "image_guidance": " ",
    "pose_guidance": "",
    "seed": 7,
    "fps": "",
    "frames": "",
    "speed": 1,
    "loops": "",
    "align": "body",
    "changes": [],
    "fit": "auto",
    "zoom": 1,
    "shift_right": 0,
    "shift_down": 0,
    "solver": "",
    "consent": True,
    "photo": "/x/photo.png",
    "photo_poses": None,
}


def submit(handlers: PageHandlers, browser=None, **changes):
    return handlers.submit(browser or {"owner": OWNER}, **(FORM | changes))


def preview(handlers: PageHandlers, **changes) -> list[str]:
    async def collect():
        return [picture async for picture in handlers.preview({"owner": OWNER}, **(FORM | changes))]

    return asyncio.run(collect())


def test_the_first_visit_makes_a_token_of_256_bits_and_later_ones_keep_it(handlers: PageHandlers, service: StubService):
    first, job, run = handlers.open_page(None)
    assert run["interactive"] and job is None and re.fullmatch(r"[\w-]{43}", first["owner"])
    assert handlers.open_page({"owner": "made up"})[0]["owner"] not in ("made up", first["owner"])
    assert handlers.open_page(first)[:2] == (first, None)
    service.statuses = [job_status()]
    assert handlers.open_page({"owner": OWNER, "job": "gone"})[:2] == ({"owner": OWNER, "job": JOB}, JOB)


def test_submit_hands_the_form_over_typed(handlers: PageHandlers, service: StubService, examples: Path):
    browser, job, message = submit(handlers, photo_poses="/x/p.npz", steps=" 5 ", image_guidance="2.5")
    assert (browser, job, message) == ({"owner": OWNER, "job": JOB}, JOB, "")
    assert service.requests == [
        JobRequest(
            image=Path("/x/photo.png"),
            poses=examples / "motions" / "walk.npz",
            image_poses=Path("/x/p.npz"),
            options=AnimateOptions(recipe="fast", quality="draft", steps=5, image_guidance=2.5, seed=7),
            consent="given",
        )
    ]
    submit(
        handlers,
        motion_file="/x/own.mp4",
        frames="10:70",
        speed=2,
        loops="3",
        changes=["mirror", "keep_sound"],
        align="none",
        fit="pad",
        zoom=1.5,
        shift_down=-0.1,
        solver="unipc",
    )
    assert service.requests[-1].poses == Path("/x/own.mp4")
    expected = AnimateOptions(
        recipe="fast",
        quality="draft",
        seed=7,
        first_frame=10,
        last_frame=70,
        speed=2,
        loops=3,
        mirror=True,
        align="none",
        fit="pad",
        keep_sound=True,
        zoom=1.5,
        shift_down=-0.1,
        solver="unipc",
    )
    assert service.requests[-1].options == expected
    submit(handlers, frames=":70")
    assert (service.requests[-1].options.first_frame, service.requests[-1].options.last_frame) == (None, 70)


def test_more_photos_go_with_a_video_and_not_with_a_preview(handlers: PageHandlers, service: StubService):
    files = ["/x/a.png", {"path": "/x/b.png", "meta": {"_type": "gradio.FileData"}}]
    submit(handlers, more_photos=files)
    assert service.requests[-1].more_images == (Path("/x/a.png"), Path("/x/b.png"))
    for none in (None, []):
        submit(handlers, more_photos=none)
        assert service.requests[-1].more_images == ()
    submit(handlers, more_photos={"path": "/x/a.png"})
    assert service.requests[-1].more_images == (Path("/x/a.png"),)
    service.statuses = [job_status(state="done", kind="preview", result=Path("/x/result.mp4"))]
    preview(handlers, more_photos=files)
    assert service.requests[-1].kind == "preview" and service.requests[-1].more_images == ()


def test_a_preview_is_shown_as_it_comes(handlers: PageHandlers, service: StubService, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dreampose_core.web.handlers.POLL_S", 0.01)
    told = dict(kind="preview", result=Path("/x/result.mp4"), notices=("walk.mp4: 60 frames <b>.",))
    service.statuses = [
        job_status(state="queued", kind="preview"),
        job_status(state="running", kind="preview", progress=Progress("estimating", 40, 60)),
        job_status(state="running", kind="preview", progress=Progress("preview", 3, 60)),
        job_status(state="done", **told),
    ]
    seen = preview(handlers, photo=None)
    assert service.requests[-1].kind == "preview" and service.requests[-1].image is None
    for picture, words in zip(seen, ("waits", "Finding the person: picture 40 of 60", "frame 3 of 60", "<video")):
        assert words in picture
    assert len(seen) == 4 and "60 frames &lt;b&gt;." in seen[-1] and "results/" in seen[-1]


def test_a_photo_is_looked_at_at_once(handlers: PageHandlers, service: StubService, tmp_path: Path):
    def look(*given) -> str:
        photo, photo_poses, fit = given
        return asyncio.run(handlers.look({"owner": OWNER}, photo, photo_poses, fit=fit, zoom=2))

    assert look(None, None, "auto") == "" and not service.requests
    (tmp_path / "look.png").write_bytes(b"picture")
    service.statuses = [job_status(state="done", kind="preview", look=tmp_path / "look.png", notices=("A person.",))]
    seen = look("/x/photo.png", None, "crop")
    assert service.requests[-1].poses is None and service.requests[-1].options == AnimateOptions(fit="crop", zoom=2)
    assert service.requests[-1].consent is None, "a photo that is only looked at needs none"
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in seen and "A person." in seen


@pytest.mark.parametrize("sent_first", [True, False])
def test_of_two_looks_at_once_only_the_later_one_comes(
    handlers: PageHandlers, service: StubService, monkeypatch, tmp_path, sent_first
):
    """The earlier one is stopped, whether its job had been sent when the later one came or not."""
    monkeypatch.setattr("dreampose_core.web.handlers.POLL_S", 0.01)
    (tmp_path / "look.png").write_bytes(b"picture")
    first_sent, second_came = threading.Event(), threading.Event()

    def submit(owner, request, key=None):
        job = f"zoom {request.options.zoom:g}"
        if job == "zoom 1" and not sent_first:
            assert second_came.wait(30)
        (first_sent if job == "zoom 1" else second_came).set()
        return job

    def status(owner, job):
        finished = job == "zoom 2" or job in service.cancelled
        told = {"look": tmp_path / "look.png", "notices": (job,)} if finished else {}
        return job_status("done" if finished else "running", id=job, kind="preview", **told)

    monkeypatch.setattr(service, "submit", submit)
    monkeypatch.setattr(service, "status", status)

    async def both() -> list:
        def look(zoom: int):
            return asyncio.create_task(handlers.look({"owner": OWNER}, "/x/photo.png", None, zoom=zoom))

        earlier = look(1)
        if sent_first:
            await asyncio.to_thread(first_sent.wait, 30)
        else:
            await asyncio.sleep(0)  # it is on its way, no more
        return await asyncio.wait_for(asyncio.gather(earlier, look(2)), 60)

    earlier, later = asyncio.run(both())
    assert "zoom 2" in later and earlier == gr.skip()
    assert service.cancelled == ["zoom 1"] and not handlers._previews


def test_a_preview_that_cannot_be_made_is_one_sentence(handlers: PageHandlers, service: StubService):
    assert "Choose a motion" in preview(handlers, motion=None)[0] and not service.requests
    service.statuses = [job_status(state="failed", kind="preview", error="walk.pkl is a pickle.")]
    assert "walk.pkl is a pickle." in preview(handlers)[-1]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"photo": None}, "Choose a photo"),
        ({"photo": "/y/photo.png"}, "not uploaded"),
        ({"motion_file": "/x/../y/walk.npz"}, "not uploaded"),
        ({"photo_poses": "http://127.0.0.1/poses.npz"}, "not uploaded"),
        ({"motion": None}, "Choose a motion"),
        ({"motion": "../walk"}, "Choose a motion"),
        ({"steps": "2.5"}, "steps"),
        ({"steps": "0"}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"image_guidance": "21"}, "image guidance"),
        ({"pose_guidance": "nan"}, "pose guidance"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"fps": "0"}, "fps"),
        ({"frames": "20"}, "FIRST:LAST"),
        ({"frames": "a:b"}, "FIRST:LAST"),
        ({"speed": 0}, "speed"),
        ({"zoom": 9}, "zoom"),
        ({"solver": "euler"}, "solver"),
        ({"consent": False}, "the person in the photo agreed"),
        ({"consent": None}, "the person in the photo agreed"),
        ({"consent": "yes"}, "the person in the photo agreed"),
        ({"recipe": "slow"}, "recipe"),
        ({"more_photos": ["/x/a.png"] * 5}, "at most 4 are taken"),
        ({"more_photos": ["/x/a.png", "/y/b.png"]}, "not uploaded"),
        ({"more_photos": [7]}, "not uploaded"),
        ({"more_photos": 7}, "not uploaded"),
        ({"browser": {"owner": "short"}}, "reload"),
    ],
)
def test_a_wrong_form_is_one_sentence_that_stays(
    handlers: PageHandlers, service: StubService, changes: dict, words: str
):
    browser, job, message = submit(handlers, **changes)
    assert 'role="alert"' in message and words in message
    assert not service.requests and not isinstance(job, str)


def test_people_who_were_drawn_need_no_consent(
    handlers: PageHandlers, service: StubService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dreampose_core.web.handlers.is_static_file", lambda path: True)
    submit(handlers, photo=str(handlers.people[0].image), consent=False)
    assert service.requests[-1].consent == "drawn"
    assert "agreed" in preview(handlers, consent=False)[0], "a preview moves the photo, too"
    preview(handlers, photo=None, consent=False)
    assert service.requests[-1].kind == "preview" and service.requests[-1].consent is None


def test_errors_of_the_service_are_shown_escaped(
    handlers: PageHandlers, service: StubService, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_):
        raise InputError("<b>.png is too large.")

    monkeypatch.setattr(service, "submit", refuse)
    assert "&lt;b&gt;.png is too large." in submit(handlers)[2]


def test_a_pick_outside_the_gallery_changes_nothing(handlers: PageHandlers):
    name, words, file = handlers.pick_motion(SimpleNamespace(index=1))
    assert (name, file) == ("walk", None) and "Walk" in words
    assert handlers.pick_person(SimpleNamespace(index=0)) == (
        str(handlers.people[0].image),
        str(handlers.people[0].poses),
        None,
    )
    for index in (-1, 9):
        event = SimpleNamespace(index=index)
        assert all(isinstance(part, dict) for part in (*handlers.pick_person(event), *handlers.pick_motion(event)))


def test_a_random_seed_is_another_each_time_and_in_range(handlers: PageHandlers):
    seeds = {handlers.random_seed() for _ in range(20)}
    assert len(seeds) > 15 and all(AnimateOptions(seed=seed) for seed in seeds)


PARTS = ("card", "loss", "samples", "live", "result", "download", "shelf")


def watch(handlers: PageHandlers, owner=OWNER, session="s") -> list[dict]:
    """All updates of a watch, as {part: value}."""
    handlers.watched(**{name: name for name in PARTS})

    async def collect():
        return [update async for update in handlers.watch({"owner": owner}, JOB, SimpleNamespace(session_hash=session))]

    return asyncio.run(asyncio.wait_for(collect(), 60))


def test_watching_plays_each_chunk_once_in_order_and_ends_with_a_link(
    handlers: PageHandlers, service: StubService, monkeypatch
):
    monkeypatch.setattr("dreampose_core.web.handlers.POLL_S", 0.01)
    chunks = tuple(Path(f"/x/{i:06d}.mp4") for i in range(4))
    service.statuses = [
        job_status("queued", place=2, progress=None),
        job_status(chunks=chunks[:2]),
        job_status(chunks=chunks[:2]),
        job_status(chunks=chunks[:3], losses=(0.3, 0.2)),
        job_status("done", chunks=chunks, frames=chunks, result=Path("/x/result.mp4")),
    ]
    service.statuses.insert(0, service.statuses[0])
    updates = watch(handlers)
    assert [update["live"] for update in updates if isinstance(update["live"], str)] == [str(chunk) for chunk in chunks]
    assert all(update.keys() == updates[0].keys() for update in updates), "each yield is the whole picture"
    cards = [update["card"] for update in updates]
    assert "Place 2" in cards[0] and "Your video is ready" in cards[-1]
    assert any("polyline" in update["loss"] for update in updates)
    assert all(update["live"]["value"] is None for update in updates[:1])
    final = updates[-1]
    assert "results/" in final["download"] and "4 frames" in final["download"] and "<video" in final["result"]
    assert not any("results/" in update["download"] for update in updates[:2])
    assert len(updates) == 6, "what has not changed is not sent again, but for the end, which Gradio repeats"
    assert not handlers._turns


def test_what_is_done_with_a_job_at_its_end_is_not_undone(handlers: PageHandlers, service: StubService, monkeypatch):
    """The last yield of a watch is sent twice, the second time after its end."""
    monkeypatch.setattr("dreampose_core.web.handlers.SETTLED_S", 0.01)
    service.statuses = [job_status("done", result=Path("/x/result.mp4"), things=("video",))]
    assert "ready" in watch(handlers)[-1]["card"]
    monkeypatch.setattr(PageHandlers, "shelf", lambda self, owner, shown: "its shelf now")
    assert watch(handlers)[-1]["shelf"] == "its shelf now"
    real, asked = service.status, []

    def deleted(owner: str, job: str):
        asked.append(job)
        if len(asked) > 1:
            raise UnknownJob("There is no such job.")
        return real(owner, job)

    monkeypatch.setattr(service, "status", deleted)
    updates = watch(handlers)
    assert "ready" in updates[0]["card"] and list(updates[-1]) == ["card"] and "no such job" not in str(updates[-1])


def test_watching_shows_each_picture_of_the_learning_when_it_is_there(
    handlers: PageHandlers, service: StubService, monkeypatch, tmp_path: Path
):
    monkeypatch.setattr("dreampose_core.web.handlers.POLL_S", 0.01)
    paths = tuple(tmp_path / f"{step:06d}.png" for step in (0, 17))
    for path in paths:
        path.write_bytes(path.name.encode())
    learning = Progress("tuning", 18, 50)
    service.statuses = [
        job_status(),
        job_status(progress=learning),
        job_status(progress=learning, samples=paths[:1]),
        job_status(progress=learning, samples=paths),
        job_status("done", samples=paths),
    ]
    drawn, real = [], render.samples
    monkeypatch.setattr(render, "samples", lambda status: drawn.append(status.samples) or real(status))
    shown = [update["samples"] for update in watch(handlers)]
    assert [html.count("<img") for html in dict.fromkeys(shown)] == [0, 1, 2] and shown[-1] == shown[-2]
    assert drawn == [(), paths[:1], paths, paths], "they are read when they change, and at the end"


def test_a_chunk_becomes_a_part_of_the_stream_once_for_all_who_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chunks, made, mux = [str(tmp_path / f"{i:06d}.mp4") for i in range(3)], [], gr.Video.mux_segment
    for i, chunk in enumerate(chunks):
        write_video(np.full((5 + i, 32, 32, 3), 60 * i, np.uint8), chunk, 5.0)

    async def stream(video, name: str) -> list:
        parts = [await video.stream_output(chunk, name, chunk == chunks[0]) for chunk in (chunks[0], None, *chunks[1:])]
        assert all(file["path"] == name and file["is_stream"] for _, file in parts)
        return [part for part, _ in parts]

    async def many(video) -> list:
        return await asyncio.gather(*(stream(video, str(i)) for i in range(4)))

    expected = asyncio.run(stream(gr.Video(streaming=True), "own"))
    monkeypatch.setattr(gr.Video, "mux_segment", staticmethod(lambda *given: made.append(given[0]) or mux(*given)))
    for found in asyncio.run(many(SharedStream())):
        assert [part and part["data"] for part in found] == [part and part["data"] for part in expected]
        assert [part["duration"] for part in found if part] == pytest.approx([1, 1.2, 1.4])
    assert made == chunks
    video, missing = SharedStream(), str(tmp_path / "gone" / "000000.mp4")
    assert asyncio.run(video.stream_output(missing, "own", True))[0] is None, "its job was deleted meanwhile"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "000000.mp4").write_bytes(b"no video")
    with pytest.raises(Exception, match="."):
        asyncio.run(video.stream_output(str(tmp_path / "broken" / "000000.mp4"), "own", True))


def test_somebody_elses_job_is_unknown(handlers: PageHandlers, service: StubService):
    service.statuses = [job_status("done")]
    shown = "".join(str(update.get("card", "")) for update in watch(handlers, owner="e" * 43))
    assert "There is no such job" in shown and "ready" not in shown
    assert "There is no such job" in handlers.cancel({"owner": "e" * 43}, JOB)
    assert not service.cancelled
    assert handlers.cancel({"owner": OWNER}, JOB) == "" and service.cancelled == [JOB]


def test_a_page_that_watches_another_job_leaves_the_first(handlers: PageHandlers, service: StubService, monkeypatch):
    monkeypatch.setattr("dreampose_core.web.handlers.POLL_S", 0.01)
    service.statuses = [job_status()]
    handlers.watched(**{name: name for name in PARTS})

    async def two_watches():
        session = SimpleNamespace(session_hash="one page")
        first = handlers.watch({"owner": OWNER}, JOB, session)
        await anext(first)
        second = handlers.watch({"owner": OWNER}, JOB, session)
        await anext(second)
        left = [update async for update in first]
        await second.aclose()
        return left

    left = asyncio.run(asyncio.wait_for(two_watches(), 60))
    assert not any("live" in update or "result" in update for update in left[-1:])
    assert not handlers._turns


# -- rendering ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, words",
    [
        (job_status("queued", place=1, progress=None), "yours is next"),
        (job_status("queued", place=3, progress=None), "2 jobs are before yours"),
        (job_status(progress=None), "Getting ready"),
        (job_status(progress=Progress("loading", 0, 1)), "Getting ready"),
        (job_status(progress=Progress("tuning", 30, 120, 42.0, 0.1)), "Step 30 of 120 · about 40 s left"),
        (job_status(), "Frame 3 of 12"),
        (job_status("cancelling"), "Stopping"),
        (job_status("cancelled"), "Stopped"),
        (job_status("interrupted"), "goes on by itself"),
        (job_status("failed", error="a <script> in a name"), "a &lt;script&gt; in a name"),
        (job_status("done", notices=("Fewer frames <at once>.",)), "Fewer frames &lt;at once&gt;."),
    ],
)
def test_each_state_is_said_in_words(status: JobStatus, words: str):
    card = render.status_card(status)
    assert words in card and "<script" not in card


def test_the_learning_stage_is_left_out_where_there_is_none():
    request = JobRequest(image=Path("i"), poses=Path("p"), options=AnimateOptions(recipe="none"))
    assert "Learn" not in render.status_card(job_status(request=request))
    assert "Learn" in render.status_card(job_status())


def test_a_glimpse_stands_where_the_video_will_be():
    shown = render.result_placeholder(job_status(latent_preview=b"png"))
    assert f'src="data:image/png;base64,{base64.b64encode(b"png").decode()}"' in shown and "<img" in shown
    assert "<img" not in render.result_placeholder(job_status()) and "appears here" in render.result_placeholder(
        job_status()
    )


@pytest.mark.parametrize(
    "seconds, words", [(2, "a few seconds"), (43, "about 45 s"), (200, "about 3 min"), (7200, "about 2.0 h")]
)
def test_time_left_is_coarse(seconds: float, words: str):
    assert words in render.time_left(seconds)


def test_the_loss_curve_needs_two_values_and_its_place_is_kept():
    assert "polyline" in render.loss_curve(job_status(losses=(0.1, 0.1))) and "nan" not in render.loss_curve(
        job_status(losses=(0.1, 0.1))
    )
    waiting = render.loss_curve(job_status(losses=(0.1,)))
    assert "<svg" in waiting and "polyline" not in waiting
    assert render.loss_curve(job_status("done")) == ""
    untuned = JobRequest(image=Path("i"), poses=Path("p"), options=AnimateOptions(recipe="none"))
    assert render.loss_curve(job_status(request=untuned)) == ""


def test_pictures_of_the_learning_stand_in_a_row_with_their_steps(tmp_path: Path):
    paths = tuple(tmp_path / f"{step:06d}.png" for step in (0, 17, 170))
    for path in paths[:2]:
        path.write_bytes(b"png of " + path.name.encode())
    shown = render.samples(job_status(samples=paths))  # the last one has just gone with its job
    assert re.findall(r"<span>(.*?)</span>", shown) == ["step 0", "step 17"] and shown.count("<img") == 2
    for path in paths[:2]:
        assert f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"' in shown
    assert "results/" not in shown and 'alt="What came out after 17 steps of learning"' in shown


def test_the_place_of_these_pictures_is_kept_while_they_may_come():
    waiting = render.samples(job_status())
    assert "<figure" in waiting and "<img" not in waiting and "appears here" in waiting
    untuned = JobRequest(image=Path("i"), poses=Path("p"), options=AnimateOptions(recipe="none"))
    assert render.samples(job_status(request=untuned)) == "" == render.samples(job_status("done"))
    style = (REPOSITORY / "assets" / "page" / "style.css").read_text()
    assert re.search(r"\.dp-samples ol \{[^}]*height: \d+px", style) and re.search(
        r"\.dp-samples img \{[^}]*height: \d+px", style
    )


# -- the program -------------------------------------------------------------------------------------------------------


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_web_never_imports_torch_and_app_imports_next_to_nothing():
    heavy = "sorted({'torch', 'diffusers', 'transformers', 'imageio'} & set(sys.modules))"
    assert python("-c", f"import sys, dreampose_core.web.server; print({heavy})").stdout.strip() == "[]"
    light = "sorted({'gradio', 'fastapi', 'uvicorn', 'torch', 'numpy'} & set(sys.modules))"
    assert python("-c", f"import sys, app; print({light})").stdout.strip() == "[]"


def test_a_taken_port_and_a_wrong_setting_are_one_sentence_and_exit_code_2(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = python("app.py", "--port", port, "--home", str(tmp_path))
    assert done.returncode == 2 and port in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    done = python("app.py", "--home", str(tmp_path), DREAMPOSE_PORT="many")
    assert done.returncode == 2 and "DREAMPOSE_PORT" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_app_says_where_it_serves_and_leaves_nobody_behind(tmp_path: Path, end: signal.Signals):
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0", "--home", str(tmp_path / "home")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        with urllib.request.urlopen(f"{url}/", timeout=60) as answer:
            assert b"DreamPose" in answer.read()
        workers = _children(process.pid)
        assert len(workers) >= 2
        process.send_signal(end)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, stderr
    assert stdout == "" and "Traceback" not in stderr
    assert not [pid for pid in workers if Path(f"/proc/{pid}/stat").exists()]


def _children(pid: int) -> list[int]:
    """The process ids of a process's living children, whichever of its threads started them."""
    return [
        int(child)
        for tasks in Path(f"/proc/{pid}/task").iterdir()
        for child in (tasks / "children").read_text().split()
    ]


def test_the_real_service_fits_the_page(settings: Settings, examples: Path):
    with TestClient(build_app(settings, JobService(settings), examples)) as client:
        assert client.get("/healthz").json() == {"status": "down"}
