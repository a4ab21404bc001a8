"""Run ffmpeg as a child process: read its messages, limit its memory and time, and always end it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import storage_error

MAX_MEMORY = 3 << 30  # bytes, for decoding user files; H.264, VP9 and AV1 of 4096 x 4096 need less than 1 GiB
MAX_CPU_S = 600
_LOG_BYTES = 8192
_LINE_BYTES = 1 << 16
_CANNOT_WRITE = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
}


class Run:
    """A running ffmpeg. A thread reads its messages, so that it never stalls on a full pipe.

    head, tail: the first messages (which describe the input) and the last (which say why it failed).
    """

    def __init__(self, process: subprocess.Popen, on_line: Callable[[Run, str], bool] | None):
        self.process = process
        self.head, self.tail = "", ""
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

    def finish(self) -> int:
        """Wait for ffmpeg to end and return its exit status."""
        self.process.wait()
        self._reader.join()
        return self.process.returncode

    def check_written(self, path: str | Path, otherwise: Exception | None = None) -> None:
        """Wait for ffmpeg to end. Raises StorageError when it could not write the file that is to become `path`, or
        `otherwise` when it failed for another reason."""
        if status := self.finish():
            number = next((number for words, number in _CANNOT_WRITE.items() if words in self.tail), errno.EIO)
            number = errno.EFBIG if status == -signal.SIGXFSZ else number
            if number == errno.EIO and otherwise is not None:
                raise otherwise
            last = (self.tail.strip().splitlines() or ["no message"])[-1].strip()
            reason = f"ffmpeg ended with status {status} ({last})" if number == errno.EIO else os.strerror(number)
            raise storage_error(OSError(number, reason), path)


@contextmanager
def ffmpeg(
    arguments: list[str], *, on_line: Callable[[Run, str], bool] | None = None, limited: bool = False, **pipes
) -> Iterator[Run]:
    """Run ffmpeg inside the block; it has ended when the block is left, also by an exception.

    on_line: called in another thread with the run and each line of ffmpeg's messages; a line for which it returns True
    is not kept in head and tail. limited: apply MAX_MEMORY and MAX_CPU_S. pipes: stdin and stdout, as for Popen.
    """
    import imageio_ffmpeg  # not at the top: models work without it

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostats", *arguments]
    # ffmpeg gets its own process group, so that Ctrl-C in a terminal reaches only this process, which then ends ffmpeg.
    # A session leader (a worker, a decoder) never gets Ctrl-C, but its whole group may be killed; ffmpeg stays in that
    # group, so that it is killed, too.
    group = None if os.getsid(0) == os.getpid() else 0
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes}
    with subprocess.Popen(command, stderr=subprocess.PIPE, process_group=group, **pipes) as process:
        run = Run(process, on_line)
        try:
            if limited and hasattr(resource, "prlimit"):
                with suppress(ProcessLookupError, PermissionError):  # ffmpeg has ended, or the system forbids limits
                    resource.prlimit(process.pid, resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
                    resource.prlimit(process.pid, resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S + 5))
            yield run
        finally:
            process.kill()  # does nothing when ffmpeg has ended by itself
            run.finish()
            if process.stdin is not None:
                with suppress(BrokenPipeError):  # ffmpeg ended before it took all bytes
                    process.stdin.close()
