"""The whole job through the command line with the shipped mini, on people it was never trained on, against exact
truth."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from dreampose_core.evaluation.metrics import psnr, sharpness
from dreampose_core.media import probe_video, read_image, read_video
from dreampose_core.poses import read_poses

PEOPLE = {10_000: "turn", 10_001: "walk", 10_003: "walk"}
SCORED = slice(20, 60)


def run(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dreampose_core", *map(str, arguments)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]


pytestmark = (
    pytest.mark.slow
)  # three whole runs; what mini reaches is tested in test_published.py, the command line in test_cli.py


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> dict[str, list[float]]:
    """Mask PSNR of mini and of part colours, and mini's sharpness, for each person."""
    from dreampose_core.evaluation.baselines import baseline_frames
    from dreampose_core.model.loading import load_pipeline

    vae = load_pipeline("mini", "cpu").vae
    found = {"mini": [], "part_colours": [], "grey_silhouette": [], "sharpness": []}
    for seed, motion in PEOPLE.items():
        folder = tmp_path_factory.mktemp(str(seed))
        run(
            "mannequin",
            "render",
            "--seed",
            seed,
            "--motion",
            motion,
            "--frames",
            60,
            "--size",
            "160x128",
            "--out",
            folder,
        )
        out = folder / "out.mp4"
        run(
            "animate",
            "--image",
            folder / "frame_00000.png",
            "--image-poses",
            f"{folder / 'poses.npz'}:0",
            "--poses",
            folder / "poses.npz",
            "--out",
            out,
            "--recipe",
            "none",
            "--frames",
            f"{SCORED.start}:{SCORED.stop}",
            "--device",
            "cpu",
        )
        poses = read_poses(folder / "poses.npz")
        info = probe_video(out)
        assert (info.num_frames, info.height, info.width, info.codec, info.pixel_format) == (
            40,
            160,
            128,
            "h264",
            "yuv420p",
        )
        assert (
            info.fps == pytest.approx(poses.fps)
            and json.loads(out.with_suffix(".json").read_text())["num_frames"] == 40
        )
        frames = np.stack(list(read_video(out)))
        truth = np.stack([read_image(folder / f"frame_{index:05d}.png") for index in range(SCORED.start, SCORED.stop)])
        target, own = poses.select(SCORED), poses.select([0])
        simple = baseline_frames(read_image(folder / "frame_00000.png"), own, target, truth, vae)
        found["mini"].append(psnr(frames, truth, target.mask))
        found["sharpness"].append(sharpness(frames, truth, target.mask))
        for name in ("part_colours", "grey_silhouette"):
            found[name].append(psnr(simple[name], truth, target.mask))
    print({name: np.round(values, 2) for name, values in found.items()})
    return found


def test_mini_is_no_worse_than_part_colours(scores):
    assert np.mean(scores["mini"]) > np.mean(scores["part_colours"]) - 0.5, scores
    assert np.mean(scores["mini"]) > np.mean(scores["grey_silhouette"]) + 2, scores


def test_mini_is_neither_blur_nor_noise(scores):
    assert 0.6 < np.mean(scores["sharpness"]) < 1.5, scores
