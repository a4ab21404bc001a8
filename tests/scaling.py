"""What a Ray cluster adds to the time that frames take, on this computer: python -m tests.scaling --json FILE

Nodes of a local cluster on which a frame waits 0.5 s instead of being computed, so that any number of them can share
these cores. Models are loaded before the clock starts; batches are of two frames.

efficiency_N: 100 frames on N nodes, the time they wait divided by N, over the seconds from photo and poses to the
finished MP4. cancel_s: from Stop, while four nodes work, until none does. worker_mb: the memory of the process that has
it done. store_writes_per_s: how often one process can store a job's progress, each time flushed to the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import ray

from dreampose_core.animate import LocalEngine, animate
from dreampose_core.cluster import Cluster, ModelActor
from dreampose_core.errors import Cancelled
from dreampose_core.jobs.store import Store
from dreampose_core.poses import PoseSequence
from dreampose_core.progress import Progress, check_stop, never_stop
from dreampose_core.settings import AnimateOptions, Settings

from .ray_cluster import LocalCluster
from .serving import memory_mb

FRAMES, SIZE, FRAME_S, STEPS = 100, (40, 32), 0.5, 10
OPTIONS = AnimateOptions(recipe="none", batch_size=2, align="none", steps=STEPS)


class SlowModel(ModelActor):
    """Waits instead of computing."""

    def load(self):
        from tiny import tiny_pipeline

        return LocalEngine(tiny_pipeline()).model

    def frames(self, work, batches):
        for batch in batches:
            for step in range(1, STEPS + 1):
                check_stop(ray.get_runtime_context().is_canceled)
                time.sleep(FRAME_S * len(batch) / STEPS)
                self._noting("on_step")(batch.start, step)
        return np.zeros((sum(map(len, batches)), *SIZE, 3), np.uint8), [], {}


class SlowCluster(Cluster):
    actor_class = SlowModel


def run(cluster: Cluster, should_stop=never_stop, **more) -> float:
    """Seconds until the MP4 is there, or until nothing is done any more after a cancel."""
    poses = PoseSequence(np.ones((FRAMES, *SIZE), np.uint8), None, "none")
    given = {"image": np.full((*SIZE, 3), 90, np.uint8), "poses": poses, "image_poses": None, "options": OPTIONS}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        animate(cluster, **given, folder=Path(folder), should_stop=should_stop, **more)
        return time.monotonic() - began


def cancel_s(cluster: Cluster) -> float:
    seen, stopped = [], []

    def should_stop() -> bool:
        if seen and seen[-1].step >= 10 and not stopped:
            stopped.append(time.monotonic())
        return bool(stopped)

    try:
        run(cluster, should_stop, on_progress=seen.append)
    except Cancelled:
        return time.monotonic() - stopped[0]
    raise RuntimeError("the run was not cancelled")


def store_writes_per_s(home: Path, seconds: float = 3.0) -> float:
    store = Store(home / "jobs.sqlite3")
    store.add("a", "anna", "{}", Settings(home="/"))
    claim, began, count = store.claim("light", "w"), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        count += 1
        store.record(claim, Progress("frames", count, 10**6), ())
    store.close()
    return count / seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    file, figures = parser.parse_args(arguments).json, {}
    for nodes in (1, 2, 4):
        with tempfile.TemporaryDirectory() as home:
            local = LocalCluster(nodes)
            cluster = SlowCluster(Settings(home=Path(home), device="cpu", engine="ray", ray_address=local.address))
            while len(cluster.ready(time.monotonic())) < nodes:
                time.sleep(0.1)
            figures[f"efficiency_{nodes}"] = round(FRAMES * FRAME_S / nodes / run(cluster), 3)
            if nodes == 4:
                figures |= {"cancel_s": round(cancel_s(cluster), 2), "worker_mb": round(memory_mb(os.getpid()))}
            ray.shutdown()
            local.stop()
    with tempfile.TemporaryDirectory() as home:
        figures["store_writes_per_s"] = round(store_writes_per_s(Path(home)))
    file.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
