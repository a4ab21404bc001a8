"""The estimator's recipe: pictures of mannequins and their exact DensePose, disturbed as photographs are."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from ..densepose.network import PERSON_WEIGHT
from ..model.conditioning import to_pixels
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from .distributed import Draws
from .loop import LoopOptions, train
from .losses import densepose_loss
from .prefetch import Prefetch


def train_estimator(
    net,
    samples,
    options: LoopOptions,
    seed: int = 0,
    *,
    batch_size: int = 12,
    precision: torch.dtype = torch.float32,
    folder: Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> bool:
    """Trains a `densepose.DensePoseNet` on `samples.frames(step, batch_size)`; True when all steps are done."""
    net.train()

    def make(step: int):
        drawn = samples.frames(step, batch_size)
        return disturbed(to_pixels(drawn.rgb), drawn.parts, drawn.uv.float(), Draws(seed, step, 9, samples.share))

    made_at = Prefetch(make)

    def loss_at(step: int) -> torch.Tensor:
        pixels, parts, uv = made_at(step)
        with torch.autocast(pixels.device.type, precision, enabled=precision != torch.float32):
            logits, found = net(pixels)
        return densepose_loss(logits.float(), found.float(), parts, uv, PERSON_WEIGHT)

    _, done = train(
        {"net": net}, loss_at, options, "estimator", folder=folder, on_progress=on_progress, should_stop=should_stop
    )
    net.eval()
    return done


def disturbed(pixels: torch.Tensor, parts: torch.Tensor, uv: torch.Tensor, draws: Draws):
    """Pixels (B, 3, H, W) in [-1, 1], parts (B, H, W) and uv (B, 2, H, W), zoomed and shifted together, the pixels also
    recoloured, blurred and noisy; labels are sampled by nearest neighbour. Every draw is a sample's own."""
    count, device = len(pixels), pixels.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (low + (high - low) * draws.rand(count, *shape)).to(device)

    scale = torch.exp2(uniform(-0.7, 0.5))  # 0.6 to 1.4 times as large
    shift = uniform(-1, 1, 2) * torch.tensor([0.35, 0.25], device=device)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = shift / scale[:, None]
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    labels = torch.cat([parts[:, None].float(), uv], 1)
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    gain, offset, tint = uniform(0.75, 1.25, 1, 1, 1), uniform(-0.2, 0.2, 1, 1, 1), uniform(-0.08, 0.08, 3, 1, 1)
    pixels = (pixels * gain + offset + tint).clamp(-1, 1)
    height, width = pixels.shape[2:]
    soft = F.interpolate(F.avg_pool2d(pixels, 2), size=(height, width), mode="bilinear", align_corners=False)
    pixels = torch.lerp(pixels, soft, uniform(0, 1, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.5))
    noise = draws.randn(*pixels.shape).to(device)
    return pixels + uniform(0, 0.06, 1, 1, 1) * noise, labels[:, 0].round().long(), labels[:, 1:]
