"""Small pictures of what a model makes of a person while it is tuned to them; few, cheap, and without a trace in what
is learned."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import Cancelled
from ..files import remove_all_unfinished
from ..inputs.framing import Scene
from ..media import fit_image, write_png
from ..model import memory
from ..model.pipeline import DreamPosePipeline
from ..poses import WINDOW, window_indices
from ..progress import ShouldStop
from ..settings import AnimateOptions

SAMPLES = "samples"  # the folder: 000017.png is what comes out after 17 steps
_THIRDS = 3  # of the UNet's steps; with the one before and the one after all of it five pictures
_STEPS = 6  # of denoising, where the model takes more
_SIDE = 160  # pixels of the longer side
log = logging.getLogger("dreampose.samples")


class Samples:
    """Pictures of a scene's middle frame, each from the weights that the pipeline has at that moment, in a folder.

    options: of the frames that are made later; the pictures are drafts of these. Those that an interrupted tuning left
    in the folder are not made again. seconds: how long the pictures took so far.
    """

    def __init__(
        self, pipe: DreamPosePipeline, scene: Scene, options: AnimateOptions, folder: Path, should_stop: ShouldStop
    ):
        self.folder, self.seconds = folder, 0.0
        self._pipe, self._scene, self._options, self._should_stop = pipe, scene, options, should_stop
        self._newest = max((int(path.stem) for path in folder.glob("[0-9]*.png")), default=-1)
        self._failed = False
        if folder.is_dir():
            remove_all_unfinished(folder)

    def take(self, step: int, total: int) -> None:
        """Takes a picture after `step` of `total` steps, unless there is one since the last third of these began.

        Raises Cancelled. Whatever else goes wrong is logged and costs the pictures only: there are no more then.
        """
        if self._failed or self._newest * _THIRDS // total >= step * _THIRDS // total:
            return
        started = time.monotonic()
        try:
            with _left_as_it_is(self._pipe):
                frame = self._frame()
            scale = min(1.0, _SIDE / max(frame.shape[:2]))
            self.folder.mkdir(exist_ok=True)
            write_png(
                fit_image(frame, (round(frame.shape[0] * scale), round(frame.shape[1] * scale))),
                self.folder / f"{step:06d}.png",
            )
            self._newest = step
        except Cancelled:
            raise
        except Exception as error:  # nobody shall lose what is learned to a picture of it
            self._failed = True
            log.warning("No more pictures of the learning, the one after step %d could not be made: %s", step, error)
        finally:
            self.seconds += time.monotonic() - started
        if self._failed:
            memory.let_go()  # out here, where the error no longer holds what was computed

    def clear(self) -> None:
        """Removes the pictures: what they show is not what is learned now."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._newest = -1

    def _frame(self) -> np.ndarray:
        """uint8 (H, W, 3), made as the middle frame of the video will be, but in fewer steps."""
        pipe, scene, options = self._pipe, self._scene, self._options
        draft = pipe.model_config.sampling("draft")
        steps = min(_STEPS, options.steps or draft.num_inference_steps)
        around = scene.poses.select(window_indices(len(scene.poses) // 2, len(scene.poses)))
        low = pipe.vae.dtype  # the model's precision; what is trained is in float32 meanwhile
        with torch.autocast(pipe.unet.device.type, low, enabled=low != torch.float32):
            frames = pipe.stream(
                scene.photo,
                around,
                scene.image_poses,
                image_guidance=options.image_guidance,
                pose_guidance=options.pose_guidance,
                generator=torch.Generator().manual_seed(options.seed),
                batch_size=1,
                first_frame=WINDOW.index(0),
                should_stop=self._should_stop,
                **vars(replace(draft, num_inference_steps=steps)),
            )
            try:
                return next(frames)
            finally:
                frames.close()


@contextmanager
def _left_as_it_is(pipe: DreamPosePipeline) -> Iterator[None]:
    """In this context the networks are in the mode for use; afterwards each of their modules is in the mode it was
    in."""
    networks = (pipe.unet, pipe.vae, pipe.adapter, pipe.image_encoder)
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
