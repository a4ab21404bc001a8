"""DensePose from pictures: the body tracker, the public TorchScript export."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import length_hint
from pathlib import Path
from typing import Protocol

import numpy as np

from ..media import Box, fit_image
from ..poses import MAX_MAP_SIDE, PoseSequence
from ..poses.people import several
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import BODY_TRACKER, EstimatorName

_LEAST_PERSON = 0.003  # of the photo: a smaller one is of no use, or a speck of something else


class Estimator(Protocol):
    """Makes DensePose from pictures.

    person: whom to follow, None for the largest. notices: sentences that whoever uses its maps should read.
    left_out: how many people the last picture shows beside
    the one in its map.
    """

    person: int | None
    notices: tuple[str, ...]
    left_out: int

    def estimate(self, images: Iterable[np.ndarray]) -> PoseSequence:
        """Maps of uint8 (H, W, 3) pictures of one size, RGB, at their size; all 0 where nobody was found."""


def load_estimator(
    name: EstimatorName, device: str = "cpu", file: Path | None = None, colours: str = "bgr", person: int | None = None
) -> Estimator | None:
    """The estimator `name`, None for "none". Raises ModelError with one sentence when it cannot be had.

    device: "auto", "cpu" or "cuda". file: a TorchScript export to use instead of the one on the hub; colours: the
    channel order it wants. person: which one to follow where there are several, counted from 1 (body: from the left;
    torchscript: from the largest); None for the largest.
    """
    if name == "none":
        return None
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "body":
        from .body_tracker import BodyTracker

        return BodyTracker(BODY_TRACKER, device, person)
    from .torchscript import TorchScriptEstimator

    return TorchScriptEstimator(file, device=device, color_order=colours, person=person)


class Estimates:
    """An estimator that is loaded when it is first needed; arguments as `load_estimator`'s.

    person, motion_person: whom to follow in photos, and in clips. callback: what `poses.read_any` takes for clips, None
    for "none". notices: the estimator's about what it was used for last.
    """

    def __init__(
        self,
        name: EstimatorName,
        device: str = "cpu",
        file: Path | None = None,
        colours: str = "bgr",
        person: int | None = None,
        motion_person: int | None = None,
        *,
        on_progress: OnProgress = ignore_progress,
        should_stop: ShouldStop = never_stop,
    ):
        self._load = lambda: load_estimator(name, device, file, colours, person or motion_person)
        self._name, self._person = name, person
        self._on_progress, self._should_stop = on_progress, should_stop
        self._estimator: Estimator | None = None
        self.callback: Callable[[Iterable[np.ndarray]], PoseSequence] | None = (
            None if name == "none" else lambda images: self._estimate(images, motion_person)
        )

    @property
    def used(self) -> bool:
        """Whether anything has been estimated."""
        return self._estimator is not None

    @property
    def notices(self) -> tuple[str, ...]:
        return () if self._estimator is None else self._estimator.notices

    def of_photo(self, photo: np.ndarray) -> tuple[PoseSequence | None, tuple[str, ...]]:
        """The map (one frame) of a photo uint8 (H, W, 3), and sentences; None without an estimator or where nobody is
        found."""
        if self.callback is None:
            return None, ()
        height, width = photo.shape[:2]
        scale = min(1.0, MAX_MAP_SIDE / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        found = self._estimate([fit_image(photo, size, Box(0, 0, height, width))], self._person)
        if found.mask.mean() < _LEAST_PERSON:
            return None, ("Nobody was found in the photo; a photo of one person seen whole works best.",)
        return found, (several(1 + self._estimator.left_out),) if self._estimator.left_out else ()

    def with_joints(self, poses: PoseSequence | None) -> PoseSequence | None:
        """The same maps with the joints of their person, which the body tracker finds in parts; as they are with
        another estimator, or where none are found."""
        if poses is None or poses.joints is not None or poses.parts is None or self._name != "body":
            return poses
        return self._loaded().with_joints(poses, on_progress=self._on_progress, should_stop=self._should_stop)

    def _loaded(self) -> Estimator:
        if self._estimator is None:
            self._estimator = self._load()
        return self._estimator

    def _estimate(self, images: Iterable[np.ndarray], person: int | None) -> PoseSequence:
        estimator = self._loaded()
        estimator.person = person
        clock = StageClock("estimating", max(1, length_hint(images)), self._on_progress)
        clock.tick(0)
        found = estimator.estimate(self._watched(images, clock))
        clock.tick(clock.total)
        return found

    def _watched(self, images: Iterable[np.ndarray], clock: StageClock) -> Iterator[np.ndarray]:
        for index, image in enumerate(images):
            check_stop(self._should_stop)
            clock.tick(min(index, clock.total))
            yield image
