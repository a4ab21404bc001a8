"""What the server knows a visitor by: owner tokens, signed links to results, and the secret that signs them."""

from __future__ import annotations

import hashlib
import re
import secrets
from urllib.parse import quote

from itsdangerous import BadSignature, TimestampSigner

from ..errors import StorageError
from ..files import appearing, locked
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
