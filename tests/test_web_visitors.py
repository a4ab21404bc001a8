"""Every event and route of the page tried as another visitor, and with paths and ids that are none of theirs.

Run: .venv/bin/pytest tests/test_web_visitors.py
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from job_worker import GATED
from starlette.testclient import TestClient
from test_jobs_service import command, files, motion_request, open_gate, request, wait_for, wait_state  # noqa: F401

from dreampose_core.jobs.service import JobService
from dreampose_core.media import write_png
from dreampose_core.poses import read_poses
from dreampose_core.settings import Settings
from dreampose_core.web.programs import FILES
from dreampose_core.web.server import build_app

ANNA, BEN = "a" * 43, "b" * 43
UNKNOWN = "0" * 32
HOSTILE = (None, "", "x" * 50, [], ["walk"], {"value": 1}, -1e12, 1e12)
LABELS = {
    "motion": "Motion",
    "seconds": "Length, s",
    "fps": "Rate, fps",
    "speed": "Speed, ×",
    "amplitude": "Movements, ×",
    "height": "Height",
    "build": "Build",
    "clothes": "Clothes",
    "view": "Seen from, °",
    "turning": "Goes round, °/s",
    "distance": "Distance, ×",
    "seed": "Seed",
}
IDS = ("x", "../../secret", "%2e%2e%2fsecret", "' OR 1=1 --", "\x00", "a" * 10_000, 7, None, [], {"id": 1}, True)


@pytest.fixture
def service(tmp_path, monkeypatch):
    # as app.py does
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "home" / "uploads"))
    with JobService(
        Settings(home=tmp_path / "home", estimator="none", secret="a secret", max_own=100), command
    ) as service:
        yield service


@pytest.fixture
def client(service):
    with TestClient(build_app(service.settings, service)) as client:
        yield client


@pytest.fixture
def job(service, files):  # noqa: F811
    """Anna's, finished."""
    job = service.submit(ANNA, request(files))
    wait_state(service, job, "done", owner=ANNA)
    return job


def events(client: TestClient) -> list[tuple[dict, list[dict]]]:
    """The events that the server answers in their request, with their input components."""
    config = client.get("/config").json()
    components = {component["id"]: component for component in config["components"]}
    found = [d for d in config["dependencies"] if d["backend_fn"] and not d["queue"]]
    return [(d, [components[i] for i in d["inputs"]]) for d in found]


def ask(client: TestClient, event: dict, data: list, **more) -> tuple[int, str]:
    asked = {"fn_index": event["id"], "data": data, "session_hash": "session", **more}
    answer = client.post("/gradio_api/run/predict", json=asked)
    return answer.status_code, re.sub(r'"(average_)?duration":[^,}]*', "", answer.text)


def filled(inputs: list[dict], owner: object, job: object, file: object = None) -> list:
    """Values for an event: the owner's browser or token, the job's id wherever text or a choice is given, `file`
    wherever a file is."""
    values = []
    for component in inputs:
        kind, props = component["type"], component["props"]
        if kind == "browserstate":
            values.append({"owner": owner, "job": job} if isinstance(owner, str) else owner)
        elif kind in ("image", "file") or kind == "api" and props["label"] in FILES:
            values.append(file)
        elif kind == "api" and props["label"] in ("token", "job"):
            values.append(owner if props["label"] == "token" else job)
        elif kind == "dropdown" or (kind == "textbox" and not props.get("label")):
            values.append(job)
        else:
            values.append(props.get("value"))
    return values


def renew(client: TestClient) -> None:
    """Has Gradio make the session's components anew, as it does after events that change or skip them: nothing may hang
    on the old ones."""
    for event, inputs in events(client):
        if not inputs:
            ask(client, event, [], event_data={"index": -1, "value": None})


def test_another_visitor_is_answered_as_if_the_job_did_not_exist(client, service, job):
    asked = 0
    for event, inputs in events(client):
        if not any(
            component["type"] == "browserstate" or component["props"].get("label") == "token" for component in inputs
        ):
            continue
        asked += 1
        for owner in (
            BEN,
            ANNA[:-1] + "b",
            None,
            {},
            {"owner": None},
            {"owner": 5},
            [ANNA],
            {"owner": {"owner": ANNA}},
        ):
            theirs, nobodys = (ask(client, event, filled(inputs, owner, one)) for one in (job, UNKNOWN))
            said = theirs[1].replace(job, "ID"), nobodys[1].replace(UNKNOWN, "ID")
            # a browser that keeps no token gets a new one, a motion that anybody may have made a new id
            said = [re.sub(r'"owner":"[\w-]{43}"', '"owner":"new"', text) for text in said]
            said = [re.sub(r'\["[0-9a-f]{32}"\]', '["new"]', text) for text in said]
            assert (theirs[0], said[0]) == (nobodys[0], said[1]), event["api_name"]
            assert "/results/" not in theirs[1] and "results/" + job not in theirs[1]
    assert asked >= 5 + 7  # of the page, and of the endpoints
    status = service.status(ANNA, job)
    assert status.state == "done" and service.jobs(BEN) == []


