"""Training samples drawn by the program: pairs of a photo and a target frame with its five maps, a pure function of the
step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..body.drawing import Rendering
from ..poses import PoseSequence
from .figure import HELD_OUT, Figure, Moments, render, render_clip
from .motion import HELD_OUT_MOTIONS, TRAINING_MOTIONS, random_manner

_WINDOW_STEPS = (1 / 30, 1 / 20, 1 / 12)  # seconds between the maps of a window
_TURNED = 0.35  # share of clips seen from any side: what a photo does not show is what has to be learnt
# steps that share what was drawn: their photos, crops and disturbances still differ, and drawing costs as much as
# training
_REUSE = 2


@dataclass
class Samples:
    """B training samples: photo uint8 (B, H, W, 3) with its parts (B, H, W) and uv (B, 2, H, W); target uint8 (B, H, W,
    3);
    window_parts (B, 5, H, W) and window_uv (B, 5, 2, H, W), whose middle maps are the target's own. has_parts, has_uv:
    (B,) 0/1, whether the maps of a sample know their parts and their U, V; None where all do."""

    photo: torch.Tensor
    photo_parts: torch.Tensor
    photo_uv: torch.Tensor
    target: torch.Tensor
    window_parts: torch.Tensor
    window_uv: torch.Tensor
    has_parts: torch.Tensor | None = None
    has_uv: torch.Tensor | None = None


class MannequinSamples:
    """Endless samples of training figures (seeds below 10,000): `batch(step)` is the same whenever it is asked.

    size: (height, width). batch_size: a multiple of `per_clip`, the targets taken from one figure.
    share: of several processes that train together, this one's rank and how many they are: of every batch it draws only
    its own part.
    """

    def __init__(
        self,
        size: tuple[int, int],
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        per_clip: int = 2,
        share: tuple[int, int] = (0, 1),
    ):
        if batch_size % (per_clip * share[1]):
            raise ValueError(f"batch size {batch_size} is not a multiple of {per_clip} x {share[1]}")
        self.size, self.batch_size, self.seed, self.device, self.per_clip = size, batch_size, seed, device, per_clip
        self.share = share
        self._kept: dict[str, tuple] = {}

    def batch(self, step: int) -> Samples:
        """The samples of training step `step`."""
        block, turn = divmod(step, _REUSE)
        drawn, window_parts, window_uv, from_clip = self._once(("clips", block), self._clips)
        clips, n = len(from_clip), self.per_clip
        # the photo is another moment of the same clip, or the person standing, more or less towards us
        source = torch.stack(
            [torch.roll(torch.arange(n), 1) if same != turn else torch.full((n,), n) for same in from_clip]
        )
        which = torch.arange(clips)[:, None], source
        photo, photo_parts, photo_uv = (x[which].flatten(0, 1) for x in drawn)
        return Samples(photo, photo_parts, photo_uv, drawn[0][:, :n].flatten(0, 1), window_parts, window_uv)

    def frames(self, step: int, count: int, whole: bool = False) -> Rendering:
        """`count` frames of as many figures, for what needs no pairs; of several processes each gets its part, or, with
        `whole`, all."""
        share = (0, 1) if whole else self.share
        if count % share[1]:
            raise ValueError(f"{count} frames cannot be shared by {share[1]} processes")
        return self._once(("frames", count, share, step // _REUSE), self._frames)

    def held_out(self, count: int) -> list[tuple[np.ndarray, PoseSequence, np.ndarray, PoseSequence]]:
        """Photo uint8 (H, W, 3), its map, a true frame and its map, of `count` people that are never trained on."""
        rows = []
        for person in range(count):
            figure, motion = Figure.from_seed(HELD_OUT + 500 + person), HELD_OUT_MOTIONS[person % len(HELD_OUT_MOTIONS)]
            rgb, poses = render_clip(figure, motion, 2, self.size, fps=1.0)
            rows.append((rgb[0].numpy(), poses.select([0]), rgb[1].numpy(), poses.select([1])))
        return rows

    def _once(self, key: tuple, make):
        """What `make(block, ...)` draws for a key (kind, ..., block); only the last of a kind is kept."""
        if self._kept.get(key[0], (None,))[0] != key:
            self._kept[key[0]] = key, make(key[-1], *key[1:-1])
        return self._kept[key[0]][1]

    def _clips(self, block: int):
        """Pictures and maps of clips, each n targets and a still (clips, n + 1, ...); the targets' windows; whether
        photos are theirs."""
        generator = self._generator(block, 1)
        clips, n = self.batch_size // self.per_clip, self.per_clip
        figures, moments, from_clip = self._own(generator, clips, self.share)
        clips = len(figures)
        middle = torch.arange(n) * 5 + 2
        sharp = torch.cat([middle, torch.tensor([5 * n])])
        near = torch.tensor([i for i in range(5 * n) if i % 5 != 2])

        def drawn(which: torch.Tensor, **how):
            owner = torch.arange(clips).repeat_interleave(len(which))
            out = render(
                figures, owner, Moments.join([m.select(which) for m in moments]), self.size, device=self.device, **how
            )
            return [None if x is None else x.unflatten(0, (clips, len(which))) for x in (out.rgb, out.parts, out.uv)]

        rgb, parts, uv = drawn(sharp)
        _, near_parts, near_uv = drawn(near, supersample=1, maps_only=True)  # the neighbours are only needed as maps

        def window(own: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
            neighbours = neighbours.unflatten(1, (n, 4))
            return torch.cat([neighbours[:, :, :2], own[:, :n, None], neighbours[:, :, 2:]], 2).flatten(0, 1)

        return (rgb, parts, uv), window(parts, near_parts), window(uv, near_uv), from_clip

    def _frames(self, block: int, count: int, share: tuple[int, int]) -> Rendering:
        generator = self._generator(block, 0)
        figures, moments, _ = self._own(generator, count, share)
        middles = Moments.join([m.select(slice(2, 3)) for m in moments])
        return render(figures, torch.arange(len(figures)), middles, self.size, device=self.device)

    def _generator(self, block: int, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed * 1_000_003 + block) * 2 + purpose)

    def _own(self, generator: torch.Generator, count: int, share: tuple[int, int]) -> list[list]:
        """Figures, moments and "from the clip" of this process's part, in a row, of `count` clips."""
        rank, processes = share
        drawn = [self._clip(generator, number * processes // count == rank) for number in range(count)]
        return [list(x) for x in zip(*(clip for clip in drawn if clip is not None))]

    def _clip(self, generator: torch.Generator, wanted: bool = True):
        """A figure, its moments (5 per_clip + 1), whether photos come from the clip itself; None, after the same draws,
        if not wanted."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        def choice(options):
            return options[int(torch.randint(len(options), (), generator=generator))]

        seed, name, manner = (
            int(torch.randint(HELD_OUT, (), generator=generator)),
            choice(TRAINING_MOTIONS),
            random_manner(generator),
        )
        starts, between = torch.tensor(sorted(uniform(0, 8) for _ in range(self.per_clip))), choice(_WINDOW_STEPS)
        turn = uniform(-math.pi, math.pi) if uniform(0, 1) < _TURNED else 0.0
        still_s, from_clip = uniform(0, 8), uniform(0, 1) < 0.5
        if not wanted:
            return None
        times = (starts[:, None] + between * torch.arange(-2, 3)).clamp_min(0).flatten()
        figure = Figure.from_seed(seed, self.device)
        moving, standing = (
            figure.moments(name, times, manner).turned(turn),
            figure.moments("idle", torch.tensor([still_s]), manner),
        )
        return figure, Moments.join([moving, standing]), from_clip
