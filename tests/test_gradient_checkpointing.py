"""Gradient checkpointing: the same gradients in every stage, from blocks that are computed twice, and nothing of it is
left."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_pipeline

from dreampose_core.training import base
from dreampose_core.training.base import train_base, train_end_to_end, train_vae
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.videos import VideoSamples

OPTIONS = LoopOptions(2, 1e-3, warmup=1, ema=None)
STAGES = {  # how it is trained, and a block that is computed again
    "vae": (train_vae, lambda pipe: pipe.vae.encoder.mid_block),
    "base": (train_base, lambda pipe: pipe.unet.down_blocks[0].resnets[0]),
    "clip": (train_base, lambda pipe: pipe.image_encoder.encoder.layers[0].mlp),
    "end_to_end": (train_end_to_end, lambda pipe: pipe.vae.decoder.mid_block),
}


@pytest.fixture(scope="module")
def samples(tiny_clips):
    return VideoSamples(tiny_clips, (40, 32), 2)


def gradients(monkeypatch, stage, pipe, samples, checkpointing) -> tuple[dict[str, torch.Tensor], int]:
    """The gradients of the stage's first loss, and how often a block of it was computed."""
    step, block = STAGES[stage]
    calls, found = [], {}

    def one_loss(modules, loss_at, *args, **kwargs):
        loss_at(0).backward()
        found.update(
            {
                f"{name}.{key}": p.grad
                for name, m in modules.items()
                for key, p in m.named_parameters()
                if p.grad is not None
            }
        )
        return [], True

    handle = block(pipe).register_forward_pre_hook(lambda *_: calls.append(1) if torch.is_grad_enabled() else None)
    with monkeypatch.context() as patch:
        patch.setattr(base, "train", one_loss)
        step(pipe, samples, OPTIONS, checkpointing=checkpointing)
    handle.remove()
    return found, len(calls)


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_are_the_same_and_blocks_are_computed_twice(monkeypatch, samples, stage):
    (kept, once), (computed, twice) = (
        gradients(monkeypatch, stage, tiny_pipeline(), samples, on) for on in (False, True)
    )
    assert kept.keys() == computed.keys() and twice == 2 * once > 0
    assert any(gradient.abs().max() > 1e-4 for gradient in kept.values())
    assert all(torch.allclose(kept[key], computed[key], atol=1e-5) for key in kept)


@pytest.mark.parametrize("stage", ["vae", "base", "end_to_end"])
def test_a_trained_model_knows_nothing_of_it(samples, stage):
    """Nor does one whose training ended in an error."""
    pipe, other = tiny_pipeline(), tiny_pipeline()
    for one, checkpointing in ((pipe, True), (other, False)):
        STAGES[stage][0](one, samples, OPTIONS, checkpointing=checkpointing)
    with pytest.raises(ZeroDivisionError):
        STAGES[stage][0](pipe, samples, OPTIONS, checkpointing=True, should_stop=lambda: 1 / 0)
    for name in ("vae", "unet", "image_encoder"):
        module = getattr(pipe, name)
        assert not any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
        assert all(
            torch.allclose(a, b, atol=1e-4) for a, b in zip(module.parameters(), getattr(other, name).parameters())
        )
