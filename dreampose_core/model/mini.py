"""`mini`: DreamPose's own classes at small sizes, with random weights."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip import CLIPImageProcessorPil

from .adapter import ImageAdapter
from .conditioning import pose_channels, unet_in_channels, vae_factor
from .config import ModelConfig
from .pipeline import DreamPosePipeline
from .textured_vae import TexturedVAE


def build_mini(
    config: ModelConfig,
    seed: int = 0,
    *,
    unet_channels: tuple[int, ...] = (64, 128, 192),
    vae_channels: tuple[int, ...] | None = None,
    latent_channels: int = 16,
    width: int = 128,
    groups: int = 8,
    vae: AutoencoderKL | None = None,
) -> DreamPosePipeline:
    """Build a new model with random weights drawn from `seed`; the keyword arguments are its widths.

    vae: a trained VAE to use instead of a new one of `vae_channels` and `latent_channels`: with free_shape a
    `TexturedVAE`, else an AutoencoderKL.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if vae is None and config.free_shape:
            vae = TexturedVAE(vae_channels or (32, 64, 96, 128), latent_channels)
        elif vae is None:
            vae_channels = vae_channels or (24, 48, 64)
            vae = AutoencoderKL(
                latent_channels=latent_channels,
                block_out_channels=vae_channels,
                down_block_types=("DownEncoderBlock2D",) * len(vae_channels),
                up_block_types=("UpDecoderBlock2D",) * len(vae_channels),
                norm_num_groups=groups,
                mid_block_add_attention=False,
                sample_size=config.height,
            )
        latent_channels, levels, factor = vae.config.latent_channels, len(unet_channels), vae_factor(vae)
        unet = UNet2DConditionModel(
            sample_size=tuple(side // factor for side in config.size),
            in_channels=unet_in_channels(config, latent_channels, factor),
            out_channels=latent_channels,
            block_out_channels=unet_channels,
            layers_per_block=1,
            norm_num_groups=groups,
            cross_attention_dim=width,
            attention_head_dim=4,
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
            up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        )
        with torch.no_grad():
            # the input weights for the moved texture start at zero, so the texture changes nothing at first
            unet.conv_in.weight[:, latent_channels + pose_channels(config) :] = 0
            # the UNet starts by ignoring the noisy latents and repeating the moved texture
            if config.reference_warp == "encoded":
                unet.conv_in.weight[:, :latent_channels] = 0
                unet.conv_out.weight.zero_()
                unet.conv_out.bias.zero_()
        clip = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2,
            num_attention_heads=max(1, width // 32),
            image_size=64,
            patch_size=16,
            projection_dim=width,
        )
        image_encoder = CLIPVisionModel(clip)
        adapter = ImageAdapter(17, width, latent_channels, *(side // factor for side in config.condition_size))
    # The last step is pure noise, so a frame is made from noise alone (Lin et al., 2024). The model predicts latents,
    # not noise: the moved texture is already close to the latents, and passing noise through exactly is slow to learn.
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    pipe = DreamPosePipeline(vae, unet, adapter, scheduler, image_encoder, processor, model_config=config)
    for module in (vae, unet, adapter, image_encoder):
        module.eval()
    return pipe
