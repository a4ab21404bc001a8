"""Training: steps change weights and write files, a resumed run is the same run, and training feeds what inference
feeds."""

from __future__ import annotations

import json
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from drawn import drawn_clip
from safetensors.torch import load_file
from tiny import same, stop_after, tiny_pipeline, weights

from dreampose_core.errors import Cancelled, Diverged, InputError, ModelError
from dreampose_core.media import read_image
from dreampose_core.model.conditioning import clean_latents, encode_maps, to_pixels
from dreampose_core.model.config import ModelConfig
from dreampose_core.model.loading import load_pipeline
from dreampose_core.model.pipeline import DreamPosePipeline
from dreampose_core.poses import PoseSequence
from dreampose_core.settings import validated
from dreampose_core.training import conditions, loop
from dreampose_core.training import run as training_run
from dreampose_core.training.base import prefetched, train_base, train_end_to_end
from dreampose_core.training.conditions import Dropout, disturbed_warp, draw_dropout, encode_windows, random_part
from dreampose_core.training.distributed import Draws
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.losses import denoising_loss, noised, picture_loss
from dreampose_core.training.run import train_mini
from dreampose_core.training.run_folder import MiniRun
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
    options, losses = LoopOptions(30, 3e-3, ema=None), []
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


@pytest.fixture(scope="module")
def tiny_run(tiny_clips, tiny_model):
    source = dict(data=str(tiny_clips), vae=str(tiny_model))
    return MiniRun(**source, size=(32, 32), unet_channels=(8, 16), batch_size=2, steps=2, end_to_end_steps=2)


def changed(run, **changes):
    return run.model_copy(update=changes)


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mini"
    assert train_mini(tiny_run, folder)
    return folder


def test_a_finished_run_is_a_model_folder(finished):
    pipe = DreamPosePipeline.from_pretrained(finished / "model")
    config = pipe.model_config
    assert (config.size, config.reference_warp, config.charts) == ((32, 32), "encoded", "body")
    sizes = {path.name: path.stat().st_size for path in (finished / "model").rglob("*.safetensors")}
    assert max(sizes.values()) < 9e6 and sum(sizes.values()) < 32 << 20
    rgb, poses = drawn_clip(0, "walk", 2, (32, 32))
    poses = PoseSequence(poses.parts, None, "none")
    frames = pipe(rgb[0], poses, num_inference_steps=1, generator=torch.Generator()).frames
    assert frames.shape == (2, 32, 32, 3)
    assert json.loads((finished / "run.json").read_text())["steps"] == 2


def test_an_existing_run_is_only_gone_on_with_when_asked(tiny_run, finished):
    with pytest.raises(InputError, match="give --resume"):
        train_mini(tiny_run, finished)
    before = {path: path.read_bytes() for path in (finished / "model").rglob("*.safetensors")}
    assert train_mini(tiny_run, finished, resume=True)
    assert before == {path: path.read_bytes() for path in (finished / "model").rglob("*.safetensors")}


def test_what_was_learnt_before_a_loss_was_no_number_is_left_to_start_from(tiny_run, tmp_path, monkeypatch):
    steps = iter(range(6))
    monkeypatch.setattr(loop, "mean", lambda loss: loss.item() if next(steps) < 3 else math.nan)
    sooner = partial(LoopOptions, checkpoint_every=2, checkpoint_share=1e9)
    monkeypatch.setattr(training_run, "LoopOptions", sooner)
    run = changed(tiny_run, steps=6)
    with pytest.raises(
        Diverged,
        match=r"The base loss is no longer a number at step 3: checkpoint-2 in .* is the last good one; start "
        r"from it with a lower learning rate in another folder \(--init .*model\)\.",
    ):
        train_mini(run, tmp_path / "run")
    monkeypatch.undo()
    again = changed(run, init=str(tmp_path / "run" / "model"), vae=None, steps=1, lr=1e-5)
    assert train_mini(again, tmp_path / "again")


