"""Clips drawn for training: maps as inference makes them, stored and read back, crops that follow from the step.

pytest tests/test_drawn_clips.py
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import textured

from dreampose_core.densepose.body_tracker import BodyTracker
from dreampose_core.errors import Cancelled, InputError
from dreampose_core.inputs.framing import make_scene
from dreampose_core.inputs.preview import moved_frames
from dreampose_core.media import read_image
from dreampose_core.model.conditioning import to_uint8
from dreampose_core.model.config import ModelConfig
from dreampose_core.model.loading import load_pipeline
from dreampose_core.model.textured_vae import TexturedVAE
from dreampose_core.poses import PoseSequence
from dreampose_core.settings import BODY_TRACKER, SceneOptions
from dreampose_core.synthetic import HELD_OUT, HELD_OUT_MOTIONS, MOTIONS
from dreampose_core.synthetic import clips as module
from dreampose_core.synthetic.clips import Clip, draw_clip
from dreampose_core.training import drawn as drawing
from dreampose_core.training.base import needs_drawing, train_end_to_end, train_vae
from dreampose_core.training.drawn import DrawnClips, draw_clips, moved, read_frame, write_clip
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.run import sample_sheets, train_mini
from dreampose_core.training.run_folder import MiniRun

SIZE = (256, 192)
CONFIG = ModelConfig(height=160, width=128, free_shape=True, charts="body", reference_warp="encoded")


@pytest.fixture(scope="module", autouse=True)
def shorter():
    """Clips of seven frames instead of twelve, and small crops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LENGTH", 7)
        patch.setattr(drawing, "SIDE", 64)
        yield


@pytest.fixture(scope="module")
def tracker() -> BodyTracker:
    return BodyTracker(BODY_TRACKER)


@pytest.fixture(scope="module")
def drawn(tracker) -> dict[int, Clip]:
    """Three clips of a training set, drawn small; the second has the motion on the photo's body."""
    return {index: draw_clip(1, index, tracker, sizes=[SIZE]) for index in range(3)}


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for index, clip in drawn.items():
        write_clip(folder / f"{index:06d}.npz", clip)
    write_clip(folder / "000100.npz", None)
    return folder


def test_a_clip_is_the_same_whenever_it_is_drawn(drawn, tracker, monkeypatch):
    again = draw_clip(1, 1, tracker, sizes=[SIZE])
    assert np.array_equal(again.frames, drawn[1].frames) and np.array_equal(again.poses.uv, drawn[1].poses.uv)
    monkeypatch.setattr(module, "LENGTH", 1)
    assert not np.array_equal(draw_clip(2, 1, tracker, sizes=[SIZE]).photo, again.photo)


def test_maps_come_from_the_tracker_and_the_body_that_inference_uses(drawn, tracker):
    """A clip's maps are its frames' own, as `make_scene` has them, or the motion on the photo's body."""
    for clip, align in ((drawn[0], "none"), (drawn[1], "body")):
        own, motion = tracker.estimate([clip.photo]), replace(tracker.estimate(list(clip.frames)), fps=clip.poses.fps)
        assert np.array_equal(own.parts, clip.image_poses.parts)
        assert np.array_equal(motion.parts, clip.poses.parts) == (align == "none")
        scene = make_scene(clip.photo, motion, own, SIZE, SceneOptions(align=align))
        assert (scene.poses.parts != clip.poses.parts).mean() < 1e-4  # joints are equal up to rounding


@pytest.mark.parametrize("held_out", [False, True])
def test_training_never_shows_what_is_held_out(monkeypatch, held_out):
    shown = []

    def stop(seed, name):
        shown.append((seed, name))
        raise LookupError

    people = SimpleNamespace(from_seed=lambda seed: SimpleNamespace(moments=lambda name, _: stop(seed, name)))
    monkeypatch.setattr(module, "Person", people)
    for index in range(400):
        with pytest.raises(LookupError):
            draw_clip(0, index, None, held_out=held_out)
    seeds, names = (set(column) for column in zip(*shown))
    assert len(seeds) > 300 and all((seed >= HELD_OUT) == held_out for seed in seeds)
    assert names == (set(HELD_OUT_MOTIONS) if held_out else set(MOTIONS) - set(HELD_OUT_MOTIONS))


def test_backdrops_are_parts_of_the_pictures_that_are_given(tmp_path, tracker, monkeypatch):
    monkeypatch.setattr(module, "LENGTH", 1)
    Image.new("RGB", (900, 700), (10, 200, 30)).save(tmp_path / "green.png")
    monkeypatch.setattr(module, "_PICTURES", 1.0)
    clip = draw_clip(1, 1, tracker, [tmp_path / "green.png"], sizes=[SIZE])
    corner = clip.frames[0][:20, :8].reshape(-1, 3).mean(0)
    assert corner[1] > 2 * corner[0] and corner[1] > 2 * corner[2]


