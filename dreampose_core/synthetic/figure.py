"""A figure from a seed, and clips of it: the entry to rendered people."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch

from ..body.build import Build
from ..body.cloth import hang
from ..body.cones import JOINT_INDEX, Bodies, Cone, Shape, body_cones, forward_kinematics, rest_joints, sole_height
from ..body.drawing import Rendering, View, draw
from ..body.fitting import offsets_of
from ..errors import InputError
from ..poses import JOINTS, Joints, PoseSequence
from ..settings import MAX_SEED
from .backdrop import backdrop, seen_through
from .motion import Manner, motion, random_manner
from .outfit import Dice, Outfit, outfit_cones, random_outfit, random_shape
from .wardrobe import dress

HELD_OUT = 10_000  # seeds below are for training, this and above are never trained on
FLOOR = 0.02  # the soles' height above the lower edge of a body-high frame, in body heights
LAG_S = 0.12  # how far loose cloth and hair are behind the body


@dataclass(frozen=True)
class Camera:
    """zoom: image heights a grown-up's height. shift: of the middle, in body heights. sway: how far it moves to the
    sides, in frame heights; breathe: how far it zooms, as a share; rate: of both, in cycles a second; phase 0..1."""

    zoom: float
    shift: float
    sway: float = 0.0
    breathe: float = 0.0
    rate: float = 0.1
    phase: float = 0.0


@dataclass(frozen=True)
class Light:
    """direction: where the light comes from, of unit length. ambient: the share that comes from everywhere. tint: its
    colour."""

    direction: tuple[float, float, float]
    ambient: float
    tint: tuple[float, float, float]


@dataclass(frozen=True)
class Figure:
    """A person made by the program: proportions, clothes and their cones, looks (27, K, K, 3), manner; the camera and
    the light."""

    seed: int
    shape: Shape
    outfit: Outfit
    cones: list[Cone]
    atlas: torch.Tensor
    manner: Manner
    camera: Camera
    light: Light

    @classmethod
    def from_seed(cls, seed: int, device: str | torch.device = "cpu") -> Figure:
        """The figure with this seed, always the same; its looks are painted on `device`."""
        if not 0 <= seed <= MAX_SEED:
            raise InputError(f"The seed is {seed}; it must be 0 to {MAX_SEED}.")
        dice = Dice(torch.Generator().manual_seed(seed * 7919 + 17))
        shape, outfit = random_shape(dice), random_outfit(dice)
        camera = random_camera(dice)
        with torch.device(device):
            atlas = dress(dice, outfit)
        return cls(
            seed,
            shape,
            outfit,
            body_cones(shape) + outfit_cones(shape, outfit),
            atlas,
            random_manner(dice.generator),
            camera,
            random_light(dice),
        )

    def backdrop(self, size: tuple[int, int]) -> torch.Tensor:
        """Where the figure stands, larger than a frame of `size`, on the device of its looks; see
        `backdrop.backdrop`."""
        with self.atlas.device:
            return backdrop(Dice(torch.Generator().manual_seed(self.seed * 7919 + 29)), size)

    def moments(self, name: str, times: torch.Tensor, manner: Manner | None = None) -> Moments:
        """The figure doing the named motion at `times` (T,), in seconds, ascending; in its own manner unless another is
        given."""
        return moments_of(self.camera, name, times, manner or self.manner)


@dataclass
class Moments:
    """T moments of a motion: joint angles (T, J, 3) and offsets (T, 3), the same LAG_S before, and the camera's zoom
    (T,), 1 at rest, and pan (T, 2) to the right and down, in frame heights."""

    angles: torch.Tensor
    offset: torch.Tensor
    before_angles: torch.Tensor
    before_offset: torch.Tensor
    zoom: torch.Tensor
    pan: torch.Tensor

    @classmethod
    def still(cls, angles: torch.Tensor, offset: torch.Tensor) -> Moments:
        """Poses that nothing led to, before a camera that stands."""
        return cls(angles, offset, angles, offset, torch.ones(len(angles)), torch.zeros(len(angles), 2))

    @classmethod
    def join(cls, several: list[Moments]) -> Moments:
        """All of them in a row."""
        return cls(*(torch.cat([getattr(m, f.name) for m in several]) for f in fields(cls)))

    def select(self, which: torch.Tensor | slice) -> Moments:
        """Those at these indices."""
        return Moments(*(getattr(self, f.name)[which] for f in fields(self)))

    def turned(self, angle: float) -> Moments:
        """The same, seen from another side: turned about the vertical, in radians."""
        turn = torch.zeros_like(self.angles)
        turn[:, JOINT_INDEX["root"], 1] = angle
        return replace(self, angles=self.angles + turn, before_angles=self.before_angles + turn)

    def seen_from(self, angles: torch.Tensor) -> Moments:
        """The same before a camera that stands at `angles` (T,) around the figure's place, in radians, growing towards
        its left side."""
        turn = torch.zeros_like(self.angles)
        turn[:, JOINT_INDEX["root"], 1] = -angles
        cos, sin = angles.cos(), angles.sin()

        def moved(offset: torch.Tensor) -> torch.Tensor:
            x, y, z = offset.unbind(-1)
            return torch.stack([cos * x - sin * z, y, sin * x + cos * z], -1)

        return replace(
            self,
            angles=self.angles + turn,
            before_angles=self.before_angles + turn,
            offset=moved(self.offset),
            before_offset=moved(self.before_offset),
        )

    def to(self, device: str | torch.device) -> Moments:
        """The same on a device."""
        return Moments(*(getattr(self, f.name).to(device) for f in fields(self)))

    def __len__(self) -> int:
        return len(self.angles)


def moments_of(camera: Camera, name: str, times: torch.Tensor, manner: Manner) -> Moments:
    """The named motion at `times` (T,), in seconds, ascending, before a camera that may move."""
    cycle = 2 * math.pi * (camera.rate * times + camera.phase)
    zoom, pan = (
        1 + camera.breathe * torch.sin(cycle),
        camera.sway * torch.stack([torch.sin(1.3 * cycle), 0.3 * torch.cos(cycle)], -1),
    )
    return Moments(*motion(name, times, manner), *motion(name, (times - LAG_S).clamp_min(0), manner), zoom, pan)


def render(
    figures: list[Figure],
    owner: torch.Tensor,
    moments: Moments,
    size: tuple[int, int],
    *,
    device: str | torch.device = "cpu",
    supersample: int = 2,
    maps_only: bool = False,
) -> Rendering:
    """T frames, each of one of `figures`: owner (T,) says whose.

    size: (height, width). supersample: rays a pixel side. maps_only: no pictures. All frames are drawn at once on
    `device`.
    """
    owner, m = owner.to(device), moments.to(device)
    bodies, now, view = _staged(figures, owner, m)
    bodies, twist = hang(bodies, now, _standing(bodies, m.before_angles, m.before_offset))
    if maps_only:
        return draw(bodies, *now, twist, None, owner, None, view, size, supersample)
    backdrops = torch.stack([figure.backdrop(size) for figure in figures]).to(device)
    background = seen_through(backdrops[owner], size, m.zoom, m.pan) * view.tint[:, None, None]
    background = with_shadow(background, now[1], m.offset[:, 1], view)
    atlases = torch.stack([figure.atlas for figure in figures]).to(device)
    return draw(bodies, *now, twist, atlases, owner, background, view, size, supersample)


def joints(figure: Figure, moments: Moments, size: tuple[int, int]) -> Joints:
    """The exact joints of a figure in frames of (height, width) `size`; its body has the figure's bones, and nothing of
    what it wears."""
    bodies, (rotations, positions), view = _staged([figure], torch.zeros(len(moments), dtype=torch.long), moments)
    return joints_in(rotations, positions, view, bodies.rest[0], figure.shape.head, size)


def joints_in(
    rotations: torch.Tensor, positions: torch.Tensor, view: View, rest: torch.Tensor, head: float, size: tuple[int, int]
) -> Joints:
    """Joints with these rotations (T, J, 3, 3) and positions (T, J, 3) as they are seen in frames of `size`, surely; of
    a body with the bones between the joints at rest (J, 3), and a head of this size."""
    root = positions[:, :1]
    x, y = (root[:, 0, :2] - view.centre).unbind(-1)
    camera = torch.stack([view.scale, 0.5 + x * view.scale * size[0] / size[1], 0.5 - y * view.scale], -1)
    still = torch.eye(3, dtype=torch.float64).expand(len(JOINTS), 3, 3)
    body = Build(offsets_of(still.numpy(), rest.double().numpy()), head=head)
    ones = torch.ones(len(positions), len(JOINTS))
    return Joints(*(t.float().numpy() for t in (rotations, positions - root, camera, ones)), body.numbers())


def render_clip(
    figure: Figure,
    name: str,
    frames: int,
    size: tuple[int, int],
    *,
    fps: float = 20.0,
    start_s: float = 0.0,
    manner: Manner | None = None,
    device: str | torch.device = "cpu",
) -> tuple[torch.Tensor, PoseSequence]:
    """rgb uint8 (T, H, W, 3) on the CPU and its exact pose sequence (charts: mannequin); in the figure's own manner
    unless one is given."""
    moments = figure.moments(name, start_s + torch.arange(frames) / fps, manner)
    chunks = []
    for which in torch.arange(frames).split(64):
        chunks.append(
            render([figure], torch.zeros(len(which), dtype=torch.long), moments.select(which), size, device=device)
        )
    rgb, parts, uv = (torch.cat([getattr(c, key).cpu() for c in chunks]) for key in ("rgb", "parts", "uv"))
    return rgb, PoseSequence(parts.numpy(), uv.numpy(), "mannequin", fps, joints(figure, moments, size))


def _staged(
    figures: list[Figure], owner: torch.Tensor, m: Moments
) -> tuple[Bodies, tuple[torch.Tensor, torch.Tensor], View]:
    """The figures' bodies in T moments, the rotations and positions of their joints, and how they are seen."""
    device, shapes = owner.device, [figure.shape for figure in figures]
    rest, head = [rest_joints(shape) for shape in shapes], [shape.head for shape in shapes]
    bodies = Bodies.of(rest, head, [figure.cones for figure in figures], device).select(owner)

    def own(values) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)[owner]

    still = own([figure.camera.zoom * figure.shape.height for figure in figures])
    centre = torch.stack([own([figure.camera.shift for figure in figures]), 0.5 / still - 0.045], -1)
    view = View(
        still * m.zoom,
        centre + m.pan * still.new_tensor([1.0, -1.0]) / still[:, None],
        own([figure.light.direction for figure in figures]),
        own([figure.light.ambient for figure in figures]),
        own([figure.light.tint for figure in figures]),
    )
    return bodies, _standing(bodies, m.angles, m.offset), view


