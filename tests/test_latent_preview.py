"""The linear map from latents to colours: exact where they are linear, close on the shipped model's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from drawn import drawn_clip

from dreampose_core.model.conditioning import encode_latents, to_pixels
from dreampose_core.model.latent_preview import colour_map, latent_preview
from dreampose_core.model.loading import load_pipeline
from dreampose_core.synthetic import HELD_OUT


def test_colours_that_are_linear_in_the_latents_are_found():
    draw = torch.Generator().manual_seed(0)
    latents, mixing = torch.randn(1, 4, 10, 8, generator=draw), torch.rand(4, 3, generator=draw) * 0.1
    photo = F.interpolate(torch.einsum("bchw,cd->bdhw", latents, mixing) + 0.2, scale_factor=4)
    found = latent_preview(latents.repeat(2, 1, 1, 1), colour_map(photo, latents))
    assert found.shape == (2, 3, 10, 8) and torch.equal(found[0], found[1])
    assert (found[:1] - F.avg_pool2d(photo, 4)).abs().max() < 0.01


def test_a_flat_photo_gives_its_colour():
    photo = torch.full((1, 3, 16, 16), 0.5)
    assert torch.isfinite(latent_preview(torch.randn(1, 4, 4, 4), colour_map(photo, torch.ones(1, 4, 4, 4)))).all()


def test_minis_latents_are_seen_without_its_decoder():
    """Fitted to one frame of a person, tried on another one."""
    pipe = load_pipeline("mini", "cpu")
    rgb, _ = drawn_clip(HELD_OUT, "turn", 2, (640, 512), fps=2.0)
    first, other = (to_pixels(torch.from_numpy(rgb[index : index + 1])) for index in (0, 1))
    with torch.no_grad():
        colours = colour_map(first, encode_latents(pipe.vae, first))
        found = latent_preview(encode_latents(pipe.vae, other), colours)
    truth = F.adaptive_avg_pool2d(other, found.shape[2:])
    error, flat = (found - truth).square().mean(), (truth - truth.mean((2, 3), keepdim=True)).square().mean()
    assert error < 0.5 * flat
