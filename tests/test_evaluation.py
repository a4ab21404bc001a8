"""The benchmark as a whole: the truth as generator is perfect, baselines stand in the order everybody expects, every
file is written."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpus import estimate
from drawn import drawn_clip
from tiny import make_tiny_model, tiny_pipeline

from dreampose_core import densepose
from dreampose_core.__main__ import main
from dreampose_core.densepose import load_estimator
from dreampose_core.errors import Cancelled, InputError
from dreampose_core.evaluation import benchmark
from dreampose_core.evaluation.benchmark import (
    BASELINES,
    CONTACT_WIDTH,
    ROBUST_FRAMES,
    baseline_frames,
    contact_sheet,
    evaluate,
)
from dreampose_core.evaluation.clips import DISTURBED, Clip, walking
from dreampose_core.evaluation.scores import MEASURES, Scorer, load_lpips, mean_scores, table
from dreampose_core.media import read_image, write_video
from dreampose_core.model.config import ModelConfig
from dreampose_core.poses import PoseSequence, write_poses
from dreampose_core.synthetic import HELD_OUT

SIZE = (160, 128)
FILES = {"report.json", "about.json", "table.md", "contact.jpg"}
PERFECT = {
    **dict.fromkeys(("psnr", "psnr_mask", "psnr_seen", "psnr_head"), 100),
    **dict.fromkeys(("ssim", "ssim_mask", "ssim_head", "sharpness", "sharpness_head"), 1),
    **dict.fromkeys(("l1", "l1_mask", "identity_seen", "temporal_error"), 0),
}
NOTHING = dict.fromkeys(MEASURES)

# stands in for the tracker, which searches long where there is nobody
BLOCKS = SimpleNamespace(estimate=lambda frames: estimate(iter(frames)))


@pytest.fixture(scope="module")
def clips():
    """Two held-out people, turning and walking, the frames 8 to 23 after the photo."""
    made = []
    for person, name in enumerate(("turn", "walk")):
        rgb, poses = drawn_clip(HELD_OUT + person, name, 24, SIZE)
        made.append(Clip(name, rgb[0], poses.select([0]), poses.select(slice(8, 24)), rgb[8:]))
    return made


class Perfect:
    """A VAE that loses nothing: pixels are latents."""

    device, dtype, config = torch.device("cpu"), torch.float32, SimpleNamespace(scaling_factor=0.5)

    def encode(self, pixels):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: pixels))

    def decode(self, latents):
        return SimpleNamespace(sample=latents)


class TruthTeller:
    """Stands for a pipeline that makes the truth of `clips`, and notes what it was asked."""

    def __init__(self, clips):
        self.model_config, self._execution_device = ModelConfig(), torch.device("cpu")
        self.vae, self.truth, self.asked = Perfect(), {clip.photo.tobytes(): clip.truth for clip in clips}, []

    def stream(self, photo, poses, image_poses, num_inference_steps, generator, should_stop, **sampling):
        assert sampling == {"guidance_interval": (0.0, 1.0), "reuse_steps": 1, "solver": None}  # as the config says
        self.asked.append((num_inference_steps, image_poses, generator.initial_seed()))
        for frame in self.truth[photo.tobytes()]:
            if should_stop():
                raise Cancelled("stopped on request")
            yield frame


class Listed(list):
    """Clips at hand."""

    kind, size = "test clips", SIZE


def test_baselines_stand_in_their_known_order(clips):
    scores = {name: [] for name in BASELINES}
    for clip in (clip.cut(slice(None, None, 4)) for clip in clips):
        made = baseline_frames(clip.photo, clip.image_poses, clip.poses, clip.truth, Perfect())
        assert all(frames.shape == (4, *SIZE, 3) and frames.dtype == np.uint8 for frames in made.values())
        assert np.array_equal(made["vae_only"], clip.truth) and (made["repeat_photo"] == clip.photo).all()
        noise = np.random.default_rng(0).normal(0, 5, clip.truth.shape)
        made["vae_only"] = np.clip(clip.truth + noise, 0, 255).astype(np.uint8)
        scorer = Scorer(clip, load_estimator("body"))
        for name, frames in made.items():
            scores[name].append(scorer.score(frames))
    mean = {name: mean_scores(found) for name, found in scores.items()}
    keys = ("psnr_mask", "identity_seen", "pose_accuracy", "sharpness", "temporal_error")
    psnrs, seen, pose, sharp, flicker = ({name: mean[name][key] for name in mean} for key in keys)
    assert psnrs["repeat_photo"] < psnrs["part_colours"] < psnrs["moved_texture"] < psnrs["vae_only"]
    assert psnrs["grey_silhouette"] < psnrs["part_colours"]
    assert seen["grey_silhouette"] > seen["part_colours"] > seen["moved_texture"] > seen["vae_only"]
    assert pose["repeat_photo"] < 0.8 < pose["vae_only"] and pose["grey_silhouette"] < pose["moved_texture"]
    assert sharp["grey_silhouette"] < 0.1 < sharp["part_colours"] < sharp["moved_texture"]
    assert flicker["repeat_photo"] > flicker["moved_texture"] > 0


def test_baselines_that_the_maps_do_not_allow_are_left_out(clips):
    clip = clips[0]
    only_parts = PoseSequence(clip.poses.parts, None, "none")
    assert "moved_texture" not in baseline_frames(clip.photo, clip.image_poses, only_parts, clip.truth, Perfect())
    only_uv = PoseSequence(None, clip.poses.uv, "body")
    found = baseline_frames(clip.photo, clip.image_poses, only_uv, clip.truth, Perfect())
    assert set(found) == {"repeat_photo", "grey_silhouette", "vae_only"}


def test_the_contact_sheet_shows_clips_of_different_shapes_at_one_scale():
    def row(number, *size):
        return [("a", np.full((1, *size, 3), 200, np.uint8)), ("truth", np.full((number, *size, 3), 100, np.uint8))]

    sheet = contact_sheet([row(4, 400, 400), row(7, 200, 400)])  # 2000 and 3200 pixels wide
    assert sheet.size == (CONTACT_WIDTH, 200 + 100 + 2 * 16)
    seen = np.asarray(sheet).astype(int)
    for top, height, width in ((16, 200, 1000), (232, 100, 1600)):
        assert np.abs(seen[top : top + height, :195] - 200).max() < 9
        assert np.abs(seen[top : top + height, 205:width] - 100).max() < 9
        assert seen[top - 16 : top, :20].max() > 150 and seen[top - 16 : top, 200:240].max() > 150  # the captions
    assert seen[20:200, 1005:].max() < 40  # nothing on the right of the shorter row


def test_the_truth_as_generator_is_perfect(tmp_path, clips, monkeypatch):
    pipe, seen, tuned = TruthTeller(clips), [], []

    @contextmanager
    def tune(pipe, photo, own, recipe, should_stop):
        tuned.append(len(own))
        yield

    monkeypatch.setattr(benchmark, "tuned_to", tune)
    given = {"recipe": "fast", "quality": "draft", "robustness": True, "seed": 3, "estimator": BLOCKS}
    report = evaluate(pipe, Listed(clips), tmp_path, **given, on_progress=seen.append)
    assert set(report) == {"none", "fast", *BASELINES, "undisturbed", *DISTURBED}
    assert all(tuple(block) == tuple(MEASURES) for block in report.values())
    for name in ("none", "fast", "vae_only", "undisturbed", "absent"):
        assert {**report[name], **PERFECT} == report[name], name
        assert report[name]["pose_accuracy"] == 1 and report[name]["lpips"] is None
    assert report["none"]["psnr_unseen"] == 100 and report["none"]["identity_unseen"] == 0  # of the one who turns
    # draft is 8 steps; two models, six maps, two people
    assert [steps for steps, _, _ in pipe.asked] == [8] * 16 and tuned == [1, 1]
    assert {own is None for _, own, _ in pipe.asked[2:8]} == {True, False} and pipe.asked[7][1] is None
    assert pipe.asked[0][2] == pipe.asked[1][2] == 3 * 1_000_003 and pipe.asked[8][2] == 3 * 1_000_003 + 1
    assert [(p.stage, p.step, p.total) for p in seen] == [("people", 1, 2), ("people", 2, 2)]
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert json.loads((tmp_path / "report.json").read_text()) == report
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["robustness"] == {"people": 2, "frames": ROBUST_FRAMES} and about["seed"] == 3 and about["steps"] == 8
    assert [one["name"] for one in about["each"]] == ["turn", "walk"]
    assert about["each"][0]["scores"]["none"]["psnr"] == 100
    assert about["not_measured"] == {"lpips": "not measured: no weights were given (--lpips)"}


def test_a_tiny_model_end_to_end(tmp_path):
    pipe = tiny_pipeline(draft_steps=1)
    clips = Listed([walking(pipe.model_config.size, 6)])
    a, b = (evaluate(pipe, clips, tmp_path / name, quality="draft", estimator=BLOCKS) for name in "ab")
    assert a == b and (tmp_path / "a/report.json").read_bytes() == (tmp_path / "b/report.json").read_bytes()
    assert set(a) == {"none", *BASELINES} and a["none"]["psnr"] > 3
    other = evaluate(pipe, clips, tmp_path / "c", quality="draft", estimator=BLOCKS, seed=1)
    assert other["none"] != a["none"] and other["moved_texture"] == a["moved_texture"]
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    sheet = read_image(tmp_path / "a" / "contact.jpg")
    assert sheet.shape == (16 + 40, 13 * 32, 3) and sheet.std() > 5
    assert table(a) + "\n" == (tmp_path / "a" / "table.md").read_text()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def command(model, out, *arguments) -> int:
    given = ["--model", model, "--device", "cpu", "--quality", "draft", "--out", out, *arguments]
    return main(["evaluate", *map(str, given)])


def film(folder, poses_of):
    """A real video of somebody who stands still for 10 frames and then turns, with as much of the poses as `poses_of`
    keeps."""
    folder.mkdir()
    rgb, poses = drawn_clip(HELD_OUT, "turn", 3, (100, 80), fps=1)
    frames = [0] * 10 + [1, 2, 0]
    write_video(rgb[frames], folder / "a$b_{.mp4", 30)
    write_poses(poses_of(replace(poses.select(frames), fps=30.0)), folder / "a$b_{.npz")


def test_real_videos_with_what_their_poses_know(model, tmp_path, capsys, monkeypatch):
    def unknown(out, *arguments) -> tuple[dict, set[str], set[str]]:
        """The report, which of the model's figures are not in it, and for which about.json says why."""
        assert command(model, tmp_path / out, "--data", tmp_path / f"data {out}", *arguments) == 0
        assert {path.name for path in (tmp_path / out).iterdir()} == FILES
        report = json.loads((tmp_path / out / "report.json").read_text())
        about = json.loads((tmp_path / out / "about.json").read_text())
        assert about["clips"] == "videos" and about["each"][0]["name"] == "a$b_{.mp4" and about["size"] == [40, 32]
        assert about["model"] == str(model) and len(about["fingerprint"]) == 16
        return report, {key for key, value in report["none"].items() if value is None}, set(about["not_measured"])

    film(tmp_path / "data whole", lambda poses: poses)
    report, missing, said = unknown("whole")
    assert missing == {"lpips", "lpips_mask"} and said == {"lpips"} and report["none"]["psnr"] > 3
    assert "| part_colours |" in capsys.readouterr().out
    film(tmp_path / "data parts", lambda poses: PoseSequence(poses.parts, None, "none", 30.0))
    monkeypatch.setattr(densepose, "BODY_TRACKER", tmp_path / "nowhere")
    report, missing, said = unknown("parts", "--robustness")
    surface = {"psnr_seen", "psnr_unseen", "identity_seen", "identity_unseen", "temporal_error"}
    assert missing == {*surface, "pose_accuracy", "lpips", "lpips_mask"}
    assert said == {"lpips", "pose_accuracy", "identity, temporal_error, seen and unseen"}
    assert "The pose accuracy is not measured: " in capsys.readouterr().out
    assert set(report["moved_texture"].values()) == set(report["uv_noise"].values()) == {None}
    assert report["part_colours"]["psnr"] > 5
    assert "| moved_texture | – |" in (tmp_path / "parts" / "table.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_a_tuned_model_stands_beside_the_untuned_one(model, tmp_path, capsys, recipe):
    assert command(model, tmp_path, "--people", 1, "--recipe", recipe) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report) == ["none", recipe, *BASELINES] and report[recipe] != report["none"]
    assert report[recipe]["pose_accuracy"] is not None and f"| {recipe} |" in capsys.readouterr().out
    assert json.loads((tmp_path / "about.json").read_text())["recipe"] == recipe


