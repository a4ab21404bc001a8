"""Many visitors at once on the real server while its device is busy: how long they wait, what fails, what memory the web process takes.

    python -m tests.load --visitors 100 --seconds 90 --json FILE

The server is `app.py` with a tiny random model and a queue with room for all. The visitors come over the first third of the time. Each
opens the page, uploads a photo, its DensePose and a motion, submits a job, and keeps its page open to the end: the page's heartbeat, the
watch of its job (answers pushed by the server), every 1 to 3 seconds the question how the job stands, now and then a finished video by its
link. Every second visitor then looks at the job that the device is working on, as if its owner had opened it in so many windows, and plays
the stream: the playlist every second and all its parts. The job on the device is stopped by its owner after some seconds, so that the next
one begins; there is never none. One computer does it all: the visitors, the web process and the device's work share its cores.

With --rounds they leave and others come; what a session holds is let go five minutes after its last use (`web/sessions.py`).

submit: Run pressed, until the page knows the job. poll: the question, until its answer. cancel: Stop pressed on the job that runs, until
its worker has let go of it. lag: how late the visitors' own program was, which is in all the other times.
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
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx

from dreampose_core.errors import DreamPoseError
from dreampose_core.settings import EXAMPLES

from .serving import Layout, Page, Server, memory_mb, processor_s
from .tiny import make_tiny_model

PEOPLE, MOTIONS = EXAMPLES / "people", EXAMPLES / "motions"
SHORT = {"dp-recipe": "none", "Steps": "2", "Frames": "0:20"}
LONG = {"dp-recipe": "none", "Steps": "16", "Loops": "10"}  # a second of video, and so a chunk, every few seconds
TURN_S = 8.0  # after which the running job is stopped
NUM_RESULTS = 3
END_S = 120.0


class Times:
    """How long the calls of each kind took."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = {}

    async def of(self, kind: str, call):
        began = time.monotonic()
        try:
            return await call
        finally:
            self.add(kind, time.monotonic() - began)

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def share(self, kind: str, share: float) -> float | None:
        """The time below which this share of them lies, None where there is none."""
        times = sorted(self.seconds.get(kind, ()))
        return round(times[min(len(times) - 1, int(share * len(times)))], 3) if times else None


