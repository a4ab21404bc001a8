"""What owners are told of jobs that cannot go on, and which errors mean that the disk is full."""

from __future__ import annotations

import errno
import sqlite3

from ..errors import DiskFull, StorageError

MAX_ATTEMPTS = 3
DISK_FULL = "The server's disk is full; what is finished is kept, and the job goes on by itself when there is room."
CLUSTER_AWAY = (
    "The computers that make videos cannot be reached just now; the job goes on by itself when they are back."
)
GIVEN_UP = (
    f"This job stopped its worker {MAX_ATTEMPTS} times without getting further, so it was given up; "
    "please try fewer frames, another photo or another motion."
)
NO_SUCH_JOB = "There is no such job, or it belongs to somebody else."


def storage_error(error: BaseException) -> StorageError | None:
    """The StorageError to show for `error` when it means a full or unwritable disk, else None."""
    if isinstance(error, StorageError):
        return error
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    full = full or (isinstance(error, sqlite3.Error) and "disk is full" in str(error))
    return DiskFull(DISK_FULL) if full else None
