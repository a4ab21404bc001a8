"""The tables of the job store, step by step: a new file takes all steps, one of an older version those that it
lacks."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from ..errors import StorageError

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
    revision INTEGER NOT NULL DEFAULT 0,       -- rises with each change a watcher can see
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
-- nobody claims it before that time
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
-- its owner has deleted it: nobody sees it, and it goes as soon as it has ended
ALTER TABLE jobs ADD COLUMN unwanted INTEGER NOT NULL DEFAULT 0;
"""
_STEPS = (_FIRST, _SECOND, _THIRD)
SCHEMA_VERSION = len(_STEPS)


def prepare(db: sqlite3.Connection, path: Path, patience_s: float) -> None:
    """Brings the file that `db` has open to SCHEMA_VERSION, in one transaction; processes that do so at the same time
    wait for each other.

    Raises StorageError where a newer version of the program wrote it.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except (
            sqlite3.OperationalError
        ):  # two processes make a new file: for this one step SQLite does not wait by itself
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    if _version(db) < SCHEMA_VERSION:
        db.execute("BEGIN IMMEDIATE")
        try:
            for number, step in enumerate(
                _STEPS[_version(db) :], start=_version(db) + 1
            ):  # asked again: another may have been faster
                for statement in filter(str.strip, step.split(";\n")):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    if _version(db) > SCHEMA_VERSION:
        raise StorageError(
            f"The jobs in {path} were written by a newer version of this program (schema {_version(db)}, this one "
            f"reads {SCHEMA_VERSION}); update the program or choose another DREAMPOSE_HOME."
        )


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]
