"""The adapter: CLIP tokens and VAE latents of the photo -> the UNet's cross-attention tokens (paper, section 4.2.1)."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class ImageAdapter(ModelMixin, ConfigMixin):
    """Mixes CLIP's tokens with tokens made of the photo's latents.

    Each latent channel becomes one token: 2 x 2 max pooling, then a linear map over positions. A linear map over the
    token axis then mixes both kinds into as many tokens as CLIP has. It starts as the identity on CLIP's tokens with
    zero weight on the VAE's.

    num_clip_tokens, width: number and size of CLIP's tokens; the size is also the UNet's cross_attention_dim.
    latent_channels, latent_height, latent_width: shape of the photo's latents.
    """

    @register_to_config
    def __init__(
        self,
        num_clip_tokens: int = 50,
        width: int = 768,
        latent_channels: int = 4,
        latent_height: int = 80,
        latent_width: int = 64,
    ):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.vae2clip = nn.Linear((latent_height // 2) * (latent_width // 2), width)
        self.linear1 = nn.Linear(num_clip_tokens + latent_channels, num_clip_tokens)
        with torch.no_grad():
            self.linear1.weight.copy_(torch.eye(num_clip_tokens, num_clip_tokens + latent_channels))
            self.linear1.bias.zero_()

    def forward(self, clip_tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Mix (B, num_clip_tokens, width) and scaled latents (B, C, h, w) into tokens (B, num_clip_tokens, width)."""
        from_vae = self.vae2clip(self.pool(latents).flatten(2))  # (B, C, h w / 4) -> (B, C, width)
        return self.linear1(torch.cat([clip_tokens, from_vae], dim=1).transpose(1, 2)).transpose(1, 2)
