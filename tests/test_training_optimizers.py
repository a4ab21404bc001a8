"""The optimizers: both train, and what they remember is kept and gone on with to the bit."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from tiny import Toy, same, stop_after, weights

from dreampose_core.errors import Cancelled, InputError
from dreampose_core.training.checkpoints import newest_checkpoint
from dreampose_core.training.distributed import random
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.optimizers import make_optimizer, optimizer_state

OPTIONS = LoopOptions(4, lr=1e-2, warmup=1, ema=0.9, optimizer="adamw8bit", checkpoint_share=1e9)


class Net(Toy):
    """Weights large enough for 8 bits (64 x 64 twice), next to biases that are not."""

    def __init__(self):
        super().__init__()
        self.module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64))

    def loss_at(self, number):
        x = torch.randn(16, 64, generator=random(0, number, 0))
        return (self.module(x) - x.roll(1, 1)).square().mean()


def test_8_bits_train_as_32_do_in_a_quarter_of_the_memory():
    ends, memory = {}, {}
    for name in ("adamw", "adamw8bit"):
        net = Net()
        losses, _ = net.run(replace(OPTIONS, steps=150, ema=None, optimizer=name))
        ends[name] = sum(losses[-10:]) / 10
        assert ends[name] < 0.3 * losses[0]
        trained = list(net.module.parameters())
        optimizer = make_optimizer(name, trained, 1e-3)
        net.loss_at(0).backward()
        optimizer.step()
        state = optimizer_state(optimizer, trained)
        state = {key: value for key, value in state.items() if "qmap" not in key}  # the same 2 KB for all
        assert (
            (state["optimizer.0.state1"].dtype == torch.uint8)
            if name == "adamw8bit"
            else "optimizer.0.exp_avg" in state
        )
        memory[name] = sum(value.numel() * value.element_size() for value in state.values())
    assert ends["adamw8bit"] == pytest.approx(ends["adamw"], rel=0.1) and memory["adamw8bit"] < 0.3 * memory["adamw"]


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_resumed_run_is_bit_equal(tmp_path, name, channels_last):
    """Also where channels are last, as on a GPU; the optimizer in 8 bits takes numbers in the order in which they
    lie."""

    def net():
        torch.manual_seed(0)
        one = Net()
        if channels_last:
            one.module = torch.nn.Conv2d(16, 32, 3).to(memory_format=torch.channels_last)  # 4608 weights
            one.loss_at = lambda number: (
                one.module(torch.randn(2, 16, 6, 5, generator=random(0, number, 0))).square().mean()
            )
        return one

    options, whole, rest = replace(OPTIONS, optimizer=name, lr=0.1), net(), net()
    losses, _ = whole.run(options)
    with pytest.raises(Cancelled):
        net().run(options, folder=tmp_path, should_stop=stop_after(2))
    state = newest_checkpoint(tmp_path)[1]
    assert state["optimizer.0.step"].item() == 2 and ("optimizer.0.qmap1" in state) == (name == "adamw8bit")
    assert rest.run(options, folder=tmp_path) == (losses, True) and same(weights(whole.module), weights(rest.module))


def test_what_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    Net().run(replace(OPTIONS, optimizer="adamw"))  # which does not need it
    with pytest.raises(InputError, match="adamw8bit needs bitsandbytes.*pip install -r requirements-train.txt"):
        Net().run(OPTIONS)
