"""The small estimator: pictures of mannequins -> their DensePose; trained by this program, it knows nobody else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from operator import length_hint
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError, ModelError
from ..poses import PoseSequence
from .network import PERSON_WEIGHT, DensePoseNet

NOTICE = (
    "DensePose was estimated by the small estimator, which knows only figures drawn by this program; "
    "on photographs it guesses."
)
_BATCH = 8
_SMALL = 0.6  # a person lower than this share of the picture is looked at again, enlarged
_LARGE = 0.85  # to this share
_EDGE = 0.01  # of the picture's height: who is nearer to its lower edge may be cut off
_SHAPE = 0.8  # width to height of the pictures it learnt from: narrower ones are widened by their edges
_BELOW = (
    0.3,
    0.6,
    1.0,
)  # of the height: by so much a picture is continued below where it may cut the person off, whom it knows whole only


class MiniEstimator:
    """Estimates with a `DensePoseNet`. folder: where it was saved. Raises ModelError when it cannot be loaded."""

    person = None
    notices = (NOTICE,)
    left_out = 0  # its maps show everybody

    def __init__(self, folder: str | Path, device: str = "cpu"):
        try:
            self.net = DensePoseNet.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).to(device).eval()
        except Exception as error:  # diffusers and safetensors raise many kinds on broken folders
            raise ModelError(
                f"The DensePose estimator in {folder} cannot be loaded: it is missing, incomplete or damaged."
            ) from error

    def estimate(self, images: Iterable[np.ndarray]) -> PoseSequence:
        """Maps of uint8 (H, W, 3) pictures of one size, RGB, at their size (charts: mannequin); all 0 where nobody is
        seen."""
        total, images, found = length_hint(images), iter(images), 0
        parts = uv = None
        while batch := list(islice(images, _BATCH)):
            if parts is None:
                size = batch[0].shape[:2]
                parts, uv = (
                    np.zeros((max(total, _BATCH), *size), np.uint8),
                    np.zeros((max(total, _BATCH), 2, *size), np.float16),
                )
            if found + len(batch) > len(parts):  # the hint was too low
                parts, uv = (np.concatenate([array, np.zeros_like(array)]) for array in (parts, uv))
            for own_parts, own_uv in self._look(torch.from_numpy(np.stack(batch)).movedim(-1, 1)):
                parts[found], uv[found] = own_parts.cpu().numpy(), own_uv.cpu().numpy()
                found += 1
        if parts is None:
            raise InputError("There are no pictures to estimate DensePose from; give at least one.")
        return PoseSequence(parts[:found], uv[:found], "mannequin")

    @torch.inference_mode()
    def _look(self, pictures: torch.Tensor) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """parts uint8 (H, W) and uv float16 (2, H, W) of each of pictures uint8 (N, 3, H, W)."""
        _, _, height, width = pictures.shape
        pixels = pictures.to(self.net.device).float() / 127.5 - 1
        whole = _continued((height, width), 0)
        logits, uv = self._maps(pixels, whole)
        for index in range(len(pictures)):
            box, own = whole, (logits[index], uv[index])
            person = _extent(own[0].argmax(0) > 0, box)
            if person is not None and person[2] < _SMALL * height:
                box, own = self._again(pixels[index : index + 1], _around(person, (height, width)))
            if person is not None and person[0] + person[2] > height * (1 - _EDGE):
                others = [
                    self._again(pixels[index : index + 1], _continued((height, width), below)) for below in _BELOW
                ]
                box, own = max([(box, own), *others], key=lambda seen: _certainty(seen[1][0], seen[0], height))
            yield _at_full_size(*own, box, (height, width))

    def _again(self, pixels: torch.Tensor, box: tuple[float, float, float, float]):
        """The box, and the maps of it, of one picture (1, 3, H, W)."""
        logits, uv = self._maps(pixels, box)
        return box, (logits[0], uv[0])

    def _maps(self, pixels: torch.Tensor, box: tuple[float, float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's logits (N, 25, h, w) and uv (N, 24, 2, h, w) of `box` (top, left, height, width) of pixels (N,
        3, H, W)."""
        top, left, height, width = box
        multiple = self.net.multiple
        h = self.net.config.height
        w = max(multiple, round(width * h / height / multiple) * multiple)  # squeezed by a few percent at most
        if box == (0.0, 0.0, *map(float, pixels.shape[2:])):
            small = F.interpolate(pixels, size=(h, w), mode="bilinear", antialias=True, align_corners=False)
        else:
            rows = torch.arange(int(top), int(top + height), device=pixels.device).clamp(0, pixels.shape[2] - 1)
            columns = torch.arange(int(left), int(left + width), device=pixels.device).clamp(0, pixels.shape[3] - 1)
            part = pixels[:, :, rows][:, :, :, columns]
            small = F.interpolate(part, size=(h, w), mode="bilinear", antialias=True, align_corners=False)
        logits, uv = self.net(small)
        # trained with person pixels counted PERSON_WEIGHT times, it sees that much more of them than there are
        logits[:, 0] += math.log(PERSON_WEIGHT)
        return logits, uv


