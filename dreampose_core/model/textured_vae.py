"""A VAE whose decoder also sees the moved texture, so that fine detail need not pass through the latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin  # noqa: F401 (diffusers looks up ModelMixin here to load the class)
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder
from torch import nn

from .texture import WARP_PLANES

_PATCH = 2  # side of the pixel blocks that the first and the last convolution work on


class TexturedVAE(AutoencoderKL):
    """AutoencoderKL over blocks of 2 x 2 pixels; each level of its decoder also takes the moved texture.

    Pixels are (B, 3, H, W) in [-1, 1], H and W multiples of 2 ** levels.
    """

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (32, 64, 96, 128),
        latent_channels: int = 16,
        layers_per_block: int = 1,
        scaling_factor: float = 1.0,
    ):
        levels = len(block_out_channels)
        super().__init__(
            in_channels=3 * _PATCH**2,
            latent_channels=latent_channels,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            norm_num_groups=8,
            mid_block_add_attention=False,
            scaling_factor=scaling_factor,
        )
        self.decoder = TexturedDecoder(block_out_channels, latent_channels, layers_per_block)

    def encode(self, pixels: torch.Tensor, return_dict: bool = True):
        """Encode pixels (B, 3, H, W) to the distribution of their latents."""
        return super().encode(F.pixel_unshuffle(pixels, _PATCH), return_dict)


class TexturedDecoder(Decoder):
    """The decoder of `TexturedVAE`.

    The planes enter through convolutions without bias that start at zero, so all-zero planes (nothing known) equal no
    planes. The decoder draws the whole picture. For each pixel where the texture has a colour (a texel, the part's mean
    or the background) it also predicts a change to that colour and how much of the changed colour to keep.
    """

    def __init__(self, block_out_channels: tuple[int, ...], latent_channels: int, layers_per_block: int):
        super().__init__(
            in_channels=latent_channels,
            out_channels=7 * _PATCH**2,  # drawn colour (3), change to the texture's colour (3), share kept (1)
            up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )
        widths = block_out_channels[::-1]  # from the coarsest level to the finest, the width that enters each
        self.texture_in = nn.ModuleList(
            nn.Conv2d(WARP_PLANES * _PATCH**2, width, 3, padding=1, bias=False) for width in (widths[0], *widths[:-1])
        )
        for conv in self.texture_in:
            nn.init.zeros_(conv.weight)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents (B, C, h, w) without a texture, as `AutoencoderKL.decode` asks."""
        return self.both(latents, None)[0]

    def both(self, latents: torch.Tensor, planes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode latents (B, C, h, w) and planes (B, 5, H, W) or None to pixels (B, 3, H, W); also return the drawn
        picture before texture colours are kept.

        The drawn picture is trained too: where all of the texture is kept, drawing would get no gradient.
        """
        twice = torch.is_grad_enabled() and self.gradient_checkpointing
        run = self._gradient_checkpointing_func if twice else lambda block, x: block(x)
        x = run(self.mid_block, self.conv_in(latents))
        for block, texture_in in zip(self.up_blocks, self.texture_in):
            if planes is not None:
                x = x + texture_in(planes_at(planes, x.shape[2:], _PATCH).to(x.dtype))
            x = run(block, x)
        x = F.pixel_shuffle(self.conv_out(self.conv_act(self.conv_norm_out(x))), _PATCH)
        drawn, change, kept = x.split([3, 3, 1], dim=1)
        if planes is None:
            return drawn, drawn
        known = (planes[:, 4:] != 0).to(x.dtype)
        return torch.lerp(drawn, planes[:, :3].to(x.dtype) + change, kept.sigmoid() * known), drawn


def planes_at(planes: torch.Tensor, size: tuple[int, int], block: int) -> torch.Tensor:
    """Average planes (B, 5, H, W) and unshuffle them to channels (B, 5 block², h, w) for a level of (h, w) `size`, with
    a block of `block` x `block` planes' pixels in each cell."""
    factor = planes.shape[2] // size[0] // block
    return F.pixel_unshuffle(F.avg_pool2d(planes, factor) if factor > 1 else planes, block)
