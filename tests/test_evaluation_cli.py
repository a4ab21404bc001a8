"""`evaluate` on the command line: tuned models, real videos, and one plain sentence for every mistake of a user."""

from __future__ import annotations

import json

import pytest
from tiny import make_tiny_model

from dreampose_core import densepose
from dreampose_core.__main__ import main
from dreampose_core.evaluation.baselines import BASELINES
from dreampose_core.media import write_video
from dreampose_core.poses import write_poses
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def evaluate(model, out, *arguments) -> int:
    return main(
        [
            "evaluate",
            "--model",
            str(model),
            "--device",
            "cpu",
            "--quality",
            "draft",
            "--out",
            str(out),
            *map(str, arguments),
        ]
    )


@pytest.mark.slow
def test_a_tuned_model_stands_beside_the_untuned_one(model, tmp_path, capsys):
    assert evaluate(model, tmp_path, "--people", 1, "--recipe", "fast") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report) == ["none", "fast", *BASELINES] and report["fast"] != report["none"]
    assert report["fast"]["pose_accuracy"] is not None and "| fast |" in capsys.readouterr().out
    about = json.loads((tmp_path / "about.json").read_text())
    assert (
        about["model"] == str(model)
        and len(about["fingerprint"]) == 16
        and about["recipe"] == "fast"
        and about["size"] == [40, 32]
    )


def test_real_videos_and_no_estimator(model, tmp_path, capsys, monkeypatch):
    rgb, poses = render_clip(Figure.from_seed(HELD_OUT), "turn", 52, (50, 40), fps=30)
    (tmp_path / "data").mkdir()
    write_video(rgb.numpy(), tmp_path / "data" / "ada.mp4", 30)
    write_poses(poses, tmp_path / "data" / "ada.npz")
    monkeypatch.setattr(densepose, "BODY_TRACKER", tmp_path / "nowhere")
    assert evaluate(model, tmp_path / "out", "--data", tmp_path / "data") == 0
    assert "The pose accuracy is not measured: " in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["none"]["pose_accuracy"] is None and report["none"]["psnr"] > 3
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert (
        about["clips"] == "videos"
        and about["each"][0]["name"] == "ada.mp4"
        and "pose_accuracy" in about["not_measured"]
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--data", "missing"], "no folder missing"),
        (["--data", ".", "--people", 0], "number of people is 0"),
        (["--data", "."], "no video"),
        (["--people", -3], "number of people is -3"),
        (["--people", "all"], "--people"),
        (["--seed", -1], "--seed is -1"),
        (["--recipe", "slow"], "--recipe"),
        (["--lpips", "missing.pt"], "missing.pt cannot be loaded"),
    ],
)
def test_mistakes_are_one_sentence(model, tmp_path, capsys, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    try:
        code = evaluate(model, "out", *arguments)
    except SystemExit as exit_:
        code = exit_.code
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(said) == 1 and said[0].startswith("error: ") and word in said[0], said
    assert list(tmp_path.iterdir()) == []
