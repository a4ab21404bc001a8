"""The route that serves the results of jobs to holders of a fresh signed link; a folder becomes a zip, made while it is
sent."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from zipstream import ZipStream

from ..jobs.records import JobFolder
from .links import LIFETIME_S, ResultLinks


def add_results(app: FastAPI, home: Path, links: ResultLinks) -> None:
    """Add the route. home: the data folder, absolute."""

    @app.api_route("/results/{job_id}/{thing}/{name}", methods=["GET", "HEAD"])
    def result(job_id: str, thing: str, name: str, signed: str = "", download: str = "") -> Response:
        """A thing of a job's. Expired, forged and foreign links, unknown jobs and what is not there get the same
        answer."""
        headers = {"Cache-Control": f"private, max-age={LIFETIME_S}", "X-Content-Type-Options": "nosniff"}
        path = _place(home, job_id, thing) if links.valid(job_id, name, signed, thing) else None
        if path is not None and path.is_dir():
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
            return StreamingResponse(zipped(path), media_type="application/zip", headers=headers)
        if path is not None and thing != "latent_preview":
            how = {"filename": name, "content_disposition_type": "attachment" if download else "inline"}
            return FileResponse(path, headers=headers, **how)
        if path is not None:
            with suppress(FileNotFoundError):  # it is replaced, and deleted at last, while it is asked for
                return Response(path.read_bytes(), media_type="image/png", headers=headers)
        return JSONResponse({"error": "This link is unknown or has expired; open the page again for a new one."}, 404)


def _place(home: Path, whose: str, thing: str) -> Path | None:
    """Return the path of a job's thing, of a "subject" or of its photo ("person"), None if it does not exist.

    whose: the first part of the signed link, the job's id or OWNER-KEY of the subject.
    """
    if thing not in ("person", "subject"):
        return JobFolder(home / "jobs" / whose).thing(thing)
    folder = home / "subjects" / whose.replace("-", "/", 1)
    found = folder / "photo_000.png" if thing == "person" else folder
    return found if found.exists() else None


def zipped(folder: Path) -> ZipStream:
    """A zip of the folder's files, made while it is read; without files that are being written. It is uncompressed,
    because the files are compressed already."""
    archive = ZipStream()
    for path in sorted(folder.glob("[!.]*")):
        archive.add_path(path, path.name)
    return archive
