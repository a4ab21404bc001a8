"""A tiny DreamPose model with random weights: real classes, seconds to load and run, for tests of everything around it."""

from __future__ import annotations

from pathlib import Path

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
