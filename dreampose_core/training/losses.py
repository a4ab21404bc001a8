"""The losses: denoising, and picture reconstruction for the VAE."""

from __future__ import annotations

import torch


def noised(
    scheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy latents and the UNet's target: epsilon, v or the latents ("sample"), by the scheduler's prediction
    type.

    latents, noise: (B, C, h, w); timesteps: (B,) integers. v = alpha noise - sigma latents (Salimans and Ho, 2022).
    """
    alpha_bar = scheduler.alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = alpha * latents + sigma * noise
    targets = {"epsilon": noise, "v_prediction": alpha * noise - sigma * latents, "sample": latents}
    return noisy, targets[scheduler.config.prediction_type]


def min_snr_weight(scheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return Min-SNR weights (B,) of the errors at timesteps (B,), equivalent to weights of min(SNR, gamma) on latents
    (Hang et al., 2023).

    SNR = alpha_bar / (1 - alpha_bar). By prediction type: min(SNR, gamma) for "sample", divided by SNR + 1 for v, by
    SNR for epsilon. If the schedule ends in pure noise, SNR is 0 there, and v and "sample" would never learn to predict
    from pure noise, where every sampling starts. In that case SNR is at least 1 (the truncated SNR of Salimans and Ho,
    2022), at the last step and at all steps with SNR below 1, whose weights would otherwise be almost 0. Epsilon's
    weight approaches 1 anyway.
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
    """Return the mean squared error (B, C, h, w), weighted by cell (B, 1, h, w), and by sample (B,), None for equal
    weights.

    Cell weights are normalised within a sample, sample weights are not; so the loss of a batch is the mean of its
    shares' in several processes.
    """
    error = ((prediction.float() - target) ** 2 * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))
    return error.mean() if sample_weight is None else (error * sample_weight).mean()


def picture_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return the error of pixels (B, 3, H, W), of their colour differences, and of differences between neighbours.

    The second term keeps colours from fading, the third keeps edges sharp. weight: of each pixel (B, 1, H, W), with
    mean 1; None for equal weights.
    """
    error = prediction.float() - target
    weight = torch.ones_like(error[:, :1]) if weight is None else weight
    red, green, blue = error.unbind(1)
    colour = ((red - green).abs() * weight[:, 0]).mean() + (((red + green) / 2 - blue).abs() * weight[:, 0]).mean()
    across = (error.diff(dim=3).abs() * weight[..., 1:]).mean()
    down = (error.diff(dim=2).abs() * weight[..., 1:, :]).mean()
    return (error.abs() * weight).mean() + (error.square() * weight).mean() + 0.5 * colour + 0.3 * (across + down)
