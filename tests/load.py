"""Visitors at once on the real server while its device is busy: waiting times, failures, memory of the web process.

    python -m tests.load

In each round, visitors come over its first third. Each opens the page, makes a token, submits a job, and polls once a
second to the end; every second one polls the job that runs, as if its owner had so many windows, and gets its chunks.
Then all jobs are stopped. The model is tiny; visitors, web process and worker share one computer's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from dreampose_core.settings import EXAMPLES

from .serving import Server, Visitor, memory_mb, processor_s
from .tiny import make_tiny_model

PHOTO = EXAMPLES / "people" / "bela.png"
JOB = {  # minutes on the device
    "photo": PHOTO,
    "photo_poses": PHOTO.with_suffix(".poses.npz"),
    "motion": EXAMPLES / "motions" / "walk.npz",
    "consent": True,
    "options": {"recipe": "none", "steps": 250, "loops": 10},
}
GOALS = {"answers_5xx": 0, "failed": 0, "submit_p95_s": 1.0, "poll_p95_s": 1.0, "memory_ratio": 1.10}  # at most


class Load:
    """The server, its visitors, and their measurements."""

    def __init__(self, server: Server, visitors: int, seconds: float):
        self.server, self.num_visitors, self.seconds = server, visitors, seconds
        self.random = random.Random(0)
        self.times: dict[str, list[float]] = {"submit": [], "poll": []}
        self.answers: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()

    async def run(self, rounds: int) -> dict:
        """The figures. memory_ratio: the third round's memory over the second's, None with fewer rounds."""
        self.server.start()
        try:
            memory, busy = [], []
            for _ in range(rounds):
                busy.append(await self._round())
                await asyncio.sleep(1)  # connections close
                memory.append(round(memory_mb(self.server.web_pid), 1))
        finally:
            self.server.stop()
        figures = {"visitors": self.num_visitors, "rounds": rounds, "seconds": self.seconds}
        figures |= {"answers": self.answers.total(), "polls": len(self.times["poll"])}
        figures["answers_5xx"] = sum(number for code, number in self.answers.items() if code >= 500)
        figures |= {"failed": self.failures.total(), "failures": dict(self.failures)}
        figures |= {f"{name}_p95_s": round(float(np.percentile(of, 95)), 3) for name, of in self.times.items() if of}
        figures |= {"memory_mb": memory, "memory_ratio": round(memory[2] / memory[1], 3) if rounds > 2 else None}
        return figures | {"worker_cores": busy}

    async def _round(self) -> float:
        """All visitors once; the processors that the device's worker used meanwhile."""
        async with self._browser() as client:
            owner = Visitor(client, self.server)
            await owner.make_token()
            job = await owner.submit(JOB)
            async with asyncio.timeout(120):
                while not (await owner.status(job))["num_frames"]:
                    await asyncio.sleep(0.2)
            began, worker = time.monotonic(), self.server.children()["device"]
            computed, end = processor_s(worker), began + self.seconds
            await asyncio.gather(*(self._visitor(i, end, owner.token, job) for i in range(self.num_visitors)))
            computed = processor_s(worker) - computed
            await owner.cancel(job)
        return round(computed / (time.monotonic() - began), 2)

    def _browser(self) -> httpx.AsyncClient:
        async def count(answer: httpx.Response) -> None:
            self.answers[answer.status_code] += 1

        return httpx.AsyncClient(timeout=60, verify=False, trust_env=False, event_hooks={"response": [count]})

    async def _timed(self, name: str, call):
        began = time.monotonic()
        try:
            return await call
        finally:
            self.times[name].append(time.monotonic() - began)

    async def _visitor(self, number: int, end: float, token: str, running: str) -> None:
        await asyncio.sleep(self.random.uniform(0, self.seconds / 3))
        async with self._browser() as client:
            try:
                visitor, seen = Visitor(client, self.server), 0
                await visitor.make_token()
                await visitor.open()
                own = await self._timed("submit", visitor.submit(JOB))
                owner = Visitor(client, self.server, token)
                window, watched = (owner, running) if number % 2 else (visitor, own)
                while time.monotonic() < end:
                    view = await self._timed("poll", window.status(watched))
                    for link in view["chunks"][seen:]:
                        await window.get(link)
                    seen = len(view["chunks"])
                    await asyncio.sleep(1)
                await visitor.cancel(own)
            except httpx.HTTPError as error:
                self.failures[f"{type(error).__name__}: {error}"[:200]] += 1


async def load(folder: Path, visitors: int = 100, seconds: float = 75, rounds: int = 3) -> dict:
    """The figures of a whole run. folder: where all files go."""
    server = Server(folder / "home", make_tiny_model(folder / "model"), max_queue=visitors + 10)
    return await Load(server, visitors, seconds).run(rounds)


def missed(figures: dict) -> list[str]:
    """The figures that miss their goal."""
    return [name for name, goal in GOALS.items() if figures.get(name) is None or figures[name] > goal]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=75, help="length of a round")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dreampose-load-") as folder:
        figures = asyncio.run(load(Path(folder), args.visitors, args.seconds))
    for name, value in figures.items():
        print(f"{name:14} {value}", f"   goal: at most {GOALS[name]}" if name in GOALS else "")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if failed := missed(figures):
        print("missed:", ", ".join(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
