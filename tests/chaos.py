"""Kills the real server's processes at random moments, many times, and shows that no job is lost, run twice or changed
by it.

    python -m tests.chaos --kills 200 --json FILE

Servers (`app.py`, each with a data folder of its own and a tiny random model) get jobs through the HTTP API, a few at a
time, from several owners; a submission that a kill interrupts is repeated with the same key. SIGKILL goes to the device
worker, to the light worker, to the web process, to app.py, whose children then leave by themselves, or to app.py and
the workers; an app.py that was killed is started again at once, everything else must come back by itself.

When: an uninterrupted run of every request comes first; it is what the others are compared with, and it says how long a
job takes. The device's job is then killed after a time drawn evenly from that length, counted from the moment when it
was at work again after the last kill; three times in ten from the moment of the last kill itself, so that the loading
of the model is hit, too. The light queue's part of a job is short, so a job is submitted for such a kill, which comes
after a time drawn evenly from the length of that part.

What is fair: a job is given up after three claims in a row without a new step, so a kill waits while the store counts
three. It need not wait longer: a job that gets further between kills must never be given up.

How it is seen: a trigger that is added to the store's file writes down every claim, step and ending of every job.
Resume time: from the moment at which the killed thing could run again, which is the start of the new app.py, or the
kill where that was of workers alone, until a job of that queue reports a step of its real work under a new claim
(loading is none; the light queue, which reports no steps, counts at its end). `max_claim_s` is the same up to the
claim.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from .chaos_records import Reference, Trace, different, forget, last_files, requests_for
from .serving import Server, Visitor, kill
from .tiny import make_tiny_model

SHARES = {"device": 0.4, "light": 0.36, "server": 0.09, "server and workers": 0.08, "web": 0.07}
MAX_ATTEMPTS = 3  # claims without a new step after which the store gives a job up
AT_ONCE = 0.3  # of the device's kills: their time counts from the last kill, not from when it was at work again
IN_FLIGHT = 2  # animations that a server has to do at any time
END_S = 300.0  # without a step for so long a job counts as lost
OWNERS = tuple(name * 43 for name in "abc")


@dataclass
class Kill:
    """One kill: of what, when (`time.time`), from when on it could run again, the (job, fence) that each hit queue was
    at, and its stage."""

    target: str
    at: float
    free_at: float
    held: dict[str, tuple[str, int]]
    stages: dict[str, str]

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues whose workers it ended, at once or soon."""
        return () if self.target == "web" else tuple({self.target} & {"light", "device"}) or ("light", "device")