def test_nobody_in_view_leaves_nothing_to_say(clips):
    clip = clips[0]
    empty = PoseSequence(np.zeros_like(clip.poses.parts), clip.poses.uv * 0, "body")
    scores = Scorer(replace(clip, poses=empty)).score(clip.truth)
    assert scores["psnr"] == 100 and json.dumps(scores, allow_nan=False)
    assert {scores[key] for key in ("psnr_mask", "ssim_mask", "identity_seen", "temporal_error")} == {None}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_lpips_from_a_file(tmp_path, clips):
    class Distance(torch.nn.Module):
        def __init__(self, over):
            super().__init__()
            self.over = over

        def forward(self, a, b):
            return (a - b).abs().mean(dim=self.over, keepdim=True)

    # one for each picture, as LPIPS; one in all
    for name, over in (("good.pt", (1, 2, 3)), ("strange.pt", (0, 1, 2, 3))):
        torch.jit.trace(Distance(over), (torch.zeros(2, 3, 64, 64),) * 2).save(tmp_path / name)
    clip = clips[0]
    scores = Scorer(clip, lpips=load_lpips(tmp_path / "good.pt")).score(np.full_like(clip.truth, 128))
    grey = np.abs(clip.truth.astype(float) - 128) / 127.5
    assert scores["lpips"] == pytest.approx(grey.mean(), abs=1e-4)
    assert scores["lpips_mask"] == pytest.approx((grey * clip.poses.mask[..., None]).mean(), abs=1e-4)
    (tmp_path / "bad.pt").write_text("not a model")
    for name in ("bad.pt", "missing.pt", "strange.pt"):
        with pytest.raises(InputError, match=f"{name} .*TorchScript file of LPIPS"):
            load_lpips(tmp_path / name)


def test_means_leave_out_what_is_not_known():
    found = mean_scores([{**NOTHING, "psnr": 10.0}, {**NOTHING, "psnr": 20.00006, "ssim": 0.5}])
    assert found == {**NOTHING, "psnr": 15.0, "ssim": 0.5} and mean_scores([]) == NOTHING


def test_the_table():
    block = {**NOTHING, "psnr": 25.55, "sharpness": 0.9, "identity_seen": 0.0123}
    lines = table({"none": block, "moved_texture": NOTHING}).splitlines()
    assert lines[0].startswith("| | PSNR | PSNR person |") and len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| none | 25.6 | – |") and "| 0.90 | – | – | 0.012 |" in lines[2]
    assert set(lines[3].split(" | ")[1:-1]) == {"–"}


def test_a_stop_leaves_no_report(tmp_path, clips):
    pipe = TruthTeller(clips)
    with pytest.raises(Cancelled):
        evaluate(pipe, Listed(clips), tmp_path, should_stop=lambda: len(pipe.asked) > 1)
    assert list(tmp_path.iterdir()) == [] and len(pipe.asked) == 2