class Load:
    """The server, its visitors, and what they met with."""

    def __init__(self, server: Server, visitors: int, seconds: float, seed: int, rounds: int, after_s: float):
        self.server, self.num_visitors, self.seconds, self.rounds, self.after_s = server, visitors, seconds, rounds, after_s
        self.random = random.Random(seed)
        self.times, self.status, self.failed, self.told = Times(), Counter(), Counter(), Counter()
        self.client = self._browser()
        self.layout: Layout | None = None
        self.links: list[str] = []
        self.pages: dict[str, Page] = {}  # job -> the page that submitted it
        self.running: str | None = None
        self.memory: list[float] = []
        self.answered = self.segments = self.bytes = 0
        self._db: sqlite3.Connection | None = None

    def _browser(self) -> httpx.AsyncClient:
        """Connections of one browser's own: a pool for all of them looks at every one for each request."""
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(timeout=httpx.Timeout(60), limits=limits, event_hooks={"response": [self._count]}, verify=False)

    async def _count(self, response: httpx.Response) -> None:
        self.status[response.status_code] += 1
        if response.status_code >= 500:
            self.failed[f"{response.status_code} {response.request.url.path.rpartition('/')[0]}"] += 1

    async def run(self) -> dict:
        await self.server.start()
        try:
            await self._results()
            await asyncio.sleep(2)
            levels, peak, computed = [memory_mb(self.server.pid)], 0.0, 0.0
            for number in range(self.rounds):
                tasks = [asyncio.create_task(self._visitor(number * self.num_visitors + i)) for i in range(self.num_visitors)]
                tasks += [asyncio.create_task(task) for task in (self._director(), self._health(), self._lag(), self._remember())]
                before = processor_s(self.server.pid)
                await asyncio.sleep(self.seconds)
                computed += processor_s(self.server.pid) - before
                # a visitor who leaves closes the connections in the middle of what they carry, as a closed tab does
                await asyncio.wait(tasks, timeout=1)
                for task in tasks:
                    task.cancel()
                for error in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(error, Exception):
                        self.failed[f"{type(error).__name__}: {error}"[:200]] += 1
                peak = max([peak, *self.memory, memory_mb(self.server.pid)])
                await asyncio.sleep(self.after_s)
                levels.append(memory_mb(self.server.pid))
            await self.client.aclose()
            memory = {"web_memory_peak_mb": round(peak), "web_memory_levels_mb": [round(level) for level in levels]}
            return self._figures() | memory | {"web_processor_s": round(computed, 1)}
        finally:
            await self.server.stop()

    # -- before the visitors come -------------------------------------------------------------------------------------------

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
        person, motion = self.random.choice(("ada", "bela", "chidi", "dana")), self.random.choice(("walk", "turn", "wave"))
        photo = PEOPLE / f"{person}.png"
        files = {"dp-photo": photo, "dp-photo-poses": photo.with_suffix(".poses.npz"), "dp-motion-file": MOTIONS / f"{motion}.npz"}
        return {name: await self.times.of("upload", page.upload(path)) for name, path in files.items()} | {"dp-consent": True}

    # -- visitors -----------------------------------------------------------------------------------------------------------

    async def _visitor(self, number: int) -> None:
        await asyncio.sleep(self.random.uniform(0, self.seconds / 3))
        page = Page(self._browser(), self.server.url)
        await self.times.of("open", page.open(self.layout))
        beating = asyncio.create_task(page.heartbeat())
        watching = None
        try:
            fields = await self._fields(page) | LONG | {"Seed": number}
            job, sentence = await self.times.of("submit", page.submit(fields))
            self.answered += 1
            if job is None:
                self.told[sentence] += 1
                return
            self.pages[job] = page
            looks = self._play(page) if number % 2 else self._watch(page, job)
            watching = asyncio.create_task(looks)
            while True:
                await asyncio.sleep(self.random.uniform(1, 3))
                await self.times.of("poll", page.poll(job))
                if self.random.random() < 0.1:
                    link = f"{self.server.url}/{self.random.choice(self.links)}"
                    (await self.times.of("result", page.client.get(link))).raise_for_status()
                if watching.done() and watching.exception():
                    raise watching.exception()
        finally:
            beating.cancel()
            if watching is not None:
                watching.cancel()
            await asyncio.gather(beating, *filter(None, [watching]), return_exceptions=True)
            await page.client.aclose()

    async def _watch(self, page: Page, job: str) -> None:
        async for line in page.watch(job):
            self._heard(line)

    def _heard(self, line: str) -> None:
        message = json.loads(line)
        self.told[message["msg"]] += 1
        if message["msg"] == "unexpected_error" or message.get("success") is False:
            self.failed[f"watch: {message.get('message') or message.get('output')}"[:200]] += 1

    async def _play(self, page: Page) -> None:
        """Looks at the job that is running and plays its stream, then at the next one, in windows of the owner's browser."""
        played = None
        while True:
            job = self.running
            if job is None or job == played:
                await asyncio.sleep(0.2)
                continue
            played, playing = job, None
            window = self._window(page.client, job)
            try:
                async for line in window.watch(job):
                    self._heard(line)
                    if playing is None and "playlist.m3u8" in line:
                        path = line[line.index("/gradio_api/stream/"):].partition('"')[0]
                        playing = asyncio.create_task(self._stream(page, path))
            finally:
                if playing is not None:
                    playing.cancel()
                    await asyncio.gather(playing, return_exceptions=True)

    def _window(self, client: httpx.AsyncClient, job: str) -> Page:
        """One more page in the browser of the job's owner, over connections of somebody's own."""
        window = Page(client, self.server.url, layout=self.layout)
        window.browser = self.pages[job].browser
        return window

    async def _stream(self, page: Page, path: str) -> None:
        """The playlist every second, each part once; what does not come, as the watch has ended, is no failure."""
        seen = set()
        while True:
            playlist = await self.times.of("playlist", page.client.get(self.server.url + path))
            for name in playlist.text.splitlines() if playlist.status_code == 200 else ():
                if name and not name.startswith("#") and name not in seen:
                    seen.add(name)
                    part = await self.times.of("segment", page.client.get(f"{self.server.url}{path.rpartition('/')[0]}/{name}"))
                    self.segments, self.bytes = self.segments + 1, self.bytes + len(part.content)
            await asyncio.sleep(1)

    # -- around them --------------------------------------------------------------------------------------------------------

    async def _director(self) -> None:
        """Knows which job runs, and stops it after its turn."""
        while True:
            rows = self._db.execute("SELECT id FROM jobs WHERE lane = 'device' AND state = 'running'").fetchall()
            job = rows[0][0] if rows else None
            if job not in self.pages:
                await asyncio.sleep(0.1)
                continue
            self.running = job
            await asyncio.sleep(TURN_S)
            began = time.monotonic()
            if refused := await self._window(self.client, job).stop(job):
                self.failed[f"stop: {refused}"] += 1
            while self._db.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()[0] in ("running", "cancelling"):
                await asyncio.sleep(0.02)
            self.times.add("cancel", time.monotonic() - began)

    async def _health(self) -> None:
        while True:
            await self.times.of("healthz", self.client.get(self.server.url + "/healthz"))
            await asyncio.sleep(0.5)

    async def _lag(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            self.times.add("lag", time.monotonic() - began - 0.05)

    async def _remember(self) -> None:
        while True:
            with suppress(OSError):
                self.memory.append(memory_mb(self.server.pid))
            await asyncio.sleep(0.5)

    def _figures(self) -> dict:
        ended = self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        self._db.close()
        kinds = ("open", "upload", "submit", "poll", "result", "cancel", "healthz", "playlist", "segment", "lag")
        figures = {"visitors": self.num_visitors, "seconds": self.seconds, "answered": self.answered, "submitted": len(self.pages)}
        figures |= {"answers": sum(self.status.values()), "answers_5xx": sum(n for code, n in self.status.items() if code >= 500)}
        figures |= {"answers_by_status": dict(sorted(self.status.items())), "failures": dict(self.failed), "messages": dict(self.told)}
        figures |= {f"{kind}_p95_s": self.times.share(kind, 0.95) for kind in kinds}
        figures |= {f"{kind}_p50_s": self.times.share(kind, 0.5) for kind in kinds}
        figures |= {"counts": {kind: len(self.times.seconds.get(kind, ())) for kind in kinds}, "jobs_by_state": dict(ended)}
        return figures | {"stream_parts": self.segments, "stream_mb": round(self.bytes / 2**20, 1)}


async def load(visitors: int, seconds: float, folder: Path, seed: int = 0, rounds: int = 1, after_s: float = 20.0) -> dict:
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
            told = asyncio.run(load(given.visitors, given.seconds, Path(temporary), given.seed, given.rounds, given.after))
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
