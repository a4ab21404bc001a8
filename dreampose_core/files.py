"""Files that appear whole or not at all, their sums, and the one sentence for a disk that is full."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from .errors import DiskFull, InputError, StorageError
from .progress import ShouldStop, check_stop, never_stop

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file may not grow larger",
}


@contextmanager
def appearing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; when the block ends well it is renamed to `path`, else it goes.

    The temporary name keeps the suffix, because encoders choose the format by it.

    Raises StorageError for every OSError of the block, of the flush to disk and of the renaming.
    """
    path = Path(path)
    temporary = unfinished(path)
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def unfinished(path: Path) -> Path:
    """Where `appearing` writes, in this process, what becomes `path`; two processes never write to one file."""
    return path.with_name(f".part.{os.getpid()}.{path.name}")


def remove_unfinished(path: Path) -> None:
    """Removes the files that processes which were killed left behind of `path`."""
    for left in path.parent.glob(f".part.*.{glob.escape(path.name)}"):
        left.unlink(missing_ok=True)


def remove_all_unfinished(folder: Path) -> None:
    """The same for whatever files were to appear in a folder in which nobody else writes."""
    for left in folder.glob(".part.*"):
        if left.is_file():
            left.unlink(missing_ok=True)


def check_new_folder(path: Path) -> None:
    """Raises InputError where there is something at `path` already, but for an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already and is not an empty folder; give the name of a new one.")


@contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, which is new or an empty folder, to write to; renamed when the block ends well,
    else it goes.

    Raises StorageError for every error of the disk in the block, also safetensors' own.
    """
    path = Path(os.path.abspath(path))
    temporary = unfinished(path)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    except Exception as error:
        if "(os error " not in str(error):  # as safetensors says a full disk
            raise
        raise storage_error(os_error(error), path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path, should_stop: ShouldStop = never_stop) -> Iterator[None]:
    """Nobody else is in such a block of the same path, in whatever process; the kernel ends it with the process.

    Raises Cancelled when should_stop() is true while others are waited for, and StorageError.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = lock_file(path)
        except OSError as error:
            raise storage_error(error, path) from error
        if file is not None:
            break
        check_stop(should_stop)
        time.sleep(0.2)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def lock_file(path: Path) -> TextIO | None:
    """The file, opened anew and locked until it is closed; None where others hold it, or took it away just now. Raises
    OSError."""
    file = open(path, "w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


def flush(path: Path) -> None:
    """Makes sure that a file, or a folder's list of names, is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def os_error(error: Exception) -> OSError:
    """The OSError behind an error that says it only in its text, "... (os error 28)", as safetensors does."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number))


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """The StorageError that says why `path` was not written and what to do."""
    name = Path(path).name
    if error.errno in _FULL:
        why = _FULL[error.errno]
        return DiskFull(
            f"{name} could not be written: {why}. Free some space and try again; what was finished before is kept."
        )
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(
        f"{name} could not be written: {reason[0].lower()}{reason[1:]}. Choose a folder that exists and can be written."
    )
