"""What a training writes about itself: a line of figures now and then, and a picture of its losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import Toy, same, stop_after, weights

from dreampose_core.errors import Cancelled, StorageError
from dreampose_core.media import read_image
from dreampose_core.training import loop, record
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.record import write_curve

OPTIONS = LoopOptions(6, lr=0.1, warmup=3, ema=None, sample_every=2, checkpoint_share=1e9, record=True)


@pytest.mark.parametrize(
    ("losses", "scale"), [([0.97**i for i in range(200)], "log"), ([0.5 - 0.01 * i for i in range(200)], "linear")]
)
def test_a_curve_is_a_picture_and_logarithmic_where_the_loss_falls_far(tmp_path, monkeypatch, losses, scale):
    from matplotlib.axes import Axes

    axes, real = [], Axes.grid
    monkeypatch.setattr(Axes, "grid", lambda self, *given, **how: axes.append(self) or real(self, *given, **how))
    write_curve(losses, "base", tmp_path / "loss.png")
    picture = read_image(tmp_path / "loss.png")
    assert axes[0].get_yscale() == scale and picture.shape == (495, 880, 3)
    steps, mean = axes[0].lines[1].get_data()
    assert mean[10] == pytest.approx(np.mean(losses[10:15])) and steps[10] == 13  # of the middle one
    blue = np.abs(picture.astype(int) - [29, 78, 216]).sum(2) < 60  # that line
    assert blue.any(0).mean() > 0.7 and blue.mean() < 0.1
    assert list(tmp_path.iterdir()) == [tmp_path / "loss.png"]


def test_a_curve_is_drawn_now_and_then_and_at_the_end_of_every_call_and_changes_no_weights(tmp_path, monkeypatch):
    drawn, real = [], loop.write_curve
    monkeypatch.setattr(loop, "write_curve", lambda losses, *rest: drawn.append(len(losses)) or real(losses, *rest))
    with pytest.raises(Cancelled):
        Toy().run(OPTIONS, folder=tmp_path, should_stop=stop_after(1))  # one loss is a picture, too
    assert drawn == [1] and read_image(tmp_path / "loss.png").shape[2] == 3
    whole, rest = Toy(), Toy()
    whole.run(replace(OPTIONS, record=False))
    rest.run(OPTIONS, folder=tmp_path)
    assert drawn == [1, 2, 4, 6, 6] and same(weights(whole.module), weights(rest.module))
    Toy().run(OPTIONS, folder=tmp_path)  # nothing was left to do
    assert drawn == [1, 2, 4, 6, 6]


def test_a_full_disk_ends_no_training_by_the_picture_and_one_by_the_log_with_a_sentence(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", full)
        assert Toy().run(OPTIONS, folder=tmp_path / "a")[1] and not (tmp_path / "a" / "loss.png").exists()
    monkeypatch.setattr(record, "open", full, raising=False)
    monkeypatch.setattr(loop, "EVERY", 2)
    with pytest.raises(StorageError, match="stats.jsonl could not be written: the disk is full"):
        Toy().run(OPTIONS, folder=tmp_path / "b")
