"""A web process that visitors left larger begins anew, while jobs go on and nobody is sent away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from dreampose_core.settings import EXAMPLES
from dreampose_core.web import process
from tests.serving import Page, Server, alive, kill
from tests.tiny import make_tiny_model

DEADLINE_S = 180.0
# The program itself, only that it waits for seconds where it waits for minutes, and any growth is enough.
HASTY = """
import os, sys
os.environ["GRADIO_TEMP_DIR"] = os.environ["DREAMPOSE_HOME"] + "/uploads"
from dreampose_core.web import process, sessions
sessions.IDLE_S, sessions.EVERY_S, process.GROWN_MB, process.LOOK_EVERY_TICKS = 2, 0.3, 0.5, 3
import app
sys.exit(app.main())
"""


async def until(what: str, found) -> object:
    deadline = time.monotonic() + DEADLINE_S
    while not (seen := await found()):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)
    return seen


async def the_way(folder: Path) -> None:
    server = Server(folder / "home", make_tiny_model(folder / "model"), program=("-c", HASTY))
    await server.start()
    try:
        async with httpx.AsyncClient(timeout=60) as client:
            page = Page(client, server.url)
            await page.open()
            files = {"dp-photo": "people/ada.png", "dp-photo-poses": "people/ada.poses.npz", "dp-motion-file": "motions/walk.npz"}
            form = {name: await page.upload(EXAMPLES / path) for name, path in files.items()}
            form |= {"dp-consent": True, "dp-recipe": "none", "Frames": "0:40", "Steps": "24"}
            job, sentence = await page.submit(form)
            assert job, sentence

            async def at_work():
                return len(server.workers()) == 2 and list((server.home / "jobs" / job).glob("**/*.png"))

            await until("frames", at_work)
            first = (await client.get(server.url + "/alive")).json()
        pid, workers = server.pid, server.workers()

        async def another_start():
            async with httpx.AsyncClient(timeout=60) as client:
                return (await client.get(server.url + "/alive")).raise_for_status().json() != first  # each of them is answered

        await until("the web process began anew", another_start)
        assert (server.pid, server.workers()) == (pid, workers) and alive(pid), "the job's worker went on"

        async with httpx.AsyncClient(timeout=60) as client:
            page = Page(client, server.url, page.browser["owner"])
            beating = asyncio.create_task(page.heartbeat())  # somebody is there
            await page.open()
            page.browser["job"] = job
            link = await until("the video", lambda: page.poll(job))
            assert (await client.get(f"{server.url}/{link}")).content[4:8] == b"ftyp"
            again, sentence = await page.submit(form | {"Seed": 7})
            assert again, f"what was uploaded before is still there: {sentence}"
            kill(workers["light"])

            async def replaced():
                return server.workers().get("light") not in (None, workers["light"])

            await until("another worker for the one that was killed", replaced)
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
    finally:
        await server.stop()
    assert server.process.returncode == 0 and await server.leftovers() == [], server.log_file.read_text()[-2000:]


def test_it_begins_anew_and_nobody_notices(tmp_path):
    asyncio.run(the_way(tmp_path))


@pytest.mark.parametrize(
    ("unused", "connections", "grown_mb", "changed", "anew"),
    [
        (True, 0, 50, False, True),
        (False, 0, 50, False, False),
        (True, 1, 50, False, False),
        (True, 0, 46, False, False),
        (True, 0, 50, True, False),
    ],
)
def test_when_it_does(monkeypatch, unused, connections, grown_mb, changed, anew):
    server = process.Server(SimpleNamespace(state=SimpleNamespace(unused=lambda: unused)))
    server._begun_mb, server._code = 200.0, process._code()
    server.server_state.connections.update(range(connections))
    monkeypatch.setattr(process, "_memory_mb", lambda: 200.0 + grown_mb)
    if changed:
        monkeypatch.setattr(process, "_code", lambda: frozenset())
    assert server._had_better_begin_anew() is anew
