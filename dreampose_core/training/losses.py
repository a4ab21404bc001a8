"""The losses: denoising under dropped conditions, and picture reconstruction for the VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def noised(
    scheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy latents and what the UNet must predict for them: epsilon, v or the latents ("sample"), as the scheduler
    says.

    latents, noise (B, C, h, w); timesteps (B,) integers. v = alpha noise - sigma latents (Salimans and Ho, 2022).
    """
    alpha_bar = scheduler.alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = alpha * latents + sigma * noise
    targets = {"epsilon": noise, "v_prediction": alpha * noise - sigma * latents, "sample": latents}
    return noisy, targets[scheduler.config.prediction_type]


def min_snr_weight(scheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weights (B,) of the errors at timesteps (B,): those of latents count min(SNR, gamma) each (Hang et al.,
    2023).

    SNR = alpha_bar / (1 - alpha_bar). By what the UNet predicts: min(SNR, gamma) for "sample", over SNR + 1 for v, over
    SNR for epsilon. Where the schedule ends in pure noise, SNR is 0 there, and what v and "sample" say about pure
    noise, the start of every sampling, would never be learnt: there SNR counts as 1 at least (the truncated SNR of
    Salimans and Ho, 2022), at that step and all before it that are noisier than SNR = 1, which else would be all but
    forgotten. Epsilon's weight goes to 1 by itself.
    """
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device).double()
    ends_in_noise, alpha_bar = bool(alpha_bar[-1] < 1e-6), alpha_bar[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (gamma / snr).clamp_max(1).float()
    least = snr.clamp(min(1.0, gamma) if ends_in_noise else 0.0, gamma)
    return (least if kind == "sample" else least / (snr + 1)).float()


def denoising_loss(
    prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, sample_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error (B, C, h, w), weighted by cell (B, 1, h, w), and by sample (B,), None for all alike.

    A sample's cells count relative to each other, its own weight as it is; so the loss of a batch is the mean of its
    shares' in several processes.
    """
    error = ((prediction.float() - target) ** 2 * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))
    return error.mean() if sample_weight is None else (error * sample_weight).mean()


def picture_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Error of pixels (B, 3, H, W), of their colour differences, and of differences between neighbours.

    The second keeps colours from fading, the third edges sharp. weight: of each pixel (B, 1, H, W), with mean 1; None
    for all alike.
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
    """Cross-entropy of logits (B, 25, H, W) against parts (B, H, W), person pixels `person_weight` times as heavy, and
    the error of `found` (B, 24, 2, H, W), taken at the true part, against uv (B, 2, H, W) on the person."""
    person = (parts > 0).float()
    weight = 1 + (person_weight - 1) * person
    labels = (F.cross_entropy(logits, parts, reduction="none") * weight).sum((1, 2)) / weight.sum((1, 2))
    index = (parts - 1).clamp_min(0)[:, None, None].expand(-1, 1, 2, -1, -1)
    error = (found.gather(1, index)[:, 0] - uv).abs().mean(1)  # (B, 2, H, W) -> (B, H, W)
    return (labels + 2 * (error * person).sum((1, 2)) / person.sum((1, 2)).clamp_min(1)).mean()


def coverage(parts: torch.Tensor, factor: int) -> torch.Tensor:
    """Share of each latent cell that is person: (B, H, W) -> (B, 1, h, w)."""
    return F.avg_pool2d((parts > 0).float()[:, None], factor)