def _standing(bodies: Bodies, angles: torch.Tensor, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations and positions with the lower sole on the floor, or as far above it as the offset's y says."""
    rotations, positions = forward_kinematics(bodies.rest, angles, offset)
    rise = FLOOR + offset[:, 1] - sole_height(rotations, positions)
    return rotations, positions + torch.stack([torch.zeros_like(rise), rise, torch.zeros_like(rise)], -1)[:, None]


def random_camera(dice: Dice) -> Camera:
    """A camera that shows the whole figure; one in three moves a little."""
    moves = dice.chance(0.3)
    return Camera(
        dice.uniform(0.76, 0.88),
        dice.uniform(-0.05, 0.05),
        moves * dice.uniform(0, 0.025),
        moves * dice.uniform(0, 0.05),
        dice.uniform(0.05, 0.15),
        dice.uniform(),
    )


def random_light(dice: Dice) -> Light:
    """Soft light from above, more or less from one side."""
    x, y, z = dice.uniform(-0.6, 0.6), dice.uniform(0.3, 0.7), dice.uniform(0.6, 0.9)
    length = math.sqrt(x * x + y * y + z * z)
    warmth = dice.uniform(-0.05, 0.05)
    return Light((x / length, y / length, z / length), dice.uniform(0.48, 0.7), (1 + warmth, 1.0, 1 - warmth))


def with_shadow(background, positions, height_above_floor, view: View) -> torch.Tensor:
    """Backgrounds (T, H, W, 3) with a soft shadow on the floor: dark under the feet, faint where the body's falls away
    from the light."""
    _, height, width, _ = background.shape
    feet = positions[:, [JOINT_INDEX["left_ankle"], JOINT_INDEX["right_ankle"]], 0]
    middle, reach = feet.mean(1), 0.08 + 0.5 * (feet[:, 0] - feet[:, 1]).abs()
    pixels = view.scale * height
    x = (torch.arange(width, device=background.device) + 0.5 - width / 2)[None, None, :]
    y = (torch.arange(height, device=background.device) + 0.5)[None, :, None]

    def blob(x0, wide, deep) -> torch.Tensor:
        left = ((x0 - view.centre[:, 0]) * pixels)[:, None, None]
        top = (height / 2 - (FLOOR + 0.002 - view.centre[:, 1]) * pixels)[:, None, None]
        return torch.exp(
            -(((x - left) / (wide * pixels)[:, None, None]) ** 2) - ((y - top) / (deep * pixels)[:, None, None]) ** 2
        )

    near = torch.exp(-height_above_floor.clamp_min(0) / 0.08)[:, None, None]
    dark = 0.36 * near * blob(middle, reach, torch.full_like(middle, 0.016))
    away = 0.14 * blob(middle - 0.16 * view.light[:, 0], reach + 0.13, torch.full_like(middle, 0.04))
    return background * (1 - dark - away)[..., None]
