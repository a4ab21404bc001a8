"""Synthetic training samples: a photo and a target frame with its five maps, as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..body.drawing import Rendering
from ..poses import PoseSequence
from .dice import Dice
from .figure import HELD_OUT, Figure, Moments, render, render_clip
from .motion import HELD_OUT_MOTIONS, TRAINING_MOTIONS, random_manner

_WINDOW_STEPS = (1 / 30, 1 / 20, 1 / 12)  # seconds between the maps of a window
_TURNED = 0.35  # share of clips seen from any side; the model has to learn what a photo does not show
# Steps that share their drawings, because drawing takes as long as training. Photos, crops and perturbations still
# differ.
_REUSE = 2
PER_CLIP = 2  # targets of one figure


@dataclass
class Samples:
    """B training samples.

    photo: uint8 (B, H, W, 3), with its photo_parts (B, H, W) and photo_uv (B, 2, H, W). target: uint8 (B, H, W, 3).
    window_parts: (B, 5, H, W) and window_uv: (B, 5, 2, H, W); their middle maps are the target's own.
    has_parts, has_uv: (B,) 1 for samples whose maps have parts, or U, V, else 0; None if all have them.
    """

    photo: torch.Tensor
    photo_parts: torch.Tensor
    photo_uv: torch.Tensor
    target: torch.Tensor
    window_parts: torch.Tensor
    window_uv: torch.Tensor
    has_parts: torch.Tensor | None = None
    has_uv: torch.Tensor | None = None


class MannequinSamples:
    """Endless samples of training figures (seeds below 10,000); `batch(step)` always returns the same.

    size: (height, width). batch_size: a multiple of PER_CLIP (targets of one figure) times the number of processes,
    else ValueError.
    share: (rank, number) of this process among those that train together; it draws only its part of every batch.
    """

    def __init__(
        self,
        size: tuple[int, int],
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        share: tuple[int, int] = (0, 1),
    ):
        if batch_size % (PER_CLIP * share[1]):
            raise ValueError(f"batch size {batch_size} is not a multiple of {PER_CLIP} x {share[1]}")
        self.size, self.batch_size, self.seed, self.device, self.share = size, batch_size, seed, device, share
        self._kept: dict[str, tuple] = {}

    def batch(self, step: int) -> Samples:
        """Samples of training step `step`."""
        block, turn = divmod(step, _REUSE)
        drawn, window_parts, window_uv, from_clip = self._once(("clips", block), self._clips)
        clips, n = len(from_clip), PER_CLIP
        # The photo is another moment of the same clip, or the person standing, roughly facing the camera.
        moving, still = torch.arange(n).roll(1), torch.full((n,), n)
        which = torch.arange(clips)[:, None], torch.stack([moving if same != turn else still for same in from_clip])
        photo, photo_parts, photo_uv = (x[which].flatten(0, 1) for x in drawn)
        return Samples(photo, photo_parts, photo_uv, drawn[0][:, :n].flatten(0, 1), window_parts, window_uv)

    def frames(self, step: int, count: int, whole: bool = False) -> Rendering:
        """Draw `count` frames of as many figures, for uses that need no pairs.

        Each of several processes gets its part, or all frames with `whole`. Raises ValueError if `count` cannot be
        shared.
        """
        share = (0, 1) if whole else self.share
        if count % share[1]:
            raise ValueError(f"{count} frames cannot be shared by {share[1]} processes")
        return self._once(("frames", count, share, step // _REUSE), self._frames)

    def held_out(self, count: int) -> list[tuple[np.ndarray, PoseSequence, np.ndarray, PoseSequence]]:
        """Evaluation samples of `count` people that are never trained on.

        Each is a photo uint8 (H, W, 3), its map, a true frame uint8 (H, W, 3) and its map.
        """
        rows = []
        for person in range(count):
            figure, motion = Figure.from_seed(HELD_OUT + 500 + person), HELD_OUT_MOTIONS[person % len(HELD_OUT_MOTIONS)]
            rgb, poses = render_clip(figure, motion, 2, self.size, fps=1.0)
            rows.append((rgb[0].numpy(), poses.select([0]), rgb[1].numpy(), poses.select([1])))
        return rows

    def _once(self, key: tuple, make):
        """Return `make(block, ...)` for a key (kind, ..., block); only the last result of a kind is kept."""
        if self._kept.get(key[0], (None,))[0] != key:
            self._kept[key[0]] = key, make(key[-1], *key[1:-1])
        return self._kept[key[0]][1]

    def _clips(self, block: int):
        """Draw clips.

        Returns pictures, parts and U, V of each clip's n targets and one still, (clips, n + 1, ...); the parts and U, V
        of the targets' windows; and for each clip whether photos come from it.
        """
        n = PER_CLIP
        figures, moments, from_clip = self._own(self._dice(block, 1), self.batch_size // n, self.share)
        clips, sharp = len(figures), torch.tensor([*range(2, 5 * n, 5), 5 * n])
        near = torch.tensor([i for i in range(5 * n) if i % 5 != 2])

        def drawn(which: torch.Tensor, **how):
            owner, chosen = torch.arange(clips).repeat_interleave(len(which)), [m.select(which) for m in moments]
            out = render(figures, owner, Moments.join(chosen), self.size, device=self.device, **how)
            return [None if x is None else x.unflatten(0, (clips, len(which))) for x in (out.rgb, out.parts, out.uv)]

        rgb, parts, uv = drawn(sharp)
        _, near_parts, near_uv = drawn(near, supersample=1, maps_only=True)  # neighbours are needed only as maps

        def window(own: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
            neighbours = neighbours.unflatten(1, (n, 4))
            return torch.cat([neighbours[:, :, :2], own[:, :n, None], neighbours[:, :, 2:]], 2).flatten(0, 1)

        return (rgb, parts, uv), window(parts, near_parts), window(uv, near_uv), from_clip

    def _frames(self, block: int, count: int, share: tuple[int, int]) -> Rendering:
        figures, moments, _ = self._own(self._dice(block, 0), count, share)
        middles = Moments.join([m.select(slice(2, 3)) for m in moments])
        return render(figures, torch.arange(len(figures)), middles, self.size, device=self.device)

    def _dice(self, block: int, purpose: int) -> Dice:
        return Dice((self.seed * 1_000_003 + block) * 2 + purpose)

    def _own(self, dice: Dice, count: int, share: tuple[int, int]) -> list[list]:
        """Draw this process's part of `count` clips.

        Returns lists of figures, of moments, and of whether photos come from the clip.
        """
        rank, processes = share
        drawn = [self._clip(dice, number * processes // count == rank) for number in range(count)]
        return [list(x) for x in zip(*(clip for clip in drawn if clip is not None))]

    def _clip(self, dice: Dice, wanted: bool = True):
        """A figure, its moments (5 PER_CLIP + 1), and whether photos come from the clip itself.

        If not wanted, makes the same draws and returns None.
        """
        seed, name, manner = dice.choice(range(HELD_OUT)), dice.choice(TRAINING_MOTIONS), random_manner(dice)
        starts = torch.tensor(sorted(dice.uniform(0, 8) for _ in range(PER_CLIP)))
        between = dice.choice(_WINDOW_STEPS)
        turn = dice.uniform(-math.pi, math.pi) if dice.chance(_TURNED) else 0.0
        still_s, from_clip = dice.uniform(0, 8), dice.chance(0.5)
        if not wanted:
            return None
        times = (starts[:, None] + between * torch.arange(-2, 3)).clamp_min(0).flatten()
        figure = Figure.from_seed(seed, self.device)
        standing = figure.moments("idle", torch.tensor([still_s]), manner)
        return figure, Moments.join([figure.moments(name, times, manner).turned(turn), standing]), from_clip
