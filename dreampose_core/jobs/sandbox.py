"""A one-shot child process that opens untrusted files: confined before it opens anything, limited and watched while it
works, killed afterwards.

The child may read its programs, its libraries and its folder, write only to its folder, and reach no network. It gets
its request as JSON and answers with a line of JSON; all else that it makes are files in its folder.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import resource
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
from tempfile import TemporaryFile

import imageio_ffmpeg

from ..errors import DiskFull, InputError, StorageError
from ..progress import ShouldStop, check_stop
from ..settings import REPOSITORY

log = logging.getLogger("dreampose.worker")

POLL_S = 0.2
_ANSWER_BYTES = 1 << 20
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

    memory: bytes of address space. file_bytes: size of each file it writes. open_files: open files at a time. wait_s:
    seconds that the parent waits for the child.
    """

    memory: int
    file_bytes: int
    open_files: int
    wait_s: float


Say = Callable[[dict], None]  # sends the child's answer to its parent

# ---- the child's half ------------------------------------------------------------------------------------------------


def serve(work: Callable[[dict, Say], None]) -> int:
    """Run a child: confine this process, let `work` answer the request; return the exit status."""
    give_way(0)  # keeps the parent's niceness and applies it to this session, too
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(answer: dict) -> None:
        out.write(json.dumps(answer).encode() + b"\n")
        out.flush()

    given = json.loads(sys.argv[1])
    confine(Limits(**given["limits"]))
    say({"ready": True})
    try:
        work(given["request"], say)
    except Exception as error:
        say(_told(error))
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
    for name, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        allowed = [limit for limit in resource.getrlimit(name) if limit != resource.RLIM_INFINITY]
        with suppress(ValueError):  # macOS cannot limit the address space
            resource.setrlimit(name, (min([most, *allowed]),) * 2)


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


def run(
    program: Sequence[str], request: dict, folder: Path, name: str, limits: Limits, should_stop: ShouldStop
) -> dict:
    """Run a child until it ends, kill all that it started, and return its answer.

    program: Python's arguments. request: what `serve` hands to `work`. folder: the child's working folder. name: the
    file that it opens, for error sentences. Raises InputError and StorageError with the child's own sentence or one
    about how the child ended, and Cancelled.
    """
    # -P: import nothing from a folder of uploads. -B: write no bytecode.
    command = [sys.executable, "-P", "-B", "-X", "faulthandler", *program]
    command.append(json.dumps({"limits": asdict(limits), "request": request}))
    with TemporaryFile(dir=folder) as out, TemporaryFile(dir=folder) as complaints:
        how = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": complaints, "env": _environment()}
        # Its own session, to kill the child together with all that it started.
        process, began = subprocess.Popen(command, cwd=folder, start_new_session=True, **how), time.monotonic()
        try:
            while process.poll() is None:
                check_stop(should_stop)
                if time.monotonic() - began > limits.wait_s:
                    raise _over(name, "time")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
        finally:
            with suppress(ProcessLookupError, PermissionError):  # no process is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        ready, _, answer = out.read(_ANSWER_BYTES).partition(b"\n")
        complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - _COMPLAINT_BYTES))
        why = f"ended with status {process.returncode}: {complaints.read().decode('utf-8', 'replace')}"
    if not answer and process.returncode == -signal.SIGKILL:  # by the system, as memory is full
        raise _over(name, "memory")
    if not ready:
        raise RuntimeError(f"the process that decodes files {why}")
    try:
        found = json.loads(answer)
    except ValueError:
        raise broken(name, why) from None
    match found:
        case {"error": str(kind), "text": str(text)} if kind in _OVER:
            raise _over(name, kind)
        case {"error": str(kind), "text": str(text)}:
            raise _RAISED[kind](text) if kind in _RAISED else broken(name, text)
        case dict():
            return found
    raise broken(name, "no answer")


def _over(name: str, what: str) -> InputError:
    return InputError(f"{name} {_OVER[what]}; please give a shorter or smaller one.")


def broken(name: str, why: str) -> InputError:
    """Log why the child's answer is of no use, and return the error for the user."""
    log.warning("decoding broke off: %s", why)
    return InputError(
        f"{name} cannot be decoded, because the program that reads it broke off; it is damaged or of an unusual kind, "
        "please save it again or in another form."
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