class Station:
    """One server with its stream of jobs and of kills. `take()` gives true as long as there is another kill to make."""

    def __init__(self, server: Server, requests: dict, references: dict[str, Reference], take, seed: int):
        self.server, self.requests, self.references, self.take = server, requests, references, take
        self.random = random.Random(seed)
        self.trace = Trace(server.home)
        self.kills: list[Kill] = []
        self.submitted: dict[str, str] = {}  # job -> request
        self.sending: set[str] = set()  # requests whose answer has not come
        self.checked: dict[str, list[str]] = {}  # job -> what differs from the uninterrupted run
        self.files: dict[str, dict] = {}  # job -> its files when it was done
        self.frames: dict[str, dict[str, tuple]] = {}  # job -> its frames while it is made
        self.frames_made_twice = 0
        self.healthy = False
        self.killing = True
        self.client = httpx.AsyncClient(timeout=30, trust_env=False)
        self.device_s = sum(r.device_s for r in references.values()) / max(1, len(references))

    async def run(self) -> None:
        """Everything, until all kills are made and all jobs have ended."""
        await self.server.start()
        feeding = asyncio.create_task(self._feed())
        try:
            killing = asyncio.create_task(self._kill_them())
            await asyncio.wait({feeding, killing}, return_when=asyncio.FIRST_COMPLETED)
            self.killing = False
            await asyncio.gather(killing, feeding)
            self.healthy = await self._healthy()
        finally:
            feeding.cancel()
            await self.client.aclose()
            await self.server.stop()

    # -- jobs ----------------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Keeps jobs going, compares those that are done, and ends when there is nothing left to do or nothing
        moves."""
        moved = time.monotonic()
        seen = -1
        while True:
            unfinished = self.trace.unfinished()
            if self.killing and sum(queue == "device" for queue, _ in unfinished.values()) < IN_FLIGHT:
                await self.submit()
            for job in self.trace.done():
                if job in self.submitted and job not in self.checked:
                    self.files[job] = last_files(self.server.home, job)
                    name = self.submitted[job]
                    self.checked[job] = await asyncio.to_thread(different, self.server.home, job, self.references[name])
                    forget(self.server.home, job, readings="clip" in name)
            self._look_at_frames(unfinished)
            if (rows := self.trace.num_rows()) != seen:
                seen, moved = rows, time.monotonic()
            if (not self.killing and not unfinished) or time.monotonic() - moved > END_S:
                return
            await asyncio.sleep(0.1)

    def _look_at_frames(self, unfinished: dict) -> None:
        """Counts frames that are written although they had been there."""
        for job, (queue, _) in unfinished.items():
            if queue == "device":
                now, before = last_files(self.server.home, job), self.frames.get(job, {})
                self.frames_made_twice += sum(
                    now.get(name) != file for name, file in before.items() if name != "result.mp4"
                )
                self.frames[job] = now

    async def submit(self) -> str | None:
        """Submit a request that is not under way; None if there is none."""
        busy = self.sending | {self.submitted.get(job) for job in self.trace.unfinished()}
        free = [name for name in self.requests if name not in busy]
        return await self.send(self.random.choice(free)) if free else None

    async def send(self, name: str) -> str:
        """Submit a request, again where the connection breaks; the key makes it one job."""
        owner, key = self.random.choice(OWNERS), secrets.token_hex(16)
        self.sending.add(name)
        async with asyncio.timeout(END_S):
            while True:
                with suppress(httpx.TransportError):
                    job = await Visitor(self.client, self.server, owner).submit(self.requests[name], key)
                    break
                await asyncio.sleep(0.3)
        self.submitted[job] = name
        self.sending.remove(name)
        return job

    # -- kills ---------------------------------------------------------------------------------------------------------

    async def _kill_them(self) -> None:
        while self.take():
            (target,) = self.random.choices(list(SHARES), SHARES.values())
            if target == "light":
                await self._wait_for_the_light_queue()
            else:
                await self._wait_for_the_device()
            await self._strike(target)

    async def _wait_for_the_light_queue(self) -> None:
        """Until some moment in the light queue's part of a new job."""
        while (job := await self.submit()) is None:
            await asyncio.sleep(0.1)
        await asyncio.sleep(self.random.uniform(0, self.references[self.submitted[job]].light_s))

    async def _wait_for_the_device(self) -> None:
        """Until some moment in the device's part of a job."""
        last = max((strike.at for strike in self.kills if "device" in strike.queues), default=0.0)
        if self.random.random() > AT_ONCE:
            deadline = time.monotonic() + END_S
            while not self.trace.worked("device", last) and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
        await asyncio.sleep(self.random.uniform(0, self.device_s))

    async def _strike(self, target: str) -> None:
        kind = Kill(target, 0.0, 0.0, {}, {})
        while True:
            children = self.server.children()
            if not target.startswith("server") and target not in children:  # it is just being started
                await asyncio.sleep(0.05)
            elif any(self.trace.given_up_next(queue, MAX_ATTEMPTS) for queue in kind.queues):
                await asyncio.sleep(0.05)
            else:
                break
        if target.startswith("server"):
            self.server.process.kill()
        for child in ("light", "device") if target == "server and workers" else (target,):
            if child in children:
                kill(children[child])
        at = kind.at = kind.free_at = time.time()
        kind.held = {queue: found for queue in kind.queues if (found := self.trace.running(queue, at)) is not None}
        kind.stages = {queue: self.trace.stage(job, queue, at) for queue, (job, _) in kind.held.items()}
        self.kills.append(kind)
        if target.startswith("server"):
            await self.server.process.wait()
            await asyncio.sleep(self.random.uniform(0, 1))
            kind.free_at = await self.server.start()

    async def _healthy(self) -> bool:
        """Whether the server says that it is well, within a minute."""
        for _ in range(120):
            if (await self.client.get(self.server.url + "/healthz")).status_code == 200:
                return True
            await asyncio.sleep(0.5)
        return False

    # -- what came of it -----------------------------------------------------------------------------------------------

    def resumed(self) -> Iterator[tuple[float | None, float | None]]:
        """(seconds until the job was claimed again, seconds until it got on) for each queue that was hit at work; None
        where it was hit again before."""
        for strike in self.kills:
            for queue, (job, fence) in strike.held.items():
                later = [other.at for other in self.kills if other.at > strike.at and queue in other.queues]
                next_hit = min(later, default=float("inf"))
                moments = self.trace.resumed(job, fence, queue)
                yield tuple(at - strike.free_at if at is not None and at <= next_hit else None for at in moments)


