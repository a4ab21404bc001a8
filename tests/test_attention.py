"""Reference attention adds the photo's features to self-attention, in training as in the pipeline, and nothing where it is not asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_pipeline

from dreampose_core import attention
from dreampose_core.attention import attending, install, reference_states
from dreampose_core.mannequin.dataset import MannequinSamples
from dreampose_core.poses import PoseSequence
from dreampose_core.training import base
from dreampose_core.training.base import Dropout, train_base
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.processes import Draws


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline(reference_attention=True)


def inputs(pipe, batch=2):
    g = torch.Generator().manual_seed(0)
    return torch.randn(batch, pipe.unet.config.in_channels, 10, 8, generator=g), torch.randn(batch, 17, 32, generator=g)


@torch.no_grad()
def test_it_changes_nothing_until_it_is_given_something(pipe):
    plain, (given, tokens) = tiny_pipeline(), inputs(pipe)
    plain.unet.load_state_dict(pipe.unet.state_dict())
    before = plain.unet(given, 500, tokens).sample
    assert torch.equal(pipe.unet(given, 500, tokens).sample, before)
    with attending(pipe.unet, None):
        assert torch.equal(pipe.unet(given, 500, tokens).sample, before)
    states = reference_states(pipe.unet, given[:1], tokens[:1])
    assert torch.equal(pipe.unet(given, 500, tokens).sample, before)  # nothing is left behind
    with attending(pipe.unet, states):
        with_photo = pipe.unet(given, 500, tokens).sample
    assert not torch.allclose(with_photo, before, atol=1e-5)
    assert torch.equal(pipe.unet(given, 500, tokens).sample, before)


@torch.no_grad()
def test_keys_and_values_of_the_photo_stand_beside_the_frames_own():
    """Against plain attention over both, written out."""
    unet = tiny_pipeline(reference_attention=True).unet
    layer = next(module for name, module in unet.named_modules() if name.endswith("attn1"))
    g = torch.Generator().manual_seed(1)
    own, photo = torch.randn(3, 5, layer.query_dim, generator=g), torch.randn(1, 7, layer.query_dim, generator=g)
    layer.processor.kept = photo
    found = layer(own)
    layer.processor.kept = None
    both = torch.cat([own, photo.expand(3, -1, -1)], 1)
    projections = (layer.to_q, own), (layer.to_k, both), (layer.to_v, both)
    q, k, v = (f(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for f, x in projections)
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    wanted = layer.to_out[0]((weights @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_only_self_attention_is_extended(pipe):
    kinds = {name.split(".")[-2]: type(processor).__name__ for name, processor in pipe.unet.attn_processors.items()}
    assert kinds == {"attn1": "WiderProcessor", "attn2": "AttnProcessor2_0"}
    before = set(pipe.unet.state_dict())
    install(pipe.unet)
    assert set(pipe.unet.state_dict()) == before


@torch.no_grad()
def test_a_frame_looks_at_the_one_before_it():
    pipe = tiny_pipeline(frame_attention=True)
    given, tokens = inputs(pipe, 4)
    alone = pipe.unet(given, 500, tokens).sample
    with attending(pipe.unet, None, 4):
        seen = pipe.unet(given, 500, tokens).sample
        given[1] += 1
        changed = (pipe.unet(given, 500, tokens).sample - seen).abs().flatten(1).amax(1) > 1e-6
    assert not torch.allclose(seen, alone, atol=1e-5)
    assert changed[:3].all()  # itself, the first, which looks at the second, and the one after it
    with attending(pipe.unet, None, 2):
        before = pipe.unet(given, 500, tokens).sample
        given[3] += 1
        changed = (pipe.unet(given, 500, tokens).sample - before).abs().flatten(1).amax(1) > 1e-6
    assert changed.tolist() == [False, False, True, True]  # runs do not look at each other


def test_frames_that_look_at_each_other_are_trained_as_a_clip():
    """The same noise, timestep and cut, as they have in the pipeline; others have their own."""
    samples = MannequinSamples((40, 32), 4, consecutive=True)
    batch = samples.batch(0)
    assert batch.run == 2 and not torch.equal(batch.target[0], batch.target[1])
    near = (batch.target[0].float() - batch.target[1].float()).abs().mean()
    assert near < (batch.target[0].float() - batch.target[2].float()).abs().mean()
    next_map = batch.window_parts[0, 3]  # this frame's neighbour is the next one's own map, drawn with fewer rays
    assert (next_map != batch.window_parts[1, 2]).sum() < 0.3 * (next_map != batch.window_parts[2, 2]).sum()
    for runs, pipe in ((2, tiny_pipeline(frame_attention=True)), (1, tiny_pipeline())):
        given = base.conditioned(pipe, batch, Dropout(0, 0, 0, 0, 0, 0), 0.5, torch.float32, 0, 0)
        base.predicted(pipe, given, torch.tensor([900, 100, 300, 500]), torch.float32, Draws(0, 0, 6))
        assert given.run == runs and given.timesteps.tolist() == ([900, 900, 300, 300] if runs == 2 else [900, 100, 300, 500])
        alpha = pipe.scheduler.alphas_cumprod[given.timesteps].view(-1, 1, 1, 1)
        noise = (given.noisy - alpha.sqrt() * given.latents) / (1 - alpha).sqrt()
        assert torch.allclose(noise[0], noise[1], atol=1e-2) == (runs == 2) and not torch.allclose(noise[0], noise[2], atol=1e-1)


def test_training_and_pipeline_show_it_the_same_photo(pipe, monkeypatch):
    seen, real = [], attention.reference_states

    def recorded(unet, given, tokens):
        seen.append((given.detach().clone(), tokens.detach().clone()))
        return real(unet, given, tokens)

    monkeypatch.setattr(attention, "reference_states", recorded)
    monkeypatch.setattr(base, "reference_states", recorded)
    batch = MannequinSamples((40, 32), 2).batch(0)
    samples = SimpleNamespace(batch=lambda step: batch, share=(0, 1))
    train_base(pipe, samples, LoopOptions(1, 0.0, ema=None), dropout=Dropout(0, 0, 0, 0, 0, 0))
    trained, tokens = seen.pop()
    for i in range(2):
        own = PoseSequence(batch.photo_parts[i : i + 1].numpy(), batch.photo_uv[i : i + 1].numpy(), "mannequin")
        list(pipe.stream(batch.photo[i].numpy(), own, own, num_inference_steps=1, image_guidance=1, pose_guidance=1))
        given, own_tokens = seen.pop()
        assert given[:, 8:].abs().sum() > 0 and torch.allclose(given[0], trained[i], atol=1e-5)
        assert torch.allclose(own_tokens[0], tokens[i], atol=1e-4)


def test_what_knows_nothing_of_the_photo_does_not_attend_to_it(pipe):
    """With s_I = 0 and the pose alone, two photos that differ give the same frames."""
    batch = MannequinSamples((40, 32), 2).batch(4)
    own = PoseSequence(batch.photo_parts[:1].numpy(), batch.photo_uv[:1].numpy(), "mannequin")

    def frame(photo, s_image, s_pose):
        return pipe(photo.numpy(), own, None, 2, s_image, s_pose, torch.Generator().manual_seed(0)).frames

    other = 255 - batch.photo[0]
    assert (frame(batch.photo[0], 0.0, 0.0) == frame(other, 0.0, 0.0)).all()
    assert (frame(batch.photo[0], 1.0, 1.0) != frame(other, 1.0, 1.0)).any()
