"""Stable Diffusion's safety checker over frames, with a small random one that objects to a colour.

scripts/test tests/test_safety.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from drawn import drawn_clip
from tiny import make_tiny_model, stop_after, tiny_pipeline
from transformers import CLIPConfig
from transformers.models.clip import CLIPImageProcessorPil

from dreampose_core.__main__ import main
from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.run import animate
from dreampose_core.doctor import examine
from dreampose_core.errors import Cancelled, ModelError
from dreampose_core.media import read_image
from dreampose_core.model.loading import load_pipeline
from dreampose_core.model.safety import SafetyChecker
from dreampose_core.settings import EXAMPLES, AnimateOptions, Settings
from dreampose_core.synthetic import HELD_OUT

RED = np.full((1, 32, 32, 3), (220, 10, 10), np.uint8)
SIDE = {"image_size": 28, "patch_size": 7, "hidden_size": 32, "intermediate_size": 64}
SIDE |= {"num_hidden_layers": 2, "num_attention_heads": 2}


def make_checker(folder: Path, objects_to: np.ndarray | None = None) -> Path:
    """A base whose checker objects to what differs from the mean of these frames as the first of them does; None: to
    all there is."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=SIDE, projection_dim=16))
        processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
        for kind in ("concept", "special_care"):
            getattr(model, f"{kind}_embeds").copy_(torch.randn_like(getattr(model, f"{kind}_embeds")))
            getattr(model, f"{kind}_embeds_weights").fill_(2.0)  # more than a cosine can be: nothing is found
        model.concept_embeds_weights[3] = -2.0
        if objects_to is not None:
            seen = model.vision_model(processor(list(objects_to), return_tensors="pt").pixel_values)[1]
            mean, weight = seen.mean(0), model.visual_projection.weight
            # to a random CLIP all pictures are alike but for little
            weight -= torch.outer(weight @ mean, mean) / (mean @ mean)
            model.concept_embeds[3] = model.visual_projection(seen[:1])[0]
            model.concept_embeds_weights[3] = 0.8
    model.save_pretrained(folder / "safety_checker")
    processor.save_pretrained(folder / "feature_extractor")
    return folder


def run(pipe, folder: Path, **more) -> dict:
    rgb, poses = drawn_clip(HELD_OUT, "wave", 6, pipe.model_config.size, fps=6.0)
    options = AnimateOptions(recipe="none", steps=2, batch_size=2)
    given = {"image": rgb[0], "poses": poses, "image_poses": poses.select([0]), "options": options}
    return animate(LocalEngine(pipe), **given, folder=folder, **more)


def frames(folder: Path) -> np.ndarray:
    return np.stack([read_image(path) for path in sorted((folder / "frames").glob("*.png"))])


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_what_it_objects_to_is_black_and_nothing_else(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, RED.shape, np.uint8)
    checker = SafetyChecker.from_stable_diffusion(make_checker(tmp_path, np.concatenate([RED, noise])))
    shown = np.concatenate([noise, RED, noise, RED])
    shown = shown if kind is np.uint8 else (shown / np.float32(255))
    before = shown.copy()
    assert checker.hide(shown) == [1, 3]
    assert not shown[[1, 3]].any() and np.array_equal(shown[[0, 2]], before[[0, 2]]) and shown.dtype == kind


def test_a_run_says_which_frames_it_hid_also_after_an_interruption(tmp_path):
    pipe = tiny_pipeline()
    plain = run(pipe, tmp_path / "plain")
    assert plain["safety_checker"] is False and plain["hidden_frames"] == []
    assert frames(tmp_path / "plain").any(axis=(1, 2, 3)).all()
    others = np.roll(frames(tmp_path / "plain"), -1, axis=0)  # the second first
    pipe.safety_checker = SafetyChecker.from_stable_diffusion(make_checker(tmp_path / "base", others))
    result = run(pipe, tmp_path / "run")
    black = np.flatnonzero(~frames(tmp_path / "run").any(axis=(1, 2, 3))).tolist()
    assert result["safety_checker"] is True and result["hidden_frames"] == black and 1 in black and len(black) < 6
    assert any(f"{len(black)} of 6 frames as unsafe" in notice for notice in result["notices"])
    kept = [index for index in range(6) if index not in black]
    assert np.array_equal(frames(tmp_path / "run")[kept], frames(tmp_path / "plain")[kept])

    with pytest.raises(Cancelled):
        run(pipe, tmp_path / "halves", should_stop=stop_after(9))
    assert 1 < len(list((tmp_path / "halves" / "frames").glob("*.png"))) < 6
    again = run(pipe, tmp_path / "halves")
    assert again["hidden_frames"] == black and np.array_equal(frames(tmp_path / "halves"), frames(tmp_path / "run"))


def test_hidden_frames_are_named(tmp_path):
    pipe = tiny_pipeline()
    pipe.safety_checker = SafetyChecker.from_stable_diffusion(make_checker(tmp_path))
    hidden = []
    rgb, poses = drawn_clip(HELD_OUT, "wave", 3, pipe.model_config.size)
    made = list(pipe.stream(rgb[0], poses, poses.select([0]), 4, on_hidden=hidden.append))
    assert not np.stack(made).any() and hidden == [0, 1, 2]


def test_it_comes_with_the_model_where_it_is_asked_for(tmp_path, capsys):
    model, base = make_tiny_model(tmp_path / "model"), make_checker(tmp_path / "base")
    assert load_pipeline(model, "cpu").safety_checker is None
    assert isinstance(load_pipeline(model, "cpu", safety_checker=base).safety_checker, SafetyChecker)
    words = f"animate --model {model} --recipe none --steps 1 --frames 0:2 --out {tmp_path / 'a.mp4'}"
    files = (EXAMPLES / "people" / "ada.png", EXAMPLES / "motions" / "walk.npz")
    given = [*words.split(), "--image", str(files[0]), "--poses", str(files[1])]
    assert main([*given, "--safety-checker", str(base)]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["hidden_frames"] == [0, 1]
    assert "2 of 2 frames as unsafe" in capsys.readouterr().out
    assert main([*given, "--safety-checker", str(tmp_path / "model")]) == 2
    assert "has no folder safety_checker" in capsys.readouterr().err


def test_one_that_is_not_there_or_damaged(tmp_path):
    with pytest.raises(ModelError, match="There is no folder .*nowhere"):
        load_pipeline("mini", "cpu", safety_checker=tmp_path / "nowhere")
    base = make_checker(tmp_path / "base")
    file = base / "safety_checker" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="safety_checker of .* cannot be loaded"):
        SafetyChecker.from_stable_diffusion(base)


def test_the_doctor_looks_whether_it_loads(tmp_path, monkeypatch):
    monkeypatch.setattr("dreampose_core.doctor._self_check", lambda settings: None)

    def finding(**given):
        return next(found for found in examine(Settings(home=tmp_path, **given)) if found.what == "safety checker")

    assert finding().state == "ok" and finding(safety_checker=str(make_checker(tmp_path / "base"))).state == "ok"
    bad = finding(safety_checker=str(tmp_path / "nowhere"))
    assert bad.state == "problem" and "DREAMPOSE_SAFETY_CHECKER" in bad.todo
