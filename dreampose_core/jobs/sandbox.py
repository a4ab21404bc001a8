"""A one-shot child process that opens untrusted files: confined before it opens anything, limited and watched while it
works, killed afterwards.

The child may read its programs, its libraries and its folder, write only to its folder, and reach no network. The
parent sends one line of JSON; the child answers with lines of JSON, some of them followed by raw bytes.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import imageio_ffmpeg

from ..errors import DiskFull, InputError, StorageError
from ..progress import ShouldStop, check_stop
from ..settings import REPOSITORY

log = logging.getLogger("dreampose.worker")

POLL_S = 0.2
_MOST_AT_ONCE = 1 << 20
_LINE_BYTES = 1 << 20
_COMPLAINT_BYTES = 4096
_RAISED = {"refused": InputError, "full": DiskFull, "storage": StorageError}
_OVER = {
    "memory": "needs more memory to decode than is allowed",
    "size": "holds more than can be kept",
    "time": "takes too long to decode",
}
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# Landlock (linux/landlock.h); its system calls have the same numbers on all common architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (
    1 << bit for bit in (0, 1, 2, 3, 5, 8, 14)
)
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WORK = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _MAKE_REG
_OF_FILES = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE


@dataclass(frozen=True)
class Limits:
    """The limits of a child and of each program that it starts.

    memory: bytes of address space. cpu_s: seconds of CPU time. file_bytes: size of each file it writes. open_files:
    open files at a time. wait_s: seconds that the parent waits for the child in all; time in which the child waits for
    the parent to read is not counted.
    """

    memory: int
    cpu_s: int
    file_bytes: int
    open_files: int
    wait_s: float


# ---- the child's half ------------------------------------------------------------------------------------------------


class Channel:
    """The child's output to its parent."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what libraries print must not get between the messages

    def say(self, message: dict, data: memoryview | bytes = b"") -> None:
        """Send `message`, then `data` raw; block until the parent reads them."""
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.write(data)
        self._out.flush()


def serve(work: Callable[[dict, Channel], None]) -> int:
    """Run a child: read the request, confine this process, answer with `work`; return the exit status."""
    give_way(0)  # keeps the parent's niceness and applies it to this session, too
    channel = Channel()
    given = json.loads(sys.stdin.buffer.readline())
    confine(Limits(**given["limits"]))
    channel.say({"ready": True})
    try:
        work(given["request"], channel)
    except BrokenPipeError:
        return 1  # the parent has stopped reading
    except Exception as error:
        channel.say(_told(error))
    return 0


