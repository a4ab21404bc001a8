"""What the networks are given, channel by channel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from tiny import tiny_pipeline

from dreampose_core.errors import InputError
from dreampose_core.model.adapter import ImageAdapter
from dreampose_core.model.conditioning import (
    clip_pixels,
    encode_latents,
    encode_maps,
    pose_tensors,
    predict,
    reference_tokens,
    to_pixels,
    to_uint8,
    unet_in_channels,
    warp_channels,
    window_channels,
)
from dreampose_core.model.config import POSE_CHANNELS, POSE_WINDOWS, ModelConfig
from dreampose_core.poses import WINDOW, PoseSequence, window_indices
from dreampose_core.training.losses import noised

U, V, PARTS_KNOWN, UV_KNOWN = 24, 25, 26, 27


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def random_maps(count=3, height=16, width=8):
    g = torch.Generator().manual_seed(1)
    parts = torch.randint(0, 25, (count, height, width), generator=g)
    return parts, torch.rand(count, 2, height, width, generator=g) * (parts > 0)[:, None]


def test_coverage_counts_each_part_in_each_cell():
    parts, uv = random_maps()
    out = encode_maps(parts, uv, 4)
    assert out.shape == (3, POSE_CHANNELS["iuv"], 4, 2) and out.shape[1] == 28
    for part in (1, 7, 24):
        for row, column in ((0, 0), (3, 1), (2, 0)):
            cell = parts[1, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert out[1, part - 1, row, column] == pytest.approx((cell == part).float().mean().item())
    person = torch.nn.functional.avg_pool2d((parts > 0).float()[:, None], 4)[:, 0]
    assert torch.allclose(out[:, :24].sum(1), person, atol=1e-6)


def test_u_and_v_are_those_of_the_cells_middle_pixel_never_averaged():
    parts, uv = random_maps()
    out = encode_maps(parts, uv, 4)
    assert torch.equal(out[:, U], uv[:, 0, 2::4, 2::4]) and torch.equal(out[:, V], uv[:, 1, 2::4, 2::4])


def test_flags_say_what_is_known():
    parts, uv = random_maps()
    for given, flags in (((parts, uv), (1, 1)), ((parts, None), (1, 0)), ((None, uv), (0, 1))):
        out = encode_maps(*given, 4)
        assert (out[:, PARTS_KNOWN] == flags[0]).all() and (out[:, UV_KNOWN] == flags[1]).all()
        assert flags[0] or (out[:, :24] == 0).all()
        assert flags[1] or (out[:, [U, V]] == 0).all()


def test_an_empty_map_is_not_a_missing_one():
    out = encode_maps(torch.zeros(1, 8, 8), torch.zeros(1, 2, 8, 8), 4)
    assert out.abs().sum() > 0  # a null pose is all zeros


def test_the_originals_encoding_is_u_and_v_alone():
    parts, uv = random_maps()
    out = encode_maps(parts, uv, 4, "uv")
    assert out.shape == (3, POSE_CHANNELS["uv"], 4, 2) and torch.equal(out, uv[:, :, ::4, ::4].float() * 2 - 1)
    beyond = uv * 3 - 1  # as a network says them
    assert torch.equal(encode_maps(None, beyond, 4, "uv"), beyond[:, :, ::4, ::4].float() * 2 - 1)
    assert encode_maps(None, uv * 3 - 1, 4)[:, 24:26].aminmax() == (0, 1)
    assert (encode_maps(None, torch.zeros(1, 2, 8, 8), 4, "uv") == -1).all()  # where nobody is
    with pytest.raises(InputError, match="U, V only"):
        encode_maps(parts, None, 4, "uv")


def test_a_window_is_shown_as_the_model_was_trained():
    windows = [window_indices(1, 4, POSE_WINDOWS[kind]) for kind in (ModelConfig().pose_window, "centred")]
    assert windows == [[0, 0, 1, 2, 3], [1, 0, 1, 2, 3]]
    configs = [ModelConfig(pose_encoding=kind, reference_warp="none") for kind in ("iuv", "uv")]
    assert [unet_in_channels(config, 4, 8) for config in configs] == [144, 14]  # 14: the released checkpoints' conv_in


def test_windows_are_five_different_maps_clamped_at_the_ends():
    parts, uv = random_maps(7)
    encoded = encode_maps(parts, uv, 4)
    indices = torch.tensor([window_indices(i, 7) for i in range(7)])
    assert indices[[0, 3, 6]].tolist() == [[0, 0, 0, 1, 2], [1, 2, 3, 4, 5], [4, 5, 6, 6, 6]]
    out = window_channels(encoded, indices).unflatten(1, (len(WINDOW), 28))
    for frame in range(7):
        for k, offset in enumerate(WINDOW):
            assert torch.equal(out[frame, k], encoded[min(max(frame + offset, 0), 6)])
    assert len({out[3, k].numpy().tobytes() for k in range(5)}) == 5


def test_other_charts_clear_u_and_v():
    parts, uv = np.ones((2, 8, 8), np.uint8), np.full((2, 2, 8, 8), 0.5, np.float16)
    both = PoseSequence(parts, uv, "densepose")
    given, none = pose_tensors(both, "body")
    assert none is None and given.dtype == torch.int64 and (given == 1).all()
    given, own = pose_tensors(PoseSequence(parts, uv, "body"), "body")
    assert own.dtype == torch.float32 and (own == 0.5).all()
    assert pose_tensors(PoseSequence(parts, None, "none"), "body")[1] is None
    assert pose_tensors(PoseSequence(None, uv, "body"), "body")[0] is None
    words = "only U, V, in densepose charts, and the model was trained on body charts"
    with pytest.raises(InputError, match=words):
        pose_tensors(PoseSequence(None, uv, "densepose"), "body")


def test_pixels_are_minus_one_to_one_and_come_back():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    pixels = to_pixels(image)
    assert pixels.shape == (1, 3, 16, 16) and pixels.min() == -1 and pixels.max() == 1
    assert torch.equal(to_uint8(pixels), image)
    assert [to_uint8(torch.full((3, 1, 1), value)).unique().tolist() for value in (7.0, -7.0)] == [[255], [0]]


def test_clip_sees_head_and_feet(pipe):
    """The photo is padded to a square; a centre crop would cut a tenth off its top and its bottom."""
    photo = torch.zeros(2, 3, 40, 32)
    photo[:, :, :4] = torch.tensor([1.0, -1, -1])[None, :, None, None]
    photo[:, :, -4:] = torch.tensor([-1.0, -1, 1])[None, :, None, None]
    given = clip_pixels(photo, pipe.image_processor)
    assert given.shape == (2, 3, 64, 64)
    processor = pipe.image_processor
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (processor.image_mean, processor.image_std))
    seen = (given * std + mean) * 2 - 1  # in [-1, 1] again
    middle = slice(20, 44)
    assert torch.allclose(seen[:, :, 1, middle], torch.tensor([1.0, -1, -1])[None, :, None], atol=0.05)
    assert torch.allclose(seen[:, :, -2, middle], torch.tensor([-1.0, -1, 1])[None, :, None], atol=0.05)
    assert seen[:, :, :, 0].abs().max() < 0.05 and seen[:, :, :, -1].abs().max() < 0.05  # grey at both sides
    wide = clip_pixels(photo.transpose(2, 3), pipe.image_processor)
    assert torch.allclose(wide, given.transpose(2, 3), atol=1e-5)


def test_latents_are_scaled_modes_and_do_not_flicker(pipe):
    pixels = torch.rand(1, 3, 40, 32) * 2 - 1
    with torch.no_grad():
        a, b = encode_latents(pipe.vae, pixels), encode_latents(pipe.vae, pixels)
        mean = pipe.vae.encode(pixels).latent_dist.mean
    assert torch.equal(a, b) and torch.allclose(a, mean * pipe.vae.config.scaling_factor)


def test_tokens_start_as_clips_own(pipe):
    pixels = torch.rand(2, 3, 40, 32) * 2 - 1
    with torch.no_grad():
        latents = encode_latents(pipe.vae, pixels)
        tokens = reference_tokens(pipe, pixels, latents)
        clip = pipe.image_encoder(pixel_values=clip_pixels(pixels, pipe.image_processor)).last_hidden_state
    assert tokens.shape == (2, 17, 32) and torch.allclose(tokens, clip, atol=1e-5)


class Unet:
    """Keeps what it is given, and answers with `sample` or with zeros."""

    dtype = torch.float32

    def __init__(self, sample=None):
        self.sample = sample

    def __call__(self, given, timesteps, tokens):
        self.given = given
        return SimpleNamespace(sample=torch.zeros_like(given[:, :8]) if self.sample is None else self.sample)


@pytest.mark.parametrize("warp", ["texture", "none"])
def test_the_unets_channels_are_latent_poses_warp(pipe, warp):
    config, unet = ModelConfig(reference_warp=warp), Unet()
    noisy, poses, planes = (
        torch.full((2, channels, *size), value)
        for channels, size, value in [(8, (5, 4), 1.0), (140, (5, 4), 2.0), (5, (20, 16), 3.0)]
    )
    fake = SimpleNamespace(unet=unet, scheduler=pipe.scheduler, model_config=config)
    predict(fake, noisy, torch.tensor(5), poses, warp_channels(config, planes, pipe.vae), None)
    assert unet.given.shape == (2, unet_in_channels(config, 8, 4), 5, 4)
    assert (unet.given[:, :8] == 1).all() and (unet.given[:, 8:148] == 2).all() and (unet.given[:, 148:] == 3).all()


def test_the_texture_loses_no_pixel(pipe):
    planes = torch.rand(2, 5, 20, 16)
    given = warp_channels(ModelConfig(), planes, pipe.vae)
    assert given.shape == (2, 80, 5, 4)
    assert torch.equal(torch.nn.functional.pixel_shuffle(given, 4), planes)


@torch.no_grad()
def test_an_encoded_texture_is_its_latents_and_zeros_where_there_is_none(pipe):
    planes = torch.rand(2, 5, 20, 16)
    planes[1] = 0
    given = warp_channels(ModelConfig(reference_warp="encoded"), planes, pipe.vae)
    assert torch.allclose(given[:1, :8], encode_latents(pipe.vae, planes[:1, :3]), atol=1e-5)
    assert torch.equal(given[:1, 8:], warp_channels(ModelConfig(), planes[:1], pipe.vae)) and (given[1] == 0).all()


@pytest.mark.parametrize("kind", ["sample", "epsilon", "v_prediction"])
def test_a_unet_that_knows_the_difference_from_the_texture_knows_the_frame(kind):
    """The UNet is shown the noisy difference from the texture's latents; a right answer about that is a right answer
    about the frame."""
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", prediction_type=kind, rescale_betas_zero_snr=True)
    g = torch.Generator().manual_seed(0)
    frame, texture, noise = (torch.randn(3, 8, 5, 4, generator=g) for _ in range(3))
    timesteps = torch.tensor([5, 500, 999])
    noisy, wanted = noised(scheduler, frame, noise, timesteps)
    right = noised(scheduler, frame - texture, noise, timesteps)
    unet = Unet(right[1])
    poses, warp = torch.zeros(3, 140, 5, 4), torch.cat([texture, torch.zeros(3, 80, 5, 4)], 1)
    fake = SimpleNamespace(unet=unet, scheduler=scheduler, model_config=ModelConfig(reference_warp="encoded"))
    found = predict(fake, noisy, timesteps, poses, warp, None)
    assert torch.allclose(found, wanted, atol=1e-4) and torch.allclose(unet.given[:, :8], right[0], atol=1e-4)


def test_an_untrained_unet_repeats_the_texture():
    pipe = tiny_pipeline(reference_warp="encoded")
    assert (pipe.unet.conv_out.weight == 0).all() and (pipe.unet.conv_out.bias == 0).all()
    texture = torch.randn(1, 8, 10, 8, generator=torch.Generator().manual_seed(0))
    warp = torch.cat([texture, torch.rand(1, 80, 10, 8)], 1)
    given = torch.randn(1, 8, 10, 8), torch.tensor(700), torch.rand(1, 140, 10, 8), warp, torch.rand(1, 17, 32)
    with torch.no_grad():
        found = predict(pipe, *given)
    assert torch.equal(found, texture)


def test_the_texture_changes_nothing_at_the_start(pipe):
    weight = pipe.unet.conv_in.weight
    assert (weight[:, -80:] == 0).all() and (weight[:, :-80] != 0).any()
    assert pipe.unet.config.in_channels == weight.shape[1] == unet_in_channels(pipe.model_config, 8, 4)


def test_the_adapter_starts_as_the_identity_with_zero_weight_on_the_vae_which_can_grow():
    g = torch.Generator().manual_seed(0)
    clip, latents = torch.randn(2, 17, 32, generator=g), torch.randn(2, 8, 10, 8, generator=g)
    adapter = ImageAdapter(17, 32, 8, 10, 8)
    assert torch.allclose(adapter(clip, latents), clip, atol=1e-6)
    assert torch.equal(adapter(clip, latents), adapter(clip, 100 * latents))
    assert (adapter.linear1.weight[:, 17:] == 0).all() and (adapter.linear1.bias == 0).all()
    adapter(clip, latents).square().mean().backward()
    assert adapter.linear1.weight.grad[:, 17:].abs().max() > 0
    with torch.no_grad():
        adapter.linear1.weight[:, 17:] = 0.1
    assert not torch.allclose(adapter(clip, latents), adapter(clip, 2 * latents))


def test_an_adapter_of_the_usual_sizes_has_the_released_checkpoints_shapes():
    shapes = {name: tuple(value.shape) for name, value in ImageAdapter().state_dict().items()}
    assert shapes == {
        "vae2clip.weight": (768, 1280),
        "vae2clip.bias": (768,),
        "linear1.weight": (50, 54),
        "linear1.bias": (50,),
    }
    assert ImageAdapter()(torch.zeros(1, 50, 768), torch.zeros(1, 4, 80, 64)).shape == (1, 50, 768)
