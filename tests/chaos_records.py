"""The requests of the chaos run, their uninterrupted runs, and a trace of every claim, step and ending in the store."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dreampose_core.jobs.store import Store
from dreampose_core.media import read_image, read_video, write_video
from dreampose_core.settings import EXAMPLES

REAL = ("tuning", "decoder", "frames", "video")  # stages of work; "loading" and "estimating" come before it
PLAN = (  # person, motion, recipe, seed, first and last frame
    ("ada", "walk", "fast", 1, 0, 12),
    ("bela", "dance", "none", 2, 0, 44),
    ("fumi", "turn", "none", 3, 0, 20),
    ("chidi", "jump", "fast", 4, 5, 30),
    ("dana", "wave", "fast", 5, 0, 20),
    ("ada", "boxing", "fast", 6, 10, 50),
    ("emil", None, "none", 7, None, None),  # a clip; the light queue finds the person in it, and in the photo
)
_TRACE = """
CREATE TABLE IF NOT EXISTS trace (
    number INTEGER PRIMARY KEY, at REAL, id TEXT, queue TEXT, old_queue TEXT, state TEXT, old_state TEXT,
    fence INTEGER, old_fence INTEGER, stage TEXT
);
CREATE TRIGGER IF NOT EXISTS trace_submit AFTER INSERT ON jobs BEGIN
    INSERT INTO trace (at, id, queue, state, fence)
    VALUES ((julianday('now') - 2440587.5) * 86400.0, NEW.id, NEW.queue, NEW.state, NEW.fence);
END;
CREATE TRIGGER IF NOT EXISTS trace_change AFTER UPDATE ON jobs WHEN NEW.state <> OLD.state OR NEW.fence <> OLD.fence
    OR NEW.queue <> OLD.queue OR NEW.progress IS NOT OLD.progress BEGIN
    INSERT INTO trace (at, id, queue, old_queue, state, old_state, fence, old_fence, stage)
    VALUES ((julianday('now') - 2440587.5) * 86400.0, NEW.id, NEW.queue, OLD.queue, NEW.state, OLD.state,
            NEW.fence, OLD.fence,
            CASE WHEN NEW.progress IS NOT OLD.progress THEN json_extract(NEW.progress, '$.stage') END);
