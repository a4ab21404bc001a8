"""The nearest marked pixel of every pixel, by jump flooding (Rong and Tan, 2006)."""

from __future__ import annotations

import torch


def nearest(marked: torch.Tensor, reach: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column (T, H, W) of the nearest marked pixel of masks (T, H, W), up to about `reach` pixels away.

    Pixels that nothing is near to get their own place.
    """
    count, height, width = marked.shape
    rows = torch.arange(height, device=marked.device, dtype=torch.int32)[:, None].expand(height, width)
    columns = torch.arange(width, device=marked.device, dtype=torch.int32)[None].expand(height, width)
    far = 1 << 14
    row = torch.where(marked, rows, far)
    column = torch.where(marked, columns, far)
    best = torch.where(marked, 0, 1 << 29)
    step = 1
    while step * 2 <= reach:
        step *= 2
    steps = [1]
    while step >= 1:
        steps.append(step)
        step //= 2
    for step in steps:
        # along each axis in turn: a pixel takes what its neighbours `step` away have found
        for axis, size in ((1, height), (2, width)):
            if step >= size:
                continue
            old_row, old_column = row, column
            for back in (True, False):
                here = [slice(None)] * 3
                there = [slice(None)] * 3
                here[axis] = slice(step, None) if back else slice(None, size - step)
                there[axis] = slice(None, size - step) if back else slice(step, None)
                r, c = old_row[tuple(there)], old_column[tuple(there)]
                off = (r - rows[tuple(here[1:])]) ** 2 + (c - columns[tuple(here[1:])]) ** 2
                closer = off < best[tuple(here)]
                row = _with(row, here, torch.where(closer, r, row[tuple(here)]))
                column = _with(column, here, torch.where(closer, c, column[tuple(here)]))
                best = _with(best, here, torch.where(closer, off, best[tuple(here)]).to(best.dtype))
    lost = row == far
    return torch.where(lost, rows, row).long(), torch.where(lost, columns, column).long()


def _with(x: torch.Tensor, place: list[slice], values: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[tuple(place)] = values
    return x
