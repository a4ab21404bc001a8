"""The example people and motions that the page offers, listed from the examples folder when the page is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Person:
    """An example photo; poses: the npz with the photo's own DensePose, None where it is missing."""

    name: str
    image: Path
    poses: Path | None


@dataclass(frozen=True)
class Motion:
    """An example pose sequence (npz); thumbnail: its moving picture."""

    name: str
    poses: Path
    thumbnail: Path


def example_people(folder: Path) -> list[Person]:
    """The people in `folder`/people, by name: NAME.png with NAME.poses.npz beside it."""
    people = []
    for image in sorted((folder / "people").glob("*.png")):
        poses = image.with_suffix(".poses.npz")
        people.append(Person(image.stem, image, poses if poses.is_file() else None))
    return people


def example_motions(folder: Path) -> list[Motion]:
    """The motions in `folder`/motions, by name: NAME.npz with NAME.webp or NAME.gif beside it; one without a picture is
    left out."""
    motions = []
    for poses in sorted((folder / "motions").glob("*.npz")):
        pictures = [poses.with_suffix(suffix) for suffix in (".webp", ".gif")]
        if found := [picture for picture in pictures if picture.is_file()]:
            motions.append(Motion(poses.stem, poses, found[0]))
    return motions


def title(name: str) -> str:
    """A file's name as people read it: "side_step" becomes "Side step"."""
    return name.replace("_", " ").replace("-", " ").capitalize()
