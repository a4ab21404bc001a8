"""Train mini in a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
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
from .base import train_base, train_end_to_end, train_vae
from .distributed import processes
from .drawn import DrawnClips, drawn_clips
from .loop import LoopOptions
from .optimizers import optimizer_class
from .run_folder import MiniRun, claim
from .videos import VideoSamples

_SHOWN = 4  # people on a sample sheet


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

    Writes run.json, vae/, base/ and end_to_end/ (checkpoints, stats.jsonl, samples: see `sample_sheets`) and, at the
    end of every call, model/: the model folder in fp16 with averaged weights. minutes: time limit; `resume` continues
    from there. Raises InputError, Cancelled.
    """
    started, main = time.monotonic(), processes().is_main_process
    optimizer_class(run.optimizer)  # raises if it is not installed
    if run.batch_size % (count := processes().num_processes):
        raise InputError(
            f"A batch of {run.batch_size} cannot be shared by {count} processes; give a multiple of {count}."
        )
    pipe = _start(run, device)
    samples = _samples(run, pipe, device)
    if main:
        claim(run, folder, resume)
    processes().wait_for_everyone()

    def stage(name: str, train, steps: int, lr: float, ema: float = 0.998, **more) -> bool:
        left = None if minutes is None else max(0.0, minutes - (time.monotonic() - started) / 60)
        options = LoopOptions(steps, lr, run.accumulate, run.optimizer, ema=ema, minutes=left)
        precision = torch.bfloat16 if run.precision == "bf16" else torch.float32
        how = dict(precision=precision, checkpointing=run.gradient_checkpointing, folder=folder / name)
        return train(pipe, samples, options, **how, **more, on_progress=on_progress, should_stop=should_stop)

    def frames(name: str, *what, **more) -> bool:
        sheets = sample_sheets(pipe, samples.held_out(_SHOWN), folder / name / "samples")
        return stage(name, *what, seed=run.seed, sample=sheets, **more)

    done, diverged, has_vae = False, None, run.init is not None or run.vae is not None
    vae_steps = (0 if has_vae else 1200) if run.vae_steps is None else run.vae_steps
    end_to_end = partial(train_end_to_end, adversarial=run.adversarial)
    try:
        done = (
            ((has_vae and not vae_steps) or stage("vae", train_vae, vae_steps, run.vae_lr, 0.995))
            and frames("base", train_base, run.steps, run.lr)
            and frames("end_to_end", end_to_end, run.end_to_end_steps, run.end_to_end_lr)
        )
    except Diverged as error:
        diverged = error  # resuming would diverge again, but another run may start from the model
    if main:
        save_model(pipe, folder / "model")
    processes().wait_for_everyone()
    if diverged is not None:
        raise Diverged(f"{str(diverged).rstrip('.')} in another folder (--init {folder / 'model'}).") from diverged
    return done


def _start(run: MiniRun, device: str) -> DreamPosePipeline:
    """Load or make the model from which the run starts. Raises InputError."""
    if run.init is not None and run.vae is not None:
        raise InputError(
            "Both init and vae are given; the model that training starts from has a VAE, so leave out vae."
        )
    source, vae = run.init or run.vae, None
    if source is not None:
        kind = device.partition(":")[0]  # each of several processes has its own, such as cuda:1
        start = load_pipeline(source, kind).to(dtype=torch.float32)
        if run.init is not None:
            return start.to(device)
        vae = start.vae
    config = ModelConfig(
        height=run.size[0],
        width=run.size[1],
        reference_warp=run.reference_warp,
        free_shape=bool(drawn_clips(Path(run.data))),
        # so small a model does not gain from more (docs/experiments.md)
        draft_steps=1,
        standard_steps=1,
        best_steps=2,
    )
    return build_mini(config, run.seed, unet_channels=run.unet_channels, vae=vae).to(device)


def _samples(run: MiniRun, pipe: DreamPosePipeline, device: str) -> VideoSamples | DrawnClips:
    """Return the run's training samples; sets the model's charts to those of the samples. Raises InputError."""
    if drawn_clips(Path(run.data)):
        if not isinstance(pipe.vae, TexturedVAE) or processes().num_processes > 1:
            raise InputError("Drawn clips need a model whose decoder sees the moved texture, and a single process.")
        return DrawnClips(Path(run.data), pipe.model_config, run.batch_size, run.seed)
    samples = VideoSamples(run.data, pipe.model_config.size, run.batch_size, run.seed, device)
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
