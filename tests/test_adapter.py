"""The adapter starts as the identity on CLIP's tokens and learns from both kinds."""

from __future__ import annotations

import torch

from dreampose_core.model.adapter import ImageAdapter


def inputs(batch=2):
    g = torch.Generator().manual_seed(0)
    return torch.randn(batch, 17, 32, generator=g), torch.randn(batch, 8, 10, 8, generator=g)


def test_it_starts_as_the_identity_with_zero_weight_on_the_vae():
    clip, latents = inputs()
    adapter = ImageAdapter(17, 32, 8, 10, 8)
    assert torch.allclose(adapter(clip, latents), clip, atol=1e-6)
    assert torch.equal(adapter(clip, latents), adapter(clip, 100 * latents))
    assert (adapter.linear1.weight[:, 17:] == 0).all() and (adapter.linear1.bias == 0).all()


def test_the_weight_on_the_vae_can_grow():
    clip, latents = inputs()
    adapter = ImageAdapter(17, 32, 8, 10, 8)
    adapter(clip, latents).square().mean().backward()
    assert adapter.linear1.weight.grad[:, 17:].abs().max() > 0
    with torch.no_grad():
        adapter.linear1.weight[:, 17:] = 0.1
    assert not torch.allclose(adapter(clip, latents), adapter(clip, 2 * latents))


def test_the_usual_sizes_have_the_released_checkpoints_shapes():
    shapes = {name: tuple(value.shape) for name, value in ImageAdapter().state_dict().items()}
    assert shapes == {
        "vae2clip.weight": (768, 1280),
        "vae2clip.bias": (768,),
        "linear1.weight": (50, 54),
        "linear1.bias": (50,),
    }
    assert ImageAdapter()(torch.zeros(1, 50, 768), torch.zeros(1, 4, 80, 64)).shape == (1, 50, 768)
