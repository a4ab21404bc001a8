"""Owner tokens: 256 random bits that only the visitor keeps say whose a job is; the server stores a hash of them with
each job."""

from __future__ import annotations

import re
import secrets

_TOKEN = re.compile(r"[0-9A-Za-z_-]{43}")


def new_token() -> str:
    """A token that nobody has had before."""
    return secrets.token_urlsafe(32)


def is_token(value: object) -> bool:
    """Whether this has the form of an owner token."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None
