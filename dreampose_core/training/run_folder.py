"""A training run's options and its folder: run.json stores them, and only the same run may resume there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..errors import InputError
from ..files import appearing
from ..settings import MAX_SEED, Options


class MiniRun(Options):
    """Options of a training run; stored in the run folder's run.json."""

    data: str
    """A folder of clips from train draw, for a model whose decoder sees the moved texture and whose frames have the
    photo's shape; or from train prepare, for a model given by init or vae."""
    init: str | None = None
    """Start from this model's weights: mini, a model folder, or a hub id; keeps its size, reference_warp and
    unet_channels. None: random weights."""
    vae: str | None = None
    """Use this model's VAE, and train only the rest from random weights."""
    size: tuple[Annotated[int, Field(ge=32, multiple_of=32)], Annotated[int, Field(ge=32, multiple_of=32)]] = (160, 128)
    """Height and width of frames, multiples of 32."""
    reference_warp: Literal["encoded", "texture", "none"] = "encoded"
    """How the UNet gets the moved texture."""
    unet_channels: Annotated[
        tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...], Field(min_length=2, max_length=3)
    ] = (64, 128, 192)
    """Channels of the UNet's levels."""
    vae_steps: int | None = Field(None, ge=0)
    """Stage 1: steps of the VAE. None: 1200, or 0 if the VAE comes from a model."""
    steps: int = Field(400, ge=0)
    """Stage 2: steps of UNet, adapter and image encoder, with the loss on latents."""
    end_to_end_steps: int = Field(1500, ge=0)
    """Stage 3: steps of these and the VAE decoder, with the loss on decoded frames."""
    batch_size: int = Field(8, ge=2, multiple_of=2)
    """Samples per batch."""
    accumulate: int = Field(1, ge=1, le=1024)
    """Batches per step (gradient accumulation): gradients of a larger batch in the memory of one."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit: a quarter of the optimizer's memory; needs requirements-train.txt."""
    gradient_checkpointing: bool = False
    """Use less memory and a fifth more time."""
    vae_lr: float = Field(3e-4, gt=0, lt=1)
    """Learning rate of stage 1."""
    lr: float = Field(8e-4, gt=0, lt=1)
    """Learning rate of stage 2."""
    end_to_end_lr: float = Field(4e-4, gt=0, lt=1)
    """Learning rate of stage 3."""
    adversarial: float = Field(0.05, ge=0, le=10)
    """Weight of the discriminator in stage 3: higher is sharper; 0: no discriminator."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the computation; weights stay fp32."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of weights and samples."""


def claim(run: MiniRun, folder: Path, resume: bool) -> None:
    """Claim `folder` for the run by writing its run.json. Raises InputError if there is a run already, or, with
    `resume`, one with other options, which all affect the weights: the number of steps does through the learning rate.
    Options that an older version did not write had their defaults."""
    path = folder / "run.json"
    if path.is_file():
        if not resume:
            raise InputError(f"{folder} holds a training run; give --resume to continue it, or another folder.")
        now, defaults = (one.model_dump(mode="json") for one in (run, MiniRun(data="")))
        try:
            before = defaults | json.loads(path.read_text())
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged; choose another folder.") from error
        changed = [
            f"--{name.replace('_', '-')} was {before[name]}" for name in sorted(now) if before[name] != now[name]
        ]
        if changed:
            raise InputError(
                f"The run in {folder} was started with other options: {', '.join(changed)}; use the same options, or "
                f"start from its weights in another folder (--init {folder / 'model'})."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with appearing(path) as temporary:
        temporary.write_text(run.model_dump_json(indent=1))
