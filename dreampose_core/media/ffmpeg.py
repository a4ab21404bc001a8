"""ffmpeg as a child process: its messages drained, its memory and time limited, its end certain."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import imageio_ffmpeg

try:
    import resource
except ImportError:  # a system without these limits; the watchdog still ends what takes too long
    resource = None

MAX_MEMORY = (
    3 << 30
)  # bytes of address space for decoding user files; H.264, VP9 and AV1 of 4096 x 4096 need less than 1 GiB
MAX_CPU_S = 600
MAX_WAIT_S = 300.0  # seconds somebody has waited for ffmpeg in all; a slow reader of its frames is not counted
_TICK_S = 0.1
_LOG_BYTES = 8192
_LINE_BYTES = 1 << 16


class Run:
    """A running ffmpeg. Its messages are drained, so that it never stalls on a full pipe.

    head, tail: the first messages (what the input is) and the last (why it failed). late: whether the watchdog ended
    it.
    """

    def __init__(self, process: subprocess.Popen, on_line: Callable[[Run, str], bool] | None):
        self.process = process
        self.head, self.tail = "", ""
        self.late = False
        self._waiting = False
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._drain, args=(on_line,), daemon=True)
        self._reader.start()

    def _drain(self, on_line: Callable[[Run, str], bool] | None) -> None:
        while line := self.process.stderr.readline(_LINE_BYTES):
            text = line.decode("utf-8", "replace")
            if on_line is not None and on_line(self, text):
                continue
            if len(self.head) < _LOG_BYTES:
                self.head += text
            self.tail = (self.tail + text)[-_LOG_BYTES:]

    def limit(self) -> None:
        """Limits memory and time from now on; for files that others have made."""
        if resource is not None and hasattr(resource, "prlimit"):
            with suppress(ProcessLookupError, PermissionError):  # it has ended already; or the system does not let us
                resource.prlimit(self.process.pid, resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
                resource.prlimit(self.process.pid, resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S + 5))
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        waited = 0.0
        while not self._over.wait(_TICK_S):
            waited += _TICK_S * self._waiting
            if waited > MAX_WAIT_S:
                self.late = True
                self.process.kill()
                return

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around calls that wait for ffmpeg: their time counts."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def finish(self) -> int:
        """ffmpeg's exit status, once it has ended by itself."""
        with self.waiting():
            self.process.wait()
        self._over.set()
        self._reader.join()
        return self.process.returncode

    @property
    def out_of_time(self) -> bool:
        return (
            self.late or resource is not None and f"received signal {signal.SIGXCPU:d}" in self.tail
        )  # ffmpeg catches it

    @property
    def out_of_memory(self) -> bool:
        return "Cannot allocate memory" in self.tail


@contextmanager
def ffmpeg(
    arguments: list[str], *, on_line: Callable[[Run, str], bool] | None = None, limited: bool = False, **pipes
) -> Iterator[Run]:
    """A run of ffmpeg that is over when the block is left, however that happens.

    on_line: is given the run and each line that ffmpeg says, in another thread; returns whether it has used the line
    up.
    limited: the limits above hold. pipes: stdin and stdout, as for Popen.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostats", *arguments]
    # A process group of its own: Ctrl-C in a terminal reaches us, and we decide what becomes of ffmpeg. Who leads a
    # session (a worker, a decoder) is reached by no Ctrl-C, but may be killed together with its group, and then ffmpeg
    # goes, too.
    group = None if os.getsid(0) == os.getpid() else 0
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes}
    with subprocess.Popen(command, stderr=subprocess.PIPE, process_group=group, **pipes) as process:
        run = Run(process, on_line)
        try:
            if limited:
                run.limit()
            yield run
        finally:
            process.kill()  # nothing happens when it has ended by itself
            run.finish()
            if process.stdin is not None:
                with suppress(BrokenPipeError):  # bytes that it did not live to take
                    process.stdin.close()


def why(run: Run) -> OSError:
    """The OSError behind a run that could not write."""
    if "No space left on device" in run.tail:
        return OSError(errno.ENOSPC, "no space left on device")
    if "Disk quota exceeded" in run.tail:
        return OSError(errno.EDQUOT, "disk quota exceeded")
    if "File too large" in run.tail or run.process.returncode == -getattr(signal, "SIGXFSZ", 0):
        return OSError(errno.EFBIG, "file too large")
    lines = run.tail.strip().splitlines()
    return OSError(
        errno.EIO, f"ffmpeg ended with status {run.process.returncode} ({lines[-1].strip() if lines else 'no message'})"
    )