def test_what_is_read_is_what_was_stored(drawn, folder):
    clip, planes = drawn[0], moved(drawn[0].photo, drawn[0].image_poses, drawn[0].poses)
    with np.load(folder / "000000.npz") as file:
        target, read, parts, uv = read_frame(file, 4)
    assert np.abs(to_uint8(target).numpy().astype(int) - clip.frames[4]).mean() < 3
    assert torch.equal(read[3:], planes[4, 3:]) and (read[:3] - planes[4, :3]).abs().mean() < 0.03
    assert np.array_equal(parts.numpy(), clip.poses.parts[2:7])
    assert np.abs(uv.numpy() - clip.poses.uv[2:7].clip(0, 1)).max() < 0.003
    shown = list(moved_frames(clip.photo, clip.image_poses, clip.poses))
    assert np.array_equal(shown[4], to_uint8(planes[4, :3]).numpy())


def test_crops_lie_on_people_and_follow_from_the_step(folder):
    samples = DrawnClips(folder, CONFIG, 4)
    batch, again, other = samples.batch(3), samples.batch(3), samples.batch(4)
    assert batch.photo.shape == (4, 3, 80, 64) and batch.target.shape == (4, 3, 64, 64)
    assert batch.planes.shape == (4, 5, 64, 64) and batch.parts.shape == (4, 5, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(vars(batch).values(), vars(again).values()))
    assert not torch.equal(batch.target, other.target)
    wrong = (batch.planes[:, :3] - batch.target).abs().mean(1) > 0.25
    assert (wrong | (batch.parts[:, 2] > 0)).flatten(1).any(1).all() and wrong.any()
    assert set(samples.held).isdisjoint(samples.paths) and folder / "000100.npz" not in samples.paths


def test_the_decoder_draws_what_the_texture_does_not_know_or_has_wrong():
    planes, target = torch.zeros(1, 5, 2, 2), torch.zeros(1, 3, 2, 2)
    planes[:, 4, 0], planes[:, 4, 1] = 1, 0.5
    target[:, :, :, 1] = 0.5
    assert torch.allclose(needs_drawing(planes, target), torch.tensor([[[[0.1, 1.0], [1.0, 1.0]]]]))


def test_drawing_goes_on_where_it_stopped(tracker, tmp_path):
    (tmp_path / "000000.npz").write_bytes(b"kept")
    draw_clips(tmp_path, range(1), 1, tracker)
    assert (tmp_path / "000000.npz").read_bytes() == b"kept"


def test_a_run_on_drawn_clips_makes_a_model_with_frames_of_the_photos_shape(folder, tiny_model, tmp_path):
    run = MiniRun(data=str(folder), size=(160, 128), unet_channels=(16, 32), batch_size=2)
    run = run.model_copy(update=dict(vae_steps=1, steps=1, end_to_end_steps=1))
    assert train_mini(run, tmp_path / "run")
    pipe = load_pipeline(tmp_path / "run" / "model", "cpu")
    config = pipe.model_config
    assert isinstance(pipe.vae, TexturedVAE) and config.free_shape and config.charts == "body"
    samples = DrawnClips(folder, config, 2)
    with torch.no_grad():
        latents = pipe.vae.encode(samples.batch(10**6).target).latent_dist.mode() * pipe.vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, abs=0.01)  # what diffusion expects
    photo, own, truth, target = samples.held_out(1)[0]
    assert photo.shape == truth.shape == (*SIZE, 3) and own.charts == target.charts == "body"
    assert pipe(photo, target, own).frames.shape == (1, *config.shaped_like(SIZE), 3)
    with pytest.raises(InputError, match="sees the moved texture"):
        train_mini(run.model_copy(update=dict(init=str(tiny_model))), tmp_path / "other")


def test_a_contact_sheet_shows_clips_of_different_shapes(folder, tmp_path):
    whole = photo, own, truth, target = DrawnClips(folder, CONFIG, 2).held_out(1)[0]
    own, target = (PoseSequence(maps.parts[:, :192], maps.uv[:, :, :192], "body") for maps in (own, target))
    square = photo[:192], own, truth[:192], target
    sample_sheets(textured(), [whole, square], tmp_path)(5)
    assert read_image(tmp_path / "step-000005.png").shape == (2 * 160, 4 * 128, 3)


def test_training_on_drawn_clips_learns_and_resumes_to_the_bit(folder, tmp_path):
    def trained(run, stops=()):
        pipe, samples = textured(), DrawnClips(folder, CONFIG, 2)
        for steps in (*stops, 6):
            options = LoopOptions(6, 1e-3, warmup=1, ema=0.5, checkpoint_every=1, checkpoint_seconds=0)
            calls = iter(range(steps))
            stop = (lambda: next(calls, None) is None) if steps < 6 else (lambda: False)  # noqa: B023
            try:
                train_vae(pipe, samples, options, folder=run / "vae", should_stop=stop)
                train_end_to_end(pipe, samples, options, folder=run / "frames", should_stop=stop)
            except Cancelled:
                continue
        return pipe

    whole, parts, start = trained(tmp_path / "whole"), trained(tmp_path / "parts", (3,)), textured()
    for part in ("unet", "vae", "adapter", "image_encoder"):
        a, b, c = (getattr(pipe, part).state_dict() for pipe in (whole, parts, start))
        assert all(torch.equal(a[name], b[name]) for name in a), part
        assert not all(torch.equal(a[name], c[name]) for name in a), part
