"""`bench gpu`, here tiny on the CPU: every stage writes its figures, and the original's way is really run."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import tiny_pipeline

from dreampose_core.errors import InputError
from dreampose_core.evaluation import gpu
from dreampose_core.evaluation.clips import walking
from dreampose_core.evaluation.gpu import STAGES, bench_gpu, in_the_originals_way


def test_the_originals_way_is_three_branches_frame_by_frame():
    pipe = tiny_pipeline()  # whose own schedule PNDM cannot run
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, prediction_type="epsilon", rescale_betas_zero_snr=False
    )
    clip = walking(pipe.model_config.size, 3)
    encoded, passes = [], []
    pipe.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    pipe.unet.register_forward_hook(lambda module, given, made: passes.append(len(given[0])))
    how = {"num_inference_steps": 4, "image_guidance": 8.0, "pose_guidance": 3.0}
    made = in_the_originals_way(pipe, clip, **how)
    assert sum(passes) == 3 * 5 * 3 and len(encoded) == 3  # PNDM's first step takes two
    ours = clip.made_by(pipe, 0, solver="pndm", **how)
    assert np.abs(made.astype(int) - ours).max() <= 2


STAGE_FIGURES = {
    "machine": {"torch", "diffusers", "transformers", "precision"},
    "correct": {"full_against_fp32_db", "mini_against_cpu_db"},
    "frames": {"frame_draft_s", "frame_standard_s", "frame_best_s", "frame_original_s", "original_over_standard"},
    "tune": {"fast_s", "fast_memory_mb", "paper_s", "paper_memory_mb"},
    "mini": {"frames_per_second_batch_2", "tuning_s", "tuning_memory_mb"},
    "body": {"frame_s", "network_s", "frames_per_second"},
    "first": {"frame_s", "player_s"},
    "ways": {"frame_contiguous_s", "frame_low_memory_s", "frame_low_memory_memory_mb"},
    "training": {"full_sample_s", "full_sample_memory_mb", "mini_crop_s"},
    "profiles": {"slowest"},
}


def test_every_stage_of_the_gpu_bench_writes_its_figures_and_needs_neither_gradio_nor_ffmpeg(tmp_path):
    missing = ("gradio", "fastapi", "imageio", "imageio_ffmpeg", "pi_heif", "pydantic_settings", "itsdangerous", "ray")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
        "from dreampose_core.cli.main import main\n"
        f"sys.exit(main(['bench', 'gpu', '--out', {str(tmp_path)!r}, '--device', 'cpu', '--tiny', '--stages', 'body']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    *stages, last = (name for name in STAGES if name != "body")
    report = bench_gpu(tmp_path, device="cpu", tiny=True, stages=stages)
    assert list(report) == stages and last == "profiles"
    report["body"] = json.loads((tmp_path / "body.json").read_text())
    for name, seconds in (("frames", 900), ("body", 800)):  # as if these two were the slowest: they profile fast
        report[name]["stage_s"] = seconds
        (tmp_path / f"{name}.json").write_text(json.dumps(report[name]))
    report |= bench_gpu(tmp_path, device="cpu", tiny=True, stages=[last])
    for name, wanted in STAGE_FIGURES.items():
        figures = json.loads((tmp_path / f"{name}.json").read_text())
        assert figures == report[name] and wanted <= figures.keys() and "failed" not in figures, (name, figures)
        assert all(isinstance(x, str) and x or x > 0 for x in figures.values()), (name, figures)
    assert report["profiles"]["slowest"] == "frames, body"
    assert all("aten::" in (tmp_path / f"profile-{name}.txt").read_text() for name in ("frames", "body"))


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
    early = bench_gpu(tmp_path / "new", device="cpu", tiny=True, stages=("profiles",))["profiles"]["failed"]
    assert "before one of the stages frames" in early
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="No CUDA device"):
            bench_gpu(tmp_path)
