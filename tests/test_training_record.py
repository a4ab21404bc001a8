"""What a training writes about itself: a line of figures now and then, and a picture of its losses."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import Toy, same, stop_after, weights

from dreampose_core.errors import Cancelled, StorageError
from dreampose_core.media import read_image
from dreampose_core.training import loop, record
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.record import smoothed, write_curve

OPTIONS = LoopOptions(6, lr=0.1, warmup=3, ema=None, sample_every=2, checkpoint_share=1e9, record=True)


def line(folder=None, options=OPTIONS, **kwargs):
    toy = Toy()
    return toy.module, *toy.run(options, folder=folder, **kwargs)


def test_smoothing_against_hand_computed_values():
    assert smoothed([4.0]).tolist() == [4.0]
    five_wide = [2, 2.5, 3, 4, 4.5, 5]  # fewer at the ends
    assert smoothed([1.0, 2, 3, 4, 5, 6]).tolist() == pytest.approx(five_wide)
    noise = np.random.default_rng(0).normal(size=4000)
    assert smoothed(list(noise))[100:-100].std() == pytest.approx(1 / np.sqrt(101), rel=0.2)  # a fortieth of them


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([0.97**i for i in range(200)], "log"),
        ([1 - 0.001 * i for i in range(200)], "linear"),
        ([0.5 - 0.01 * i for i in range(200)], "linear"),
        ([3.0], "linear"),
    ],
)
def test_a_curve_is_a_picture_and_logarithmic_where_the_loss_falls_far(tmp_path, monkeypatch, losses, scale):
    from matplotlib.axes import Axes

    scales, real = [], Axes.grid
    monkeypatch.setattr(
        Axes, "grid", lambda self, *given, **how: scales.append(self.get_yscale()) or real(self, *given, **how)
    )
    write_curve(losses, "base", tmp_path / "loss.png")
    picture = read_image(tmp_path / "loss.png")
    assert scales[-1] == scale and picture.shape == (495, 880, 3)
    blue = np.abs(picture.astype(int) - [29, 78, 216]).sum(2) < 60  # the smoothed line
    assert len(losses) == 1 or blue.any(0).mean() > 0.7 and blue.mean() < 0.1
    assert list(tmp_path.iterdir()) == [tmp_path / "loss.png"]


def test_a_curve_is_drawn_now_and_then_and_at_the_end_of_every_call_and_changes_no_weights(tmp_path, monkeypatch):
    drawn, real = [], loop.write_curve
    monkeypatch.setattr(loop, "write_curve", lambda losses, *rest: drawn.append(len(losses)) or real(losses, *rest))
    with pytest.raises(Cancelled):
        line(tmp_path, should_stop=stop_after(3))
    assert drawn == [2, 3] and read_image(tmp_path / "loss.png").shape[2] == 3
    module, _, _ = line(tmp_path)
    assert drawn == [2, 3, 4, 6, 6] and same(weights(module), weights(line()[0]))
    line(tmp_path)  # nothing was left to do
    assert drawn == [2, 3, 4, 6, 6]


def test_a_full_disk_ends_no_training_by_the_picture_and_one_by_the_log_with_a_sentence(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", full)
        assert line(tmp_path / "a")[2] and not (tmp_path / "a" / "loss.png").exists()
    monkeypatch.setattr(record, "open", full, raising=False)
    monkeypatch.setattr(loop, "EVERY", 2)
    with pytest.raises(StorageError, match="stats.jsonl could not be written: the disk is full"):
        line(tmp_path / "b")
    assert (tmp_path / "b" / "checkpoint-2").is_dir()  # what was done by then
