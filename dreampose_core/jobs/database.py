"""The job store's SQLite file: schema and migrations, one connection, SQLite errors as StorageError."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiskFull, StorageError
from ..files import locked

BUSY_S = 15.0
DISK_FULL = "The server's disk is full; what is finished is kept, and the job goes on by itself when there is room."

# Schema steps: a new file gets all of them, a file of an older version those that it lacks.
_FIRST = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of submission
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    key TEXT,                                  -- idempotency key; NULLs never collide
    queue TEXT NOT NULL CHECK (queue IN ('light', 'device')),
    state TEXT NOT NULL CHECK (
        state IN ('queued', 'running', 'cancelling', 'interrupted', 'done', 'failed', 'cancelled')
    ),
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
    created REAL NOT NULL,
    cancel_asked REAL,
    UNIQUE (owner, key)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, queue, number);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
"""
_SECOND = """
ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'animate';
-- why it failed, in a word
ALTER TABLE jobs ADD COLUMN code TEXT;
-- no worker claims it before that time
ALTER TABLE jobs ADD COLUMN not_before REAL NOT NULL DEFAULT 0;
-- how often in a row it had to wait for room on the disk
ALTER TABLE jobs ADD COLUMN pauses INTEGER NOT NULL DEFAULT 0;
-- when it was claimed last, and when it came to a final state
ALTER TABLE jobs ADD COLUMN claimed REAL;
ALTER TABLE jobs ADD COLUMN finished REAL;
-- whether the bucket has its result
ALTER TABLE jobs ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET kind = coalesce(json_extract(request, '$.kind'), 'animate');
UPDATE jobs SET finished = created WHERE state IN ('done', 'failed', 'cancelled');
CREATE INDEX jobs_by_end ON jobs (finished) WHERE finished IS NOT NULL;
-- when an owner was served last: the one served longest ago is next
CREATE TABLE turns (
    owner TEXT NOT NULL,
    queue TEXT NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (owner, queue)
) STRICT;
"""
_THIRD = """
-- what its owner calls it
ALTER TABLE jobs ADD COLUMN name TEXT;
-- its owner has deleted it: it is hidden, and removed as soon as it has ended
ALTER TABLE jobs ADD COLUMN unwanted INTEGER NOT NULL DEFAULT 0;
"""
_STEPS = (_FIRST, _SECOND, _THIRD)


class Database:
    """The SQLite file at `path`, migrated to the newest schema; threads and processes may share it.

    clock: seconds since 1970; the SQL function now() returns it.
    All methods raise StorageError when the file cannot be read or written, or a newer version of the program wrote it.
    """

    def __init__(self, path: Path, clock: Callable[[], float]):
        self.path = Path(path)
        self._lock = threading.RLock()
        with self._guarded():
            # One connection for all threads. Autocommit (isolation_level=None): only `transaction` begins transactions.
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.create_function("now", 0, clock)
            self._db.execute("PRAGMA synchronous = FULL")
            with locked(self.path.with_suffix(".lock")):  # two processes may create the file at once
                self._db.execute("PRAGMA journal_mode = WAL")
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
                for number, step in enumerate(_STEPS[version:], start=version + 1):
                    self._db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
        if version > len(_STEPS):
            raise StorageError(
                f"The jobs in {path} were written by a newer version of this program (schema {version}, this one "
                f"reads {len(_STEPS)}); update the program or choose another DREAMPOSE_HOME."
            )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def rows(self, sql: str, *values) -> list[sqlite3.Row]:
        """Run one statement, in the current transaction if there is one, and return its rows."""
        with self._guarded():
            # SQLite commits a RETURNING statement only when all its rows are fetched.
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that the block writes, or roll it back if the block raises."""
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
                raise storage_error(error) or StorageError(
                    f"The job store {self.path} cannot be used: {error}."
                ) from error


def storage_error(error: BaseException) -> StorageError | None:
    """Return the StorageError to show for `error` if it means a full or unwritable disk, else None."""
    if isinstance(error, StorageError):
        return error
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    full = full or (isinstance(error, sqlite3.Error) and "disk is full" in str(error))
    return DiskFull(DISK_FULL) if full else None
