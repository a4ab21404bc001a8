"""Progress pictures of a person during fine-tuning: few, cheap, and without effect on the training."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import Cancelled
from ..files import remove_unfinished
from ..inputs.framing import Scene
from ..media import shrunk, write_png
from ..model import memory
from ..model.config import Sampling
from ..model.pipeline import DreamPosePipeline
from ..poses import WINDOW, window_indices
from ..progress import ShouldStop
from ..settings import AnimateOptions

SAMPLES = "samples"  # the folder: 000017.png is the result after 17 steps
_THIRDS = 3  # pictures during the UNet's steps; with one before and one after them, five
_STEPS = 6  # most denoising steps
_SIDE = 160  # pixels of the longer side
log = logging.getLogger("dreampose.samples")


def scene_frames(
    pipe: DreamPosePipeline, scene: Scene, options: AnimateOptions, sampling: Sampling, **more
) -> Iterator[np.ndarray]:
    """Stream the frames of a scene; more: arguments of `DreamPosePipeline.stream`."""
    how = {"image_guidance": options.image_guidance, "pose_guidance": options.pose_guidance, **vars(sampling), **more}
    generator = torch.Generator().manual_seed(options.seed)
    return pipe.stream(scene.photo, scene.poses, scene.image_poses, generator=generator, **how)


class Samples:
    """Pictures of a scene's middle frame from the pipeline's current weights, in a folder.

    options: of the video's frames, of which the pictures are drafts. Pictures that an interrupted tuning left in the
    folder are kept.
    """

    def __init__(
        self, pipe: DreamPosePipeline, scene: Scene, options: AnimateOptions, folder: Path, should_stop: ShouldStop
    ):
        self.folder, self._failed = folder, False
        self._pipe, self._scene, self._options, self._should_stop = pipe, scene, options, should_stop
        if folder.is_dir():
            remove_unfinished(folder)

    def take(self, step: int, total: int) -> None:
        """Take a picture after `step` of `total` steps, unless the current third of these has one.

        Raises Cancelled. Any other error is logged and disables further pictures, but does not stop the tuning.
        """
        newest = max((int(path.stem) for path in self.folder.glob("[0-9]*.png")), default=-1)
        if self._failed or newest * _THIRDS // total >= step * _THIRDS // total:
            return
        try:
            frame = self._frame()
            self.folder.mkdir(exist_ok=True)
            write_png(shrunk(frame, _SIDE), self.folder / f"{step:06d}.png")
        except Cancelled:
            raise
        except Exception as error:  # a failed picture must not cost the tuning
            self._failed = True
            log.warning("Progress pictures are disabled; the one after step %d failed: %s", step, error)
        if self._failed:
            memory.let_go()  # outside of except, where the error no longer keeps tensors alive

    def clear(self) -> None:
        """Remove the pictures, which show weights that are no longer used."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _frame(self) -> np.ndarray:
        """Make the middle frame of the video in fewer steps: uint8 (H, W, 3)."""
        pipe, options, poses, middle = self._pipe, self._options, self._scene.poses, WINDOW.index(0)
        scene = replace(self._scene, poses=poses.select(window_indices(len(poses) // 2, len(poses))))
        config = pipe.model_config
        sampling = config.sampling("draft", num_inference_steps=min(_STEPS, options.steps or config.draft_steps))
        how = {"batches": [range(middle, middle + 1)], "should_stop": self._should_stop}
        frames = scene_frames(pipe, scene, options, sampling, **how)
        low = pipe.vae.dtype  # the model's precision; trained weights are in float32 meanwhile
        with torch.autocast(pipe.unet.device.type, low, enabled=low != torch.float32), closing(frames):
            return next(frames)
