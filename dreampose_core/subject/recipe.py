"""The subject recipes: UNet and adapter on the photo and its DensePose, then the VAE decoder (paper, section 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ..model.conditioning import (
    clean_latents,
    condition_latents,
    decode_latents,
    encode_latents,
    encode_maps,
    pose_channels,
    pose_tensors,
    predict,
    reference_tokens,
    warp_channels,
    window_channels,
)
from ..model.texture import WARP_PLANES, Texture, harvest, laid, move, turned
from ..poses import NUM_PARTS, WINDOW, PoseSequence, fitted
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from ..training.distributed import random
from ..training.gradient_checkpointing import gradient_checkpointing
from ..training.loop import LoopOptions, train
from ..training.losses import denoising_loss, noised, picture_loss
from .crops import crop_labels, crop_pixels, random_boxes, same_part
from .folder import LORA, tuned_parameters


@dataclass(frozen=True)
class SubjectRecipe:
    """How long and how hard a subject is tuned.

    unet_steps of `batch_size` random crops each. rank: of the UNet's LoRA, None for all of its weights. zoom: the
    smallest crop, as a share of the photo's side; crops, because the network must not tie clothes to places in the
    picture (paper: texture sticking). decoder_steps of `decoder_batch_size` such crops; of each a random part is
    decoded, `decoder_part` of its sides: more of them for the same work. views: so many crops are made once, with all
    that the networks are given for them, and used again; part of the person is held back from them, and the weights
    that do best there are kept; some are turned, see `_Source`. None: every sample is a crop of its own, and nothing is
    held back.
    The last three save memory, see `oom_fallback`: a step's samples one after another, activations computed twice,
    another optimizer. They are no part of the name that a subject is found by.
    """

    unet_steps: int = 50
    decoder_steps: int = 120
    unet_lr: float = 5e-4
    decoder_lr: float = 3e-4
    batch_size: int = 4
    decoder_batch_size: int = 8
    decoder_part: float = 0.5
    rank: int | None = 8
    zoom: float = 0.7
    person_weight: float = 4.0
    views: int | None = 24
    one_by_one: bool = field(default=False, repr=False)
    checkpointing: bool = field(default=False, repr=False)
    optimizer: str = field(default="adamw", repr=False)


RECIPES = {
    "fast": SubjectRecipe(),
    "paper": SubjectRecipe(
        unet_steps=500,
        decoder_steps=1500,
        unet_lr=1e-5,
        decoder_lr=5e-5,
        batch_size=1,
        decoder_batch_size=1,
        decoder_part=1,
        rank=None,
        views=None,
    ),
}

OnLearned = Callable[[int, int], None]
"""Told that so many steps of so many are done."""

_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out")
_BLOCKS = 6  # texels are hidden, and held back, in squares: so many a side of each part's U, V
_HELD = 0.15  # share of them that is held back
_TURNED = 4  # of so many batches of views one is turned
_OWN = 0.65  # share of the decoder's samples that are the photo's own latents
_ALL = slice(None)  # of a step's samples
_LOOK, _PATIENCE = 24, 3  # of the decoder, which gets worse before it gets better, and best when its rate falls


def recipe_named(name: str, steps: int | None = None) -> SubjectRecipe:
    """One of RECIPES; with `steps` of the UNet, and as many more or fewer of the decoder."""
    recipe = RECIPES[name]
    if steps is None:
        return recipe
    return replace(recipe, unet_steps=steps, decoder_steps=round(steps * recipe.decoder_steps / recipe.unet_steps))


def tune_subject(
    pipe,
    photos: torch.Tensor,
    image_poses: PoseSequence | None,
    recipe: SubjectRecipe,
    seed: int = 0,
    *,
    folder: Path | None = None,
    sample: OnLearned | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, list[float]]:
    """Tunes `pipe` in place and returns the losses of both stages, "tuning" and "decoder".

    photos: pixels (N, 3, H, W) in [-1, 1]; image_poses: their N maps, or None: the pose is then dropped in tuning.
    folder: for checkpoints; an interrupted call resumes from there. sample(step, total): called before the first of the
    UNet's `total` steps and after each, with the weights as they are, and with those that are kept when they are done,
    which may be earlier; it must leave them and all randomness alone. Call it inside `subject.base_restored`.
    """
    device = pipe.unet.device
    for module in (pipe.unet, pipe.vae, pipe.adapter, pipe.image_encoder):
        module.requires_grad_(False)  # but for what a stage trains
    if sample is not None:
        sample(0, recipe.unet_steps)
    photos = photos.to(device)
    parts = uv = None
    if image_poses is not None:
        parts, uv = pose_tensors(
            fitted(image_poses, tuple(photos.shape[2:]), bilinear=pipe.model_config.bilinear), pipe.model_config.charts
        )
        parts, uv = (None if x is None else x.to(device) for x in (parts, uv))
    texture = None
    if pipe.model_config.reference_warp != "none" and parts is not None and pipe.model_config.knows_charts(image_poses):
        texture = harvest(photos, parts, uv, same_person=True)
    source = _Source(pipe, photos, parts, uv, texture, recipe, seed)
    run = {"on_progress": on_progress, "should_stop": should_stop}
    tuning = _tune_unet(source, folder and folder / "tuning", run, sample)
    decoder = _tune_decoder(source, folder and folder / "decoder", run)
    for module in (pipe.unet, pipe.adapter, pipe.vae.decoder):
        if next(module.parameters()).dtype != pipe.vae.encoder.conv_in.weight.dtype:
            module.to(pipe.vae.encoder.conv_in.weight.dtype)  # trained in float32, used in the model's precision
    return {"tuning": tuning, "decoder": decoder}


@dataclass
class _Views:
    """B crops of the photos and what the networks are given for them: target pixels (B, 3, H, W), their latents (B, C,
    h, w), pose and warp channels, the photo each is of (B,). person, held: (B, 1, H, W) 0/1, the person, and what of it
    is held back from training. planes: (B, 5, H, W), the moved texture."""

    pixels: torch.Tensor
    latents: torch.Tensor
    poses: torch.Tensor
    warp: torch.Tensor
    which: torch.Tensor
    person: torch.Tensor
    held: torch.Tensor
    planes: torch.Tensor

    @property
    def seen(self) -> torch.Tensor:
        """(B, 1, H, W) 0/1, where the texture is."""
        return self.planes[:, 3:4]

    def tensors(self) -> list[torch.Tensor]:
        return [getattr(self, f.name) for f in fields(self)]

    def select(self, index: torch.Tensor) -> _Views:
        return _Views(*(tensor[index.to(tensor.device)] for tensor in self.tensors()))

    def split(self, count: int) -> list[_Views]:
        return [self.select(index) for index in torch.arange(len(self.which)).split(count)]


class _Source:
    """The photos with their maps and texture, and crops of them: made anew for each step, or once, as the recipe says.

    Of crops that are made once some are turned: fronts are backs, most of which the photo does not show, and what is
    wanted is what the model said before it was tuned (prior preservation). So a photo's front does not come out on the
    person's back.
    """

    def __init__(self, pipe, photos, parts, uv, texture: Texture | None, recipe: SubjectRecipe, seed: int):
        self.pipe, self.photos, self.parts, self.uv, self.texture = pipe, photos, parts, uv, texture
        self.recipe, self.seed = recipe, seed
        self.low = pipe.vae.dtype  # the model's precision; weights are trained in float32
        self.blocks = (
            (torch.rand(NUM_PARTS, _BLOCKS, _BLOCKS, generator=random(seed, 0, 7)) < _HELD).float().to(photos.device)
        )
        self.mask = torch.zeros_like(photos[:, 0])
        if parts is not None or uv is not None:
            self.mask = (parts > 0 if parts is not None else (uv > 0).any(1)).float()
        self.held = self._held_back() if recipe.views is not None else torch.zeros_like(self.mask)
        with torch.no_grad():
            self.photo_latents = condition_latents(pipe.model_config, pipe.vae, photos).float()
        self.kept = None
        if recipe.views is not None:
            # a single prediction from noise is the model's answer only where latents are predicted, and only parts tell
            # front from back
            self.answers = pipe.scheduler.config.prediction_type == "sample"
            turns = self.answers and parts is not None and pipe.model_config.pose_encoding == "iuv"
            chunks = [
                self._made(recipe.batch_size, random(seed, number, 10), turn=turns and number % _TURNED == _TURNED - 1)
                for number in range(-(-recipe.views // recipe.batch_size))
            ]
            self.kept = _Views(*(torch.cat(tensors) for tensors in zip(*(chunk.tensors() for chunk in chunks))))

    def views(self, step: int, purpose: int, count: int) -> tuple[_Views, torch.Generator]:
        """The `count` samples of a step, and the generator of its further draws."""
        draw = random(self.seed, step, purpose)
        if self.kept is None:
            return self._made(count, draw), draw
        return self.kept.select(torch.randint(len(self.kept.which), (count,), generator=draw)), draw

    def prediction(self, views: _Views, draw: torch.Generator, noisiest: bool = False, only: slice = _ALL):
        """What the UNet predicts for the noisy latents of `views`, of `only` these, what it should, these latents, and
        their timesteps."""
        pipe, device, total = self.pipe, self.photos.device, self.pipe.scheduler.config.num_train_timesteps
        timesteps = torch.randint(total, (len(views.which),), generator=draw).to(device)
        timesteps = torch.full_like(timesteps, total - 1) if noisiest else timesteps
        noise = torch.randn(views.latents.shape, generator=draw).to(device)
        noisy, wanted, timesteps = (
            x[only] for x in (*noised(pipe.scheduler, views.latents, noise, timesteps), timesteps)
        )
        which, poses, warp = (x[only] for x in (views.which, views.poses, views.warp))
        with torch.autocast(device.type, self.low, enabled=self.low != torch.float32):
            tokens = reference_tokens(
                pipe.model_config,
                self.photos[which],
                self.photo_latents[which],
                pipe.image_encoder,
                pipe.image_processor,
                pipe.adapter,
            )
            prediction = predict(pipe.unet, pipe.scheduler, pipe.model_config, noisy, timesteps, poses, warp, tokens)
        return prediction, wanted, noisy, timesteps

    def _held_back(self) -> torch.Tensor:
        """(N, H, W) 0/1: the pixels of the person whose texels are held back; of a photo without maps, squares of the
        picture."""
        height, width = self.mask.shape[1:]
        if self.parts is None or self.uv is None:
            squares = (
                torch.rand(len(self.mask), 1, _BLOCKS, _BLOCKS, generator=random(self.seed, 1, 7)) < _HELD
            ).float()
            return F.interpolate(squares, size=(height, width))[:, 0].to(self.mask.device)
        column, row = (self.uv.float() * _BLOCKS).long().clamp(0, _BLOCKS - 1).unbind(1)
        return self.blocks[(self.parts.long() - 1).clamp_min(0), row, column] * self.mask

    @torch.no_grad()
    def _made(self, count: int, draw: torch.Generator, turn: bool = False) -> _Views:
        pipe = self.pipe
        which = torch.randint(len(self.photos), (count,), generator=draw).to(self.photos.device)
        boxes = random_boxes(count, tuple(self.photos.shape[2:]), self.recipe.zoom, draw)
        pixels = crop_pixels(self.photos[which], boxes)
        latents = encode_latents(pipe.vae, pixels).float()
        person, held = (crop_labels(x[which], boxes)[:, None] for x in (self.mask, self.held))
        poses, warp, planes = self._given(which, boxes, draw, turn)
        views = _Views(pixels, latents, poses, warp, which, person, held, planes)
        return self._as_it_is(replace(views, held=torch.zeros_like(held)), draw) if turn else views

    def _as_it_is(self, views: _Views, draw: torch.Generator) -> _Views:
        """The views with the latents that the UNet predicts for them from noise instead of their own, and with the
        pixels of these."""
        prediction, _, noisy, timesteps = self.prediction(views, draw, noisiest=True)
        latents = clean_latents(self.pipe.scheduler, noisy, prediction.float(), timesteps)
        return replace(views, latents=latents, pixels=self.decoded(latents, views.planes).float())

    @torch.no_grad()
    def predicted(self) -> _Views:
        """The views that are kept, with the latents that the UNet predicts from noise instead of their own.

        Their pixels are the photo's where the texture is seen. Where it is hidden they are what is decoded now, so that
        what was learnt about surfaces that no photo shows is kept (prior preservation). Views without any texture are
        left out, unless none has any.
        """
        made = []
        for number, views in enumerate(self.kept.split(self.recipe.batch_size)):
            said = self._as_it_is(views, random(self.seed, number, 12))
            made.append(replace(said, pixels=torch.where(views.seen > 0, views.pixels, said.pixels)))
        views = _Views(*(torch.cat(tensors) for tensors in zip(*(chunk.tensors() for chunk in made))))
        shown = views.seen.flatten(1).any(1)
        return views.select(shown.nonzero()[:, 0]) if shown.any() else replace(views, pixels=self.kept.pixels)

    def decoded(self, latents: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) of latents (B, C, h, w) and moved texture (B, 5, H, W)."""
        with torch.autocast(latents.device.type, self.low, enabled=self.low != torch.float32):
            return decode_latents(self.pipe.vae, latents, planes)

    def _given(self, which, boxes, draw, turn: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pose and moved texture channels of cropped photos, and their moved texture; it is hidden wholly in half of
        them, else in part."""
        pipe, config, device = self.pipe, self.pipe.model_config, self.photos.device
        nothing = torch.zeros(len(which), WARP_PLANES, *self.photos.shape[2:], device=device)
        no_warp = warp_channels(config, nothing, pipe.vae)
        if self.parts is None and self.uv is None:
            return torch.zeros(len(which), pose_channels(config), *no_warp.shape[2:], device=device), no_warp, nothing
        maps = [None if x is None else crop_labels(x[which], boxes) for x in (self.parts, self.uv)]
        maps[0] = turned(maps[0]) if turn else maps[0]
        encoded = encode_maps(*maps, pipe.factor, config.pose_encoding)
        still = torch.arange(len(which), device=device)[:, None].expand(-1, len(WINDOW))  # a photo has no neighbours
        pose = window_channels(encoded, still)
        if self.texture is None or maps[0] is None:
            return pose, no_warp, nothing
        # the photo must not simply be copied: half of the samples see no texture, the others have 30 to 70 % of the
        # texels removed
        hidden = self.texture.expand(len(which))
        share = (0.3 + 0.4 * torch.rand(len(which), generator=draw))[:, None, None, None]
        side = hidden.rows.shape[2]
        removed = (torch.rand(len(which), NUM_PARTS, _BLOCKS, _BLOCKS, generator=draw) < share).float().to(device)
        if self.recipe.views is not None:
            removed = torch.maximum(removed, self.blocks)
        block = ((torch.arange(side, device=device) + 0.5) / side * _BLOCKS).long()
        hidden = hidden.without(removed[:, :, block][:, :, :, block][:, None])
        planes = move(hidden, *maps, background=False)
        if config.reference_background:
            planes = laid(planes, maps[0] > 0, crop_pixels(hidden.behind(), boxes))
        planes = planes * (torch.rand(len(which), generator=draw) < 0.5).float()[:, None, None, None].to(device)
        return pose, warp_channels(config, planes, pipe.vae), planes


def _tune_unet(source: _Source, folder: Path | None, run: dict, sample: OnLearned | None = None) -> list[float]:
    pipe, recipe = source.pipe, source.recipe
    if recipe.rank is None:
        unet = list(pipe.unet.float().requires_grad_(True).parameters())
    else:
        unet = _add_lora(pipe.unet, recipe.rank, source.seed)
    pipe.adapter.float().requires_grad_(True)

    parts = recipe.batch_size if recipe.one_by_one else 1

    def error(views: _Views, draw: torch.Generator, where: torch.Tensor, only: slice = _ALL) -> torch.Tensor:
        """Of the latents; `where` (B, 1, H, W) says how much each pixel counts."""
        prediction, wanted, *_ = source.prediction(views, draw, only=only)
        return denoising_loss(prediction, wanted, F.avg_pool2d(where[only], pipe.factor))

    def loss_at(number: int) -> torch.Tensor:
        step, only = _part(number, parts)
        views, draw = source.views(step, 8, recipe.batch_size)
        return error(views, draw, (1 + (recipe.person_weight - 1) * views.person) * (1 - views.held), only)

    @torch.no_grad()
    def held() -> float:
        views = enumerate(source.kept.split(recipe.batch_size))
        return float(
            torch.stack(
                [error(some, random(source.seed, number, 11), some.held + 1e-6) for number, some in views]
            ).mean()
        )

    def between(step: int) -> None:
        if step < recipe.unet_steps:
            sample(step, recipe.unet_steps)

    options = LoopOptions(
        recipe.unet_steps, recipe.unet_lr, parts, recipe.optimizer, warmup=5, cooldown=0.5, ema=None, sample_every=1
    )
    with gradient_checkpointing(recipe.checkpointing, pipe.unet):
        losses, _ = train(
            {},
            loss_at,
            options,
            "tuning",
            parameters=unet + list(pipe.adapter.parameters()),
            folder=folder,
            sample=None if sample is None else between,
            held=None if source.kept is None else held,
            **run,
        )
    if sample is not None:
        sample(len(losses), len(losses))
    return losses


def _tune_decoder(source: _Source, folder: Path | None, run: dict) -> list[float]:
    pipe, recipe, count = source.pipe, source.recipe, source.recipe.decoder_batch_size
    predicted = (
        source.kept if source.kept is None or not source.answers else source.predicted()
    )  # by the UNet as it is tuned now
    pipe.vae.decoder.float().requires_grad_(True)

    parts = count if recipe.one_by_one else 1

    def error(latents, pixels, planes, where: torch.Tensor, only: slice = _ALL) -> torch.Tensor:
        weight = where / where.mean().clamp_min(1e-6)  # by all of the batch, also where it is taken in parts
        return picture_loss(source.decoded(latents[only], planes[only]), pixels[only], weight[only])

    def loss_at(number: int) -> torch.Tensor:
        step, only = _part(number, parts)
        views, draw = source.views(step, 9, count)
        if predicted is None:
            return error(views.latents, views.pixels, views.planes, torch.ones_like(views.person), only)
        # the decoder must know both: the photo's own latents, and what the UNet makes of them where texture is missing
        which = torch.randint(len(predicted.which), (count,), generator=draw)
        own = (torch.rand(count, generator=draw) < _OWN).to(views.which.device)
        made = predicted.select(which)
        views = _Views(
            *(torch.where(own.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(views.tensors(), made.tensors()))
        )
        whole = views.latents, views.pixels, views.planes, 1 - views.held
        return error(*same_part(recipe.decoder_part, draw, *whole), only)

    @torch.no_grad()
    def held() -> float:
        # these tell enough, and all of them would take as long as the steps between; turned ones would only ever forbid
        # to learn
        own = [
            error(views.latents, views.pixels, views.planes, views.held + 1e-6)
            for views in source.kept.split(recipe.batch_size)[:_TURNED:2]
        ]
        made = [
            error(views.latents, views.pixels, views.planes, torch.ones_like(views.held))
            for views in predicted.split(recipe.batch_size)[:_TURNED:2]
        ]
        return float(torch.stack(own).mean() + torch.stack(made).mean())

    options = LoopOptions(
        recipe.decoder_steps,
        recipe.decoder_lr,
        parts,
        recipe.optimizer,
        warmup=5,
        cooldown=0.5,
        ema=None,
        held_every=_LOOK,
        patience=_PATIENCE,
    )
    with gradient_checkpointing(recipe.checkpointing, pipe.vae):
        losses, _ = train(
            {"decoder": pipe.vae.decoder},
            loss_at,
            options,
            "decoder",
            folder=folder,
            held=None if predicted is None else held,
            **run,
        )
    return losses


def _part(number: int, parts: int) -> tuple[int, slice]:
    """The step of a loss that is one of its step's `parts`, and its samples: all, or one."""
    step, part = divmod(number, parts)
    return step, _ALL if parts == 1 else slice(part, part + 1)


def _add_lora(unet: torch.nn.Module, rank: int, seed: int) -> list[torch.nn.Parameter]:
    from peft import LoraConfig  # takes seconds to import

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_LORA_TARGETS), init_lora_weights=True)
        unet.add_adapter(config, adapter_name=LORA)
    lora = tuned_parameters(unet)
    for parameter in lora:
        parameter.data = parameter.data.float()
    return lora
