"""The base recipe: a VAE on crops of frames, then UNet, adapter and image encoder on pairs of frames (paper, section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..conditioning import encode_latents, encode_maps, reference_tokens, to_pixels, unet_input, warp_channels
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from ..texture import harvest, move
from .data import Ahead
from .loop import LoopOptions, train
from .losses import coverage, denoising_loss, noised, picture_loss


@dataclass(frozen=True)
class Dropout:
    """Shares of samples in which a condition is dropped, each drawn on its own for every sample.

    pose, image, both: the paper's three (5 % each). warp: the moved texture alone. uv, parts: of the pose maps alone.
    """

    pose: float = 0.05
    image: float = 0.05
    both: float = 0.05
    warp: float = 0.3
    uv: float = 0.1
    parts: float = 0.05


def random(seed: int, step: int, purpose: int) -> torch.Generator:
    """The generator of one purpose in one step: draws do not depend on what was drawn before."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 16 + purpose)


def train_vae(
    pipe, samples, options: LoopOptions, seed: int = 0, *, frames: int = 6, crops: int = 3, side: int = 64,
    precision: torch.dtype = torch.float32, folder: Path | None = None, on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:  # fmt: skip
    """Trains the VAE on random square crops around people and sets its scaling factor; True when all steps are done.

    frames, crops: frames a step and crops of each, `side` pixels wide.
    """
    vae = pipe.vae.train()
    frames_at = Ahead(lambda step: samples.frames(step, frames))

    def loss_at(step: int) -> torch.Tensor:
        drawn = frames_at(step)
        rgb, parts = (x.repeat_interleave(crops, 0) for x in (drawn.rgb, drawn.parts))
        pixels = person_crops(to_pixels(rgb), parts, side, random(seed, step, 1))
        with torch.autocast(pixels.device.type, precision, enabled=precision != torch.float32):
            # only the mode is ever used, so it is what is trained; sampling would cost colour first
            latents = vae.encode(pixels).latent_dist.mean
            decoded = vae.decode(latents).sample
        return picture_loss(decoded, pixels) + 1e-4 * latents.float().square().mean()

    _, done = train({"vae": vae}, loss_at, options, "vae", folder=folder, on_progress=on_progress, should_stop=should_stop)
    vae.eval()
    with torch.no_grad():
        pixels = to_pixels(samples.frames(10**6, 32).rgb)
        vae.register_to_config(scaling_factor=1 / float(vae.encode(pixels).latent_dist.mode().std()))
    return done


def train_base(
    pipe, samples, options: LoopOptions, seed: int = 0, *, dropout: Dropout = Dropout(), person_weight: float = 4.0,
    precision: torch.dtype = torch.float32, folder: Path | None = None, on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:  # fmt: skip
    """Trains UNet, adapter and image encoder against the frozen VAE; True when all steps are done."""
    modules = {"unet": pipe.unet, "adapter": pipe.adapter, "image_encoder": pipe.image_encoder}
    for module in modules.values():
        module.train()
    pipe.vae.eval().requires_grad_(False)
    form, factor, device = pipe.form, pipe.factor, pipe.unet.device
    batch_at = Ahead(samples.batch)

    def loss_at(step: int) -> torch.Tensor:
        batch = batch_at(step)
        photo, target = to_pixels(batch.photo), to_pixels(batch.target)
        count = len(photo)
        has = draw_dropout(count, dropout, random(seed, step, 3), device)
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
            photo_latents, latents = encode_latents(pipe.vae, torch.cat([photo, target])).float().chunk(2)
            poses = encode_windows(batch.window_parts, batch.window_uv, has, factor)
            warp = None
            if form.reference_warp == "texture":
                planes = disturbed_warp(photo, batch, has, form.reference_background, random(seed, step, 4))
                warp = warp_channels(planes, factor)
        timesteps = draw_timesteps(count, pipe.scheduler.config.num_train_timesteps, random(seed, step, 5)).to(device)
        noise = torch.randn(latents.shape, generator=random(seed, step, 6)).to(device)
        noisy, wanted = noised(pipe.scheduler, latents, noise, timesteps)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            tokens = reference_tokens(photo, photo_latents, pipe.image_encoder, pipe.image_processor, pipe.adapter)
            tokens = tokens * has["image"][:, None, None]
            prediction = pipe.unet(unet_input(noisy, poses, warp), timesteps, tokens).sample
        return denoising_loss(prediction, wanted, coverage(batch.window_parts[:, 2], factor), person_weight)

    _, done = train(modules, loss_at, options, "base", folder=folder, on_progress=on_progress, should_stop=should_stop)
    for module in modules.values():
        module.eval()
    return done


def draw_timesteps(count: int, total: int, generator: torch.Generator) -> torch.Tensor:
    """Random timesteps (B,) in 0..total-1, more of them noisy: what the frame shows is decided there."""
    return (torch.rand(count, generator=generator) ** 0.6 * total).long()


def person_crops(frames: torch.Tensor, parts: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """Square crops (B, 3, side, side) that each contain a random pixel of the person (of the frame, where nobody is)."""
    count, _, height, width = frames.shape
    side = min(side, height, width)
    crops = []
    for frame, part in zip(frames, parts):
        where = (part > 0).nonzero()
        where = where if len(where) else (part >= 0).nonzero()
        row, column = where[int(torch.randint(len(where), (), generator=generator))].tolist()
        shift = torch.randint(side, (2,), generator=generator).tolist()
        top, left = min(max(row - shift[0], 0), height - side), min(max(column - shift[1], 0), width - side)
        crops.append(frame[:, top : top + side, left : left + side])
    return torch.stack(crops)


def draw_dropout(count: int, dropout: Dropout, generator: torch.Generator, device) -> dict[str, torch.Tensor]:
    """What each sample keeps, as float (B,) of 0 and 1: image, pose, warp, uv, parts."""
    kind, warp, maps = torch.rand(3, count, generator=generator)
    a, b, c = dropout.both, dropout.both + dropout.image, dropout.both + dropout.image + dropout.pose
    image, pose = kind >= b, (kind >= c) | ((kind >= a) & (kind < b))
    keeps = {
        "image": image, "pose": pose, "warp": image & pose & (warp >= dropout.warp),
        "uv": maps >= dropout.uv, "parts": maps < 1 - dropout.parts,
    }  # fmt: skip
    return {name: keep.float().to(device) for name, keep in keeps.items()}


def encode_windows(parts: torch.Tensor, uv: torch.Tensor, has: dict[str, torch.Tensor], factor: int) -> torch.Tensor:
    """Windows (B, 5, H, W) and (B, 5, 2, H, W) as the UNet's pose channels, with dropped maps and dropped kinds of maps."""
    count = len(parts)
    both = encode_maps(parts.flatten(0, 1), uv.flatten(0, 1).float(), factor).unflatten(0, (count, 5))
    from_parts, from_uv = has["parts"][:, None, None, None, None], has["uv"][:, None, None, None, None]
    covers, values, parts_flag, uv_flag = both.split([both.shape[2] - 4, 2, 1, 1], dim=2)
    kept = torch.cat([covers * from_parts, values * from_uv, parts_flag * from_parts, uv_flag * from_uv], 2)
    return kept.flatten(1, 2) * has["pose"][:, None, None, None]


def disturbed_warp(photo, batch, has: dict[str, torch.Tensor], background: bool, generator: torch.Generator) -> torch.Tensor:
    """Moved textures (B, 5, H, W) harvested through photo maps that are as wrong as an estimator's.

    The map is displaced by up to 2 % of the height, its U, V are noisy by up to 0.08, it has holes, limbs are swapped left
    and right, or it has parts only. Dropped samples are all zeros.
    """
    count, height, width = batch.photo_parts.shape
    device = photo.device

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator).to(device)

    parts, uv = batch.photo_parts.long(), batch.photo_uv.float()
    reach = (0.02 * height * uniform(count) * (uniform(count) < 0.6))[:, None]
    angle = 2 * torch.pi * uniform(count)[:, None]
    shift = torch.cat([reach * angle.sin(), reach * angle.cos()], 1).round().long()
    rows = (torch.arange(height, device=device)[None] + shift[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device)[None] + shift[:, 1:]).clamp(0, width - 1)
    which = torch.arange(count, device=device)[:, None, None]
    parts = parts[which, rows[:, :, None], columns[:, None, :]]
    uv = uv.movedim(1, -1)[which, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    strength = (0.08 * uniform(count) * (uniform(count) < 0.5))[:, None, None, None]
    # an estimator's errors are smooth: one draw a block of pixels, not one a pixel
    blocks = torch.randn(count, 2, height // 8 + 1, width // 8 + 1, generator=generator).to(device)
    uv = (uv + strength * torch.nn.functional.interpolate(blocks, size=(height, width), mode="bilinear")).clamp(0, 1)
    hole = ((uniform(count) < 0.2)[:, None, None]) & (
        ((torch.arange(height, device=device)[None, :, None] - height * uniform(count)[:, None, None]).abs() < 0.06 * height)
        & ((torch.arange(width, device=device)[None, None] - width * uniform(count)[:, None, None]).abs() < 0.2 * width))
    parts = torch.where(hole, torch.zeros_like(parts), parts)
    mirrored = parts + torch.where(parts % 2 == 1, 1, -1)
    paired = ((parts >= 7) & (parts <= 22)) & ((uniform(count) < 0.05)[:, None, None])
    parts = torch.where(paired, mirrored, parts)
    # as in the pipeline: a photo with parts only gives mean colours, a target with parts only takes them, and a target with
    # U, V only has no warp
    only_parts = (uniform(count) < 0.1)[:, None, None, None]
    texture = harvest(photo, parts, uv)
    texture.texels = texture.texels * (1 - only_parts[..., None].float())
    texture.rows = torch.where(only_parts, texture.means[:, :, None], texture.rows)
    target = batch.window_parts[:, 2]
    planes = move(texture, target, batch.window_uv[:, 2].float(), background)
    means = move(texture, target, None, background)
    planes = torch.where((has["uv"] > 0)[:, None, None, None], planes, means)
    return planes * (has["warp"] * has["parts"])[:, None, None, None]
