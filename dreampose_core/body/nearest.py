"""The nearest marked pixel of every pixel, by jump flooding (Rong and Tan, 2006)."""

from __future__ import annotations

import torch

_FAR = 1 << 14  # no row or column


def nearest(marked: torch.Tensor, reach: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column (T, H, W) of the nearest marked pixel of masks (T, H, W), up to about `reach` pixels away.

    Pixels that nothing is near to get their own place.
    """
    _, height, width = marked.shape
    rows = torch.arange(height, device=marked.device, dtype=torch.int32)[None, :, None].expand(marked.shape)
    columns = torch.arange(width, device=marked.device, dtype=torch.int32)[None, None].expand(marked.shape)
    row, column = torch.where(marked, rows, _FAR), torch.where(marked, columns, _FAR)
    best = torch.where(marked, 0, 1 << 29).to(torch.int32)
    for step in (1, *(1 << power for power in reversed(range(reach.bit_length())))):
        # along each axis in turn: a pixel takes what its neighbours `step` away have found
        for axis, size in ((1, height), (2, width)):
            if step >= size:
                continue
            found_row, found_column = row.clone(), column.clone()
            for here, there in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
                here, there = ((slice(None),) * axis + (part,) for part in (here, there))
                r, c = found_row[there], found_column[there]
                off = (r - rows[here]) ** 2 + (c - columns[here]) ** 2
                closer = off < best[here]
                for kept, new in ((row, r), (column, c), (best, off)):
                    kept[here] = torch.where(closer, new, kept[here])
    lost = row == _FAR
    return torch.where(lost, rows, row).long(), torch.where(lost, columns, column).long()
