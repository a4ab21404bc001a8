"""DensePoseNet: a small U-Net from pictures to part logits and U, V of every part, trained on mannequins."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ..poses import NUM_PARTS

PERSON_WEIGHT = 2.0  # of person pixels in the training's loss
MAPS = 1 + 3 * NUM_PARTS  # background and part logits, U of each part, V of each part


class _Block(nn.Module):
    """Two convolutions with a skip."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, channels_in), nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class _Attention(nn.Module):
    """Self-attention over all positions of the coarsest level: left and right are told apart by the whole figure."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(8, channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        # (B, 3 C, h, w) -> three of (B, heads, h w, C / heads)
        q, k, v = (
            self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, -1).transpose(-1, -2).unbind(1)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(batch, channels, height, width)
        return x + self.out(y)


class DensePoseNet(ModelMixin, ConfigMixin):
    """forward: pixels (B, 3, H, W) in [-1, 1] -> logits (B, 25, H, W), background first, and uv (B, 24, 2, H, W) in
    0..1.

    channels: of the levels at 1/2, 1/4, ... of the size; `multiple` divides H and W. height: of the pictures it was
    trained on.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (48, 64, 96, 120, 120), height: int = 160):
        super().__init__()
        self.stem = nn.Conv2d(3 * 4, channels[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(c_in, c) for c_in, c in zip((channels[0], *channels), channels))
        self.shrink = nn.ModuleList(nn.Conv2d(c, c, 3, stride=2, padding=1) for c in channels[:-1])
        self.middle = nn.ModuleList(
            [_Attention(channels[-1]), _Block(channels[-1], channels[-1]), _Attention(channels[-1])]
        )
        self.up = nn.ModuleList(_Block(c + below, c) for c, below in zip(channels[:-1], channels[1:]))
        self.norm, self.head = nn.GroupNorm(8, channels[0]), nn.Conv2d(channels[0], MAPS * 4, 3, padding=1)

    @property
    def multiple(self) -> int:
        return 2 ** len(self.config.channels)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(F.pixel_unshuffle(pixels, 2))
        kept = []
        for i, block in enumerate(self.down):
            x = block(x)
            if i < len(self.shrink):
                kept.append(x)
                x = self.shrink[i](x)
        for layer in self.middle:
            x = layer(x)
        for block, skip in zip(reversed(self.up), reversed(kept)):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0)], 1))
        maps = F.pixel_shuffle(self.head(F.silu(self.norm(x))), 2)
        logits, uv = maps[:, : NUM_PARTS + 1], maps[:, NUM_PARTS + 1 :]
        # (B, 48, H, W) -> (B, 24, 2, H, W); around 0.5 at the start
        return logits, uv.unflatten(1, (NUM_PARTS, 2)) + 0.5
