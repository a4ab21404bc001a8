"""Estimate pose maps from pictures with the body tracker or the public TorchScript export of DensePose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from operator import length_hint
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..media import Box, fit_image
from ..poses import PoseSequence, several
from ..poses.sources import reduced_size
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import BODY_TRACKER, EstimatorName

_LEAST_PERSON = 0.003  # share of the photo's pixels; anything smaller is too small to use, or not a person


class Estimator(Protocol):
    """The interface of estimators, which make pose maps from pictures.

    person: which person to follow; None for the largest. should_stop: makes `estimate` raise Cancelled. notices:
    sentences for the user of the maps. left_out: number of people in the last picture who are not in its map.
    """

    person: int | tuple[float, float] | None
    should_stop: ShouldStop
    notices: tuple[str, ...]
    left_out: int

    def estimate(self, images: Iterable[np.ndarray]) -> PoseSequence:
        """Estimate the maps of RGB pictures, uint8 (H, W, 3) of one size, at that size; all 0 without a person."""


def load_estimator(
    name: EstimatorName, device: str = "cpu", file: Path | None = None, colours: str = "bgr"
) -> Estimator:
    """Load the estimator `name`, "body" or "torchscript". Raises ModelError with one sentence when it is unavailable.

    device: "auto", "cpu" or "cuda". file: a TorchScript export to use instead of the one on the hub. colours: the
    channel order that the export expects.
    """
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "body":
        from .body_tracker import BodyTracker

        return BodyTracker(BODY_TRACKER, device)
    from .torchscript import TorchScriptEstimator

    return TorchScriptEstimator(file, device, colours)


class Estimates:
    """An estimator that is loaded at its first use; the arguments are those of `load_estimator`.

    person, motion_person: which person to follow in photos, and in clips, when there are several, counted from 1 (body:
    from the left; torchscript: from the largest); None for the largest. callback: the `estimate` argument of
    `poses.read_any` for clips; None when `name` is "none". notices: the estimator's notices about its last use.
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
        self._how = name, device, file, colours
        self._name, self._person = name, person
        self._on_progress, self._should_stop = on_progress, should_stop
        self.callback: Callable[[Iterable[np.ndarray]], PoseSequence] | None = (
            None if name == "none" else lambda images: self._estimate(images, motion_person)
        )

    @cached_property
    def _estimator(self) -> Estimator:
        estimator = load_estimator(*self._how)
        estimator.should_stop = self._should_stop
        return estimator

    @property
    def used(self) -> bool:
        """Whether anything has been estimated yet."""
        return "_estimator" in vars(self)

    @property
    def notices(self) -> tuple[str, ...]:
        return self._estimator.notices if self.used else ()

    def of_photo(
        self, photo: np.ndarray, person_at: tuple[int, int] | None = None
    ) -> tuple[PoseSequence | None, tuple[str, ...]]:
        """Estimate the map (one frame) of a photo, uint8 (H, W, 3), None without an estimator; returns it with notices.

        person_at: column and row of a point on the person, in pixels; only the body tracker heeds it.
        Raises InputError when no person is found.
        """
        if self.callback is None:
            return None, ()
        size, small, person = photo.shape[:2], reduced_size(photo.shape[:2]), self._person
        if person_at is not None and self._name == "body":
            person = person_at[0] * small[1] / size[1], person_at[1] * small[0] / size[0]
        found = self._estimate([fit_image(photo, small, Box(0, 0, *size))], person)
        if found.mask.mean() < _LEAST_PERSON:
            raise InputError("No person was found in the photo; choose one that shows a person from head to foot.")
        return found, (several(1 + self._estimator.left_out),) if self._estimator.left_out else ()

    def with_joints(self, poses: PoseSequence | None) -> PoseSequence | None:
        """Add the joints of the person, which the body tracker finds from the parts of the maps.

        Returns `poses` unchanged when the estimator is another one or no joints are found.
        """
        if poses is None or poses.joints is not None or poses.parts is None or self._name != "body":
            return poses
        return self._estimator.with_joints(poses, self._on_progress)

    def _estimate(self, images: Iterable[np.ndarray], person: int | tuple[float, float] | None) -> PoseSequence:
        self._estimator.person = person
        clock = StageClock("estimating", max(1, length_hint(images)), self._on_progress)

        def watched() -> Iterator[np.ndarray]:
            for index, image in enumerate(images):
                check_stop(self._should_stop)
                clock.tick(min(index, clock.total))
                yield image

        clock.tick(0)
        found = self._estimator.estimate(watched())
        clock.tick(clock.total)
        return found
