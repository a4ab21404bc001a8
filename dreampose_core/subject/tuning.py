"""Tune a subject: UNet and adapter on the photo and its DensePose, then the VAE decoder (paper, section 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from ..training.distributed import random
from ..training.loop import LoopOptions, train
from ..training.losses import denoising_loss, picture_loss
from ..training.optimizers import gradient_checkpointing
from .folder import LORA
from .recipe import SubjectRecipe
from .views import ALL, TURNED, Source, Views, same_part

_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out")
_SCHEDULE = dict(warmup=5, cooldown=0.5, ema=None)
_OWN = 0.65  # share of the decoder's samples that use the photo's own latents
# steps between evaluations of the decoder, and the patience: its error first rises, and is lowest as the rate falls
_LOOK, _PATIENCE = 24, 3


def tune_subject(
    pipe,
    photos: torch.Tensor,
    image_poses: PoseSequence | None,
    recipe: SubjectRecipe,
    seed: int = 0,
    *,
    folder: Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, list[float]]:
    """Tune `pipe` in place and return the losses of both stages, "tuning" and "decoder".

    photos: pixels (N, 3, H, W) in [-1, 1]; image_poses: their N maps, or None to drop the pose in tuning. folder: for
    checkpoints; an interrupted call resumes from there. Call this function inside `subject.base_restored`.
    """
    for module in (pipe.unet, pipe.vae, pipe.adapter, pipe.image_encoder):
        module.requires_grad_(False)  # each stage enables what it trains
    photos = photos.to(pipe.unet.device)
    source = Source(pipe, photos, *pipe.photo_maps(photos, image_poses), recipe, seed)
    run = {"on_progress": on_progress, "should_stop": should_stop}
    tuning = _tune_unet(source, folder=folder and folder / "tuning", **run)
    decoder = _tune_decoder(source, folder=folder and folder / "decoder", **run)
    for module in (pipe.unet, pipe.adapter, pipe.vae.decoder):
        module.to(pipe.vae.encoder.conv_in.weight.dtype)  # trained in float32, used in the model's precision
    return {"tuning": tuning, "decoder": decoder}


def _tune_unet(source: Source, **run) -> list[float]:
    """Tune UNet and adapter; run: folder, on_progress, should_stop as in `loop.train`."""
    pipe, recipe = source.pipe, source.recipe
    if recipe.rank is None:
        unet = list(pipe.unet.float().requires_grad_(True).parameters())
    else:
        unet = _add_lora(pipe.unet, recipe.rank, source.seed)
    pipe.adapter.float().requires_grad_(True)

    parts = recipe.batch_size if recipe.one_by_one else 1

    def error(views: Views, draw: torch.Generator, where: torch.Tensor, only: slice = ALL) -> torch.Tensor:
        """Return the error of the latents; `where` (B, 1, H, W) weights the pixels."""
        prediction, wanted, *_ = source.prediction(views, draw, only=only)
        return denoising_loss(prediction, wanted, F.avg_pool2d(where[only], pipe.factor))

    def loss_at(number: int) -> torch.Tensor:
        step, only = _part(number, parts)
        views, draw = source.views(step, 8, recipe.batch_size)
        return error(views, draw, (1 + (recipe.person_weight - 1) * views.person) * (1 - views.held), only)

    @torch.no_grad()
    def held() -> float:
        batches = enumerate(source.kept.split(recipe.batch_size))
        errors = [error(views, random(source.seed, number, 11), views.held + 1e-6) for number, views in batches]
        return float(torch.stack(errors).mean())

    options = LoopOptions(recipe.unet_steps, recipe.unet_lr, parts, recipe.optimizer, **_SCHEDULE)
    run |= {"held": None if source.kept is None else held}
    with gradient_checkpointing(recipe.checkpointing, pipe.unet):
        losses, _ = train(unet + list(pipe.adapter.parameters()), loss_at, options, "tuning", **run)
    return losses


def _tune_decoder(source: Source, **run) -> list[float]:
    """Tune the VAE's decoder; run: as in `_tune_unet`."""
    pipe, recipe, count = source.pipe, source.recipe, source.recipe.decoder_batch_size
    # predicted with the tuned UNet
    predicted = source.kept if source.kept is None or not source.answers else source.predicted()
    pipe.vae.decoder.float().requires_grad_(True)

    parts = count if recipe.one_by_one else 1

    def error(latents, pixels, planes, where: torch.Tensor, only: slice = ALL) -> torch.Tensor:
        weight = where / where.mean().clamp_min(1e-6)  # mean of the whole batch, also if it is processed in parts
        return picture_loss(source.decoded(latents[only], planes[only]), pixels[only], weight[only])

    def loss_at(number: int) -> torch.Tensor:
        step, only = _part(number, parts)
        views, draw = source.views(step, 9, count)
        if predicted is None:
            return error(views.latents, views.pixels, views.planes, torch.ones_like(views.person), only)
        # the decoder must handle both: the photo's latents, and the UNet's prediction of them without texture
        which = torch.randint(len(predicted.which), (count,), generator=draw)
        own = (torch.rand(count, generator=draw) < _OWN).to(views.which.device)
        pairs = zip(views, predicted.select(which))
        views = Views(*(torch.where(own.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))
        whole = views.latents, views.pixels, views.planes, 1 - views.held
        return error(*same_part(recipe.decoder_part, draw, *whole), only)

    @torch.no_grad()
    def held() -> float:
        # a sample of the views, because all would take as long as the steps between; turned ones are left out, because
        # their error can only rise
        def mean(kept: Views, where: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
            some = kept.split(recipe.batch_size)[:TURNED:2]
            return torch.stack([error(x.latents, x.pixels, x.planes, where(x.held)) for x in some]).mean()

        return float(mean(source.kept, lambda held: held + 1e-6) + mean(predicted, torch.ones_like))

    looks = {"held_every": _LOOK, "patience": _PATIENCE}
    options = LoopOptions(recipe.decoder_steps, recipe.decoder_lr, parts, recipe.optimizer, **_SCHEDULE, **looks)
    run |= {"held": None if predicted is None else held}
    with gradient_checkpointing(recipe.checkpointing, pipe.vae):
        losses, _ = train(pipe.vae.decoder.parameters(), loss_at, options, "decoder", **run)
    return losses


def _part(number: int, parts: int) -> tuple[int, slice]:
    """Return the step of a loss that is one of its step's `parts`, and its samples: all, or one."""
    step, part = divmod(number, parts)
    return step, ALL if parts == 1 else slice(part, part + 1)


def _add_lora(unet: torch.nn.Module, rank: int, seed: int) -> list[torch.nn.Parameter]:
    from peft import LoraConfig  # takes seconds to import

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_LORA_TARGETS), init_lora_weights=True)
        unet.add_adapter(config, adapter_name=LORA)
    lora = [parameter for name, parameter in unet.named_parameters() if "lora_" in name]
    for parameter in lora:
        parameter.data = parameter.data.float()
    return lora
