"""Files on their way between computers that share no folder: a file, or a folder of files that appears whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import flush, storage_error


@dataclass(frozen=True)
class Parcel:
    """What lies at `place`, a path relative to a root: one file, called "", or the files of a folder by name; None once
    it is gone."""

    place: str
    files: dict[str, np.ndarray] | None


def packed(path: Path, place: str = "") -> Parcel:
    """The file or the folder at `path`, its bytes as uint8 arrays, which travel without being copied."""
    if path.is_file():
        return Parcel(place, {"": np.fromfile(path, np.uint8)})
    return Parcel(place, {file.name: np.fromfile(file, np.uint8) for file in sorted(path.iterdir()) if file.is_file()})


def unpack(parcel: Parcel, root: Path) -> None:
    """Writes a parcel to its place below `root`, whole or not at all, or removes what is there. Raises StorageError."""
    target = root / parcel.place
    temporary = target.with_name(f".part.{os.getpid()}.{target.name}")
    try:
        if parcel.files is None:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if list(parcel.files) == [""]:
            parcel.files[""].tofile(temporary)
            flush(temporary)
        else:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            for name, content in parcel.files.items():
                content.tofile(temporary / name)
                flush(temporary / name)
            shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(missing_ok=True)


class Mirror:
    """Tells what has changed below a folder since it was asked last; folders called checkpoint-... travel whole, other
    files alone."""

    def __init__(self, root: Path):
        self._root = root
        self._known: dict[str, tuple[int, int]] = {}

    def changes(self, prefix: str) -> Iterator[Parcel]:
        """What is new or other, and what is gone, with places below `prefix`."""
        there = {}
        for folder, folders, files in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            whole = [name for name in folders if name.startswith("checkpoint-")]
            folders[:] = [name for name in folders if name not in whole]
            for name in (*whole, *sorted(name for name in files if not name.startswith("."))):
                path = Path(folder) / name
                at = path.stat()
                there[str(path.relative_to(self._root))] = (at.st_mtime_ns, at.st_ino)
        known, self._known = self._known, there
        for name, mark in there.items():
            if known.get(name) != mark:
                yield packed(self._root / name, f"{prefix}/{name}")
        for name in sorted(known.keys() - there.keys()):  # last, so that there is always a checkpoint on the other side
            yield Parcel(f"{prefix}/{name}", None)
