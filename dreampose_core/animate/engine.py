"""Where the networks compute: what a run has to know of the model, and the two things it has it do, tune and make
frames; here at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..inputs.framing import Scene
from ..model import memory
from ..model.config import ModelConfig, Sampling
from ..model.pipeline import DreamPosePipeline
from ..poses import PoseSequence, convertible
from ..progress import OnProgress, ShouldStop
from ..settings import AnimateOptions
from ..subject.finetuning import finetune
from ..subject.folder import Subject, fingerprint, subject_loaded
from ..subject.previews import Samples


@dataclass(frozen=True)
class ModelFacts:
    """A model, as who does not have it in memory has to know it.

    factor: pixels to a latent. fingerprint: of its weights, see `subject.folder`. device, precision: what it computes
    on and in, for the result. safety_checker: whether one looks at the frames.
    """

    model_config: ModelConfig
    factor: int
    fingerprint: str
    device: str
    precision: str | None
    safety_checker: bool

    @classmethod
    def of(cls, pipe: DreamPosePipeline) -> ModelFacts:
        device, checked = str(pipe._execution_device), pipe.safety_checker is not None
        return cls(pipe.model_config, pipe.factor, fingerprint(pipe), device, pipe.precision, checked)

    @property
    def bilinear(self) -> bool:
        """As the pipeline's."""
        return self.model_config.pose_encoding == "uv"

    def knows_charts(self, poses: PoseSequence) -> bool:
        """As the pipeline's."""
        return poses.charts == "none" or convertible(poses.charts, self.model_config.charts)


@dataclass(frozen=True)
class Tuning:
    """A person to be learned.

    photos: uint8 (H, W, 3) each; image_poses: their maps, one each, or None. options: of the frames to come; recipe and
    seed count, and for pictures of the learning the others. key: of the subject. scene: of which these pictures are,
    None for no pictures.
    """

    photos: list[np.ndarray]
    image_poses: PoseSequence | None
    options: AnimateOptions
    key: str
    scene: Scene | None


@dataclass(frozen=True)
class Making:
    """Frames to be made: of a scene, for a subject's folder or for nobody's."""

    scene: Scene
    options: AnimateOptions
    subject: Path | None


@dataclass(frozen=True)
class Watch:
    """Who is told of frames in the making; see `DreamPosePipeline.stream` for when, and for what is given."""

    on_step: Callable[[int, int], None]
    on_smaller: Callable[[int], None]
    on_latent_preview: Callable[[int, np.ndarray], None]
    on_hidden: Callable[[int], None]


class Engine(Protocol):
    """What computes. `peaks`: the most memory that the last frames took, as `memory.peaks` tells it."""

    model: ModelFacts
    peaks: dict[str, int]

    def tune(
        self,
        tuning: Tuning,
        folder: Path,
        *,
        checkpoints: Path,
        samples: Path,
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> tuple[Subject, float]:
        """Writes the subject folder; returns what it holds and the seconds that pictures of the learning took.

        checkpoints: a folder from which a call that was interrupted goes on. samples: the folder for the pictures.
        Errors as `finetune`.
        """

    def frames(
        self, making: Making, batches: Sequence[range], watch: Watch, should_stop: ShouldStop
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The number and the pixels, uint8 (H, W, 3), of each frame in `batches`, in whatever order they get ready.

        A batch is made together, unless memory does not hold it. Raises Cancelled, asked at every step, and ModelError.
        """


def sampling(config: ModelConfig, options: AnimateOptions) -> Sampling:
    """How frames are denoised that are made with these options."""
    given = {"num_inference_steps": options.steps, "solver": options.solver}
    return replace(
        config.sampling(options.quality), **{name: value for name, value in given.items() if value is not None}
    )


class LocalEngine:
    """The model in this process."""

    def __init__(self, pipe: DreamPosePipeline):
        self.pipe, self.model = pipe, ModelFacts.of(pipe)
        self.peaks: dict[str, int] = {}

    def tune(
        self,
        tuning: Tuning,
        folder: Path,
        *,
        checkpoints: Path,
        samples: Path,
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> tuple[Subject, float]:
        taken = None
        if tuning.scene is not None:
            taken = Samples(self.pipe, tuning.scene, tuning.options, samples, should_stop)
            if not checkpoints.is_dir():
                taken.clear()
        subject = finetune(
            self.pipe,
            tuning.photos,
            tuning.image_poses,
            tuning.options.recipe,
            tuning.options.seed,
            folder,
            key=tuning.key,
            base=self.model.fingerprint,
            checkpoints=checkpoints,
            samples=taken,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        return subject, 0.0 if taken is None else taken.seconds

    def frames(
        self, making: Making, batches: Sequence[range], watch: Watch, should_stop: ShouldStop
    ) -> Iterator[tuple[int, np.ndarray]]:
        with self.loaded(making.subject), memory.peaks() as self.peaks:
            yield from self.made(making, batches, watch, should_stop)

    @contextmanager
    def loaded(self, subject: Path | None) -> Iterator[None]:
        """The model carries the subject inside the block, and nobody afterwards."""
        if subject is None:
            yield
        else:
            with subject_loaded(self.pipe, subject):
                yield

    def made(
        self, making: Making, batches: Sequence[range], watch: Watch, should_stop: ShouldStop
    ) -> Iterator[tuple[int, np.ndarray]]:
        """As `frames`, by the model as it is now."""
        scene, options = making.scene, making.options
        stream = self.pipe.stream(
            scene.photo,
            scene.poses,
            scene.image_poses,
            image_guidance=options.image_guidance,
            pose_guidance=options.pose_guidance,
            generator=torch.Generator().manual_seed(options.seed),
            batches=batches,
            batch_size=max(map(len, batches), default=1),
            should_stop=should_stop,
            on_step=watch.on_step,
            on_smaller=watch.on_smaller,
            on_hidden=watch.on_hidden,
            on_latent_preview=watch.on_latent_preview if batches and batches[0].start == 0 else None,
            **vars(sampling(self.pipe.model_config, options)),
        )
        with closing(stream):
            for batch in batches:
                for index in batch:
                    yield index, next(stream)
