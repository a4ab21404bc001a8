"""What the server knows a visitor by: owner tokens, and signed links to results with the route that serves them. A
folder becomes a zip, made while it is sent."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from itsdangerous import BadSignature, TimestampSigner
from zipstream import ZipStream

from ..errors import StorageError
from ..files import appearing, locked
from ..jobs.records import JobFolder
from ..settings import Settings

LIFETIME_S = 600


def new_token() -> str:
    """A new owner token. Keep it: it alone shows your jobs, and the server does not store it."""
    return secrets.token_urlsafe(32)


def is_token(value: object) -> bool:
    """Whether this has the form of an owner token."""
    return isinstance(value, str) and re.fullmatch(r"[0-9A-Za-z_-]{43}", value) is not None


def installation_secret(settings: Settings) -> str:
    """Return the secret of this installation: `settings.secret`, else the one in its data folder (created on first use,
    mode 0600).

    An attached bucket gets a copy, so that the server recognises browsers after a restart on an empty disk.
    Raises StorageError when the data folder or the bucket cannot be used.
    """
    if settings.secret:
        return settings.secret
    places = [folder / "secret" for folder in (settings.home, settings.bucket) if folder is not None]
    try:
        with locked(settings.home / "secret.lock"):  # two servers may start at once
            known = [place.read_text(encoding="ascii") for place in places if place.is_file()]
            secret = known[0] if known else secrets.token_hex(32)
            for place in places:
                if not place.is_file():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with appearing(place) as part:
                        part.touch(mode=0o600)
                        part.write_text(secret, encoding="ascii")
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be used ({error.strerror}); choose another folder.") from error
    return secret


class ResultLinks:
    """Maker and checker of signed links of the form results/<job>/<thing>/<name>?signed=..."""

    def __init__(self, secret: str):
        self._signer = TimestampSigner(secret, "result links", digest_method=hashlib.sha256)

    def make(self, job_id: str, name: str, thing: str = "video") -> str:
        """Return a link, relative to the page, that serves a thing of a job (see `JobFolder.thing`) as `name` for
        LIFETIME_S seconds from now.

        For thing "subject" (its folder) or "person" (its photo), job_id is OWNER-KEY of the subject.
        The caller must have checked that the link's receiver owns the job or the subject.
        """
        path = f"{job_id}/{thing}/{name}"
        return f"results/{quote(path)}?signed={self._signer.sign(path).decode().removeprefix(f'{path}.')}"

    def valid(self, job_id: str, name: str, signed: str, thing: str = "video") -> bool:
        """Return whether these are the parts of a link from `make` that has not expired."""
        try:
            self._signer.unsign(f"{job_id}/{thing}/{name}.{signed}", max_age=LIFETIME_S)
        except BadSignature:
            return False
        return True


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
        if path is not None:
            how = {"filename": name, "content_disposition_type": "attachment" if download else "inline"}
            return FileResponse(path, headers=headers, **how)
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
