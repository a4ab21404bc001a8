"""What a training writes about itself: a picture of its losses, and TensorBoard's events."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tiny import Toy, same, stop_after, weights

from dreampose_core.errors import Cancelled, InputError, StorageError
from dreampose_core.media import read_image
from dreampose_core.training import record
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.record import smoothed, write_curve
from dreampose_core.training.run import train_mini
from dreampose_core.training.run_folder import MiniRun

OPTIONS = LoopOptions(6, lr=0.1, warmup=3, ema=None, sample_every=2, checkpoint_share=1e9, curve=True, tensorboard=True)
FULL = OSError(28, "No space left on device")


def line(folder=None, options=OPTIONS, **kwargs):
    toy = Toy()
    return toy.module, *toy.run(options, folder=folder, **kwargs)


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_smoothing_against_hand_computed_values():
    assert smoothed([4.0]).tolist() == [4.0]
    assert smoothed([1.0, 2, 3, 4, 5, 6]).tolist() == pytest.approx(
        [2, 2.5, 3, 4, 4.5, 5]
    )  # five wide, fewer at the ends
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
        Axes, "grid", lambda self, *args, **kwargs: scales.append(self.get_yscale()) or real(self, *args, **kwargs)
    )
    write_curve(losses, "base", tmp_path / "loss.png")
    picture = read_image(tmp_path / "loss.png")
    assert scales[-1] == scale and picture.shape == (495, 880, 3)
    blue = np.abs(picture.astype(int) - [29, 78, 216]).sum(2) < 60  # the smoothed line
    assert len(losses) == 1 or blue.any(0).mean() > 0.7 and blue.mean() < 0.1
    assert list(tmp_path.iterdir()) == [tmp_path / "loss.png"]


def test_a_curve_is_drawn_now_and_then_and_at_the_end_of_every_call(tmp_path, monkeypatch):
    drawn, real = [], record.write_curve
    monkeypatch.setattr(
        record, "write_curve", lambda losses, stage, path: drawn.append(len(losses)) or real(losses, stage, path)
    )
    with pytest.raises(Cancelled):
        line(tmp_path, should_stop=stop_after(3))
    assert drawn == [2, 3] and read_image(tmp_path / "loss.png").shape[2] == 3
    line(tmp_path)
    assert drawn == [2, 3, 4, 6, 6]
    line(tmp_path)  # nothing was left to do
    assert drawn == [2, 3, 4, 6, 6]


def test_tensorboard_has_losses_rates_and_sheets_and_forgets_what_was_undone(tmp_path):
    sheet = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    with pytest.raises(Cancelled):
        line(tmp_path, should_stop=stop_after(4))
    (tmp_path / "checkpoint-4").rename(tmp_path / "lost")  # as if killed before it was written
    asked = iter(range(10))
    with pytest.raises(Cancelled):
        line(tmp_path, should_stop=lambda: next(asked) >= 2)
    _, losses, done = line(tmp_path, sample=lambda step: sheet + step)
    assert done and line(tmp_path)[1] == losses
    found = events(tmp_path)
    assert [e.step for e in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [e.value for e in found.Scalars("loss")] == pytest.approx(losses)
    assert [e.value for e in found.Scalars("lr")] == pytest.approx([OPTIONS.lr_at(step) for step in range(6)])
    assert [e.step for e in found.Images("samples")] == [4, 6]
    (tmp_path / "sheet.png").write_bytes(found.Images("samples")[-1].encoded_image_string)
    assert np.array_equal(read_image(tmp_path / "sheet.png"), sheet + 6)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3  # the last call had nothing to say


def test_none_of_it_changes_the_weights(tmp_path):
    with_it, _, _ = line(tmp_path, sample=lambda step: np.zeros((4, 4, 3), np.uint8))
    without, _, _ = line(options=LoopOptions(6, lr=0.1, warmup=3, ema=None))
    assert same(weights(with_it), weights(without))


def test_a_full_disk_ends_no_training_by_the_picture_and_one_by_the_log_with_a_sentence(tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", full)
        assert line(tmp_path / "a")[2]
        assert "loss.png could not be written: the disk is full" in caplog.text
    writer = record.summary_writer()
    for name, what in (("add_scalar", "tensorboard"), ("close", "tensorboard")):
        with monkeypatch.context() as patch:
            patch.setattr(writer, name, full)
            with pytest.raises(StorageError, match=f"{what} could not be written: the disk is full"):
                line(tmp_path / name)
    with monkeypatch.context() as patch:
        patch.setattr(record, "open", full, raising=False)
        with pytest.raises(StorageError, match="stats.jsonl could not be written: the disk is full"):
            line(tmp_path / "b", LoopOptions(6, lr=0.1, log_every=2))
    assert (tmp_path / "b" / "checkpoint-2").is_dir()  # what was done by then


def test_a_missing_tensorboard_is_one_sentence_before_anything_begins(tmp_path, monkeypatch):
    for name in [
        name
        for name in sys.modules
        if name.split(".")[0] == "tensorboard" or name.startswith("torch.utils.tensorboard")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match="needs TensorBoard.*pip install -r requirements-train.txt"):
        train_mini(MiniRun(data="clips", tensorboard=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
