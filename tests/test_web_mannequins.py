"""The tab in which motions are made: its choices, what it shows while one is made, and how field 2 takes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from test_web import FORM, JOB, OWNER, StubService, examples, handlers, job_status, preview, service, settings, submit  # noqa: F401

from dreampose_core.jobs.records import JobRequest
from dreampose_core.progress import Progress
from dreampose_core.settings import MotionOptions
from dreampose_core.synthetic import MOTIONS as KNOWN
from dreampose_core.web import mannequins
from dreampose_core.web.handlers import PageHandlers
from dreampose_core.web.mannequins import MannequinHandlers

CHOSEN = {
    "motion": "dance",
    "seconds": 3,
    "fps": 20,
    "speed": 0.5,
    "amplitude": 1.2,
    "height": "tall",
    "build": "slim",
    "clothes": "skirt",
    "view": 90,
    "turning": -10,
    "distance": 1.5,
    "seed": 7,
}
OTHER = "e" * 43


@pytest.fixture
def tab(handlers: PageHandlers, monkeypatch: pytest.MonkeyPatch) -> MannequinHandlers:  # noqa: F811
    monkeypatch.setattr("dreampose_core.web.handlers.POLL_S", 0.01)
    return MannequinHandlers(handlers)


def made(**changes):
    return job_status(
        **(
            {
                "state": "done",
                "kind": "motion",
                "result": Path("/x/result.mp4"),
                "motion": Path("/x/motion.npz"),
                "request": JobRequest(kind="motion", motion=MotionOptions(**CHOSEN)),
            }
            | changes
        )
    )


def make(tab: MannequinHandlers, browser=None, **changes) -> list[tuple]:
    async def collect():
        return [answer async for answer in tab.make(browser or {"owner": OWNER}, **(CHOSEN | changes))]

    return asyncio.run(collect())


def test_the_tab_offers_every_motion_once():
    assert sorted(mannequins.MOTIONS.values()) == sorted(KNOWN)


def test_what_is_made_is_seen_as_it_comes_and_can_then_be_used(tab, service: StubService):  # noqa: F811
    told = dict(kind="motion", request=None)
    service.statuses = [
        job_status("queued", progress=None, **told),
        job_status(progress=Progress("drawing", 0, 60), **told),
        job_status(progress=Progress("drawing", 16, 60), **told),
        job_status(progress=Progress("preview", 30, 60), **told),
        made(),
    ]
    seen = make(tab)
    assert service.requests == [JobRequest(kind="motion", motion=MotionOptions(**CHOSEN))]
    for answer, words in zip(
        seen, ("Getting ready", "waits for its turn", "Getting ready", "frame 16 of 60", "frame 30 of 60", "<video")
    ):
        assert words in answer[0]
    first, last = seen[0], seen[-1]
    assert first[1] == first[4] == "" and not first[2]["interactive"], "what was made before is let go at once"
    assert last[1] == JOB and last[2]["interactive"] and ".npz?" in last[4] and ".mp4?" in last[0]
    assert len(seen) == 6 and not any("results/" in str(answer) for answer in seen[:-1])
    assert not tab.page._previews


def test_another_motion_stops_the_one_before(tab, service: StubService):  # noqa: F811
    service.statuses = [job_status(kind="motion")]

    async def twice():
        first = tab.make({"owner": OWNER}, **CHOSEN)
        await anext(first)
        await anext(first)
        second = tab.make({"owner": OWNER}, **CHOSEN)
        await anext(second)
        await anext(second)
        for running in (first, second):
            await running.aclose()

    asyncio.run(twice())
    assert service.cancelled == [JOB]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"speed": 9}, "speed: "),
        ({"amplitude": float("nan")}, "amplitude: "),
        ({"seconds": None}, "seconds: "),
        ({"height": "giant"}, "height: "),
        ({"motion": {"a": 1}}, "motion: "),
        ({"seed": 0.5}, "seed: "),
        ({"surprise": 1}, "surprise"),
        ({"browser": {"owner": "short"}}, "reload"),
    ],
)
def test_what_is_wrong_is_one_sentence(tab, service: StubService, changes: dict, words: str):  # noqa: F811
    *_, last = make(tab, **changes)
    assert 'role="alert"' in last[0] and words in last[0] and not service.requests


def test_a_motion_that_cannot_be_made_says_why(tab, service: StubService):  # noqa: F811
    service.statuses = [job_status("failed", kind="motion", error="There is no motion <b>.", progress=None)]
    *_, last = make(tab)
    assert "There is no motion &lt;b&gt;." in last[0] and last[1] != JOB


def test_the_motion_is_put_into_field_2(tab, service: StubService):  # noqa: F811
    service.statuses = [made()]
    name, file, words, gallery, tabs, message = tab.use({"owner": OWNER}, JOB)
    assert (name, file, message) == (f"job:{JOB}", None, "") and "Dance, made by hand, 3 s" in words
    assert gallery["selected_index"] == -1 and tabs["selected"] == "animate"
    submit(tab.page, motion=name)
    assert service.requests[-1].poses == Path("/x/motion.npz") and service.requests[-1].kind == "animate"
    preview(tab.page, motion=name)
    assert service.requests[-1].poses == Path("/x/motion.npz") and service.requests[-1].kind == "preview"
    submit(tab.page, motion=name, motion_file="/x/own.npz")
    assert service.requests[-1].poses == Path("/x/own.npz"), "an uploaded file comes before it"


@pytest.mark.parametrize(
    "status, owner", [(made(), OTHER), (made(state="running", motion=None), OWNER), (job_status("done"), OWNER)]
)
def test_what_is_not_there_or_anothers_is_not_used(tab, service: StubService, status, owner: str):  # noqa: F811
    service.statuses = [status]
    *rest, message = tab.use({"owner": owner}, JOB)
    assert "make it again" in message and JOB not in str(rest)
    assert (
        "make it again" in submit(tab.page, browser={"owner": owner}, motion=f"job:{JOB}")[2] and not service.requests
    )
    assert isinstance(tab.fresh_motion_link({"owner": owner}, JOB), dict), "no link"
    service.statuses = [made()]
    assert ".npz?" in tab.fresh_motion_link({"owner": OWNER}, JOB)
