"""A one-shot child process for what others have made: confined before it opens anything, watched while it works, gone
afterwards.

What passes between the two is one line of JSON into the child, and lines of JSON out of it, some of them followed by
raw bytes.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import imageio_ffmpeg

from ..errors import DiskFull, InputError, StorageError
from ..progress import ShouldStop, check_stop
from ..settings import REPOSITORY
from .confinement import Limits, confine, give_way

log = logging.getLogger("dreampose.worker")

POLL_S = 0.2
_MOST_AT_ONCE = 1 << 20
_LINE_BYTES = 1 << 20
_COMPLAINT_BYTES = 4096
_SMALLER = "please give a shorter or smaller one"


# ---- the child's half ------------------------------------------------------------------------------------------------


class Channel:
    """The child's way to say something."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what a library prints must not come between the messages

    def say(self, message: dict, data: memoryview | bytes = b"") -> None:
        """Sends `message`, then `data` raw; waits while nobody takes it."""
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.write(data)
        self._out.flush()


def serve(work: Callable[[dict, Channel], None]) -> int:
    """A child's whole life: reads the request, confines itself, lets `work` answer it; returns the exit status."""
    give_way(0)  # as its parent does, in this session too
    channel = Channel()
    given = json.loads(sys.stdin.buffer.readline())
    confine(Limits(**given["limits"]))
    channel.say({"ready": True})
    try:
        work(given["request"], channel)
    except BrokenPipeError:
        return 1  # nobody listens any more
    except Exception as error:
        channel.say(_told(error))
    return 0


def _told(error: Exception) -> dict:
    """The message about an error; what is behind it counts most, because readers take any trouble for a damaged
    file."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, MemoryError):
            return {"over": "memory"}
        if isinstance(behind, OSError) and behind.errno == errno.EFBIG:
            return {"over": "size"}
        behind = behind.__cause__ or behind.__context__
    if isinstance(error, InputError):
        return {"refused": str(error)}
    if isinstance(error, DiskFull):
        return {"full": str(error)}
    if isinstance(error, StorageError):
        return {"storage": str(error)}
    return {"failed": "".join(traceback.format_exception(error))[-_COMPLAINT_BYTES:]}


# ---- the parent's half -----------------------------------------------------------------------------------------------


class Child:
    """A running child, whose end and that of all it started is certain once the block is left.

    program: what Python runs, as its arguments say it. request: what `serve` hands to its work. folder: where it works.
    name: of the file that it opens, for the sentences.
    """

    def __init__(
        self, program: Sequence[str], request: dict, folder: Path, name: str, limits: Limits, should_stop: ShouldStop
    ):
        self.name, self._limits, self._should_stop = name, limits, should_stop
        # -P: a folder full of others' files is no place to import from; -B: nothing is written but what was asked for
        command = [sys.executable, "-P", "-B", "-X", "faulthandler", *program]
        # A session of its own: whatever it starts can be ended together with it.
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._ready, self._waited, self._unread, self._complaints = False, 0.0, bytearray(), b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._selector.register(self._process.stderr, selectors.EVENT_READ)
        with suppress(BrokenPipeError):  # it has ended already, which is seen when it is listened to
            self._process.stdin.write(json.dumps({"limits": asdict(limits), "request": request}).encode() + b"\n")
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(BrokenPipeError):
                pipe.close()

    def message(self) -> dict:
        """The next message. Raises InputError and StorageError with the child's own sentence, or with one about how it
        ended; Cancelled."""
        while b"\n" not in self._unread:
            if len(self._unread) > _LINE_BYTES:
                raise self.broken("a line without end")
            self._listen()
        line, _, rest = bytes(self._unread).partition(b"\n")
        self._unread = bytearray(rest)
        try:
            message = json.loads(line)
        except ValueError:
            raise self.broken("a line that is no JSON") from None
        match message:
            case {"ready": True}:
                self._ready = True
                return self.message()
            case {"refused": str(sentence)}:
                raise InputError(sentence)
            case {"full": str(sentence)}:
                raise DiskFull(sentence)
            case {"storage": str(sentence)}:
                raise StorageError(sentence)
            case {"over": "memory"}:
                raise self._too_much_memory()
            case {"over": "size"}:
                raise InputError(f"{self.name} holds more than can be kept; {_SMALLER}.")
            case {"failed": str(why)}:
                raise self.broken(why)
            case dict():
                return message
        raise self.broken("no message")

    def take(self, num_bytes: int) -> bytearray:
        """The raw bytes after a message. Raises as `message` does."""
        while len(self._unread) < num_bytes:
            self._listen()
        data, self._unread = self._unread[:num_bytes], self._unread[num_bytes:]
        return data

    def _listen(self) -> None:
        """Takes up some more of what the child sends."""
        while True:
            check_stop(self._should_stop)
            if self._waited > self._limits.wait_s:
                raise self._too_long()
            begun = time.monotonic()
            ready = [key.fileobj for key, _ in self._selector.select(POLL_S)]
            self._waited += time.monotonic() - begun
            if self._process.stderr in ready:
                said = os.read(self._process.stderr.fileno(), _MOST_AT_ONCE)
                self._complaints = (self._complaints + said)[-_COMPLAINT_BYTES:]
                if not said:
                    self._selector.unregister(self._process.stderr)
            if self._process.stdout in ready:
                said = os.read(self._process.stdout.fileno(), _MOST_AT_ONCE)
                if not said:
                    raise self._ended()
                self._unread += said
                return

    def _ended(self) -> Exception:
        """What to raise for a child that ended before it had answered."""
        status = None
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(2)  # it closes its pipes a moment before it is gone
        if status == -signal.SIGXCPU:
            return self._too_long()
        if status == -signal.SIGKILL:  # as the system does where memory is full
            return self._too_much_memory()
        said = self._complaints.decode("utf-8", "replace")
        if not self._ready:
            return RuntimeError(f"the process that decodes files cannot be started (status {status}): {said}")
        return self.broken(f"ended with status {status} before it had answered: {said}")

    def _too_long(self) -> InputError:
        return InputError(f"{self.name} takes too long to decode; {_SMALLER}.")

    def _too_much_memory(self) -> InputError:
        return InputError(f"{self.name} needs more memory to decode than is allowed; {_SMALLER}.")

    def broken(self, why: str) -> InputError:
        log.warning("decoding broke off: %s", why)
        return InputError(
            f"{self.name} cannot be decoded, because the program that reads it broke off; it is damaged or of an "
            "unusual kind, please save it again or in another form."
        )


def _environment() -> dict[str, str]:
    """Nothing of this process's own but where programs and libraries lie."""
    places = [str(REPOSITORY), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {
        "PYTHONPATH": os.pathsep.join(
            os.path.abspath(place) for place in places
        ),  # of this process's folder, not of the child's
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",  # each thread takes address space, and the limit counts that
    }
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    with suppress(RuntimeError):  # there is none; whoever needs it says so
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        environment["IMAGEIO_FFMPEG_EXE"] = shutil.which(ffmpeg) or ffmpeg
    return environment
