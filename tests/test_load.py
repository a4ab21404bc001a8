"""A few visitors at once on the real server: each is answered, and nothing breaks.

With figures: python -m tests.load
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dreampose_core.settings import REPOSITORY
from tests.load import GOALS, load, missed


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the processes are found in /proc")
def test_visitors_are_answered_and_nothing_breaks(tmp_path):
    found = asyncio.run(load(tmp_path, visitors=3, seconds=6, rounds=1))
    print(json.dumps(found, indent=1))
    assert (found["answers_5xx"], found["failures"]) == (0, {})
    assert found["answers"] > found["polls"] >= 3 and found["worker_cores"][0] > 0
    assert GOALS.keys() <= found.keys() and found["memory_mb"][0] > 0 and found["memory_ratio"] is None


def test_a_goal_that_is_missed_is_named():
    reached = dict(GOALS)
    assert missed(reached) == []
    for name in GOALS:
        assert missed(reached | {name: GOALS[name] + 0.01}) == [name] == missed(reached | {name: None})


@pytest.mark.parametrize("name", ["chaos", "load", "scaling"])
def test_the_longer_measurements_start_as_their_documents_say(name):
    command = [sys.executable, "-m", f"tests.{name}", "--help"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=180)
