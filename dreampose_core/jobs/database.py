"""The store's SQLite file: one connection for what is written, others for what is only read, errors as sentences."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StorageError
from .messages import storage_error
from .schema import prepare

BUSY_S = 15.0
MOST_READERS = 4  # connections kept for the next who read; each holds up to 2 MB of the file


class Database:
    """The file at `path`, in the newest schema; threads and processes may share it. Its SQL function now() is `clock`.

    All methods raise StorageError when the file cannot be read or written.
    """

    def __init__(self, path: Path, clock: Callable[[], float]):
        self.path, self._clock = Path(path), clock
        self._lock = threading.RLock()
        with self._guarded():
            # One connection for all threads that write, under our lock; autocommit, so that transactions are the ones
            # asked for.
            self._db = self._opened()
            prepare(self._db, self.path, BUSY_S)
        # What is only read does not wait until something is written and flushed: connections of its own, one a thread
        # at a time.
        self._readers: list[sqlite3.Connection] = []
        self._closed = False

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.create_function("now", 0, self._clock)
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        return db

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for db in (self._db, *self._readers):
                db.close()
            self._readers.clear()

    def rows(self, sql: str, *values) -> list[sqlite3.Row]:
        """Runs one statement, in the transaction if there is one, and returns its rows."""
        with self._guarded():
            return self._db.execute(
                sql, values
            ).fetchall()  # fetched to the end: only then is a RETURNING statement committed

    def read(self, sql: str, *values) -> list[sqlite3.Row]:
        """As `rows`, for what is only read outside of transactions."""
        with self._errors():
            try:
                db = self._readers.pop()
            except IndexError:
                db = self._db if self._closed else self._opened()
            try:
                return db.execute(sql, values).fetchall()
            finally:
                if self._closed or len(self._readers) >= MOST_READERS:
                    db.close()
                else:
                    self._readers.append(db)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is written as a whole, or not at all where the block raises."""
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
        with self._lock, self._errors():
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise storage_error(error) or StorageError(f"The job store {self.path} cannot be used: {error}.") from error
