"""The job store: one SQLite file that stays the truth about every job, whichever process dies.

A worker owns a job by a *claim*: its number (the fence) rises with each claim, and every later write carries it and is
refused when it is stale, so a worker that was frozen and wakes up can spoil nothing. A claim holds for a lease, which
heartbeats renew; a claim whose lease ran out, or whose worker is known to be dead, is taken back by `recover()`.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ..errors import InputError, LostClaim, StorageError, UnknownJob
from ..progress import Progress
from .records import Claim, Job, Kind, Lane, Losses

SCHEMA_VERSION = 1
LEASE_S = 20.0
MAX_ATTEMPTS = 3
BUSY_S = 15.0
DISK_FULL = "The server's disk is full; what was finished before is kept. Please tell the operator, and try again when there is room."
GIVEN_UP = (
    f"This job stopped its worker {MAX_ATTEMPTS} times without getting further, so it was given up; "
    "please try fewer frames, another photo or another motion."
)
NO_SUCH_JOB = "There is no such job, or it belongs to somebody else."

_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of submission, which is the order of the queue
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    key TEXT,                                  -- idempotency key; NULLs never collide
    lane TEXT NOT NULL CHECK (lane IN ('light', 'device')),
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'cancelling', 'interrupted', 'done', 'failed', 'cancelled')),
    request TEXT NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_until REAL,
    attempts INTEGER NOT NULL DEFAULT 0,       -- claims in a row that brought no new step
    reached TEXT NOT NULL DEFAULT '{}',        -- stage -> highest step ever reported
    progress TEXT,
    losses TEXT NOT NULL DEFAULT '[]',
    notices TEXT NOT NULL DEFAULT '[]',
    error TEXT,
    revision INTEGER NOT NULL DEFAULT 0,       -- rises with each change a watcher can see
    created REAL NOT NULL,
    cancel_asked REAL,
    UNIQUE (owner, key)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, lane, number);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
PRAGMA user_version = 1;
"""


def _waiting(table: str) -> str:
    # SQL: has not begun on the device. An interrupted job has begun; it goes on first because it was submitted first.
    return f"({table}.state = 'queued' OR ({table}.lane = 'light' AND {table}.state IN ('running', 'interrupted')))"


def _of_kind(table: str, kind: str) -> str:
    # SQL. The kind is the first field of the JSON that the service writes, so nothing a user writes can stand there.
    return f"({table}.request {'' if kind == 'preview' else 'NOT '}LIKE '{{\"kind\":\"preview\"%')"


_UNFINISHED = "state IN ('queued', 'running', 'interrupted')"  # says the index where to look
_PLACE = (
    f"CASE WHEN {_waiting('jobs')} THEN (SELECT count(*) FROM jobs AS ahead WHERE ahead.{_UNFINISHED} "
    f"AND ahead.number <= jobs.number AND {_waiting('ahead')} AND {_of_kind('ahead', 'animate')}) ELSE 0 END AS place"
)
_ACTIVE = "state IN ('running', 'cancelling')"
# A cancel that was accepted is kept, whatever the worker says in the meantime.
_UNLESS_CANCELLING = "state = CASE WHEN state = 'cancelling' THEN 'cancelled' ELSE '{}' END"


def storage_error(error: BaseException) -> StorageError | None:
    """The StorageError to show for `error` when it means a full or unwritable disk, else None."""
    if isinstance(error, StorageError):
        return error
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    full = full or (isinstance(error, sqlite3.Error) and "disk is full" in str(error))
    return StorageError(DISK_FULL) if full else None


