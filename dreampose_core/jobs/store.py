"""The job store: one SQLite file that stays the truth about every job, whichever process dies.

A worker owns a job by a *claim*: its number (the fence) rises with each claim, and every later write carries it and is
refused when it is stale, so a worker that was frozen and wakes up can spoil nothing. A claim holds for a lease, which
heartbeats renew; a claim whose lease ran out, or whose worker is known to be dead, is taken back by `recover()`.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from ..errors import Busy, LostClaim, UnknownJob
from ..progress import Progress
from .database import Database
from .messages import GIVEN_UP, MAX_ATTEMPTS, NO_SUCH_JOB
from .records import QUEUES, Claim, Job, Kind, Limits, Losses, Queue

LEASE_S = 20.0
PAUSE_S, MAX_PAUSES = 10.0, 24  # for room on the disk: three hours in all
_UNFINISHED = "state IN ('queued', 'running', 'interrupted')"  # says the index where to look
# Has not begun on the device; an interrupted job there has, and goes on before others begin.
_WAITING = (
    f"({_UNFINISHED} AND (jobs.state = 'queued' OR (jobs.queue = 'light' AND jobs.state IN ('running', "
    "'interrupted'))))"
)


def _queue(those: str, queue: str) -> str:
    """SQL: (number, place) of `those` jobs, owners taking turns: each owner's first, then each one's second; who was
    served longest ago goes first."""
    return (
        "SELECT number, row_number() OVER (ORDER BY round, turn, number) AS place FROM (SELECT jobs.number, "
        "row_number() OVER (PARTITION BY jobs.owner ORDER BY jobs.number) AS round, coalesce(turns.turn, 0) AS turn "
        f"FROM jobs LEFT JOIN turns ON turns.owner = jobs.owner AND turns.queue = '{queue}' WHERE {those})"
    )


_PLACES = _queue(f"{_WAITING} AND jobs.kind = 'animate'", "device")
_PLACE = (
    f"CASE WHEN {_WAITING} THEN coalesce((SELECT place FROM ({_PLACES}) AS q WHERE q.number = "
    "jobs.number), 0) ELSE 0 END AS place"
)
_KEPT = ("id", "owner", "key", "request", "losses", "notices", "created", "finished")  # of a job in the bucket
_ACTIVE = "state IN ('running', 'cancelling')"
# A cancel that was accepted is kept, whatever the worker says in the meantime.
_UNLESS_CANCELLING = "state = CASE WHEN state = 'cancelling' THEN 'cancelled' ELSE '{}' END"
_IF_CANCELLED = "finished = CASE WHEN state = 'cancelling' THEN now() END"


class Store:
    """The jobs in the SQLite file at `path`, shared by threads and processes.

    lease_s: seconds for which a claim holds without a heartbeat. clock: seconds since 1970, as `time.time`.
    All methods raise StorageError when the file cannot be read or written.
    """

    def __init__(self, path: Path, lease_s: float = LEASE_S, clock: Callable[[], float] = time.time):
        self.lease_s, self.clock = lease_s, clock
        self._db = Database(path, clock)

    def close(self) -> None:
        self._db.close()

    # ---- for the service -------------------------------------------------------------------------------------------

    def find_key(self, owner: str, key: str) -> str | None:
        """The id of the job that `owner` submitted with `key`, None when there is none."""
        rows = self._db.rows("SELECT id FROM jobs WHERE owner = ? AND key = ?", owner, key)
        return rows[0]["id"] if rows else None

    def check_room(self, owner: str, kind: Kind, limits: Limits) -> None:
        """Raises Busy when too many jobs of this kind wait, or too many of this owner's are not finished; animations
        and all else, which is quickly done, do not wait for each other."""
        alike, animates = "(kind = 'animate') = ?", kind == "animate"
        unfinished = f"SELECT count(*) AS n FROM jobs WHERE {_UNFINISHED} AND owner = ? AND {alike}"
        if (own := self._db.rows(unfinished, owner, animates)[0]["n"]) >= limits.own:
            raise Busy(
                f"{own} of your jobs are not finished yet, which is the most at a time; wait for one, or stop one."
            )
        waiting = self._db.rows(f"SELECT count(*) AS n FROM jobs WHERE {_WAITING} AND {alike}", animates)[0]["n"]
        if waiting >= limits.waiting:
            jobs = "1 job is" if waiting == 1 else f"{waiting} jobs are"
            seconds = self.pace()
            minutes = math.ceil(waiting * seconds / limits.workers / 60) if seconds and animates else 0
            when = (
                "in a few minutes"
                if not minutes
                else "in about a minute"
                if minutes == 1
                else f"in about {minutes} minutes"
            )
            raise Busy(f"The queue is full ({jobs} waiting); please try again {when}.")

    def num_waiting(self) -> int:
        """How many animations wait for a device."""
        return self._db.rows(f"SELECT count(*) AS n FROM jobs WHERE {_WAITING} AND kind = 'animate'")[0]["n"]

    def pace(self) -> float | None:
        """Seconds that an animation takes on the device, the mean of the last 20; None before there was one."""
        last = (
            "SELECT finished - claimed AS seconds FROM jobs WHERE state = 'done' AND kind = 'animate' AND claimed > 0"
        )
        return self._db.rows(f"SELECT avg(seconds) AS mean FROM ({last} ORDER BY finished DESC LIMIT 20)")[0]["mean"]

    def add(
        self, job_id: str, owner: str, request: str, limits: Limits, key: str | None = None, kind: Kind = "animate"
    ) -> str:
        """Queues a job in the light queue and returns its id, or the id of the job that has the same owner and key
        already.

        Raises Busy as `check_room`.
        """
        with self._db.transaction():
            known = self.find_key(owner, key) if key is not None else None
            if known is not None:
                return known
            self.check_room(owner, kind, limits)
            self._db.rows(
                "INSERT INTO jobs (id, owner, key, kind, queue, state, request, created) VALUES (?, ?, ?, ?, "
                "'light', 'queued', ?, now())",
                job_id,
                owner,
                key,
                kind,
                request,
            )
            # A newcomer stands behind those who came before, or who was served once would wait for all who never were.
            last = "(SELECT coalesce(max(turn), 0) + 1 FROM turns)"
            for queue in QUEUES:
                self._db.rows(f"INSERT INTO turns VALUES (?, ?, {last}) ON CONFLICT DO NOTHING", owner, queue)
            return job_id

    def get(self, owner: str, job_id: str) -> Job:
        """The job; UnknownJob, with one text, when there is none or it is another owner's."""
        rows = self._db.read(f"SELECT *, {_PLACE} FROM jobs WHERE id = ? AND owner = ? AND NOT unwanted", job_id, owner)
        if not rows:
            raise UnknownJob(NO_SUCH_JOB)
        return _job(rows[0])

    def jobs_of(self, owner: str) -> list[Job]:
        """All jobs of `owner`, newest first."""
        own = f"SELECT *, {_PLACE} FROM jobs WHERE owner = ? AND NOT unwanted ORDER BY number DESC"
        return [_job(row) for row in self._db.read(own, owner)]

    def pulse(self, owner: str, job_id: str) -> tuple[int, int]:
        """(revision, place): differs from the last one exactly when `get` would tell something new. Cheap. Raises
        UnknownJob."""
        rows = self._db.read(
            f"SELECT revision, {_PLACE} FROM jobs WHERE id = ? AND owner = ? AND NOT unwanted", job_id, owner
        )
        if not rows:
            raise UnknownJob(NO_SUCH_JOB)
        return rows[0]["revision"], rows[0]["place"]

    def cancel(self, owner: str, job_id: str) -> None:
        """Ends a job that nobody works on; asks the worker of a running one to stop. Final states stay. Raises
        UnknownJob."""
        changed = self._db.rows(
            "UPDATE jobs SET state = CASE WHEN state = 'running' THEN 'cancelling' ELSE 'cancelled' END, cancel_asked "
            "= now(), error = NULL, finished = CASE WHEN state = 'running' THEN NULL ELSE now() END, revision = "
            f"revision + 1 WHERE id = ? AND owner = ? AND {_UNFINISHED} RETURNING id",
            job_id,
            owner,
        )
        if not changed:
            self.get(owner, job_id)

    def rename(self, owner: str, job_id: str, name: str) -> None:
        """Gives the job a name of its owner's. Raises UnknownJob."""
        named = (
            "UPDATE jobs SET name = ?, revision = revision + 1 WHERE id = ? AND owner = ? AND NOT unwanted RETURNING 1"
        )
        if not self._db.rows(named, name, job_id, owner):
            raise UnknownJob(NO_SUCH_JOB)

    def disown(self, owner: str, job_id: str) -> None:
        """Nobody sees the job from now on; it is stopped, and `unwanted` when it has ended. Raises UnknownJob."""
        self.cancel(owner, job_id)
        unwanted = (
            "UPDATE jobs SET unwanted = 1, key = NULL, revision = revision + 1 WHERE id = ? AND owner = ? RETURNING 1"
        )
        self._db.rows(unwanted, job_id, owner)

    # ---- for the supervisor ----------------------------------------------------------------------------------------

    def holders(self) -> set[str]:
        """The names of all workers that hold a claim."""
        return {row["worker"] for row in self._db.rows(f"SELECT worker FROM jobs WHERE {_ACTIVE}")}

    def recover(self, dead: Iterable[str] = ()) -> list[str]:
        """Takes back the claims of the workers named `dead` and all whose lease ran out; returns their workers' names.

        Such a job becomes interrupted (claimable again), cancelled when that was asked for, or failed when its last
        MAX_ATTEMPTS attempts brought no new step.
        """
        lost = f"{_ACTIVE} AND (lease_until < now() OR worker IN (SELECT value FROM json_each(?)))"
        names = json.dumps(sorted(dead))
        if not self._db.rows(f"SELECT 1 FROM jobs WHERE {lost} LIMIT 1", names):  # idle: take no write lock
            return []
        given_up = f"(state = 'running' AND attempts >= {MAX_ATTEMPTS})"
        rows = self._db.rows(
            "UPDATE jobs SET revision = revision + 1, state = CASE WHEN state = 'cancelling' THEN 'cancelled' WHEN "
            f"{given_up} THEN 'failed' ELSE 'interrupted' END, error = CASE WHEN {given_up} THEN ? ELSE error END, "
            f"code = CASE WHEN {given_up} THEN 'crash_loop' ELSE code END, finished = CASE WHEN state = 'cancelling' "
            f"OR {given_up} THEN now() END WHERE {lost} RETURNING worker",
            GIVEN_UP,
            names,
        )
        return [row["worker"] for row in rows]

    def cancelling(self) -> dict[str, float]:
        """Worker name -> seconds since it was asked to stop its job."""
        rows = self._db.rows("SELECT worker, now() - cancel_asked AS seconds FROM jobs WHERE state = 'cancelling'")
        return {row["worker"]: row["seconds"] for row in rows}

    # ---- for the cleanup -------------------------------------------------------------------------------------------

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        return {row["id"] for row in self._db.rows("SELECT id FROM jobs")}

    def ended(self, kind: Kind | None = None, before: float = math.inf) -> list[str]:
        """The ids of jobs in a final state, the one that ended first first. kind: of this kind only. before: ended
        before that time."""
        found = "SELECT id FROM jobs WHERE finished < ? AND kind = coalesce(?, kind) ORDER BY finished, number"
        return [row["id"] for row in self._db.rows(found, before, kind)]

    def unwanted(self) -> list[str]:
        """The ids of jobs in a final state that their owners have deleted."""
        return [row["id"] for row in self._db.rows("SELECT id FROM jobs WHERE unwanted AND finished IS NOT NULL")]

    def forget(self, job_id: str) -> bool:
        """Removes a job in a final state; false where there is none, or it is not final."""
        return bool(self._db.rows("DELETE FROM jobs WHERE id = ? AND finished IS NOT NULL RETURNING 1", job_id))

    def forget_turns(self) -> None:
        """Removes what is known of owners who have no jobs."""
        if self._db.rows("SELECT 1 FROM turns WHERE owner NOT IN (SELECT owner FROM jobs) LIMIT 1"):
            self._db.rows("DELETE FROM turns WHERE owner NOT IN (SELECT owner FROM jobs)")

    def unkept(self) -> list[dict]:
        """Done animations whose results the bucket does not have yet, as `restore` takes them."""
        rows = self._db.rows(
            f"SELECT {', '.join(_KEPT)} FROM jobs WHERE state = 'done' AND kind = 'animate' AND NOT kept AND NOT "
            "unwanted"
        )
        return [dict(row) for row in rows]

    def mark_kept(self, job_id: str) -> None:
        """The bucket has this job's result."""
        self._db.rows("UPDATE jobs SET kept = 1 WHERE id = ? RETURNING 1", job_id)

    def restore(self, job: dict) -> None:
        """Adds a done job that `unkept` told of, unless it is known. Raises ValueError where something else is
        given."""
        if job.keys() != set(_KEPT) or not all(
            isinstance(value, (str, float, int, type(None))) for value in job.values()
        ):
            raise ValueError("not a job")
        if not isinstance(job["finished"], (int, float)) or not all(
            isinstance(one, str) for one in json.loads(job["notices"])
        ):
            raise ValueError("not a finished job")
        _pairs(job["losses"])
        names, marks = ", ".join(_KEPT), ", ".join("?" * len(_KEPT))
        self._db.rows(
            f"INSERT INTO jobs ({names}, queue, state, kind, kept) VALUES ({marks}, 'device', 'done', 'animate', 1) "
            "ON CONFLICT DO NOTHING RETURNING 1",
            *(job[name] for name in _KEPT),
        )

    # ---- for workers -----------------------------------------------------------------------------------------------

    def claim(self, queue: Queue, worker: str, max_active: int = 1000) -> Claim | None:
        """The next job of `queue` that nobody works on, now claimed by `worker`; None when there is none.

        What was interrupted goes on first. Then owners take turns; one with `max_active` jobs at work in this queue
        waits.
        """
        busy = (
            f"SELECT owner FROM jobs WHERE queue = '{queue}' AND {_ACTIVE} GROUP BY owner HAVING count(*) >= "
            f"{int(max_active)}"
        )
        those = f"jobs.queue = '{queue}' AND jobs.owner NOT IN ({busy}) AND jobs.state ="
        begun = f"SELECT number FROM jobs WHERE {those} 'interrupted' AND not_before <= now() ORDER BY number LIMIT 1"
        queued = _queue(f"{those} 'queued'", queue) + " ORDER BY place LIMIT 1"
        if not self._db.read(begun) and not self._db.read(queued):  # idle polls take no write lock
            return None
        with self._db.transaction():
            found = self._db.rows(begun) or self._db.rows(queued)
            if not found:
                return None
            row = self._db.rows(
                "UPDATE jobs SET state = 'running', fence = fence + 1, worker = ?, lease_until = now() + ?, attempts "
                "= attempts + 1, claimed = now(), error = NULL, revision = revision + 1 WHERE number = ? RETURNING "
                "id, owner, queue, fence, request, losses",
                worker,
                self.lease_s,
                found[0]["number"],
            )[0]
            self._db.rows(
                "INSERT INTO turns (owner, queue, turn) VALUES (?, ?, (SELECT coalesce(max(turn), 0) + 1 FROM turns)) "
                "ON CONFLICT (owner, queue) DO UPDATE SET turn = excluded.turn",
                row["owner"],
                queue,
            )
        return Claim(row["id"], row["owner"], row["queue"], row["fence"], row["request"], _pairs(row["losses"]))

    def renew(self, claim: Claim) -> None:
        """The heartbeat: prolongs the lease. Raises LostClaim."""
        self._write(claim, "lease_until = now() + ?", self.lease_s, visible=False)

    def record(self, claim: Claim, progress: Progress, losses: Losses) -> None:
        """Stores progress and the loss curve. A step never reached before clears the count of fruitless attempts.
        Raises LostClaim."""
        with self._db.transaction():
            row = self._held(claim)
            reached = json.loads(row["reached"])
            new = progress.step > reached.get(progress.stage, 0)
            if new:
                reached[progress.stage] = progress.step
            self._write(
                claim,
                "progress = ?, losses = ?, reached = ?, attempts = attempts * ?, pauses = pauses * ?, lease_until = "
                "now() + ?",
                json.dumps(asdict(progress)),
                json.dumps(losses),
                json.dumps(reached),
                not new,
                not new,
                self.lease_s,
            )

    def cancel_asked(self, claim: Claim) -> bool:
        """Whether the job should stop because its owner said so. Raises LostClaim when it is no longer ours. Cheap."""
        return self._held(claim)["state"] == "cancelling"

    def advance(self, claim: Claim, queue: Queue, notices: tuple[str, ...] = ()) -> None:
        """This queue's part is done: queues the job in the next queue. Raises LostClaim."""
        self._write(
            claim,
            _UNLESS_CANCELLING.format("queued")
            + f", {_IF_CANCELLED}, queue = ?, notices = ?, attempts = 0, reached = '{{}}', progress = NULL",
            queue,
            json.dumps(notices),
        )

    def finish(self, claim: Claim, notices: tuple[str, ...] = ()) -> None:
        """The job is done. Raises LostClaim."""
        with self._db.transaction():
            notices = (*json.loads(self._held(claim)["notices"]), *notices)
            self._write(
                claim, _UNLESS_CANCELLING.format("done") + ", finished = now(), notices = ?", json.dumps(notices)
            )

    def fail(self, claim: Claim, error: str, code: str) -> None:
        """The job has failed; `error` is one sentence for its owner, `code` a word for programs. Raises LostClaim."""
        self._write(claim, _UNLESS_CANCELLING.format("failed") + ", finished = now(), error = ?, code = ?", error, code)

    def interrupt(self, claim: Claim) -> None:
        """Gives the job back in good order, to be resumed; this attempt does not count. A cancelled job ends. Raises
        LostClaim."""
        self._write(
            claim, f"{_UNLESS_CANCELLING.format('interrupted')}, {_IF_CANCELLED}, attempts = max(attempts - 1, 0)"
        )

    def pause(self, claim: Claim, why: str, pause_s: float = PAUSE_S) -> None:
        """As `interrupt`, until `pause_s` seconds are over, twice as long each time that brought no new step;
        MAX_PAUSES of them end it.

        why: a sentence for its owner. Raises LostClaim.
        """
        over = f"(state = 'running' AND pauses >= {MAX_PAUSES})"
        self._write(
            claim,
            f"state = CASE WHEN state = 'cancelling' THEN 'cancelled' WHEN {over} THEN 'failed' ELSE 'interrupted' "
            f"END, finished = CASE WHEN state = 'cancelling' OR {over} THEN now() END, attempts = max(attempts - 1, "
            f"0), pauses = pauses + 1, error = CASE WHEN state = 'running' THEN ? END, code = CASE WHEN {over} THEN "
            "'storage' END, not_before = now() + min(? * (1 << pauses), 600)",
            why,
            pause_s,
        )

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _held(self, claim: Claim) -> sqlite3.Row:
        rows = self._db.rows(
            f"SELECT state, reached, notices FROM jobs WHERE id = ? AND fence = ? AND {_ACTIVE}", claim.id, claim.fence
        )
        if not rows:
            raise LostClaim(f"job {claim.id}: claim {claim.fence} is stale")
        return rows[0]

    def _write(self, claim: Claim, assignments: str, *values, visible: bool = True) -> None:
        rows = self._db.rows(
            f"UPDATE jobs SET {assignments}, revision = revision + ? WHERE id = ? AND fence = ? AND {_ACTIVE} "
            "RETURNING 1",
            *values,
            int(visible),
            claim.id,
            claim.fence,
        )
        if not rows:
            raise LostClaim(f"job {claim.id}: claim {claim.fence} is stale")


def _pairs(text: str) -> Losses:
    return tuple((step, loss) for step, loss in json.loads(text))


def _job(row: sqlite3.Row) -> Job:
    progress = Progress(**json.loads(row["progress"])) if row["progress"] else None
    return Job(
        id=row["id"],
        queue=row["queue"],
        state=row["state"],
        place=row["place"],
        progress=progress,
        losses=_pairs(row["losses"]),
        notices=tuple(json.loads(row["notices"])),
        error=row["error"],
        code=row["code"],
        request=row["request"],
        created=row["created"],
        name=row["name"],
    )
