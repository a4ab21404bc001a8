"""Part of the load run: windows in which the running job is looked at and its stream played, in a process of their own.

In the visitors' process they would be in everybody's times: fifty that turn to the next job at once are a second's work
for who plays them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from multiprocessing import get_context

import httpx

from .serving import Layout, Page


class Met:
    """What visitors met with: how long the calls of each kind took, answers by status, failures, messages of
    watches."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = {}
        self.status, self.failed, self.told = Counter(), Counter(), Counter()
        self.segments = self.bytes = 0

    async def of(self, kind: str, call):
        """The call's result; its time is added."""
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

    def browser(self) -> httpx.AsyncClient:
        """Connections of one browser's own: a pool for all of them looks at every one for each request."""
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            timeout=httpx.Timeout(60), limits=limits, event_hooks={"response": [self._count]}, verify=False
        )

    async def _count(self, response: httpx.Response) -> None:
        self.status[response.status_code] += 1
        if response.status_code >= 500:
            self.failed[f"{response.status_code} {response.request.url.path.rpartition('/')[0]}"] += 1

    def heard(self, line: str) -> None:
        """A message of a watch."""
        message = json.loads(line)
        self.told[message["msg"]] += 1
        if message["msg"] == "unexpected_error" or message.get("success") is False:
            self.failed[f"watch: {message.get('message') or message.get('output')}"[:200]] += 1

    async def ended(self, tasks: list[asyncio.Task]) -> None:
        """Ends what they do, in the middle of what their connections carry, as a closed tab does; what went wrong is
        counted."""
        await asyncio.wait(tasks, timeout=1)
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, Exception):
                self.failed[f"{type(error).__name__}: {error}"[:200]] += 1

    def include(self, other: Met) -> None:
        """Adds what others met with."""
        for kind, seconds in other.seconds.items():
            self.seconds.setdefault(kind, []).extend(seconds)
        for mine, theirs in ((self.status, other.status), (self.failed, other.failed), (self.told, other.told)):
            mine.update(theirs)
        self.segments, self.bytes = self.segments + other.segments, self.bytes + other.bytes


class Players:
    """The process, from the visitors' side. layout: the page's."""

    def __init__(self, url: str, layout: Layout):
        self._ours, theirs = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(target=_play, args=(url, layout, theirs), daemon=True)
        self._process.start()

    def one_more(self) -> None:
        """Another window is opened."""
        self._ours.send("one more")

    def turn_to(self, job: str, browser: dict) -> None:
        """From now on they look at this job. browser: its owner's, in which they are opened."""
        self._ours.send((job, browser))

    async def end(self) -> Met:
        """They are closed; what they met with."""
        self._ours.send(None)
        met = await asyncio.to_thread(self._ours.recv)
        self._process.join()
        return met


def _play(url: str, layout: Layout, connection) -> None:
    connection.send(asyncio.run(_Windows(url, layout).until_told(connection)))


class _Windows:
    def __init__(self, url: str, layout: Layout):
        self.url, self.layout, self.met = url, layout, Met()
        self.running: tuple[str, dict] | None = None

    async def until_told(self, connection) -> Met:
        windows = []
        while (told := await asyncio.to_thread(connection.recv)) is not None:
            if told == "one more":
                windows.append(asyncio.create_task(self._window()))
            else:
                self.running = told
        if windows:
            await self.met.ended(windows)
        return self.met

    async def _window(self) -> None:
        """Looks at the job that is running and plays its stream, then at the next one."""
        played = None
        async with self.met.browser() as client:
            while True:
                if self.running is None or self.running[0] == played:
                    await asyncio.sleep(0.2)
                    continue
                (played, browser), playing = self.running, None
                page = Page(client, self.url, layout=self.layout)
                page.browser = browser
                try:
                    async for line in page.watch(played):
                        self.met.heard(line)
                        if playing is None and "playlist.m3u8" in line:
                            path = line[line.index("/gradio_api/stream/") :].partition('"')[0]
                            playing = asyncio.create_task(self._stream(client, path))
                finally:
                    if playing is not None:
                        playing.cancel()
                        await asyncio.gather(playing, return_exceptions=True)

    async def _stream(self, client: httpx.AsyncClient, path: str) -> None:
        """The playlist every second, each part once; what does not come, as the watch has ended, is no failure."""
        seen = set()
        while True:
            playlist = await self.met.of("playlist", client.get(self.url + path))
            for name in playlist.text.splitlines() if playlist.status_code == 200 else ():
                if name and not name.startswith("#") and name not in seen:
                    seen.add(name)
                    part = await self.met.of("segment", client.get(f"{self.url}{path.rpartition('/')[0]}/{name}"))
                    self.met.segments, self.met.bytes = self.met.segments + 1, self.met.bytes + len(part.content)
            await asyncio.sleep(1)
