"""A model in Stable Diffusion 1.4's shapes with random weights, to measure what weights do not change."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip import CLIPImageProcessorPil

from . import stable_diffusion
from .conditioning import unet_in_channels
from .pipeline import DreamPosePipeline

_NOISE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)


def full_size(size: tuple[int, int], tiny: bool, device: str) -> DreamPosePipeline:
    """Build the model in float32 on `device`, for frames of (height, width); `tiny`: with few channels and layers."""
    config = replace(stable_diffusion.config("iuv", "texture", size), charts="body")
    width, latents, tokens, norm = (32, 16, 32, 8) if tiny else (320, 128, 768, 32)
    small_clip = dict(hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    with torch.device(device):
        vae = diffusers.AutoencoderKL(
            block_out_channels=tuple(latents * k for k in (1, 2, 4, 4)),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=norm,
            scaling_factor=0.18215,
        )
        unet = diffusers.UNet2DConditionModel(
            in_channels=unet_in_channels(config, 4, 8),
            block_out_channels=tuple(width * k for k in (1, 2, 4, 4)),
            cross_attention_dim=tokens,
            norm_num_groups=norm,
        )
        # CLIPVisionConfig's defaults are those of ViT-B/32
        encoder = CLIPVisionModel(CLIPVisionConfig(**small_clip if tiny else {})).eval()
        adapter = stable_diffusion.new_adapter(config, encoder, vae, unet.config, "random weights")
    scheduler = diffusers.DPMSolverMultistepScheduler(**_NOISE, algorithm_type="dpmsolver++", solver_order=2)
    pipe = DreamPosePipeline(vae, unet, adapter, scheduler, encoder, CLIPImageProcessorPil(), model_config=config)
    pipe.set_progress_bar_config(disable=True)
    return pipe
