"""Convert the networks' inputs: photo -> tokens, pose maps -> channels, moved texture -> channels.

Training and inference both use these functions, so their inputs cannot diverge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..errors import InputError
from ..poses import NUM_PARTS, WINDOW, PoseSequence
from .config import POSE_CHANNELS, ModelConfig
from .texture import WARP_PLANES
from .textured_vae import TexturedVAE, planes_at

_WARP_BLOCK = 8  # VAEs with larger cells get planes averaged to 4 x 4 per cell


def vae_factor(vae) -> int:
    """Return the side of a latent cell in pixels."""
    return 2 ** (len(vae.config.block_out_channels) - (not isinstance(vae, TexturedVAE)))


def unet_in_channels(config: ModelConfig, latent_channels: int, factor: int) -> int:
    """Return the UNet's input channels: noisy latents, five encoded maps, texture planes; `factor` is the VAE's."""
    planes = WARP_PLANES * _warp_block(factor) ** 2
    warp = {"none": 0, "texture": planes, "encoded": planes + latent_channels}[config.reference_warp]
    return latent_channels + pose_channels(config) + warp


def _warp_block(factor: int) -> int:
    """Return the side of the block of moved texture pixels that the UNet gets per latent cell."""
    return factor if factor <= _WARP_BLOCK else 4


def pose_channels(config: ModelConfig) -> int:
    """Return the channels of the whole pose window that the UNet gets for one frame."""
    return len(WINDOW) * POSE_CHANNELS[config.pose_encoding]


def to_pixels(image: torch.Tensor) -> torch.Tensor:
    """Convert uint8 (..., H, W, 3) to float (..., 3, H, W) in [-1, 1]."""
    return image.movedim(-1, -3).float() / 127.5 - 1


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Convert float (..., 3, H, W) in [-1, 1] to uint8 (..., H, W, 3)."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1)


def pose_tensors(poses: PoseSequence, charts: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return parts (T, H, W) int64 and uv (T, 2, H, W) float; U, V in charts other than `charts` are dropped.

    Raises InputError if nothing remains.
    """
    parts = None if poses.parts is None else torch.from_numpy(poses.parts.astype("int64"))
    uv = None if poses.uv is None or poses.charts != charts else torch.from_numpy(poses.uv.astype("float32"))
    if parts is None and uv is None:
        raise InputError(
            f"This pose sequence has only U, V, in {poses.charts} charts, and the model was trained on {charts} "
            "charts; give a sequence with parts, or one in the model's charts."
        )
    return parts, uv


def encode_maps(
    parts: torch.Tensor | None, uv: torch.Tensor | None, factor: int, encoding: str = "iuv"
) -> torch.Tensor:
    """Encode pose maps as channels at latent resolution: parts (N, H, W), uv (N, 2, H, W), one of which may be None ->
    (N, C, H / factor, W / factor).

    "iuv", 28 channels: 24 planes with the share of a latent cell that each part covers, which keeps edges finer than
    the cell; U and V of the cell's middle pixel, never averaged; two flags for parts known and UV known.
    "uv", 2 channels, as in the original: U and V of the cell's first pixel in [-1, 1], slightly beyond if not clamped,
    -1 in the background. Raises InputError without U, V.
    """
    if encoding == "uv":
        if uv is None:
            raise InputError(
                "This model takes poses as U, V only, and the pose sequence has none in its charts; give one that has."
            )
        return uv[:, :, ::factor, ::factor].float() * 2 - 1
    maps = parts if parts is not None else uv[:, 0]
    count, height, width = maps.shape
    h, w = height // factor, width // factor
    out = torch.zeros(count, POSE_CHANNELS["iuv"], h, w, device=maps.device)
    if parts is not None:
        # (N, H, W) -> (N, h, f, w, f) -> (N, h w, f f): count each part in each cell
        cells = parts.long().reshape(count, h, factor, w, factor).transpose(2, 3).reshape(count, h * w, factor * factor)
        cover = torch.zeros(count, h * w, NUM_PARTS + 1, device=maps.device)
        cover.scatter_add_(2, cells, torch.full(cells.shape, 1.0 / factor**2, device=maps.device))
        out[:, :NUM_PARTS] = cover[..., 1:].transpose(1, 2).reshape(count, NUM_PARTS, h, w)
        out[:, NUM_PARTS + 2] = 1
    if uv is not None:
        middle = factor // 2
        out[:, NUM_PARTS : NUM_PARTS + 2] = uv[:, :, middle::factor, middle::factor].clamp(0, 1)
        out[:, NUM_PARTS + 3] = 1
    return out


