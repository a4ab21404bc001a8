"""What a cluster adds to the time that frames take: videos from submit to MP4, by the real store, workers and Ray, on
one computer.

    python -m tests.scaling --json FILE

Nodes of a local Ray cluster, each for one model, in which a frame waits 0.5 s instead of being computed, so that any
number of them can share this computer's cores. The server is the job service with its worker processes; models are
loaded before the clock starts, as they are while a server runs. A batch is of two frames: batches are what is shared
out, and with batches of eight 200 frames are seven rounds of four nodes, of which the last is a quarter full.

efficiency_N: 200 frames on N nodes, the time they wait divided by N, over the seconds from submit to the finished MP4.
cancel_s: from Stop, while four nodes work, until none does. idle_share: twenty videos of 4 to 40 frames of five owners,
five at a time on four nodes: the share of the nodes' time without work while frames were waiting to be made, by what
they wrote down themselves; gap_s: the median and the longest time between a node's batches meanwhile. spread: the most
and the least frames that an owner had by the time when the first owner had all of theirs, of how many each. worker_mb:
the memory of a worker that has its job done by Ray. store_writes_per_s: see there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

from dreampose_core.jobs.records import FINAL_STATES, JobRequest, Limits
from dreampose_core.jobs.service import JobService
from dreampose_core.jobs.store import Store
from dreampose_core.media import write_png
from dreampose_core.poses import PoseSequence, write_poses
from dreampose_core.progress import Progress
from dreampose_core.settings import REPOSITORY, AnimateOptions, Settings

from .ray_cluster import LocalCluster
from .serving import memory_mb
from .slow_model import FRAME_S, LOG, work_spans

FRAMES, BATCH, SIZE = 200, 2, (40, 32)
HOOK = {"worker_process_setup_hook": "slow_model.install"}
WAIT_S = 600.0


def worker_command(queue: str) -> tuple[str, ...]:
    return (sys.executable, str(REPOSITORY / "tests" / "scaling_worker.py"), "--queue", queue)


def wait_for(condition, what: str):
    end = time.monotonic() + WAIT_S
    while not (found := condition()):
        if time.monotonic() > end:
            raise RuntimeError(f"waited {WAIT_S:.0f} s in vain for: {what}")
        time.sleep(0.02)
    return found


class Bench:
    """A cluster of `nodes`, a job service with `workers` on it, and this process's own look at the pool."""

    def __init__(self, nodes: int, workers: int, home: Path):
        import ray

        from dreampose_core.cluster.connection import Cluster

        self.ray, self.log = ray, home / "work.log"
        os.environ[LOG] = str(self.log)  # before there are nodes, which inherit it
        self.local = LocalCluster(nodes)
        self.settings = Settings(
            home=home,
            estimator="none",
            device="cpu",
            engine="ray",
            ray_address=self.local.address,
            workers=workers,
            max_own=100,
            max_queue=100,
        )
        ray.init(address=self.local.address, namespace="dreampose", runtime_env=HOOK, log_to_driver=False)
        self.cluster = Cluster(self.settings)
        wait_for(lambda: (found := self.cluster.situation()) and len(found.ready) == nodes, "models")
        self.service = JobService(self.settings, worker_command)

    def __enter__(self) -> Bench:
        self.service.start()
        return self

    def __exit__(self, *_) -> None:
        self.service.stop()
        self.cluster.close()
        self.ray.shutdown()
        self.local.stop()

    def busy(self) -> int:
        """How many models work."""
        told = [actor.about.remote() for _, actor in self.cluster.situation().ready]
        return sum(one["busy"] for one in self.ray.get(told))

    def submit(self, owner: str, frames: int) -> str:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_png(np.full((*SIZE, 3), 90, np.uint8), folder / "photo.png")
            write_poses(PoseSequence(np.ones((frames, *SIZE), np.uint8), None, "none"), folder / "motion.npz")
            options = AnimateOptions(recipe="none", batch_size=BATCH, align="none")
            return self.service.submit(
                owner, JobRequest(image=folder / "photo.png", poses=folder / "motion.npz", options=options)
            )

    def wait_done(self, owner: str, job: str) -> None:
        status = wait_for(lambda: (s := self.service.status(owner, job)).state in FINAL_STATES and s, f"job {job}")
        if status.state != "done":
            raise RuntimeError(f"job {job} is {status.state}: {status.error}")


