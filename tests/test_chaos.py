"""The real server, killed at random moments: no job is lost, run twice or changed. 200 kills: scripts/test -m slow
tests/test_chaos.py."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.chaos import chaos

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes are found in /proc")


def check(told: dict, kills: int) -> None:
    print(json.dumps(told, indent=1))
    assert told["kills"] == kills and told["jobs"] == told["jobs_compared"] > 0
    assert (told["jobs_lost"], told["lost"], told["run_twice"], told["frames_made_twice"]) == (0, [], 0, 0)
    assert (told["not_bit_equal"], told["differences"]) == (0, {})
    assert told["claims"] > 2 * told["jobs"], "or no kill hit a job"
    assert told["workers_left_over"] == 0 and told["servers_well_at_the_end"] == 2


def test_two_kills_lose_nothing_and_change_nothing(tmp_path):
    check(asyncio.run(chaos(2, tmp_path, num_requests=1)), 2)


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_two_hundred_kills_lose_nothing_and_change_nothing(tmp_path):
    told = asyncio.run(chaos(200, tmp_path))
    check(told, 200)
    assert set(told["kills_by_target"]) == {"device", "light", "web", "web and workers"}
    assert {"starting", "tuning", "decoder", "frames", "reading files"} <= set(told["hit_while"])
