"""What Gradio keeps of a visitor is let go, and nobody notices: the page itself keeps what they did."""

from __future__ import annotations

import datetime
import time

import gradio as gr
import pytest
from starlette.routing import Mount
from starlette.testclient import TestClient
from test_web import OWNER, examples, job_status, service, settings  # noqa: F401

from dreampose_core.web import sessions
from dreampose_core.web.server import build_app
from dreampose_core.web.sessions import IDLE_S, let_go

DEADLINE_S = 60


@pytest.fixture
def client(settings, service, examples):  # noqa: F811
    with TestClient(build_app(settings, service, examples)) as client:
        yield client


@pytest.fixture
def page(client) -> gr.Blocks:
    return next(route.app for route in client.app.routes if isinstance(route, Mount) and not route.path).get_blocks()


def ask(client: TestClient, elem_id: str, data: list, session: str, event: str = "input", **more) -> list:
    """What the page's event of a component answers."""
    config = client.get("/config").json()
    component = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == elem_id)
    found = next(d for d in config["dependencies"] if [component, event] in [list(target) for target in d["targets"]])
    answer = client.post(
        "/gradio_api/run/predict", json={"fn_index": found["id"], "data": data, "session_hash": session, **more}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def pick_walk(client: TestClient, session: str) -> list:
    # as it comes from a click on the second picture of the gallery
    return ask(client, "dp-motions", [], session, "select", event_data={"index": 1, "value": None})


def used_long_ago(page: gr.Blocks, session: str) -> None:
    page.state_holder.time_last_used[session] -= datetime.timedelta(seconds=IDLE_S + 1)


def test_sessions_are_let_go_when_they_were_not_used_for_long(client, page):
    for session in ("anna", "ben"):
        pick_walk(client, session)
    page.pending_streams["anna"]["run"], page.pending_streams["ben"]["run"] = {}, {}
    used_long_ago(page, "anna")
    assert let_go(page) == 1
    assert (
        list(page.state_holder.session_data)
        == list(page.state_holder.time_last_used)
        == list(page.pending_streams)
        == ["ben"]
    )
    assert let_go(page) == 0


def test_a_session_in_which_something_runs_is_kept(client, page):
    pick_walk(client, "anna")
    used_long_ago(page, "anna")
    page._queue.pending_event_ids_session["anna"] = {"watch"}
    page._queue.event_ids_to_events["watch"] = object()
    assert let_go(page) == 0
    del page._queue.event_ids_to_events["watch"]
    assert let_go(page) == 1 and not page._queue.pending_event_ids_session


def test_a_page_closed_while_it_watched_leaves_nothing(client, page, service):  # noqa: F811
    """What the watch says then is read by nobody, and Gradio believes for ever that it is still to be read."""
    service.statuses = [job_status("failed", error="No.")]
    config, queue = client.get("/config").json(), page._queue
    job = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "dp-job")
    watch = next(d for d in config["dependencies"] if [job, "change"] in [list(target) for target in d["targets"]])
    data = [{"owner": OWNER, "job": service.statuses[0].id}, *[None] * (len(watch["inputs"]) - 1)]
    joined = client.post("/gradio_api/queue/join", json={"fn_index": watch["id"], "data": data, "session_hash": "anna"})
    assert joined.status_code == 200, joined.text
    end = time.monotonic() + DEADLINE_S
    while queue.event_ids_to_events:
        assert time.monotonic() < end, "the watch still runs"
        client.get("/config")
    assert queue.pending_event_ids_session["anna"] and queue.pending_messages_per_session["anna"].qsize()
    assert let_go(page) == 0 and "anna" in queue.pending_messages_per_session, "it may be read yet"
    used_long_ago(page, "anna")
    assert let_go(page) == 1
    assert (
        not queue.pending_event_ids_session
        and not queue.pending_messages_per_session
        and not page.state_holder.session_data
    )


def test_what_was_chosen_is_in_the_page_and_not_in_the_session(client, page):
    """No component may keep its value here."""
    assert not [block for block in page.blocks.values() if isinstance(block, gr.State)]
    name, words, _ = pick_walk(client, "anna")
    assert name == "walk" and "Walk" in words
    used_long_ago(page, "anna")
    assert let_go(page) == 1
    asked = '{"do": "open", "id": "no such job", "name": ""}'
    assert "There is no such job" in str(ask(client, "dp-act", [{"owner": OWNER, "job": None}, asked], "anna", "click"))


def test_it_happens_by_itself_while_the_page_is_served(settings, service, examples, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sessions, "EVERY_S", 0.05)
    with TestClient(build_app(settings, service, examples)) as client:
        page = next(
            route.app for route in client.app.routes if isinstance(route, Mount) and not route.path
        ).get_blocks()
        pick_walk(client, "anna")
        used_long_ago(page, "anna")
        end = time.monotonic() + DEADLINE_S
        while "anna" in page.state_holder.session_data:
            assert time.monotonic() < end, "the session is still there"
            time.sleep(0.02)
