"""What Gradio keeps of each visitor's session is let go soon after its last use, not only when ten thousand others have come."""

from __future__ import annotations

import asyncio
import ctypes
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import gradio as gr
from fastapi import FastAPI

# The page keeps what a visitor did in fields of its own, so nothing is lost with a session: the next event has a new one. Gradio marks
# sessions of closed pages, but not where the connection breaks off, so their last use is what counts. An open page with a finished video
# asks for a new link more often than that.
IDLE_S = 300.0
EVERY_S = 15.0


def let_go(page: gr.Blocks) -> int:
    """Drops the sessions that have nothing running and were not used for IDLE_S seconds, with the videos that were streamed to them, and
    returns how many; their memory goes back to the system where it can."""
    holder, running = page.state_holder, page._queue.pending_event_ids_session
    before = datetime.datetime.now() - datetime.timedelta(seconds=IDLE_S)
    with holder.lock:
        idle = [name for name, used in holder.time_last_used.items() if used < before and not running.get(name)]
        for name in idle:
            holder.session_data.pop(name, None)
            holder.time_last_used.pop(name, None)
            page.pending_streams.pop(name, None)
    if idle:
        with suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)
    return len(idle)


def sessions_let_go(page: gr.Blocks) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan for the application that serves the page: sessions are let go again and again."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(EVERY_S)
                let_go(page)

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()

    return lifespan
