"""The engine that runs the model in this process; `cluster.Cluster` has the same three members: model, tune, frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from ..inputs.framing import Scene
from ..model import memory
from ..model.config import ModelConfig, Sampling
from ..model.pipeline import DreamPosePipeline
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop
from ..settings import AnimateOptions
from ..subject.finetuning import finetune
from ..subject.folder import Subject, fingerprint, subject_loaded


@dataclass(frozen=True)
class ModelInfo:
    """A description of a model, for code that does not hold the model itself.

    factor: side of a latent cell in pixels. fingerprint: of its weights, see `subject.folder`. device, precision: where
    and in what it computes, for the result. safety_checker: whether one inspects the frames.
    """

    config: ModelConfig
    factor: int
    fingerprint: str
    device: str
    precision: str | None
    safety_checker: bool


def sampling(config: ModelConfig, options: AnimateOptions) -> Sampling:
    """Return how frames with these options are denoised."""
    return config.sampling(options.quality, num_inference_steps=options.steps, solver=options.solver)


class LocalEngine:
    """The model in this process. peaks: peak memory of the last frames, see `memory.peaks`."""

    def __init__(self, pipe: DreamPosePipeline):
        device, checked = str(pipe._execution_device), pipe.safety_checker is not None
        self.pipe = pipe
        self.model = ModelInfo(pipe.model_config, pipe.factor, fingerprint(pipe), device, pipe.precision, checked)
        self.peaks: dict[str, int] = {}

    def tune(
        self,
        photos: list[np.ndarray],
        image_poses: PoseSequence | None,
        options: AnimateOptions,
        folder: Path,
        *,
        checkpoints: Path,
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> Subject:
        """Write the subject `folder` as `finetune` does, with the options' recipe and seed."""
        how = {"checkpoints": checkpoints, "on_progress": on_progress, "should_stop": should_stop}
        return finetune(self.pipe, photos, image_poses, options.recipe, options.seed, folder, **how)

    def frames(
        self,
        scene: Scene,
        options: AnimateOptions,
        subject: Path | None,
        batches: Sequence[range],
        should_stop: ShouldStop,
        **callbacks: Callable,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number and the pixels, uint8 (H, W, 3), of each frame in `batches`; on a cluster in any order.

        subject: a subject folder, or None for the model as it is. A batch is made together, unless it does not fit in
        memory.
        callbacks: on_step, on_smaller and on_hidden, as in `DreamPosePipeline.stream`.
        Raises Cancelled, checked at every step, and ModelError.
        """
        how = {"batches": batches, "batch_size": max(map(len, batches), default=1), "should_stop": should_stop}
        how |= {"image_guidance": options.image_guidance, "pose_guidance": options.pose_guidance} | callbacks
        how |= vars(sampling(self.pipe.model_config, options))
        generator = torch.Generator().manual_seed(options.seed)
        stream = self.pipe.stream(scene.photo, scene.poses, scene.image_poses, generator=generator, **how)
        loaded = nullcontext() if subject is None else subject_loaded(self.pipe, subject)
        with loaded, memory.peaks() as self.peaks, closing(stream):
            yield from zip(chain.from_iterable(batches), stream)
