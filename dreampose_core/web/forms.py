"""A request's multipart form, with limits that hold while it is read; its files are deleted afterwards."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from ..errors import InputError, StorageError, TooLarge, shown

MAX_TEXT = 16_384  # bytes of a field that is no file
MAX_AROUND = 1 << 20  # bytes of a request apart from its files: headers of parts and texts


@dataclass
class Form:
    """The fields of a request. files: paths by field, in order, with names that end as the user's do; texts: the other
    fields."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def file(self, name: str) -> Path | None:
        """Return the file of a field that has at most one."""
        return next(iter(self.files.get(name, ())), None)


@asynccontextmanager
async def received(
    request: Request, folder: Path, files: Mapping[str, int], texts: Mapping[str, int], max_mb: int
) -> AsyncIterator[Form]:
    """Yield the request's form; its files lie in `folder` until the block ends.

    files, texts: the accepted fields, and how often each may come. max_mb: the limit for each file.
    Raises InputError (not such a form, or incomplete), TooLarge and StorageError before the block.
    """
    kind, params = parse_options_header(request.headers.get("Content-Type"))
    if kind != b"multipart/form-data" or not params.get(b"boundary"):
        raise InputError("Send this request as multipart/form-data, as an HTML form with files is sent.")
    left, tail, end = (max_mb << 20) * sum(files.values()) + MAX_AROUND, b"", b"--" + params[b"boundary"] + b"--"

    async def limited() -> dict:
        nonlocal left, tail
        message = await request.receive()
        body = message.get("body", b"")
        left, tail = left - len(body), (tail + body)[-len(end) - 64 :]  # some clients add line ends
        if left < 0:
            raise TooLarge(f"The request is too large; {max_mb} MB is the most that is accepted for a file.")
        return message

    place = folder / secrets.token_hex(16)
    try:
        try:
            limits = {"max_files": 100, "max_fields": 100, "max_part_size": MAX_TEXT}
            async with Request(request.scope, limited).form(**limits) as given:
                form = await run_in_threadpool(_stored, given.multi_items(), place, files, texts, max_mb)
            if end not in tail:
                raise InputError("The request ends before its last part does; please send it again.")
        except (HTTPException, MultiPartException) as error:
            if "exceeded maximum size" in str(error):
                raise TooLarge(f"A field has more than {MAX_TEXT} bytes, the most that is accepted.") from error
            raise InputError(
                "The request is not the multipart/form-data that its header says; please build it with a library."
            ) from error
        except OSError as error:
            raise StorageError(f"The files could not be stored ({error.strerror}).") from error
        yield form
    finally:
        shutil.rmtree(place, ignore_errors=True)  # not in a thread: at shutdown nothing would wait for it


def _stored(items: list, place: Path, files: Mapping[str, int], texts: Mapping[str, int], max_mb: int) -> Form:
    """Check the fields, and copy the files that were sent to `place`."""
    form, seen = Form(), {}
    for name, value in items:
        if name not in files and name not in texts:
            raise InputError(f"There is no field {shown(name)!r} here; there are {', '.join([*files, *texts])}.")
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > (limit := {**files, **texts}[name]):
            raise InputError(
                f"{name} is given twice; give it once." if limit == 1 else f"{name} may be given at most {limit} times."
            )
        is_file = isinstance(value, UploadFile)
        if name in texts:
            form.texts[name] = value.file.read().decode("utf-8", "replace") if is_file else value
        elif not is_file:
            raise InputError(f"{name} is given as a text; send it as a file, with a file name.")
        elif value.size > max_mb << 20:
            raise TooLarge(f"{shown(value.filename)} is larger than {max_mb} MB, the most that is accepted.")
        elif value.filename or value.size:  # browsers also send fields in which no file was chosen
            path = place / f"{name}-{seen[name]}" / _name_on_disk(value.filename, name)
            path.parent.mkdir(parents=True, mode=0o700)
            with open(path, "xb") as file:
                shutil.copyfileobj(value.file, file)
            form.files.setdefault(name, []).append(path)
    return form


def _name_on_disk(name: str, field: str) -> str:
    """Return a name without folders that the user recognises, of at most 60 characters."""
    return re.sub(r"[^\w. ()+-]", "_", re.split(r"[/\\]", name)[-1])[-60:].strip(". ") or field
