"""The losses: denoising under dropped conditions, and picture reconstruction for the VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def noised(scheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy latents and what the UNet must predict for them: epsilon, v or the latents ("sample"), as the scheduler says.

    latents, noise (B, C, h, w); timesteps (B,) integers. v = alpha noise - sigma latents (Salimans and Ho, 2022).
    """
    alpha_bar = scheduler.alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = alpha * latents + sigma * noise
    targets = {"epsilon": noise, "v_prediction": alpha * noise - sigma * latents, "sample": latents}
    return noisy, targets[scheduler.config.prediction_type]


def clean_latents(scheduler, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """The latents (B, C, h, w) that a prediction for noisy ones at timesteps (B,) stands for, whatever the scheduler predicts."""
    alpha_bar = scheduler.alphas_cumprod.to(noisy.device)[timesteps.to(noisy.device)].view(-1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (noisy - sigma * prediction) / alpha.clamp_min(1e-3)
    return alpha * noisy - sigma * prediction if kind == "v_prediction" else prediction


def denoising_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean squared error (B, C, h, w), weighted by cell (B, 1, h, w).

    Every sample counts the same, so the loss of a batch is the mean of its shares' in several processes.
    """
    error = ((prediction.float() - target) ** 2 * weight).mean((1, 2, 3))
    return (error / weight.mean((1, 2, 3))).mean()


def picture_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Error of pixels (B, 3, H, W), of their colour differences, and of differences between neighbours.

    The second keeps colours from fading, the third edges sharp. weight: of each pixel (B, 1, H, W), with mean 1; None for all alike.
    """
    error = prediction.float() - target
    weight = torch.ones_like(error[:, :1]) if weight is None else weight
    red, green, blue = error.unbind(1)
    colour = ((red - green).abs() * weight[:, 0]).mean() + (((red + green) / 2 - blue).abs() * weight[:, 0]).mean()
    across = (error.diff(dim=3).abs() * weight[..., 1:]).mean()
    down = (error.diff(dim=2).abs() * weight[..., 1:, :]).mean()
    return (error.abs() * weight).mean() + (error.square() * weight).mean() + 0.5 * colour + 0.3 * (across + down)


def densepose_loss(
    logits: torch.Tensor, found: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor, person_weight: float
) -> torch.Tensor:
    """Cross-entropy of logits (B, 25, H, W) against parts (B, H, W), person pixels `person_weight` times as heavy, and the
    error of `found` (B, 24, 2, H, W), taken at the true part, against uv (B, 2, H, W) on the person."""
    person = (parts > 0).float()
    weight = 1 + (person_weight - 1) * person
    labels = (F.cross_entropy(logits, parts, reduction="none") * weight).sum((1, 2)) / weight.sum((1, 2))
    index = (parts - 1).clamp_min(0)[:, None, None].expand(-1, 1, 2, -1, -1)
    error = (found.gather(1, index)[:, 0] - uv).abs().mean(1)  # (B, 2, H, W) -> (B, H, W)
    return (labels + 2 * (error * person).sum((1, 2)) / person.sum((1, 2)).clamp_min(1)).mean()


def coverage(parts: torch.Tensor, factor: int) -> torch.Tensor:
    """Share of each latent cell that is person: (B, H, W) -> (B, 1, h, w)."""
    return F.avg_pool2d((parts > 0).float()[:, None], factor)
