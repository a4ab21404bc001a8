"""The base recipe: a VAE on crops of frames, then UNet, adapter and image encoder on pairs of frames (paper, section
4.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..model.conditioning import (
    blank_tokens,
    clean_latents,
    condition_latents,
    decode_both,
    encode_latents,
    encode_maps,
    predict,
    reference_tokens,
    to_pixels,
    warp_channels,
)
from ..model.config import ModelConfig
from ..model.texture import SOURCE_TEXEL, harvest, move
from ..model.textured_vae import TexturedVAE
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from .discriminator import PatchDiscriminator, adversarial_losses
from .distributed import Draws, Share
from .drawn import WRONG, Crops
from .gradient_checkpointing import gradient_checkpointing
from .loop import LoopOptions, train
from .losses import coverage, denoising_loss, min_snr_weight, noised, picture_loss
from .prefetch import Prefetch
from .record import Sample

_DRAWN, _RIGHT = 0.5, 0.1  # weight of what a textured decoder draws itself, and of that where the texture is right


@dataclass(frozen=True)
class Dropout:
    """Shares of samples in which a condition is dropped, each drawn on its own for every sample.

    pose, image, both: the paper's three (5 % each). warp: the moved texture alone. uv, parts: of the pose maps alone.
    """

    pose: float = 0.05
    image: float = 0.05
    both: float = 0.05
    warp: float = 0.25
    uv: float = 0.1
    parts: float = 0.05


def train_vae(
    pipe,
    samples,
    options: LoopOptions,
    seed: int = 0,
    *,
    frames: int = 8,
    crops: int = 2,
    side: int = 64,
    precision: torch.dtype = torch.float32,
    checkpointing: bool = False,
    folder: Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:
    """Trains the VAE on random square crops around people and sets its scaling factor; True when all steps are done.

    checkpointing: of gradients, here and below.

    frames, crops: frames a step and crops of each, `side` pixels wide.
    """
    vae = pipe.vae.train()
    textured = isinstance(vae, TexturedVAE)
    drawn_at = Prefetch(samples.batch if textured else lambda step: samples.frames(step, frames))

    def pictures(step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Crops, and the moved texture in half of them."""
        drawn = drawn_at(step)
        if textured:
            shown = Draws(seed, step, 1, samples.share).rand(len(drawn.target)) < 0.5
            return drawn.target, drawn.planes * shown[:, None, None, None]
        rgb, parts = (x.repeat_interleave(crops, 0) for x in (drawn.rgb, drawn.parts))
        return person_crops(to_pixels(rgb), parts, side, Draws(seed, step, 1, samples.share)), None

    def loss_at(step: int) -> torch.Tensor:
        pixels, planes = pictures(step)
        with torch.autocast(pixels.device.type, precision, enabled=precision != torch.float32):
            # only the mode is ever used, so it is what is trained; sampling would cost colour first
            latents = vae.encode(pixels).latent_dist.mean
            decoded = decode_both(vae, latents * vae.config.scaling_factor, planes)[1]
        return picture_loss(decoded, pixels) + 1e-4 * latents.float().square().mean()

    with gradient_checkpointing(checkpointing, vae):
        _, done = train(
            {"vae": vae}, loss_at, options, "vae", folder=folder, on_progress=on_progress, should_stop=should_stop
        )
    vae.eval()
    with torch.no_grad():
        pixels = samples.batch(10**6).target if textured else to_pixels(samples.frames(10**6, 32, whole=True).rgb)
        vae.register_to_config(scaling_factor=1 / float(vae.encode(pixels).latent_dist.mode().std()))
    return done


