"""Conditions in base training: dropped, perturbed and cropped at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..model.conditioning import condition_latents, encode_latents, encode_maps, to_pixels, warp_channels
from ..model.config import ModelConfig
from ..model.texture import harvest, move
from .distributed import Draws
from .drawn import Crops
from .losses import noised

CROP = 0.8  # of targets of videos: share of the frame's sides; the photo is always whole
_NOISIER = 0.15  # below 1, the UNet trains on more noisy latents, which decide what a frame shows, than clean ones


@dataclass(frozen=True)
class Dropout:
    """Shares of samples in which a condition is dropped; each is drawn independently for every sample.

    pose, image, both: the paper's three (5 % each). warp: the moved texture. uv, parts: of the pose maps.
    """

    pose: float = 0.05
    image: float = 0.05
    both: float = 0.05
    warp: float = 0.4
    uv: float = 0.1
    parts: float = 0.05


@dataclass
class Conditioned:
    """One training batch as the networks see it.

    target: pixels; photo, photo_latents: the photo's pixels and latents; poses, warp: channels; planes: the moved
    texture's; has: the conditions kept, see `draw_dropout`; mask: the person, 0/1; person: its share of each latent
    cell; noisy, timesteps: noisy latents and their timesteps; wanted: the prediction's target.
    """

    target: torch.Tensor
    photo: torch.Tensor
    photo_latents: torch.Tensor
    poses: torch.Tensor
    warp: torch.Tensor
    planes: torch.Tensor | None
    has: dict[str, torch.Tensor]
    mask: torch.Tensor
    person: torch.Tensor
    noisy: torch.Tensor
    timesteps: torch.Tensor
    wanted: torch.Tensor


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return the context that computes in `precision`."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


@torch.no_grad()
def conditioned(pipe, batch, dropout: Dropout, precision: torch.dtype, seed: int, step: int) -> Conditioned:
    """Prepare the samples of a step, with conditions dropped, perturbed and cropped at random, and noise added."""
    config, factor, device, count = pipe.model_config, pipe.factor, pipe.unet.device, len(batch.photo)
    has = draw_dropout(count, dropout, Draws(seed, step, 3), device)
    if isinstance(batch, Crops):
        photo, target, planes, parts, uv = batch.photo, batch.target, batch.planes, batch.parts, batch.uv
        planes = planes * (has["warp"] * has["parts"] * has["uv"])[:, None, None, None]
    else:
        photo = to_pixels(batch.photo)
        # unknown maps count as dropped, and a single known kind is never dropped
        has["parts"] = torch.maximum(has["parts"], 1 - batch.has_uv) * batch.has_parts
        has["uv"] = torch.maximum(has["uv"], 1 - batch.has_parts) * batch.has_uv
        part = random_part(count, config.size, CROP, 4 * factor, Draws(seed, step, 2))
        target, parts, uv = part(to_pixels(batch.target)), part(batch.window_parts), part(batch.window_uv.float())
        planes = None
        if config.reference_warp != "none":
            planes = part(disturbed_warp(photo, batch, has, config.reference_background, Draws(seed, step, 4)))
    with autocast(device, precision):
        latents = encode_latents(pipe.vae, target).float()
        photo_latents = condition_latents(config, pipe.vae, photo).float()
        poses = encode_windows(config, parts, uv, has, factor)
        warp = poses[:, :0] if planes is None else warp_channels(config, planes, pipe.vae).float()
    mask = (parts[:, 2:3] > 0).float()
    person = F.avg_pool2d(mask, factor)
    times = Draws(seed, step, 5).rand(count) ** _NOISIER * pipe.scheduler.config.num_train_timesteps
    timesteps, noise = times.long().to(device), Draws(seed, step, 6).randn(*latents.shape).to(device)
    noisy, wanted = noised(pipe.scheduler, latents, noise, timesteps)
    return Conditioned(target, photo, photo_latents, poses, warp, planes, has, mask, person, noisy, timesteps, wanted)


def random_part(
    count: int, size: tuple[int, int], share: float, multiple: int, draws: Draws
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that crops tensors (B, ..., H, W) to a random part, another one for each of `count` samples.

    share: of each side, rounded to whole `multiple`s of pixels, as is the crop's position.
    """
    high, wide = (side if share == 1 else max(multiple, round(share * side / multiple) * multiple) for side in size)
    rows, columns = (
        (draws.rand(count) * ((side - cut) // multiple + 1)).long() * multiple for side, cut in zip(size, (high, wide))
    )

    def cut(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([sample[..., r : r + high, c : c + wide] for sample, r, c in zip(x, rows, columns)])

    return cut


def draw_dropout(count: int, dropout: Dropout, draws: Draws, device) -> dict[str, torch.Tensor]:
    """Draw what each sample keeps, as float (B,) of 0 and 1: image, pose, warp, uv, parts."""
    kind, warp, maps = draws.rand(count, 3).unbind(1)
    a, b, c = dropout.both, dropout.both + dropout.image, dropout.both + dropout.image + dropout.pose
    image, pose = kind >= b, (kind >= c) | ((kind >= a) & (kind < b))
    keeps = {
        "image": image,
        "pose": pose,
        "warp": image & pose & (warp >= dropout.warp),
        "uv": maps >= dropout.uv,
        "parts": maps < 1 - dropout.parts,
    }
    return {name: keep.float().to(device) for name, keep in keeps.items()}


def encode_windows(
    config: ModelConfig, parts: torch.Tensor, uv: torch.Tensor, has: dict[str, torch.Tensor], factor: int
) -> torch.Tensor:
    """Encode windows (B, 5, H, W) and (B, 5, 2, H, W) as the UNet's pose channels, with maps and kinds of maps
    dropped."""
    encoded = encode_maps(parts.flatten(0, 1), uv.flatten(0, 1).float(), factor, config.pose_encoding)
    encoded = encoded.unflatten(0, parts.shape[:2])
    if config.pose_encoding == "iuv":
        from_parts, from_uv = has["parts"][:, None, None, None, None], has["uv"][:, None, None, None, None]
        covers, values, parts_flag, uv_flag = encoded.split([encoded.shape[2] - 4, 2, 1, 1], dim=2)
        encoded = torch.cat([covers * from_parts, values * from_uv, parts_flag * from_parts, uv_flag * from_uv], 2)
    return encoded.flatten(1, 2) * has["pose"][:, None, None, None]


def disturbed_warp(photo, batch, has: dict[str, torch.Tensor], background: bool, draws: Draws) -> torch.Tensor:
    """Move textures that are harvested through photo maps with an estimator's typical errors: (B, 5, H, W).

    The map is shifted by up to 2 % of the height (`harvest` corrects part of that), its U, V have noise of up to 0.08,
    it has holes, limbs are swapped left and right, or it has parts only. Dropped samples are all zeros.
    """
    count, height, width = batch.photo_parts.shape
    device = photo.device

    def uniform(*shape: int) -> torch.Tensor:
        return draws.rand(*shape).to(device)

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
    # an estimator's errors are smooth: one draw per block of pixels
    blocks = draws.randn(count, 2, height // 8 + 1, width // 8 + 1).to(device)
    uv = (uv + strength * F.interpolate(blocks, size=(height, width), mode="bilinear")).clamp(0, 1)

    def strip(side: int, reach: float) -> torch.Tensor:
        """(B, side) whether a row or column is less than `reach` of the side away from a random place."""
        return (torch.arange(side, device=device)[None] - side * uniform(count)[:, None]).abs() < reach * side

    hole = (uniform(count) < 0.2)[:, None, None] & strip(height, 0.06)[:, :, None] & strip(width, 0.2)[:, None]
    parts = torch.where(hole, torch.zeros_like(parts), parts)
    mirrored = parts + torch.where(parts % 2 == 1, 1, -1)
    paired = ((parts >= 7) & (parts <= 22)) & ((uniform(count) < 0.05)[:, None, None])
    parts = torch.where(paired, mirrored, parts)
    # as in the pipeline: a photo with parts only gives mean colours, a target with parts only takes mean colours, and a
    # target with U, V only has no warp
    only_parts = (uniform(count) < 0.1)[:, None, None, None]
    texture = harvest(photo, parts, uv).without(only_parts[..., None].float())
    texture = texture._replace(rows=torch.where(only_parts, texture.means[:, :, None], texture.rows))
    target = batch.window_parts[:, 2]
    planes = move(texture, target, batch.window_uv[:, 2].float(), background)
    means = move(texture, target, None, background)
    planes = torch.where((has["uv"] > 0)[:, None, None, None], planes, means)
    return planes * (has["warp"] * has["parts"])[:, None, None, None]
