"""A VAE whose decoder also sees the moved texture, so that detail need not pass through the latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin  # noqa: F401 (to load a class diffusers asks its module for ModelMixin)
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder, DecoderOutput
from torch import nn

from .texture import WARP_PLANES

_PATCH = 2  # sides of the block of pixels that the first and the last convolution take as one


class TexturedVAE(AutoencoderKL):
    """AutoencoderKL over blocks of 2 x 2 pixels, with the moved texture as a further input of each of the decoder's
    levels.

    Pixels are (B, 3, H, W) in [-1, 1], H and W multiples of 2 ** levels. Channels are normalised in each place on their
    own (as in NAFNet, arXiv 2204.04676), so that a crop is decoded as the frame around it.
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
        for part in (self.encoder, self.decoder):
            normalise_in_place(part)

    def encode(self, pixels: torch.Tensor, return_dict: bool = True):
        """The latents' distribution of pixels (B, 3, H, W)."""
        return super().encode(F.pixel_unshuffle(pixels, _PATCH), return_dict)

    def decode(
        self, latents: torch.Tensor, planes: torch.Tensor | None = None, return_dict: bool = True, generator=None
    ) -> DecoderOutput:
        """Pixels (B, 3, H, W) of unscaled latents and the moved texture's planes (B, 5, H, W), None where there is
        none."""
        pixels = self.decoder(self.post_quant_conv(latents), planes)
        return DecoderOutput(pixels) if return_dict else (pixels,)


class TexturedDecoder(Decoder):
    """The decoder of `TexturedVAE`.

    The planes enter through convolutions without a bias that start at zero, so that all-zero planes, nothing known, are
    the same as none. The decoder draws the whole picture, and says of every pixel for which the texture has a colour,
    its own, its part's or the background's, how much of that colour is kept.
    """

    def __init__(self, block_out_channels: tuple[int, ...], latent_channels: int, layers_per_block: int):
        super().__init__(
            in_channels=latent_channels,
            out_channels=4 * _PATCH**2,  # red, green, blue, kept
            up_block_types=("UpDecoderBlock2D",) * len(block_out_channels),
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )
        widths = block_out_channels[::-1]  # from the coarsest level to the finest, each at the width that comes to it
        self.texture_in = nn.ModuleList(
            nn.Conv2d(WARP_PLANES * _PATCH**2, width, 3, padding=1, bias=False) for width in (widths[0], *widths[:-1])
        )
        for conv in self.texture_in:
            nn.init.zeros_(conv.weight)

    def forward(self, latents: torch.Tensor, planes: torch.Tensor | None = None) -> torch.Tensor:
        """Pixels (B, 3, H, W) of latents (B, C, h, w) and planes (B, 5, H, W) or None."""
        return self.both(latents, planes)[0]

    def both(self, latents: torch.Tensor, planes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """What `forward` gives, and what the decoder draws before colours are kept, which is trained, too: where
        everything is kept nothing else would ever be learned."""
        x = self.mid_block(self.conv_in(latents))
        for block, texture_in in zip(self.up_blocks, self.texture_in):
            if planes is not None:
                x = x + texture_in(planes_at(planes, x.shape[2:], _PATCH).to(x.dtype))
            x = block(x)
        x = F.pixel_shuffle(self.conv_out(self.conv_act(self.conv_norm_out(x))), _PATCH)
        drawn, kept = x[:, :3], x[:, 3:]
        if planes is None:
            return drawn, drawn
        known = (planes[:, 4:] != 0).to(x.dtype)
        return torch.lerp(drawn, planes[:, :3].to(x.dtype), kept.sigmoid() * known), drawn


class PlaceNorm(nn.Module):
    """Normalises the channels of each place (B, C, h, w) on their own, then scales and shifts them."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, 1e-6).movedim(-1, 1)


def normalise_in_place(network: nn.Module) -> None:
    """Exchanges all group norms of a network for `PlaceNorm`."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.GroupNorm):
            network.set_submodule(name, PlaceNorm(module.num_channels))


def planes_at(planes: torch.Tensor, size: tuple[int, int], block: int) -> torch.Tensor:
    """Planes (B, 5, H, W) as channels (B, 5 block², h, w) at the (h, w) `size` of a level: averaged until a block of
    `block` x `block` is left of each of its cells."""
    factor = planes.shape[2] // size[0] // block
    return F.pixel_unshuffle(F.avg_pool2d(planes, factor) if factor > 1 else planes, block)