class Store:
    """The jobs in the SQLite file at `path`, shared by threads and processes.

    lease_s: seconds for which a claim holds without a heartbeat. clock: seconds since 1970, as `time.time`.
    All methods raise StorageError when the file cannot be read or written.
    """

    def __init__(self, path: Path, lease_s: float = LEASE_S, clock: Callable[[], float] = time.time):
        self.path, self.lease_s, self.clock = Path(path), lease_s, clock
        self._lock = threading.RLock()
        with self._guarded():
            # One connection for all threads, under our lock; autocommit, so that transactions are the ones written below.
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            for pragma in ("synchronous = FULL", "foreign_keys = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            self._prepare()

    def _prepare(self) -> None:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:  # two processes make a new file: for this one step SQLite does not wait by itself
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            with self._transaction():  # another process may have been faster
                if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in filter(str.strip, _SCHEMA.split(";\n")):
                        self._db.execute(statement)
        elif version != SCHEMA_VERSION:
            raise StorageError(
                f"The jobs in {self.path} were written by another version of this program (schema {version}, this one reads "
                f"{SCHEMA_VERSION}); update the program or choose another DREAMPOSE_HOME."
            )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ---- for the service -------------------------------------------------------------------------------------------

    def find_key(self, owner: str, key: str) -> str | None:
        """The id of the job that `owner` submitted with `key`, None when there is none."""
        rows = self._rows("SELECT id FROM jobs WHERE owner = ? AND key = ?", owner, key)
        return rows[0]["id"] if rows else None

    def check_room(self, max_waiting: int, kind: Kind = "animate") -> None:
        """Raises InputError when `max_waiting` jobs of this kind wait already; previews and animations do not wait for each other."""
        those = f"{_UNFINISHED} AND {_waiting('jobs')} AND {_of_kind('jobs', kind)}"
        waiting = self._rows(f"SELECT count(*) AS n FROM jobs WHERE {those}")[0]["n"]
        if waiting >= max_waiting:
            jobs = "1 job is" if waiting == 1 else f"{waiting} jobs are"
            raise InputError(f"The queue is full ({jobs} waiting); please try again in a few minutes.")

    def add(self, job_id: str, owner: str, request: str, max_waiting: int, key: str | None = None, kind: Kind = "animate") -> str:
        """Queues a job in the light lane and returns its id, or the id of the job that has the same owner and key already.

        kind: as it stands in the request. Raises InputError when `max_waiting` jobs of that kind wait already.
        """
        with self._transaction():
            known = self.find_key(owner, key) if key is not None else None
            if known is not None:
                return known
            self.check_room(max_waiting, kind)
            self._db.execute(
                "INSERT INTO jobs (id, owner, key, lane, state, request, created) VALUES (?, ?, ?, 'light', 'queued', ?, ?)",
                (job_id, owner, key, request, self.clock()),
            )
            return job_id

    def get(self, owner: str, job_id: str) -> Job:
        """The job; UnknownJob, with one text, when there is none or it is another owner's."""
        rows = self._rows(f"SELECT *, {_PLACE} FROM jobs WHERE id = ? AND owner = ?", job_id, owner)
        if not rows:
            raise UnknownJob(NO_SUCH_JOB)
        return _job(rows[0])

    def jobs_of(self, owner: str) -> list[Job]:
        """All jobs of `owner`, newest first."""
        return [_job(row) for row in self._rows(f"SELECT *, {_PLACE} FROM jobs WHERE owner = ? ORDER BY number DESC", owner)]

    def pulse(self, job_id: str) -> tuple[int, int]:
        """(revision, place): differs from the last one exactly when `get` would tell something new. Cheap."""
        rows = self._rows(f"SELECT revision, {_PLACE} FROM jobs WHERE id = ?", job_id)
        if not rows:
            raise UnknownJob(NO_SUCH_JOB)
        return rows[0]["revision"], rows[0]["place"]

    def cancel(self, owner: str, job_id: str) -> None:
        """Ends a job that nobody works on; asks the worker of a running one to stop. Final states stay. Raises UnknownJob."""
        changed = self._rows(
            "UPDATE jobs SET state = CASE WHEN state = 'running' THEN 'cancelling' ELSE 'cancelled' END, cancel_asked = ?, "
            "revision = revision + 1 WHERE id = ? AND owner = ? AND state IN ('queued', 'interrupted', 'running') RETURNING id",
            self.clock(), job_id, owner,
        )
        if not changed:
            self.get(owner, job_id)

    # ---- for the supervisor ----------------------------------------------------------------------------------------

    def recover(self, dead: str | None = None) -> list[str]:
        """Takes back the claims of the worker named `dead` and all whose lease ran out; returns their workers' names.

        Such a job becomes interrupted (claimable again), cancelled when that was asked for, or failed when its last
        MAX_ATTEMPTS attempts brought no new step.
        """
        lost = f"{_ACTIVE} AND (lease_until < ? OR worker = ?)"
        if not self._rows(f"SELECT 1 FROM jobs WHERE {lost} LIMIT 1", self.clock(), dead):  # idle: take no write lock
            return []
        rows = self._rows(
            "UPDATE jobs SET "
            "state = CASE WHEN state = 'cancelling' THEN 'cancelled' WHEN attempts >= ? THEN 'failed' ELSE 'interrupted' END, "
            "error = CASE WHEN state = 'running' AND attempts >= ? THEN ? ELSE error END, revision = revision + 1 "
            f"WHERE {lost} RETURNING worker",
            MAX_ATTEMPTS, MAX_ATTEMPTS, GIVEN_UP, self.clock(), dead,
        )
        return [row["worker"] for row in rows]

    def cancelling(self) -> dict[str, float]:
        """Worker name -> seconds since it was asked to stop its job."""
        rows = self._rows("SELECT worker, cancel_asked FROM jobs WHERE state = 'cancelling'")
        return {row["worker"]: self.clock() - row["cancel_asked"] for row in rows}

    # ---- for workers -----------------------------------------------------------------------------------------------

    def claim(self, lane: Lane, worker: str) -> Claim | None:
        """The oldest job of `lane` that nobody works on, now claimed by `worker`; None when there is none."""
        oldest = "SELECT number FROM jobs WHERE lane = ? AND state IN ('queued', 'interrupted') ORDER BY number LIMIT 1"
        if not self._rows(oldest, lane):  # idle polls take no write lock
            return None
        rows = self._rows(
            "UPDATE jobs SET state = 'running', fence = fence + 1, worker = ?, lease_until = ?, attempts = attempts + 1, "
            f"revision = revision + 1 WHERE number = ({oldest}) RETURNING id, lane, fence, request, losses",
            worker, self.clock() + self.lease_s, lane,
        )
        if not rows:
            return None
        row = rows[0]
        return Claim(row["id"], row["lane"], row["fence"], row["request"], _pairs(row["losses"]))

    def renew(self, claim: Claim) -> None:
        """The heartbeat: prolongs the lease. Raises LostClaim."""
        self._write(claim, "lease_until = ?", self.clock() + self.lease_s, visible=False)

    def record(self, claim: Claim, progress: Progress, losses: Losses) -> None:
        """Stores progress and the loss curve. A step never reached before clears the count of fruitless attempts. Raises LostClaim."""
        with self._transaction():
            row = self._held(claim)
            reached = json.loads(row["reached"])
            new = progress.step > reached.get(progress.stage, 0)
            if new:
                reached[progress.stage] = progress.step
            self._write(
                claim, "progress = ?, losses = ?, reached = ?, attempts = ?, lease_until = ?",
                json.dumps(asdict(progress)), json.dumps(losses), json.dumps(reached),
                0 if new else row["attempts"], self.clock() + self.lease_s,
            )

    def cancel_asked(self, claim: Claim) -> bool:
        """Whether the job should stop because its owner said so. Raises LostClaim when it is no longer ours. Cheap."""
        return self._held(claim)["state"] == "cancelling"

    def advance(self, claim: Claim, lane: Lane, notices: tuple[str, ...] = ()) -> None:
        """This lane's part is done: queues the job in the next lane. Raises LostClaim."""
        self._write(
            claim, _UNLESS_CANCELLING.format("queued") + ", lane = ?, notices = ?, attempts = 0, reached = '{}', progress = NULL",
            lane, json.dumps(notices),
        )

    def finish(self, claim: Claim, notices: tuple[str, ...] = ()) -> None:
        """The job is done. Raises LostClaim."""
        with self._transaction():
            notices = (*json.loads(self._held(claim)["notices"]), *notices)
            self._write(claim, _UNLESS_CANCELLING.format("done") + ", notices = ?", json.dumps(notices))

    def fail(self, claim: Claim, error: str) -> None:
        """The job has failed; `error` is one sentence for its owner. Raises LostClaim."""
        self._write(claim, _UNLESS_CANCELLING.format("failed") + ", error = ?", error)

    def interrupt(self, claim: Claim) -> None:
        """Gives the job back in good order, to be resumed; this attempt does not count. A cancelled job ends. Raises LostClaim."""
        self._write(claim, _UNLESS_CANCELLING.format("interrupted") + ", attempts = max(attempts - 1, 0)")

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _held(self, claim: Claim) -> sqlite3.Row:
        rows = self._rows(
            f"SELECT state, attempts, reached, notices FROM jobs WHERE id = ? AND fence = ? AND {_ACTIVE}", claim.id, claim.fence
        )
        if not rows:
            raise LostClaim(f"job {claim.id}: claim {claim.fence} is stale")
        return rows[0]

    def _write(self, claim: Claim, assignments: str, *values, visible: bool = True) -> None:
        rows = self._rows(
            f"UPDATE jobs SET {assignments}, revision = revision + ? WHERE id = ? AND fence = ? AND {_ACTIVE} RETURNING 1",
            *values, int(visible), claim.id, claim.fence,
        )
        if not rows:
            raise LostClaim(f"job {claim.id}: claim {claim.fence} is stale")

    def _rows(self, sql: str, *values) -> list[sqlite3.Row]:
        with self._guarded():
            return self._db.execute(sql, values).fetchall()  # fetched to the end: only then is a RETURNING statement committed

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise storage_error(error) or StorageError(f"The job store {self.path} cannot be used: {error}.") from error


def _pairs(text: str) -> Losses:
    return tuple((step, loss) for step, loss in json.loads(text))


def _job(row: sqlite3.Row) -> Job:
    progress = Progress(**json.loads(row["progress"])) if row["progress"] else None
    return Job(
        id=row["id"], lane=row["lane"], state=row["state"], place=row["place"], progress=progress,
        losses=_pairs(row["losses"]), notices=tuple(json.loads(row["notices"])), error=row["error"],
        request=row["request"], created=row["created"],
    )
