"""Many visitors at once on the real server while its device is busy: how long they wait, what fails, what memory the
web process takes.

    python -m tests.load --visitors 100 --seconds 90 --json FILE

The server is `app.py` with a tiny random model and a queue with room for all. The visitors come over the first third of
the time. Each opens the page, uploads a photo, its DensePose and a motion, submits a job, and keeps its page open to
the end: the page's heartbeat, the watch of its job (answers pushed by the server), every 1 to 3 seconds the question
how the job stands, now and then a finished video by its link. Every second visitor looks instead at the job that the
device is working on, as if its owner had opened it in so many windows, and plays the stream: the playlist every second
and all its parts (`players.py`). The job on the device is stopped by its owner after some seconds, so that the next one
begins; there is never none. One computer does it all: the visitors, the web process and the device's work share its
cores.

With --rounds they leave and others come; what a session holds is let go five minutes after its last use
(`web/sessions.py`).

submit: Run pressed, until the page knows the job. poll: the question, until its answer. cancel: Stop pressed on the job
that runs, until its worker has let go of it. lag: how late the visitors' own program was, which is in all the other
times; a delay counts as often as there would have been a measurement in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from dreampose_core.errors import DreamPoseError
from dreampose_core.settings import EXAMPLES

from .players import Met, Players
from .serving import Layout, Page, Server, memory_mb, processor_s
from .tiny import make_tiny_model

PEOPLE, MOTIONS = EXAMPLES / "people", EXAMPLES / "motions"
SHORT = {"dp-recipe": "none", "Steps": "2", "Frames": "0:20"}
LONG = {"dp-recipe": "none", "Steps": "16", "Loops": "10"}  # a second of video, and so a chunk, every few seconds
TURN_S = 8.0  # after which the running job is stopped
NUM_RESULTS = 3
END_S = 120.0


class Load:
    """The server, its visitors, and what they met with."""

    def __init__(self, server: Server, visitors: int, seconds: float, seed: int, rounds: int, after_s: float):
        self.server, self.num_visitors, self.seconds, self.rounds, self.after_s = (
            server,
            visitors,
            seconds,
            rounds,
            after_s,
        )
        self.random = random.Random(seed)
        self.met = Met()
        self.client = self.met.browser()
        self.layout: Layout | None = None
        self.links: list[str] = []
        self.pages: dict[str, Page] = {}  # job -> the page that submitted it
        self.players: Players | None = None
        self.memory: list[float] = []
        self.answered = 0
        self._db: sqlite3.Connection | None = None

    async def run(self) -> dict:
        await self.server.start()
        try:
            await self._results()
            await asyncio.sleep(2)
            levels, peak, computed = [memory_mb(self.server.pid)], 0.0, 0.0
            for number in range(self.rounds):
                tasks = [
                    asyncio.create_task(self._visitor(number * self.num_visitors + i)) for i in range(self.num_visitors)
                ]
                tasks += [
                    asyncio.create_task(task)
                    for task in (self._director(), self._health(), self._lag(), self._remember())
                ]
                before, self.players = processor_s(self.server.pid), Players(self.server.url, self.layout)
                await asyncio.sleep(self.seconds)
                computed += processor_s(self.server.pid) - before
                theirs, _ = await asyncio.gather(self.players.end(), self.met.ended(tasks))
                self.met.include(theirs)
                peak = max([peak, *self.memory, memory_mb(self.server.pid)])
                await asyncio.sleep(self.after_s)
                levels.append(memory_mb(self.server.pid))
            await self.client.aclose()
            memory = {"web_memory_peak_mb": round(peak), "web_memory_levels_mb": [round(level) for level in levels]}
            return self._figures() | memory | {"web_processor_s": round(computed, 1)}
        finally:
            await self.server.stop()

    # -- before the visitors come --------------------------------------------------------------------------------------

    async def _results(self) -> None:
        """Some finished videos; the device's worker has loaded its model afterwards."""
        page = Page(self.client, self.server.url)
        await page.open()
        self.layout = page.layout
        for seed in range(NUM_RESULTS):
            job, sentence = await page.submit(await self._fields(page) | SHORT | {"Seed": seed})
            deadline = time.monotonic() + END_S
            while not (link := await page.poll(job)):
                assert time.monotonic() < deadline, f"no video: {sentence}"
                await asyncio.sleep(0.2)
            self.links.append(link)
        self._db = sqlite3.connect(f"file:{self.server.home / 'jobs.sqlite3'}?mode=ro", uri=True, isolation_level=None)

    async def _fields(self, page: Page) -> dict:
        person, motion = (
            self.random.choice(("ada", "bela", "chidi", "dana")),
            self.random.choice(("walk", "turn", "wave")),
        )
        photo = PEOPLE / f"{person}.png"
        files = {
            "dp-photo": photo,
            "dp-photo-poses": photo.with_suffix(".poses.npz"),
            "dp-motion-file": MOTIONS / f"{motion}.npz",
        }
        return {name: await self.met.of("upload", page.upload(path)) for name, path in files.items()} | {
            "dp-consent": True
        }

    # -- visitors ------------------------------------------------------------------------------------------------------

    async def _visitor(self, number: int) -> None:
        await asyncio.sleep(self.random.uniform(0, self.seconds / 3))
        page = Page(self.met.browser(), self.server.url)
        await self.met.of("open", page.open(self.layout))
        beating = asyncio.create_task(page.heartbeat())
        watching = None
        try:
            fields = await self._fields(page) | LONG | {"Seed": number}
            job, sentence = await self.met.of("submit", page.submit(fields))
            self.answered += 1
            if job is None:
                self.met.told[sentence] += 1
                return
            self.pages[job] = page
            if number % 2:
                self.players.one_more()
            else:
                watching = asyncio.create_task(self._watch(page, job))
            while True:
                await asyncio.sleep(self.random.uniform(1, 3))
                await self.met.of("poll", page.poll(job))
                if self.random.random() < 0.1:
                    link = f"{self.server.url}/{self.random.choice(self.links)}"
                    (await self.met.of("result", page.client.get(link))).raise_for_status()
                if watching is not None and watching.done() and watching.exception():
                    raise watching.exception()
        finally:
            beating.cancel()
            if watching is not None:
                watching.cancel()
            await asyncio.gather(beating, *filter(None, [watching]), return_exceptions=True)
            await page.client.aclose()

    async def _watch(self, page: Page, job: str) -> None:
        async for line in page.watch(job):
            self.met.heard(line)

    def _window(self, client: httpx.AsyncClient, job: str) -> Page:
        """One more page in the browser of the job's owner, over connections of somebody's own."""
        window = Page(client, self.server.url, layout=self.layout)
        window.browser = self.pages[job].browser
        return window

    # -- around them ---------------------------------------------------------------------------------------------------

    async def _director(self) -> None:
        """Knows which job runs, and stops it after its turn."""
        while True:
            rows = self._db.execute("SELECT id FROM jobs WHERE queue = 'device' AND state = 'running'").fetchall()
            job = rows[0][0] if rows else None
            if job not in self.pages:
                await asyncio.sleep(0.1)
                continue
            self.players.turn_to(job, self.pages[job].browser)
            await asyncio.sleep(TURN_S)
            began = time.monotonic()
            if refused := await self._window(self.client, job).stop(job):
                self.met.failed[f"stop: {refused}"] += 1
            while self._db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()[0] in (
                "running",
                "cancelling",
            ):
                await asyncio.sleep(0.02)
            self.met.add("cancel", time.monotonic() - began)

    async def _health(self) -> None:
        while True:
            await self.met.of("healthz", self.client.get(self.server.url + "/healthz"))
            await asyncio.sleep(0.5)

    async def _lag(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            late = time.monotonic() - began - 0.05
            while late > 0:
                self.met.add("lag", late)
                late -= 0.05

    async def _remember(self) -> None:
        while True:
            with suppress(psutil.Error):
                self.memory.append(memory_mb(self.server.pid))
            await asyncio.sleep(0.5)

    def _figures(self) -> dict:
        ended = self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        self._db.close()
        kinds = ("open", "upload", "submit", "poll", "result", "cancel", "healthz", "playlist", "segment", "lag")
        figures = {
            "visitors": self.num_visitors,
            "seconds": self.seconds,
            "answered": self.answered,
            "submitted": len(self.pages),
        }
        figures |= {
            "answers": sum(self.met.status.values()),
            "answers_5xx": sum(n for code, n in self.met.status.items() if code >= 500),
        }
        figures |= {"answers_by_status": dict(sorted(self.met.status.items())), "failures": dict(self.met.failed)}
        figures |= {"messages": dict(self.met.told)}
        figures |= {f"{kind}_p95_s": self.met.share(kind, 0.95) for kind in kinds}
        figures |= {f"{kind}_p50_s": self.met.share(kind, 0.5) for kind in kinds}
        figures |= {
            "counts": {kind: len(self.met.seconds.get(kind, ())) for kind in kinds},
            "jobs_by_state": dict(ended),
        }
        return figures | {"stream_parts": self.met.segments, "stream_mb": round(self.met.bytes / 2**20, 1)}


async def load(
    visitors: int, seconds: float, folder: Path, seed: int = 0, rounds: int = 1, after_s: float = 20.0
) -> dict:
    """The figures of a whole run; see the head of this module. folder: where all files go."""
    busy = os.getloadavg()[0]
    server = Server(folder / "home", make_tiny_model(folder / "model"), max_queue=visitors * rounds + 10)
    figures = await Load(server, visitors, seconds, seed, rounds, after_s).run()
    return figures | {"processes_busy_before": round(busy, 1), "cores": os.cpu_count()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--rounds", type=int, default=1, help="how often so many visitors come and leave")
    parser.add_argument("--after", type=float, default=20, help="seconds from their leaving to a look at the memory")
    parser.add_argument("--seed", type=int, default=0, help="of when they come and what they choose")
    parser.add_argument("--json", type=Path, help="where the figures go; printed in any case")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="dreampose-load-") as temporary:
            told = asyncio.run(
                load(given.visitors, given.seconds, Path(temporary), given.seed, given.rounds, given.after)
            )
    except DreamPoseError as error:
        print(error, file=sys.stderr)
        return 2
    text = json.dumps(told, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return int(bool(told["answers_5xx"] or told["failures"] or told["answered"] < given.visitors * given.rounds))


if __name__ == "__main__":
    sys.exit(main())
