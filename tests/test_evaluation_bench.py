"""`bench`: passes through the UNet are counted, the original's way is really run, memory is measured from outside, and
every stage on a GPU writes its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_tiny_model, tiny_pipeline

from dreampose_core import DreamPosePipeline
from dreampose_core.__main__ import main
from dreampose_core.errors import Cancelled, InputError, ModelError
from dreampose_core.evaluation import generation, gpu
from dreampose_core.evaluation.clips import MannequinClips
from dreampose_core.evaluation.generation import bench_generate, in_own_process
from dreampose_core.evaluation.gpu import STAGES, bench_gpu


@pytest.fixture
def hundred(monkeypatch):
    """Of the original's hundred steps only ten, or tests would take as long as it does."""
    monkeypatch.setattr(generation, "ORIGINALS_STEPS", 10)


def test_the_figures(hundred):
    pipe = tiny_pipeline(draft_steps=1, standard_steps=2, best_steps=5)
    figures = bench_generate(pipe, people=1, frames=2)
    ratios = [figures[f"passes_ratio_{way}"] for way in ("draft", "standard", "best")]
    assert ratios == [30, 15, 6]  # three passes a step against one
    assert all(figures[f"wall_ratio_{way}"] > 1 for way in ("draft", "standard"))
    assert all(0 < figures[f"decoder_share_{way}"] < 1 for way in ("original", "draft", "standard", "best"))
    for way in ("draft", "standard", "best"):
        lost = figures["psnr_mask_original"] - figures[f"psnr_mask_{way}"]
        assert figures[f"psnr_mask_drop_{way}_db"] == pytest.approx(lost, abs=1e-3)
    assert 0 < figures["preview_s"] <= figures["player_s"] and "frames_peak_memory_ratio" not in figures


def test_the_originals_way_is_three_branches_frame_by_frame(hundred, monkeypatch):
    """With one step and guidance of 1 the three branches cancel to the one that is run here."""
    pipe = tiny_pipeline()
    clip = next(iter(MannequinClips(1, pipe.model_config.size))).cut(slice(3))
    monkeypatch.setattr(generation, "ORIGINALS_STEPS", 4)
    encoded = []
    handle = pipe.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    with generation._counted(pipe) as counts:
        made = generation.in_the_originals_way(pipe, clip, 0, lambda: False)
    handle.remove()
    assert counts["passes"] == 3 * 4 * 3 and len(encoded) == 3 and counts["decoding_s"] > 0
    ours = pipe(clip.photo, clip.poses, clip.image_poses, 4, 1.0, 1.0, torch.Generator().manual_seed(0)).frames
    assert np.abs(made.astype(int) - ours).max() <= 2


def test_pndm_where_it_applies(base, clip_model):
    sd = DreamPosePipeline.from_stable_diffusion(base, clip_model, size=(64, 64))
    assert generation._originals_solver(sd.scheduler) == "pndm"
    assert generation._originals_solver(tiny_pipeline().scheduler) is None


