"""Ablations: every variant trains and is measured, a stopped run goes on, and what was asked for another run is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import tiny_pipeline

from dreampose_core.errors import Cancelled, InputError
from dreampose_core.evaluation import ablations
from dreampose_core.evaluation.ablations import VARIANTS, ablate, guidance_grid
from dreampose_core.evaluation.scores import KEYS
from dreampose_core.images import read_image

SMALL = {"unet_channels": (8, 16), "steps": 2, "batch_size": 2, "people": 1}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.mark.slow
def test_every_variant_trains_and_is_measured(pipe, tmp_path):
    before = {name: value.clone() for name, value in pipe.vae.state_dict().items()}
    seen = []
    report = ablate(pipe, tmp_path, on_progress=seen.append, **SMALL)
    assert list(report) == list(VARIANTS) and all(tuple(scores) == KEYS for scores in report.values())
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert len({scores["psnr"] for scores in report.values()}) > len(VARIANTS) / 2  # they are different models
    assert all(torch.equal(value, before[name]) for name, value in pipe.vae.state_dict().items())  # the VAE is everybody's
    assert len([p for p in seen if p.stage == "base"]) == 2 * len(VARIANTS)
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + len(VARIANTS)
    assert read_image(tmp_path / "both" / "contact.png").shape == (3 * 40, 32, 3)
    smaller = ablate(pipe, tmp_path / "smaller", names=("both",), size=(32, 32), **SMALL)
    assert read_image(tmp_path / "smaller" / "both" / "contact.png").shape == (3 * 32, 32, 3) and smaller["both"] != report["both"]
    again = []
    assert ablate(pipe, tmp_path, on_progress=again.append, **SMALL) == report and again == []  # nothing is trained twice


def test_a_stopped_run_goes_on_and_comes_to_the_same(pipe, tmp_path):
    whole = ablate(pipe, tmp_path / "whole", names=("both", "clip"), **SMALL)
    asked = iter(range(1000))
    with pytest.raises(Cancelled):
        ablate(pipe, tmp_path / "parts", names=("both", "clip"), should_stop=lambda: next(asked) >= 2, **SMALL)
    assert not (tmp_path / "parts" / "report.json").exists()
    assert ablate(pipe, tmp_path / "parts", names=("both", "clip"), **SMALL) == whole


def test_what_is_asked_wrongly_is_one_sentence(pipe, tmp_path):
    with pytest.raises(InputError, match="no variant 'gan'; there are both, clip"):
        ablate(pipe, tmp_path, names=("gan",))
    with pytest.raises(InputError, match="64x60; both must be multiples of 8"):
        ablate(pipe, tmp_path, size=(64, 60), **SMALL)
    ablate(pipe, tmp_path, names=("both",), **SMALL)
    with pytest.raises(InputError, match="of another run"):
        ablate(pipe, tmp_path, names=("both",), **{**SMALL, "steps": 3})


def test_the_grid_shows_every_pair_of_weights(pipe, tmp_path, monkeypatch):
    weights = []
    real = type(pipe).__call__

    def recorded(self, *args, **kwargs):
        weights.append((kwargs["image_guidance"], kwargs["pose_guidance"]))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(pipe), "__call__", recorded)
    guidance_grid(pipe, tmp_path / "grid.png", quality="draft")
    assert set(weights) == {(a, b) for a in ablations._GUIDANCE for b in ablations._GUIDANCE} and len(weights) == 16
    grid = read_image(tmp_path / "grid.png")
    assert grid.shape[0] * 5 > grid.shape[1] > grid.shape[0] // 2 and len(np.unique(grid.reshape(-1, 3), axis=0)) > 50
