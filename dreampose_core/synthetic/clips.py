"""Short clips of synthetic people, with the pose maps that inference would have of them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..body.build import Build, Stances, drawn, turn_arms
from ..body.fitting import offsets_of
from ..body.outline import snapped
from ..body.retarget import on_body
from ..body.worn import fitted_body
from ..densepose import Estimator
from ..media import crop_box, fit_image, read_image
from ..poses import JOINTS, PoseSequence
from .backdrop import backdrop_size
from .dice import Dice
from .motion import HELD_OUT_MOTIONS, TRAINING_MOTIONS
from .people import HELD_OUT, Person, draw_people
from .staging import Moments

SHAPES = ((640, 512), (672, 480), (736, 416), (576, 576))  # 5:4, 7:5, 16:9, 1:1; of similar area
LENGTH = 12  # frames of a clip
_FPS = (5, 8, 12)
_NEAR = 0.3  # share of clips in which the camera is too near to show the whole person
_TURNED = 0.25  # share of clips whose person has turned since the photo
_PICTURES = 0.5  # share of clips in front of one of the given pictures


@dataclass(frozen=True)
class Clip:
    """A photo and frames of one person, all of one size, with their pose maps in body charts.

    photo: uint8 (H, W, 3), its map in image_poses. frames: uint8 (T, H, W, 3), their maps in poses.
    """

    photo: np.ndarray
    image_poses: PoseSequence
    frames: np.ndarray
    poses: PoseSequence


def draw_clip(
    seed: int,
    index: int,
    estimator: Estimator,
    backdrops: Sequence[Path] = (),
    sizes: Sequence[tuple[int, int]] = SHAPES,
    held_out: bool = False,
) -> Clip | None:
    """Draw clip `index` of the training set `seed`, always the same; None if the estimator does not find the person.

    Two thirds of the clips have the frames' own maps; in one third the motion is retargeted to the body in the photo,
    as another person's motion would be. held_out: draw people and motions that no training set contains, always with
    the frames' own maps.
    """
    dice = Dice((seed * 1_000_003 + index) * 2)
    size = dice.choice(tuple(sizes))
    who, name = int(dice.uniform(0, HELD_OUT)), dice.choice(HELD_OUT_MOTIONS if held_out else TRAINING_MOTIONS)
    who = HELD_OUT + who if held_out else who
    fps, start = dice.choice(_FPS), dice.uniform(0, 8)
    turned = dice.uniform(-math.pi, math.pi) if dice.chance(_TURNED) else 0.0
    dice.uniform()  # not used; without this draw all clips would change
    person = Person.from_seed(who)
    moments = person.moments(name, start + torch.arange(LENGTH) / fps).turned(turned)
    still = turned != 0 or dice.chance(0.4)
    if still:
        photo = person.moments("idle", torch.tensor([dice.uniform(0, 8)])).turned(0.3 * dice.uniform(-1, 1))
        moments = Moments(*map(torch.cat, zip(vars(photo).values(), vars(moments).values())))
    if dice.chance(_NEAR):
        nearer = dice.uniform(1.2, 2)
        pan = torch.tensor([dice.uniform(-0.1, 0.1) / nearer, (1 / nearer - 1) / 2 * dice.uniform(0.75, 1.1)])
        moments = replace(moments, zoom=moments.zoom * nearer, pan=moments.pan + pan)
    behind = None
    if backdrops and dice.chance(_PICTURES):
        behind = _picture(dice, dice.choice(tuple(backdrops)), size)
    frames = _through_a_phone(dice, draw_people(person, moments, size, behind)[0].numpy())
    photo, frames = (frames[0], frames[1:]) if still else (frames[0], frames)
    image_poses, poses = estimator.estimate([photo]), replace(estimator.estimate(list(frames)), fps=float(fps))
    if image_poses.joints is None or poses.joints is None or not poses.mask.any((1, 2)).all():
        return None
    if not still and not held_out and dice.chance(0.7):
        poses, _ = on_body(poses, image_poses)
    return Clip(photo, image_poses, frames, poses)


def exact_clip(
    person: Person, moments: Moments, size: tuple[int, int], fps: float = 20.0
) -> tuple[np.ndarray, PoseSequence]:
    """Draw a person in T moments: rgb uint8 (T, H, W, 3) and the pose sequence (charts: body), without an estimator.

    The maps are those of a body with the person's exact joints and mask.
    """
    rgb, masks = draw_people(person, moments, size)
    posture, view = person.staged(moments)
    still = np.broadcast_to(np.eye(3), (len(JOINTS), 3, 3))
    body = Build(offsets_of(still, person.body.rest.double().numpy()))
    stances, masks = Stances.of(view.joints(posture, body, size), size), masks.numpy().astype(np.uint8) * 255
    body = fitted_body(stances.select([0]), body, masks[0])
    parts, uv = drawn(stances, [body] * len(stances), size)
    for index, height in enumerate(stances.height):
        parts[index], uv[index] = snapped(parts[index], uv[index], masks[index], height)
    turn_arms(parts, uv)
    return rgb.numpy(), PoseSequence(parts, uv, "body", fps, view.joints(posture, body, size))


def _picture(dice: Dice, path: Path, size: tuple[int, int]) -> torch.Tensor:
    """A part of a picture as a backdrop for frames of `size`, somewhat out of focus."""
    picture, wanted = read_image(path), backdrop_size(size)
    box = crop_box(picture.shape[:2], wanted)
    share = dice.uniform(0.5, 1)
    height, width = box.height * share, box.width * share
    top, left = (dice.uniform(0, side - part) for side, part in zip(picture.shape[:2], (height, width)))
    blur = dice.uniform(0.25, 1.0)  # resolution, as a share of the frame's
    small = tuple(max(2, round(side * blur)) for side in wanted)
    part = fit_image(picture, small, replace(box, top=top, left=left, height=height, width=width))
    soft = Image.fromarray(part).resize(wanted[::-1], Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(soft).copy()).float() / 255


def _through_a_phone(dice: Dice, frames: np.ndarray) -> np.ndarray:
    """Degrade frames like a phone's camera: exposure, white balance, a slightly soft lens, noise, JPEG."""
    light = np.array([dice.around(1, 0.08), 1.0, dice.around(1, 0.08)]) * dice.around(0.97, 0.15)
    gamma, noise = dice.around(1, 0.15), dice.uniform(0, 0.012)
    blur, quality = dice.uniform(0.6, 1.0), int(dice.uniform(70, 96))
    random = np.random.default_rng(int(dice.uniform(0, 2**31)))
    taken = []
    for frame in frames:
        seen = Image.fromarray(frame)
        if blur < 0.9:
            small = tuple(round(side * blur) for side in seen.size)
            seen = seen.resize(small, Image.Resampling.BILINEAR).resize(seen.size, Image.Resampling.BICUBIC)
        values = (np.asarray(seen, np.float32) / 255 * light).clip(0, 1) ** gamma
        values = values + noise * random.standard_normal(values.shape, np.float32)
        file = io.BytesIO()
        Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
        taken.append(np.asarray(Image.open(file)))
    return np.stack(taken)
