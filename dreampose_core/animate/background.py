"""Run calls in a background thread, in order and with a bounded queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """A context that runs calls one after another in another thread, and waits for all of them at its end."""

    def __init__(self, most_waiting: int):
        """most_waiting: size of the queue; `do` blocks while it is full."""
        self._most = most_waiting
        self._waiting: deque[Future] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._failed = False

    def do(self, call: Callable[..., None], *arguments) -> None:
        """Queue a call. Raises the error of an earlier call, after which no further ones run."""
        while self._waiting and (len(self._waiting) >= self._most or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._made, call, arguments))

    def _made(self, call: Callable[..., None], arguments: tuple) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, kind, *_) -> None:
        self._thread.shutdown(wait=True)
        for one in self._waiting:
            if kind is None:  # otherwise the caller's own error takes precedence
                one.result()
