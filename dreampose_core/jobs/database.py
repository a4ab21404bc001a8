"""The job store's SQLite file: its schema, one connection, SQLite errors as StorageError."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiskFull, StorageError
from ..files import FULL, locked

BUSY_S = 15.0
DISK_FULL = "The server's disk is full; what is finished is kept, and the job goes on by itself when there is room."

VERSION = 3  # of the schema
_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of submission
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    key TEXT,                                  -- idempotency key; NULLs never collide
    kind TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    name TEXT,                                 -- what its owner calls it
    fence INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_until REAL,
    not_before REAL NOT NULL DEFAULT 0,        -- no worker claims it before that time
    attempts INTEGER NOT NULL DEFAULT 0,       -- claims in a row that brought no new step
    pauses INTEGER NOT NULL DEFAULT 0,         -- how often in a row it had to wait for room on the disk
    reached TEXT NOT NULL DEFAULT '{}',        -- stage -> highest step ever reported
    progress TEXT,
    losses TEXT NOT NULL DEFAULT '[]',
    notices TEXT NOT NULL DEFAULT '[]',
    error TEXT,
    code TEXT,                                 -- why it failed, in a word
    created REAL NOT NULL,
    claimed REAL,                              -- when it was claimed last
    cancel_asked REAL,
    finished REAL,                             -- when it came to a final state
    kept INTEGER NOT NULL DEFAULT 0,           -- whether the bucket has its result
    unwanted INTEGER NOT NULL DEFAULT 0,       -- its owner has deleted it: it is hidden, and removed once it has ended
    UNIQUE (owner, key)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, queue, number);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX jobs_by_end ON jobs (finished) WHERE finished IS NOT NULL;
-- when an owner was served last: the one served longest ago is next
CREATE TABLE turns (
    owner TEXT NOT NULL,
    queue TEXT NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (owner, queue)
) STRICT;
"""


class Database:
    """The SQLite file at `path`, made if there is none; threads and processes may share it.

    clock: seconds since 1970; the SQL function now() returns it.
    All methods raise StorageError when the file cannot be read or written, or another version of the program wrote it.
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
                if not self._version():
                    self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        if (version := self._version()) != VERSION:
            raise StorageError(
                f"The jobs in {path} were written by another version of this program (schema {version}, this one "
                f"reads {VERSION}); use that version or choose another DREAMPOSE_HOME."
            )

    def _version(self) -> int:
        return self._db.execute("PRAGMA user_version").fetchone()[0]

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
        with self._guarded(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

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
    full = isinstance(error, OSError) and error.errno in FULL
    full = full or (isinstance(error, sqlite3.Error) and "disk is full" in str(error))
    return DiskFull(DISK_FULL) if full else None
