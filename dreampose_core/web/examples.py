"""The example people and motions that the page offers, listed from the examples folder when the page is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Person:
    """An example photo; poses: the npz with the photo's own DensePose, None where it is missing."""

    image: Path
    poses: Path | None


@dataclass(frozen=True)
class Pair:
    """A finished video of an example person in an example motion."""

    motion: str
    person: str
    video: Path

    @property
    def name(self) -> str:
        return self.video.stem

    @property
    def title(self) -> str:
        return f"{self.person.capitalize()}, {self.motion.replace('_', ' ')}"

    @property
    def poster(self) -> Path:
        return self.video.with_suffix(".webp")

    @property
    def shown(self) -> dict[str, str]:
        """What the stage plays."""
        return {"video": f"gradio_api/file={self.video}", "caption": self.title}


def example_people(folder: Path) -> dict[str, Person]:
    """The people in `folder`/people by name: NAME.png, with NAME.poses.npz next to it."""
    people = {}
    for image in sorted((folder / "people").glob("*.png")):
        poses = image.with_suffix(".poses.npz")
        people[image.stem] = Person(image, poses if poses.is_file() else None)
    return people


def example_motions(folder: Path) -> dict[str, Path]:
    """The motions in `folder`/motions, npz, by name."""
    return {poses.stem: poses for poses in sorted((folder / "motions").glob("*.npz"))}


def ready_made(folder: Path) -> list[Pair]:
    """The finished videos in `folder`/ready: MOTION-PERSON.mp4, each with a poster."""
    return [Pair(*video.stem.split("-"), video) for video in sorted((folder / "ready").glob("*-*.mp4"))]
