"""Read numbered files from a folder or a zip within limits; find their order in time and its gaps."""

from __future__ import annotations

import io
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, shown

MAX_FRAMES_READ = 2000
MAX_ENTRIES = 2000  # entries of a zip
MAX_FILES = 10_000  # files of a folder
MAX_BYTES = 20 << 20  # bytes of one picture
MAX_BYTES_IN_ALL = 512 << 20
MAX_NPY_BYTES = 64 << 20  # bytes of one .npy map; float64 of 1920 x 1080 has 33 MB
MAX_NPY_BYTES_IN_ALL = 4 << 30
_LARGEST_READ = 8 << 20  # bytes; far more than the directory of a normal zip of MAX_ENTRIES files
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # the second is that of an empty zip
_MOST_DIGITS, _MOST_RANGES = 15, 12


@dataclass(frozen=True)
class Entry:
    """One file: its name without folders, safe to show; its suffix in lower case; its size in bytes."""

    name: str
    suffix: str
    num_bytes: int
    source: Path | zipfile.ZipInfo


class Folder:
    """The files of a folder or a zip, or a single file as if alone in a folder; a context manager.

    path: the folder or file. Raises InputError for archives that are damaged, encrypted or too large, or that hold
    links, paths out of the archive or the same name twice.
    """

    def __init__(self, path: Path):
        self.name = shown(path.name or str(path))
        self._archive, self._num_bytes_read = None, 0
        unreadable = f"{self.name} cannot be read; it is damaged or not permitted, please make or upload it again."
        with refusing(unreadable), ExitStack() as files:
            if path.is_dir():
                self.entries = _files_in(path, self.name)
            elif (file := files.enter_context(_Bounded(open(path, "rb", buffering=0)))).peek(4).startswith(_ZIP_STARTS):
                self._archive = files.enter_context(zipfile.ZipFile(file))
                self.entries = _members(self._archive, self.name)
            else:
                self.entries = [Entry(self.name, path.suffix.lower(), path.stat().st_size, path)]
            self._files = files.pop_all()

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_) -> None:
        self._files.close()

    def where(self, entry: Entry) -> str:
        """The entry's name for messages."""
        return entry.name if entry.name == self.name else f"{entry.name} in {self.name}"

    def read(self, entry: Entry) -> bytes:
        """Read all bytes of the entry.

        Raises InputError when the entry, or everything read so far, is too large, or when it cannot be read.
        """
        where, is_map = self.where(entry), entry.suffix == ".npy"
        limit, limit_in_all = (MAX_NPY_BYTES, MAX_NPY_BYTES_IN_ALL) if is_map else (MAX_BYTES, MAX_BYTES_IN_ALL)
        if entry.num_bytes > limit:
            raise InputError(f"{where} has {entry.num_bytes >> 20} MB; at most {limit >> 20} MB a file are accepted.")
        self._num_bytes_read += entry.num_bytes  # zipfile never unpacks more than this size
        # Twice the limit, because files are read once to inspect them and once to decode them.
        if self._num_bytes_read > 2 * limit_in_all:
            raise InputError(f"{self.name} holds more than {limit_in_all >> 20} MB; please split it or scale it down.")
        with refusing(f"{where} is damaged, cut short or not permitted; please save or upload it again."):
            is_file = isinstance(entry.source, Path)
            return entry.source.read_bytes() if is_file else self._archive.read(entry.source)


@contextmanager
def refusing(message: str, before: str = "") -> Iterator[None]:
    """Turn any exception of the block into InputError(message), because damaged files raise many kinds.

    An InputError keeps its text, with `before` in front.
    """
    try:
        yield
    except InputError as error:
        raise (InputError(f"{before}{error}") if before else error) from error.__cause__
    except Exception as error:
        raise InputError(message) from error


