"""The discriminator of the end-to-end stage: who learns from which loss, and that it tells blurred pictures from sharp
ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dreampose_core.training.losses import PatchDiscriminator, adversarial_losses


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PatchDiscriminator(width=8)


def patterns(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random cells of 2 x 2 pixels, sharp and blurred: (4, 3, 32, 24) each, in [-1, 1]."""
    sharp = F.interpolate(
        torch.rand(4, 3, 16, 12, generator=torch.Generator().manual_seed(step)) * 2 - 1, scale_factor=2
    )
    return sharp, F.avg_pool2d(sharp, 5, 1, 2)


def test_each_loss_teaches_its_own_side(discriminator):
    real, made = patterns(0)
    made.requires_grad_(True)
    weight = torch.ones(4, 1, 32, 24)
    realism, own = adversarial_losses(discriminator, made, real, weight)
    assert realism.item() == pytest.approx(-discriminator(made).mean().item(), abs=1e-6)
    hinge = F.relu(1 + discriminator(made)) + F.relu(1 - discriminator(real))
    assert own.item() == pytest.approx(hinge.mean().item(), abs=1e-6)
    realism.backward()
    assert made.grad.abs().sum() > 0 and all(p.grad is None for p in discriminator.parameters())
    made.grad = None
    own.backward()
    assert made.grad is None and all(p.grad is not None for p in discriminator.parameters())


def test_only_weighed_pixels_are_judged(discriminator):
    real, made = patterns(1)
    weight = torch.zeros(4, 1, 32, 24)
    weight[..., :16, :] = 2
    realism, _ = adversarial_losses(discriminator, made, real, weight)
    judged = discriminator(made)
    assert realism.item() == pytest.approx(-2 * judged[:, :, :4].sum().item() / judged.numel(), abs=1e-6)


def test_the_size_of_its_weights_says_nothing(discriminator):
    """Weights are divided by their spectral norms: a discriminator cannot win by being loud in its layers."""
    pictures = patterns(2)[0]
    before = discriminator(pictures)
    with torch.no_grad():
        for layer in discriminator.layers:
            layer.weight *= 7
    assert torch.allclose(discriminator(pictures), before, atol=1e-5)


def test_it_learns_to_tell_blur_and_asks_for_edges(discriminator):
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=5e-3)
    for step in range(60):
        sharp, blurred = patterns(step)
        _, own = adversarial_losses(discriminator, blurred, sharp, torch.ones(4, 1, 32, 24))
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    sharp, blurred = patterns(1000)
    with torch.no_grad():
        assert discriminator(sharp).mean() > discriminator(blurred).mean() + 1
    blurred.requires_grad_(True)
    realism, _ = adversarial_losses(discriminator, blurred, sharp, torch.ones(4, 1, 32, 24))
    (gradient,) = torch.autograd.grad(realism, blurred)
    # a step against the gradient has more contrast between neighbours than a step along it
    step = 0.02 * gradient / gradient.abs().mean()
    against, along = ((blurred + sign * step).diff(dim=3).abs().mean() for sign in (-1, 1))
    assert against > along
