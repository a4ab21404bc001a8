"""The denoising loop: turns noise into a frame's latents under dual guidance, and skips work where quality allows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, SchedulerMixin, UniPCMultistepScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from ..errors import InputError
from ..progress import ShouldStop, check_stop
from ..settings import Solver
from .conditioning import predict
from .config import Sampling
from .texture import Texture


@dataclass
class Reference:
    """Values that stay constant for a clip.

    tokens: (1, n, d), the photo's; blank: (1, n, d), the tokens for no photo. latents: (1, C, h, w), the photo's.
    texture: of one person, or None. size: (height, width) of the frames.
    """

    tokens: torch.Tensor
    blank: torch.Tensor
    latents: torch.Tensor
    texture: Texture | None
    size: tuple[int, int] | None = None


def guidance_branches(image_guidance: float, pose_guidance: float) -> list[tuple[float, bool, bool]]:
    """Return the UNet passes that dual guidance needs, as (weight, has image, has pose).

    eps = eps(0, 0) + s_I (eps(I, 0) - eps(0, 0)) + s_P (eps(I, P) - eps(I, 0)); passes with weight 0 are skipped: equal
    weights need two passes, weights of 1 need one (paper, section 4.3).
    """
    s_i, s_p = image_guidance, pose_guidance
    passes = [(1 - s_i, False, False), (s_i - s_p, True, False), (s_p, True, True)]
    return [p for p in passes if abs(p[0]) > 1e-9]


def solver_named(name: Solver, scheduler) -> SchedulerMixin:
    """Return the solver `name` for the scheduler's noise schedule, of second order where the method has one.

    Raises InputError if the solver does not support the model's prediction type.
    """
    if name == "pndm" and scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise InputError(
            "PNDM cannot solve for this model, which predicts the clean frame itself; choose another solver."
        )
    kind, args = {
        # Lu et al., arXiv 2211.01095
        "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
        "unipc": (UniPCMultistepScheduler, {"solver_order": 2}),  # Zhao et al., arXiv 2302.04867
        "ddim": (DDIMScheduler, {}),  # Song et al., arXiv 2010.02502
        "pndm": (PNDMScheduler, {"skip_prk_steps": True}),  # Liu et al., arXiv 2202.09778
    }[name]
    return kind.from_config(scheduler.config, **args)


@torch.no_grad()
def denoise(
    pipe,
    sampling: Sampling,
    branches: list[tuple[float, bool, bool]],
    reference: Reference,
    noise: torch.Tensor,
    beneath: torch.Tensor | None,
    pose: torch.Tensor,
    warp: torch.Tensor,
    on_step: Callable[[int], None],
    should_stop: ShouldStop,
) -> torch.Tensor:
    """Denoise noise (B, C, h, w) to clean latents of the same shape.

    beneath: latents to add the noise to, or None. branches: from `guidance_branches`; outside
    sampling.guidance_interval (Kynkäänniemi et al., arXiv 2404.07724) frames are denoised without guidance, in one
    pass. pose, warp: the frames' channels for the UNet. on_step(step): called after each step. Raises Cancelled.
    """
    own = pipe.scheduler
    scheduler = copy.deepcopy(own) if sampling.solver is None else solver_named(sampling.solver, own)
    scheduler.set_timesteps(sampling.num_inference_steps, device=noise.device)
    if beneath is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(beneath.float().expand_as(noise), noise, scheduler.timesteps[:1])
    batch = len(latents)
    tokens, no_tokens = (one.expand(batch, -1, -1) for one in (reference.tokens, reference.blank))
    first, last = (share * scheduler.config.num_train_timesteps for share in sampling.guidance_interval)
    unguided = guidance_branches(1, 1)
    with reusing(pipe.unet, sampling.reuse_steps) as unet_at:
        for step, t in enumerate(scheduler.timesteps):
            check_stop(should_stop)
            scaled = scheduler.scale_model_input(latents, t)
            total = 0
            for weight, has_image, has_pose in branches if first <= t <= last else unguided:
                branch_pose = pose if has_pose else torch.zeros_like(pose)
                branch_warp = warp if has_image and has_pose else torch.zeros_like(warp)
                given = (scaled, t, branch_pose, branch_warp, tokens if has_image else no_tokens)
                total = total + weight * predict(pipe, *given, scheduler, unet_at(step, (has_image, has_pose)))
            latents = scheduler.step(total, t, latents).prev_sample
            # some schedulers run a few extra steps
            on_step(min(step + 1, sampling.num_inference_steps))
    return latents


@contextmanager
def reusing(unet, every: int) -> Iterator[Callable[[int, object], Callable]]:
    """Yield a function (step, branch) -> the UNet, or a shortcut through it with cached deep features (DeepCache, arXiv
    2312.00858).

    At every `every`-th step the UNet runs in full. In between it goes from its first convolution straight to its last
    layer, with the features that the branch's last full pass computed there. `every` = 1 changes nothing.
    """
    if every == 1:
        yield lambda step, branch: unet
        return
    last, width = unet.up_blocks[-1], unet.config.block_out_channels[0]
    kept: dict[object, torch.Tensor] = {}  # of each branch, the deep features that enter the last layer
    now = None

    def keep(module, inputs) -> None:
        kept[now] = inputs[0][:, :-width]  # the other channels come from the first convolution

    def shortcut(features, sample, timestep, tokens):
        embedding = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep))
        made = last.resnets[-1](torch.cat([features, unet.conv_in(sample)], 1), embedding)
        if getattr(last, "has_cross_attention", False):
            made = last.attentions[-1](made, encoder_hidden_states=tokens, return_dict=False)[0]
        return UNet2DConditionOutput(unet.conv_out(unet.conv_act(unet.conv_norm_out(made))))

    def at(step: int, branch: object) -> Callable:
        nonlocal now
        now = branch
        return partial(shortcut, kept[branch]) if step % every and branch in kept else unet

    handle = last.resnets[-1].register_forward_pre_hook(keep)
    try:
        yield at
    finally:
        handle.remove()
