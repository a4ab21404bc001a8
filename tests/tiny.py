"""A tiny DreamPose model with random weights: real classes, seconds to load and run, for tests of everything around it."""

from __future__ import annotations

from pathlib import Path

import torch

from dreampose_core.conditioning import ModelForm
from dreampose_core.mini import build_mini


def tiny_pipeline(**form):
    """The pipeline in memory: 40 x 32 pixels, latents 10 x 8; the keyword arguments are `ModelForm`'s."""
    form = ModelForm(**{"height": 40, "width": 32} | form)
    pipe = build_mini(form, unet_channels=(8, 16), vae_channels=(8, 8, 8), latent_channels=8, width=32, groups=4)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_tiny_model(folder: str | Path) -> Path:
    """Writes the tiny model as a model folder."""
    tiny_pipeline().save_pretrained(folder)
    return Path(folder)


def weights(*modules):
    """A copy of all their weights, by name."""
    return {f"{i}.{key}": value.clone() for i, module in enumerate(modules) for key, value in module.state_dict().items()}


def same(a, b):
    """Whether two such copies are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def stop_after(steps):
    """A should_stop that lets `steps` steps pass."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps
