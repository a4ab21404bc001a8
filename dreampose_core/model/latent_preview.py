"""Preview frames while they are denoised: a linear map fitted to the photo turns latents into colours, without the
VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_COLOURLESS = 1e-3  # ridge: stabilises the fit for photos with few colours


def colour_map(photo: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Return the linear map with offset, (C + 1, 3), that best predicts a photo's pixels (1, 3, H, W) from its latents
    (1, C, h, w)."""
    channels = latents.shape[1]
    small = F.adaptive_avg_pool2d(photo.float().cpu(), latents.shape[2:])
    inputs = _with_offset(latents.float().cpu())
    ridge = _COLOURLESS * len(inputs) * torch.eye(channels + 1)
    return torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ small[0].flatten(1).T)


def latent_preview(latents: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Return pixels (B, 3, h, w) in [-1, 1], one per latent cell, for latents (B, C, h, w)."""
    count, _, height, width = latents.shape
    pixels = torch.cat([_with_offset(one[None]) @ colours for one in latents.float().cpu()])
    return pixels.view(count, height, width, 3).movedim(3, 1).clamp(-1, 1)


def _with_offset(latents: torch.Tensor) -> torch.Tensor:
    """Flatten (1, C, h, w) to (h w, C + 1) with a column of ones."""
    flat = latents[0].flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], 1)
