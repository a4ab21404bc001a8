"""Whether a photo may be made to move: of the shipped people, who were drawn, yes; for all others somebody says that
they agreed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..jobs.records import Consent
from .examples import Person


def consent_to(photos: Sequence[Path], people: list[Person], given: object) -> Consent:
    """Why `photos` may be used. people: the shipped ones. given: True where somebody said so. Raises InputError where
    nobody did."""
    drawn = {person.image.resolve() for person in people}
    if all(photo.resolve() in drawn for photo in photos):
        return "drawn"
    if given is not True:
        raise InputError(
            "Say first that the person in the photo agreed: tick the box below the photo, or send consent=true."
        )
    return "given"
