"""Progress pictures of a person during fine-tuning: few, cheap, and without effect on the training."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from ..errors import Cancelled
from ..files import remove_unfinished
from ..inputs.framing import Scene
from ..media import fit_image, write_png
from ..model import memory
from ..model.pipeline import DreamPosePipeline
from ..poses import WINDOW, window_indices
from ..progress import ShouldStop
from ..settings import AnimateOptions

SAMPLES = "samples"  # the folder: 000017.png is the result after 17 steps
_THIRDS = 3  # pictures during the UNet's steps; with one before and one after them, five
_STEPS = 6  # most denoising steps
_SIDE = 160  # pixels of the longer side
log = logging.getLogger("dreampose.samples")


class Samples:
    """Pictures of a scene's middle frame from the pipeline's current weights, in a folder.

    options: of the video's frames, of which the pictures are drafts. Pictures that an interrupted tuning left in the
    folder are kept. seconds: time spent on pictures so far.
    """

    def __init__(
        self, pipe: DreamPosePipeline, scene: Scene, options: AnimateOptions, folder: Path, should_stop: ShouldStop
    ):
        self.folder, self.seconds = folder, 0.0
        self._pipe, self._scene, self._options, self._should_stop = pipe, scene, options, should_stop
        self._newest = max((int(path.stem) for path in folder.glob("[0-9]*.png")), default=-1)
        self._failed = False
        if folder.is_dir():
            remove_unfinished(folder)

    def take(self, step: int, total: int) -> None:
        """Take a picture after `step` of `total` steps, unless the current third of these has one.

        Raises Cancelled. Any other error is logged and disables further pictures, but does not stop the tuning.
        """
        if self._failed or self._newest * _THIRDS // total >= step * _THIRDS // total:
            return
        started = time.monotonic()
        try:
            frame = self._frame()
            scale = min(1.0, _SIDE / max(frame.shape[:2]))
            size = round(frame.shape[0] * scale), round(frame.shape[1] * scale)
            self.folder.mkdir(exist_ok=True)
            write_png(fit_image(frame, size), self.folder / f"{step:06d}.png")
            self._newest = step
        except Cancelled:
            raise
        except Exception as error:  # a failed picture must not cost the tuning
            self._failed = True
            log.warning("Progress pictures are disabled; the one after step %d failed: %s", step, error)
        finally:
            self.seconds += time.monotonic() - started
        if self._failed:
            memory.let_go()  # outside of except, where the error no longer keeps tensors alive

    def clear(self) -> None:
        """Remove the pictures, which show weights that are no longer used."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._newest = -1

    def _frame(self) -> np.ndarray:
        """Make the middle frame of the video in fewer steps: uint8 (H, W, 3)."""
        pipe, scene, options = self._pipe, self._scene, self._options
        config = pipe.model_config
        steps = min(_STEPS, options.steps or config.draft_steps)
        middle = WINDOW.index(0)
        around = scene.poses.select(window_indices(len(scene.poses) // 2, len(scene.poses)))
        low = pipe.vae.dtype  # the model's precision; trained weights are in float32 meanwhile
        frames = pipe.stream(
            scene.photo,
            around,
            scene.image_poses,
            image_guidance=options.image_guidance,
            pose_guidance=options.pose_guidance,
            generator=torch.Generator().manual_seed(options.seed),
            batches=[range(middle, middle + 1)],
            should_stop=self._should_stop,
            **vars(config.sampling("draft", num_inference_steps=steps)),
        )
        with torch.autocast(pipe.unet.device.type, low, enabled=low != torch.float32), closing(frames):
            return next(frames)
