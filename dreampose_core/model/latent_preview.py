"""A preview of frames while they are denoised: latents as colours by a linear map that is fitted to the photo, without
the VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_COLOURLESS = 1e-3  # ridge: keeps the map tame where a photo has few colours


def colour_map(photo: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """(C + 1, 3): the linear map, with an offset, from a photo's latents (1, C, h, w) to its pixels (1, 3, H, W) that
    errs least."""
    channels = latents.shape[1]
    small = F.adaptive_avg_pool2d(photo.float().cpu(), latents.shape[2:])
    given = _with_offset(latents.float().cpu())
    ridge = _COLOURLESS * len(given) * torch.eye(channels + 1)
    return torch.linalg.solve(given.T @ given + ridge, given.T @ small[0].flatten(1).T)


def latent_preview(latents: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Pixels (B, 3, h, w) in [-1, 1], one for each latent cell, of latents (B, C, h, w)."""
    count, _, height, width = latents.shape
    pixels = torch.cat([_with_offset(one[None]) @ colours for one in latents.float().cpu()])
    return pixels.view(count, height, width, 3).movedim(3, 1).clamp(-1, 1)


def _with_offset(latents: torch.Tensor) -> torch.Tensor:
    """(1, C, h, w) -> (h w, C + 1)."""
    flat = latents[0].flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], 1)
