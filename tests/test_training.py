"""Training: steps change weights, training feeds what inference feeds, and who learns from which loss."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from tiny import same, tiny_pipeline, weights

from dreampose_core.media import read_image
from dreampose_core.model.conditioning import clean_latents, encode_maps, to_pixels
from dreampose_core.model.config import ModelConfig
from dreampose_core.poses import PoseSequence
from dreampose_core.training import conditions
from dreampose_core.training import run as training_run
from dreampose_core.training.base import prefetched, train_base, train_end_to_end
from dreampose_core.training.conditions import Dropout, disturbed_warp, draw_dropout, encode_windows, random_part
from dreampose_core.training.distributed import Draws
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.losses import PatchDiscriminator, adversarial_losses, denoising_loss, noised, picture_loss
from dreampose_core.training.videos import VideoSamples

SIZE = (40, 32)
NOTHING_DROPPED = Dropout(pose=0, image=0, both=0, warp=0, uv=0, parts=0)


@pytest.fixture(scope="module")
def samples(tiny_clips):
    return VideoSamples(tiny_clips, SIZE, 2)


def test_samples_ahead_are_the_same_samples():
    made = []
    ahead = prefetched(lambda step: made.append(step) or step * 10)
    assert [ahead(step) for step in (0, 1, 2, 7, 8)] == [0, 10, 20, 70, 80]
    assert made[:3] == [0, 1, 2] and len(set(made)) == len(made)


def test_base_training_changes_what_it_should(samples, tmp_path):
    pipe = tiny_pipeline()
    modules = pipe.unet, pipe.adapter, pipe.image_encoder
    vae, before = weights(pipe.vae), [weights(module) for module in modules]
    assert train_base(pipe, samples, LoopOptions(2, 1e-3), dropout=Dropout(warp=0), folder=tmp_path)
    assert same(vae, weights(pipe.vae))  # frozen
    assert not any(same(old, weights(module)) for old, module in zip(before, modules))
    assert (pipe.unet.conv_in.weight[:, -80:] != 0).any()  # the moved texture has found its way in
    assert not any(module.training for module in (*modules, pipe.vae))
    assert (tmp_path / "checkpoint-2" / "state.safetensors").is_file()


def test_conditions_are_dropped_sample_by_sample_in_the_right_shares():
    count = 40_000
    has = {key: value.bool() for key, value in draw_dropout(count, Dropout(), Draws(0, 0, 3), "cpu").items()}

    def share(mask) -> float:
        return mask.float().mean().item()

    image, pose = has["image"], has["pose"]
    assert share(~image & ~pose) == pytest.approx(0.05, abs=0.006)
    assert share(~image & pose) == pytest.approx(0.05, abs=0.006)
    assert share(image & ~pose) == pytest.approx(0.05, abs=0.006)
    assert share(~has["warp"][image & pose]) == pytest.approx(Dropout().warp, abs=0.01)
    assert not (has["warp"] & ~(image & pose)).any()  # the texture depends on photo and pose
    assert share(~has["uv"]) == pytest.approx(0.1, abs=0.008) and share(~has["parts"]) == pytest.approx(0.05, abs=0.006)
    assert (has["uv"] | has["parts"]).all()  # never both: that would be no pose
    small = [draw_dropout(8, Dropout(warp=0.5), Draws(0, step, 3), "cpu")["warp"] for step in range(50)]
    assert sum(0 < x.sum() < 8 for x in small) > 40  # within one batch some are dropped and some are not


def test_dropped_maps_look_as_at_inference(samples):
    batch = samples.batch(0)
    parts, uv = batch.window_parts, batch.window_uv.float()
    flat = parts.flatten(0, 1), uv.flatten(0, 1)

    def given(**dropped) -> torch.Tensor:
        has = {name: torch.full((2,), float(name not in dropped)) for name in ("pose", "parts", "uv")}
        return encode_windows(ModelConfig(), parts, uv, has, 4)

    assert torch.equal(given(), encode_maps(*flat, 4).unflatten(0, (2, 5)).flatten(1, 2))
    assert torch.equal(given(uv=1), encode_maps(flat[0], None, 4).unflatten(0, (2, 5)).flatten(1, 2))
    assert torch.equal(given(parts=1), encode_maps(None, flat[1], 4).unflatten(0, (2, 5)).flatten(1, 2))
    assert (given(pose=1) == 0).all()


@pytest.mark.parametrize(
    "form", [{}, {"reference_warp": "none"}, {"reference_warp": "encoded"}, {"pose_encoding": "uv"}]
)
def test_training_feeds_the_unet_what_the_pipeline_feeds(samples, monkeypatch, form):
    """The same sample, with nothing dropped and nothing disturbed, gives the same poses, texture and tokens."""
    pipe, seen = tiny_pipeline(**form), []
    with torch.no_grad():
        pipe.adapter.linear1.weight.normal_(generator=torch.Generator().manual_seed(0))
    handle = pipe.unet.register_forward_pre_hook(lambda _, args: seen.append([x.detach().clone() for x in args]))
    batch = samples.batch(0)
    same_batch = SimpleNamespace(batch=lambda step: batch)
    with monkeypatch.context() as patch:
        # "does it happen?" is always answered no
        patch.setattr(conditions, "CROP", 1.0)
        patch.setattr(Draws, "rand", lambda self, *shape: torch.full(shape, 0.9999))
        train_base(pipe, same_batch, LoopOptions(1, 0.0, ema=None), dropout=NOTHING_DROPPED)
    given, _, tokens = seen.pop()
    assert seen == []
    for i in range(2):
        poses = PoseSequence(batch.window_parts[i].numpy(), batch.window_uv[i].numpy(), "body")
        own = PoseSequence(batch.photo_parts[i : i + 1].numpy(), batch.photo_uv[i : i + 1].numpy(), "body")
        list(pipe.stream(batch.photo[i].numpy(), poses, own, num_inference_steps=1, image_guidance=1, pose_guidance=1))
        at_inference, _, tokens_there = seen.pop()
        assert at_inference[2, 8:].abs().sum() > 0
        assert torch.allclose(at_inference[2, 8:], given[i, 8:], atol=1e-5)  # frame 2 has the whole window
        assert torch.allclose(tokens_there[2], tokens[i], atol=1e-4)
    handle.remove()


def test_disturbed_textures_are_dropped_by_sample_and_stay_in_range(samples):
    batch = samples.batch(1)
    photo, has = to_pixels(batch.photo), {"warp": torch.tensor([1.0, 0.0]), "uv": torch.ones(2), "parts": torch.ones(2)}
    many = [disturbed_warp(photo, batch, has, True, Draws(0, step, 4)) for step in range(12)]
    for planes in many:
        assert planes.shape == (2, 5, *SIZE) and planes[0].abs().max() <= 1 + 1e-4 and (planes[1] == 0).all()
    assert len({planes[0].numpy().tobytes() for planes in many}) > 8
    again = disturbed_warp(photo, batch, has, True, Draws(0, 3, 4))
    assert torch.equal(again, many[3])
    # as in the pipeline: without the target's U, V no texel is found, without its parts there is no texture
    dropped = {**has, "warp": torch.ones(2), "uv": torch.tensor([0.0, 1.0]), "parts": torch.tensor([1.0, 0.0])}
    planes = disturbed_warp(photo, batch, dropped, True, Draws(0, 3, 4))
    assert set(planes[0, 4].unique().tolist()) <= {-1.0, 0.0, 0.5} and (planes[0] != 0).any() and (planes[1] == 0).all()


def test_a_cut_is_the_same_place_in_everything_of_a_sample():
    rows = torch.arange(40.0)[:, None].expand(40, 32)
    picture = torch.stack([rows, torch.arange(32.0).expand(40, 32)])
    cut = random_part(64, (40, 32), 0.6, 8, Draws(0, 5, 2))
    given, labels = cut(picture.expand(64, 2, 40, 32)), cut(rows.expand(64, 5, 40, 32))
    assert given.shape == (64, 2, 24, 16) and labels.shape == (64, 5, 24, 16)
    assert torch.equal(given[:, 0], labels[:, 3])
    places = given[:, :, 0, 0]
    # every place, the last one too
    assert set(places[:, 0].tolist()) == set(places[:, 1].tolist()) == {0, 8, 16}
    whole = random_part(2, (40, 32), 1.0, 16, Draws(0, 5, 2))  # a size that is no multiple is not cut short
    assert torch.equal(whole(picture.expand(2, 2, 40, 32)), picture.expand(2, 2, 40, 32))


@pytest.mark.parametrize("adversarial", [0.05, 0])
def test_unet_and_decoder_learn_together_from_the_frames_they_make(samples, adversarial):
    """All but the VAE's encoder changes, and frames come nearer to the truth than they were."""
    pipe = tiny_pipeline()
    parts = pipe.unet, pipe.adapter, pipe.image_encoder, pipe.vae.decoder
    before, encoder = [weights(part) for part in parts], weights(pipe.vae.encoder, pipe.vae.quant_conv)
    options, losses = LoopOptions(11, 2e-3, warmup=5, cooldown=0.01, ema=None), []
    how = dict(adversarial=adversarial, on_progress=lambda progress: losses.append(progress.loss))
    assert train_end_to_end(pipe, samples, options, **how)
    assert same(encoder, weights(pipe.vae.encoder, pipe.vae.quant_conv))
    assert not any(same(old, weights(part)) for old, part in zip(before, parts))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_targets_invert_to_the_picture(kind):
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", prediction_type=kind, clip_sample=False)
    g = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(3, 8, 4, 4, generator=g), torch.randn(3, 8, 4, 4, generator=g)
    steps = torch.tensor([10, 400, 900])
    noisy, target = noised(scheduler, latents, noise, steps)
    assert torch.allclose(noisy, scheduler.add_noise(latents, noise, steps), atol=1e-5)
    if kind == "v_prediction":
        assert torch.allclose(target, scheduler.get_velocity(latents, noise, steps), atol=1e-5)
    scheduler.set_timesteps(1000)
    for i, t in enumerate(steps):
        found = scheduler.step(target[i], int(t), noisy[i], eta=0).pred_original_sample
        assert torch.allclose(found, latents[i], atol=2e-3)
    assert torch.allclose(clean_latents(scheduler, noisy, target, steps), latents, atol=2e-3)


