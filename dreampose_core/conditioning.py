"""What the networks are given: photo -> tokens, pose maps -> channels, moved texture -> channels.

Training and inference both come through here and nowhere else, so the two cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .errors import InputError
from .poses import NUM_PARTS, WINDOW, PoseSequence
from .texture import WARP_PLANES

IUV_CHANNELS = NUM_PARTS + 4  # coverage of each part, U, V, "parts known", "UV known"


@dataclass(frozen=True)
class ModelForm:
    """How a model must be fed; stands in the model folder's config.

    pose_encoding: "iuv". charts: whose U, V the model was trained on. reference_warp: "none" or "texture".
    reference_background: the moved texture lies on the photo's filled background. height, width: of photo and frames.
    image_guidance, pose_guidance: the guidance weights that suit the model (paper, section 4.3: s_I and s_P).
    """

    pose_encoding: str = "iuv"
    charts: str = "mannequin"
    reference_warp: str = "texture"
    reference_background: bool = True
    height: int = 160
    width: int = 128
    image_guidance: float = 1.0
    pose_guidance: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def unet_in_channels(form: ModelForm, latent_channels: int, factor: int) -> int:
    """Input channels of the UNet: noisy latent, five encoded maps, unshuffled texture planes; `factor` is the VAE's."""
    warp = WARP_PLANES * factor * factor if form.reference_warp == "texture" else 0
    return latent_channels + len(WINDOW) * IUV_CHANNELS + warp


def to_pixels(image: torch.Tensor) -> torch.Tensor:
    """uint8 (..., H, W, 3) -> float (..., 3, H, W) in [-1, 1]."""
    return image.movedim(-1, -3).float() / 127.5 - 1


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """float (..., 3, H, W) in [-1, 1] -> uint8 (..., H, W, 3)."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1)


def pose_tensors(poses: PoseSequence, charts: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """parts (T, H, W) int64 and uv (T, 2, H, W) float; U, V of other charts than the model's are dropped."""
    parts = None if poses.parts is None else torch.from_numpy(poses.parts.astype("int64"))
    uv = None if poses.uv is None or poses.charts != charts else torch.from_numpy(poses.uv.astype("float32"))
    if parts is None and uv is None:
        raise InputError(
            f"This pose sequence has only U, V, in {poses.charts} charts, and the model was trained on {charts} charts; "
            "give a sequence with parts, or one in the model's charts."
        )
    return parts, uv


def encode_maps(parts: torch.Tensor | None, uv: torch.Tensor | None, factor: int) -> torch.Tensor:
    """Pose maps as channels at latent resolution: (N, 28, H / factor, W / factor).

    24 planes say how much of a latent cell each part covers, which keeps edges finer than the cell; U and V are those of
    the cell's middle pixel, never averaged; two flags say which of the two are known.
    """
    if parts is None and uv is None:
        raise ValueError("encode_maps needs parts or uv; a null pose is all zeros, see `null_poses`")
    given = parts if parts is not None else uv[:, 0]
    count, height, width = given.shape
    h, w, middle = height // factor, width // factor, factor // 2
    out = torch.zeros(count, IUV_CHANNELS, h, w, device=given.device)
    if parts is not None:
        # (N, H, W) -> (N, h, f, w, f) -> (N, h w, f f): count each part in each cell
        cells = parts.long().reshape(count, h, factor, w, factor).transpose(2, 3).reshape(count, h * w, factor * factor)
        cover = torch.zeros(count, h * w, NUM_PARTS + 1, device=given.device)
        cover.scatter_add_(2, cells, torch.full(cells.shape, 1.0 / factor**2, device=given.device))
        out[:, :NUM_PARTS] = cover[..., 1:].transpose(1, 2).reshape(count, NUM_PARTS, h, w)
        out[:, NUM_PARTS + 2] = 1
    if uv is not None:
        out[:, NUM_PARTS : NUM_PARTS + 2] = uv[:, :, middle::factor, middle::factor]
        out[:, NUM_PARTS + 3] = 1
    return out


def window_channels(encoded: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Encoded maps (N, 28, h, w) and indices (B, 5) -> (B, 5 x 28, h, w), earliest map first."""
    return encoded[indices].flatten(1, 2)


def warp_channels(planes: torch.Tensor, factor: int) -> torch.Tensor:
    """Texture planes (B, 5, H, W) -> (B, 5 f f, H / f, W / f), without losing a pixel."""
    return F.pixel_unshuffle(planes, factor)


def unet_input(noisy: torch.Tensor, poses: torch.Tensor, warp: torch.Tensor | None) -> torch.Tensor:
    """Everything the UNet sees as one tensor (B, C, h, w), in the order of `unet_in_channels`."""
    return torch.cat([noisy, poses] if warp is None else [noisy, poses, warp], dim=1)


def clip_pixels(photos: torch.Tensor, image_processor) -> torch.Tensor:
    """Photos (B, 3, H, W) in [-1, 1] as CLIP wants them: padded to a square with grey, so that head and feet stay."""
    _, _, height, width = photos.shape
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    square = F.pad(photos, (left, side - width - left, top, side - height - top))
    size = image_processor.crop_size["height"]
    small = F.interpolate(square, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (photos.new_tensor(x).view(1, 3, 1, 1) for x in (image_processor.image_mean, image_processor.image_std))
    return ((small + 1) / 2 - mean) / std


def encode_latents(vae, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled latents of pixels (B, 3, H, W) in [-1, 1]: the distribution's mode, so that they do not flicker."""
    return vae.encode(pixels.to(vae.dtype)).latent_dist.mode() * vae.config.scaling_factor


def reference_tokens(photos: torch.Tensor, latents: torch.Tensor, image_encoder, image_processor, adapter) -> torch.Tensor:
    """Cross-attention tokens of photos (B, 3, H, W) in [-1, 1] with their scaled latents (B, C, h, w)."""
    clip = image_encoder(pixel_values=clip_pixels(photos, image_processor).to(image_encoder.dtype)).last_hidden_state
    return adapter(clip.to(adapter.dtype), latents.to(adapter.dtype))