def test_memory_is_measured_in_processes_of_their_own(tmp_path, monkeypatch, hundred, capsys):
    model, asked = make_tiny_model(tmp_path / "model"), []

    def peak(module, loaded, count, should_stop):
        asked.append((module, *loaded, count))
        return 100.0 + count / 100

    monkeypatch.setattr(generation, "in_own_process", peak)
    given = ["--model", model, "--people", 1, "--frames", 1, "--json", tmp_path / "f.json"]
    assert main(["bench", "generate", *map(str, given)]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert asked == [(generation.__name__, str(model), "auto", "auto", False, count) for count in (50, 2000)]
    assert figures["frames_peak_memory_ratio"] == pytest.approx(120 / 100.5, abs=1e-3)
    assert json.loads(capsys.readouterr().out) == figures


def test_a_measuring_process_is_ended_when_it_is_to_stop(tmp_path):
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before, started, program = children.read_text(), time.monotonic(), generation.__name__
    loaded = (str(make_tiny_model(tmp_path / "model")), "cpu")
    with pytest.raises(Cancelled):
        in_own_process(program, loaded, 2000, should_stop=lambda: time.monotonic() - started > 3)
    assert children.read_text() == before
    assert in_own_process(program, loaded, 8) > 100
    with pytest.raises(ModelError, match="that measures memory failed"):
        in_own_process(program, (str(tmp_path / "nowhere"), "cpu"), 8)


def test_what_it_refuses_and_that_it_stops():
    with pytest.raises(InputError, match="at least 1"):
        bench_generate(tiny_pipeline(), people=0)
    with pytest.raises(Cancelled):
        bench_generate(tiny_pipeline(), people=1, frames=1, should_stop=lambda: True)


# -- on a GPU, here tiny on the CPU ------------------------------------------------------------------------------------

STAGE_FIGURES = {
    "machine": {"torch", "diffusers", "transformers", "precision"},
    "correct": {"full_against_fp32_db", "mini_against_cpu_db"},
    "frames": {"frame_draft_s", "frame_standard_s", "frame_best_s", "frame_original_s", "original_over_standard"},
    "tune": {"fast_s", "fast_memory_mb", "paper_s", "paper_memory_mb"},
    "mini": {"frames_per_second_batch_2", "tuning_s", "tuning_memory_mb"},
    "body": {"frame_s", "network_s", "frames_per_second"},
    "first": {"preview_s", "player_s"},
    "ways": {"frame_contiguous_s", "frame_low_memory_s", "frame_low_memory_memory_mb"},
    "training": {"full_sample_s", "full_sample_memory_mb", "mini_crop_s"},
    "profiles": {"slowest"},
}


def test_every_stage_of_the_gpu_bench_writes_its_figures(tmp_path):
    report = bench_gpu(tmp_path, device="cpu", tiny=True)
    assert list(report) == list(STAGES)
    for name, wanted in STAGE_FIGURES.items():
        figures = json.loads((tmp_path / f"{name}.json").read_text())
        assert figures == report[name] and wanted <= figures.keys() and "failed" not in figures, (name, figures)
        assert all(isinstance(x, str) and x or x > 0 for x in figures.values()), (name, figures)
    two = sorted(("frames", "tune", "mini", "body", "training"), key=lambda name: report[name]["stage_s"])[:2:-1]
    assert report["profiles"]["slowest"] == ", ".join(two)
    assert all("aten::" in (tmp_path / f"profile-{name}.txt").read_text() for name in two)


def test_the_gpu_bench_stops_when_its_minutes_are_over_and_keeps_what_failed(tmp_path, monkeypatch):
    assert bench_gpu(tmp_path, device="cpu", tiny=True, minutes=0) == {}

    def broken(bench, figures):
        figures["half"] = 1.0
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setitem(gpu.STAGES, "tune", broken)
    report = bench_gpu(tmp_path, device="cpu", tiny=True, stages=("tune", "machine"))
    assert list(report) == ["machine", "tune"]
    assert report["tune"]["half"] == 1 and report["tune"]["failed"] == "CUDA error: out of memory"
    with pytest.raises(InputError, match="no stage tea"):
        bench_gpu(tmp_path, device="cpu", tiny=True, stages=("tea",))
    assert (
        "before one of the stages frames"
        in bench_gpu(tmp_path / "new", device="cpu", tiny=True, stages=("profiles",))["profiles"]["failed"]
    )
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="No CUDA device"):
            bench_gpu(tmp_path)


def test_the_gpu_bench_needs_neither_gradio_nor_ffmpeg(tmp_path):
    missing = ("gradio", "fastapi", "imageio", "imageio_ffmpeg", "pi_heif", "pydantic_settings", "itsdangerous", "ray")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
        "from dreampose_core.cli.main import main\n"
        f"sys.exit(main(['bench', 'gpu', '--out', {str(tmp_path)!r}, '--device', 'cpu', '--tiny', '--stages', 'body']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "body.json").read_text())["frames_per_second"] > 0
