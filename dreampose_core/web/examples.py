"""The shipped people, motions and finished videos, which everybody may read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..settings import EXAMPLES

FOLDERS = [EXAMPLES / name for name in ("people", "motions", "ready")]
PEOPLE = {photo.stem: photo for photo in sorted((EXAMPLES / "people").glob("*.png"))}
MOTIONS = {motion.stem: motion for motion in sorted((EXAMPLES / "motions").glob("*.npz"))}


def is_example(photo: Path) -> bool:
    """Whether this is the photo of an example person."""
    return photo.resolve() in PEOPLE.values()


def poses_of(example: Path) -> Path:
    """The DensePose of an example person's photo."""
    return example.with_suffix(".poses.npz")


@dataclass(frozen=True)
class Pair:
    """A finished video of an example person in an example motion: MOTION-PERSON.mp4, with a poster."""

    video: Path

    @property
    def motion(self) -> str:
        return self.video.stem.split("-")[0]

    @property
    def person(self) -> str:
        return self.video.stem.split("-")[1]

    @property
    def title(self) -> str:
        return f"{self.person.capitalize()}, {self.motion.replace('_', ' ')}"

    @property
    def shown(self) -> dict[str, str]:
        """What the stage plays."""
        return {"video": f"gradio_api/file={self.video}", "caption": self.title}


READY = {pair.motion: pair for pair in map(Pair, sorted((EXAMPLES / "ready").glob("*-*.mp4")))}