def test_losses_against_hand_computed_values():
    prediction, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 3.0]], [[1.0, 3.0]]]])
    person = torch.tensor([[[[1.0, 0.0]]]])
    assert denoising_loss(prediction, target, torch.ones(1, 1, 1, 2)).item() == pytest.approx((1 + 9) / 2)
    assert denoising_loss(prediction, target, 1 + 3 * person).item() == pytest.approx((4 * 1 + 9) / 2 / 2.5)
    pixels = torch.rand(1, 3, 8, 8)
    assert picture_loss(pixels, pixels) == 0
    assert picture_loss(pixels, pixels.flip(3)) > picture_loss(pixels, pixels.roll(1, 3) * 0.5 + pixels * 0.5)
    assert picture_loss(pixels, pixels.flip(3), torch.ones(1, 1, 8, 8)) == picture_loss(pixels, pixels.flip(3))
    wrong, left = pixels.clone(), torch.zeros(1, 1, 8, 8)
    wrong[..., :4] += 0.5  # grey in the left half: 0.5 + 0.25, and one step of 0.5 across in the column where it ends
    left[..., :4] = 2
    assert picture_loss(wrong, pixels, left).item() == pytest.approx(0.75, abs=1e-5)
    assert picture_loss(wrong, pixels, left.flip(3)).item() == pytest.approx(0.3 * 2 * 0.5 / 7, abs=1e-5)