async def reference_runs(folder: Path, model: Path, requests: dict) -> dict[str, Reference]:
    """Every request once, on a server without kills."""
    server = Server(folder / "reference", model, "body", max_queue=100)
    station = Station(server, requests, {}, lambda: False, 0)
    await server.start()
    try:
        for name in requests:
            await station.send(name)
        deadline = time.monotonic() + END_S + 60 * len(requests)
        while station.trace.unfinished() and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return {name: Reference(server.home, job, station.trace) for job, name in station.submitted.items()}
    finally:
        await station.client.aclose()
        await server.stop()


async def chaos(kills: int, folder: Path, *, num_requests: int = 7, num_servers: int = 2) -> dict:
    """The figures of a whole run; see the head of this module. folder: where all files go."""
    model = make_tiny_model(folder / "model")
    requests = requests_for(num_requests, folder)
    references = await reference_runs(folder, model, requests)
    left = iter(range(kills))
    servers = [Server(folder / f"home-{i}", model, "body", max_queue=100) for i in range(num_servers)]
    stations = [
        Station(server, requests, references, lambda: next(left, None) is not None, seed)
        for seed, server in enumerate(servers)
    ]
    async with asyncio.TaskGroup() as group:  # where one station fails, the others stop their servers, too
        for station in stations:
            group.create_task(station.run())
    return await figures(stations)


async def figures(stations: list[Station]) -> dict:
    """What came of it, added up over the servers."""
    kills = [strike for station in stations for strike in station.kills]
    times = list(zip(*(pair for station in stations for pair in station.resumed()))) or [(), ()]
    claim_s, resume_s = (max((time for time in found if time is not None), default=0.0) for found in times)
    found = [verdict for station in stations for verdict in station.trace.verdicts(station.submitted)]
    touched = sum(
        last_files(station.server.home, job) != files for station in stations for job, files in station.files.items()
    )
    unequal = {job: words for station in stations for job, words in station.checked.items() if words}
    stages = Counter(stage for strike in kills for stage in strike.stages.values() or ("nothing at work",))
    return {
        "kills": len(kills),
        "kills_by_target": dict(Counter(strike.target for strike in kills)),
        "hit_while": dict(stages),
        "jobs": len(found),
        "jobs_compared": sum(len(station.checked) for station in stations),
        "jobs_lost": sum(verdict.lost for verdict in found),
        "lost": [verdict.words for verdict in found if verdict.lost],
        "run_twice": sum(verdict.twice for verdict in found) + touched,
        "frames_made_twice": sum(station.frames_made_twice for station in stations),
        "not_bit_equal": len(unequal),
        "differences": unequal,
        "claims": sum(verdict.num_claims for verdict in found),
        "max_claim_s": round(claim_s, 2),
        "max_resume_s": round(resume_s, 2),
        "processes_left_over": sum([len(await station.server.leftovers()) for station in stations]),
        "servers_well_at_the_end": sum(station.healthy for station in stations),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--json", type=Path, help="where the figures go; printed in any case")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dreampose-chaos-") as folder:
        found = asyncio.run(chaos(args.kills, Path(folder)))
    text = json.dumps(found, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return int(any(found[name] for name in ("jobs_lost", "run_twice", "not_bit_equal", "processes_left_over")))


if __name__ == "__main__":
    sys.exit(main())
