"""Training samples drawn by the program: pairs of a photo and a target frame with its five maps, a pure function of the step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .figure import HELD_OUT, Figure, render
from .motion import MOTIONS, motion, random_manner
from .renderer import Rendering

_WINDOW_STEPS = (1 / 30, 1 / 20, 1 / 12)  # seconds between the maps of a window


@dataclass
class Samples:
    """B training samples: photo uint8 (B, H, W, 3) with its parts (B, H, W) and uv (B, 2, H, W); target uint8 (B, H, W, 3);
    window_parts (B, 5, H, W) and window_uv (B, 5, 2, H, W), whose middle maps are the target's own."""

    photo: torch.Tensor
    photo_parts: torch.Tensor
    photo_uv: torch.Tensor
    target: torch.Tensor
    window_parts: torch.Tensor
    window_uv: torch.Tensor


class MannequinSamples:
    """Endless samples of training figures (seeds below 10,000): `batch(step)` is the same whenever it is asked.

    size: (height, width). batch_size: a multiple of `per_clip`, the targets taken from one figure.
    """

    def __init__(self, size: tuple[int, int], batch_size: int, seed: int = 0, device: str | torch.device = "cpu", per_clip: int = 2):
        if batch_size % per_clip:
            raise ValueError(f"batch size {batch_size} is not a multiple of {per_clip}")
        self.size, self.batch_size, self.seed, self.device, self.per_clip = size, batch_size, seed, device, per_clip

    def batch(self, step: int) -> Samples:
        """The samples of training step `step`."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 2 + 1)
        clips, n = self.batch_size // self.per_clip, self.per_clip
        drawn = [self._clip(generator) for _ in range(clips)]
        figures, poses, from_clip = (list(x) for x in zip(*drawn))
        angles, offset = (torch.stack(x) for x in zip(*poses))  # (clips, 5 n + 1, ...): n windows and a still
        middle = torch.arange(n) * 5 + 2
        sharp = torch.cat([middle, torch.tensor([5 * n])])
        near = torch.tensor([i for i in range(5 * n) if i % 5 != 2])

        def frames(which: torch.Tensor, supersample: int):
            owner = torch.arange(clips).repeat_interleave(len(which))
            out = render(figures, owner, angles[:, which].flatten(0, 1), offset[:, which].flatten(0, 1), self.size,
                         device=self.device, supersample=supersample)  # fmt: skip
            return [x.unflatten(0, (clips, len(which))) for x in (out.rgb, out.parts, out.uv)]

        rgb, parts, uv = frames(sharp, 2)
        _, near_parts, near_uv = frames(near, 1)  # the neighbours are only needed as maps: one ray a pixel

        def window(own: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
            neighbours = neighbours.unflatten(1, (n, 4))
            return torch.cat([neighbours[:, :, :2], own[:, :n, None], neighbours[:, :, 2:]], 2).flatten(0, 1)

        # the photo is another moment of the same clip, or the person standing, more or less towards us
        source = torch.stack([torch.roll(torch.arange(n), 1) if same else torch.full((n,), n) for same in from_clip])
        which = torch.arange(clips)[:, None], source
        photo, photo_parts, photo_uv = (x[which].flatten(0, 1) for x in (rgb, parts, uv))
        return Samples(photo, photo_parts, photo_uv, rgb[:, :n].flatten(0, 1), window(parts, near_parts), window(uv, near_uv))

    def frames(self, step: int, count: int) -> Rendering:
        """`count` frames of as many figures, for what needs no pairs."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 2)
        figures, poses, _ = (list(x) for x in zip(*(self._clip(generator) for _ in range(count))))
        angles, offset = (torch.stack([pose[2] for pose in x]) for x in zip(*poses))
        return render(figures, torch.arange(count), angles, offset, self.size, device=self.device)

    def _clip(self, generator: torch.Generator):
        """A figure, its joint angles and offsets (5 per_clip + 1, ...) and whether photos come from the clip itself."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        def choice(options):
            return options[int(torch.randint(len(options), (), generator=generator))]

        figure = Figure.from_seed(int(torch.randint(HELD_OUT, (), generator=generator)))
        name, manner = choice(list(MOTIONS)), random_manner(generator)
        moments = torch.tensor(sorted(uniform(0, 5) for _ in range(self.per_clip)))
        times = (moments[:, None] + choice(_WINDOW_STEPS) * torch.arange(-2, 3)).clamp_min(0).flatten()
        moving, still = motion(name, times, manner), motion("idle", torch.tensor([uniform(0, 8)]), manner)
        poses = torch.cat([moving[0], still[0]]), torch.cat([moving[1], still[1]])
        return figure, poses, uniform(0, 1) < 0.5
