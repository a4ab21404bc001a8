"""Takes from a process what it does not need to read one file: network, rights, other folders, and all beyond some
limits."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..settings import REPOSITORY

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# Landlock (linux/landlock.h); the numbers of its system calls are the same on all machines that are in use
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (
    1 << bit for bit in (0, 1, 2, 3, 5, 8, 14)
)
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WORK = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _MAKE_REG
_OF_FILES = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE


@dataclass(frozen=True)
class Limits:
    """What a child may take, and each program that it starts.

    memory: bytes of address space. cpu_s: seconds of computing. file_bytes: of each file it writes. open_files: at a
    time.
    wait_s: seconds somebody has waited for it in all; while it waits for whoever takes what it sends, nothing is
    counted.
    """

    memory: int
    cpu_s: int
    file_bytes: int
    open_files: int
    wait_s: float


def confine(limits: Limits) -> None:
    """From now on this process reads its programs and libraries and the current folder, writes only there, and ends
    with its parent.

    Where the kernel refuses to take network or folders away (containers do, and so do other systems), nothing is said:
    the limits hold all the same.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.unshare(
            _CLONE_NEWUSER | _CLONE_NEWNET
        )  # in a user namespace of its own it cannot look into other processes, either
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _keep_to_folder(libc)
    for name, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_CORE, 0),
    ):
        allowed = [limit for limit in resource.getrlimit(name) if limit != resource.RLIM_INFINITY]
        most = min([most, *allowed])
        beyond = (
            min([most + 5, *allowed]) if name == resource.RLIMIT_CPU else most
        )  # told by a signal of its own first, then killed
        with suppress(ValueError):  # macOS lets nobody limit the address space
            resource.setrlimit(name, (most, beyond))


def _keep_to_folder(libc: ctypes.CDLL) -> None:
    """Landlock, where the kernel has it: files outside the folder, TCP, and signals to others are out of reach."""
    version = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 3:  # before, a file could be cut short all the same
        return
    handled = (1 << 15) - 1 | (1 << 15 if version >= 5 else 0)  # all that can be done to a file
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
            continue  # not on this machine
        rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & _OF_FILES, place)
        libc.syscall(ctypes.c_long(_ADD_RULE), ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0))
        os.close(place)
    libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _reachable() -> Iterator[tuple[str | Path, int]]:
    """What a decoder may reach, and how."""
    yield ".", _WORK
    yield os.devnull, _READ_FILE | _WRITE_FILE
    yield REPOSITORY / "dreampose_core", _READ  # no more of it: the data folder may lie beside
    for path in sys.path:  # what is imported late, as Pillow's readers are
        if path and Path(path) != REPOSITORY:
            yield path, _READ
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}:
        yield Path(prefix, "lib"), _READ
    for path in (
        "/usr",
        "/lib",
        "/lib32",
        "/lib64",
        "/bin",
        "/nix/store",
        "/etc/ld.so.cache",
        "/sys/devices/system/cpu",
    ):
        yield path, _READ
    for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if path:
            yield path, _READ
    if "IMAGEIO_FFMPEG_EXE" in os.environ:
        yield os.environ["IMAGEIO_FFMPEG_EXE"], _READ


def give_way(nice: int) -> None:
    """Lets processes of a lower niceness go first, also those of other sessions. nice: 0 to 19, at least what was
    inherited is taken.

    Linux shares processors out between sessions first (autogroup), so in a session of its own a process's niceness says
    nothing to others.
    """
    nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with suppress(OSError):  # another system, no autogroups, or asked for by too many at once
        Path("/proc/self/autogroup").write_text(str(nice))