def _told(error: Exception) -> dict:
    """Return the message about an error: its kind and text. An exceeded limit among its causes comes first, because
    readers report any error as a damaged file."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, MemoryError):
            return {"error": "memory", "text": ""}
        if isinstance(behind, OSError) and behind.errno == errno.EFBIG:
            return {"error": "size", "text": ""}
        behind = behind.__cause__ or behind.__context__
    for name, kind in _RAISED.items():
        if isinstance(error, kind):
            return {"error": name, "text": str(error)}
    return {"error": "failed", "text": "".join(traceback.format_exception(error))[-_COMPLAINT_BYTES:]}


def confine(limits: Limits) -> None:
    """Confine this process: it can read its programs, its libraries and the current folder, write only to that folder,
    and ends with its parent.

    If the kernel refuses to take away network or folders (as in containers and on other systems), this passes silently:
    the limits hold all the same.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        # The user namespace also keeps this process from looking into others.
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _keep_to_folder(libc)
    for name, most, more in (
        (resource.RLIMIT_AS, limits.memory, 0),
        (resource.RLIMIT_CPU, limits.cpu_s, 5),  # SIGXCPU first, SIGKILL five seconds later
        (resource.RLIMIT_FSIZE, limits.file_bytes, 0),
        (resource.RLIMIT_NOFILE, limits.open_files, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        allowed = [limit for limit in resource.getrlimit(name) if limit != resource.RLIM_INFINITY]
        with suppress(ValueError):  # macOS cannot limit the address space
            resource.setrlimit(name, (min([most, *allowed]), min([most + more, *allowed])))


def _keep_to_folder(libc: ctypes.CDLL) -> None:
    """Deny files outside `_reachable`, TCP, and signals to other processes with Landlock, if the kernel has it."""
    version = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 3:  # earlier versions cannot deny truncating files
        return
    handled = (1 << 15) - 1 | (1 << 15 if version >= 5 else 0)  # every right on files
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", 0b11)  # bind and connect
    if version >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract sockets and signals
    rules = libc.syscall(
        ctypes.c_long(_CREATE_RULESET), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    if rules < 0:
        return
    for path, rights in _reachable():
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # this machine lacks it
        rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & _OF_FILES, place)
        libc.syscall(ctypes.c_long(_ADD_RULE), ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0))
        os.close(place)
    libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _reachable() -> Iterator[tuple[str | Path, int]]:
    """Yield each path that a decoder may reach, with its rights there."""
    yield ".", _WORK
    yield os.devnull, _READ_FILE | _WRITE_FILE
    yield REPOSITORY / "dreampose_core", _READ  # not the whole repository: the data folder may be in it
    for path in sys.path:  # for late imports, such as Pillow's readers
        if path and Path(path) != REPOSITORY:
            yield path, _READ
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}:
        yield Path(prefix, "lib"), _READ
    system = "/usr /lib /lib32 /lib64 /bin /nix/store /etc/ld.so.cache /sys/devices/system/cpu".split()
    named = [os.environ.get("IMAGEIO_FFMPEG_EXE"), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    for path in filter(None, (*system, *named)):
        yield path, _READ


def give_way(nice: int) -> None:
    """Let processes of a lower niceness go first, also those of other sessions. nice: 0 to 19; never lowers the
    inherited niceness.

    Linux first divides processors among sessions (autogroup), so in a session of its own a process's niceness alone has
    no effect on other sessions.
    """
    nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with suppress(OSError):  # not Linux, no autogroups, or too many requests at once
        Path("/proc/self/autogroup").write_text(str(nice))


# ---- the parent's half -----------------------------------------------------------------------------------------------


class Child:
    """A running child; leaving the `with` block kills it and all that it started.

    program: Python's arguments. request: what `serve` hands to `work`. folder: the child's working folder. name: the
    file that it opens, for error sentences.
    """

    def __init__(
        self, program: Sequence[str], request: dict, folder: Path, name: str, limits: Limits, should_stop: ShouldStop
    ):
        self.name, self._limits, self._should_stop = name, limits, should_stop
        # -P: import nothing from a folder of uploads. -B: write no bytecode.
        command = [sys.executable, "-P", "-B", "-X", "faulthandler", *program]
        # Its own session: `__exit__` kills the child together with all that it started.
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = subprocess.Popen(command, cwd=folder, env=_environment(), start_new_session=True, **pipes)
        self.pid = self._process.pid
        self._ready, self._waited, self._unread, self._complaints = False, 0.0, bytearray(), b""
        self._pipes = [self._process.stderr, self._process.stdout]
        with suppress(BrokenPipeError):  # it has ended already, which `message` will report
            self._process.stdin.write(json.dumps({"limits": asdict(limits), "request": request}).encode() + b"\n")
            self._process.stdin.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_) -> None:
        with suppress(ProcessLookupError, PermissionError):  # no process is left
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(BrokenPipeError):
                pipe.close()

    def message(self) -> dict:
        """Return the next message. Raises InputError and StorageError with the child's own sentence or one about how
        the child ended, and Cancelled."""
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
            case {"error": str(kind), "text": str(text)}:
                raise self._over(kind) if kind in _OVER else _RAISED.get(kind, self.broken)(text)
            case dict():
                return message
        raise self.broken("no message")

    def take(self, num_bytes: int) -> bytearray:
        """Return the raw bytes after a message. Raises as `message` does."""
        while len(self._unread) < num_bytes:
            self._listen()
        data, self._unread = self._unread[:num_bytes], self._unread[num_bytes:]
        return data

    def _listen(self) -> None:
        """Read some more of the child's output. Raises as `message` does."""
        while True:
            check_stop(self._should_stop)
            if self._waited > self._limits.wait_s:
                raise self._over("time")
            begun = time.monotonic()
            ready, _, _ = select.select(self._pipes, [], [], POLL_S)
            self._waited += time.monotonic() - begun
            if self._process.stderr in ready:
                said = os.read(self._process.stderr.fileno(), _MOST_AT_ONCE)
                self._complaints = (self._complaints + said)[-_COMPLAINT_BYTES:]
                if not said:
                    self._pipes.remove(self._process.stderr)
            if self._process.stdout in ready:
                said = os.read(self._process.stdout.fileno(), _MOST_AT_ONCE)
                if not said:
                    raise self._ended()
                self._unread += said
                return

    def _ended(self) -> Exception:
        """Return the exception for a child that ended before it had answered."""
        status = None
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(2)  # its pipes close a moment before it ends
        if status == -signal.SIGXCPU:
            return self._over("time")
        if status == -signal.SIGKILL:  # the system kills processes when memory is full
            return self._over("memory")
        said = self._complaints.decode("utf-8", "replace")
        if not self._ready:
            return RuntimeError(f"the process that decodes files cannot be started (status {status}): {said}")
        return self.broken(f"ended with status {status} before it had answered: {said}")

    def _over(self, what: str) -> InputError:
        return InputError(f"{self.name} {_OVER[what]}; please give a shorter or smaller one.")

    def broken(self, why: str) -> InputError:
        log.warning("decoding broke off: %s", why)
        return InputError(
            f"{self.name} cannot be decoded, because the program that reads it broke off; it is damaged or of an "
            "unusual kind, please save it again or in another form."
        )


def _environment() -> dict[str, str]:
    """Return the child's environment: from this process's, only the paths of programs and libraries."""
    places = [str(REPOSITORY), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {
        # absolute, because the child works in another folder
        "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in places),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",  # each thread takes address space, and the limit counts that
    }
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    with suppress(RuntimeError):  # no ffmpeg; a child that needs it reports that
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        environment["IMAGEIO_FFMPEG_EXE"] = shutil.which(ffmpeg) or ffmpeg
    return environment
