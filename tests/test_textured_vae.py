"""The decoder that sees the moved texture, and frames of the photo's shape.

pytest tests/test_textured_vae.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import drawn_clip

from dreampose_core.model.conditioning import condition_pixels, decode_both, encode_latents, vae_factor, warp_channels
from dreampose_core.model.config import ModelConfig
from dreampose_core.model.loading import load_pipeline, save_model
from dreampose_core.model.mini import build_mini
from dreampose_core.model.textured_vae import TexturedVAE
from dreampose_core.subject.recipe import RECIPES
from dreampose_core.subject.tuning import tune_subject

CONFIG = ModelConfig(
    height=160, width=128, free_shape=True, reference_warp="encoded", standard_steps=1, draft_steps=1, best_steps=2
)
LARGE = replace(CONFIG, height=640, width=512)
SHAPES = {(1280, 720): (736, 416), (1500, 1000): (704, 480), (640, 512): (640, 512), (1000, 1000): (576, 576)}


@pytest.fixture(scope="module")
def vae() -> TexturedVAE:
    """Random weights, the texture's, too."""
    torch.manual_seed(0)
    vae = TexturedVAE((8, 8, 16, 16), latent_channels=4).eval()
    for conv in vae.decoder.texture_in:
        torch.nn.init.normal_(conv.weight, std=0.1)
    return vae


@pytest.fixture(scope="module")
def pipe():
    return build_mini(CONFIG, 0, unet_channels=(16, 32), vae_channels=(8, 8, 16, 16), latent_channels=4, width=32)


@torch.no_grad()
def test_without_texture_a_frame_is_decoded_as_with_one_of_which_nothing_is_known(vae):
    latents, planes = torch.randn(2, 4, 6, 4), torch.zeros(2, 5, 96, 64)
    nothing, none = decode_both(vae, latents, planes)[0], vae.decode(latents).sample
    assert none.shape == (2, 3, 96, 64) and torch.equal(nothing, none)
    planes[:, :3] = 0.5
    assert not torch.allclose(decode_both(vae, latents, planes)[0], none)


@torch.no_grad()
def test_the_texture_is_kept_only_where_it_is_known():
    decoder, planes = TexturedVAE((8, 8, 16, 16), latent_channels=4).eval().decoder, torch.rand(1, 5, 64, 64)
    torch.nn.init.zeros_(decoder.conv_out.weight), torch.nn.init.zeros_(decoder.conv_out.bias)
    planes[:, 4, :, :32] = 0
    made, drawn = decoder.both(torch.zeros(1, 4, 4, 4), planes)
    assert torch.equal(drawn, torch.zeros(1, 3, 64, 64)) and torch.equal(made[..., :32], drawn[..., :32])
    assert torch.allclose(made[..., 32:], 0.5 * planes[:, :3, :, 32:], atol=1e-6)


@torch.no_grad()
def test_the_unet_is_given_the_texture_averaged_to_four_by_four_a_cell(pipe):
    planes = torch.rand(1, 5, 64, 32)
    channels = warp_channels(pipe.model_config, planes, pipe.vae)
    assert vae_factor(pipe.vae) == 16 and channels.shape == (1, 4 + 80, 4, 2)
    assert torch.allclose(channels[0, 4, 0, 0], planes[0, 0, :4, :4].mean(), atol=1e-6)
    assert torch.allclose(channels[0, 4 + 1, 3, 1], planes[0, 0, 48:52, 20:24].mean(), atol=1e-6)
    assert torch.equal(channels[:, :4], encode_latents(pipe.vae, planes[:, :3]))


@pytest.mark.parametrize("photo", [*SHAPES, (400, 1200), (3000, 1000), (33, 50), (4000, 2999)])
def test_frames_have_the_photos_shape_from_nine_by_sixteen_to_square_and_one_area(photo):
    height, width = frames = LARGE.shaped_like(photo)
    assert frames == SHAPES.get(photo, frames) == LARGE.shaped_like(frames)
    assert height % 32 == width % 32 == 0 and 1 <= height / width < 1.8 and 0.9 < height * width / (640 * 512) < 1.1
    assert replace(LARGE, free_shape=False).shaped_like(photo) == (640, 512)


def test_the_adapter_is_shown_all_of_a_photo_of_any_shape():
    for size in ((736, 416), (576, 576), (640, 512)):
        seen = condition_pixels(LARGE, torch.ones(1, 3, *size))
        assert seen.shape == (1, 3, 320, 256)
        rows, columns = (seen[0, 0] > 0.5).nonzero().amax(0) - (seen[0, 0] > 0.5).nonzero().amin(0) + 1
        assert abs(rows / columns - size[0] / size[1]) < 0.02 and (rows == 320 or columns == 256)


@pytest.mark.parametrize("size", [(192, 96), (160, 128), (128, 128)])
def test_a_saved_model_makes_frames_of_every_shape(pipe, size, tmp_path):
    save_model(pipe, tmp_path / "model")
    loaded = load_pipeline(tmp_path / "model", "cpu")
    assert isinstance(loaded.vae, TexturedVAE)
    rgb, poses = drawn_clip(3, "walk", 3, size)
    assert loaded.model_config.shaped_like(size) == size
    made = loaded(rgb[0], poses, poses.select([0]), generator=torch.Generator().manual_seed(0)).frames
    assert made.shape == (3, *size, 3) and made.dtype == np.uint8


def test_the_decoder_is_tuned_with_the_texture_before_it(pipe):
    rgb, poses = drawn_clip(3, "walk", 1, (192, 96))
    before = [conv.weight.clone() for conv in pipe.vae.decoder.texture_in]
    recipe = replace(RECIPES["fast"], unet_steps=1, decoder_steps=3, views=6, rank=2, decoder_lr=1e-2)
    losses = tune_subject(pipe, pipe.fit_photos([rgb[0]], poses), poses, recipe)
    assert len(losses["decoder"]) == 3
    assert not all(torch.equal(a, conv.weight) for a, conv in zip(before, pipe.vae.decoder.texture_in))


@pytest.mark.parametrize("shape", [(300, 100), (40, 30), (1000, 4000)])
def test_photos_of_any_shape_are_shown_whole(pipe, shape):
    """1:3, smaller than a frame, and 4,000 pixels wide: nothing is squashed or cut off."""
    photo = np.full((*shape, 3), 30, np.uint8)
    photo[shape[0] // 4 : -shape[0] // 4, shape[1] // 4 : -shape[1] // 4] = 220
    (pixels,) = pipe.fit_photos([photo])
    assert tuple(pixels.shape[1:]) == pipe.model_config.shaped_like(shape)
    bright = (pixels[0] > 0.2).nonzero()
    rows, columns = (bright.amax(0) - bright.amin(0) + 1).tolist()
    assert abs(rows / columns / (shape[0] / shape[1]) - 1) < 0.15