END;
"""
_WORK = "(stage IN ({}) OR state = 'done')".format(", ".join(f"'{stage}'" for stage in REAL))
_ENDED = "('done', 'failed', 'cancelled')"


def requests_for(number: int, folder: Path) -> dict[str, dict]:
    """The first `number` of PLAN as forms of the HTTP API, by a name; `folder` takes the clip."""
    people, motions = EXAMPLES / "people", EXAMPLES / "motions"
    requests = {}
    for person, motion, recipe, seed, first, last in PLAN[:number]:
        frames = {"first_frame": first, "last_frame": last}
        form = {
            "photo": people / f"{person}.png",
            "motion": motions / f"{motion}.npz" if motion else _clip(folder / "clip.mp4"),
            "consent": True,
            "options": {"recipe": recipe, "seed": seed, "steps": 16} | frames,
        }
        if motion:
            form["photo_poses"] = people / f"{person}.poses.npz"
        if person == "chidi":  # more photos, which have to be decoded, and the person found in them
            form["more_photos"] = [form["photo"]] * 2
        requests[f"{person}, {motion or 'clip'}, {recipe}"] = form
    return requests


def _clip(path: Path) -> Path:
    from dreampose_core.synthetic import HELD_OUT, Figure, render_clip  # here, because it brings torch

    rgb, _ = render_clip(Figure.from_seed(HELD_OUT), "wave", 16, (160, 128), fps=8.0)
    write_video(rgb.numpy(), path, 8.0)
    return path


@dataclass(frozen=True)
class Verdict:
    """What became of one job: `words` says how it stands where it is lost; num_claims: how often a worker took it
    up."""

    lost: bool
    twice: bool
    num_claims: int
    words: str


class Trace:
    """Reads and traces the store in `home`, which may be new; from outside, while servers come and go."""

    def __init__(self, home: Path):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = home / "jobs.sqlite3"
        Store(path).close()
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.executescript(_TRACE)

    def _rows(self, sql: str, *values) -> list[tuple]:
        return self._db.execute(sql, values).fetchall()

    def _first(self, sql: str, *values):
        rows = self._rows(sql, *values)
        return rows[0][0] if rows else None

    def unfinished(self) -> dict[str, tuple[str, str]]:
        """Job -> (queue, state) of those that have not ended."""
        return {
            job: (queue, state)
            for job, queue, state in self._rows(f"SELECT id, queue, state FROM jobs WHERE state NOT IN {_ENDED}")
        }

    def done(self) -> list[str]:
        return [job for (job,) in self._rows("SELECT id FROM jobs WHERE state = 'done'")]

    def num_rows(self) -> int:
        return self._first("SELECT count(*) FROM trace")

    def given_up_next(self, queue: str, most: int) -> bool:
        """Whether a job of this queue would be given up if its worker died now, or as soon as it has taken it up once
        more."""
        return bool(
            self._rows(
                "SELECT 1 FROM jobs WHERE queue = ? AND (state = 'running' AND attempts >= ? OR state = 'interrupted' "
                "AND attempts >= ?)",
                queue,
                most,
                most - 1,
            )
        )

    def running(self, queue: str, at: float) -> tuple[str, int] | None:
        """(job, fence) that this queue worked on at that moment."""
        last = "SELECT max(number) FROM trace WHERE at <= ? GROUP BY id"
        rows = self._rows(
            f"SELECT id, fence FROM trace WHERE number IN ({last}) AND queue = ? AND state = 'running'", at, queue
        )
        return rows[0] if rows else None

    def stage(self, job: str, queue: str, at: float) -> str:
        """What the queue was doing with the job at that moment: the last stage it reported there, "reading files" or
        "starting" before."""
        since = "SELECT max(number) FROM trace WHERE id = ? AND at <= ? AND fence <> old_fence"
        found = self._first(
            f"SELECT stage FROM trace WHERE id = ? AND at <= ? AND stage IS NOT NULL AND number > ({since}) "
            "ORDER BY number DESC",
            job,
            at,
            job,
            at,
        )
        return found or ("reading files" if queue == "light" else "starting")

    def worked(self, queue: str, since: float) -> bool:
        """Whether some job of the queue was taken up after `since` and got on."""
        claimed = "SELECT id, fence FROM trace WHERE fence <> old_fence AND at > ?"
        sql = f"SELECT 1 FROM trace WHERE queue = ? AND at > ? AND {_WORK} AND (id, fence) IN ({claimed}) LIMIT 1"
        return bool(self._rows(sql, queue, since, since))

    def resumed(self, job: str, fence: int, queue: str) -> tuple[float | None, float | None]:
        """When the job was taken up again in this queue after the claim `fence`, and when it then got on there."""
        later = "SELECT min(at) FROM trace WHERE id = ? AND fence > ?"
        claimed = self._first(f"{later} AND fence <> old_fence AND queue = ?", job, fence, queue)
        if claimed is None:
            return None, None
        got_on = "old_queue = 'light' AND queue = 'device'" if queue == "light" else f"queue = 'device' AND {_WORK}"
        return claimed, self._first(f"{later} AND {got_on}", job, fence)

    def seconds(self, job: str) -> tuple[float, float]:
        """How long the job took in the light queue, and on the device, from the first step of real work on."""
        times = [
            self._first(f"SELECT min(at) FROM trace WHERE id = ? AND {what}", job)
            for what in (
                "queue = 'light' AND fence <> old_fence",
                "queue = 'device'",
                f"queue = 'device' AND {_WORK}",
                "state = 'done'",
            )
        ]
        return times[1] - times[0], times[3] - times[2]

    def verdicts(self, submitted: Collection[str]) -> list[Verdict]:
        """One for each job that is in the store or was accepted; one that was not is a second of the same request."""
        states = {job: (state, error) for job, state, error in self._rows("SELECT id, state, error FROM jobs")}
        found = []
        for job in states.keys() | submitted:
            state, error = states.get(job, ("gone", None))
            endings = self._rows(
                "SELECT number FROM trace WHERE id = ? AND state = 'done' AND old_state <> 'done'", job
            )
            claims = self._rows("SELECT number FROM trace WHERE id = ? AND fence <> old_fence", job)
            again = bool(endings) and any(number > endings[0][0] for (number,) in claims)
            twice = len(endings) > 1 or again or job not in submitted
            found.append(Verdict(state != "done", twice, len(claims), f"{job}: {state}, {error}"))
        return found


class Reference:
    """An uninterrupted run: what the same request must give, and how long its parts took."""

    def __init__(self, home: Path, job: str, trace: Trace):
        state = trace._rows("SELECT state, error FROM jobs WHERE id = ?", job)
        assert state[0][0] == "done", f"an uninterrupted run ended so: {state}"
        self.job, self.folder = job, home / "jobs" / job
        self.light_s, self.device_s = trace.seconds(job)
        self.subject = subject_folder(home, job)

    @property
    def frames(self) -> list[Path]:
        return sorted((self.folder / "frames").glob("*.png"))


def subject_folder(home: Path, job: str) -> Path | None:
    key = json.loads((home / "jobs" / job / "result.json").read_text())["subject"]
    return home / "subjects" / key if key else None


def different(home: Path, job: str, reference: Reference) -> list[str]:
    """What of a job that is done differs from the uninterrupted run, in words: frames (pixels), weights (tensors),
    video (pixels)."""
    folder, found = home / "jobs" / job, []
    names = [sorted(path.name for path in (f / "frames").iterdir()) for f in (folder, reference.folder)]
    if names[0] != names[1]:
        return [f"frames: {sorted(set(names[0]) ^ set(names[1]))}"]
    for path in reference.frames:
        if not np.array_equal(read_image(path), read_image(folder / "frames" / path.name)):
            found.append(path.name)
    subject = subject_folder(home, job)
    if (subject is None) != (reference.subject is None):
        return [*found, "the subject"]
    if subject is not None and _weights(subject) != _weights(reference.subject):
        found.append("the tuned weights")
    films = [f / "result.mp4" for f in (folder, reference.folder)]
    if films[0].read_bytes() != films[1].read_bytes():
        decoded = [list(read_video(film)) for film in films]
        if len(decoded[0]) != len(decoded[1]) or not all(np.array_equal(*pair) for pair in zip(*decoded)):
            found.append("result.mp4")
    return found


def _weights(subject: Path) -> dict[str, tuple]:
    files = {path.name: load_file(path) for path in subject.glob("*.safetensors")}
    return {f"{file} {name}": (x.dtype, x.shape, x.tobytes()) for file, of in files.items() for name, x in of.items()}


def last_files(home: Path, job: str) -> dict[str, tuple[int, int]]:
    """When the job's frames and its video were written, and which files they are: another run would show here."""
    folder, found = home / "jobs" / job, {}
    for path in (*(folder / "frames").glob("[0-9]*.png"), folder / "result.mp4"):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found[path.name] = (stat.st_mtime_ns, stat.st_ino)
    return found


def forget(home: Path, job: str, readings: bool) -> None:
    """Takes away what the job left for others, its subject and `readings` of its clip: the next such job does all of it
    again."""
    if (subject := subject_folder(home, job)) is not None:
        shutil.rmtree(subject, ignore_errors=True)
    if readings:
        shutil.rmtree(home / "readings", ignore_errors=True)