def _continued(size: tuple[int, int], below: float) -> tuple[float, float, float, float]:
    """A box of whole pixels around a picture of `size` and so much of its height below it, at least as wide as
    _SHAPE."""
    height = round(size[0] * (1 + below))
    width = max(size[1], round(_SHAPE * height))
    return 0.0, float((size[1] - width) // 2), float(height), float(width)


def _certainty(logits: torch.Tensor, box: tuple[float, float, float, float], height: int) -> float:
    """0..1: how sure the maps (25, h, w) of a box are of the person's parts, in a picture of that height; the right
    view is the surest."""
    rows = box[0] + (torch.arange(logits.shape[1], device=logits.device) + 0.5) * box[2] / logits.shape[1]
    likely, part = logits[:, (rows >= 0) & (rows < height)].softmax(0).max(0)
    return float(likely[part > 0].mean()) if (part > 0).any() else 0.0


def _extent(person: torch.Tensor, box: tuple[float, float, float, float]) -> tuple[float, float, float, float] | None:
    """(top, left, height, width) in the picture's pixels of the person in the mask (h, w) of a box, None where nobody
    is."""
    rows, columns = person.any(1).nonzero().flatten(), person.any(0).nonzero().flatten()
    if len(rows) == 0:
        return None
    scale = box[2] / person.shape[0]
    low, high, first, last = (int(x) for x in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return box[0] + low * scale, box[1] + first * scale, (high - low) * scale, (last - first) * scale


def _around(person: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box of whole pixels around the person, who is `_LARGE` of its height; it may reach beyond the picture of
    `size`."""
    top, left, height, width = person
    side = max(height / _LARGE, 16.0)
    across = max(side * 0.8, width / _LARGE)
    return (
        float(round(top + height / 2 - side / 2)),
        float(round(left + width / 2 - across / 2)),
        float(round(side)),
        float(round(across)),
    )


def _at_full_size(logits, uv, box, size) -> tuple[torch.Tensor, torch.Tensor]:
    """parts uint8 (H, W) and uv float16 (2, H, W) of the picture of `size` from the maps (25, h, w), (24, 2, h, w) of
    `box`.

    Logits are enlarged before the part is chosen; U, V are interpolated within the maps of the chosen part alone.
    """
    top, left, height, width = (int(x) for x in box)
    small = logits.shape[1:]
    labels = F.interpolate(logits[None], size=(height, width), mode="bilinear", align_corners=False)[0].argmax(0)
    rows, columns = labels.nonzero().unbind(1)
    part = labels[rows, columns] - 1
    y = ((rows + 0.5) * small[0] / height - 0.5).clamp(0, small[0] - 1)
    x = ((columns + 0.5) * small[1] / width - 0.5).clamp(0, small[1] - 1)
    y0, x0 = y.long(), x.long()
    value = 0
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - (y - y0 - dy).abs()) * (1 - (x - x0 - dx).abs())
            value = value + weight * uv[part, :, (y0 + dy).clamp_max(small[0] - 1), (x0 + dx).clamp_max(small[1] - 1)].T
    inside = (rows + top >= 0) & (rows + top < size[0]) & (columns + left >= 0) & (columns + left < size[1])
    rows, columns = rows[inside] + top, columns[inside] + left
    full_parts = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    full_uv = torch.zeros(2, *size, dtype=torch.float16, device=logits.device)
    full_parts[rows, columns] = (part[inside] + 1).to(torch.uint8)
    full_uv[:, rows, columns] = value[:, inside].clamp(0, 1).half()
    return full_parts, full_uv
