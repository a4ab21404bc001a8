"""A tiny DreamPose model with random weights: real classes, seconds to load and run, for tests of everything around
it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip import CLIPImageProcessorPil

from dreampose_core.media import write_png
from dreampose_core.model.config import ModelConfig
from dreampose_core.model.mini import build_mini
from dreampose_core.poses import write_poses
from dreampose_core.training.distributed import random
from dreampose_core.training.loop import train
from tests.drawn import drawn_clip


def tiny_pipeline(**config):
    """The pipeline in memory: 40 x 32 pixels, latents 10 x 8; the keyword arguments are `ModelConfig`'s."""
    config = ModelConfig(**{"height": 40, "width": 32} | config)
    pipe = build_mini(config, unet_channels=(8, 16), vae_channels=(8, 8, 8), latent_channels=8, width=32, groups=4)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def textured():
    """A pipeline of mini's kind, whose decoder sees the moved texture and whose frames have the photo's shape."""
    config = ModelConfig(height=160, width=128, free_shape=True, charts="body", reference_warp="encoded")
    return build_mini(config, unet_channels=(16, 32), vae_channels=(8, 8, 16, 16), latent_channels=4, width=32)


def make_tiny_model(folder: str | Path) -> Path:
    """Writes the tiny model as a model folder."""
    tiny_pipeline().save_pretrained(folder)
    return Path(folder)


def make_tiny_clips(folder: str | Path, size: tuple[int, int] = (40, 32)) -> Path:
    """Writes clips of three people to train on, of eight frames each."""
    return write_clips(folder, {f"clip{seed}": drawn_clip(seed, "walk", 8, size, fps=10) for seed in range(3)})


def write_clips(folder: str | Path, clips: dict) -> Path:
    """Writes frames uint8 (T, H, W, 3) and their maps, by the clips' names, as `train prepare` does."""
    for name, (frames, poses) in clips.items():
        clip = Path(folder) / name
        clip.mkdir(parents=True)
        for index, frame in enumerate(frames):
            write_png(frame, clip / f"frame_{index:05d}.png")
            write_poses(poses.select([index]), clip / f"frame_{index:05d}.npz")
    (Path(folder) / "report.json").write_text(json.dumps({"clips": list(clips)}))
    return Path(folder)


def make_tiny_stable_diffusion(folder: str | Path, *, cross_attention_dim: int = 32) -> Path:
    """Writes a folder in Stable Diffusion's layout: its real classes at tiny sizes, random weights; latents of 4
    channels, factor 8."""
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=cross_attention_dim,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
        vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(4, 4, 8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            scaling_factor=0.18215,
        )
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    return folder


def make_tiny_clip(folder: str | Path) -> Path:
    """Writes a CLIP vision model with its processor: 50 tokens, as ViT-B/32 has, of 32 numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=56,
            patch_size=8,
        )
        CLIPVisionModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}).save_pretrained(folder)
    return Path(folder)


class Toy:
    """Fits a line with `train`; the loss is a pure function of its number and the weights, as the loop wants it.

    change(loss, number, module): returns the loss to use instead.
    """

    def __init__(self, change=lambda loss, number, module: loss):
        torch.manual_seed(0)
        self.module, self.change = torch.nn.Linear(3, 1), change

    def loss_at(self, number):
        x = torch.randn(8, 3, generator=random(0, number, 0))
        return self.change((self.module(x) - x.sum(1, keepdim=True)).square().mean(), number, self.module)

    def run(self, options, **kwargs):
        return train(self.module.parameters(), self.loss_at, options, "toy", **kwargs)


def weights(*modules):
    """A copy of all their weights, by name."""
    return {
        f"{i}.{key}": value.clone() for i, module in enumerate(modules) for key, value in module.state_dict().items()
    }


def same(a, b):
    """Whether two such copies are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def stop_after(steps):
    """A should_stop that lets `steps` steps pass."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps
