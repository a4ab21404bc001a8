"""A head start for a small VAE: initial weights that form a linear transform coder instead of noise.

With random weights, an AutoencoderKL of this size stays grey for a thousand steps, because colour differences are a
small part of the error and every path ends in a group norm. Here the encoder starts with the low frequencies of the
cosine transform of each 4 x 4 block (brightness ten, colour six), the decoder with the block's mean colour; training
adds the rest.
Used only in base training of mini; measured in docs/experiments.md.
"""

from __future__ import annotations

import math

import torch
from torch import nn

_BRIGHTNESS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (0, 3), (3, 0))
_COLOUR = ((0, 0), (0, 1), (1, 0))
_LATENTS = len(_BRIGHTNESS) + 2 * len(_COLOUR)
_PLAIN = [0, len(_BRIGHTNESS), len(_BRIGHTNESS) + 1]  # the latents that encode a block's mean colour
_CONSTANT = 6.0  # a channel of this value dominates its norm group's scale, which makes the norm almost linear
_QUIET = 0.2  # factor on the random weights of the linear path


@torch.no_grad()
def start_linear(vae) -> None:
    """Set the initial weights of an AutoencoderKL with three levels, 16 latent channels and no attention."""
    config = vae.config
    if len(config.block_out_channels) != 3 or config.latent_channels != _LATENTS or config.block_out_channels[1] < 48:
        raise ValueError(
            "the linear start fits AutoencoderKL with 3 levels, at least 48 channels in the second, and 16 latent "
            "channels"
        )
    for name, module in vae.named_modules():
        if name.endswith("conv2"):
            nn.init.zeros_(module.weight)  # residual blocks start as the identity
            nn.init.zeros_(module.bias)
    basis = _basis()  # (16, 48) rows: latent channels, columns: (row, column, colour) of a block
    encoder, decoder = vae.encoder, vae.decoder

    # encoder: pixels -> 4 x 4 blocks as 48 channels -> 16 coefficients, each as x and -x, two to a norm group
    _taps(encoder.conv_in, {(c, c, 1, 1): 1.0 for c in range(3)})
    for block, count in ((encoder.down_blocks[0], 3), (encoder.down_blocks[1], 12)):
        taps = {((2 * i + j) * count + c, c, i, j): 1.0 for i in range(2) for j in range(2) for c in range(count)}
        _taps(block.downsamplers[0].conv, taps)
    _taps(encoder.down_blocks[1].resnets[0].conv_shortcut, {(c, c, 0, 0): 1.0 for c in range(12)})
    last, groups = encoder.down_blocks[2].resnets[0].conv_shortcut, encoder.conv_norm_out.num_groups
    width = last.out_channels // groups
    share = _LATENTS // groups  # coefficients of a group
    place = {z: z // share * width + 2 * (z % share) for z in range(_LATENTS)}  # of x; -x follows
    taps = {
        (place[z] + sign, c, 0, 0): float(basis[z, c]) * (1 - 2 * sign)
        for z in range(_LATENTS)
        for c in range(48)
        for sign in (0, 1)
    }
    used = [g * width + k for g in range(groups) for k in range(2 * share + 1)]
    _taps(last, taps, {g * width + 2 * share: _CONSTANT for g in range(groups)}, clear=used)
    _open_norm(encoder.conv_norm_out, range(groups), 2 * share + 1)
    taps = {(z, place[z] + sign, 1, 1): 1.0 - 2 * sign for z in range(_LATENTS) for sign in (0, 1)}
    _taps(encoder.conv_out, taps, clear=range(_LATENTS, 2 * _LATENTS))
    _taps(vae.quant_conv, {(c, c, 0, 0): 1.0 for c in range(2 * _LATENTS)})

    # decoder: coefficients -> mean colour, carried up as x and -x with a constant
    _taps(vae.post_quant_conv, {(c, c, 0, 0): 1.0 for c in range(_LATENTS)})
    mean = torch.zeros(3, _LATENTS)
    mean[:, _PLAIN] = torch.linalg.pinv(basis[_PLAIN].reshape(3, 16, 3).sum(1))  # restores constant blocks exactly
    used = [3 * c + k for c in range(3) for k in range(3)]
    taps = {
        (3 * c + sign, z, 1, 1): float(mean[c, z]) * (1 - 2 * sign)
        for c in range(3)
        for z in range(_LATENTS)
        for sign in (0, 1)
    }
    _taps(decoder.conv_in, taps, {3 * c + 2: _CONSTANT for c in range(3)}, clear=used)
    carry = dict.fromkeys(used, 1.0)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                _taps(resnet.conv_shortcut, {(k, k, 0, 0): v for k, v in carry.items()}, clear=used)
        for upsampler in block.upsamplers or []:
            _taps(upsampler.conv, {(k, k, 1, 1): v for k, v in carry.items()}, clear=used)
    _open_norm(decoder.conv_norm_out, range(3), 3)
    _taps(decoder.conv_out, {(c, 3 * c + sign, 1, 1): 1.0 - 2 * sign for c in range(3) for sign in (0, 1)})


def _basis() -> torch.Tensor:
    """Return rows of latent channels over a 4 x 4 block's 48 values, in the order that two space-to-depth steps
    produce."""
    grey, colours = torch.tensor([1.0, 1.0, 1.0]) / 3, torch.tensor([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    rows = [_wave(f)[..., None] * grey * (2.0 if f == (0, 0) else 5.0) / 16 for f in _BRIGHTNESS]
    rows += [_wave(f)[..., None] * colour * (2.5 if f == (0, 0) else 5.0) / 16 for f in _COLOUR for colour in colours]
    block = torch.stack(rows)  # (16, row, column, colour)
    # row = 2 i + k, column = 2 j + l; the second step's (i, j) is outermost, then the first step's (k, l), then colour
    block = block.reshape(_LATENTS, 2, 2, 2, 2, 3)  # (16, i, k, j, l, colour)
    return block.permute(0, 1, 3, 2, 4, 5).reshape(_LATENTS, 48)


def _wave(frequency: tuple[int, int]) -> torch.Tensor:
    """Return the cosine transform's basis function of this frequency on a 4 x 4 block."""
    return torch.tensor([[_cosine(frequency[0], i) * _cosine(frequency[1], j) for j in range(4)] for i in range(4)])


def _cosine(frequency: int, position: int) -> float:
    return math.cos(math.pi * frequency * (position + 0.5) / 4) * (math.sqrt(2) if frequency else 1.0)


def _taps(conv: nn.Conv2d, taps: dict, bias: dict | None = None, clear=()) -> None:
    """Set single weights (out, in, row, column) and biases of a damped convolution; all other weights of these and the
    `clear` outputs become zero."""
    conv.weight.mul_(_QUIET)
    conv.bias.mul_(_QUIET)
    for out in {key[0] for key in taps} | set(clear):
        conv.weight[out] = 0
        conv.bias[out] = 0
    for (out, channel, row, column), value in taps.items():
        conv.weight[out, channel, row, column] = value
    for out, value in (bias or {}).items():
        conv.bias[out] = value


def _open_norm(norm: nn.GroupNorm, groups, used: int) -> None:
    """Set affine weights that undo the norm in groups whose first `used` channels hold pairs x, -x and the constant,
    the rest near zero."""
    width = norm.num_channels // norm.num_groups
    mean, std = _CONSTANT / width, _CONSTANT * math.sqrt((1 - 1 / width) / width)
    for g in groups:
        for k in range(used):
            norm.weight[g * width + k] = std
            norm.bias[g * width + k] = mean
