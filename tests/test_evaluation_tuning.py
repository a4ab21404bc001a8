"""bench tune: every figure is measured on frames and models it is about, and a figure that cannot be had is missing."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny import tiny_pipeline

from dreampose_core.evaluation import tuning
from dreampose_core.evaluation.clips import MannequinClips
from dreampose_core.evaluation.tuning import bench_tune

KEYS = {
    "fast_s",
    "gain_db",
    "crude_gain_db",
    "fast_minus_paper_db",
    "time_ratio_paper_over_fast",
    "vae_error_ratio",
    "identity_seen_ratio",
    "identity_unseen_ratio",
}


def better_by(model, shares):
    """A tuning that brings every frame the model makes this share of the way to the truth of the clip of its photo."""

    @contextmanager
    def tune(photo, own, recipe):
        model.share = shares[recipe]
        yield
        model.share = 0.0

    return tune


@pytest.fixture
def model(monkeypatch):
    """A model whose frames depend on how it is tuned."""

    def frames(model, clip, number):
        grey = np.full_like(clip.truth, 128)
        return (grey + getattr(model, "share", 0.0) * (clip.truth.astype(float) - grey)).round().astype(np.uint8)

    monkeypatch.setattr(tuning, "_frames", frames)
    return tiny_pipeline()


def test_the_figures_say_which_tuning_is_better(model, tmp_path):
    seen = []
    figures = bench_tune(
        model, better_by(model, {"fast": 0.5, "paper": 0.75}), tmp_path, people=2, on_progress=seen.append
    )
    assert figures.keys() == KEYS and json.loads((tmp_path / "report.json").read_text())["figures"] == figures
    gain = 20 * np.log10(2)  # half of the error
    assert all(figures[name] == pytest.approx(gain, abs=0.1) for name in ("gain_db", "crude_gain_db"))
    assert figures["fast_minus_paper_db"] == pytest.approx(-gain, abs=0.1)
    assert figures["identity_seen_ratio"] == pytest.approx(0.5, abs=0.05) and figures["vae_error_ratio"] == 1
    assert [(p.step, p.total) for p in seen] == [(k + 1, 6) for k in range(6)]
    assert len(list(tmp_path.glob("*_0.png"))) == 3


def test_the_vaes_error_is_that_of_the_tuned_decoder(model, tmp_path):
    @contextmanager
    def spoilt(photo, own, recipe):
        bias = model.vae.decoder.conv_out.bias
        before = bias.detach().clone()
        with torch.no_grad():
            bias += 3
        yield
        with torch.no_grad():
            bias.copy_(before)

    assert bench_tune(model, spoilt, tmp_path, people=1)["vae_error_ratio"] > 3


def test_the_crude_style_is_flat_and_lined_and_has_the_same_shapes():
    clip = next(iter(MannequinClips(1, (64, 64)))).last(2)
    crude = tuning._crude(clip)
    assert np.array_equal(crude.poses.parts, clip.poses.parts) and crude.truth.shape == clip.truth.shape
    assert set(np.unique(crude.truth)) <= {0, 30, 51, 102, 153, 204, 255} and (crude.truth == 30).all(-1).mean() > 0.02
    assert not np.array_equal(crude.photo, clip.photo)
