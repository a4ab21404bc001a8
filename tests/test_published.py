"""What README and docs/benchmark say of the shipped mini is what `evaluate` measured, and what its weights still do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dreampose_core.densepose.body_tracker import BodyTracker
from dreampose_core.evaluation.clips import DrawnPeople
from dreampose_core.evaluation.metrics import psnr
from dreampose_core.evaluation.scores import table
from dreampose_core.inputs.preview import moved_frames
from dreampose_core.model.loading import load_pipeline
from dreampose_core.settings import BODY_TRACKER, MINI, REPOSITORY
from examples.make_ready import PAIRS, READY, weights

PUBLISHED = REPOSITORY / "docs" / "benchmark"
IN_README = (
    ("none", "moved_texture", "repeat_photo"),
    ("psnr_mask", "psnr_unseen", "sharpness", "pose_accuracy"),
)  # rows and columns


def published(name: str) -> dict:
    return json.loads((PUBLISHED / name).read_text(encoding="utf-8"))


def between(text: str, name: str) -> str:
    """What stands between the markers of `name` in a Markdown file."""
    return text.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0].strip()


def test_the_tables_are_the_reports():
    report, readme = published("report.json"), (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert (PUBLISHED / "table.md").read_text(encoding="utf-8") == table(report) + "\n"
    assert between(readme, "benchmark") == table(
        {block: {measure: report[block][measure] for measure in IN_README[1]} for block in IN_README[0]}
    )
    assert published("about.json")["people"] >= 12 and published("about.json")["quality"] == "standard"
    assert len({tuple(block) for block in report.values()}) == 1  # every block has the same keys


def test_the_shipped_weights_still_reach_what_was_published():
    pipe = load_pipeline(str(MINI), "cpu")
    (clip,) = DrawnPeople(1, pipe.model_config, BodyTracker(BODY_TRACKER))
    moved = np.stack(list(moved_frames(clip.photo, clip.image_poses, clip.poses)))
    then = published("about.json")["each"][0]["scores"]
    for block, frames in (("none", clip.made_by(pipe, 0)), ("moved_texture", moved)):  # the seed is that of `evaluate`
        now = psnr(frames, clip.truth, clip.poses.mask)
        assert now == pytest.approx(then[block]["psnr_mask"], abs=0.3), block


def test_the_ready_made_videos_are_of_these_weights():
    assert (READY / "weights.txt").read_text(encoding="ascii").strip() == weights(), "python -m examples.make_ready"
    wanted = {f"{motion}-{person}{suffix}" for motion, person in PAIRS.items() for suffix in (".mp4", ".webp")}
    assert {path.name for path in READY.iterdir()} == wanted | {"weights.txt"}
