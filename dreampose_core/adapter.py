"""The adapter: CLIP tokens and VAE latents of the photo -> the UNet's cross-attention tokens (paper, section 4.2.1)."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

_PATCH = 4  # latent cells a side that one token of a place stands for


class ImageAdapter(ModelMixin, ConfigMixin):
    """Mixes CLIP's tokens with tokens made of the photo's latents.

    sources "both", the paper's: each latent channel becomes one token: 2 x 2 max pooling, then a linear map over positions. A linear map
    over the token axis then mixes both kinds down to as many tokens as CLIP gave. It starts as the identity on CLIP's tokens with zero
    weight on the VAE's. "clip" and "vae" have one kind alone, for comparison. "places" keeps CLIP's tokens and adds one for each 4 x 4
    cells of the latents, which says what is there and where.

    num_clip_tokens, width: CLIP's tokens and their size, which is also the UNet's cross_attention_dim.
    latent_channels, latent_height, latent_width: the photo's latents.
    """

    @register_to_config
    def __init__(
        self, num_clip_tokens: int = 50, width: int = 768, latent_channels: int = 4, latent_height: int = 80, latent_width: int = 64,
        sources: str = "both",
    ):  # fmt: skip
        super().__init__()
        if sources == "places":
            self.patches = nn.Conv2d(latent_channels, width, _PATCH, _PATCH)
            self.positions = nn.Parameter(torch.zeros((latent_height // _PATCH) * (latent_width // _PATCH), width))
            nn.init.normal_(self.positions, std=0.02)
            return
        self.pool = nn.MaxPool2d(2)
        if sources != "clip":
            self.vae2clip = nn.Linear((latent_height // 2) * (latent_width // 2), width)
        from_clip, from_vae = num_clip_tokens * (sources != "vae"), latent_channels * (sources != "clip")
        self.linear1 = nn.Linear(from_clip + from_vae, num_clip_tokens)
        if from_clip:
            with torch.no_grad():
                self.linear1.weight.copy_(torch.eye(num_clip_tokens, from_clip + from_vae))
                self.linear1.bias.zero_()

    def forward(self, clip_tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """(B, num_clip_tokens, width) and scaled latents (B, C, h, w) -> tokens (B, n, width); n is num_clip_tokens but for "places"."""
        if self.config.sources == "places":
            places = self.patches(latents).flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h w / 16, width)
            return torch.cat([clip_tokens, places + self.positions], dim=1)
        tokens = [clip_tokens] if self.config.sources != "vae" else []
        if self.config.sources != "clip":
            tokens.append(self.vae2clip(self.pool(latents).flatten(2)))  # (B, C, h w / 4) -> (B, C, width)
        return self.linear1(torch.cat(tokens, dim=1).transpose(1, 2)).transpose(1, 2)
