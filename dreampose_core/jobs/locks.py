"""Who is alive: each worker holds an exclusive lock on a file for as long as its process exists, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from ..files import lock_file

_NAME = re.compile(r"[a-z]+-[0-9a-z]+")


class WorkerLock:
    """The lock of one worker of this process, with what it says about itself in the file.

    The kernel gives it up with the process; a process that is stopped but not dead keeps it, and loses its claim by its
    lease.
    """

    def __init__(self, folder: Path, name: str):
        """Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while (
            file := lock_file(folder / name)
        ) is None:  # `living` looks whether it is taken, or took it for a dead worker's
            time.sleep(0.01)
        self._file = file

    def close(self) -> None:
        """Gives the lock up."""
        self._file.close()

    def say(self, **about: object) -> None:
        """Replaces what stands in the file, one line of JSON. A full disk is no reason to stop."""
        with suppress(OSError):
            self._file.seek(0)
            self._file.write(json.dumps(about))
            self._file.truncate()
            self._file.flush()


def is_alive(folder: Path, name: str) -> bool:
    """Whether the worker `name` holds its lock."""
    try:
        with open(folder / name, "rb") as file:
            return not _taken(file)
    except OSError:
        return False


def living(folder: Path) -> dict[str, dict]:
    """What the living workers say about themselves, by name. Files of dead ones are removed."""
    found = {}
    try:
        names = sorted(filter(_NAME.fullmatch, os.listdir(folder)))
    except OSError:
        return {}
    for name in names:
        with suppress(OSError), open(folder / name, "rb") as file:
            if _taken(file):
                (folder / name).unlink(missing_ok=True)
                continue
            found[name] = {}
            with suppress(ValueError):
                found[name] = json.loads(file.read())
    return found


def _taken(file) -> bool:
    """Whether the lock was free; it is shared then with others who ask, until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
