"""The route that serves what jobs have made to whoever holds a fresh signed link, and folders as a zip that is made
while it is read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from ..jobs.records import JobFolder
from ..settings import Settings
from .links import ResultLinks

_BLOCK = 1 << 20  # bytes read at a time: weights may be gigabytes
_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".gif": "image/gif",
    ".png": "image/png",
    ".json": "application/json",
    ".npz": "application/octet-stream",
}


def results_router(settings: Settings, links: ResultLinks) -> APIRouter:
    """The route; settings.home must be absolute."""
    router = APIRouter()

    @router.get("/results/{job_id}/{thing}/{name}")
    def result(
        job_id: str, thing: str, name: str, expires: str = "", signature: str = "", download: str = ""
    ) -> Response:
        """A thing of a job's. Expired, forged and foreign links, unknown jobs and what is not there get the same
        answer."""
        path = None
        if links.valid(job_id, name, expires, signature, thing):
            path = _place(settings.home, job_id, thing)
        if path is None:
            return JSONResponse(
                {"error": "This link is unknown or has expired; open the page again for a new one."}, 404
            )
        headers = {"Cache-Control": f"private, max-age={links.lifetime_s}", "X-Content-Type-Options": "nosniff"}
        if path.is_dir():
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
            return StreamingResponse(zipped(path), media_type="application/zip", headers=headers)
        how = {"filename": name, "content_disposition_type": "attachment" if download else "inline"}
        return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], headers=headers, **how)

    return router


def _place(home: Path, whose: str, thing: str) -> Path | None:
    """Where a job's thing lies, or a "subject", or the photo of the "person" who it is; `whose` as in the signed
    link."""
    if thing not in ("person", "subject"):
        return JobFolder(home / "jobs" / whose).thing(thing)
    folder = home / "subjects" / whose.replace("-", "/", 1)
    found = folder / "photo_000.png" if thing == "person" else folder
    return found if found.exists() else None


class _Written(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self):
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, block) -> int:
        self._bytes += block
        return len(block)

    def take(self) -> bytes:
        taken, self._bytes = bytes(self._bytes), bytearray()
        return taken


def zipped(folder: Path) -> Iterator[bytes]:
    """A zip of the folder's files in their order, piece by piece, those that are being written left out; they are
    compressed already."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.glob("[!.]*")):
            with (
                open(path, "rb") as source,
                archive.open(zipfile.ZipInfo.from_file(path, path.name), "w", force_zip64=True) as member,
            ):
                while block := source.read(_BLOCK):
                    member.write(block)
                    yield written.take()
    yield written.take()
