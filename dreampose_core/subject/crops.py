"""Crops of photos, maps and latents: random boxes, what is in them at the full size, and parts that are cut out."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def same_part(share: float, draw: torch.Generator, *planes: torch.Tensor) -> list[torch.Tensor]:
    """A random part of each sample, `share` of its sides, the same of all `planes` (B, C, h, w); sides are multiples of
    the first's."""
    count, _, height, width = planes[0].shape
    high, wide = max(1, round(share * height)), max(1, round(share * width))
    rows, columns = (
        (torch.rand(count, generator=draw) * (side - cut + 1)).long().tolist()
        for side, cut in ((height, high), (width, wide))
    )
    cuts = []
    for plane in planes:
        by = plane.shape[2] // height
        cuts.append(
            torch.stack(
                [
                    one[..., r * by : (r + high) * by, c * by : (c + wide) * by]
                    for one, r, c in zip(plane, rows, columns)
                ]
            )
        )
    return cuts


def random_boxes(count: int, size: tuple[int, int], zoom: float, generator: torch.Generator) -> torch.Tensor:
    """Crop boxes (B, 4) of (height, width) = `size`, as top, left, height, width in pixels; the aspect is kept."""
    height, width = size
    scale = zoom + (1 - zoom) * torch.rand(count, generator=generator)
    h, w = scale * height, scale * width
    top, left = (
        torch.rand(count, generator=generator) * (height - h),
        torch.rand(count, generator=generator) * (width - w),
    )
    return torch.stack([top, left, h, w], 1)


def crop_pixels(pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (B, 4) of pixels (B, C, H, W), enlarged to (H, W) by bilinear interpolation."""
    rows, columns = _positions(boxes, pixels.shape[2:])
    height, width = pixels.shape[2:]
    y, x = 2 * rows / height - 1, 2 * columns / width - 1  # grid_sample's range over pixel edges
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1).to(
        pixels.device
    )
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def crop_labels(labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """The same for maps (B, H, W) or (B, C, H, W), by nearest neighbour."""
    height, width = labels.shape[-2:]
    rows, columns = (x.long().to(labels.device) for x in _positions(boxes, (height, width)))
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    return torch.stack([label[..., r[:, None], c[None, :]] for label, r, c in zip(labels, rows, columns)])


def _positions(boxes: torch.Tensor, size) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = size
    top, left, h, w = boxes[:, :, None].unbind(1)
    return top + h * (torch.arange(height) + 0.5) / height, left + w * (torch.arange(width) + 0.5) / width