def train_base(
    pipe,
    samples,
    options: LoopOptions,
    seed: int = 0,
    *,
    dropout: Dropout = Dropout(),
    person_weight: float = 4.0,
    crop: float = 1.0,
    noisier: float = 0.6,
    min_snr: float | None = None,
    precision: torch.dtype = torch.float32,
    checkpointing: bool = False,
    folder: Path | None = None,
    sample: Sample | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:
    """Trains UNet, adapter and image encoder against the frozen VAE; True when all steps are done.

    crop: sides of the random part of each target that is trained on, as a share of the frame's; the photo is always
    seen whole.
    noisier: see `draw_timesteps`. min_snr: gamma of `min_snr_weight`, None for all timesteps alike. sample: see
    `loop.train`.
    """
    modules = {"unet": pipe.unet, "adapter": pipe.adapter, "image_encoder": pipe.image_encoder}
    for module in modules.values():
        module.train()
    pipe.vae.eval().requires_grad_(False)
    batch_at, total = Prefetch(samples.batch), pipe.scheduler.config.num_train_timesteps

    def loss_at(step: int) -> torch.Tensor:
        given = conditioned(pipe, batch_at(step), dropout, crop, precision, seed, step, samples.share)
        timesteps = draw_timesteps(len(given.latents), total, noisier, Draws(seed, step, 5, samples.share))
        prediction, wanted = predicted(pipe, given, timesteps, precision, Draws(seed, step, 6, samples.share))
        by_noise = None if min_snr is None else min_snr_weight(pipe.scheduler, given.timesteps, min_snr)
        return denoising_loss(prediction, wanted, 1 + (person_weight - 1) * given.person, by_noise)

    with gradient_checkpointing(checkpointing, pipe.unet, pipe.image_encoder):
        _, done = train(
            modules,
            loss_at,
            options,
            "base",
            folder=folder,
            sample=sample,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    for module in modules.values():
        module.eval()
    return done


def train_end_to_end(
    pipe,
    samples,
    options: LoopOptions,
    seed: int = 0,
    *,
    warp_dropout: float = 0.4,
    person_weight: float = 4.0,
    adversarial: float = 0.05,
    crop: float = 1.0,
    noisier: float = 0.6,
    precision: torch.dtype = torch.float32,
    checkpointing: bool = False,
    folder: Path | None = None,
    sample: Sample | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:
    """Trains UNet, adapter, image encoder and the VAE's decoder together by the frames they make; True when all steps
    are done.

    What the UNet cannot know costs it a blurred latent, the decoder an error it has never seen; the error of the pixels
    teaches both. Frames are single predictions from noisy latents, as noisy as in `train_base`; pixels of the person
    count `person_weight` times.
    Neither pose nor photo is dropped, but the moved texture is in `warp_dropout` of the samples: the decoder must meet
    what comes then. adversarial: weight of a discriminator's judgement, which is trained beside them: without it what
    is uncertain is blurred. 0: no discriminator.
    """
    dropout = Dropout(pose=0, image=0, both=0, warp=warp_dropout)
    pipe.vae.eval().requires_grad_(False)
    trained = {
        "unet": pipe.unet,
        "adapter": pipe.adapter,
        "image_encoder": pipe.image_encoder,
        "post_quant_conv": pipe.vae.post_quant_conv,
        "decoder": pipe.vae.decoder,
    }
    if adversarial:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trained["discriminator"] = discriminator = PatchDiscriminator().to(pipe.device)
    for module in trained.values():
        module.train().requires_grad_(True)
    batch_at, total = Prefetch(samples.batch), pipe.scheduler.config.num_train_timesteps

    def loss_at(step: int) -> torch.Tensor:
        given = conditioned(pipe, batch_at(step), dropout, crop, precision, seed, step, samples.share)
        timesteps = draw_timesteps(len(given.latents), total, noisier, Draws(seed, step, 5, samples.share))
        prediction, _ = predicted(pipe, given, timesteps, precision, Draws(seed, step, 6, samples.share))
        latents = clean_latents(pipe.scheduler, given.noisy, prediction.float(), given.timesteps)
        with torch.autocast(latents.device.type, precision, enabled=precision != torch.float32):
            decoded, drawn = decode_both(pipe.vae, latents, given.planes)
            weight = _evenly(1 + (person_weight - 1) * given.mask)
            realism, discriminator_loss = (
                adversarial_losses(discriminator, decoded, given.target, weight) if adversarial else (0, 0)
            )
        loss = picture_loss(decoded, given.target, weight) + adversarial * realism + discriminator_loss
        if drawn is decoded:
            return loss
        needed = _evenly(weight * needs_drawing(given.planes, given.target))
        return loss + _DRAWN * picture_loss(drawn, given.target, needed)

    with gradient_checkpointing(checkpointing, pipe.unet, pipe.image_encoder, pipe.vae):
        _, done = train(
            trained,
            loss_at,
            options,
            "end_to_end",
            folder=folder,
            sample=sample,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    for module in (*trained.values(), pipe.vae):
        module.eval()
    return done


def needs_drawing(planes: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) how much of what a decoder draws itself is needed: all of it where the moved texture (B, 5, H, W) is
    not the photo's own, or far from the target (B, 3, H, W); else little."""
    wrong = ((planes[:, :3] - target).abs().mean(1, keepdim=True) > WRONG) | (planes[:, 4:] != SOURCE_TEXEL)
    return torch.where(wrong, 1.0, _RIGHT)


def _evenly(weight: torch.Tensor) -> torch.Tensor:
    """Weights (B, 1, H, W) with mean 1 in each sample."""
    return weight / weight.mean((1, 2, 3), keepdim=True)


@dataclass
class Conditioned:
    """One training batch as the networks see it.

    target pixels and their latents, photos with theirs, pose and warp channels, the moved texture's planes; has: what
    was kept, see `draw_dropout`; mask: the person, 0/1; person: its share of each latent cell; and, once they are made,
    the noisy latents and their timesteps.
    """

    target: torch.Tensor
    latents: torch.Tensor
    photo: torch.Tensor
    photo_latents: torch.Tensor
    poses: torch.Tensor
    warp: torch.Tensor | None
    planes: torch.Tensor | None
    has: dict[str, torch.Tensor]
    mask: torch.Tensor
    person: torch.Tensor
    noisy: torch.Tensor | None = None
    timesteps: torch.Tensor | None = None


@torch.no_grad()
def conditioned(
    pipe, batch, dropout: Dropout, crop: float, precision: torch.dtype, seed: int, step: int, share: Share = (0, 1)
) -> Conditioned:
    """The samples of a step with their conditions dropped, disturbed and cropped at random; `crop` as in
    `train_base`."""
    config, factor, device = pipe.model_config, pipe.factor, pipe.unet.device
    has = draw_dropout(len(batch.photo), dropout, Draws(seed, step, 3, share), device)
    if isinstance(batch, Crops):
        photo, target, planes, parts, uv = batch.photo, batch.target, batch.planes, batch.parts, batch.uv
        planes = planes * (has["warp"] * has["parts"] * has["uv"])[:, None, None, None]
    else:
        photo = to_pixels(batch.photo)
        if batch.has_parts is not None:  # what the maps do not know is not shown; what they know alone is not dropped
            has["parts"] = torch.maximum(has["parts"], 1 - batch.has_uv) * batch.has_parts
            has["uv"] = torch.maximum(has["uv"], 1 - batch.has_parts) * batch.has_uv
        part = random_part(len(photo), config.size, crop, 4 * factor, Draws(seed, step, 2, share))
        target, parts, uv = part(to_pixels(batch.target)), part(batch.window_parts), part(batch.window_uv.float())
        planes = None
        if config.reference_warp != "none":
            planes = disturbed_warp(photo, batch, has, config.reference_background, Draws(seed, step, 4, share))
            planes = part(planes)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        latents = encode_latents(pipe.vae, target).float()
        photo_latents = condition_latents(config, pipe.vae, photo).float()
        poses = encode_windows(config, parts, uv, has, factor)
        warp = None if planes is None else warp_channels(config, planes, pipe.vae).float()
    mask, person = (parts[:, 2:3] > 0).float(), coverage(parts[:, 2], factor)
    return Conditioned(target, latents, photo, photo_latents, poses, warp, planes, has, mask, person)


def predicted(pipe, given: Conditioned, timesteps: torch.Tensor, precision: torch.dtype, draws: Draws):
    """What the UNet predicts for latents made noisy, at timesteps (B,), and what it should; sets `given.noisy` and
    `given.timesteps`."""
    device = given.latents.device
    noise = draws.randn(*given.latents.shape).to(device)
    given.timesteps = timesteps = timesteps.to(device)
    given.noisy, wanted = noised(pipe.scheduler, given.latents, noise, timesteps)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        encoders = pipe.image_encoder, pipe.image_processor, pipe.adapter
        tokens = reference_tokens(pipe.model_config, given.photo, given.photo_latents, *encoders)
        keep = given.has["image"][:, None, None]
        if not keep.all():
            tokens = torch.where(keep > 0, tokens, blank_tokens(pipe.model_config, tokens, pipe.vae, *encoders))
        return predict(
            pipe.unet, pipe.scheduler, pipe.model_config, given.noisy, timesteps, given.poses, given.warp, tokens
        ), wanted


def random_part(
    count: int, size: tuple[int, int], share: float, multiple: int, draws: Draws
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A cut of `share` of each side, in whole `multiple`s of pixels, at a place of its own for each of `count` samples.

    Returns a function from tensors (B, ..., H, W) to their cuts.
    """
    high, wide = (side if share == 1 else max(multiple, round(share * side / multiple) * multiple) for side in size)
    rows, columns = (
        (draws.rand(count) * ((side - cut) // multiple + 1)).long() * multiple for side, cut in zip(size, (high, wide))
    )

    def cut(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([sample[..., r : r + high, c : c + wide] for sample, r, c in zip(x, rows, columns)])

    return cut


def draw_timesteps(count: int, total: int, noisier: float, draws: Draws) -> torch.Tensor:
    """Random timesteps (B,) in 0..total-1; the further `noisier` is below 1 the more of them are noisy: what the frame
    shows is decided there. 1 is uniform."""
    return (draws.rand(count) ** noisier * total).long()


def person_crops(frames: torch.Tensor, parts: torch.Tensor, side: int, draws: Draws) -> torch.Tensor:
    """Square crops (B, 3, side, side) that each contain a random pixel of the person (of the frame, where nobody
    is)."""
    count, _, height, width = frames.shape
    side = min(side, height, width)
    crops = []
    for frame, part, (at, *shift) in zip(frames, parts, draws.rand(count, 3).tolist()):
        where = (part > 0).nonzero()
        where = where if len(where) else (part >= 0).nonzero()
        row, column = where[int(at * len(where))].tolist()
        shift = [int(x * side) for x in shift]
        top, left = min(max(row - shift[0], 0), height - side), min(max(column - shift[1], 0), width - side)
        crops.append(frame[:, top : top + side, left : left + side])
    return torch.stack(crops)


def draw_dropout(count: int, dropout: Dropout, draws: Draws, device) -> dict[str, torch.Tensor]:
    """What each sample keeps, as float (B,) of 0 and 1: image, pose, warp, uv, parts."""
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
    """Windows (B, 5, H, W) and (B, 5, 2, H, W) as the UNet's pose channels, with dropped maps and dropped kinds of
    maps."""
    encoded = encode_maps(parts.flatten(0, 1), uv.flatten(0, 1).float(), factor, config.pose_encoding).unflatten(
        0, parts.shape[:2]
    )
    if config.pose_encoding == "iuv":
        from_parts, from_uv = has["parts"][:, None, None, None, None], has["uv"][:, None, None, None, None]
        covers, values, parts_flag, uv_flag = encoded.split([encoded.shape[2] - 4, 2, 1, 1], dim=2)
        encoded = torch.cat([covers * from_parts, values * from_uv, parts_flag * from_parts, uv_flag * from_uv], 2)
    return encoded.flatten(1, 2) * has["pose"][:, None, None, None]


def disturbed_warp(photo, batch, has: dict[str, torch.Tensor], background: bool, draws: Draws) -> torch.Tensor:
    """Moved textures (B, 5, H, W) harvested through photo maps that are as wrong as an estimator's.

    The map is displaced by up to 2 % of the height (what `harvest` cannot undo of that remains), its U, V are noisy by
    up to 0.08, it has holes, limbs are swapped left and right, or it has parts only. Dropped samples are all zeros.
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
    # an estimator's errors are smooth: one draw a block of pixels, not one a pixel
    blocks = draws.randn(count, 2, height // 8 + 1, width // 8 + 1).to(device)
    uv = (uv + strength * torch.nn.functional.interpolate(blocks, size=(height, width), mode="bilinear")).clamp(0, 1)
    hole = ((uniform(count) < 0.2)[:, None, None]) & (
        (
            (torch.arange(height, device=device)[None, :, None] - height * uniform(count)[:, None, None]).abs()
            < 0.06 * height
        )
        & ((torch.arange(width, device=device)[None, None] - width * uniform(count)[:, None, None]).abs() < 0.2 * width)
    )
    parts = torch.where(hole, torch.zeros_like(parts), parts)
    mirrored = parts + torch.where(parts % 2 == 1, 1, -1)
    paired = ((parts >= 7) & (parts <= 22)) & ((uniform(count) < 0.05)[:, None, None])
    parts = torch.where(paired, mirrored, parts)
    # as in the pipeline: a photo with parts only gives mean colours, a target with parts only takes them, and a target
    # with U, V only has no warp
    only_parts = (uniform(count) < 0.1)[:, None, None, None]
    texture = harvest(photo, parts, uv).without(only_parts[..., None].float())
    texture.rows = torch.where(only_parts, texture.means[:, :, None], texture.rows)
    target = batch.window_parts[:, 2]
    planes = move(texture, target, batch.window_uv[:, 2].float(), background)
    means = move(texture, target, None, background)
    planes = torch.where((has["uv"] > 0)[:, None, None, None], planes, means)
    return planes * (has["warp"] * has["parts"])[:, None, None, None]
