"""Several photos of one person, each with its own map, brought together for whatever is tuned to them; for every
door."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..poses import PoseSequence, converted, people
from ..poses.people import several
from ..settings import FrameOptions
from .framing import fit_photo

NOT_USED = "Only the first photo was used: the others serve the learning of a person, and here nobody was learned."


@dataclass(frozen=True)
class Photo:
    """A photo of a person, uint8 (H, W, 3). image_poses: its own map, of one frame, or None. name: what its owner calls
    it."""

    image: np.ndarray
    image_poses: PoseSequence | None
    name: str


def fit_photos(
    photos: Sequence[Photo], size: tuple[int, int], options: FrameOptions, bilinear: bool = False
) -> list[Photo]:
    """The photos and their maps at (height, width) `size`, each around its own person, see `scene.fit_photo`. Raises
    InputError with the photo's name."""
    fitted = []
    for photo in photos:
        try:
            image, own, _ = fit_photo(photo.image, photo.image_poses, size, options, bilinear)
        except InputError as error:
            raise InputError(f"{photo.name}: {error}") from error
        fitted.append(replace(photo, image=image, image_poses=own))
    return fitted


def maps_together(photos: Sequence[Photo]) -> tuple[PoseSequence | None, tuple[str, ...]]:
    """The maps of fitted photos as one sequence, in their order, as tuning takes it, and sentences about what of them
    is not used.

    None where one is unknown: a person is tuned to with all maps or with none. U, V of different charts do not belong
    together, nor do maps of which only some know the parts. Raises InputError where nothing is left that all of them
    know.
    """
    maps = [photo.image_poses for photo in photos]
    if len(maps) == 1:
        return maps[0], ()
    unknown = [photo.name for photo in photos if photo.image_poses is None]
    if unknown:
        said = f"The DensePose of {', '.join(unknown)} is unknown, so the person is learned without that of any photo."
        return None, (said,) if len(unknown) < len(maps) else ()
    maps = [converted(own, maps[0].charts) for own in maps]
    one = len({own.charts for own in maps}) == 1
    same = {"parts": all(own.parts is not None for own in maps), "uv": one and maps[0].uv is not None}
    if not any(same.values()):
        raise InputError(
            "Of the photos' maps some know only the parts and some only U, V; give maps of one kind, or fewer photos."
        )
    parts, uv = (np.concatenate([getattr(own, kind) for own in maps]) if has else None for kind, has in same.items())
    dropped = uv is None and any(own.uv is not None for own in maps)
    said = (
        ("Not all the photos' maps have U, V in the same charts, so the person is learned with their parts alone.",)
        if dropped
        else ()
    )
    return PoseSequence(parts, uv, maps[0].charts if uv is not None else "none"), said


def naming(sentences: Iterable[str], name: str) -> tuple[str, ...]:
    """What an estimator says of a photo, about the photo of that name."""
    return tuple(sentence.replace("in the photo", f"in {name}") for sentence in sentences)


def crowds(photos: Sequence[Photo]) -> tuple[str, ...]:
    """A sentence for each photo that shows several people, as far as its map tells."""
    known = [photo for photo in photos if photo.image_poses is not None and photo.image_poses.parts is not None]
    numbers = [(photo.name, len(people(photo.image_poses.parts[0]))) for photo in known]
    return tuple(f"{name}: {several(number)}" for name, number in numbers if number > 1)
