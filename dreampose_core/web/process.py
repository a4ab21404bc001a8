"""The web process: it serves the application, and says when it had better begin anew, since visitors who are gone left it larger."""

from __future__ import annotations

import logging
import socket

import psutil
import uvicorn
from fastapi import FastAPI

from ..settings import REPOSITORY

log = logging.getLogger("dreampose.web")

# Of what many visitors at once needed, next to nothing is in use when they have gone, but it lies scattered over all of Python's memory, so
# none of that goes back to the system. A process that starts again has what it needs, and that takes seconds.
GROWN_MB = 48  # what the first visitor needs (33) and twenty leave behind (38) stays; a hundred leave 68
LOOK_EVERY_TICKS = 100  # uvicorn's, of 0.1 s


class Server(uvicorn.Server):
    """uvicorn's, which also ends when nobody is there and its process has grown.

    anew: whether it ended for that.
    """

    def __init__(self, app: FastAPI):
        super().__init__(uvicorn.Config(app, log_config=None, log_level="warning", timeout_graceful_shutdown=2, server_header=False))
        self.anew = False
        self._unused = app.state.unused
        # Pages that are open keep their connection; that they lose it now is no error.
        logging.getLogger("uvicorn.error").addFilter(lambda record: "graceful shutdown exceeded" not in record.getMessage())

    async def startup(self, sockets: list[socket.socket]) -> None:
        await super().startup(sockets)
        self._begun_mb, self._code = _memory_mb(), _code()
        host, port = sockets[0].getsockname()[:2]
        print(f"DreamPose is at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY_TICKS == 0:
            self.anew = self._had_better_begin_anew()
        return await super().on_tick(counter) or self.anew

    def _had_better_begin_anew(self) -> bool:
        if not self._unused() or self.server_state.connections or (grown_mb := _memory_mb() - self._begun_mb) < GROWN_MB:
            return False
        if _code() != self._code:
            return False  # what lies there now is for whoever put it there to start
        log.info("nobody is here, and visitors have left %.0f MB behind: the web process begins anew", grown_mb)
        return True


def _memory_mb() -> float:
    return psutil.Process().memory_info().rss / (1 << 20)


def _code() -> frozenset[tuple[str, int]]:
    """The program's files and when each was changed."""
    files = [REPOSITORY / "app.py", *(REPOSITORY / "dreampose_core").rglob("*.py")]
    return frozenset((str(path), path.stat().st_mtime_ns) for path in files)
