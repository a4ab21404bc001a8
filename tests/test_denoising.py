"""Shortcuts of the denoising loop: guidance only in an interval, deep features of an earlier step."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from tiny import stop_after, tiny_pipeline

from dreampose_core.errors import Cancelled, InputError
from dreampose_core.evaluation.clips import walking
from dreampose_core.model.config import ModelConfig, Sampling
from dreampose_core.model.denoising import reusing
from dreampose_core.settings import Solver

NAN = float("nan")


@pytest.fixture(scope="module")
def pipe():
    pipe = tiny_pipeline()
    with torch.no_grad():  # an untrained network repeats the moved texture, whatever its features are
        for number, parameter in enumerate(pipe.unet.parameters()):
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(number))
    return pipe


@pytest.fixture(scope="module")
def clip(pipe):
    return walking(pipe.model_config.size, 3)


def made(pipe, clip, steps=6, **options) -> np.ndarray:
    options = {"image_guidance": 3.0, "pose_guidance": 2.0, "output_type": "np"} | options
    return clip.made_by(pipe, 0, num_inference_steps=steps, **options)


@pytest.fixture
def passes(pipe):
    """The timesteps of the passes through the UNet, and how often its middle was computed."""
    seen = {"all": [], "deep": 0}
    handles = [
        pipe.unet.time_proj.register_forward_pre_hook(lambda module, given: seen["all"].append(int(given[0][0]))),
        pipe.unet.mid_block.resnets[0].register_forward_hook(lambda *_: seen.update(deep=seen["deep"] + 1)),
    ]
    yield seen
    for handle in handles:
        handle.remove()


def test_outside_the_interval_there_is_one_pass(pipe, clip, passes):
    made(pipe, clip, guidance_interval=(0.3, 0.7))
    count = {t: passes["all"].count(t) for t in passes["all"]}
    assert len(count) == 6 and all(number == (3 if 300 <= t <= 700 else 1) for t, number in count.items())
    assert 0 < sum(number == 3 for number in count.values()) < 6


def test_the_whole_interval_changes_nothing_and_none_of_it_is_no_guidance(pipe, clip):
    full, weak = made(pipe, clip), made(pipe, clip, image_guidance=1.0, pose_guidance=1.0)
    assert np.array_equal(made(pipe, clip, guidance_interval=(0.0, 1.0)), full)
    assert np.array_equal(made(pipe, clip, guidance_interval=(0.0, 0.0)), weak)
    assert not np.array_equal(full, weak)
    between = made(pipe, clip, guidance_interval=(0.3, 0.7))
    assert not np.array_equal(between, full) and not np.array_equal(between, weak)


@pytest.mark.parametrize(("every", "deep"), [(1, 18), (2, 9), (3, 6), (6, 3), (9, 3)])
def test_deep_features_are_computed_at_every_nth_step_of_each_branch(pipe, clip, passes, every, deep):
    made(pipe, clip, reuse_steps=every)
    assert (len(passes["all"]), passes["deep"]) == (18, deep)


def test_a_branch_without_features_computes_them(pipe, clip, passes):
    """The first guided step need not be a full one: its branches have nothing to use again yet."""
    made(pipe, clip, reuse_steps=6, guidance_interval=(0.0, 0.7))
    first_guided = next(i for i, t in enumerate(dict.fromkeys(passes["all"])) if t <= 700)
    assert first_guided > 0 and passes["deep"] == 3


def test_the_model_is_left_as_it_was(pipe, clip):
    before = made(pipe, clip)
    short = made(pipe, clip, reuse_steps=2)
    assert not np.array_equal(short, before) and np.abs(short - before).mean() < 0.2
    assert np.array_equal(made(pipe, clip), before) and np.array_equal(made(pipe, clip, reuse_steps=2), short)
    with pytest.raises(Cancelled):
        made(pipe, clip, reuse_steps=2, should_stop=stop_after(4))
    assert not pipe.unet.up_blocks[-1].resnets[-1]._forward_pre_hooks
    assert np.array_equal(made(pipe, clip), before)


def test_with_the_same_input_the_features_are_those_that_would_be_computed():
    """What is skipped is exactly what depends on nothing but the earlier input: asked the same again, the UNet answers
    the same."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 64),
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
    ).eval()
    given = torch.randn(2, 4, 16, 8), torch.tensor(500), torch.randn(2, 5, 32)
    other = given[0] + torch.randn(2, 4, 16, 8), *given[1:]
    with torch.no_grad(), reusing(unet, 2) as at:
        found = []
        for step, inputs in enumerate((given, given, given, other)):
            found.append(at(step, "a")(*inputs).sample)
    full, short, again, changed = found
    assert torch.equal(full, again) and torch.allclose(full, short, atol=1e-6)
    assert not torch.allclose(full, changed, atol=1e-2)  # the first convolution is always computed


def test_a_batch_equals_single_frames_with_shortcuts(pipe, clip):
    short = {"reuse_steps": 2, "guidance_interval": (0.2, 0.8)}
    assert np.allclose(made(pipe, clip, batch_size=3, **short), made(pipe, clip, batch_size=1, **short), atol=1e-5)


def test_best_leaves_nothing_out_and_the_others_what_the_model_says(clip):
    form = ModelConfig(draft_steps=4, standard_steps=8, best_steps=9, guidance_from=0.2, guidance_to=0.8, reuse_steps=2)
    wanted = {"best": Sampling(9), "standard": Sampling(8, (0.2, 0.8), 2), "draft": Sampling(4, (0.2, 0.8), 2)}
    assert {quality: form.sampling(quality) for quality in wanted} == wanted
    pipe = tiny_pipeline(guidance_from=0.2, guidance_to=0.8, reuse_steps=2, standard_steps=6)
    asked = made(pipe, clip, None)
    assert np.array_equal(asked, made(pipe, clip, 6, guidance_interval=(0.2, 0.8), reuse_steps=2))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"reuse_steps": 0}, "reuse_steps must be at least 1"),
        *(({"guidance_interval": ends}, "two increasing shares") for ends in ((0.6, 0.2), (0.0, 1.5), (NAN, 1.0))),
        ({"solver": "euler"}, "solver is 'euler'; it must be one of dpm"),
    ],
)
def test_wrong_settings_are_refused(pipe, clip, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        made(pipe, clip, **wrong)


@pytest.mark.parametrize("solver", [name for name in get_args(Solver) if name != "pndm"])
def test_the_more_steps_the_nearer_every_solver_comes_to_the_same_picture(pipe, clip, solver):
    scheduler, plain = dict(pipe.scheduler.config), {"image_guidance": 1.0, "pose_guidance": 1.0}
    wanted = made(pipe, clip, 60, **plain)
    off = [abs(made(pipe, clip, steps, solver=solver, **plain) - wanted).mean() for steps in (3, 10, 60)]
    assert off[0] > 1.3 * off[1] > 1.3**2 * off[2] and off[2] < 0.05 and dict(pipe.scheduler.config) == scheduler


def test_a_solver_that_cannot_use_what_the_model_predicts_is_refused(pipe, clip):
    with pytest.raises(InputError, match="PNDM cannot solve for this model"):
        made(pipe, clip, solver="pndm")
    own = pipe.scheduler
    pipe.scheduler = DDIMScheduler.from_config(own.config, prediction_type="epsilon", rescale_betas_zero_snr=False)
    try:
        assert np.isfinite(made(pipe, clip, solver="pndm")).all()
    finally:
        pipe.scheduler = own
