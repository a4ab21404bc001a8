"""Work in a thread of its own: in order, bounded, and its errors are told."""

from __future__ import annotations

import threading
import time

import pytest

from dreampose_core.animate.background import BackgroundWriter


def test_calls_are_made_in_order_and_all_of_them():
    made = []
    with BackgroundWriter(2) as writer:
        for number in range(50):
            writer.do(made.append, number)
    assert made == list(range(50))


def test_the_caller_goes_on_but_not_far():
    gate, taken = threading.Event(), []
    threading.Timer(0.3, gate.set).start()
    with BackgroundWriter(3) as writer:
        started = time.monotonic()
        for _ in range(3):
            writer.do(gate.wait, 30)
            taken.append(time.monotonic() - started)
        writer.do(taken.append, None)  # the fourth waits for the first
        assert gate.is_set()
    assert taken[2] < 0.3 and taken[-1] is None


def test_an_error_is_told_at_a_later_call_or_at_the_end_and_ends_the_work():
    made = []

    def fail() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), BackgroundWriter(1) as writer:
        writer.do(fail)
        for number in range(9):
            writer.do(made.append, number)
    assert made == []
    with pytest.raises(OSError, match="no room"), BackgroundWriter(9) as writer:
        writer.do(fail)


def test_the_callers_own_error_is_told_first_and_what_was_taken_is_made():
    made = []
    with pytest.raises(KeyError, match="mine"), BackgroundWriter(9) as writer:
        writer.do(time.sleep, 0.1)
        writer.do(made.append, 1)
        raise KeyError("mine")
    assert made == [1]