class _Bounded(io.BufferedReader):
    """A file that refuses large single reads, because zipfile would read a directory of any size into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(_LARGEST_READ + 1 if size is None or size < 0 else min(size, _LARGEST_READ + 1))
        if len(data) > _LARGEST_READ:
            raise zipfile.BadZipFile("directory too large")
        return data


def in_time(files: list, place: str, what: str) -> tuple[list, tuple[int, ...], range]:
    """Order files in time, by the last number in their names that runs; a constant stride between numbers is no gap.

    files: objects with a name. place: where they are; what: what they are; both for messages. Returns the files in
    order, the position in time of each, and the numbers of all positions. Raises InputError for a repeated number,
    several files when one has no number, and numbers too far apart.
    """
    if len(files) == 1:
        return files, (0,), range(1)
    by_number: dict[int, object] = {}
    found = [re.findall("[0-9]+", os.path.splitext(file.name)[0]) for file in files]
    runs = -1
    while -runs < min(map(len, found)) and len({numbers[runs] for numbers in found}) == 1:
        runs -= 1  # the same in all names, such as a size
    for file, numbers in zip(files, found):
        where = f"{file.name} in {place}"
        if not numbers or len(numbers[runs]) > _MOST_DIGITS:
            suffix = os.path.splitext(file.name)[1]
            raise InputError(f"{where} has no frame number; several {what} need one: frame_0001{suffix}.")
        number = int(numbers[runs])
        other = by_number.setdefault(number, file)
        if other is not file:
            raise InputError(f"{other.name} and {where} have the same number {number}; give one sequence only.")
    ordered = sorted(by_number)
    numbers = range(ordered[0], ordered[-1] + 1, math.gcd(*np.diff(ordered).tolist()))
    if len(numbers) > MAX_FRAMES_READ:
        raise InputError(
            f"The numbers of the {what} in {place} reach from {ordered[0]} to {ordered[-1]}, which is {len(numbers)} "
            f"frames; at most {MAX_FRAMES_READ} are accepted, please take a shorter part."
        )
    return [by_number[number] for number in ordered], tuple(map(numbers.index, ordered)), numbers


# ---- gaps: unknown frames repeat the nearest known frame -------------------------------------------------------------


def gap_notices(known: np.ndarray, what: str, numbers: Sequence[int]) -> tuple[str, ...]:
    """The notice that lists the frames that are not `known`, bool (T,); empty when all are.

    what: the notice's start, for example "No person was found in". numbers: the frames' numbers.
    Raises InputError when more than half are unknown.
    """
    missing, count = np.flatnonzero(~known), len(known)
    if len(missing) == 0:
        return ()
    frames = f"{what} frame{'s' * (len(missing) > 1)} {frame_ranges(missing, numbers)}"
    if 2 * len(missing) > count:
        most = "give a motion with at least half of the frames"
        raise InputError(f"{frames}, which is {len(missing)} of {count}; {most}.")
    return (f"{frames}; {'they repeat' if len(missing) > 1 else 'it repeats'} the nearest frame.",)


def nearest_known(known: np.ndarray) -> np.ndarray:
    """int (T,): the index of the nearest known frame for each frame, the earlier of two equally near ones."""
    frames = np.flatnonzero(known)
    return frames[abs(np.subtract.outer(np.arange(len(known)), frames)).argmin(axis=1)]


def frame_ranges(indices: np.ndarray, names: Sequence[int]) -> str:
    """List frames by their indices, int (N,), and the name of each frame, for example "3-5 and 9"."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    texts = [str(names[run[0]]) if len(run) == 1 else f"{names[run[0]]}-{names[run[-1]]}" for run in runs]
    if len(texts) > _MOST_RANGES:
        texts = [*texts[:_MOST_RANGES], "others"]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


# ---- the files -------------------------------------------------------------------------------------------------------


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
        # orig_filename, because zipfile cuts filename off at a zero byte
        path = re.split(r"[/\\]", info.orig_filename)
        file = shown(path[-1] or info.orig_filename)
        mode = info.external_attr >> 16
        if not path[0] or path[0][1:2] == ":" or ".." in path or "\0" in info.orig_filename:
            raise InputError(
                f"{name} holds {shown(info.orig_filename)}, a path that leads out of the zip; zip it again."
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
