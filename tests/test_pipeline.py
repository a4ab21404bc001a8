"""The pipeline: streams equal clips, guidance is the paper's, and nothing depends on how the work was cut up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn import drawn_clip
from PIL import Image
from tiny import tiny_pipeline

from dreampose_core import DreamPosePipeline
from dreampose_core.errors import Cancelled, InputError
from dreampose_core.media import fit_image
from dreampose_core.model import denoising
from dreampose_core.poses import PoseSequence, fitted
from dreampose_core.synthetic import HELD_OUT

SIZE = (40, 32)


@pytest.fixture(scope="module")
def pipe():
    pipe = tiny_pipeline()
    with torch.no_grad():  # random, but as a trained model: photo, pose and texture all matter
        pipe.unet.conv_in.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        for name, parameter in pipe.unet.named_parameters():
            if "to_out" in name or "proj_out" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    return pipe


@pytest.fixture(scope="module")
def clip():
    return drawn_clip(HELD_OUT, "walk", 7, SIZE, fps=4.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def run(pipe, clip, **changes):
    rgb, poses = clip
    given = {"image": rgb[0], "poses": poses, "image_poses": poses.select([0]), "generator": seeded()}
    return np.stack(list(pipe.stream(**given | {"num_inference_steps": 2, "batch_size": 3} | changes)))


@pytest.fixture
def counted(pipe):
    """Counts what the UNet is given."""
    calls = []
    handle = pipe.unet.register_forward_pre_hook(lambda _, args: calls.append([x.clone() for x in args]))
    yield calls
    handle.remove()


def test_the_stream_is_the_clip_and_the_seed_decides(pipe, clip):
    rgb, poses = clip
    whole = pipe(rgb[0], poses, poses.select([0]), num_inference_steps=2, batch_size=3, generator=seeded()).frames
    assert whole.shape == (7, *SIZE, 3) and whole.dtype == np.uint8
    assert np.array_equal(whole, run(pipe, clip)) and not np.array_equal(whole, run(pipe, clip, generator=seeded(1)))


def test_frames_come_as_they_are_made(pipe, clip, counted):
    stream = pipe.stream(clip[0][0], clip[1], num_inference_steps=2, batch_size=3)
    assert [len(counted) for _ in zip(range(4), stream)] == [2, 2, 2, 4]


def test_batches_come_as_they_are_asked_for(pipe, clip):
    """So an interrupted video goes on bit by bit as it would have been."""
    some = run(pipe, clip, batches=[range(6, 7), range(0, 3)])
    assert np.array_equal(some, run(pipe, clip)[[6, 0, 1, 2]])


def test_a_batch_of_eight_is_eight_single_frames(pipe, clip):
    rgb, poses = clip
    poses = poses.select([0, 1, 2, 3, 4, 5, 6, 6])
    whole, single = (run(pipe, (rgb, poses), batch_size=size, output_type="np") for size in (8, 1))
    assert whole.dtype == np.float32 and np.abs(whole - single).max() < 1e-5


def test_floats_are_the_bytes_before_rounding_and_noise_can_be_given(pipe, clip):
    whole = run(pipe, clip)
    floats = run(pipe, clip, output_type="np")
    assert floats.min() >= 0 and floats.max() <= 1 and np.abs(floats * 255 - whole).max() <= 0.5 + 1e-3
    noise = torch.randn(1, 8, 10, 8, generator=seeded())
    assert np.array_equal(run(pipe, clip, noise=noise, generator=None), whole)
    assert not np.array_equal(run(pipe, clip, noise=noise + 0.5, generator=None), whole)
    rgb, poses = clip
    output = pipe(rgb[0], poses, poses.select([0]), 2, generator=seeded(), batch_size=3, output_type="np")
    assert np.array_equal(output.frames, floats)


def test_the_photo_may_lie_under_the_noise(pipe, clip):
    """With a schedule that ends in pure noise there is nothing left of it; with one that does not, its share is what
    the schedule says."""
    whole, starts = run(pipe, clip), []
    assert np.abs(run(pipe, clip, init_leak=True).astype(int) - whole).max() <= 1
    noise, own = torch.randn(1, 8, 10, 8, generator=seeded()), pipe.scheduler
    handle = pipe.unet.register_forward_pre_hook(lambda _, args: starts.append(args[0][:1, :8].clone()))
    try:
        pipe.scheduler = type(own).from_config(own.config, rescale_betas_zero_snr=False)
        for leak in (False, True, None):
            starts.clear()
            run(pipe, clip, num_inference_steps=1, init_leak=leak, noise=noise)
            made = starts[0]
            alpha = pipe.scheduler.alphas_cumprod[-1].sqrt() if leak else 0
            latents = pipe.encode_reference(clip[0][0]).latents
            kept = (1 - pipe.scheduler.alphas_cumprod[-1]).sqrt() if leak else 1
            assert torch.allclose(made, alpha * latents + kept * noise, atol=1e-5)
    finally:
        handle.remove()
        pipe.scheduler = own


def test_photo_pose_and_texture_all_matter(pipe, clip):
    base = run(pipe, clip)
    other = drawn_clip(HELD_OUT + 1, "walk", 1, SIZE)[0][0]
    assert not np.array_equal(base, run(pipe, clip, image=other))
    assert not np.array_equal(base, run(pipe, clip, image=other, image_poses=None))
    assert not np.array_equal(base, run(pipe, clip, image_poses=None))
    assert not np.array_equal(base[0], base[3])
    parts_only = replace(clip[1], uv=None, charts="none")
    assert not np.array_equal(base, run(pipe, clip, poses=parts_only))


def test_the_start_is_pure_noise_shared_by_all_frames_and_the_five_maps_are_the_neighbours(pipe, clip, counted):
    """Nothing of the photo leaks into the start, and frames differ by their poses alone."""
    run(pipe, clip)
    starts = torch.cat([call[0] for call in counted[::2]])  # one pass a step: every second call starts a batch
    noise = torch.randn(1, 8, 10, 8, generator=seeded())
    assert len(starts) == 7 and torch.equal(starts[:, :8], noise.expand(7, -1, -1, -1))
    windows = starts[:, 8:148].unflatten(1, (5, 28))
    near = (torch.arange(7)[:, None] + torch.arange(-2, 3)).clamp(0, 6)
    assert torch.equal(windows, windows[:, 2][near]) and not torch.equal(windows[2, 2], windows[3, 2])


@pytest.mark.parametrize(
    ("s_image", "s_pose", "passes"),
    [
        (1.0, 1.0, [(True, True)]),
        (3.0, 3.0, [(False, False), (True, True)]),
        (8.0, 3.0, [(False, False), (True, False), (True, True)]),
        (1.0, 4.0, [(True, False), (True, True)]),
        (0.0, 0.0, [(False, False)]),
        (2.0, 0.0, [(False, False), (True, False)]),
    ],
)
def test_guidance_is_the_papers_formula(pipe, clip, monkeypatch, s_image, s_pose, passes):
    """Of a UNet that predicts from what it is given: 0.11, with the photo 0.34, with photo and pose 0.71."""
    calls, totals = [], []

    def predict(pipe, noisy, t, poses, warp, tokens, *_):
        image, has_pose = bool(tokens.any()), bool(poses.any())
        assert bool(warp.any()) == (image and has_pose)  # the texture knows photo and pose
        calls.append((image, has_pose))
        return torch.full_like(noisy, 0.11 + 0.23 * image + 0.37 * has_pose)

    monkeypatch.setattr(denoising, "predict", predict)
    step = type(pipe.scheduler).step

    def noted(self, total, *given, **how):
        totals.append(total)
        return step(self, total, *given, **how)

    monkeypatch.setattr(type(pipe.scheduler), "step", noted)
    how = {"num_inference_steps": 2, "batches": [range(2)]}
    run(pipe, clip, image_guidance=s_image, pose_guidance=s_pose, **how)
    expected = 0.11 + s_image * 0.23 + s_pose * 0.37  # paper, section 4.3
    assert torch.allclose(totals[0], torch.tensor(expected), atol=1e-5) and calls == 2 * passes


@pytest.mark.parametrize(("weights", "passes"), [((None, None), 1), ((2.5, 2.5), 2), ((8.0, 3.0), 3)])
def test_needless_passes_are_not_run(pipe, clip, counted, weights, passes):
    run(pipe, clip, image_guidance=weights[0], pose_guidance=weights[1])  # None: the model's, 1 and 1
    assert len(counted) == 3 * 2 * passes  # three batches of two steps


def test_what_is_constant_is_computed_once(pipe, clip):
    modules, calls = (pipe.image_encoder, pipe.vae.encoder, pipe.adapter), []
    handles = [module.register_forward_hook(lambda module, *_: calls.append(module)) for module in modules]
    run(pipe, clip)
    for handle in handles:
        handle.remove()
    assert [calls.count(module) for module in modules] == [1, 1, 1]


def test_poses_of_another_aspect_are_fitted_never_squashed(pipe, clip, counted):
    wide = drawn_clip(HELD_OUT, "walk", 3, (80, 160), fps=4.0)[1]
    frames = run(pipe, clip, poses=wide)
    assert frames.shape == (3, *SIZE, 3)
    given = [call[0][:, 8:148].clone() for call in counted[::2]]
    counted.clear()
    assert np.array_equal(frames, run(pipe, clip, poses=fitted(wide, SIZE)))
    assert torch.equal(given[0], counted[0][0][:, 8:148])
    # 16 rows of 40 are left: bands above and below stay empty
    assert (given[0].unflatten(1, (5, 28))[:, :, :24, :3] == 0).all()


def test_photos_of_another_size_are_fitted_and_maps_of_another_shape_are_refused(pipe, clip):
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    made, fitted_before = (run(pipe, clip, image=x, image_poses=None) for x in (photo, fit_image(photo, SIZE)))
    assert np.array_equal(made, fitted_before)
    with pytest.raises(InputError, match="90 x 120 and its DensePose 40 x 32"):
        run(pipe, clip, image=photo)
    run(pipe, clip, image=photo[:, :72])  # another size of the same shape is fitted


def test_pillow_images_are_upright_and_opaque(pipe, clip):
    photo = clip[0][0]
    assert np.array_equal(run(pipe, clip), run(pipe, clip, image=Image.fromarray(photo)))
    seen = np.dstack([photo, np.full(SIZE, 255, np.uint8)])
    seen[:10, :, 3] = 0  # hidden pixels do not show
    expected = photo.copy()
    expected[:10] = 128
    turned = Image.fromarray(np.rot90(seen))
    turned.getexif()[0x0112] = 6  # a camera held upright
    assert np.array_equal(pipe.fit_photos([turned])[0], pipe.fit_photos([expected])[0])


def test_several_photos(pipe, clip):
    rgb, poses = clip
    both = run(pipe, clip, image=[rgb[0], rgb[3]], image_poses=poses.select([0, 3]))
    assert both.shape == (7, *SIZE, 3) and not np.array_equal(both, run(pipe, clip))
    with pytest.raises(InputError, match="2 photos and 1 DensePose maps"):
        run(pipe, clip, image=[rgb[0], rgb[3]])


def test_other_charts_than_the_models_use_parts_only(pipe, clip):
    real, parts_only = replace(clip[1], charts="densepose"), replace(clip[1], uv=None, charts="none")
    made, wanted = (run(pipe, clip, poses=poses, image_poses=None) for poses in (real, parts_only))
    assert np.array_equal(made, wanted)
    # and the photo's texture is not moved between charts that do not match
    assert np.array_equal(run(pipe, clip, poses=real), run(pipe, clip, poses=real, image_poses=None))
    assert np.array_equal(run(pipe, clip, image_poses=real.select([0])), run(pipe, clip, image_poses=None))
    with pytest.raises(InputError, match="densepose charts"):
        run(pipe, clip, poses=replace(real, parts=None))
    assert run(pipe, clip, poses=replace(clip[1], parts=None)).shape == (7, *SIZE, 3)  # U, V alone, of its own charts


def test_a_model_without_warp(clip):
    pipe = tiny_pipeline(reference_warp="none")
    assert pipe.unet.config.in_channels == 8 + 140
    assert run(pipe, clip).shape == (7, *SIZE, 3)
    assert np.array_equal(run(pipe, clip), run(pipe, clip, image_poses=None))


def test_a_model_folder_gives_the_same_frames_and_holds_the_config(pipe, clip, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = DreamPosePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.model_config == pipe.model_config
    for name in ("unet", "vae", "adapter", "image_encoder"):
        before, after = getattr(pipe, name).state_dict(), getattr(loaded, name).state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before), name
    # where weights lie in memory decides which kernels run: the last bit may differ
    assert np.abs(run(pipe, clip).astype(int) - run(loaded, clip)).max() <= 1
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    folders = {"unet", "vae", "image_encoder", "image_processor", "adapter", "scheduler"}
    assert {path.name for path in tmp_path.iterdir()} == {"model_index.json", *folders}
    content = (tmp_path / "model_index.json").read_text()
    words = ("pose_encoding", "charts", "reference_warp", '"height": 40', '"width": 32', "image_guidance")
    assert all(word in content for word in (*words, "dreampose_core.model.adapter"))


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelling_works_within_one_step(pipe, clip, counted, after):
    with pytest.raises(Cancelled):
        run(pipe, clip, should_stop=lambda: len(counted) >= after)
    assert len(counted) == after


def test_steps_are_reported(pipe, clip):
    steps = []
    run(pipe, clip, on_step=lambda frame, step: steps.append((frame, step)))
    assert steps == [(0, 1), (0, 2), (3, 1), (3, 2), (6, 1), (6, 2)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_inference_steps": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"image_guidance": -1.0}, "at least 0"),
        ({"pose_guidance": float("nan")}, "finite"),
        ({"image_guidance": float("inf")}, "finite"),
        ({"batches": [range(6, 8)]}, "of the sequence, 0 to 6"),
        ({"batches": [range(-1, 1)]}, "of the sequence, 0 to 6"),
        ({"image": []}, "no photo"),
        ({"image": "photo.png"}, "got str"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"got uint8 \(4, 4\)"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "got float32"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, r"got uint8 \(0, 4, 3\)"),
        ({"output_type": "pil"}, "uint8 or np"),
        ({"noise": torch.zeros(2, 8, 10, 8)}, r"starts from \(1, 8, 10, 8\)"),
    ],
)
def test_wrong_inputs_are_one_sentence(pipe, clip, change, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        run(pipe, clip, **change)
    assert "\n" not in str(error.value)


def test_frames_are_not_stretched_to_full_contrast(pipe, clip, monkeypatch):
    """A flat, dark picture stays one: no minimum or maximum of a frame decides about its colours."""
    ramp = torch.linspace(-0.5, -0.3, 32)[None, None, None].expand(1, 3, 40, 32)
    monkeypatch.setattr(
        pipe.vae, "decode", lambda latents: SimpleNamespace(sample=ramp.expand(len(latents), -1, -1, -1))
    )
    frames = run(pipe, clip)
    assert frames.min() == round(0.25 * 255) and frames.max() == round(0.35 * 255)
    assert (frames == frames[0]).all()


def test_nobody_in_the_photos_map_is_no_texture(pipe, clip):
    empty = PoseSequence(np.zeros((1, *SIZE), np.uint8), None, "none")
    assert np.array_equal(run(pipe, clip, image_poses=empty), run(pipe, clip, image_poses=None))
