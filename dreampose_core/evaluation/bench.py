"""Time and memory of reading and aligning a motion, form by form; each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import appearing
from ..model.memory import most_memory_mb
from ..poses import PoseSequence, aligned, fitted, read_any, write_any, write_poses
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import REPOSITORY
from ..synthetic import HELD_OUT, Figure, render_clip

_DRAWN = 10  # frames that are drawn; the clip swings through them to and fro
FORMS = {"npz": "clip.npz", "IUV zip": "iuv.zip", "rendering (MP4)": "clip.mp4", "DreamPose .npy": "npy"}


def bench_poses(
    frames: int,
    size: tuple[int, int],
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, dict[str, float]]:
    """Seconds of reading and of aligning, and the most memory (MB, the interpreter included), for each form of a
    clip."""
    if frames < 1:
        raise InputError(f"--frames is {frames}; it must be at least 1.")
    folder.mkdir(parents=True, exist_ok=True)
    clock, report = StageClock("forms", len(FORMS), on_progress), {}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        clip = _clip(frames, size)
        _, own = render_clip(Figure.from_seed(HELD_OUT + 1), "idle", 1, size)
        write_poses(own, work / "own.npz")
        for number, (name, file) in enumerate(FORMS.items()):
            check_stop(should_stop)
            write_any(clip, work / file)
            report[name] = _measured((work / file).absolute(), (work / "own.npz").absolute())
            clock.tick(number + 1)
    with appearing(folder / "report.json") as path:
        path.write_text(json.dumps(report, indent=1))
    return report


def _clip(frames: int, size: tuple[int, int]) -> PoseSequence:
    _, drawn = render_clip(Figure.from_seed(HELD_OUT), "walk", min(_DRAWN, frames), size)
    there = list(range(len(drawn)))
    return drawn.select(np.resize([*there, *there[-2:0:-1]], frames))


def _measured(path: Path, own: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "dreampose_core.evaluation.bench", str(path), str(own)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return json.loads(done.stdout)


def _measure(path: Path, own: Path) -> dict[str, float]:
    """In a process of its own: reads, aligns, and asks the system for the most memory that it ever held."""
    started = time.monotonic()
    poses = read_any(path).poses
    read = time.monotonic()
    own_map = read_any(own).poses
    aligned(poses, fitted(own_map, poses.size), poses.size)
    done = time.monotonic()
    return {"read_s": round(read - started, 2), "align_s": round(done - read, 2), "memory_mb": round(most_memory_mb())}


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), Path(sys.argv[2]))))