def test_a_run_may_start_from_a_model(tmp_path, tiny_run, finished):
    start = finished / "model"
    run = MiniRun(data=tiny_run.data, init=str(start), steps=0, end_to_end_steps=0, batch_size=2)  # of the model's size
    assert train_mini(run, tmp_path / "same")
    for file in start.rglob("*.safetensors"):
        before, after = load_file(file), load_file(tmp_path / "same" / "model" / file.relative_to(start))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert train_mini(changed(run, steps=1), tmp_path / "tuned") and not (tmp_path / "tuned" / "vae").exists()
    before, after = (load_pipeline(folder, "cpu") for folder in (start, tmp_path / "tuned" / "model"))
    assert same(weights(before.vae), weights(after.vae)) and not same(weights(before.unet), weights(after.unet))
    assert not any(str(start) in file.read_text() for file in (tmp_path / "tuned" / "model").rglob("*.json"))
    narrow = dict(vae=str(start), steps=1, end_to_end_steps=0, reference_warp="none")
    assert train_mini(changed(tiny_run, **narrow), tmp_path / "narrow")
    other = load_pipeline(tmp_path / "narrow" / "model", "cpu")
    assert same(weights(before.vae), weights(other.vae)) and other.model_config.reference_warp == "none"
    assert other.vae.config.scaling_factor == before.vae.config.scaling_factor
    assert list(other.unet.config.block_out_channels) == [8, 16]
    with pytest.raises(InputError, match="leave out vae"):
        train_mini(changed(run, vae="mini"), tmp_path / "new")
    with pytest.raises(InputError, match="--init was None"):
        train_mini(run, finished, resume=True)
    with pytest.raises(ModelError, match="no model folder"):
        train_mini(changed(run, init=str(tmp_path / "nowhere")), tmp_path / "new")
    with pytest.raises(InputError, match="starts from a model; give it with --init, or with --vae"):
        train_mini(changed(run, init=None), tmp_path / "new")
    with pytest.raises(InputError, match="learns from clips of train draw only; leave out --vae-steps"):
        train_mini(changed(tiny_run, vae_steps=1), tmp_path / "new")
    with pytest.raises(InputError, match="no clips in nowhere; give a folder that train draw or train prepare made"):
        train_mini(changed(run, data="nowhere"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


NAN = float("nan")
WRONG = {
    "size": [(40, 32), (0, 32)],
    "batch_size": [3, 0],
    "accumulate": [0],
    "steps": [-1],
    "lr": [NAN],
    "vae_lr": [0.0],
    "seed": [-1, 2**40],
    "unet_channels": [(64,), (64, 100)],
    "adversarial": [-0.1, NAN],
    "optimizer": ["sgd"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_runs_that_make_no_sense_are_refused(name, value):
    with pytest.raises(InputError, match=name.replace("_", ".")):
        validated(MiniRun, {"data": "clips", name: value})


def test_every_stage_trains_in_bfloat16(tiny_run, tmp_path):
    """On the GPU if there is one."""
    run = changed(tiny_run, steps=1, end_to_end_steps=1, precision="bf16")
    assert train_mini(run, tmp_path, device="cuda" if torch.cuda.is_available() else "cpu")
    assert (tmp_path / "model" / "model_index.json").is_file()
    assert all((tmp_path / part / "checkpoint-1").is_dir() for part in ("base", "end_to_end"))


@pytest.mark.slow
def test_every_option_of_the_steps_is_gone_on_with_to_the_same_bits(tiny_run, tmp_path):
    """All of them at once, in all stages."""
    run = changed(tiny_run, steps=4, accumulate=2, optimizer="adamw8bit", gradient_checkpointing=True)
    assert train_mini(run, tmp_path / "whole")
    for stop in (3, 7):  # in the middle of a step of each stage
        with pytest.raises(Cancelled):
            train_mini(run, tmp_path / "parts", resume=(tmp_path / "parts").exists(), should_stop=stop_after(stop))
    assert train_mini(run, tmp_path / "parts", resume=True)
    for file in (tmp_path / "whole" / "model").rglob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "parts" / file.relative_to(tmp_path / "whole")).read_bytes(), file


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
