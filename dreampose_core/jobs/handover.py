"""What one start of the program leaves to the next one in the same process: the listening socket and the workers."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .records import Lane

_VARIABLE = "DREAMPOSE_TAKEN_OVER"


@dataclass(frozen=True)
class Running:
    """A worker at work. gpu: the one that is its alone."""

    lane: Lane
    gpu: str | None
    name: str
    pid: int


@dataclass(frozen=True)
class TakenOver:
    """What the start before left; the workers in the order of their places, None where there was none."""

    listener: socket.socket
    running: tuple[Running | None, ...]


def taken_over() -> TakenOver | None:
    """What the start before left; None in the first one of this process. May be asked once."""
    left = json.loads(os.environ.pop(_VARIABLE, "null"))
    if left is None or left["pid"] != os.getpid():
        return None
    listener = socket.socket(fileno=left["listener"])
    listener.set_inheritable(False)
    return TakenOver(listener, tuple(one and Running(**one) for one in left["running"]))


def begin_anew(listener: socket.socket, running: Sequence[Running | None]) -> None:
    """Starts the program from its beginning in this process, with the same arguments; does not return. Raises OSError.

    Who connects meanwhile waits at the listener. The workers stay children of this process, and go on.
    """
    left = {"pid": os.getpid(), "listener": listener.fileno(), "running": [one and asdict(one) for one in running]}
    listener.set_inheritable(True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _VARIABLE: json.dumps(left)})
