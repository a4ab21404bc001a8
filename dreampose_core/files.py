"""Files that appear whole or not at all, their sums, and the one sentence for a disk that is full."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import StorageError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "the file may not grow larger"}


@contextmanager
def appearing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; when the block ends well it is renamed to `path`, else it goes.

    The temporary name keeps the suffix, because encoders choose the format by it.

    Raises StorageError for every OSError of the block, of the flush to disk and of the renaming.
    """
    path = Path(path)
    temporary = path.with_name(f".part.{path.name}")
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
        return StorageError(f"{name} could not be written: {why}. Free some space and try again; what was finished before is kept.")
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(f"{name} could not be written: {reason[0].lower()}{reason[1:]}. Choose a folder that exists and can be written.")
