"""Numbered files in a folder or a zip: what they are, in which order, and the limits that hold while they are read."""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError, shown

MAX_FRAMES_READ = 2000
MAX_ENTRIES = 2000  # of a zip
MAX_FILES = 10_000  # of a folder
MAX_BYTES = 20 << 20  # of a picture
MAX_BYTES_IN_ALL = 512 << 20
MAX_NPY_BYTES = 64 << 20  # of a map in float64: 1920 x 1080 has 33 MB
MAX_NPY_BYTES_IN_ALL = 4 << 30
_LARGEST_READ = 8 << 20  # the directory of an honest zip of MAX_ENTRIES files is far smaller
_PIECE = 1 << 20
_MOST_DIGITS = 15


@dataclass(frozen=True)
class Entry:
    """One file: `name` without folders, fit to be shown; its suffix in lower case; its bytes."""

    name: str
    suffix: str
    num_bytes: int
    source: Path | zipfile.ZipInfo


@dataclass(frozen=True)
class Order:
    """Files in time: `slots` says in which of `len(known)` frames each entry stands, `numbers` what each frame is
    called."""

    entries: list[Entry]
    slots: list[int]
    known: np.ndarray
    numbers: range


class Folder:
    """The files of a folder or a zip, or one file as if it stood alone in a folder; closed by `with`.

    path: the folder or file. Raises InputError for archives that are damaged, encrypted, too large, or hold links,
    paths that lead elsewhere or the same name twice.
    """

    def __init__(self, path: Path):
        self.name = shown(path.name or str(path))
        self._archive, self._open_files, self._done = None, ExitStack(), 0
        try:
            if path.is_dir():
                self.entries = _files_in(path, self.name)
            elif zipfile_magic(path):
                self._archive = self._open_files.enter_context(bounded_zip(path))
                self.entries = _members(self._archive, self.name)
            else:
                self.entries = [Entry(self.name, path.suffix.lower(), path.stat().st_size, path)]
        except InputError:
            self.close()
            raise
        except PermissionError as error:
            self.close()
            raise InputError(f"{self.name} may not be read; please check its permissions.") from error
        except Exception as error:  # zipfile raises many kinds on damaged files
            self.close()
            raise InputError(
                f"{self.name} cannot be read as a zip; it is damaged, please make or upload it again."
            ) from error

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._open_files.close()

    def with_suffix(self, *suffixes: str) -> list[Entry]:
        """The entries with one of `suffixes`, in lower case and with the dot."""
        return [entry for entry in self.entries if entry.suffix in suffixes]

    def open(self, entry: Entry) -> IO[bytes]:
        """The entry's bytes as a file. Raises InputError when it, or all that was opened until now, is too large or it
        cannot be read."""
        is_map = entry.suffix == ".npy"
        limit, limit_in_all = (MAX_NPY_BYTES, MAX_NPY_BYTES_IN_ALL) if is_map else (MAX_BYTES, MAX_BYTES_IN_ALL)
        if entry.num_bytes > limit:
            raise InputError(
                f"{entry.name} in {self.name} has {entry.num_bytes >> 20} MB; at most {limit >> 20} MB a file are "
                "accepted."
            )
        self._done += entry.num_bytes  # zipfile reads no more than this, whatever the packed bytes would unpack to
        if self._done > 2 * limit_in_all:  # files are looked at first, then read
            raise InputError(f"{self.name} holds more than {limit_in_all >> 20} MB; please split it or scale it down.")
        try:
            return open(entry.source, "rb") if isinstance(entry.source, Path) else self._archive.open(entry.source)
        except Exception as error:  # permissions, or a damaged zip
            raise InputError(f"{entry.name} in {self.name} cannot be read; it is damaged or not permitted.") from error

    def read(self, entry: Entry) -> bytes:
        """All bytes of the entry. Raises InputError as `open` does."""
        try:
            with self.open(entry) as file:
                pieces = iter(lambda: file.read(_PIECE), b"")
                return b"".join(itertools.islice(pieces, entry.num_bytes // _PIECE + 1))
        except InputError:
            raise
        except Exception as error:  # zipfile and zlib raise many kinds on damaged files
            raise InputError(
                f"{entry.name} in {self.name} is damaged or cut short; please save or upload it again."
            ) from error


class _Bounded(io.BufferedReader):
    """A file that refuses large single reads: zipfile would take a directory of any size into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(_LARGEST_READ + 1 if size is None or size < 0 else min(size, _LARGEST_READ + 1))
        if len(data) > _LARGEST_READ:
            raise zipfile.BadZipFile("directory too large")
        return data


@contextmanager
def bounded_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`, whose directory is only read when it is of an honest size. Raises what zipfile raises."""
    with _Bounded(open(path, "rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
        yield archive


def zipfile_magic(path: Path) -> bool:
    """Whether the file at `path` begins as a zip does, also an empty one."""
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def numbered(entries: list[Entry], name: str, what: str) -> Order:
    """`entries` in time by the last number in each name; a constant stride is no gap. `what`: what they are, for the
    sentences.

    Raises InputError for a number twice, several files without numbers, and numbers too far apart.
    """
    if len(entries) == 1:
        return Order(entries, [0], np.ones(1, bool), range(1))
    order, slots, known, numbers = in_time([entry.name for entry in entries], name, what)
    return Order([entries[index] for index in order], slots, known, numbers)


def in_time(names: list[str], place: str, what: str) -> tuple[list[int], list[int], np.ndarray, range]:
    """Two or more file names in time: their order, the frame of each in that order, which frames there are, what frames
    are called.

    Raises InputError as `numbered` does; `place` is where they lie.
    """
    by_number: dict[int, int] = {}
    for index, name in enumerate(names):
        stem, suffix = os.path.splitext(name)
        found = re.findall("[0-9]+", stem)
        if not found or len(found[-1]) > _MOST_DIGITS:
            raise InputError(
                f"{name} in {place} has no frame number in its name; several {what} need numbers, as in "
                f"frame_0001{suffix}."
            )
        other = by_number.setdefault(int(found[-1]), index)
        if other != index:
            raise InputError(
                f"{names[other]} and {name} in {place} have the same number {int(found[-1])}; please give one sequence "
                "only."
            )
    ordered = sorted(by_number)
    stride = math.gcd(*(b - a for a, b in zip(ordered, ordered[1:])))
    length = (ordered[-1] - ordered[0]) // stride + 1
    if length > MAX_FRAMES_READ:
        raise InputError(
            f"The numbers of the {what} in {place} reach from {ordered[0]} to {ordered[-1]}, which is {length} frames; "
            f"at most {MAX_FRAMES_READ} are accepted, please take a shorter part."
        )
    slots = [(number - ordered[0]) // stride for number in ordered]
    known = np.zeros(length, bool)
    known[slots] = True
    return [by_number[number] for number in ordered], slots, known, range(ordered[0], ordered[-1] + 1, stride)


def _files_in(path: Path, name: str) -> list[Entry]:
    entries = []
    for place, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not _ignored(f))
        for file in sorted(files):
            source = Path(place, file)
            if _ignored(file) or not os.path.isfile(source):
                continue
            if len(entries) == MAX_FILES:
                raise InputError(f"{name} holds more than {MAX_FILES} files; please give the folder of one sequence.")
            entries.append(Entry(shown(file), source.suffix.lower(), source.stat().st_size, source))
    return entries


def _members(archive: zipfile.ZipFile, name: str) -> list[Entry]:
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise InputError(f"{name} has {len(infos)} entries; at most {MAX_ENTRIES} are accepted.")
    entries, seen = [], set()
    for info in infos:
        # orig_filename: zipfile cuts filename at a zero byte
        path = re.split(r"[/\\]", info.orig_filename)
        file = shown(path[-1] or info.orig_filename)
        mode = info.external_attr >> 16
        if not path[0] or path[0][1:2] == ":" or ".." in path or "\0" in info.orig_filename:
            raise InputError(
                f"{name} holds {shown(info.orig_filename)}, a path that leads out of the zip; please make the zip "
                "again."
            )
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{file} in {name} is a link or a device, not a file; please zip the files themselves.")
        if info.orig_filename in seen:
            raise InputError(f"{name} holds {file} twice; please make the zip again.")
        seen.add(info.orig_filename)
        if info.is_dir() or any(_ignored(part) for part in path):
            continue
        if info.flag_bits & 0x41:
            raise InputError(f"{file} in {name} is encrypted; please make the zip again without a password.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{file} in {name} is packed in an unusual way; please make an ordinary zip.")
        entries.append(Entry(file, Path(path[-1]).suffix.lower(), info.file_size, info))
    return entries


def _ignored(name: str) -> bool:
    return name == "__MACOSX" or name.startswith(".")
