"""The benchmark's figures: metrics against values computed by hand, and baselines in the order everybody expects."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny import tiny_pipeline

from dreampose_core.errors import InputError
from dreampose_core.evaluation.baselines import baseline_frames
from dreampose_core.evaluation.metrics import psnr, sharpness
from dreampose_core.evaluation.report import evaluate, table
from dreampose_core.images import read_image
from dreampose_core.mannequin import HELD_OUT, Figure, render_clip

SIZE = (160, 128)


@pytest.fixture(scope="module")
def clips():
    """Two held-out people, turning and walking: frames and poses."""
    return [render_clip(Figure.from_seed(HELD_OUT + person), name, 24, SIZE) for person, name in enumerate(("turn", "walk"))]


class Perfect:
    """A VAE that loses nothing: pixels are latents."""

    device, dtype = torch.device("cpu"), torch.float32

    class config:
        scaling_factor = 0.5

    def encode(self, pixels):
        latents = type("Latents", (), {"mode": lambda self: pixels})()
        return type("Encoded", (), {"latent_dist": latents})()

    def decode(self, latents):
        return type("Decoded", (), {"sample": latents})()


def test_psnr_by_hand():
    truth = np.full((2, 4, 4, 3), 100, np.uint8)
    frames = truth.copy()
    frames[0] += 10  # an error of 10 everywhere: 20 log10(25.5)
    assert psnr(frames[:1], truth[:1]) == pytest.approx(20 * np.log10(25.5))
    assert psnr(truth, truth) == 100
    assert psnr(frames, truth) == pytest.approx((100 + 20 * np.log10(25.5)) / 2)  # the mean of frames, not of errors
    assert psnr(np.zeros_like(truth), np.full_like(truth, 255)) == pytest.approx(0)  # uint8 must not wrap around


def test_psnr_in_a_mask():
    truth, frames, mask = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), bool)
    mask[0, :2] = True
    frames[0, 2:] = 200
    assert psnr(frames, truth, mask) == 100  # the second frame has nobody and does not count
    frames[0, 0] = 51
    assert psnr(frames, truth, mask) == pytest.approx(10 * np.log10(255**2 / (51**2 / 2)))


def test_sharpness_by_hand():
    x = np.arange(16, dtype=np.float64)[None, None, :, None]
    truth = np.broadcast_to(8 * x, (1, 16, 16, 3)).astype(np.uint8)
    mask = np.ones((1, 16, 16), bool)
    assert sharpness(truth, truth, mask) == pytest.approx(1)
    assert sharpness(truth // 2, truth, mask) == pytest.approx(0.5)
    assert sharpness(np.full_like(truth, 90), truth, mask) == 0
    edge = np.zeros_like(mask)
    edge[:, 0] = True
    assert sharpness(truth, truth, edge) == 1  # a mask without an inside says nothing


def test_blur_lowers_the_sharpness_and_noise_raises_it(clips):
    rgb, poses = clips[0]
    truth = rgb.numpy()[:4]
    blurred = torch.nn.functional.avg_pool2d(rgb[:4].movedim(-1, 1).float(), 5, 1, 2).movedim(1, -1).numpy().astype(np.uint8)
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    assert sharpness(blurred, truth, poses.mask[:4]) < 0.8 and sharpness(noisy, truth, poses.mask[:4]) > 1.2


def test_baselines_stand_in_their_known_order(clips):
    scores = []
    for rgb, poses in clips:
        truth = rgb.numpy()
        made = baseline_frames(truth[0], poses.select([0]), poses.select(slice(8, 24)), truth[8:], Perfect())
        assert {frames.shape for frames in made.values()} == {(16, *SIZE, 3)} and {f.dtype for f in made.values()} == {np.dtype(np.uint8)}
        scores.append({name: psnr(frames, truth[8:], poses.mask[8:]) for name, frames in made.items()})
    mean = {name: np.mean([score[name] for score in scores]) for name in scores[0]}
    assert mean["repeat_photo"] < mean["part_colours"] < mean["moved_texture"] < mean["vae_only"]
    assert mean["grey_silhouette"] < mean["part_colours"]


def test_the_truth_through_a_perfect_vae_is_the_truth(clips):
    rgb, poses = clips[0]
    truth = rgb.numpy()[:9]  # more than one batch of the VAE
    made = baseline_frames(truth[0], poses.select([0]), poses.select(slice(0, 9)), truth, Perfect())
    assert np.array_equal(made["vae_only"], truth) and (made["repeat_photo"] == truth[:1]).all()


class TruthTeller:
    """Stands for a pipeline that makes the truth, and notes what it was asked."""

    def __init__(self, pipe):
        self.form, self.vae, self.asked = pipe.form, pipe.vae, []

    def stream(self, photo, poses, image_poses, first_frame, generator, num_inference_steps, should_stop):
        person = len(self.asked)
        self.asked.append((num_inference_steps, len(image_poses)))
        rgb, own = render_clip(Figure.from_seed(HELD_OUT + person), ("turn", "walk")[person % 2], len(poses), self.form.size)
        assert np.array_equal(own.parts, poses.parts) and np.array_equal(photo, rgb[0].numpy())
        yield from rgb.numpy()[first_frame:]


def test_the_truth_as_generator_is_perfect(tmp_path):
    pipe, seen, tuned = TruthTeller(tiny_pipeline()), [], []

    @contextmanager
    def tune(photo, own):
        tuned.append(len(own))
        yield

    report = evaluate(pipe, 2, "fast", "draft", tmp_path, tune, on_progress=seen.append)
    assert report["fast"] == {"psnr": 100, "psnr_mask": 100, "sharpness": 1}
    assert set(report) == {"fast", "repeat_photo", "grey_silhouette", "part_colours", "moved_texture", "vae_only"}
    assert pipe.asked == [(8, 1)] * 2 and tuned == [1, 1]  # draft is 8 steps
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert read_image(tmp_path / "contact.png").shape == (2 * 40, 13 * 32, 3)
    assert [(p.stage, p.step, p.total) for p in seen] == [("people", 1, 2), ("people", 2, 2)]
    lines = table(report).splitlines()
    assert lines[0] == "| | psnr | psnr_mask | sharpness |" and lines[2] == "| fast | 100.00 | 100.00 | 1.00 |" and len(lines) == 8


def test_nobody_to_measure_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="number of people is 0"):
        evaluate(TruthTeller(tiny_pipeline()), 0, "none", "draft", tmp_path / "out")
    assert not (tmp_path / "out").exists()
