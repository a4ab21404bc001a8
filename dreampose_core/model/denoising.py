"""The denoising loop: from noise to a frame's latents under dual guidance, and what is left out of it where less is
enough."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, SchedulerMixin, UniPCMultistepScheduler

from ..errors import InputError
from ..progress import ShouldStop, check_stop
from ..settings import Solver
from .conditioning import clean_latents, predict
from .config import ModelConfig, Sampling
from .texture import Texture

OnStep = Callable[[int, int, Callable[[], torch.Tensor]], None]
"""Called after each step with its number, the number of all and a function that gives the clean latents as they
seem."""


@dataclass
class Reference:
    """What is constant for a clip: tokens (1, n, d), those of no photo, the photo's latents (1, C, h, w), texture of
    one person or None, see `colour_map`; size: (height, width) of the frames."""

    tokens: torch.Tensor
    blank: torch.Tensor
    latents: torch.Tensor
    texture: Texture | None
    colours: torch.Tensor | None = None
    size: tuple[int, int] | None = None


def guidance_branches(image_guidance: float, pose_guidance: float) -> list[tuple[float, bool, bool]]:
    """The UNet passes that dual guidance needs, as (weight, has image, has pose).

    eps = eps(0, 0) + s_I (eps(I, 0) - eps(0, 0)) + s_P (eps(I, P) - eps(I, 0)); passes whose weight cancels to 0 are
    left out: equal weights need two, both 1 need one (paper, section 4.3).
    """
    passes = [
        (1 - image_guidance, False, False),
        (image_guidance - pose_guidance, True, False),
        (pose_guidance, True, True),
    ]
    return [p for p in passes if abs(p[0]) > 1e-9]


def solver_named(name: Solver, scheduler) -> SchedulerMixin:
    """Another solver for the same noise schedule, by its name; of the second order where the method has one.

    Raises InputError for one that cannot use what the model predicts.
    """
    if name == "pndm" and scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise InputError(
            "PNDM cannot solve for this model, which predicts the clean frame itself; choose another solver."
        )
    kind, how = {
        "dpm++": (
            DPMSolverMultistepScheduler,
            {"algorithm_type": "dpmsolver++", "solver_order": 2},
        ),  # Lu et al., arXiv 2211.01095
        "unipc": (UniPCMultistepScheduler, {"solver_order": 2}),  # Zhao et al., arXiv 2302.04867
        "ddim": (DDIMScheduler, {}),  # Song et al., arXiv 2010.02502
        "pndm": (PNDMScheduler, {"skip_prk_steps": True}),  # Liu et al., arXiv 2202.09778
    }[name]
    return kind.from_config(scheduler.config, **how)


@torch.no_grad()
def denoise(
    unet,
    scheduler,
    config: ModelConfig,
    sampling: Sampling,
    branches: list[tuple[float, bool, bool]],
    reference: Reference,
    noise: torch.Tensor,
    beneath: torch.Tensor | None,
    pose: torch.Tensor,
    warp: torch.Tensor | None,
    on_step: OnStep,
    should_stop: ShouldStop,
) -> torch.Tensor:
    """Clean latents (B, C, h, w) from noise of that shape, with the latents `beneath` under it if there are any.

    branches: as from `guidance_branches`; outside sampling.guidance_interval (Kynkäänniemi et al., arXiv 2404.07724)
    there is no guidance, so one pass. scheduler: the model's own; stays as it is. pose, warp: channels of the frames,
    as the UNet takes them. Raises Cancelled.
    """
    scheduler = copy.deepcopy(scheduler) if sampling.solver is None else solver_named(sampling.solver, scheduler)
    scheduler.set_timesteps(sampling.num_inference_steps, device=noise.device)
    if beneath is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(beneath.float().expand_as(noise), noise, scheduler.timesteps[:1])
    batch = len(latents)
    tokens, no_tokens = (some.expand(batch, -1, -1) for some in (reference.tokens, reference.blank))
    first, last = (share * scheduler.config.num_train_timesteps for share in sampling.guidance_interval)
    unguided = guidance_branches(1, 1)
    with reusing(unet, sampling.reuse_steps) as deep:
        for step, t in enumerate(scheduler.timesteps):
            check_stop(should_stop)
            scaled = scheduler.scale_model_input(latents, t)
            total = 0
            for weight, has_image, has_pose in branches if first <= t <= last else unguided:
                own_pose = pose if has_pose else torch.zeros_like(pose)
                own_warp = None if warp is None else warp if has_image and has_pose else torch.zeros_like(warp)
                context = tokens if has_image else no_tokens
                with deep(step, (has_image, has_pose)):
                    total = total + weight * predict(unet, scheduler, config, scaled, t, own_pose, own_warp, context)
            clean = partial(clean_latents, scheduler, latents, total, t.long())
            latents = scheduler.step(total, t, latents).prev_sample
            # some schedulers take a few steps more
            on_step(min(step + 1, sampling.num_inference_steps), sampling.num_inference_steps, clean)
    return latents


@contextmanager
def reusing(unet, every: int) -> Iterator[Callable[[int, object], AbstractContextManager]]:
    """A function (step, branch) -> context, in which the UNet computes its deep features at every `every`-th step and
    in between goes from its first convolution straight to its last layer, with what the branch's last full pass left
    there (DeepCache, arXiv 2312.00858).

    1 changes nothing.
    """
    if every == 1:
        yield lambda step, branch: nullcontext()
        return
    last = unet.up_blocks[-1]
    width = unet.config.block_out_channels[0]
    kept: dict[object, torch.Tensor] = {}  # what the last layer was handed from below, of each branch
    shallow, now = False, None

    def keep(module, given) -> None:
        if not shallow:
            kept[now] = given[0][:, :-width]  # the rest comes from the first convolution, which is always computed

    def past_down(block, hidden_states, *_, **__):
        return hidden_states, (None,) * (len(block.resnets) + len(block.downsamplers or ()))

    def past(block, hidden_states, *_, **__):
        return hidden_states

    def last_layer(block, hidden_states, temb, res_hidden_states_tuple, encoder_hidden_states=None, **_):
        made = block.resnets[-1](torch.cat([kept[now], res_hidden_states_tuple[0]], 1), temb)
        if getattr(block, "has_cross_attention", False):
            made = block.attentions[-1](made, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]
        return made

    def either(block, full, short):
        return lambda *given, **named: short(block, *given, **named) if shallow else full(*given, **named)

    @contextmanager
    def deep(step: int, branch: object) -> Iterator[None]:
        nonlocal shallow, now
        shallow, now = step % every > 0 and branch in kept, branch
        try:
            yield
        finally:
            shallow = False

    shorts = [(block, past_down) for block in unet.down_blocks] + [
        (block, past) for block in (unet.mid_block, *unet.up_blocks[:-1])
    ]
    own = [(block, block.__dict__.get("forward")) for block, _ in (*shorts, (last, last_layer))]
    handle = last.resnets[-1].register_forward_pre_hook(keep)
    for block, short in (*shorts, (last, last_layer)):
        block.forward = either(block, block.forward, short)
    try:
        yield deep
    finally:
        handle.remove()
        for block, forward in own:
            if forward is None:
                del block.forward  # the class's own again
            else:
                block.forward = forward
