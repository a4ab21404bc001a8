"""The training loop: learns, averages, logs, keeps sound checkpoints and resumes from them to the bit."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from tiny import Toy, same, stop_after, weights

from dreampose_core.errors import Cancelled, Diverged, ModelError, StorageError
from dreampose_core.training import checkpoints, loop
from dreampose_core.training.loop import LoopOptions

SOON = {"checkpoint_share": 1e9}  # writing checkpoints may take all of the time

NOT_FINITE = {"loss": lambda module: torch.nan, "gradient": lambda module: (module.weight * 0).abs().sqrt().sum()}


def spoilt(kind, numbers):
    """A toy whose losses of these numbers are not finite, or their gradients."""
    return Toy(lambda loss, number, module: loss + NOT_FINITE[kind](module) if number in numbers else loss)


def check_goes_on(folder, options, whole, losses):
    """A training that goes on in the folder ends as `whole` did, to the bit."""
    rest = Toy()
    resumed, done = rest.run(options, folder=folder)
    assert done and resumed == losses and same(weights(whole.module), weights(rest.module))


def test_the_learning_rate_warms_up_and_falls():
    options = LoopOptions(100, lr=2.0, warmup=10, cooldown=0.25)
    rates = [options.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0)
    assert all(rate == pytest.approx(2.0) for rate in rates[9:76])
    assert all(a > b for a, b in zip(rates[75:], rates[76:])) and 0 < rates[99] < 0.1


def test_the_average_forgets_the_start_and_is_what_is_left():
    options = LoopOptions(40, lr=0.1, warmup=1, ema=0.9)
    assert options.ema_at(0) == 0.1 and options.ema_at(10**6) == 0.9
    raw = []
    toy = Toy(lambda loss, _, module: raw.append(module.weight.detach().clone()) or loss)
    toy.run(options)
    plain = Toy()
    plain.run(LoopOptions(40, lr=0.1, warmup=1, ema=None))
    average = raw[0]
    for step, value in enumerate([*raw[1:], plain.module.weight.detach()]):
        average = average * options.ema_at(step) + value * (1 - options.ema_at(step))
    assert torch.allclose(toy.module.weight, average, atol=1e-6)
    assert not torch.allclose(plain.module.weight, average, atol=1e-4)


def test_the_loop_learns_logs_and_keeps_two_checkpoints(tmp_path):
    seen, options = [], LoopOptions(50, lr=0.1, warmup=1, checkpoint_every=10, **SOON)
    losses, done = Toy().run(options, folder=tmp_path, on_progress=seen.append)
    assert done and len(losses) == 50 and np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])
    files = ["checkpoint-40", "checkpoint-50", "stats.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40]
    assert lines[0]["loss"] == pytest.approx(np.mean(losses[:20]), abs=1e-5)
    assert [line["lr"] for line in lines] == [0.1, pytest.approx(0.1 * 11 / 12.5, rel=1e-5)]  # of the last step of each
    assert [(p.stage, p.step, p.total) for p in seen] == [("toy", i + 1, 50) for i in range(50)]
    assert seen[-1].loss == losses[-1]


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("at", [1, 7, 10, 19])
def test_a_resumed_run_is_bit_equal(tmp_path, ema, at):
    options = LoopOptions(20, lr=0.1, warmup=3, ema=ema, checkpoint_every=5, **SOON)
    whole = Toy()
    losses, _ = whole.run(options)
    with pytest.raises(Cancelled):
        Toy().run(options, folder=tmp_path, should_stop=stop_after(at))
    for _ in range(2):  # the second time nothing is left to do
        check_goes_on(tmp_path, options, whole, losses)


def test_a_crash_in_the_middle_resumes_from_the_last_checkpoint(tmp_path):
    options = LoopOptions(20, lr=0.1, ema=None, checkpoint_every=5, **SOON)
    whole, broken = Toy(), Toy(lambda loss, step, _: loss if step < 12 else 1 / 0)
    losses, _ = whole.run(options)
    (tmp_path / ".part.7.checkpoint-15").mkdir()  # what a power cut leaves behind
    with pytest.raises(ZeroDivisionError):
        broken.run(options, folder=tmp_path)
    check_goes_on(tmp_path, options, whole, losses)
    assert not list(tmp_path.glob(".*"))


def test_accumulated_gradients_are_those_of_the_mean_loss(tmp_path):
    options = LoopOptions(6, lr=0.1, warmup=1, ema=0.9)
    mean, asked = Toy(), []
    parts = Toy(lambda loss, number, _: asked.append(number) or loss)
    real = mean.loss_at
    mean.loss_at = lambda step: (real(2 * step) + real(2 * step + 1)) / 2
    expected, _ = mean.run(options)
    losses, _ = parts.run(replace(options, accumulate=2))
    assert asked == list(range(12)) and losses == pytest.approx(expected, abs=1e-6)
    assert torch.allclose(parts.module.weight, mean.module.weight, atol=1e-6)
    plain = Toy()
    plain.run(options)
    assert not torch.allclose(parts.module.weight, plain.module.weight, atol=1e-3)  # or this could not fail


@pytest.mark.parametrize("at", [6, 7])
def test_between_two_losses_of_a_step_training_may_stop_and_goes_on_to_the_same_bits(tmp_path, at):
    """Asked before every loss, it stops after the third step, or in the middle of the fourth, which then counts for
    nothing."""
    options = LoopOptions(6, lr=0.1, ema=0.9, accumulate=2)
    whole, asked = Toy(), []
    part = Toy(lambda loss, number, _: asked.append(number) or loss)
    losses, _ = whole.run(options)
    with pytest.raises(Cancelled):
        part.run(options, folder=tmp_path, should_stop=stop_after(at))
    assert asked == list(range(at)) and [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert all(parameter.grad is None for parameter in part.module.parameters())
    check_goes_on(tmp_path, options, whole, losses)


@pytest.mark.parametrize("kind", NOT_FINITE)
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_loss_or_gradient_that_is_no_number_stops_and_leaves_the_last_good_weights(tmp_path, kind, ema):
    options = LoopOptions(20, lr=0.1, accumulate=2, ema=ema, checkpoint_every=5, **SOON)
    toy = spoilt(kind, {15})  # the second loss of its step
    with pytest.raises(Diverged, match=r"no longer a number at step 7: checkpoint-5 in .* is the last good one; start"):
        toy.run(options, folder=tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]
    # its weights are what is left, averaged where there is an average
    good = checkpoints.newest_checkpoint(tmp_path)[1]
    assert torch.equal(toy.module.weight, good["weight.0" if ema is None else "average.0"])
    assert torch.isfinite(toy.module.weight).all() and Toy().run(options, folder=tmp_path)[1]
    toy = spoilt(kind, {3})
    with pytest.raises(ModelError, match="no longer a number at step 1: start again in another folder") as raised:
        toy.run(options, folder=tmp_path / "new")
    assert not isinstance(raised.value, Diverged)  # there is nothing good to start from
    assert torch.isfinite(toy.module.weight).all() and not list((tmp_path / "new").glob("checkpoint-*"))


@pytest.mark.parametrize("damage", ["cut", "bit", "no state", "no manifest", "empty manifest"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(tmp_path, caplog, damage):
    options = LoopOptions(20, lr=0.1, ema=None, checkpoint_every=5, **SOON)
    whole = Toy()
    losses, _ = whole.run(options)
    with pytest.raises(Cancelled):
        Toy().run(options, folder=tmp_path, should_stop=stop_after(10))
    state, manifest = (tmp_path / "checkpoint-10" / name for name in ("state.safetensors", "manifest.json"))
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    {
        "cut": lambda: state.write_bytes(content[:-5]),
        "bit": lambda: state.write_bytes(content),
        "no state": state.unlink,
        "no manifest": manifest.unlink,
        "empty manifest": lambda: manifest.write_text("{}"),
    }[damage]()
    rest, seen = Toy(), []
    resumed, done = rest.run(options, folder=tmp_path, on_progress=lambda p: seen.append(p.step))
    assert done and seen[0] == 6 and resumed == losses and same(weights(whole.module), weights(rest.module))
    assert "checkpoint-10 is damaged" in caplog.text


def test_checkpoints_take_no_more_than_their_share_of_the_time(tmp_path, monkeypatch):
    """A step takes a second, writing two: one is due after 5 steps, and has to wait until 2 s are 10 % of the time
    since the last."""
    now, saved = [0.0], []

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    def slowly(folder, step, state):
        now[0] += 2
        saved.append(step)

    def a_second(loss, step, module):
        now[0] += 1
        return loss

    toy = Toy(a_second)
    monkeypatch.setattr(loop, "time", Clock)
    monkeypatch.setattr(loop, "save_checkpoint", slowly)
    toy.run(LoopOptions(50, lr=0.1, checkpoint_every=5, checkpoint_share=0.1), folder=tmp_path)
    assert saved == [5, 25, 45, 50]
    saved.clear()
    toy.run(LoopOptions(150, lr=0.1, checkpoint_every=1000, checkpoint_seconds=60.0), folder=tmp_path)
    assert saved == [60, 127, 150]  # after a minute; then 2 s have to be 3 % of the time


def test_training_ends_when_what_is_held_back_no_longer_gets_better(tmp_path):
    """The weights of the best moment are kept; stopped and gone on with, the end and the weights are the same."""
    errors, at_best = [5.0, 3.0, 2.0, 2.5, 2.0, 2.1, 9.0, 0.0], []
    options = LoopOptions(1000, lr=0.1, ema=None, held_every=4, patience=3, checkpoint_every=3, **SOON)

    def run(toy, folder=None, **kwargs):
        looks = iter(range(len(errors)))
        if folder is not None and (found := checkpoints.newest_checkpoint(folder)) is not None:
            looks = iter(range(len(found[1]["held"]), len(errors)))

        def held():
            look = next(looks)
            if look == 2:
                at_best.append(toy.module.weight.detach().clone())
            return errors[look]

        return toy.run(options, held=held, folder=folder, **kwargs)

    whole, seen = Toy(), []
    losses, done = run(whole, on_progress=seen.append)
    assert done and len(losses) == 20  # 2.5, 2.0, 2.1 were no better than 2.0
    assert torch.equal(whole.module.weight, at_best[0])
    assert [p.loss for p in seen] == [5.0] * 3 + [3.0] * 4 + [2.0] * 4 + [2.5] * 4 + [2.0] * 4 + [2.1]  # what is shown
    for number, at in enumerate((0, 1, 8, 9, 13, 19)):
        with pytest.raises(Cancelled):
            run(Toy(), folder=tmp_path / str(number), should_stop=stop_after(at))
        rest = Toy()
        resumed, done = run(rest, folder=tmp_path / str(number))
        assert done and resumed == losses and same(weights(whole.module), weights(rest.module))
        again, done = run(Toy(), folder=tmp_path / str(number))  # nothing is left to do
        assert done and again == losses


def test_minutes_stop_with_a_checkpoint(tmp_path):
    moment = iter([0.0, 0.0, 0.0, *[10.0] * 100])

    class Clock:
        monotonic = staticmethod(lambda: next(moment))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", Clock)
        losses, done = Toy().run(LoopOptions(1000, lr=0.1, minutes=0.1), folder=tmp_path)
    assert not done and len(losses) == 1 and (tmp_path / "checkpoint-1").is_dir()


def test_checkpoints_of_another_model_are_refused(tmp_path):
    Toy().run(LoopOptions(2, lr=0.1), folder=tmp_path)
    other = Toy()
    for module in (torch.nn.Linear(4, 1), torch.nn.Linear(3, 1, bias=False)):
        other.module = module
        with pytest.raises(ModelError, match="belong to another model"):
            other.run(LoopOptions(4, lr=0.1), folder=tmp_path)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
IN_RUST = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (checkpoints, "save_file", IN_RUST),
        (Path, "write_text", FULL),
        (checkpoints, "flush", FULL),
        (os, "replace", FULL),
    ],
)
def test_a_disk_that_fills_up_leaves_the_checkpoint_before_to_go_on_from(tmp_path, monkeypatch, owner, name, error):
    """Wherever in the writing of the third checkpoint it is; the rest of the run is then the same to the bit."""
    options = LoopOptions(20, lr=0.1, ema=0.9, checkpoint_every=5, **SOON)
    whole, real = Toy(), getattr(owner, name)
    losses, _ = whole.run(options)

    def failing(*args, **kwargs):
        if any("checkpoint-15" in str(arg) for arg in args):
            raise error
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        with pytest.raises(StorageError, match="checkpoint-15 could not be written: the disk is full. Free some space"):
            Toy().run(options, folder=tmp_path)
    kept = ["checkpoint-10", "checkpoint-5"]  # and nothing half written
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    check_goes_on(tmp_path, options, whole, losses)


def test_a_full_disk_under_the_log_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "open", lambda *_: Path("/dev/full").open("w"), raising=False)
    with pytest.raises(StorageError, match="stats.jsonl could not be written: the disk is full"):
        Toy().run(LoopOptions(20, lr=0.1), folder=tmp_path)


def test_a_place_without_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="stage could not be written: not a directory. Choose a folder"):
        Toy().run(LoopOptions(2, lr=0.1), folder=tmp_path / "file" / "stage")
