"""The shelf: every button does what it says for who owns the thing, and nothing for anybody else; what can be kept is
served."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from test_jobs_own import subject  # noqa: F401
from test_jobs_service import files, request, wait_for, wait_state  # noqa: F401
from test_web_visitors import ANNA, BEN, UNKNOWN, client, events, job, service  # noqa: F401

from dreampose_core.media import read_image, write_png
from dreampose_core.poses import read_poses
from dreampose_core.settings import AnimateOptions
from dreampose_core.web import library
from dreampose_core.web.again import form_of


def act(client, owner: str, do: str, what: str, name: str = "", shown: str | None = None) -> dict:  # noqa: F811
    """What the page gets to see when a button is pressed, by elem_id; what stays as it is is left out."""
    config = client.get("/config").json()
    by_id = {component["id"]: component for component in config["components"]}
    event = next(event for event, _ in events(client) if event["api_name"] == "act")
    data = [{"owner": owner, "job": shown}, json.dumps({"do": do, "id": what, "name": name})]
    answer = client.post(
        "/gradio_api/run/predict", json={"fn_index": event["id"], "data": data, "session_hash": "session"}
    )
    assert answer.status_code == 200, answer.text
    seen = {}
    for number, value in zip(event["outputs"], answer.json()["data"]):
        props = by_id[number]["props"]
        if not (isinstance(value, dict) and value.get("__type__") == "update"):
            seen[props.get("elem_id") or props.get("label") or by_id[number]["type"]] = value
    return seen


def links(html: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'(?:src|href)="(results/[^"]+)"', html)]


def test_the_shelf_shows_a_visitors_videos_and_people_and_nobody_elses(client, service, job, subject):  # noqa: F811
    subject(ANNA, "a" * 32)
    hers = act(client, ANNA, "open", job)["dp-shelf"]
    assert "Video 1" in hers and "Finished" in hers and "Learned quickly" in hers and "0.5 MB" in hers
    pictures = links(hers)
    assert len(pictures) == 3 and all(client.get("/" + link).status_code == 200 for link in pictures)
    with zipfile.ZipFile(io.BytesIO(client.get("/" + pictures[-1]).content)) as archive:
        assert (
            archive.testzip() is None
            and archive.read("photo_000.png") == b"x" * 500_000
            and "subject.json" in archive.namelist()
        )
    own = act(client, BEN, "open", UNKNOWN)
    assert "no such job" in own["dp-message"] and "dp-shelf" not in own
    assert act(client, BEN, "forget", "a" * 32)["dp-message"].count("no such person") == 1


@pytest.mark.parametrize(
    "do", ["open", "rename", "delete", "again", "better", "motion", "compare", "use", "forget", "made up"]
)
def test_what_is_anothers_is_answered_as_what_is_not_there(client, service, job, subject, do):  # noqa: F811
    key = subject(ANNA, "a" * 32)
    what, nothing = (key, "b" * 32) if do in ("use", "forget") else (job, UNKNOWN)
    assert act(client, BEN, do, what, "name") == act(client, BEN, do, nothing, "name")
    assert service.status(ANNA, job).state == "done" and service.subjects(ANNA)


@pytest.mark.parametrize(
    "asked",
    ["", "7", "[]", "{}", '{"do": 1, "id": 2, "name": 3}', "[" * 100_000, '{"do": "open", "id": ["x"], "name": ""}'],
)
def test_what_no_button_says_is_a_sentence(client, service, asked):  # noqa: F811
    event = next(event for event, _ in events(client) if event["api_name"] == "act")
    answer = client.post(
        "/gradio_api/run/predict",
        json={"fn_index": event["id"], "data": [{"owner": ANNA, "job": None}, asked], "session_hash": "session"},
    )
    assert answer.status_code == 200 and "reload it" in answer.text


def test_a_video_gets_a_name(client, service, job):  # noqa: F811
    seen = act(client, ANNA, "rename", job, "Anna <b>walks</b>", shown=job)
    assert (
        "Anna &lt;b&gt;walks&lt;/b&gt;" in seen["dp-shelf"]
        and "<b>" not in seen["dp-shelf"]
        and seen["dp-message"] == ""
    )
    assert "1 to 60 letters" in act(client, ANNA, "rename", job, "")["dp-message"]


def test_a_deleted_video_gives_its_place_to_the_next(client, service, job, files):  # noqa: F811
    second = service.submit(ANNA, request(files))
    wait_state(service, second, "done", owner=ANNA)
    seen = act(client, ANNA, "delete", second, shown=second)
    assert seen["dp-job"] == job and second not in seen["dp-shelf"]
    seen = act(client, ANNA, "delete", job, shown=job)
    assert seen["dp-job"] is None and seen["dp-shelf"] == ""
    assert service.jobs(ANNA) == [] and not (service.home / "jobs" / job).exists()


def test_again_puts_the_same_files_and_options_into_the_form(client, service, files):  # noqa: F811
    options = AnimateOptions(
        recipe="none",
        quality="best",
        seed=0,
        steps=4,
        first_frame=1,
        mirror=True,
        align="none",
        fps=12.5,
        loops=2,
        speed=1.5,
        stride=2,
        zoom=1.25,
        solver="ddim",
    )
    first = service.submit(ANNA, request(files, options=options).model_copy(update={"consent": "given"}))
    done = wait_state(service, first, "done", owner=ANNA)
    seen = act(client, ANNA, "again", first, shown=first)
    assert (seen["dp-frames"], seen["dp-speed"], seen["Rate, fps"], seen["Loops"], seen["Steps"]) == (
        "1:",
        3,
        "12.5",
        "2",
        "4",
    )
    assert (seen["dp-consent"], seen["Nearer, ×"], seen["dp-solver"]) == (True, 1.25, "ddim")
    assert (
        seen["dp-changes"] == ["mirror"]
        and seen["dp-recipe"] == "none"
        and seen["dp-quality"] == "best"
        and seen["Seed"] == 0
    )
    photo, motion = Path(seen["dp-photo"]["path"]), Path(seen["dp-motion-file"]["path"])
    assert photo.read_bytes() == done.request.image.read_bytes()
    assert (read_poses(motion).parts == read_poses(done.request.poses).parts).all()
    assert seen["dp-photo-poses"] is None is seen["dp-more-photos"] and "that video" in seen["dp-motion"]
    form = form_of(done.request)
    assert form["frames"] == "1:" and Path(form["photo"]).is_file() and form["photo"] != str(photo)


def test_again_and_use_bring_all_photos(client, service, files, subject):  # noqa: F811
    request_ = request(files, more_images=(files / "anna.png", files / "ben.png"))
    write_png(np.full((8, 6, 3), 30, np.uint8), files / "ben.png")
    first = service.submit(ANNA, request_)
    done = wait_state(service, first, "done", owner=ANNA)
    seen = act(client, ANNA, "again", first, shown=first)
    refilled = [Path(file["path"]) for file in seen["dp-more-photos"]]
    assert [path.read_bytes() for path in refilled] == [path.read_bytes() for path in done.request.more_images]
    assert [int(read_image(path)[0, 0, 0]) for path in refilled] == [90, 30]
    assert all(path.is_relative_to(service.home / "uploads") for path in refilled)
    done.request.more_images[1].unlink()
    assert "is gone" in act(client, ANNA, "again", first, shown=first)["dp-message"]

    key = subject(ANNA, "a" * 32)
    folder = service.subject(ANNA, key).photo.parent
    for number in (1, 2):
        (folder / f"photo_{number:03d}.png").write_bytes(b"photo %d" % number)
    seen = act(client, ANNA, "use", key)
    assert [Path(file["path"]).read_bytes() for file in seen["dp-more-photos"]] == [b"photo 1", b"photo 2"]
    assert seen["Shape"] == "pad", "another crop would be another person"
    assert "Learned quickly from 3 photos" in act(client, ANNA, "open", first)["dp-shelf"]
    for number in (1, 2):
        (folder / f"photo_{number:03d}.png").unlink()
    assert act(client, ANNA, "use", key)["dp-more-photos"] is None, "nobody else's photos stay"


def test_a_person_is_used_with_another_motion(client, service, subject):  # noqa: F811
    key = subject(ANNA, "a" * 32)
    seen = act(client, ANNA, "use", key)
    assert (
        Path(seen["dp-photo"]["path"]).read_bytes() == b"x" * 500_000
        and Path(seen["dp-photo-poses"]["path"]).read_bytes() == b"npz"
    )
    assert (seen["dp-recipe"], seen["Seed"]) == ("fast", 7) and "dp-motion-file" not in seen
    assert (seen["dp-consent"], seen["Nearer, ×"], seen["To the right"]) == (True, 1, 0), (
        "the picture is framed already"
    )
    service.delete_subject(ANNA, key)
    assert "no such person" in act(client, ANNA, "use", key)["dp-message"]


def test_the_motion_of_a_video_is_used_for_another_person(client, service, job):  # noqa: F811
    seen = act(client, ANNA, "motion", job, shown=job)
    taken = Path(seen["dp-motion-file"]["path"])
    assert (
        read_poses(taken).parts == read_poses(service.status(ANNA, job).request.poses).parts
    ).all() and "dp-photo" not in seen
    assert (
        "the motion of that video" in seen["dp-motion"]
        and 'data-do="motion"' in act(client, ANNA, "open", job)["dp-shelf"]
    )


def test_the_same_in_better_quality(client, service, files):  # noqa: F811
    options = AnimateOptions(recipe="none", quality="standard", seed=0, steps=4)
    first = service.submit(ANNA, request(files, options=options).model_copy(update={"consent": "given"}))
    done = wait_state(service, first, "done", owner=ANNA)
    assert 'data-do="better"' in library.things(done, lambda *_: "link")
    second = act(client, ANNA, "better", first, shown=first)["dp-job"]
    request_made = service.status(ANNA, second).request
    assert second != first and request_made.options == options.model_copy(update={"quality": "best", "steps": None})
    assert request_made.consent == "given"
    wait_for(request_made.image.exists, "the photo to be read")
    assert request_made.image.read_bytes() == done.request.image.read_bytes()
    assert 'data-do="better"' not in library.things(replace(done, request=request_made), lambda *_: "link")
    assert "best quality already" in act(client, ANNA, "better", second, shown=second)["dp-message"]
    assert "no such job" in act(client, BEN, "better", first)["dp-message"]


def test_two_videos_are_compared(client, service, job, files):  # noqa: F811
    second = service.submit(ANNA, request(files))
    wait_state(service, second, "done", owner=ANNA)
    service.rename(ANNA, second, "Better")
    seen = act(client, ANNA, "compare", job, shown=second)
    assert [client.get("/" + link).content for link in links(seen["dp-compared"])] == [b"video"] * 2
    assert seen["dp-compared"].index("Better") < seen["dp-compared"].index("Video 1")
    assert "no such job" in act(client, ANNA, "compare", job)["dp-message"]


def test_everything_that_can_be_kept_is_served_to_its_owner(client, service, job):  # noqa: F811
    folder = service.home / "jobs" / job
    for name in ("side_by_side.mp4", "result.gif", "result.json"):
        (folder / name).write_bytes(name.encode())
    event = next(event for event, _ in events(client) if event["api_name"] == "fresh_link")

    def shown(owner: str) -> str:
        data = {"fn_index": event["id"], "data": [{"owner": owner, "job": job}, job], "session_hash": "session"}
        return json.dumps(client.post("/gradio_api/run/predict", json=data).json()["data"])

    found = links(shown(ANNA).replace('\\"', '"'))
    assert links(shown(BEN).replace('\\"', '"')) == []
    answers = {link.split("/")[2]: client.get("/" + link) for link in found}
    assert list(answers) == ["video", *library.THINGS] and {answer.status_code for answer in answers.values()} == {200}
    assert {thing: answer.headers["content-type"].partition(";")[0] for thing, answer in answers.items()} == {
        "video": "video/mp4",
        "side_by_side": "video/mp4",
        "gif": "image/gif",
        "frames": "application/zip",
        "motion": "application/octet-stream",
        "settings": "application/json",
    }
    assert all(answer.headers["content-disposition"].startswith("attachment") for answer in answers.values())
    with zipfile.ZipFile(io.BytesIO(answers["frames"].content)) as archive:
        assert len(archive.namelist()) == 4 and archive.read("000001.png") == b"frame 1"
    for link in found:  # a link is for its thing alone
        for thing in ("photo", "video", "frames", "../request"):
            other = re.sub(r"^(results/\w+)/\w+/", rf"\1/{thing}/", link)
            assert other == link or client.get("/" + other).status_code == 404
