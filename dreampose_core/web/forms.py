"""What programs and the page send to have a video made, and its arrival as a multipart form, with limits that hold
while it is read."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from ..errors import InputError, StorageError, TooLarge, shown
from ..jobs.records import MAX_MORE_PHOTOS
from ..settings import AnimateOptions, Options, validated

MAX_TEXT = 16_384  # bytes of a field that is no file
MAX_AROUND = 1 << 20  # bytes of a request apart from its files: headers of parts and texts
File = Annotated[Path, WithJsonSchema({"type": "string", "format": "binary"})]  # its name ends as its owner's does


class Form(Options):
    """A video, or a preview, to be made."""

    photo: File | SkipJsonSchema[None] = None
    """The photo: PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP or GIF."""
    motion: File | SkipJsonSchema[None] = None
    """The motion: a video of one person, or DensePose in any form that the page takes."""
    photo_poses: File | SkipJsonSchema[None] = None
    """The photo's own DensePose, if it is known; with more_photos, a file of as many maps as photos is of them all."""
    more_photos: list[File] = Field([], json_schema_extra={"maxItems": MAX_MORE_PHOTOS})
    """Up to four further photos of the same person, for the learning alone; a preview leaves them aside."""
    person_name: str = ""
    """An example person instead of a photo; list_people names them."""
    motion_name: str = ""
    """A shipped motion instead of a motion of your own; list_motions names them."""
    consent: bool = False
    """true: the person in the photo agreed to this, or is not real. Needed to move a photo of your own."""
    options: AnimateOptions = AnimateOptions()
    """Options as a JSON object; those left out take their defaults."""


def options_of(given: object) -> AnimateOptions:
    """Return options from an object, or from its JSON; all defaults if the text is empty. Raises InputError."""
    try:
        # Windows' editors put a mark first
        values = json.loads(given.lstrip("\ufeff").strip() or "{}") if isinstance(given, str) else given
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InputError('options is no JSON object; give one, for example {"recipe": "none", "seed": 7}.')
    return validated(AnimateOptions, values)


@asynccontextmanager
async def received(request: Request, folder: Path, max_mb: int) -> AsyncIterator[Form]:
    """Yield the request's form; its files lie in `folder` until the block ends. max_mb: the limit for each file.

    Raises InputError (not such a form, or incomplete), TooLarge and StorageError before the block.
    """
    kind, params = parse_options_header(request.headers.get("Content-Type"))
    if kind != b"multipart/form-data" or not params.get(b"boundary"):
        raise InputError("Send this request as multipart/form-data, as an HTML form with files is sent.")
    left, tail, end = (max_mb << 20) * (3 + MAX_MORE_PHOTOS) + MAX_AROUND, b"", b"--" + params[b"boundary"] + b"--"

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
        limits = {"max_files": 100, "max_fields": 100, "max_part_size": MAX_TEXT}
        async with Request(request.scope, limited).form(**limits) as given:
            form = await run_in_threadpool(_stored, given.multi_items(), place, max_mb)
        if end not in tail:
            raise InputError("The request ends before its last part does; please send it again.")
        yield form
    except (HTTPException, MultiPartException) as error:
        if "exceeded maximum size" in str(error):
            raise TooLarge(f"A field has more than {MAX_TEXT} bytes, the most that is accepted.") from error
        raise InputError(
            "The request is not the multipart/form-data that its header says; please build it with a library."
        ) from error
    except OSError as error:
        raise StorageError(f"The files could not be stored ({error.strerror}).") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)  # not in a thread: at shutdown nothing would wait for it


def _stored(items: list, place: Path, max_mb: int) -> Form:
    """Check the fields, and copy the files that were sent to `place`."""
    given = {name: [] for name in Form.model_fields}
    for name, value in items:
        is_file = isinstance(value, UploadFile)
        if name not in given:
            raise InputError(f"There is no field {shown(name)!r} here; there are {', '.join(given)}.")
        if given[name] and name != "more_photos":
            raise InputError(f"{name} is given twice; give it once.")
        if name in ("person_name", "motion_name", "consent", "options"):
            given[name].append(value.file.read().decode("utf-8", "replace") if is_file else value)
        elif not is_file:
            raise InputError(f"{name} is given as a text; send it as a file, with a file name.")
        elif value.size > max_mb << 20:
            raise TooLarge(f"{shown(value.filename)} is larger than {max_mb} MB, the most that is accepted.")
        elif value.filename or value.size:  # browsers also send fields in which no file was chosen
            path = place / f"{name}-{len(given[name])}" / _name_on_disk(value.filename, name)
            path.parent.mkdir(parents=True, mode=0o700)
            with open(path, "xb") as file:
                shutil.copyfileobj(value.file, file)
            given[name].append(path)
    form = {name: values[0] for name, values in given.items() if values}
    form["more_photos"], form["options"] = given["more_photos"], options_of(form.get("options", ""))
    form["consent"] = form.get("consent", "").strip().lower() == "true"
    return validated(Form, form)


def _name_on_disk(name: str, field: str) -> str:
    """Return a name without folders that the user recognises, of at most 60 characters."""
    return re.sub(r"[^\w. ()+-]", "_", re.split(r"[/\\]", name)[-1])[-60:].strip(". ") or field
