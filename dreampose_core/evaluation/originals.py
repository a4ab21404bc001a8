"""Frames made as the original implementation made them, for comparison of the time they take."""

from __future__ import annotations

import numpy as np
import torch

from ..model.conditioning import decode_latents, to_uint8
from ..model.config import Sampling
from ..model.denoising import denoise
from ..progress import ShouldStop
from .clips import Clip

STEPS = 100


@torch.no_grad()
def in_the_originals_way(pipe, clip: Clip, should_stop: ShouldStop, steps: int = STEPS) -> np.ndarray:
    """Make the clip's frames one at a time: the photo encoded again for each, three UNet passes per step, PNDM.

    The model's own solver replaces PNDM, which can neither run a schedule that ends in pure noise nor a UNet that
    predicts latents.
    """
    s_image, s_pose = pipe.model_config.image_guidance, pipe.model_config.pose_guidance
    branches = [(1 - s_image, False, False), (s_image - s_pose, True, False), (s_pose, True, True)]
    scheduler = pipe.scheduler
    runs_pndm = scheduler.config.prediction_type != "sample" and float(scheduler.alphas_cumprod[-1]) >= 1e-6
    sampling = Sampling(steps, solver="pndm" if runs_pndm else None)
    frames = []
    for index in range(len(clip)):
        reference = pipe.encode_reference(clip.photo, clip.image_poses)
        noise = torch.randn(reference.latents.shape, generator=torch.Generator().manual_seed(0))
        pose, warp, planes = pipe._encode_batch(clip.poses, range(index, index + 1), reference)
        beneath = reference.latents if pipe.model_config.init_leak else None
        args = (branches, reference, noise.to(reference.latents.device), beneath, pose, warp, lambda *_: None)
        latents = denoise(pipe.unet, scheduler, pipe.model_config, sampling, *args, should_stop)
        frames.append(to_uint8(decode_latents(pipe.vae, latents, planes))[0].cpu().numpy())
    return np.stack(frames)
