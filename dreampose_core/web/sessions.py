"""What Gradio keeps of each visitor's session: little, and let go soon after its last use, not only when ten thousand
others have come."""

from __future__ import annotations

import asyncio
import ctypes
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import SimpleNamespace

import gradio as gr
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from gradio.state_holder import SessionState, StateHolder

# The page keeps what a visitor did in fields of its own, so nothing is lost with a session: the next event has a new
# one. Gradio marks sessions of closed pages, but not where the connection breaks off, so their last use is what counts.
# An open page asks for new links more often than that.
IDLE_S = 300.0
EVERY_S = 15.0


class _Session(SessionState):
    """Gradio's, without what each component looks like now: Gradio keeps that for links to a page as it stands, which
    there are none of here, and to make it took longer than all else when many visitors came at a time."""

    def __init__(self, page: gr.Blocks):
        super().__init__(SimpleNamespace(default_config=page.default_config, blocks=()))

    def __setitem__(self, key: int, value: object) -> None:
        self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: object) -> None:
        pass


class Sessions(StateHolder):
    """The sessions of a page, whose components keep what they are in the browser: none is a gr.State."""

    def __init__(self, page: gr.Blocks):
        super().__init__()
        self.set_blocks(page)

    def __getitem__(self, name: str) -> SessionState:
        if name not in self.session_data:
            self.session_data[name] = _Session(self.blocks)
        return super().__getitem__(name)


def let_go(page: gr.Blocks) -> int:
    """Drops the sessions that have nothing running and were not used for IDLE_S seconds, with the videos that were
    streamed to them, and returns how many."""
    holder, queue = page.state_holder, page._queue
    before = datetime.datetime.now() - datetime.timedelta(seconds=IDLE_S)

    def running(name: str) -> bool:
        # Of an event whose page was closed meanwhile, Gradio keeps the id for ever, and what nobody read.
        return any(event in queue.event_ids_to_events for event in queue.pending_event_ids_session.get(name, ()))

    with holder.lock:
        idle = [name for name, used in holder.time_last_used.items() if used < before and not running(name)]
        for name in idle:
            holder.session_data.pop(name, None)
            holder.time_last_used.pop(name, None)
            page.pending_streams.pop(name, None)
        for waiting in (queue.pending_event_ids_session, queue.pending_messages_per_session):
            for name in [name for name in waiting if name not in holder.time_last_used and not running(name)]:
                waiting.pop(name, None)
    return len(idle)


def give_back() -> None:
    """Free memory goes back to the system where it can."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def sessions_let_go(page: gr.Blocks) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan for the application that serves the page: sessions are let go again and again."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(EVERY_S)
                # In a thread of the pool, also where there is nothing to give back: threads that many visitors needed
                # end when one is asked for, and until then each keeps a piece of the memory from which visitors were
                # served.
                await run_in_threadpool(give_back if let_go(page) else int)

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()

    return lifespan
