"""A request's multipart form: its files go straight to the disk, with limits that hold while they are read, and are
gone afterwards."""

from __future__ import annotations

import io
import re
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ..errors import InputError, StorageError, TooLarge, shown

MAX_TEXT = 16_384  # bytes of a field that is no file
MAX_AROUND = 1 << 20  # bytes of a request beside its files: headers of parts, texts, what stands before the first part


@dataclass
class Form:
    """What a request brought. files: by field in the order in which they came, under names of ours that end as the
    user's do; texts: the other fields."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """The file of a field that has at most one."""
        return next(iter(self.files.get(name, ())), None)


@asynccontextmanager
async def received(
    request: Request, folder: Path, files: Mapping[str, int], texts: Mapping[str, int], max_mb: int
) -> AsyncIterator[Form]:
    """The form that comes with `request`; its files lie under `folder` until the block ends.

    files, texts: the fields it may have, and how often. max_mb: the most that each file may take.
    Raises InputError (it is no such form, or is cut short), TooLarge and StorageError before the block; then nothing is
    left on the disk.
    """
    kind, given = parse_options_header(request.headers.get("Content-Type"))
    if kind != b"multipart/form-data" or not given.get(b"boundary"):
        raise InputError("Send this request as multipart/form-data, as an HTML form with files is sent.")
    place = folder / secrets.token_hex(16)
    reader = _Reader(place, files, texts, max_mb << 20)
    try:
        try:
            place.mkdir(parents=True, mode=0o700)
            parser = MultipartParser(given[b"boundary"], reader.callbacks())
            num_bytes = 0
            async for block in request.stream():
                num_bytes += len(block)
                if num_bytes > (max_mb << 20) * sum(files.values()) + MAX_AROUND:
                    raise TooLarge(f"The request is too large; {max_mb} MB is the most that is accepted for a file.")
                await run_in_threadpool(parser.write, block)  # writes to the disk
                if reader.complete:
                    break
        except FormParserError as error:
            raise InputError(
                "The request is not the multipart/form-data that its header says; please build it with a library."
            ) from error
        except OSError as error:
            raise StorageError(f"The files could not be stored ({error.strerror}).") from error
        if not reader.complete:
            raise InputError("The request ends before its last part does; please send it again.")
        yield reader.form
    finally:
        reader.close()
        # not in a thread: where the server is being stopped nobody would wait for it
        shutil.rmtree(place, ignore_errors=True)


class _Reader:
    """Takes a form apart as it comes: the callbacks of python-multipart's parser, called by one thread at a time."""

    def __init__(self, folder: Path, files: Mapping[str, int], texts: Mapping[str, int], max_bytes: int):
        self.form = Form()
        self.complete = False
        self._folder, self._files, self._texts, self._max_bytes = folder, files, texts, max_bytes
        self._header = self._value = self._disposition = b""
        self._seen: Counter[str] = Counter()
        self._name = self._given = ""
        self._writer: BinaryIO = io.BytesIO()

    def callbacks(self) -> dict[str, Callable[..., None]]:
        names = (
            "part_begin",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "part_data",
            "part_end",
            "end",
        )
        return {f"on_{name}": getattr(self, name) for name in names}

    def close(self) -> None:
        self._writer.close()

    def part_begin(self) -> None:
        self._header = self._value = self._disposition = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def headers_finished(self) -> None:
        _, given = parse_options_header(self._disposition)
        self._name = name = given.get(b"name", b"").decode("utf-8", "replace")
        if name not in self._files and name not in self._texts:
            raise InputError(
                f"There is no field {shown(name)!r} here; there are {', '.join([*self._files, *self._texts])}."
            )
        self._seen[name] += 1
        most = (self._files | self._texts)[name]
        if self._seen[name] > most:
            raise InputError(
                f"{name} is given twice; give it once." if most == 1 else f"{name} may be given at most {most} times."
            )
        if name in self._texts:
            self._writer = io.BytesIO()
        elif b"filename" not in given:
            raise InputError(f"{name} is given as a text; send it as a file, with a file name.")
        else:
            self._given = given[b"filename"].decode("utf-8", "replace")
            path = self._folder / f"{name}-{self._seen[name]}" / _name_on_disk(self._given, name)
            path.parent.mkdir(mode=0o700)
            self._writer = open(path, "xb")
            self.form.files.setdefault(name, []).append(path)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        num_bytes = self._writer.tell() + end - start
        if self._name in self._texts and num_bytes > MAX_TEXT:
            raise TooLarge(f"{self._name} has more than {MAX_TEXT} bytes, the most that is accepted.")
        if num_bytes > self._max_bytes:
            given = shown(self._given) or self._name
            raise TooLarge(f"{given} is larger than {self._max_bytes >> 20} MB, the most that is accepted.")
        self._writer.write(memoryview(data)[start:end])

    def part_end(self) -> None:
        if self._name in self._texts:
            self.form.texts[self._name] = self._writer.getvalue().decode("utf-8", "replace")
        elif not self._given and not self._writer.tell():  # as browsers send a field in which no file was chosen
            self.form.files[self._name].pop()
        self._writer.close()

    def end(self) -> None:
        self.complete = True


def _name_on_disk(given: str, field: str) -> str:
    """A name without a folder that its user knows again in a sentence; at most 60 characters, so that any file system
    takes it."""
    return re.sub(r"[^\w. ()+-]", "_", re.split(r"[/\\]", given)[-1])[-60:].strip(". ") or field
