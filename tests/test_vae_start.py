"""The VAE's linear start: an untrained autoencoder that already carries colour, and refuses shapes it does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_pipeline

from dreampose_core.evaluation.metrics import psnr
from dreampose_core.model.conditioning import to_pixels, to_uint8
from dreampose_core.model.config import ModelConfig
from dreampose_core.model.mini import build_mini
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip
from dreampose_core.training.vae_start import start_linear


@pytest.fixture(scope="module")
def vae():
    vae = build_mini(ModelConfig(height=64, width=64), unet_channels=(8, 16), width=32).vae
    start_linear(vae)
    return vae


@torch.no_grad()
def through(vae, frames: np.ndarray) -> np.ndarray:
    return to_uint8(vae.decode(vae.encode(to_pixels(torch.from_numpy(frames))).latent_dist.mode()).sample).numpy()


def test_flat_colours_come_back(vae):
    colours = np.array(
        [[190, 80, 80], [90, 180, 90], [80, 90, 190], [200, 190, 90], [128, 128, 128], [30, 30, 30]], np.uint8
    )
    frames = np.broadcast_to(colours[:, None, None], (6, 64, 64, 3)).copy()
    error = np.abs(through(vae, frames).astype(int) - frames).max()
    assert error < 30, error  # the norms bend strong colours a little; training straightens that


def test_a_figure_comes_back_as_its_blocks(vae):
    rgb, _ = render_clip(Figure.from_seed(HELD_OUT + 4), "walk", 2, (160, 128))
    frames = rgb.numpy()
    blocks = frames.reshape(2, 40, 4, 32, 4, 3).mean(axis=(2, 4)).repeat(4, 1).repeat(4, 2).round().astype(np.uint8)
    assert psnr(through(vae, frames), frames) > psnr(blocks, frames) - 1
    grey = frames.mean(-1, keepdims=True).repeat(3, -1).round().astype(np.uint8)
    assert psnr(through(vae, frames), frames) > psnr(grey, frames)


def test_the_latents_carry_more_than_the_mean(vae):
    frame, flat = np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 128, np.uint8)
    frame[:, 0::4] = frame[:, 1::4] = 255  # halves of blocks, which vanish in the blocks' means
    with torch.no_grad():
        halves, plain = (vae.encode(to_pixels(torch.from_numpy(x))).latent_dist.mode() for x in (frame, flat))
    difference = (halves - plain)[:, :, 2:-2, 2:-2].abs().amax((0, 2, 3))
    assert difference[0] < 0.1 and difference[1:10].max() > 0.5 and difference[10:].max() < 0.1, difference


def test_other_architectures_are_refused():
    with pytest.raises(ValueError, match="linear start fits"):
        start_linear(tiny_pipeline().vae)
