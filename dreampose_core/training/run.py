"""Train mini in a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..errors import Diverged, InputError
from ..media import fit_image, write_png
from ..model.config import ModelConfig
from ..model.loading import load_pipeline, save_model
from ..model.mini import build_mini
from ..model.pipeline import DreamPosePipeline
from ..model.textured_vae import TexturedVAE
from ..poses import PoseSequence, render_colours
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from .base import Dropout, train_base, train_end_to_end, train_vae
from .distributed import processes
from .drawn import DrawnClips, drawn_clips
from .loop import LoopOptions
from .optimizers import optimizer_class
from .run_folder import MiniRun, claim
from .videos import VideoSamples

_SHOWN = 4  # people on a sample sheet


def mini_config(run: MiniRun) -> ModelConfig:
    """Return the config of a mini model; so small a model does not gain from more denoising steps
    (docs/experiments.md)."""
    return ModelConfig(
        height=run.size[0],
        width=run.size[1],
        reference_warp=run.reference_warp,
        free_shape=is_drawn(run),
        draft_steps=1,
        standard_steps=1,
        best_steps=2,
    )


def is_drawn(run: MiniRun) -> bool:
    """Whether the data are clips written by `draw_clips`."""
    return bool(drawn_clips(Path(run.data)))


def train_mini(
    run: MiniRun,
    folder: Path,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:
    """Train the VAE, then UNet, adapter and image encoder, then these with the VAE's decoder on pixels; True when all
    steps are done.

    Writes run.json, vae/, base/ and end_to_end/ (checkpoints, samples: see `sample_sheets`, and the files of
    `training.record`) and, at the end of every call, model/: the model folder in fp16 with averaged weights. minutes:
    time limit; `resume` continues from there. Raises InputError, Cancelled.
    """
    started, main = time.monotonic(), processes().is_main_process
    _check(run)
    source = run.init or run.vae
    kind = device.partition(":")[0]  # each of several processes has its own, such as cuda:1
    start = None if source is None else load_pipeline(source, kind).to(dtype=torch.float32)
    pipe = start
    if run.init is None:
        pipe = build_mini(mini_config(run), run.seed, unet_channels=run.unet_channels, vae=start and start.vae)
    pipe.to(device)
    samples = _samples(run, pipe, device)
    if main:
        claim(run, folder, resume)
    processes().wait_for_everyone()

    def options(steps: int, lr: float, ema: float) -> LoopOptions:
        left = None if minutes is None else max(0.0, minutes - (time.monotonic() - started) / 60)
        return LoopOptions(steps, lr, run.accumulate, run.optimizer, ema=ema, minutes=left, record=True)

    common = dict(
        precision=torch.bfloat16 if run.precision == "bf16" else torch.float32,
        checkpointing=run.gradient_checkpointing,
        on_progress=on_progress,
        should_stop=should_stop,
    )

    def frames(stage: str) -> dict:
        sample = sample_sheets(pipe, samples.held_out(_SHOWN), folder / stage / "samples")
        return dict(crop=run.crop, noisier=run.noisier, folder=folder / stage, sample=sample, **common)

    def stages() -> bool:
        # 1. the VAE, unless a trained one is given and no further steps are requested
        steps = (1200 if start is None else 0) if run.vae_steps is None else run.vae_steps
        if (steps or start is None) and not train_vae(
            pipe, samples, options(steps, run.vae_lr, 0.995), folder=folder / "vae", **common
        ):
            return False
        # 2. UNet, adapter and image encoder, on latents
        args = dict(dropout=Dropout(warp=run.warp_dropout), **frames("base"))
        if not train_base(pipe, samples, options(run.steps, run.lr, 0.998), run.seed, **args):
            return False
        # 3. these and the decoder, on pixels
        args = dict(warp_dropout=run.warp_dropout, adversarial=run.adversarial, **frames("end_to_end"))
        return train_end_to_end(
            pipe, samples, options(run.end_to_end_steps, run.end_to_end_lr, 0.998), run.seed, **args
        )

    done, diverged = False, None
    try:
        done = stages()
    except Diverged as error:
        diverged = error  # resuming would diverge again, but another run may start from the model
    if main:
        save_model(pipe, folder / "model")
    processes().wait_for_everyone()
    if diverged is not None:
        raise Diverged(f"{str(diverged).rstrip('.')} in another folder (--init {folder / 'model'}).") from diverged
    return done


def _samples(run: MiniRun, pipe: DreamPosePipeline, device: str) -> VideoSamples | DrawnClips:
    """Return the run's training samples; sets the model's charts to those of the samples. Raises InputError."""
    share = processes().process_index, processes().num_processes
    if is_drawn(run):
        if not isinstance(pipe.vae, TexturedVAE) or share[1] > 1:
            raise InputError("Drawn clips need a model whose decoder sees the moved texture, and a single process.")
        return DrawnClips(Path(run.data), pipe.model_config, run.batch_size, run.side, run.seed)
    samples = VideoSamples(run.data, pipe.model_config.size, run.batch_size, run.seed, device, share)
    if run.init is None and run.vae is None:
        raise InputError(
            "Training on clips of videos starts from a model; give it with --init, or with --vae to use only its VAE."
        )
    if run.vae_steps:
        raise InputError("A VAE learns from clips of train draw only; leave out --vae-steps.")
    if samples.charts != "none":
        pipe.change_config(charts=samples.charts)
    return samples


def sample_sheets(
    pipe: DreamPosePipeline, pairs: list[tuple[np.ndarray, PoseSequence, np.ndarray, PoseSequence]], folder: Path
) -> Callable[[int], None]:
    """Return a function of the step that writes a PNG: photo, target pose, sample, truth.

    pairs: photo, its map, truth and its map, of people held back from training; always the same ones with the same
    noise, so that the sheets of a run are comparable.
    """

    def write(step: int) -> None:
        sheet = []
        for photo, image_poses, truth, target in pairs:
            made = pipe(photo, target, image_poses, generator=torch.Generator().manual_seed(0))
            row = photo, render_colours(target)[0], made.frames[0], truth
            sheet.append(np.concatenate([fit_image(picture, pipe.model_config.size) for picture in row], 1))
        folder.mkdir(parents=True, exist_ok=True)
        write_png(np.concatenate(sheet), folder / f"step-{step:06d}.png")

    return write


def _check(run: MiniRun) -> None:
    """Raise InputError unless this machine and these processes can train as the run asks."""
    optimizer_class(run.optimizer)
    if run.init is not None and run.vae is not None:
        raise InputError(
            "Both init and vae are given; the model that training starts from has a VAE, so leave out vae."
        )
    if run.batch_size % (count := processes().num_processes):
        raise InputError(
            f"A batch of {run.batch_size} cannot be shared by {count} processes; give a multiple of {count}."
        )
