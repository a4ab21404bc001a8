"""Measure time and memory of reading and aligning a motion in each file format, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ..errors import InputError, ModelError
from ..files import appearing
from ..model.memory import most_memory_mb
from ..poses import aligned, fitted, read_any, write_any, write_poses
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import REPOSITORY
from ..synthetic import HELD_OUT, Figure, render_clip

_DRAWN = 10  # frames drawn; the clip plays them forwards and backwards
FORMS = {"npz": "clip.npz", "IUV zip": "iuv.zip", "rendering (MP4)": "clip.mp4", "DreamPose .npy": "npy"}


def bench_poses(
    frames: int,
    size: tuple[int, int],
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, dict[str, float]]:
    """Measure reading and aligning a clip of `frames` frames of (height, width) `size` in each format of FORMS.

    Returns, and writes to report.json in `folder`, for each format "read_s" and "align_s" in seconds and "memory_mb",
    the peak memory including the interpreter's. Raises InputError when `frames` is below 1, ModelError when a measuring
    process fails, and Cancelled.
    """
    if frames < 1:
        raise InputError(f"--frames must be at least 1, got {frames}.")
    folder.mkdir(parents=True, exist_ok=True)
    clock, report = StageClock("forms", len(FORMS), on_progress), {}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        _, drawn = render_clip(Figure.from_seed(HELD_OUT), "walk", min(_DRAWN, frames), size)
        forwards = list(range(len(drawn)))
        clip = drawn.select(np.resize([*forwards, *forwards[-2:0:-1]], frames))
        _, image_poses = render_clip(Figure.from_seed(HELD_OUT + 1), "idle", 1, size)
        write_poses(image_poses, work / "own.npz")
        for number, (name, file) in enumerate(FORMS.items()):
            write_any(clip, work / file)
            report[name] = in_own_process(__name__, str(work / file), str(work / "own.npz"), should_stop=should_stop)
            clock.tick(number + 1)
    with appearing(folder / "report.json") as path:
        path.write_text(json.dumps(report, indent=1))
    return report


def in_own_process(module: str, *given, should_stop: ShouldStop = never_stop):
    """Run a module as a program with `given` as one JSON argument and return the JSON that it prints.

    Raises ModelError when the process fails, and Cancelled.
    """
    command = [sys.executable, "-m", module, json.dumps(given)]
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            while process.poll() is None:
                check_stop(should_stop)
                time.sleep(0.1)
        finally:
            process.kill()
        if process.returncode != 0:
            raise ModelError("The process that measures memory failed; see its error above.")
        return json.load(process.stdout)


def _measure(path: str, image_poses: str) -> dict[str, float]:
    started = time.monotonic()
    poses = read_any(path).poses
    read = time.monotonic()
    photo_map = read_any(image_poses).poses
    aligned(poses, fitted(photo_map, poses.size), poses.size)
    done = time.monotonic()
    return {"read_s": round(read - started, 2), "align_s": round(done - read, 2), "memory_mb": round(most_memory_mb())}


if __name__ == "__main__":
    print(json.dumps(_measure(*json.loads(sys.argv[1]))))
