"""`bench generate`: passes through the UNet are counted, the original's way is really run, and memory is measured from
outside."""

from __future__ import annotations

import json
import multiprocessing
import time

import numpy as np
import pytest
import torch
from tiny import make_tiny_clip, make_tiny_model, make_tiny_stable_diffusion, tiny_pipeline

from dreampose_core import DreamPosePipeline
from dreampose_core.__main__ import main
from dreampose_core.errors import Cancelled, InputError, ModelError
from dreampose_core.evaluation import generation
from dreampose_core.evaluation.clips import MannequinClips
from dreampose_core.evaluation.generation import bench_generate


@pytest.fixture
def hundred(monkeypatch):
    """Of the original's hundred steps only ten, or tests would take as long as it does."""
    monkeypatch.setattr(generation, "ORIGINALS_STEPS", 10)


def test_the_figures(hundred):
    pipe = tiny_pipeline(draft_steps=1, standard_steps=2, best_steps=5)
    figures = bench_generate(pipe, people=1, frames=2)
    assert [figures[f"passes_ratio_{way}"] for way in ("draft", "standard", "best")] == [
        30,
        15,
        6,
    ]  # three passes a step against one
    assert all(figures[f"wall_ratio_{way}"] > 1 for way in ("draft", "standard"))
    assert all(0 < figures[f"decoder_share_{way}"] < 1 for way in ("original", "draft", "standard", "best"))
    for way in ("draft", "standard", "best"):
        assert figures[f"psnr_mask_drop_{way}_db"] == pytest.approx(
            figures["psnr_mask_original"] - figures[f"psnr_mask_{way}"], abs=1e-3
        )
    assert 0 < figures["preview_s"] <= figures["player_s"] and "frames_peak_memory_ratio" not in figures


def test_the_originals_way_is_three_branches_frame_by_frame(hundred, monkeypatch):
    """With one step and guidance of 1 the three branches cancel to the one that is run here."""
    pipe = tiny_pipeline()
    clip = next(iter(MannequinClips(1, pipe.model_config.size))).first(3)
    monkeypatch.setattr(generation, "ORIGINALS_STEPS", 4)
    encoded = []
    handle = pipe.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    with generation._counted(pipe) as counts:
        made = generation._in_the_originals_way(pipe, clip, 0, lambda: False)
    handle.remove()
    assert counts["passes"] == 3 * 4 * 3 and len(encoded) == 3 and counts["decoding_s"] > 0
    ours = pipe(clip.photo, clip.poses, clip.image_poses, 4, 1.0, 1.0, torch.Generator().manual_seed(0)).frames
    assert np.abs(made.astype(int) - ours).max() <= 2


def test_pndm_where_it_applies(tmp_path):
    sd = DreamPosePipeline.from_stable_diffusion(
        make_tiny_stable_diffusion(tmp_path / "sd"), make_tiny_clip(tmp_path / "c"), size=(64, 64)
    )
    assert type(generation._pndm(sd.scheduler)).__name__ == "PNDMScheduler"
    own = tiny_pipeline().scheduler
    assert generation._pndm(own) is own


def test_memory_is_measured_in_processes_of_their_own(tmp_path, monkeypatch, hundred, capsys):
    model = make_tiny_model(tmp_path / "model")
    asked = []
    monkeypatch.setattr(
        generation, "_peak_mb", lambda loaded, count, should_stop: asked.append((*loaded, count)) or 100.0 + count / 100
    )
    assert (
        main(
            [
                "bench",
                "generate",
                "--model",
                str(model),
                "--people",
                "1",
                "--frames",
                "1",
                "--json",
                str(tmp_path / "f.json"),
            ]
        )
        == 0
    )
    figures = json.loads((tmp_path / "f.json").read_text())
    assert asked == [(str(model), "auto", "auto", False, count) for count in (50, 2000)]
    assert figures["frames_peak_memory_ratio"] == pytest.approx(120 / 100.5, abs=1e-3)
    assert json.loads(capsys.readouterr().out) == figures


def test_a_measuring_process_is_ended_when_it_is_to_stop(tmp_path):
    started = time.monotonic()
    with pytest.raises(Cancelled):
        generation._peak_mb(
            (model := str(make_tiny_model(tmp_path / "model")), "cpu"), 2000, lambda: time.monotonic() - started > 3
        )
    assert not multiprocessing.active_children()
    assert generation._peak_mb((model, "cpu"), 8, lambda: False) > 100
    with pytest.raises(ModelError, match="ended early"):
        generation._peak_mb((str(tmp_path / "nowhere"), "cpu"), 8, lambda: False)


def test_what_it_refuses_and_that_it_stops():
    with pytest.raises(InputError, match="at least 1"):
        bench_generate(tiny_pipeline(), people=0)
    with pytest.raises(Cancelled):
        bench_generate(tiny_pipeline(), people=1, frames=1, should_stop=lambda: True)
