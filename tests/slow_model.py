"""A model in whose place every frame waits a fixed time: what a cluster adds to it is all that is seen. For
tests.scaling alone.

`install` is Ray's hook for each process that is started on a node. When each worked is written to the file that the
variable LOG names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

FRAME_S = 0.5
STEPS = 10  # in which a batch's time passes
LOG = "SLOW_MODEL_LOG"


def work_spans(log: Path) -> dict[str, list[tuple[float, float]]]:
    """(start, end) of each piece of work in seconds of time.monotonic(), in their order, by process."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for line in log.read_text().splitlines():
        pid, start, end = line.split()
        spans.setdefault(pid, []).append((float(start), float(end)))
    return spans


def install() -> None:
    """Puts it where models of the cluster come from."""
    import dreampose_core.cluster.model as model

    model.load_pipeline = lambda *given: slow_pipeline()


def slow_pipeline():
    from tiny import tiny_pipeline

    pipe = tiny_pipeline()
    type(pipe).stream = _stream
    return pipe


def _stream(pipe, image, poses, image_poses=None, *, batches, on_step, should_stop, **given):
    from dreampose_core.progress import check_stop

    began = time.monotonic()
    try:
        for batch in batches:
            for step in range(1, STEPS + 1):
                check_stop(should_stop)
                time.sleep(FRAME_S * len(batch) / STEPS)
                on_step(batch.start, step)
            for index in batch:
                yield np.full((*pipe.model_config.size, 3), index % 251, np.uint8)
    finally:
        with open(os.environ[LOG], "a") as log:
            log.write(f"{os.getpid()} {began} {time.monotonic()}\n")
