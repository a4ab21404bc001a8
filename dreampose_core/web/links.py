"""Signed links to results, each valid for ten minutes and one thing, and the secret that signs them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from urllib.parse import quote

from itsdangerous import BadSignature, TimestampSigner

from ..errors import StorageError
from ..files import appearing
from ..settings import Settings

LIFETIME_S = 600


def installation_secret(settings: Settings) -> str:
    """Return the secret of this installation: `settings.secret`, else the one in its data folder (created on first use,
    mode 0600).

    An attached bucket gets a copy, so that the server recognises browsers after a restart on an empty disk.
    Raises StorageError when the data folder or the bucket cannot be used.
    """
    if settings.secret:
        return settings.secret
    path = settings.home / "secret"
    temporary = settings.home / f".part.{secrets.token_hex(8)}.secret"
    copy = settings.bucket / "secret" if settings.bucket is not None else None
    try:
        if not path.exists():
            settings.home.mkdir(parents=True, exist_ok=True)
            made = copy.read_text(encoding="ascii") if copy is not None and copy.is_file() else secrets.token_hex(32)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(made)
            try:
                os.link(temporary, path)  # if two servers start at once, the first one's secret stays
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        if copy is not None and not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with appearing(copy) as part:
                part.touch(mode=0o600)
                part.write_text(path.read_text(encoding="ascii"), encoding="ascii")
        return path.read_text(encoding="ascii")
    except OSError as error:
        where = (
            "bucket"
            if copy is not None and str(error.filename or "").startswith(str(settings.bucket))
            else "data folder"
        )
        folder, option = (settings.bucket, "--bucket") if where == "bucket" else (settings.home, "--home")
        raise StorageError(
            f"The {where} {folder} cannot be used ({error.strerror}); choose another with {option}."
        ) from error


def derived_key(secret: str, purpose: str) -> bytes:
    """Return 32 bytes for one purpose, so that a key given away (the browser's) reveals nothing about another (the
    links')."""
    return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).digest()


class ResultLinks:
    """Maker and checker of signed links of the form results/<job>/<thing>/<name>?signed=..."""

    def __init__(self, secret: str, lifetime_s: int = LIFETIME_S):
        self.lifetime_s = lifetime_s
        self._signer = TimestampSigner(secret, "result links", digest_method=hashlib.sha256)

    def make(self, job_id: str, name: str, thing: str = "video") -> str:
        """Return a link, relative to the page, that serves a thing of a job (see `JobFolder.thing`) as `name` for
        `lifetime_s` seconds from now.

        For thing "subject" (its folder) or "person" (its photo), job_id is OWNER-KEY of the subject.
        The caller must have checked that the link's receiver owns the job or the subject.
        """
        path = f"{job_id}/{thing}/{name}"
        return f"results/{quote(path)}?signed={self._signer.sign(path).decode().removeprefix(f'{path}.')}"

    def valid(self, job_id: str, name: str, signed: str, thing: str = "video") -> bool:
        """Return whether these are the parts of a link from `make` that has not expired."""
        try:
            self._signer.unsign(f"{job_id}/{thing}/{name}.{signed}", max_age=self.lifetime_s)
        except BadSignature:
            return False
        return True
