"""The job store: one SQLite file that holds the state of every job, whichever process dies.

A worker holds a job by a *claim*. Its number (the fence) rises with each claim of the job; every later write carries
the number and is rejected if it is stale, so a worker that was frozen and wakes up cannot spoil anything. A claim lasts
for a lease, which heartbeats renew; `recover()` takes back claims whose lease has expired or whose worker is dead.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from ..errors import Busy, LostClaim, StorageError, UnknownJob
from ..progress import Progress
from ..settings import Settings
from .database import Database
from .records import QUEUES, Claim, Job, Kind, Losses, Queue

LEASE_S = 20.0  # how long a claim lasts without a heartbeat
MAX_ATTEMPTS = 3
GIVEN_UP = (
    f"This job stopped its worker {MAX_ATTEMPTS} times without getting further, so it was given up; "
    "please try fewer frames, another photo or another motion."
)
NO_SUCH_JOB = "There is no such job, or it belongs to another owner."
PAUSE_S, MAX_PAUSES = 10.0, 24  # for disk space or the cluster: about three hours in all
_UNFINISHED = "state IN ('queued', 'running', 'interrupted')"  # a list, so that SQLite uses the index on state
# Not yet started on the device. A job interrupted there has started, and resumes before others start.
_WAITING = "(jobs.state = 'queued' OR (jobs.queue = 'light' AND jobs.state IN ('running', 'interrupted')))"


def _queue(those: str, queue: str) -> str:
    """Return SQL for (number, place) of `those` jobs. Owners take turns: each owner's first job, then each one's
    second; within a round, the owner served longest ago comes first."""
    return (
        "SELECT number, row_number() OVER (ORDER BY round, turn, number) AS place FROM (SELECT jobs.number, "
        "row_number() OVER (PARTITION BY jobs.owner ORDER BY jobs.number) AS round, coalesce(turns.turn, 0) AS turn "
        f"FROM jobs LEFT JOIN turns ON turns.owner = jobs.owner AND turns.queue = '{queue}' WHERE {those})"
    )


_PLACES = _queue(f"{_WAITING} AND jobs.kind = 'animate'", "device")
_WITH_PLACES = f"SELECT jobs.*, coalesce(place, 0) AS place FROM jobs LEFT JOIN ({_PLACES}) USING (number)"
# The mean seconds that the last 20 animations took on the device, NULL if there were none.
_PACE = (
    "SELECT avg(seconds) FROM (SELECT finished - claimed AS seconds FROM jobs WHERE state = 'done' AND "
    "kind = 'animate' AND claimed > 0 ORDER BY finished DESC LIMIT 20)"
)
_NEXT_TURN = "(SELECT coalesce(max(turn), 0) + 1 FROM turns)"
_KEPT = ("id", "owner", "key", "request", "losses", "notices", "created", "finished")  # kept in the bucket
_ACTIVE = "state IN ('running', 'cancelling')"
_CLAIMED = f"id = ? AND fence = ? AND {_ACTIVE}"


def _becomes(state: str, failed_if: str = "false") -> str:
    """Return SQL that gives the job this state, or "failed" where `failed_if` holds, and the time of its end if it has
    ended. An accepted cancel stands, whatever the worker reports in the meantime."""
    state = f"CASE WHEN state = 'cancelling' THEN 'cancelled' WHEN {failed_if} THEN 'failed' ELSE '{state}' END"
    return f"state = {state}, finished = CASE WHEN {state} IN ('done', 'failed', 'cancelled') THEN now() END"


class Store:
    """The jobs in the SQLite file at `path`, shared by threads and processes.

    clock: returns seconds since 1970, as `time.time` does.
    All methods raise StorageError when the file cannot be read or written.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self._db = Database(path, clock)

    @classmethod
    def of(cls, home: Path) -> Store:
        """Open the store of an installation; create its data folder if there is none. Raises StorageError."""
        try:
            for folder in (home, home / "jobs", home / "subjects"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"The data folder {home} cannot be created ({error.strerror}); choose another with DREAMPOSE_HOME."
            ) from error
        return cls(home / "jobs.sqlite3")

    def close(self) -> None:
        self._db.close()

    # ---- for the service; a job that is unknown or another owner's raises UnknownJob ---------------------------------

    def admit(self, owner: str, kind: Kind, settings: Settings, key: str | None = None) -> str | None:
        """Return the id of the job that `owner` submitted with `key`, None if there is none and a new one may come.

        Raises Busy when too many jobs of this kind wait, or too many of this owner's are unfinished. Animations are
        counted separately from previews and motions, which are done quickly.
        """
        if known := self._first("SELECT id FROM jobs WHERE owner = ? AND key = ?", owner, key):
            return known
        alike, animates = "(kind = 'animate') = ?", kind == "animate"
        own = self._first(f"SELECT count(*) FROM jobs WHERE {_UNFINISHED} AND owner = ? AND {alike}", owner, animates)
        if own >= settings.max_own:
            raise Busy(
                f"{own} of your jobs are not finished yet, which is the most at a time; wait for one, or stop one."
            )
        waiting = self._first(f"SELECT count(*) FROM jobs WHERE {_WAITING} AND {alike}", animates)
        if waiting >= settings.max_queue:
            jobs = "1 job is" if waiting == 1 else f"{waiting} jobs are"
            seconds = self._first(_PACE) if animates else None
            minutes = math.ceil(waiting * seconds / settings.workers / 60) if seconds else None
            when = {None: "a few minutes", 1: "about a minute"}.get(minutes, f"about {minutes} minutes")
            raise Busy(f"The queue is full ({jobs} waiting); please try again in {when}.")
        return None

    def num_waiting(self) -> int:
        """Count the animations that wait for a device."""
        return self._first(f"SELECT count(*) FROM jobs WHERE {_WAITING} AND kind = 'animate'")

    def add(
        self, job_id: str, owner: str, request: str, settings: Settings, key: str | None = None, kind: Kind = "animate"
    ) -> str:
        """Add a job to the light queue and return its id, or what `admit` returns. Raises Busy."""
        columns, values = "id, owner, key, kind, request", (job_id, owner, key, kind, request)
        job = f"INSERT INTO jobs ({columns}, queue, state, created) VALUES (?, ?, ?, ?, ?, 'light', 'queued', now())"
        with self._db.transaction():
            if known := self.admit(owner, kind, settings, key):
                return known
            self._db.rows(job, *values)
            # A new owner queues behind earlier ones; else an owner served once would wait for all never served.
            for queue in QUEUES:
                self._db.rows(f"INSERT INTO turns VALUES (?, ?, {_NEXT_TURN}) ON CONFLICT DO NOTHING", owner, queue)
            return job_id

    def get(self, owner: str, job_id: str) -> Job:
        """Return the job."""
        found = self._jobs("AND id = ?", owner, job_id)
        if not found:
            raise UnknownJob(NO_SUCH_JOB)
        return found[0]

    def jobs_of(self, owner: str) -> list[Job]:
        """List all jobs of `owner`, newest first."""
        return self._jobs("ORDER BY created DESC, number DESC", owner)

    def _jobs(self, which: str, *values) -> list[Job]:
        rows = self._db.rows(f"{_WITH_PLACES} WHERE owner = ? AND NOT unwanted {which}", *values)
        return [Job.of(row) for row in rows]

    def cancel(self, owner: str, job_id: str) -> None:
        """Cancel a job that no worker holds; ask the worker of a running one to stop. Final states stay."""
        self.get(owner, job_id)
        self._db.rows(
            "UPDATE jobs SET state = iif(state = 'running', 'cancelling', 'cancelled'), error = NULL, cancel_asked = "
            f"now(), finished = iif(state = 'running', NULL, now()) WHERE id = ? AND {_UNFINISHED}",
            job_id,
        )

    def rename(self, owner: str, job_id: str, name: str) -> None:
        """Give the job a name chosen by its owner."""
        self.get(owner, job_id)
        self._db.rows("UPDATE jobs SET name = ? WHERE id = ?", name, job_id)

    def disown(self, owner: str, job_id: str) -> None:
        """Hide the job from now on and cancel it; once it has ended, `unwanted` lists it."""
        self.cancel(owner, job_id)
        self._db.rows("UPDATE jobs SET unwanted = 1, key = NULL WHERE id = ?", job_id)

    # ---- for the supervisor ----------------------------------------------------------------------------------------

    def holders(self) -> dict[str, float]:
        """Map the name of each worker that holds a claim to the seconds since it was asked to stop, 0 if it was not."""
        since = "CASE WHEN state = 'cancelling' THEN now() - cancel_asked ELSE 0 END AS seconds"
        return dict(map(tuple, self._db.rows(f"SELECT worker, {since} FROM jobs WHERE {_ACTIVE}")))

    def recover(self, dead: Iterable[str] = ()) -> list[str]:
        """Take back the claims of the workers named in `dead` and all expired ones; return their workers' names.

        Such a job becomes interrupted (claimable again), cancelled if that was asked for, or failed if its last
        MAX_ATTEMPTS attempts reached no new step.
        """
        lost = f"{_ACTIVE} AND (lease_until < now() OR worker IN (SELECT value FROM json_each(?)))"
        names = json.dumps(sorted(dead))
        if not self._first(f"SELECT 1 FROM jobs WHERE {lost} LIMIT 1", names):  # idle: take no write lock
            return []
        given_up = f"state = 'running' AND attempts >= {MAX_ATTEMPTS}"
        rows = self._db.rows(
            f"UPDATE jobs SET {_becomes('interrupted', given_up)}, error = iif({given_up}, ?, error), "
            f"code = iif({given_up}, 'crash_loop', code) WHERE {lost} RETURNING worker",
            GIVEN_UP,
            names,
        )
        return [row["worker"] for row in rows]

    # ---- for the cleanup -------------------------------------------------------------------------------------------

    def ids(self) -> set[str]:
        """Return the ids of all jobs."""
        return {row["id"] for row in self._db.rows("SELECT id FROM jobs")}

    def ended(self, kind: Kind | None = None, before: float = math.inf) -> list[str]:
        """List the ids of jobs in a final state, in order of their end.

        kind: of this kind only. before: only those that ended before this time, in seconds since 1970.
        """
        found = "SELECT id FROM jobs WHERE finished < ? AND kind = coalesce(?, kind) ORDER BY finished, number"
        return [row["id"] for row in self._db.rows(found, before, kind)]

    def unwanted(self) -> list[str]:
        """List the ids of jobs in a final state that their owners have deleted."""
        return [row["id"] for row in self._db.rows("SELECT id FROM jobs WHERE unwanted AND finished IS NOT NULL")]

    def forget(self, job_id: str) -> bool:
        """Remove a job in a final state, and its owner's turns if it was their last; return False if there is none or
        it is not final."""
        gone = self._db.rows("DELETE FROM jobs WHERE id = ? AND finished IS NOT NULL RETURNING 1", job_id)
        self._db.rows("DELETE FROM turns WHERE owner NOT IN (SELECT owner FROM jobs)")
        return bool(gone)

    def unkept(self) -> list[dict]:
        """List the done animations whose results the bucket lacks, in the form that `restore` takes."""
        which = "state = 'done' AND kind = 'animate' AND NOT kept AND NOT unwanted"
        return [dict(row) for row in self._db.rows(f"SELECT {', '.join(_KEPT)} FROM jobs WHERE {which}")]

    def mark_kept(self, job_id: str) -> None:
        """Record that the bucket has this job's result."""
        self._db.rows("UPDATE jobs SET kept = 1 WHERE id = ?", job_id)

    def restore(self, job: dict) -> None:
        """Add a done job as `unkept` returned it, unless the store has it. Raises ValueError if `job` is not one."""
        _pairs(job["losses"])
        if not job["finished"] or not all(isinstance(notice, str) for notice in json.loads(job["notices"])):
            raise ValueError("not a finished job")
        names, marks = ", ".join(_KEPT), ", ".join("?" * len(_KEPT))
        self._db.rows(
            f"INSERT INTO jobs ({names}, queue, state, kind, kept) VALUES ({marks}, 'device', 'done', 'animate', 1) "
            "ON CONFLICT DO NOTHING",
            *(job[name] for name in _KEPT),
        )

    # ---- for workers; a stale claim raises LostClaim ---------------------------------------------------------------

    def claim(self, queue: Queue, worker: str, max_active: int = 1000) -> Claim | None:
        """Claim the next free job of `queue` for `worker` and return the claim, None if there is no such job.

        Interrupted jobs resume first. Then owners take turns; an owner with `max_active` jobs at work in this queue
        waits.
        """
        busy = (
            f"SELECT owner FROM jobs WHERE queue = '{queue}' AND {_ACTIVE} GROUP BY owner HAVING count(*) >= "
            f"{int(max_active)}"
        )
        free = f"jobs.queue = '{queue}' AND jobs.owner NOT IN ({busy}) AND jobs.state ="
        begun = f"SELECT number, 0 AS place FROM jobs WHERE {free} 'interrupted' AND not_before <= now()"
        queued = _queue(f"{free} 'queued'", queue)
        first = f"SELECT number FROM ({begun} UNION ALL {queued}) ORDER BY place, number LIMIT 1"
        taken = (
            f"UPDATE jobs SET state = 'running', fence = fence + 1, worker = ?, lease_until = now() + {LEASE_S}, "
            f"attempts = attempts + 1, claimed = now(), error = NULL WHERE number = ({first}) "
            "RETURNING id, owner, fence, request, losses"
        )
        if not self._first(first):  # idle polls take no write lock
            return None
        with self._db.transaction():
            rows = self._db.rows(taken, worker)
            for row in rows:
                self._db.rows(f"INSERT OR REPLACE INTO turns VALUES (?, ?, {_NEXT_TURN})", row["owner"], queue)
        return Claim(**{**row, "losses": _pairs(row["losses"])}) if rows else None

    def renew(self, claim: Claim) -> None:
        """Extend the lease; this is the heartbeat."""
        self._write(claim, f"lease_until = now() + {LEASE_S}")

    def record(self, claim: Claim, progress: Progress, losses: Losses) -> None:
        """Store progress and the loss curve. A step never reached before resets the count of fruitless attempts."""
        reached = json.loads(self._held(claim)["reached"])
        fresh = progress.step > reached.get(progress.stage, 0)
        if fresh:
            reached[progress.stage] = progress.step
        values = [json.dumps(value) for value in (asdict(progress), losses, reached)]
        more = ", attempts = 0, pauses = 0" if fresh else ""
        self._write(claim, f"progress = ?, losses = ?, reached = ?, lease_until = now() + {LEASE_S}{more}", *values)

    def cancel_asked(self, claim: Claim) -> bool:
        """Return whether the owner asked to cancel the job. Cheap."""
        return self._held(claim)["state"] == "cancelling"

    def advance(self, claim: Claim, notices: tuple[str, ...] = ()) -> None:
        """Move the job from the light queue to the device queue."""
        fresh = "queue = 'device', notices = ?, attempts = 0, reached = '{}', progress = NULL"
        self._write(claim, f"{_becomes('queued')}, {fresh}", json.dumps(notices))

    def finish(self, claim: Claim, notices: tuple[str, ...] = ()) -> None:
        """Mark the job as done."""
        notices = (*json.loads(self._held(claim)["notices"]), *notices)
        self._write(claim, f"{_becomes('done')}, notices = ?", json.dumps(notices))

    def fail(self, claim: Claim, error: str, code: str) -> None:
        """Mark the job as failed. error: one sentence for its owner. code: a word for programs."""
        self._write(claim, f"{_becomes('failed')}, error = ?, code = ?", error, code)

    def interrupt(self, claim: Claim) -> None:
        """Release the job so that a worker can resume it; this attempt does not count. A cancelled job ends."""
        self._write(claim, f"{_becomes('interrupted')}, attempts = max(attempts - 1, 0)")

    def pause(self, claim: Claim, why: str) -> None:
        """Release the job as `interrupt` does, to be resumed after PAUSE_S seconds at the earliest.

        The wait doubles with each pause in a row that reached no new step, up to 600 seconds; after MAX_PAUSES of them
        the job fails. why: a sentence for its owner.
        """
        over = f"pauses >= {MAX_PAUSES}"
        paused = (
            f"{_becomes('interrupted', over)}, attempts = max(attempts - 1, 0), pauses = pauses + 1, error = "
            f"iif(state = 'running', ?, NULL), code = iif(state = 'running' AND {over}, 'storage', NULL), "
            f"not_before = now() + min({PAUSE_S} * (1 << pauses), 600)"
        )
        self._write(claim, paused, why)

    # ---- internals -------------------------------------------------------------------------------------------------

    def _first(self, sql: str, *values):
        """Return the first value that a query finds, None if it finds nothing."""
        rows = self._db.rows(sql, *values)
        return rows[0][0] if rows else None

    def _held(self, claim: Claim) -> sqlite3.Row:
        return self._row(claim, f"SELECT state, reached, notices FROM jobs WHERE {_CLAIMED}")

    def _write(self, claim: Claim, assignments: str, *values) -> None:
        self._row(claim, f"UPDATE jobs SET {assignments} WHERE {_CLAIMED} RETURNING 1", *values)

    def _row(self, claim: Claim, sql: str, *values) -> sqlite3.Row:
        for row in self._db.rows(sql, *values, claim.id, claim.fence):
            return row
        raise LostClaim(f"job {claim.id}: claim {claim.fence} is stale")


def _pairs(text: str) -> Losses:
    return tuple((step, loss) for step, loss in json.loads(text))