@pytest.mark.parametrize("name", ["fresh_link", "list_jobs", "show_job", "cancel_job", "get_result"])
def test_the_owner_is_answered(client, service, job, name):
    """What the test above looks for is there for her: it could fail."""
    event, inputs = next((e, i) for e, i in events(client) if e["api_name"] == name)
    assert f"results/{job}" in ask(client, event, filled(inputs, ANNA, job))[1]
    assert f"results/{job}" not in ask(client, event, filled(inputs, BEN, job))[1]


def test_another_visitor_stops_nothing(client, service, files):  # noqa: F811
    job = service.submit(ANNA, request(files, GATED))
    wait_for(lambda: len(service.status(ANNA, job).frames) == 2, "the middle of the job")
    event, inputs = next((e, i) for e, i in events(client) if e["api_name"] == "cancel")
    for name in ("cancel", "cancel_job"):
        theirs, fields = next((e, i) for e, i in events(client) if e["api_name"] == name)
        ask(client, theirs, filled(fields, BEN, job))
    assert service.status(ANNA, job).state == "running"
    open_gate(service)
    wait_state(service, job, "done", owner=ANNA)
    again = service.submit(ANNA, request(files, GATED))
    ask(client, event, filled(inputs, ANNA, again))
    wait_state(service, again, "cancelled", "done", owner=ANNA)


@pytest.mark.parametrize("hostile", IDS, ids=[repr(x)[:20] for x in IDS])
def test_ids_that_are_none_do_no_harm(client, service, job, hostile):
    for event, inputs in events(client):
        status, text = ask(client, event, filled(inputs, BEN, hostile))
        assert status < 500 or text.startswith('{"error":'), text  # Gradio's own answer to what fits no component
        for word in ("Traceback", str(service.home), "secret", job):
            assert word not in text.replace(json.dumps(hostile)[1:-1], "")
    assert service.health()["queue"] == 0


def test_paths_of_the_server_are_never_taken_for_uploads(client, service, job, tmp_path):
    renew(client)
    hers = service.home / "jobs" / job
    private = [service.home / "jobs.sqlite3", hers / "input" / "image.png", hers / "result.mp4"]
    (tmp_path / "elsewhere.png").write_bytes(b"private")
    doors = [(e, i) for e, i in events(client) if e["api_name"] in ("submit", "submit_job", "submit_preview")]
    for path in (
        *private,
        tmp_path / "elsewhere.png",
        "/etc/passwd",
        f"{service.home}/uploads/../jobs.sqlite3",
        "/proc/self/environ",
    ):
        before = sorted((service.home / "jobs").iterdir())
        for payload in ({"path": str(path), "meta": {"_type": "gradio.FileData"}}, {"path": str(path)}, str(path)):
            for event, inputs in doors:
                status, text = ask(client, event, filled(inputs, BEN, None, payload))
                assert "private" not in text and "root:" not in text
        assert sorted((service.home / "jobs").iterdir()) == before and service.jobs(BEN) == []
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_a_file_that_a_request_names_is_never_copied_to_where_it_can_be_fetched(client, service, tmp_path):
    (tmp_path / "drawing.svg").write_text("<svg>private</svg>")
    renew(client)
    for path in ("/etc/passwd", str(tmp_path / "drawing.svg"), "http://127.0.0.1:1/a.png"):
        payload = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        for event, inputs in events(client):
            for data in ([payload] * len(inputs), [[payload]] * len(inputs), [{"x": payload}] * len(inputs)):
                status, text = ask(client, event, data)
                assert status >= 400 or not inputs, (event["api_name"], text)
    uploads = service.home / "uploads"
    assert [path for path in uploads.rglob("*") if path.is_file()] == [] and service.health()["queue"] == 0
    assert client.get(f"/gradio_api/file={tmp_path / 'drawing.svg'}").status_code in (403, 404)


