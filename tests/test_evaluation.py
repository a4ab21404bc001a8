"""The benchmark as a whole: the truth as generator is perfect, baselines stand in the order everybody expects, every
file is written."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpus import estimate
from tiny import tiny_pipeline

from dreampose_core.densepose import load_estimator
from dreampose_core.errors import Cancelled, InputError
from dreampose_core.evaluation.baselines import BASELINES, baseline_frames
from dreampose_core.evaluation.benchmark import ROBUST_FRAMES, evaluate
from dreampose_core.evaluation.clips import Clip, MannequinClips, VideoClips
from dreampose_core.evaluation.page import best_blocks
from dreampose_core.evaluation.perturb import DISTURBED
from dreampose_core.evaluation.report import table
from dreampose_core.evaluation.scores import KEYS, Scorer, load_lpips, mean_scores
from dreampose_core.media import probe_video, read_image, write_video
from dreampose_core.model.config import ModelConfig
from dreampose_core.poses import PoseSequence, write_poses
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

SIZE = (160, 128)
PICTURES = {"contact.png", "blocks.png", "frames.png", "people.png"}
FILES = {"report.json", "about.json", "table.md", "side_by_side.mp4", "report.html", *PICTURES}
PERFECT = {
    "psnr": 100,
    "psnr_mask": 100,
    "psnr_seen": 100,
    "l1": 0,
    "l1_mask": 0,
    "ssim": 1,
    "ssim_mask": 1,
    "sharpness": 1,
    "psnr_head": 100,
    "ssim_head": 1,
    "sharpness_head": 1,
    "identity_seen": 0,
    "temporal_error": 0,
}

# stands in for the tracker, which searches long where there is nobody
BLOCKS = SimpleNamespace(estimate=lambda frames: estimate(iter(frames)))


@pytest.fixture(scope="module")
def clips():
    """Two held-out people, turning and walking, the frames 8 to 23 after the photo."""
    made = []
    for person, name in enumerate(("turn", "walk")):
        rgb, poses = render_clip(Figure.from_seed(HELD_OUT + person), name, 24, SIZE)
        truth, target = rgb.numpy()[8:], poses.select(slice(8, 24))
        made.append(Clip(name, rgb[0].numpy(), poses.select([0]), target, truth))
    return made


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


class TruthTeller:
    """Stands for a pipeline that makes the truth of `clips`, and notes what it was asked."""

    def __init__(self, clips):
        self.model_config, self._execution_device = ModelConfig(), torch.device("cpu")
        self.vae, self.truth, self.asked = Perfect(), {clip.photo.tobytes(): clip.truth for clip in clips}, []

    def stream(
        self,
        photo,
        poses,
        image_poses,
        num_inference_steps,
        guidance_interval,
        reuse_steps,
        solver,
        generator,
        should_stop,
    ):
        assert (guidance_interval, reuse_steps, solver) == ((0.0, 1.0), 1, None)  # as the form says
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
    for clip in clips:
        made = baseline_frames(clip.photo, clip.image_poses, clip.poses, clip.truth, Perfect())
        assert {frames.shape for frames in made.values()} == {(16, *SIZE, 3)} and {f.dtype for f in made.values()} == {
            np.dtype(np.uint8)
        }
        assert np.array_equal(made["vae_only"], clip.truth) and (made["repeat_photo"] == clip.photo).all()
        made["vae_only"] = np.clip(clip.truth + np.random.default_rng(0).normal(0, 5, clip.truth.shape), 0, 255).astype(
            np.uint8
        )
        scorer = Scorer(clip, load_estimator("body"))
        for name, frames in made.items():
            scores[name].append(scorer.score(frames))
    mean = {name: mean_scores(found) for name, found in scores.items()}
    psnrs, seen, pose = (
        {name: mean[name][key] for name in mean} for key in ("psnr_mask", "identity_seen", "pose_accuracy")
    )
    assert psnrs["repeat_photo"] < psnrs["part_colours"] < psnrs["moved_texture"] < psnrs["vae_only"]
    assert psnrs["grey_silhouette"] < psnrs["part_colours"]
    assert seen["grey_silhouette"] > seen["part_colours"] > seen["moved_texture"] > seen["vae_only"]
    assert pose["repeat_photo"] < 0.8 < pose["vae_only"] and pose["grey_silhouette"] < pose["moved_texture"]
    assert (
        mean["grey_silhouette"]["sharpness"]
        < 0.1
        < mean["part_colours"]["sharpness"]
        < mean["moved_texture"]["sharpness"]
    )
    assert mean["repeat_photo"]["temporal_error"] > mean["moved_texture"]["temporal_error"] > 0


def test_baselines_that_the_maps_do_not_allow_are_left_out(clips):
    clip = clips[0]
    only_parts = PoseSequence(clip.poses.parts, None, "none")
    assert "moved_texture" not in baseline_frames(clip.photo, clip.image_poses, only_parts, clip.truth, Perfect())
    only_uv = PoseSequence(None, clip.poses.uv, "mannequin")
    found = baseline_frames(clip.photo, clip.image_poses, only_uv, clip.truth, Perfect())
    assert set(found) == {"repeat_photo", "grey_silhouette", "vae_only"}


def test_the_truth_as_generator_is_perfect(tmp_path, clips):
    pipe, seen, tuned = TruthTeller(clips), [], []

    @contextmanager
    def tune(photo, own):
        tuned.append(len(own))
        yield

    report = evaluate(
        pipe,
        Listed(clips),
        tmp_path,
        recipe="fast",
        quality="draft",
        robustness=True,
        tune=tune,
        seed=3,
        estimator=BLOCKS,
        on_progress=seen.append,
    )
    assert set(report) == {"none", "fast", *BASELINES, "undisturbed", *DISTURBED}
    assert all(tuple(block) == KEYS for block in report.values())
    for name in ("none", "fast", "vae_only", "undisturbed", "absent"):
        assert {**report[name], **PERFECT} == report[name], name
        assert report[name]["pose_accuracy"] == 1 and report[name]["lpips"] is None
    assert report["none"]["psnr_unseen"] == 100 and report["none"]["identity_unseen"] == 0  # of the one who turns
    assert [steps for steps, _, _ in pipe.asked] == [8] * 16 and tuned == [
        1,
        1,
    ]  # draft is 8 steps; two models, six maps, two people
    assert {own is None for _, own, _ in pipe.asked[2:8]} == {True, False} and pipe.asked[7][1] is None
    assert pipe.asked[0][2] == pipe.asked[1][2] == 3 * 1_000_003 and pipe.asked[8][2] == 3 * 1_000_003 + 1
    assert [(p.stage, p.step, p.total) for p in seen] == [("people", 1, 2), ("people", 2, 2)]
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert json.loads((tmp_path / "report.json").read_text()) == report
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["robustness"] == {"people": 2, "frames": ROBUST_FRAMES} and about["seed"] == 3 and about["steps"] == 8
    assert [one["name"] for one in about["each"]] == ["turn", "walk"] and about["each"][0]["scores"]["none"][
        "psnr"
    ] == 100
    assert about["not_measured"] == {"lpips": "not measured: no weights were given (--lpips)"}


class Sources(HTMLParser):
    """Collects the tags of a page and what they refer to."""

    def __init__(self):
        super().__init__()
        self.tags, self.sources = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "poster")]


def test_a_tiny_model_end_to_end(tmp_path):
    pipe = tiny_pipeline()
    clips = Listed(MannequinClips(1, pipe.model_config.size))
    given = dict(quality="draft", estimator=BLOCKS, about={"model": "<script>alert(1)</script>"})
    reports = [
        evaluate(pipe, made, tmp_path / name, **given)
        for name, made in (("a", clips), ("b", MannequinClips(1, pipe.model_config.size)))
    ]
    assert reports[0] == reports[1] and reports[0]["none"]["psnr"] > 3
    assert (tmp_path / "a" / "report.json").read_bytes() == (tmp_path / "b" / "report.json").read_bytes()
    assert set(reports[0]) == {"none", *BASELINES} and {path.name for path in (tmp_path / "a").iterdir()} == FILES
    other = evaluate(pipe, clips, tmp_path / "c", seed=1, **given)
    assert other["none"] != reports[0]["none"] and other["moved_texture"] == reports[0]["moved_texture"]
    assert read_image(tmp_path / "a" / "contact.png").shape == (40 + 20, 13 * 32, 3)
    assert all(read_image(tmp_path / "a" / name).std() > 5 for name in PICTURES)
    info = probe_video(tmp_path / "a" / "side_by_side.mp4")
    assert info.num_frames == 40 and info.fps == 20 and info.width == 4 * 8 * 32
    page = (tmp_path / "a" / "report.html").read_text()
    parser = Sources()
    parser.feed(page)
    assert "script" not in parser.tags and "&lt;script&gt;" in page and {"table", "img", "video"} <= parser.tags
    assert len(parser.sources) == 5 and all(source.startswith("data:") for source in parser.sources)
    assert "http" not in re.sub('data:.*?"', "", page) and "url(" not in page
    assert table(reports[0]) + "\n" == (tmp_path / "a" / "table.md").read_text()


def film(folder, name, poses_of):
    """A real video of somebody who stands still for 10 frames and then turns, with as much of the poses as `poses_of`
    keeps."""
    rgb, poses = render_clip(Figure.from_seed(HELD_OUT), "turn", 3, (100, 80), fps=1)
    frames = [0] * 10 + [1, 2, 0]
    write_video(rgb.numpy()[frames], folder / f"{name}.mp4", 30)
    write_poses(poses_of(replace(poses.select(frames), fps=30.0)), folder / f"{name}.npz")


def test_real_videos_with_what_their_poses_know(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    film(folder, "a$b_{", lambda poses: poses)
    pipe = tiny_pipeline()
    report = evaluate(
        pipe,
        VideoClips(folder, pipe.model_config),
        tmp_path / "whole",
        quality="draft",
        estimator=load_estimator("body"),
    )
    assert {key for key, value in report["none"].items() if value is None} == {"lpips", "lpips_mask"}
    film(folder, "a$b_{", lambda poses: PoseSequence(poses.parts, None, "none", 30.0))
    report = evaluate(pipe, VideoClips(folder, pipe.model_config), tmp_path / "parts", quality="draft", robustness=True)
    unknown = {
        "psnr_seen",
        "psnr_unseen",
        "identity_seen",
        "identity_unseen",
        "temporal_error",
        "pose_accuracy",
        "lpips",
        "lpips_mask",
    }
    assert {key for key, value in report["none"].items() if value is None} == unknown
    assert (
        set(report["moved_texture"].values()) == set(report["uv_noise"].values()) == {None}
        and report["part_colours"]["psnr"] > 5
    )
    about = json.loads((tmp_path / "parts" / "about.json").read_text())
    assert set(about["not_measured"]) == {"lpips", "pose_accuracy", "identity, temporal_error, seen and unseen"}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == FILES
    assert "| moved_texture | – |" in (tmp_path / "parts" / "table.md").read_text()


def test_nobody_in_view_leaves_nothing_to_say(clips):
    clip = clips[0]
    nobody = PoseSequence(np.zeros_like(clip.poses.parts), clip.poses.uv * 0, "mannequin")
    scores = Scorer(Clip("empty", clip.photo, clip.image_poses, nobody, clip.truth)).score(clip.truth)
    assert (
        scores["psnr"] == 100
        and scores["psnr_mask"] is None
        and scores["identity_seen"] is None
        and scores["temporal_error"] is None
    )
    assert scores["ssim_mask"] is None and json.dumps(scores, allow_nan=False)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_lpips_from_a_file(tmp_path, clips):
    class Distance(torch.nn.Module):
        """The interface of LPIPS: (N, 1, 1, 1) from two batches."""

        def forward(self, a, b):
            return (a - b).abs().mean(dim=[1, 2, 3], keepdim=True)

    class Strange(torch.nn.Module):
        def forward(self, a, b):
            return (a - b).abs().mean()

    for name, module in (("good.pt", Distance()), ("strange.pt", Strange())):
        torch.jit.trace(module, (torch.zeros(2, 3, 64, 64),) * 2).save(tmp_path / name)
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
    nothing = dict.fromkeys(KEYS)
    assert mean_scores([{**nothing, "psnr": 10.0}, {**nothing, "psnr": 20.00006, "ssim": 0.5}]) == {
        **nothing,
        "psnr": 15.0,
        "ssim": 0.5,
    }
    assert mean_scores([]) == nothing


def test_the_table():
    block = {**dict.fromkeys(KEYS), "psnr": 25.55, "sharpness": 0.9, "identity_seen": 0.0123}
    lines = table({"none": block, "moved_texture": dict.fromkeys(KEYS)}).splitlines()
    assert (
        lines[0].startswith("| | PSNR | PSNR person |")
        and len(lines) == 4
        and len({line.count("|") for line in lines}) == 1
    )
    assert (
        lines[2].startswith("| none | 25.6 | – |")
        and "| 0.90 | – | – | 0.012 |" in lines[2]
        and set(lines[3].split(" | ")[1:-1]) == {"–"}
    )
    assert table({"npz": {"read_s": 1.234}}) == "| | read_s |\n|---|---|\n| npz | 1.23 |"  # any other report as it is


def test_the_best_of_a_column():
    blocks = {"none": 24.04, "moved_texture": 24.0, "repeat_photo": 20.0, "vae_only": 30.0, "part_colours": None}
    report = {name: {"psnr": value, "l1": value, "sharpness": value} for name, value in blocks.items()}
    assert best_blocks(report, "psnr") == {
        "none",
        "moved_texture",
    }  # they are written alike, and the VAE has seen the truth
    assert best_blocks(report, "l1") == best_blocks(report, "sharpness") == {"repeat_photo"}
    assert best_blocks({"none": {"psnr": None}}, "psnr") == set()


def test_a_stop_leaves_no_report(tmp_path, clips):
    pipe = TruthTeller(clips)
    with pytest.raises(Cancelled):
        evaluate(pipe, Listed(clips), tmp_path, should_stop=lambda: len(pipe.asked) > 1)
    assert list(tmp_path.iterdir()) == [] and len(pipe.asked) == 2
