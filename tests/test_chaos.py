"""The real server, killed at random moments: no job is lost, run twice or changed. 200 kills: scripts/test -m slow
tests/test_chaos.py."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest

from tests.chaos import SHARES, Jobs, chaos, requests_for
from tests.serving import Server, Visitor, kill, running_server
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the processes are found in /proc")


def check(found: dict, kills: int, servers: int = 2) -> None:
    print(json.dumps(found, indent=1))
    assert found["kills"] == kills and found["jobs"] == found["jobs_compared"] > 0
    assert (found["jobs_lost"], found["lost"], found["run_twice"], found["frames_made_twice"]) == (0, [], 0, 0)
    assert (found["not_bit_equal"], found["differences"]) == (0, {})
    assert found["claims"] > 2 * found["jobs"], "or no kill hit a job"
    assert found["processes_left_over"] == 0 and found["servers_well_at_the_end"] == servers


def test_two_kills_lose_nothing_and_change_nothing(tmp_path):
    check(asyncio.run(chaos(2, tmp_path, num_requests=1, num_servers=1, steps=4)), 2, servers=1)


def test_the_web_process_has_a_successor_at_the_same_address_while_jobs_go_on(tmp_path):
    async def run(server: Server) -> None:
        jobs, once = Jobs(server.home), httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=60, trust_env=False, limits=once) as client:
            visitor, [form] = Visitor(client, server), requests_for(1, tmp_path).values()
            await visitor.make_token()
            form["options"] = {"recipe": "none", "steps": 50, "last_frame": 24}
            job = await visitor.submit(form)
            while not (chunks := (await visitor.status(job))["chunks"]):
                await asyncio.sleep(0.1)
            chunk, before = await visitor.get(chunks[0]), server.children()
            assert b"moof" in chunk
            assert jobs("queue = 'device' AND state = 'running'")
            kill(before["web"])
            began = time.monotonic()
            await visitor.open()
            print(f"the page was back after {time.monotonic() - began:.1f} s")
            after = server.children()
            assert after.pop("web") != before.pop("web") and after == before
            assert await visitor.get(chunks[0]) == chunk
            while (view := await visitor.status(job))["state"] != "done":
                await asyncio.sleep(0.2)
            video = await visitor.get(view["links"]["result"])
            assert video == (server.home / "jobs" / job / "result.mp4").read_bytes()
            assert [row["fence"] for row in jobs()] == [2], "one claim of each queue"

    with running_server(tmp_path / "home", make_tiny_model(tmp_path / "model")) as server:
        asyncio.run(asyncio.wait_for(run(server), 600))


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_two_hundred_kills_lose_nothing_and_change_nothing(tmp_path):
    found = asyncio.run(chaos(200, tmp_path))
    check(found, 200)
    assert set(found["kills_by_target"]) == set(SHARES)
    assert {"tuning", "decoder", "frames", "reading files"} <= set(found["hit_while"])