def test_samples_are_made_now_and_then_and_change_nothing(samples, tmp_path):
    """The same people, poses and noise in every sheet; a run that makes them is the run that does not."""
    sheets = {}
    for name, every in (("with", 2), ("without", 10**6)):
        pipe = tiny_pipeline()
        write = training_run.sample_sheets(pipe, samples.held_out(2), tmp_path / name)
        train_base(pipe, samples, LoopOptions(4, 1e-2, ema=None, sample_every=every), sample=write)
        sheets[name] = weights(pipe.unet, pipe.adapter)
    assert same(sheets["with"], sheets["without"]) and not (tmp_path / "without").exists()
    first, last = (read_image(tmp_path / "with" / f"step-00000{step}.png") for step in (2, 4))
    assert first.shape == last.shape == (2 * SIZE[0], 4 * SIZE[1], 3)
    changed = (first != last).any((0, 2)).reshape(4, SIZE[1]).any(1)
    assert changed.tolist() == [False, False, True, False]  # photo, pose, sample, truth


# -- the discriminator of the end-to-end stage


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PatchDiscriminator(width=8)


def patterns(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random cells of 2 x 2 pixels, sharp and blurred: (4, 3, 32, 24) each, in [-1, 1]."""
    sharp = F.interpolate(
        torch.rand(4, 3, 16, 12, generator=torch.Generator().manual_seed(step)) * 2 - 1, scale_factor=2
    )
    return sharp, F.avg_pool2d(sharp, 5, 1, 2)


def test_each_loss_teaches_its_own_side(discriminator):
    real, made = patterns(0)
    made.requires_grad_(True)
    weight = torch.zeros(4, 1, 32, 24)
    weight[..., :16, :] = 2  # only the upper half is judged
    realism, own = adversarial_losses(discriminator, made, real, weight)
    on_made, on_real = (discriminator(pictures)[:, :, :4] for pictures in (made, real))
    assert realism.item() == pytest.approx(-on_made.mean().item(), abs=1e-6)
    assert own.item() == pytest.approx((F.relu(1 + on_made) + F.relu(1 - on_real)).mean().item(), abs=1e-6)
    realism.backward()
    assert made.grad.abs().sum() > 0 and all(p.grad is None for p in discriminator.parameters())
    made.grad = None
    own.backward()
    assert made.grad is None and all(p.grad is not None for p in discriminator.parameters())


def test_the_size_of_its_weights_says_nothing(discriminator):
    """Weights are divided by their spectral norms: a discriminator cannot win by being loud in its layers."""
    pictures = patterns(2)[0]
    before = discriminator(pictures)
    with torch.no_grad():
        for layer in discriminator.layers:
            layer.weight *= 7
    assert torch.allclose(discriminator(pictures), before, atol=1e-5)


def test_it_learns_to_tell_blur_and_asks_for_edges(discriminator):
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=5e-3)
    for step in range(60):
        sharp, blurred = patterns(step)
        _, own = adversarial_losses(discriminator, blurred, sharp, torch.ones(4, 1, 32, 24))
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    sharp, blurred = patterns(1000)
    with torch.no_grad():
        assert discriminator(sharp).mean() > discriminator(blurred).mean() + 1
    blurred.requires_grad_(True)
    realism, _ = adversarial_losses(discriminator, blurred, sharp, torch.ones(4, 1, 32, 24))
    (gradient,) = torch.autograd.grad(realism, blurred)
    # a step against the gradient has more contrast between neighbours than a step along it
    step = 0.02 * gradient / gradient.abs().mean()
    against, along = ((blurred + sign * step).diff(dim=3).abs().mean() for sign in (-1, 1))
    assert against > along
