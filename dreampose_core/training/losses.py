"""The losses: denoising, picture reconstruction, and a discriminator's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call


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


def denoising_loss(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error (B, C, h, w), weighted by cell (B, 1, h, w).

    Weights are normalised within a sample; so the loss of a batch is the mean of its shares' in several processes.
    """
    return (((prediction.float() - target) ** 2 * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))).mean()


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


class PatchDiscriminator(nn.Module):
    """Maps pictures (B, 3, H, W) in [-1, 1] to scores (B, 1, H/4, W/4), high if a patch of 26 x 26 pixels looks real
    (Isola et al., 2017).

    All weights but the last layer's are divided by their spectral norms (Miyato et al., 2018), computed exactly at
    every call: there is no other state than the weights, so a resumed run equals an uninterrupted one.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, width, 4, 2, 1),
                nn.Conv2d(width, 2 * width, 4, 2, 1),
                nn.Conv2d(2 * width, 4 * width, 3, 1, 1),
            ]
        )
        self.score = nn.Conv2d(4 * width, 1, 3, 1, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = pictures
        for layer in self.layers:
            weight = layer.weight / torch.linalg.matrix_norm(layer.weight.float().flatten(1), 2)
            x = F.leaky_relu(F.conv2d(x, weight, layer.bias, layer.stride, layer.padding), 0.2)
        return self.score(x)


def adversarial_losses(
    discriminator: PatchDiscriminator, made: torch.Tensor, real: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two losses to minimise together: one that makes `made` look real, and the discriminator's (hinge; Lim and
    Ye, 2017).

    made, real: (B, 3, H, W) in [-1, 1]; weight: (B, 1, H, W) with mean 1. The first loss has no gradient for the
    discriminator, the second none for `made`.
    """
    still = {name: value.detach() for name, value in discriminator.named_parameters()}
    judged = functional_call(discriminator, still, (made,)).float()
    weight = F.adaptive_avg_pool2d(weight, judged.shape[2:])
    on_made, on_real = discriminator(made.detach()).float(), discriminator(real).float()
    return -(judged * weight).mean(), ((F.relu(1 + on_made) + F.relu(1 - on_real)) * weight).mean()
