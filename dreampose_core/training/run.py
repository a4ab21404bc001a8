"""The run that trains mini in a run folder."""

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
from ..settings import MiniRun
from ..synthetic.dataset import MannequinSamples
from .base import Dropout, train_base, train_end_to_end, train_vae
from .distributed import Processes
from .drawn import DrawnClips, drawn_clips
from .footage import find_footage
from .loop import LoopOptions
from .optimizers import optimizer_class
from .record import summary_writer
from .run_folder import claim
from .sharding import sharded
from .vae_start import start_linear
from .videos import VideoSamples

_SHOWN = 4  # people on a contact sheet


def mini_config(run: MiniRun) -> ModelConfig:
    """How such a model is fed. Few denoising steps: more of them change nothing in so small a model
    (docs/experiments.md)."""
    return ModelConfig(
        height=run.size[0],
        width=run.size[1],
        reference_warp=run.reference_warp,
        free_shape=is_drawn(run),
        charts="body" if is_drawn(run) else "mannequin",
        draft_steps=1,
        standard_steps=1,
        best_steps=2,
    )


def is_drawn(run: MiniRun) -> bool:
    """Whether the data are clips that `draw_clips` wrote."""
    return run.data != "mannequin" and bool(drawn_clips(Path(run.data)))


def train_mini(
    run: MiniRun,
    folder: Path,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    resume: bool = False,
    shard: bool = False,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:
    """Trains VAE, then UNet, adapter and image encoder, then these and the VAE's decoder by the frames they make; True
    when all is done.

    Writes run.json, vae/, base/ and end_to_end/ (checkpoints, samples: see `sample_sheets`, and what `training.record`
    writes) and, at the end of every call, model/: the model folder in fp16 with averaged weights. minutes: stop after
    so long; `resume` goes on from there. shard: each of several processes holds its share of the UNet, see
    `training.sharding`; a run may go on sharded or not.
    Raises InputError, Cancelled.
    """
    started, processes = time.monotonic(), Processes()
    if shard and processes.count == 1:
        raise InputError(
            "To shard is to spread the UNet over several processes; start them with accelerate launch or torchrun."
        )
    if shard and run.optimizer != "adamw":
        raise InputError(f"The optimizer {run.optimizer} cannot be sharded; take adamw.")
    source = run.init or run.vae
    given = None if source is None else load_pipeline(source, device).to(dtype=torch.float32)
    _begin(run, folder, resume, processes)
    if run.init:
        pipe = given
    else:
        pipe = build_mini(mini_config(run), run.seed, unet_channels=run.unet_channels, vae=given and given.vae)
        if given is None and not is_drawn(run):
            start_linear(pipe.vae)
        pipe.to(device)
    samples = _samples(run, pipe, device, processes)
    precision = torch.bfloat16 if run.precision == "bf16" else torch.float32

    def options(steps: int, lr: float, ema: float) -> LoopOptions:
        left = None if minutes is None else max(0.0, minutes - (time.monotonic() - started) / 60)
        return LoopOptions(
            steps, lr, run.accumulate, run.optimizer, ema=ema, minutes=left, curve=True, tensorboard=run.tensorboard
        )

    def frames(stage: str) -> dict:
        sample = sample_sheets(pipe, samples.held_out(_SHOWN), folder / stage / "samples", processes.main)
        return {"crop": run.crop, "noisier": run.noisier, "folder": folder / stage, "sample": sample, **common}

    common = {
        "precision": precision,
        "checkpointing": run.gradient_checkpointing,
        "on_progress": on_progress,
        "should_stop": should_stop,
    }
    vae_steps = run.vae_steps if run.vae_steps is not None else 1200 if given is None else 0

    def stages() -> bool:
        done = given is not None and not vae_steps
        if not done:
            done = train_vae(
                pipe, samples, options(vae_steps, run.vae_lr, 0.995), run.seed, folder=folder / "vae", **common
            )
        if done:
            with sharded(shard, pipe):
                done = train_base(
                    pipe,
                    samples,
                    options(run.steps, run.lr, 0.998),
                    run.seed,
                    dropout=Dropout(warp=run.warp_dropout),
                    min_snr=run.min_snr,
                    **frames("base"),
                )
        if done:
            end_to_end = options(run.end_to_end_steps, run.end_to_end_lr, 0.998)
            with sharded(shard, pipe):
                done = train_end_to_end(
                    pipe,
                    samples,
                    end_to_end,
                    run.seed,
                    warp_dropout=run.warp_dropout,
                    adversarial=run.adversarial,
                    **frames("end_to_end"),
                )
        return done

    return _kept(stages, lambda: save_model(pipe, folder / "model"), folder / "model", processes)


def _samples(
    run: MiniRun, pipe: DreamPosePipeline, device: str, processes: Processes
) -> MannequinSamples | VideoSamples | DrawnClips:
    """What the run trains on; the model takes on the charts of its U, V."""
    if is_drawn(run):
        if not isinstance(pipe.vae, TexturedVAE) or processes.count > 1:
            raise InputError("Drawn clips train a model whose decoder sees the moved texture, in one process.")
        return DrawnClips(Path(run.data), pipe.model_config, run.batch_size, run.side, run.seed)
    given = pipe.model_config.size, run.batch_size, run.seed, device
    if run.data == "mannequin":
        pipe.change_config(charts="mannequin")
        return MannequinSamples(*given, share=processes.share)
    samples = VideoSamples(run.data, *given, share=processes.share)
    if samples.charts != "none":
        pipe.change_config(charts=samples.charts)
    return samples


def sample_sheets(
    pipe: DreamPosePipeline,
    pairs: list[tuple[np.ndarray, PoseSequence, np.ndarray, PoseSequence]],
    folder: Path,
    writes: bool = True,
) -> Callable[[int], np.ndarray]:
    """A function of the step that writes a PNG and returns its pixels (H, W, 3): the photo, the pose asked for, the
    sample, the truth.

    pairs: photo, its map, truth and its map, of people that are not trained on; always the same ones with the same
    noise, so that the sheets of a run can be compared. writes: whether this process is the one that
    writes.
    """

    def write(step: int) -> np.ndarray:
        sheet = []
        for photo, own, truth, target in pairs:
            made = pipe(photo, target, own, generator=torch.Generator().manual_seed(0))
            row = photo, render_colours(target)[0], made.frames[0], truth
            sheet.append(np.concatenate([fit_image(picture, pipe.model_config.size) for picture in row], 1))
        sheet = np.concatenate(sheet)
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            write_png(sheet, folder / f"step-{step:06d}.png")
        return sheet

    return write


def _kept(train: Callable[[], bool], save: Callable[[], None], model: Path, processes: Processes) -> bool:
    """What `train()` returns, after the main process has called `save()`, which writes the folder `model`.

    It is written also where the loss diverged, since the same run would end there again: another may start from it.
    Raises Diverged.
    """
    diverged = None
    try:
        done = train()
    except Diverged as error:
        diverged = error
    if processes.main:
        save()
    processes.wait()
    if diverged is not None:
        raise Diverged(f"{str(diverged).rstrip('.')} in another folder (--init {model}).") from diverged
    return done


def _begin(run: MiniRun, folder: Path, resume: bool, processes: Processes) -> None:
    """Checks that `run` can start, or go on, in `folder`; the main process writes its run.json. Raises InputError."""
    optimizer_class(run.optimizer)
    if run.tensorboard:
        summary_writer()
    if run.init is not None and run.vae is not None:
        raise InputError(
            "Both init and vae are given; the model that training starts from has a VAE, so leave out vae."
        )
    if run.batch_size % (2 * processes.count):
        least = 2 * processes.count
        raise InputError(
            f"A batch of {run.batch_size} cannot be shared by {processes.count} processes; give a multiple of {least}."
        )
    if run.data != "mannequin" and not is_drawn(run):
        find_footage(Path(run.data))  # or nothing is written
    if processes.main:
        claim(run, folder, resume, "model")
    processes.wait()