def efficiency(bench: Bench, nodes: int) -> float:
    bench.wait_done("warm", bench.submit("warm", 2 * BATCH * nodes))  # the worker has imported what it needs
    began = time.monotonic()
    bench.wait_done("anna", bench.submit("anna", FRAMES))
    return FRAMES * FRAME_S / nodes / (time.monotonic() - began)


def cancel_s(bench: Bench, nodes: int) -> float:
    job = bench.submit("anna", FRAMES)
    wait_for(lambda: bench.busy() == nodes, "all nodes at work")
    bench.service.cancel("anna", job)
    began = time.monotonic()
    wait_for(lambda: bench.busy() == 0, "no node at work")
    return time.monotonic() - began


def mixed(bench: Bench, nodes: int) -> dict[str, object]:
    """Twenty videos of five owners."""
    for owner, job in [
        (f"warm {number}", bench.submit(f"warm {number}", 2 * BATCH)) for number in range(5)
    ]:  # one for each worker
        bench.wait_done(owner, job)
    draw = random.Random(0)
    lengths = [draw.randint(4, 40) for _ in range(4)]  # the same four for each owner, in an order of their own
    jobs = {}
    for owner in range(5):
        for frames in draw.sample(lengths, len(lengths)):
            jobs[bench.submit(f"owner {owner}", frames)] = (f"owner {owner}", frames)
    each, total = sum(lengths), 5 * sum(lengths)
    spread, began = None, time.monotonic()

    def made(owner: str) -> int:
        return sum(len(bench.service.status(of, job).frames) for job, (of, _) in jobs.items() if of == owner)

    while True:
        counts = [made(f"owner {owner}") for owner in range(5)]
        if spread is None and max(counts) == each:
            spread = [max(counts), min(counts), each]
        left = total - sum(counts)
        if left <= 2 * BATCH * nodes:  # from here on there is less waiting than there are nodes
            break
        time.sleep(0.2)
    loaded = time.monotonic()
    for job, (owner, _) in jobs.items():
        bench.wait_done(owner, job)
    took_s = time.monotonic() - began
    spans = [[span for span in each if span[0] > began] for each in work_spans(bench.log).values()]
    spans = [each for each in spans if each]
    first = max(each[0][0] for each in spans)  # from when all had work for the first time
    pauses = [
        min(after, loaded) - end for each in spans for (_, end), (after, _) in pairwise(each) if first < end < loaded
    ]
    return {
        "idle_share": round(sum(pauses) / (loaded - first) / nodes, 4),
        "gap_s": [round(float(np.median(pauses)), 3), round(max(pauses), 3)],
        "spread": spread,
        "videos": len(jobs),
        "frames": total,
        "mixed_s": round(took_s, 1),
        "mixed_efficiency": round(total * FRAME_S / nodes / took_s, 3),
    }


def store_writes_per_s(home: Path, seconds: float = 3.0) -> float:
    """How often one process can store a job's progress, each time flushed to the disk."""
    store = Store(home / "jobs.sqlite3")
    store.add("a", "anna", "{}", Limits(10))
    claim, began, count = store.claim("light", "w"), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        count += 1
        store.record(claim, Progress("frames", count, 10**6), ())
    store.close()
    return count / seconds


@contextmanager
def bench(nodes: int, workers: int):
    with tempfile.TemporaryDirectory() as home, Bench(nodes, workers, Path(home)) as made:
        yield made


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    given = parser.parse_args(arguments)
    figures: dict[str, object] = {"frames": FRAMES, "frame_s": FRAME_S, "batch": BATCH}
    for nodes in (1, 2, 4):
        with bench(nodes, 1) as made:
            figures[f"efficiency_{nodes}"] = round(efficiency(made, nodes), 3)
            if nodes == 4:
                figures["worker_mb"] = round(memory_mb(made.service.worker_pids()["device"][0]))
                figures["cancel_s"] = round(cancel_s(made, nodes), 2)
        print(json.dumps(figures), flush=True)
    with bench(4, 5) as made:
        figures |= mixed(made, 4)
    with tempfile.TemporaryDirectory() as home:
        figures["store_writes_per_s"] = round(store_writes_per_s(Path(home)))
    given.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