def test_an_upload_is_never_opened_in_this_process(client, service, monkeypatch):
    from PIL import Image

    def opened(*_, **__):
        raise AssertionError("the web process opens a picture")

    upload = service.home / "uploads" / "abc" / "photo.png"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(b"hostile")
    payload = {"path": str(upload), "meta": {"_type": "gradio.FileData"}}
    monkeypatch.setattr(Image, "open", opened)
    for _ in range(2):
        for event, inputs in events(client):
            assert "opens a picture" not in ask(client, event, filled(inputs, BEN, None, payload))[1]
        renew(client)
    assert len(list((service.home / "jobs").iterdir())) >= 2  # it came as far as that


@pytest.fixture
def motion(service):
    """Anna's, made by hand."""
    job = service.submit(ANNA, motion_request())
    wait_state(service, job, "done", owner=ANNA)
    return job


def test_a_motion_that_was_made_is_its_makers_alone(client, service, motion):
    def answers(name: str, owner: str, job: object, file: object = None) -> str:
        event, inputs = next((e, i) for e, i in events(client) if e["api_name"] == name)
        data = filled(inputs, owner, job, file)
        plain = {"file": None, "checkbox": True, "dropdown": ""}  # who owns the photo has ticked the box
        return ask(client, event, [plain.get(c["type"], value) for c, value in zip(inputs, data)])[1]

    for name in ("use", "fresh_motion_link"):
        assert motion in answers(name, ANNA, motion)
        assert answers(name, BEN, motion).replace(motion, "ID") == answers(name, BEN, UNKNOWN).replace(UNKNOWN, "ID")
    photo = service.home / "uploads" / "abc" / "photo.png"
    photo.parent.mkdir(parents=True)
    write_png(np.full((8, 6, 3), 90, np.uint8), photo)
    payload = {"path": str(photo), "meta": {"_type": "gradio.FileData"}}
    told = {
        answers("submit", BEN, f"job:{one}", payload)
        for one in (motion, UNKNOWN, "..", "../" + motion, "", "0" * 10_000)
    }
    told.add(answers("submit", ANNA, f"job:{UNKNOWN}", payload))
    assert len(told) == 1 and "make it again" in told.pop()
    assert service.jobs(ANNA) == service.jobs(BEN) == []
    answers("submit", ANNA, f"job:{motion}", payload)
    [status] = service.jobs(ANNA)
    wait_for(status.request.poses.exists, "the motion to be read")
    assert (read_poses(status.request.poses).parts == read_poses(service.status(ANNA, motion).motion).parts).all()


def test_a_job_that_made_no_motion_is_no_motion(client, service, job):
    event, inputs = next((e, i) for e, i in events(client) if e["api_name"] == "use")
    assert "make it again" in ask(client, event, filled(inputs, ANNA, job))[1]


@pytest.mark.parametrize("field", LABELS)
def test_a_motion_of_values_that_are_none_is_one_sentence(client, service, field):
    config = client.get("/config").json()
    button = next(
        component["id"] for component in config["components"] if component["props"].get("elem_id") == "dp-make"
    )
    event = next(d for d in config["dependencies"] if [button, "click"] in [list(target) for target in d["targets"]])
    components = {component["id"]: component for component in config["components"]}
    inputs = [components[i] for i in event["inputs"]]
    place = next(i for i, component in enumerate(inputs) if component["props"].get("label") == LABELS[field])
    for value in HOSTILE:
        data = [{"owner": BEN, "job": None} if c["type"] == "browserstate" else c["props"].get("value") for c in inputs]
        data[place] = value
        asked = {"fn_index": event["id"], "data": data, "session_hash": "s", "trigger_id": button}
        assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
        told = client.get("/gradio_api/queue/data", params={"session_hash": "s"}).text
        assert f'alert\\">{field}: ' in told and "Traceback" not in told, (value, told)
    assert service.health()["queue"] == 0 and list((service.home / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "jobs.sqlite3",
        "secret",
        "workers",
        "../secret",
        "jobs/{job}/result.mp4",
        "jobs/{job}/input/image.png",
        "uploads/../jobs.sqlite3",
    ],
)
def test_no_route_serves_the_data_folder(client, service, job, path):
    path = path.format(job=job)
    for url in (
        f"/{path}",
        f"/results/{path}",
        f"/results/{job}/{path}",
        f"/results/..%2f{path}/x.mp4",
        f"/static/{path}",
        f"/assets/..%2f{path}",
        f"/gradio_api/file={service.home}/{path}",
        f"/gradio_api/file=./{path}",
        f"/gradio_api/stream/{path}",
    ):
        answer = client.get(url)
        assert answer.status_code >= 400 or b"gradio" in answer.content, url
        assert b"SQLite" not in answer.content and answer.content != b"video"
