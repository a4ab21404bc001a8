"""Kills the real server's processes at random moments, many times, and shows that no job is lost, run twice or changed
by it.

    python -m tests.chaos --kills 200 --json FILE

Servers (`app.py`, each with a data folder of its own and a tiny random model) get jobs through the HTTP API, a few at a
time, from several owners; a submission that a kill interrupts is repeated with the same key. SIGKILL goes to the device
worker, to the light worker, to the web process, to app.py, whose children then leave by themselves, or to app.py and
the workers; an app.py that was killed is started again at once, everything else must come back by itself.

When: an uninterrupted run of every request on the first server comes first; it is what the others are compared with,
and it says how long a job takes. The device's job is then killed after a time drawn evenly from that length, counted
from the moment when it was claimed again after the last kill; three times in ten from the moment of the last kill
itself, so that the loading of the model is hit, too. The light queue's part of a job is short, so a job is submitted
for such a kill, which comes after a time drawn evenly from the length of that part.

What is fair: a job is given up after three claims in a row without a new step, so a kill waits while the store counts
three. It need not wait longer: a job that gets further between kills must never be given up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from safetensors.numpy import load_file

from dreampose_core.jobs.store import Store
from dreampose_core.media import read_image, read_video, write_video
from dreampose_core.settings import EXAMPLES

from .serving import Server, Visitor, kill
from .tiny import make_tiny_model

SHARES = {"device": 0.4, "light": 0.36, "server": 0.09, "server and workers": 0.08, "web": 0.07}
MAX_ATTEMPTS = 3  # claims without a new step after which the store gives a job up
AT_ONCE = 0.3  # of the device's kills: their time counts from the last kill, not from when it was at work again
IN_FLIGHT = 2  # animations that a server has to do at any time
END_S = 300.0  # without a step for so long a job counts as lost
OWNERS = tuple(name * 43 for name in "abc")
PLAN = (  # person, motion, recipe, seed, first and last frame
    ("ada", "walk", "fast", 1, 0, 12),
    ("bela", "dance", "none", 2, 0, 44),
    ("fumi", "turn", "none", 3, 0, 20),
    ("chidi", "jump", "fast", 4, 5, 30),
    ("dana", "wave", "fast", 5, 0, 20),
    ("ada", "boxing", "fast", 6, 10, 50),
    ("emil", None, "none", 7, None, None),  # a clip; the light queue finds the person in it, and in the photo
)


def requests_for(number: int, folder: Path, steps: int = 16) -> dict[str, dict]:
    """The first `number` of PLAN as forms of the HTTP API, by a name; `folder` takes the clip."""
    people, motions = EXAMPLES / "people", EXAMPLES / "motions"
    requests = {}
    for person, motion, recipe, seed, first, last in PLAN[:number]:
        frames = {"first_frame": first, "last_frame": last}
        form = {
            "photo": people / f"{person}.png",
            "motion": motions / f"{motion}.npz" if motion else _clip(folder / "clip.mp4"),
            "consent": True,
            "options": {"recipe": recipe, "seed": seed, "steps": steps} | frames,
        }
        if motion:
            form["photo_poses"] = people / f"{person}.poses.npz"
        if person == "chidi":  # more photos, which have to be decoded, and the person found in them
            form["more_photos"] = [form["photo"]] * 2
        requests[f"{person}, {motion or 'clip'}, {recipe}"] = form
    return requests


def _clip(path: Path) -> Path:
    from .drawn import drawn_clip  # here, because it brings torch

    rgb, _ = drawn_clip(10_000, "wave", 16, (160, 128), fps=8.0)
    write_video(rgb, path, 8.0)
    return path


class Jobs:
    """The jobs in the store in `home`, which may be new, read from outside while servers come and go."""

    def __init__(self, home: Path):
        self.home = home
        Store.of(home).close()
        self._db = sqlite3.connect(home / "jobs.sqlite3", timeout=30, check_same_thread=False)
        self._db.row_factory = sqlite3.Row

    def __call__(self, which: str = "true", *values) -> list[sqlite3.Row]:
        """The rows of those for which `which` holds, SQL."""
        rows = f"SELECT *, json_extract(progress, '$.stage') AS stage FROM jobs WHERE {which}"
        return self._db.execute(rows, values).fetchall()

    def unfinished(self) -> list[sqlite3.Row]:
        return self("finished IS NULL")

    def files(self, job: str) -> dict[str, tuple[int, int]]:
        """When the job's frames and its video were written, and which files they are: another run would show here."""
        folder, found = self.home / "jobs" / job, {}
        for path in (*(folder / "frames").glob("[0-9]*.png"), folder / "result.mp4"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                found[path.name] = (stat.st_mtime_ns, stat.st_ino)
        return found

    def ending(self, row: sqlite3.Row) -> tuple:
        """What another claim, ending or run of a job that is done would change."""
        return row["fence"], row["finished"], self.files(row["id"])

    def subject(self, job: str) -> Path | None:
        """The folder of the subject that was used."""
        key = json.loads((self.home / "jobs" / job / "result.json").read_text())["subject"]
        return self.home / "subjects" / key if key else None

    def made(self, job: str) -> dict[str, np.ndarray]:
        """What a job that is done has made: pixels of frames and video, tensors of the subject."""
        folder, subject = self.home / "jobs" / job, self.subject(job)
        found = {f"frames/{path.name}": read_image(path) for path in (folder / "frames").iterdir()}
        found |= {f"result.mp4 {index}": frame for index, frame in enumerate(read_video(folder / "result.mp4"))}
        for file in subject.glob("*.safetensors") if subject else ():
            found |= {f"{file.name} {name}": tensor for name, tensor in load_file(file).items()}
        return found


@dataclass(frozen=True)
class Reference:
    """What an uninterrupted run of a request made, which others must equal, and how long its two parts took."""

    made: dict[str, np.ndarray]
    light_s: float
    device_s: float

    def differences(self, made: dict[str, np.ndarray]) -> list[str]:
        """The names of what differs."""
        other = self.made.keys() ^ made.keys()
        return sorted(
            other | {name for name in self.made.keys() & made.keys() if not same(self.made[name], made[name])}
        )


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both are equal to the bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@dataclass
class Kill:
    """One kill: of what, when (`time.time`), and the stages that the jobs of the hit queues had last reported."""

    target: str
    at: float = 0.0
    stages: list[str] = field(default_factory=list)

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues whose workers it ends, at once or soon."""
        return () if self.target == "web" else tuple({self.target} & {"light", "device"}) or ("light", "device")


class Station:
    """One server with its stream of jobs and of kills. `take()` gives true as long as there is another kill to make."""

    def __init__(self, server: Server, requests: dict, references: dict[str, Reference], take, seed: int):
        self.server, self.requests, self.references, self.take = server, requests, references, take
        self.random = random.Random(seed)
        self.jobs = Jobs(server.home)
        self.kills: list[Kill] = []
        self.submitted: dict[str, str] = {}  # job -> request
        self.sending: set[str] = set()  # requests whose answer has not come
        self.checked: dict[str, list[str]] = {}  # job -> what differs from the uninterrupted run
        self.endings: dict[str, tuple] = {}  # job -> its ending, when it was seen to be done
        self.frames: dict[str, dict[str, tuple]] = {}  # job -> its frames while it is made
        self.frames_made_twice = 0
        self.healthy = False
        self.killing = True
        self.client = httpx.AsyncClient(timeout=30, trust_env=False)

    async def refer(self) -> None:
        """Run every request once, one after another and without kills."""
        await asyncio.to_thread(self.server.start)
        for name in self.requests:
            job, light_s = await self.send(name), None
            async with asyncio.timeout(3 * END_S):
                while (row := self.jobs("id = ?", job)[0])["state"] != "done":
                    assert row["finished"] is None, f"an uninterrupted run ended so: {row['error']}"
                    if light_s is None and row["queue"] == "device":
                        light_s = time.time() - row["created"]
                    await asyncio.sleep(0.05)
            self.references[name] = Reference(self.jobs.made(job), light_s or 1.0, row["finished"] - row["claimed"])
            self.endings[job], self.checked[job] = self.jobs.ending(row), []
            self._forget(job, readings="clip" in name)

    async def run(self) -> None:
        """Everything, until all kills are made and all jobs have ended."""
        if self.server.process is None:
            await asyncio.to_thread(self.server.start)
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
            await asyncio.to_thread(self.server.stop)

    # -- jobs ----------------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Keeps jobs going, compares those that are done, and ends when there is nothing left to do or nothing
        moves."""
        moved, seen = time.monotonic(), []
        while True:
            unfinished = self.jobs.unfinished()
            if self.killing and sum(row["queue"] == "device" for row in unfinished) < IN_FLIGHT:
                await self.submit()
            for row in self.jobs("state = 'done'"):
                job, name = row["id"], self.submitted.get(row["id"])
                if name is not None and job not in self.checked:
                    self.endings[job] = self.jobs.ending(row)
                    made = await asyncio.to_thread(self.jobs.made, job)
                    self.checked[job] = self.references[name].differences(made)
                    self._forget(job, readings="clip" in name)
            for job in (row["id"] for row in unfinished if row["queue"] == "device"):
                now, before = self.jobs.files(job), self.frames.get(job, {})
                frames = [name for name in before if name != "result.mp4"]
                self.frames_made_twice += sum(now.get(name) != before[name] for name in frames)
                self.frames[job] = now
            if (steps := [(row["id"], row["state"], row["fence"], row["progress"]) for row in self.jobs()]) != seen:
                seen, moved = steps, time.monotonic()
            if (not self.killing and not unfinished) or time.monotonic() - moved > END_S:
                return
            await asyncio.sleep(0.1)

    def _forget(self, job: str, readings: bool) -> None:
        """Takes away what the job left for others, its subject and `readings` of its clip: the next such job does all
        of it again."""
        for folder in (self.jobs.subject(job), self.jobs.home / "readings" if readings else None):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    async def submit(self) -> str | None:
        """Submit a request that is not under way; None if there is none."""
        busy = self.sending | {self.submitted.get(row["id"]) for row in self.jobs.unfinished()}
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
            if target == "light":  # at some moment in the light queue's part of a new job
                while (job := await self.submit()) is None:
                    await asyncio.sleep(0.1)
                most = self.references[self.submitted[job]].light_s
            else:  # at some moment in the device's part of a job
                last = max((strike.at for strike in self.kills if "device" in strike.queues), default=0.0)
                deadline = time.monotonic() + (END_S if self.random.random() > AT_ONCE else 0)
                while not self.jobs("queue = 'device' AND claimed > ?", last) and time.monotonic() < deadline:
                    await asyncio.sleep(0.05)
                most = np.mean([reference.device_s for reference in self.references.values()])
            await asyncio.sleep(self.random.uniform(0, most))
            await self._strike(Kill(target))

    async def _strike(self, strike: Kill) -> None:
        target = strike.target
        last_chance = f"state = 'running' AND attempts >= {MAX_ATTEMPTS} OR state = 'interrupted' AND attempts > 1"
        while True:  # until no hit job would be given up now or once it is taken up again, and what is hit has started
            children = self.server.children()
            given_up = {row["queue"] for row in self.jobs(last_chance)} & set(strike.queues)
            if not given_up and (target.startswith("server") or target in children):
                break
            await asyncio.sleep(0.05)
        for row in self.jobs("state = 'running'"):
            if row["queue"] in strike.queues:
                strike.stages.append(row["stage"] or ("reading files" if row["queue"] == "light" else "starting"))
        if target.startswith("server"):
            self.server.process.kill()
        for child in ("light", "device") if target == "server and workers" else (target,):
            if child in children:
                kill(children[child])
        strike.at = time.time()
        self.kills.append(strike)
        if target.startswith("server"):
            await asyncio.to_thread(self.server.process.wait)
            await asyncio.sleep(self.random.uniform(0, 1))
            await asyncio.to_thread(self.server.start)

    async def _healthy(self) -> bool:
        """Whether the server says that it is well, within a minute."""
        for _ in range(120):
            if (await self.client.get(self.server.url + "/healthz")).status_code == 200:
                return True
            await asyncio.sleep(0.5)
        return False


async def chaos(kills: int, folder: Path, *, num_requests: int = 7, num_servers: int = 2, steps: int = 16) -> dict:
    """The figures of a whole run; see the head of this module. folder: where all files go."""
    model = make_tiny_model(folder / "model")
    requests = requests_for(num_requests, folder, steps)
    references, left = {}, iter(range(kills))
    servers = [Server(folder / f"home-{i}", model, "body", max_queue=100) for i in range(num_servers)]
    stations = [
        Station(server, requests, references, lambda: next(left, None) is not None, seed)
        for seed, server in enumerate(servers)
    ]
    await stations[0].refer()
    async with asyncio.TaskGroup() as group:  # where one station fails, the others stop their servers, too
        for station in stations:
            group.create_task(station.run())
    kinds = [strike for station in stations for strike in station.kills]
    rows = [(station, row) for station in stations for row in station.jobs()]
    gone = [job for station in stations for job in station.submitted.keys() - {row["id"] for row in station.jobs()}]
    twice = [
        row["id"]
        for station, row in rows
        if row["id"] not in station.submitted
        or station.endings.get(row["id"], station.jobs.ending(row)) != station.jobs.ending(row)
    ]
    lost = [f"{row['id']}: {row['state']}, {row['error']}" for _, row in rows if row["state"] != "done"] + gone
    unequal = {job: words for station in stations for job, words in station.checked.items() if words}
    return {
        "kills": len(kinds),
        "kills_by_target": dict(Counter(strike.target for strike in kinds)),
        "hit_while": dict(Counter(stage for strike in kinds for stage in strike.stages or ("nothing at work",))),
        "jobs": len(rows),
        "jobs_compared": sum(len(station.checked) for station in stations),
        "jobs_lost": len(lost),
        "lost": lost,
        "run_twice": len(twice),
        "frames_made_twice": sum(station.frames_made_twice for station in stations),
        "not_bit_equal": len(unequal),
        "differences": unequal,
        "claims": sum(row["fence"] for _, row in rows),
        "processes_left_over": sum(len(station.server.leftovers()) for station in stations),
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
