"""Work that is done in a thread of its own while its caller goes on: in order, and never far behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """A context in which calls are made one after the other in another thread; all that were taken are made before it
    is left."""

    def __init__(self, most_waiting: int):
        """most_waiting: calls that may wait for their turn; who brings another waits with it."""
        self._most = most_waiting
        self._waiting: deque[Future] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._failed = False

    def do(self, call: Callable[..., None], *arguments) -> None:
        """Takes a call. Raises what an earlier one raised; none is made after that one."""
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
            if kind is None:  # else the caller's own error is the one to tell
                one.result()
