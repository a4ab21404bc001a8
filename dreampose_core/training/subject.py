"""The subject recipe: UNet (LoRA) and adapter on the photo and its DensePose, then the VAE decoder (paper, section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ..conditioning import (
    encode_latents,
    encode_maps,
    pose_channels,
    pose_tensors,
    predict,
    reference_tokens,
    shown_maps,
    warp_channels,
    window_channels,
)
from ..poses import WINDOW, PoseSequence, fitted
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from ..subject import LORA, tuned_parameters
from ..texture import WARP_PLANES, harvest, laid, move
from .loop import LoopOptions, train
from .losses import coverage, denoising_loss, noised, picture_loss
from .processes import random


@dataclass(frozen=True)
class SubjectRecipe:
    """How long and how hard a subject is tuned.

    unet_steps, decoder_steps of `batch_size` random crops each. rank: of the UNet's LoRA. zoom: the smallest crop, as a share of
    the photo's side. Crops, because the network must not tie clothes to places in the picture (paper: texture sticking).
    """

    unet_steps: int = 60
    decoder_steps: int = 60
    unet_lr: float = 5e-4
    decoder_lr: float = 3e-4
    batch_size: int = 4
    rank: int = 8
    zoom: float = 0.7
    person_weight: float = 4.0


RECIPES = {"fast": SubjectRecipe()}
_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out")


def tune_subject(
    pipe, photos: torch.Tensor, image_poses: PoseSequence | None, recipe: SubjectRecipe, seed: int = 0, *,
    folder: Path | None = None, on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop,
) -> dict[str, list[float]]:  # fmt: skip
    """Tunes `pipe` in place and returns the losses of both stages, "tuning" and "decoder".

    photos: pixels (N, 3, H, W) in [-1, 1]; image_poses: their N maps, or None: the pose is then dropped in tuning.
    folder: for checkpoints; an interrupted call resumes from there. Call it inside `subject.base_restored`.
    """
    device = pipe.unet.device
    photos = photos.to(device)
    parts = uv = None
    if image_poses is not None:
        parts, uv = pose_tensors(fitted(image_poses, pipe.form.size), pipe.form.charts)
        parts, uv = (None if x is None else x.to(device) for x in (parts, uv))
    texture = None
    if pipe.form.reference_warp != "none" and parts is not None and pipe.knows_charts(image_poses):
        texture = harvest(photos, parts, uv, same_person=True)
    tuning = _tune_unet(pipe, photos, parts, uv, texture, recipe, seed, folder, on_progress, should_stop)
    decoder = _tune_decoder(pipe, photos, recipe, seed, folder, on_progress, should_stop)
    for module in (pipe.adapter, pipe.vae.decoder):
        if next(module.parameters()).dtype != pipe.vae.dtype:
            module.to(pipe.vae.dtype)  # trained in float32, used in the model's precision
    return {"tuning": tuning, "decoder": decoder}


def _tune_unet(pipe, photos, parts, uv, texture, recipe, seed, folder, on_progress, should_stop) -> list[float]:
    from peft import LoraConfig  # takes seconds to import

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=list(_LORA_TARGETS), init_lora_weights=True)
        pipe.unet.add_adapter(config, adapter_name=LORA)
    lora = tuned_parameters(pipe.unet)
    for parameter in lora:
        parameter.data = parameter.data.float()
    pipe.adapter.float().requires_grad_(True)
    count, factor = len(photos), pipe.factor
    with torch.no_grad():
        photo_latents = encode_latents(pipe.vae, photos).float()

    def loss_at(step: int) -> torch.Tensor:
        draw = random(seed, step, 8)
        which = torch.randint(count, (recipe.batch_size,), generator=draw)
        boxes = random_boxes(recipe.batch_size, pipe.form.size, recipe.zoom, draw)
        with torch.no_grad():
            target = crop_pixels(photos[which], boxes)
            latents = encode_latents(pipe.vae, target).float()
            poses, warp = _given(pipe, parts, uv, texture, which, boxes, draw)
            person = torch.zeros_like(latents[:, :1])
            if parts is not None or uv is not None:
                mask = parts[which] > 0 if parts is not None else (uv[which] > 0).any(1)
                person = coverage(crop_labels(mask.long(), boxes), factor)
        timesteps = torch.randint(pipe.scheduler.config.num_train_timesteps, (len(which),), generator=draw).to(photos.device)
        noise = torch.randn(latents.shape, generator=draw).to(photos.device)
        noisy, wanted = noised(pipe.scheduler, latents, noise, timesteps)
        low = pipe.unet.dtype
        with torch.autocast(photos.device.type, low, enabled=low != torch.float32):
            tokens = reference_tokens(photos[which], photo_latents[which], pipe.image_encoder, pipe.image_processor, pipe.adapter)
            prediction = predict(pipe.unet, pipe.scheduler, pipe.form, noisy, timesteps, poses, warp, tokens)
        return denoising_loss(prediction, wanted, person, recipe.person_weight)

    options = LoopOptions(recipe.unet_steps, recipe.unet_lr, warmup=5, cooldown=0.5, ema=None)
    trained = lora + list(pipe.adapter.parameters())
    losses, _ = train({}, loss_at, options, "tuning", parameters=trained, folder=folder and folder / "tuning",
                      on_progress=on_progress, should_stop=should_stop)  # fmt: skip
    return losses


def _given(pipe, parts, uv, texture, which, boxes, draw) -> tuple[torch.Tensor, torch.Tensor]:
    """Pose channels and moved texture channels of cropped photos; the texture is hidden wholly in half of them, else in part."""
    form, device = pipe.form, pipe.unet.device
    no_warp = warp_channels(form, torch.zeros(len(which), WARP_PLANES, *form.size, device=device), pipe.vae)
    if parts is None and uv is None:
        return torch.zeros(len(which), pose_channels(form), *no_warp.shape[2:], device=device), no_warp
    maps = [None if x is None else crop_labels(x[which], boxes) for x in (parts, uv)]
    encoded = encode_maps(*maps, pipe.factor, form.pose_encoding)
    still = shown_maps(form, [torch.arange(len(which), device=device)] * len(WINDOW))  # a photo has no neighbours
    pose = window_channels(encoded, torch.stack(still, 1))
    if texture is None or maps[0] is None:
        return pose, no_warp
    # the photo must not simply be copied: half of the samples see no texture, the others have 30 to 70 % of the texels removed
    hidden = texture.expand(len(which))
    share = (0.3 + 0.4 * torch.rand(len(which), generator=draw))[:, None, None, None]
    side = hidden.rows.shape[2]
    removed = (torch.rand(len(which), 24, 6, 6, generator=draw) < share).float()
    removed = removed.repeat_interleave(_ceil(side, 6), 2).repeat_interleave(_ceil(side, 6), 3)[:, :, :side, :side]
    hidden = hidden.without(removed[:, None].to(pose.device))
    planes = move(hidden, *maps, background=False)
    if form.reference_background:
        planes = laid(planes, maps[0] > 0, crop_pixels(hidden.behind(), boxes))
    keep = (torch.rand(len(which), generator=draw) < 0.5).float()[:, None, None, None].to(pose.device)
    return pose, warp_channels(form, planes * keep, pipe.vae)


def _tune_decoder(pipe, photos, recipe, seed, folder, on_progress, should_stop) -> list[float]:
    pipe.vae.decoder.float().requires_grad_(True)
    count = len(photos)

    def loss_at(step: int) -> torch.Tensor:
        draw = random(seed, step, 9)
        which = torch.randint(count, (recipe.batch_size,), generator=draw)
        with torch.no_grad():
            pixels = crop_pixels(photos[which], random_boxes(recipe.batch_size, pipe.form.size, recipe.zoom, draw))
            latents = pipe.vae.encode(pixels.to(pipe.vae.dtype)).latent_dist.mode()
        low = pipe.unet.dtype
        with torch.autocast(photos.device.type, low, enabled=low != torch.float32):
            decoded = pipe.vae.decode(latents).sample
        return picture_loss(decoded, pixels)

    options = LoopOptions(recipe.decoder_steps, recipe.decoder_lr, warmup=5, cooldown=0.5, ema=None)
    losses, _ = train({"decoder": pipe.vae.decoder}, loss_at, options, "decoder", folder=folder and folder / "decoder",
                      on_progress=on_progress, should_stop=should_stop)  # fmt: skip
    return losses


def random_boxes(count: int, size: tuple[int, int], zoom: float, generator: torch.Generator) -> torch.Tensor:
    """Crop boxes (B, 4) of (height, width) = `size`, as top, left, height, width in pixels; the aspect is kept."""
    height, width = size
    scale = zoom + (1 - zoom) * torch.rand(count, generator=generator)
    h, w = scale * height, scale * width
    top, left = torch.rand(count, generator=generator) * (height - h), torch.rand(count, generator=generator) * (width - w)
    return torch.stack([top, left, h, w], 1)


def crop_pixels(pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (B, 4) of pixels (B, C, H, W), enlarged to (H, W) by bilinear interpolation."""
    rows, columns = _positions(boxes, pixels.shape[2:])
    height, width = pixels.shape[2:]
    y, x = 2 * rows / height - 1, 2 * columns / width - 1  # grid_sample's range over pixel edges
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1).to(pixels.device)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def crop_labels(labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """The same for maps (B, H, W) or (B, C, H, W), by nearest neighbour."""
    height, width = labels.shape[-2:]
    rows, columns = (x.long().to(labels.device) for x in _positions(boxes, (height, width)))
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    return torch.stack([label[..., r[:, None], c[None, :]] for label, r, c in zip(labels, rows, columns)])


def _positions(boxes: torch.Tensor, size) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = size
    top, left, h, w = boxes[:, :, None].unbind(1)
    return top + h * (torch.arange(height) + 0.5) / height, left + w * (torch.arange(width) + 0.5) / width


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