def window_channels(encoded: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Stack encoded maps (N, C, h, w) by indices (B, m) to (B, m C, h, w), earliest map first."""
    return encoded[indices].flatten(1, 2)


def warp_channels(config: ModelConfig, planes: torch.Tensor, vae) -> torch.Tensor:
    """Convert moved texture planes (B, 5, H, W), all zeros for none, to UNet channels (B, C, H / f, W / f).

    "texture": 5 f f channels, unshuffled without losing a pixel; 80 if f is above 8, of planes averaged to 4 x 4 per
    cell. "encoded": the same preceded by the moved texture's latents, zeros for none; the UNet then predicts the
    frame's difference from them, see `predict`. "none": (B, 0, ...).
    """
    factor = vae_factor(vae)
    height, width = planes.shape[2] // factor, planes.shape[3] // factor
    if config.reference_warp == "none":
        return planes.new_zeros(len(planes), 0, height, width)
    channels = planes_at(planes, (height, width), _warp_block(factor))
    if config.reference_warp == "texture":
        return channels
    there = (planes != 0).flatten(1).any(1)[:, None, None, None]
    latents = encode_latents(vae, planes[:, :3]).to(channels.dtype)
    return torch.cat([torch.where(there, latents, torch.zeros_like(latents)), channels], 1)


def predict(pipe, noisy, timesteps, poses, warp, tokens, scheduler=None, unet=None) -> torch.Tensor:
    """Return the UNet's prediction, of the scheduler's prediction type, for noisy latents (B, C, h, w) at timesteps
    (B,) or a single timestep. poses, warp: channels (B, C, h, w) from `encode_maps` and `warp_channels`. scheduler: the
    solver, if it is not the model's own; its noise schedule may differ in the last step. unet: a shortcut through it,
    see `denoising.reusing`.

    With reference_warp "encoded" the UNet starts from the latents w of the moved texture: its input is the noisy
    difference from them, x_t - alpha_t w, and its prediction of the difference is converted to one of the frame. So an
    untrained UNet reproduces the moved texture, and training only has to correct it.
    """
    encoded, scheduler = pipe.model_config.reference_warp == "encoded", scheduler or pipe.scheduler
    if encoded:
        start = warp[:, : noisy.shape[1]].float()
        alpha_bar = scheduler.alphas_cumprod.to(noisy.device)[timesteps].view(-1, 1, 1, 1)
        noisy = noisy - alpha_bar.sqrt() * start
    given = torch.cat([noisy, poses, warp], 1).to(pipe.unet.dtype)
    prediction = (unet or pipe.unet)(given, timesteps, tokens).sample.float()
    if not encoded:
        return prediction
    share = {"sample": 1.0, "epsilon": 0.0, "v_prediction": -(1 - alpha_bar).sqrt()}[scheduler.config.prediction_type]
    return prediction + share * start


def clean_latents(scheduler, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Return the clean latents (B, C, h, w) that a prediction of any type implies for noisy latents at timesteps
    (B,)."""
    alpha_bar = scheduler.alphas_cumprod.to(noisy.device)[timesteps.to(noisy.device)].view(-1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (noisy - sigma * prediction) / alpha.clamp_min(1e-3)
    return alpha * noisy - sigma * prediction if kind == "v_prediction" else prediction


def condition_latents(config: ModelConfig, vae, photos: torch.Tensor) -> torch.Tensor:
    """Return scaled latents of photos (B, 3, H, W) in [-1, 1] for the adapter; with photo_encoding "released" the VAE
    encodes bytes, 0 to 255."""
    if config.photo_encoding == "released":
        return encode_latents(vae, to_uint8(photos).movedim(-1, -3).float())
    return encode_latents(vae, condition_pixels(config, photos))


def condition_pixels(config: ModelConfig, photos: torch.Tensor) -> torch.Tensor:
    """Resize photos (B, 3, H, W) in [-1, 1] to the config's `condition_size`: never cropped, padded with grey to its
    shape."""
    (height, width), (high, wide) = config.condition_size, photos.shape[2:]
    if (height, width) == (high, wide):
        return photos
    scale = min(height / high, width / wide)
    size = max(1, round(high * scale)), max(1, round(wide * scale))
    small = F.interpolate(photos, size, mode="bilinear", antialias=True, align_corners=False)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return F.pad(small, (left, width - size[1] - left, top, height - size[0] - top))


def clip_pixels(photos: torch.Tensor, image_processor) -> torch.Tensor:
    """Prepare photos (B, 3, H, W) in [-1, 1] for CLIP: padded to a square with grey, so head and feet are kept."""
    _, _, height, width = photos.shape
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    square = F.pad(photos, (left, side - width - left, top, side - height - top))
    size = image_processor.crop_size["height"]
    small = F.interpolate(square, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (photos.new_tensor(x).view(1, 3, 1, 1) for x in (image_processor.image_mean, image_processor.image_std))
    return ((small + 1) / 2 - mean) / std


def encode_latents(vae, pixels: torch.Tensor) -> torch.Tensor:
    """Encode pixels (B, 3, H, W) in [-1, 1] to scaled latents: the distribution's mode, which avoids flicker."""
    return vae.encode(pixels.to(vae.dtype)).latent_dist.mode() * vae.config.scaling_factor


def decode_both(vae, latents: torch.Tensor, planes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode scaled latents to pixels (B, 3, H, W) in about [-1, 1], and return what the decoder draws itself, see
    `TexturedDecoder.both`; a `TexturedVAE` also takes the moved texture's planes (B, 5, H, W) or None."""
    unscaled = (latents / vae.config.scaling_factor).to(vae.dtype)
    if isinstance(vae, TexturedVAE):
        return vae.decoder.both(vae.post_quant_conv(unscaled), planes)
    decoded = vae.decode(unscaled).sample
    return decoded, decoded


def reference_tokens(pipe, photos: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Return cross-attention tokens (B, n, d) of photos (B, 3, H, W) in [-1, 1] with their `condition_latents` (B, C,
    h, w).

    photo_encoding "own": CLIP sees the whole photo, see `clip_pixels`. "released", as the authors ran their weights:
    CLIP's processor crops the middle square, and the VAE encodes bytes.
    """
    if pipe.model_config.photo_encoding == "own":
        seen = clip_pixels(photos, pipe.image_processor)
    else:
        pictures = list(to_uint8(photos).cpu().numpy())
        seen = pipe.image_processor(images=pictures, return_tensors="pt")["pixel_values"].to(photos.device)
    clip = pipe.image_encoder(pixel_values=seen.to(pipe.image_encoder.dtype)).last_hidden_state
    return pipe.adapter(clip.to(pipe.adapter.dtype), latents.to(pipe.adapter.dtype))


def blank_tokens(pipe, tokens: torch.Tensor) -> torch.Tensor:
    """Return the tokens (1, n, d) for no photo, in place of tokens (B, n, d): zeros; with photo_encoding "released"
    those of a black photo whose bytes reach the VAE with height and width swapped, as in the authors' code."""
    if pipe.model_config.photo_encoding == "own":
        return torch.zeros_like(tokens[:1])
    black = torch.full((1, 3, *pipe.model_config.size), -1.0, device=tokens.device)
    latents = encode_latents(pipe.vae, torch.zeros_like(black).transpose(2, 3))
    return reference_tokens(pipe, black, latents).to(tokens.dtype)
