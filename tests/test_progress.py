"""The progress record: what a stage reports, how it estimates the time left, and how work is stopped."""

import pytest

from dreampose_core import progress
from dreampose_core.errors import Cancelled
from dreampose_core.progress import Progress, StageClock, check_stop, never_stop


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until told otherwise: clock["now"] = seconds."""
    time = {"now": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: time["now"])
    return time


def test_time_left_follows_the_pace_so_far(clock):
    seen = []
    stage = StageClock("frames", 10, seen.append)
    stage.tick(0)
    clock["now"] += 8
    stage.tick(4, loss=0.25)
    clock["now"] += 2
    stage.tick(10)
    assert seen == [
        Progress("frames", 0, 10, None, None),
        Progress("frames", 4, 10, pytest.approx(12.0), 0.25),  # 2 s a step, 6 to go
        Progress("frames", 10, 10, 0.0, None),
    ]


def test_steps_done_by_an_earlier_run_do_not_count_into_the_pace(clock):
    seen = []
    stage = StageClock("tuning", 100, seen.append, first=60)
    stage.tick(60)
    clock["now"] += 30
    stage.tick(70)
    assert [p.seconds_left for p in seen] == [None, pytest.approx(90.0)]  # 3 s a step, 30 to go


def test_stop_is_raised_exactly_when_asked_for():
    check_stop(never_stop)
    with pytest.raises(Cancelled):
        check_stop(lambda: True)
    StageClock("video", 1).tick(1)  # without a watcher
