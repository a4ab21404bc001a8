"""Views of a person: crops of the photos with the networks' inputs for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..model.conditioning import (
    clean_latents,
    condition_latents,
    decode_both,
    encode_latents,
    encode_maps,
    pose_channels,
    predict,
    reference_tokens,
    warp_channels,
    window_channels,
)
from ..model.texture import WARP_PLANES, Texture, laid, move, turned
from ..poses import NUM_PARTS, WINDOW
from ..training.distributed import random
from ..training.losses import noised
from .recipe import SubjectRecipe

TURNED = 4  # one batch of views in so many is turned
ALL = slice(None)  # all of a step's samples
_BLOCKS = 6  # texels are hidden and held back in blocks: so many per side of each part's U, V
_HELD = 0.15  # share of blocks that is held back


class Views(NamedTuple):
    """B crops of the photos with the networks' inputs for them.

    pixels: targets, (B, 3, H, W); latents: theirs, (B, C, h, w); poses, warp: channels; which: the photo of each, (B,).
    person, held: (B, 1, H, W) 0/1, the person, and the part of it held back from training. planes: (B, 5, H, W), the
    moved texture.
    """

    pixels: torch.Tensor
    latents: torch.Tensor
    poses: torch.Tensor
    warp: torch.Tensor
    which: torch.Tensor
    person: torch.Tensor
    held: torch.Tensor
    planes: torch.Tensor

    @property
    def seen(self) -> torch.Tensor:
        """(B, 1, H, W) 0/1, where the texture has texels."""
        return self.planes[:, 3:4]

    @classmethod
    def joined(cls, batches: Iterable[Views]) -> Views:
        return cls(*map(torch.cat, zip(*batches)))

    def select(self, index: torch.Tensor) -> Views:
        return Views(*(tensor[index.to(tensor.device)] for tensor in self))

    def split(self, count: int) -> list[Views]:
        return [self.select(index) for index in torch.arange(len(self.which)).split(count)]


class Source:
    """The photos with their maps and texture, as a source of crops: new ones for each step, or reused, by the recipe.

    Some reused crops are turned: fronts become backs, which photos mostly do not show, and their target is the model's
    output before tuning (prior preservation). This keeps a photo's front from appearing on the person's back.
    """

    def __init__(self, pipe, photos, parts, uv, texture: Texture | None, recipe: SubjectRecipe, seed: int):
        self.pipe, self.photos, self.parts, self.uv, self.texture = pipe, photos, parts, uv, texture
        self.recipe, self.seed = recipe, seed
        self.low = pipe.vae.dtype  # the model's precision; trained weights are in float32
        drawn = torch.rand(NUM_PARTS, _BLOCKS, _BLOCKS, generator=random(seed, 0, 7))
        self.blocks = (drawn < _HELD).float().to(photos.device)
        known = torch.zeros_like(photos) if uv is None else uv
        self.mask = (parts > 0 if parts is not None else (known > 0).any(1)).float()
        self.held = self._held_back() if recipe.views is not None else torch.zeros_like(self.mask)
        with torch.no_grad():
            self.photo_latents = condition_latents(pipe.model_config, pipe.vae, photos).float()
        self.kept = None
        if recipe.views is not None:
            # a single prediction from noise is a usable frame only if latents are predicted, and only parts tell front
            # from back
            self.answers = pipe.scheduler.config.prediction_type == "sample"
            turns = self.answers and parts is not None and pipe.model_config.pose_encoding == "iuv"
            self.kept = Views.joined(
                self._made(recipe.batch_size, random(seed, number, 10), turn=turns and number % TURNED == TURNED - 1)
                for number in range(-(-recipe.views // recipe.batch_size))
            )

    def views(self, step: int, purpose: int, count: int) -> tuple[Views, torch.Generator]:
        """Return the `count` samples of a step, and the generator for its further draws."""
        draw = random(self.seed, step, purpose)
        if self.kept is None:
            return self._made(count, draw), draw
        return self.kept.select(torch.randint(len(self.kept.which), (count,), generator=draw)), draw

    def prediction(self, views: Views, draw: torch.Generator, noisiest: bool = False, only: slice = ALL):
        """Add noise to `views` and return the UNet's prediction for those in `only`, its target, the noisy latents and
        their timesteps."""
        pipe, device, total = self.pipe, self.photos.device, self.pipe.scheduler.config.num_train_timesteps
        timesteps = torch.randint(total - 1 if noisiest else 0, total, (len(views.which),), generator=draw).to(device)
        noise = torch.randn(views.latents.shape, generator=draw).to(device)
        noisy, wanted = noised(pipe.scheduler, views.latents, noise, timesteps)
        used = noisy, wanted, timesteps, views.which, views.poses, views.warp
        noisy, wanted, timesteps, which, poses, warp = (x[only] for x in used)
        with torch.autocast(device.type, self.low, enabled=self.low != torch.float32):
            tokens = reference_tokens(pipe, self.photos[which], self.photo_latents[which])
            prediction = predict(pipe, noisy, timesteps, poses, warp, tokens)
        return prediction, wanted, noisy, timesteps

    def _held_back(self) -> torch.Tensor:
        """Return (N, H, W) 0/1: the person's pixels whose texels are held back; squares of the picture for photos
        without maps."""
        height, width = self.mask.shape[1:]
        if self.parts is None or self.uv is None:
            squares = torch.rand(len(self.mask), 1, _BLOCKS, _BLOCKS, generator=random(self.seed, 1, 7)) < _HELD
            return F.interpolate(squares.float(), size=(height, width))[:, 0].to(self.mask.device)
        column, row = (self.uv.float() * _BLOCKS).long().clamp(0, _BLOCKS - 1).unbind(1)
        return self.blocks[(self.parts.long() - 1).clamp_min(0), row, column] * self.mask

    @torch.no_grad()
    def _made(self, count: int, draw: torch.Generator, turn: bool = False) -> Views:
        pipe = self.pipe
        which = torch.randint(len(self.photos), (count,), generator=draw).to(self.photos.device)
        boxes = random_boxes(count, tuple(self.photos.shape[2:]), self.recipe.zoom, draw)
        pixels = crop_pixels(self.photos[which], boxes)
        latents = encode_latents(pipe.vae, pixels).float()
        person, held = (crop_labels(x[which], boxes)[:, None] for x in (self.mask, self.held))
        poses, warp, planes = self._given(which, boxes, draw, turn)
        held = torch.zeros_like(held) if turn else held
        views = Views(pixels, latents, poses, warp, which, person, held, planes)
        return self._as_it_is(views, draw) if turn else views

    def _as_it_is(self, views: Views, draw: torch.Generator) -> Views:
        """Replace the views' latents by those that the UNet predicts from noise, and their pixels by those decoded."""
        prediction, _, noisy, timesteps = self.prediction(views, draw, noisiest=True)
        latents = clean_latents(self.pipe.scheduler, noisy, prediction.float(), timesteps)
        return views._replace(latents=latents, pixels=self.decoded(latents, views.planes).float())

    @torch.no_grad()
    def predicted(self) -> Views:
        """Return the reused views with the latents that the UNet predicts from noise.

        Pixels are the photo's where the texture is seen. Elsewhere they are decoded with the current weights, which
        preserves what the model knows about surfaces that no photo shows (prior preservation). Views without any
        texture are left out, unless none has any.
        """
        batches = enumerate(self.kept.split(self.recipe.batch_size))
        made = Views.joined(self._as_it_is(views, random(self.seed, number, 12)) for number, views in batches)
        shown = made.seen.flatten(1).any(1)
        if not shown.any():
            return made._replace(pixels=self.kept.pixels)
        pixels = torch.where(made.seen > 0, self.kept.pixels, made.pixels)
        return made._replace(pixels=pixels).select(shown.nonzero()[:, 0])

    def decoded(self, latents: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
        """Decode latents (B, C, h, w) and moved texture (B, 5, H, W) to pixels (B, 3, H, W)."""
        with torch.autocast(latents.device.type, self.low, enabled=self.low != torch.float32):
            return decode_both(self.pipe.vae, latents, planes)[0]

    def _given(self, which, boxes, draw, turn: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return pose channels, moved texture channels and moved texture of cropped photos; half of the samples get no
        texture, the others part of it."""
        pipe, config, device = self.pipe, self.pipe.model_config, self.photos.device
        nothing = torch.zeros(len(which), WARP_PLANES, *self.photos.shape[2:], device=device)
        no_warp = warp_channels(config, nothing, pipe.vae)
        if self.parts is None and self.uv is None:
            return torch.zeros(len(which), pose_channels(config), *no_warp.shape[2:], device=device), no_warp, nothing
        maps = [None if x is None else crop_labels(x[which], boxes) for x in (self.parts, self.uv)]
        maps[0] = turned(maps[0]) if turn else maps[0]
        encoded = encode_maps(*maps, pipe.factor, config.pose_encoding)
        still = torch.arange(len(which), device=device)[:, None].expand(-1, len(WINDOW))  # the photo's map fills it
        pose = window_channels(encoded, still)
        if self.texture is None or maps[0] is None:
            return pose, no_warp, nothing
        # prevents plain copying of the photo: half of the samples see no texture, the others lack 30 to 70 % of the
        # texels
        hidden = self.texture.expand(len(which))
        share = (0.3 + 0.4 * torch.rand(len(which), generator=draw))[:, None, None, None]
        side = hidden.rows.shape[2]
        removed = (torch.rand(len(which), NUM_PARTS, _BLOCKS, _BLOCKS, generator=draw) < share).float().to(device)
        if self.recipe.views is not None:
            removed = torch.maximum(removed, self.blocks)
        block = ((torch.arange(side, device=device) + 0.5) / side * _BLOCKS).long()
        hidden = hidden.without(removed[:, :, block][:, :, :, block][:, None])
        planes = move(hidden, *maps, background=False)
        if config.reference_background:
            planes = laid(planes, maps[0] > 0, crop_pixels(hidden.behind(), boxes))
        planes = planes * (torch.rand(len(which), generator=draw) < 0.5).float()[:, None, None, None].to(device)
        return pose, warp_channels(config, planes, pipe.vae), planes


def same_part(share: float, draw: torch.Generator, *planes: torch.Tensor) -> list[torch.Tensor]:
    """Cut the same random part, `share` of the sides, out of all `planes` (B, C, h, w) of each sample; their sides are
    multiples of the first's."""
    count, _, height, width = planes[0].shape
    high, wide = max(1, round(share * height)), max(1, round(share * width))
    rows, columns = (
        (torch.rand(count, generator=draw) * (side - cut + 1)).long().tolist()
        for side, cut in ((height, high), (width, wide))
    )

    def cut(plane: torch.Tensor) -> torch.Tensor:
        by, places = plane.shape[2] // height, zip(plane, rows, columns)
        return torch.stack([one[..., r * by : (r + high) * by, c * by : (c + wide) * by] for one, r, c in places])

    return [cut(plane) for plane in planes]


def random_boxes(count: int, size: tuple[int, int], zoom: float, generator: torch.Generator) -> torch.Tensor:
    """Draw crop boxes (B, 4) of (height, width) = `size`, as top, left, height, width in pixels; the aspect stays."""
    height, width = size
    scale = zoom + (1 - zoom) * torch.rand(count, generator=generator)
    h, w = scale * height, scale * width
    top, left = (torch.rand(count, generator=generator) * room for room in (height - h, width - w))
    return torch.stack([top, left, h, w], 1)


def crop_pixels(pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Cut boxes (B, 4) out of pixels (B, C, H, W) and enlarge them to (H, W) by bilinear interpolation."""
    rows, columns = _positions(boxes, pixels.shape[2:])
    height, width = pixels.shape[2:]
    y, x = 2 * rows / height - 1, 2 * columns / width - 1  # grid_sample's range over pixel edges
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
    grid = grid.to(pixels.device)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def crop_labels(labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Cut boxes out of maps (B, H, W) or (B, C, H, W) and enlarge them by nearest neighbour."""
    height, width = labels.shape[-2:]
    rows, columns = (x.long().to(labels.device) for x in _positions(boxes, (height, width)))
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    return torch.stack([label[..., r[:, None], c[None, :]] for label, r, c in zip(labels, rows, columns)])


def _positions(boxes: torch.Tensor, size) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = size
    top, left, h, w = boxes[:, :, None].unbind(1)
    return top + h * (torch.arange(height) + 0.5) / height, left + w * (torch.arange(width) + 0.5) / width
