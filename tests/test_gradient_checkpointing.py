"""Gradient checkpointing: the same gradients in every stage, from blocks that are computed twice, and nothing of it is
left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny import textured, tiny_pipeline

from dreampose_core.training import base
from dreampose_core.training.base import train_base, train_end_to_end, train_vae
from dreampose_core.training.drawn import Crops
from dreampose_core.training.loop import LoopOptions

OPTIONS = LoopOptions(2, 1e-3, warmup=1, ema=None)
STAGES = {  # how it is trained, the model, and a block that is computed again
    "vae": (train_vae, textured, lambda pipe: pipe.vae.decoder.up_blocks[0]),
    "base": (train_base, tiny_pipeline, lambda pipe: pipe.unet.down_blocks[0].resnets[0]),
    "clip": (train_base, tiny_pipeline, lambda pipe: pipe.image_encoder.encoder.layers[0].mlp),
    "end_to_end": (train_end_to_end, tiny_pipeline, lambda pipe: pipe.vae.decoder.mid_block),
}


@pytest.fixture(scope="module")
def samples():
    """Crops of noise, with noise as their texture."""
    draw = torch.Generator().manual_seed(0)
    pictures, planes = torch.rand(4, 3, 64, 64, generator=draw) * 2 - 1, torch.rand(2, 5, 64, 64, generator=draw)
    parts = torch.randint(0, 25, (2, 5, 64, 64), generator=draw)
    crops = Crops(F.interpolate(pictures[:2], (80, 64)), pictures[2:], planes, parts, torch.rand(2, 5, 2, 64, 64))
    return SimpleNamespace(batch=lambda step: crops)


def gradients(monkeypatch, stage, samples, checkpointing) -> tuple[list[torch.Tensor | None], int]:
    """The gradients of the stage's first loss, and how often a block of it was computed."""
    step, make, block = STAGES[stage]
    pipe, calls, found = make(), [], []

    def one_loss(parameters, loss_at, *args, **kwargs):
        loss_at(0).backward()
        found.extend(parameter.grad for parameter in parameters)
        return [], True

    handle = block(pipe).register_forward_pre_hook(lambda *_: calls.append(1) if torch.is_grad_enabled() else None)
    with monkeypatch.context() as patch:
        patch.setattr(base, "train", one_loss)
        step(pipe, samples, OPTIONS, checkpointing=checkpointing)
    handle.remove()
    return found, len(calls)


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_are_the_same_and_blocks_are_computed_twice(monkeypatch, samples, stage):
    (kept, once), (computed, twice) = (gradients(monkeypatch, stage, samples, on) for on in (False, True))
    assert twice == 2 * once > 0 and any(one is not None and one.abs().max() > 1e-4 for one in kept)
    assert all(torch.allclose(a, b, atol=1e-5) if a is not None else b is None for a, b in zip(kept, computed))


@pytest.mark.parametrize("stage", ["vae", "base", "end_to_end"])
def test_a_trained_model_knows_nothing_of_it(samples, stage):
    """Nor does one whose training ended in an error."""
    step, make, _ = STAGES[stage]
    pipe, other = make(), make()
    for one, checkpointing in ((pipe, True), (other, False)):
        step(one, samples, OPTIONS, checkpointing=checkpointing)
    with pytest.raises(ZeroDivisionError):
        step(pipe, samples, OPTIONS, checkpointing=True, should_stop=lambda: 1 / 0)
    for name in ("vae", "unet", "image_encoder"):
        module = getattr(pipe, name)
        assert not any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
        pairs = zip(module.parameters(), getattr(other, name).parameters())
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)
