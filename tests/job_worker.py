"""A worker process for tests: the real light queue, and a device queue that makes tiny files instead of videos.

The seed of a job's options says how the device queue behaves, `steps` how many frames it makes.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time

from dreampose_core.errors import ClusterAway, InputError
from dreampose_core.jobs import store, worker
from dreampose_core.jobs.records import Work
from dreampose_core.progress import Progress, check_stop

GATED = 1  # waits in the middle until the file "gate" appears in the data folder
CRASHES = 2  # kills its process in the middle
FAILS = 3  # raises an error nobody foresaw
REFUSES = 4  # raises an InputError
DISK_FULL = 5  # until the file "gate" appears
DEAF = 6  # never asks whether to stop
AWAY = 7  # the cluster is away until the file "gate" appears


def make_video(work: Work) -> tuple[str, ...]:
    behaviour, total = work.request.options.seed, work.request.options.steps
    gate = work.folder.path.parent.parent / "gate"
    work.folder.frames.mkdir(exist_ok=True)
    subject = work.folder.path / "subject"
    if not subject.exists():
        for step in range(1, 4):
            work.on_progress(Progress("tuning", step, 3, loss=1 / step))
            check_stop(work.should_stop)
        subject.touch()
    for index in range(total):
        frame = work.folder.frames / f"{index:06d}.png"
        if not frame.exists():
            if index == total // 2:
                _misbehave(behaviour, gate.exists())
                while behaviour == GATED and not gate.exists():
                    check_stop(work.should_stop)
                    time.sleep(0.05)
            with open(work.folder.path / "trace", "a") as trace:  # which frames were made how often, for the tests
                trace.write(f"{index}\n")
            time.sleep(0.02)
            part = work.folder.frames / f".{index:06d}.part"
            part.write_bytes(b"frame %d" % index)
            part.rename(frame)
        work.on_progress(Progress("frames", index + 1, total))
        check_stop(work.should_stop)
    work.folder.result.write_bytes(b"video")
    return ("A sentence about a fall-back.",)


def _misbehave(behaviour: int, open_gate: bool) -> None:
    if behaviour == CRASHES:
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == FAILS:
        raise ValueError("a detail that is none of the user's business")
    if behaviour == REFUSES:
        raise InputError("The photo shows nobody; please choose another.")
    if behaviour == DISK_FULL and not open_gate:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if behaviour == AWAY and not open_gate:
        raise ClusterAway("The Ray cluster at 10.0.0.5:6379 cannot be reached.")
    while behaviour == DEAF:
        time.sleep(1)


if __name__ == "__main__":
    store.PAUSE_S, worker.NICE = 1.0, 0
    sys.exit(worker.main(handler=make_video if "device" in sys.argv else None))
