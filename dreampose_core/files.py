"""Atomic writing of files and folders, locks, checksums, a model's config, and the error for a full disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from .errors import DiskFull, InputError, StorageError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file may not grow larger",
}


@contextmanager
def appearing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` to write to; on success it is renamed to `path`, else removed.

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
    """Return the temporary path of `appearing` for `path`; it contains the process id, so processes never share it."""
    return path.with_name(f".part.{os.getpid()}.{path.name}")


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder to which no other process writes."""
    for left in folder.glob(".part.*"):
        if left.is_file():
            left.unlink(missing_ok=True)


def check_new_folder(path: Path) -> None:
    """Raise InputError if `path` exists and is not an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} already exists and is not an empty folder; choose another name.")


@contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, which must be new or empty; on success it is renamed to `path`, else
    removed.

    Raises StorageError for every disk error in the block, including those of safetensors.
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
        if "(os error " not in str(error):  # the format of safetensors' disk errors
            raise
        raise storage_error(os_error(error), path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on `path` in this context, across processes; the kernel releases it if the process dies.

    on_wait: called every 0.2 s while another process holds the lock; it may raise. Raises StorageError.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = lock_file(path)
        except OSError as error:
            raise storage_error(error, path) from error
        if file is not None:
            break
        on_wait()
        time.sleep(0.2)
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def lock_file(path: Path) -> TextIO | None:
    """Open and lock a file until it is closed; returns None if another process holds the lock or has just removed the
    file. Raises OSError."""
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
    """Flush a file, or a folder's list of names, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def os_error(error: Exception) -> OSError:
    """Return the OSError behind an error that has its number only in its text, "... (os error 28)", as safetensors'."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number))


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """Return the StorageError for a failed write of `path`, with the reason and what to do."""
    name = Path(path).name
    if error.errno in FULL:
        why = FULL[error.errno]
        return DiskFull(f"{name} could not be written: {why}. Free some space and try again; finished work is kept.")
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(
        f"{name} could not be written: {reason[0].lower()}{reason[1:]}. Choose a folder that exists and can be written."
    )


def model_config(model: str | Path) -> dict:
    """The `model_config` of a model folder; of a hub id only what all models made from Stable Diffusion share."""
    try:
        return json.loads((Path(model) / "model_index.json").read_text(encoding="utf-8"))["model_config"]
    except (OSError, ValueError, KeyError, TypeError):
        return {"height": 640, "width": 512, "charts": "densepose"}
