"""Who may do what: owner tokens, and consent to move a photo.

A token is 256 random bits that only the visitor keeps; the server stores a hash of it with each job.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..jobs.records import Consent
from .examples import Person

_TOKEN = re.compile(r"[0-9A-Za-z_-]{43}")


def new_token() -> str:
    """A new owner token. Keep it: it alone shows your jobs, and the server does not store it."""
    return secrets.token_urlsafe(32)


def is_token(value: object) -> bool:
    """Whether this has the form of an owner token."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def consent_to(photos: Sequence[Path], people: Iterable[Person], given: object) -> Consent:
    """Why `photos` may be moved: they show shipped people, which were drawn, or their owner said so. Raises InputError
    without that."""
    drawn = {person.image.resolve() for person in people}
    if all(photo.resolve() in drawn for photo in photos):
        return "drawn"
    if given is not True:
        raise InputError(
            "Say first that the person in the photo agreed: tick the box above the button, or send consent=true."
        )
    return "given"
