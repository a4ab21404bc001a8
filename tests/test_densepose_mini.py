"""The small estimator: what the shipped weights reach on held-out mannequins, sizes, and pictures without anybody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreampose_core.densepose import Estimates, load_estimator
from dreampose_core.densepose.mini import NOTICE, MiniEstimator
from dreampose_core.densepose.network import DensePoseNet
from dreampose_core.errors import Cancelled, ModelError
from dreampose_core.evaluation.estimator import evaluate_estimator
from dreampose_core.evaluation.metrics import densepose_accuracy
from dreampose_core.settings import MINI_ESTIMATOR
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip
from dreampose_core.training.run import EstimatorRun, train_mini_estimator


@pytest.fixture(scope="module")
def estimator():
    return load_estimator("mini")


@pytest.mark.slow
def test_the_shipped_weights_reach_what_is_published(estimator, tmp_path):
    report = evaluate_estimator(estimator, 10, tmp_path)
    assert (
        report["160 x 128"]["parts"] >= 0.90
        and report["160 x 128"]["union"] >= 0.88
        and report["160 x 128"]["uv"] <= 0.05
    ), report
    assert report["160 x 128, CRF 23"]["parts"] >= 0.89 and report["320 x 256"]["parts"] >= 0.90, report
    assert all(row["uv"] <= 0.05 for name, row in report.items() if name != "nobody"), report
    assert report["nobody"] == {"parts": 0, "union": 0, "uv": 1}
    assert sum(path.stat().st_size for path in MINI_ESTIMATOR.iterdir()) <= 5 << 20


@pytest.mark.parametrize("size", [(160, 128), (131, 97), (90, 300), (400, 120)])
def test_maps_have_the_pictures_size(estimator, size):
    rgb, truth = render_clip(Figure.from_seed(HELD_OUT + 3), "walk", 2, size)
    found = estimator.estimate(rgb.numpy())
    assert found.size == size and len(found) == 2 and found.charts == "mannequin"
    assert not found.uv[:, 0][~found.mask].any(), "U, V are 0 off the person"
    if size[1] >= 0.7 * size[0]:  # the whole figure is in the picture
        assert densepose_accuracy(found, truth)["parts"] > 0.75


def test_a_small_person_is_looked_at_again(estimator):
    """A quarter of the picture's height: far below what the network was trained on."""
    rgb, truth = render_clip(Figure.from_seed(HELD_OUT + 1), "idle", 1, (160, 128))
    frame, parts = np.full((640, 512, 3), 200, np.uint8), np.zeros((640, 512), np.uint8)
    frame[400:560, 300:428], parts[400:560, 300:428] = rgb[0].numpy(), truth.parts[0]
    found = estimator.estimate([frame])
    right = (found.parts[0] == parts) & (parts > 0)
    assert right.sum() / ((found.parts[0] > 0) | (parts > 0)).sum() > 0.8


def test_nobody_is_found_where_nobody_is(estimator):
    studio = Figure.from_seed(HELD_OUT).backdrop((160, 128)).mul(255).byte().numpy()
    assert estimator.estimate([studio]).mask.mean() < 0.002


def test_estimates_load_late_and_say_it_once_used():
    estimates = Estimates("mini")
    assert estimates.notices == ()
    rgb, _ = render_clip(Figure.from_seed(HELD_OUT), "idle", 1, (160, 128))
    own, notices = estimates.of_photo(rgb[0].numpy())
    assert len(own) == 1 and notices == () and estimates.notices == (NOTICE,)
    nothing, notices = estimates.of_photo(np.full((160, 128, 3), 128, np.uint8))
    assert nothing is None and "Nobody was found in the photo" in notices[0]
    assert Estimates("none").callback is None and Estimates("none").of_photo(rgb[0].numpy()) == (None, ())
    with pytest.raises(Cancelled):
        Estimates("mini", should_stop=lambda: True).of_photo(rgb[0].numpy())


def test_a_large_photo_gets_a_map_of_its_shape():
    photo = np.full((1500, 1000, 3), 90, np.uint8)
    photo[300:1200, 350:650] = render_clip(Figure.from_seed(HELD_OUT), "idle", 1, (900, 300))[0][0].numpy()
    own, _ = Estimates("mini").of_photo(photo)
    assert own.size == (768, 512)


def test_a_folder_without_an_estimator(tmp_path):
    with pytest.raises(ModelError, match="missing, incomplete or damaged"):
        MiniEstimator(tmp_path)


def test_training_goes_on_exactly(tmp_path):
    """3 steps are 1 step, a stop, and 2 more, bit for bit."""
    torch.set_num_threads(1)
    run = EstimatorRun(size=(32, 32), steps=3, batch_size=2)
    assert train_mini_estimator(run, tmp_path / "whole")
    stopping = iter([False, False, True])
    with pytest.raises(Cancelled):
        train_mini_estimator(run, tmp_path / "parts", should_stop=lambda: next(stopping))
    assert train_mini_estimator(run, tmp_path / "parts", resume=True)
    whole, parts = (
        DensePoseNet.from_pretrained(tmp_path / name / "estimator").state_dict() for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
