"""The losses: denoising under dropped conditions, and picture reconstruction for the VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def noised(scheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy latents and what the UNet must predict for them (epsilon or v, as the scheduler says).

    latents, noise (B, C, h, w); timesteps (B,) integers. v = alpha noise - sigma latents (Salimans and Ho, 2022).
    """
    alpha_bar = scheduler.alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = alpha * latents + sigma * noise
    target = noise if scheduler.config.prediction_type == "epsilon" else alpha * noise - sigma * latents
    return noisy, target


def denoising_loss(prediction: torch.Tensor, target: torch.Tensor, person: torch.Tensor, person_weight: float) -> torch.Tensor:
    """Mean squared error (B, C, h, w); cells of the person (B, 1, h, w), 0..1, count `person_weight` times as much."""
    weight = 1 + (person_weight - 1) * person
    return ((prediction.float() - target) ** 2 * weight).mean() / weight.mean()


def picture_loss(prediction: torch.Tensor, target: torch.Tensor, gradient_weight: float = 1.0) -> torch.Tensor:
    """Absolute error of pixels and of their differences between neighbours, (B, 3, H, W): the second keeps edges sharp."""
    difference = prediction.float() - target
    across, down = difference.diff(dim=3).abs().mean(), difference.diff(dim=2).abs().mean()
    return difference.abs().mean() + gradient_weight * (across + down)


def coverage(parts: torch.Tensor, factor: int) -> torch.Tensor:
    """Share of each latent cell that is person: (B, H, W) -> (B, 1, h, w)."""
    return F.avg_pool2d((parts > 0).float()[:, None], factor)
