"""Draw mannequins: intersect rounded cones with parallel rays, for batches of frames.

Each pixel takes part, U and V from the surface point that also gives its colour, so the pose maps are exact. Where a
bag covers the body, they are those of the body behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch.nn.functional import avg_pool2d, interpolate, normalize

from ..poses import JOINT_INDEX
from .cones import HEIGHTS, PARTS, TORSO, TORSO_JOINTS, Bodies, Posture

_CLOTH_FROM = {"upper_leg": 0.5, "lower_leg": 0.27}  # rest heights below which a skirt shows this part of the legs
_FAR = -1e4


@dataclass
class Rendering:
    """Drawn frames.

    rgb: uint8 (T, H, W, 3) or None. parts: uint8 (T, H, W). uv: float16 (T, 2, H, W).
    """

    rgb: torch.Tensor | None
    parts: torch.Tensor
    uv: torch.Tensor


def intersect(origin: torch.Tensor, direction: torch.Tensor, length: torch.Tensor, ra: torch.Tensor, rb: torch.Tensor):
    """Intersect rays with the rounded cone from (0, 0, 0), radius ra, to (0, length, 0), radius rb.

    origin: (..., 3). direction: (..., 3) of unit length. length, ra, rb: broadcast against (...).
    Returns hit (bool), distance, point (..., 3) and normal (..., 3) of the first intersection, which solves the
    quadratics of the cone's mantle and its two balls.
    """
    ox, oy, oz = origin.unbind(-1)
    dx, dy, dz = direction.unbind(-1)
    slope = ra - rb
    m0, m1, m2 = length * length, length * oy, length * dy
    m3, m5 = dx * ox + dy * oy + dz * oz, ox * ox + oy * oy + oz * oz
    m6, m7 = m3 - m2, m5 - 2 * m1 + m0
    d2 = m0 - slope * slope
    k2 = d2 - m2 * m2
    k1 = d2 * m3 - m1 * m2 + m2 * slope * ra
    k0 = d2 * m5 - m1 * m1 + 2 * m1 * slope * ra - m0 * ra * ra
    disc = k1 * k1 - k0 * k2
    t = (-disc.clamp_min(0).sqrt() - k1) / torch.where(k2.abs() < 1e-9, torch.full_like(k2, 1e-9), k2)
    y = m1 - ra * slope + t * m2
    mantle = (disc >= 0) & (y > 0) & (y < d2) & (k2 > 1e-9)
    disc_a, disc_b = m3 * m3 - m5 + ra * ra, m6 * m6 - m7 + rb * rb
    ta = torch.where(disc_a >= 0, -m3 - disc_a.clamp_min(0).sqrt(), -_FAR)
    tb = torch.where(disc_b >= 0, -m6 - disc_b.clamp_min(0).sqrt(), -_FAR)
    first_is_a = ta < tb
    t = torch.where(mantle, t, torch.minimum(ta, tb))
    hit = mantle | (disc_a >= 0) | (disc_b >= 0)
    point = origin + t[..., None] * direction
    px, py, pz = point.unbind(-1)
    ny = torch.where(mantle, d2 * py - length * y, torch.where(first_is_a, py, py - length))
    weight = torch.where(mantle, d2, torch.ones_like(d2))
    normal = normalize(torch.stack([weight * px, ny, weight * pz], -1), dim=-1)
    return hit, t, point, normal


@dataclass
class View:
    """A parallel camera that looks along -z, and the light, in T frames.

    scale: (T,) image heights per body height. centre: (T, 2) the point in the image's middle, in body heights. light:
    (T, 3) unit vector towards the light. ambient: (T,) share of light that comes from everywhere, 0 to 1. tint: (T, 3)
    the light's colour.
    """

    scale: torch.Tensor
    centre: torch.Tensor
    light: torch.Tensor
    ambient: torch.Tensor
    tint: torch.Tensor

    def select(self, which: torch.Tensor) -> View:
        """The view in some of the frames."""
        return View(*(getattr(self, f.name)[which] for f in fields(self)))


def draw(
    bodies: Bodies,
    now: Posture,
    view: View,
    size: tuple[int, int],
    supersample: int = 2,
    painted: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Rendering:
    """Draw T frames of figures, of `size` (height, width); without `painted` only their pose maps.

    bodies: one for each frame, with their cloth already hanging. supersample: rays per pixel side. Colours are
    averaged; a pixel belongs to the person if at least half of its rays hit a part of the body. painted: an atlas
    (27, K, K, 3) and backgrounds (T, H, W, 3), both in [0, 1].
    """
    height, width = size[0] * supersample, size[1] * supersample
    # z, part, layer, u, v, shade of every ray
    buffer = torch.zeros(len(now[1]), 6, height * width)
    buffer[:, 0], buffer[:, 2] = _FAR, -1
    body = None
    for i, kind in sorted(enumerate(bodies.kinds), key=lambda numbered: numbered[1].parts[0] == 0):
        if kind.parts[0] == 0 and body is None:
            body = buffer.clone()  # cones drawn from here on cover the body but are no part of it
        worn = (bodies.radii[:, i, 0] > 0).nonzero()[:, 0]  # often few: not every figure wears a hat
        if len(worn) == len(buffer):
            _draw_cone(buffer, i, bodies, *now, view, (height, width), painted is not None)
        elif len(worn):
            part, some = buffer[worn], (now[0][worn], now[1][worn], view.select(worn))
            _draw_cone(part, i, bodies.select(worn), *some, (height, width), painted is not None)
            buffer[worn] = part
    rgb = None
    if painted is not None:
        _occlude(buffer, (height, width))
        rgb = _coloured(buffer, *painted, view.tint, size, supersample)
    return Rendering(rgb, *_labels(buffer if body is None else body, size, supersample))


def _draw_cone(
    buffer, i: int, bodies: Bodies, rotations, positions, view: View, size: tuple[int, int], shaded: bool
) -> None:
    kind, (height, width) = bodies.kinds[i], size
    pixels, centre = view.scale * height, view.centre  # (T,) pixels per body height
    frames = len(positions)
    joint = JOINT_INDEX[kind.joint]
    rotation, here = rotations[:, joint], positions[:, joint]
    start, axis, radii = bodies.start[:, i], bodies.end[:, i] - bodies.start[:, i], bodies.radii[:, i]
    length = axis.norm(dim=-1)
    frame = _bone_frame(axis / length[:, None])  # columns: local x, y (along the bone), z in the joint's frame
    scale = torch.stack([bodies.scale[:, i, 0], torch.ones_like(length), bodies.scale[:, i, 1]], -1)
    to_world = rotation @ frame
    to_local = to_world.transpose(1, 2) / scale[:, :, None]  # (T, 3, 3)
    a = here + (rotation @ start[..., None])[..., 0]
    b = a + (rotation @ axis[..., None])[..., 0]

    # The window of pixels that rays can hit, of the same size in all frames.
    reach = (radii.amax(1) * scale.amax(1))[:, None] * 1.02
    low, high = torch.minimum(a, b)[:, :2] - reach, torch.maximum(a, b)[:, :2] + reach
    left = ((low[:, 0] - centre[:, 0]) * pixels + width / 2).floor()
    right = ((high[:, 0] - centre[:, 0]) * pixels + width / 2).ceil()
    top = (height / 2 - (high[:, 1] - centre[:, 1]) * pixels).floor()
    bottom = (height / 2 - (low[:, 1] - centre[:, 1]) * pixels).ceil()
    w = min(int((right - left).max()) + 1, width)
    h = min(int((bottom - top).max()) + 1, height)
    left, top = left.clamp(0, width - w).long(), top.clamp(0, height - h).long()
    columns, rows = left[:, None] + torch.arange(w), top[:, None] + torch.arange(h)
    index = (rows[:, :, None] * width + columns[:, None, :]).reshape(frames, h * w)
    x = (columns + 0.5 - width / 2) / pixels[:, None] + centre[:, :1]
    y = (height / 2 - rows - 0.5) / pixels[:, None] + centre[:, 1:]

    # rays (x, y, 0) + t (0, 0, -1) in the bone's scaled frame
    base, across, up = -(to_local @ a[..., None])[..., 0], to_local[..., 0], to_local[..., 1]
    base, across, up = (v[:, None, None] for v in (base, across, up))
    origin = base + x[:, None, :, None] * across + y[:, :, None, None] * up
    direction = -to_local[:, :, 2]
    speed = direction.norm(dim=-1)[:, None, None]
    direction = (direction[:, None, None] / speed[..., None]).expand_as(origin)
    hit, t, point, normal = intersect(origin, direction, length[:, None, None], *radii[:, :, None, None].unbind(1))
    hit = hit & (radii[:, :1, None] > 0)
    along = point[..., 1] / length[:, None, None]
    hit = hit & ((along <= 1) | (bodies.cut[:, i, None, None] == 0))

    part, layer, u, v, angle = _chart(i, bodies, point, along, frame, scale)
    shade = torch.ones_like(along)
    if shaded:
        world_normal = normalize((normal / scale[:, None, None]) @ to_world.transpose(1, 2)[:, None], dim=-1)
        # Wrap lighting, with a slightly darker rim.
        facing = (world_normal @ view.light[:, None, :, None])[..., 0]
        soft = ((facing + 0.3) / 1.3).clamp_min(0)
        ambient = view.ambient[:, None, None]
        shade = ambient + (1.12 - ambient) * soft - 0.1 * (1 - world_normal[..., 2].clamp(0, 1)) ** 2
    if shaded and kind.chart == "skirt":
        shade = shade * (1 + bodies.folds[:, i, None, None] * along.clamp(0, 1) * torch.sin(11 * angle + 3 * along))

    values = torch.stack([-t / speed, part, layer, u, v, shade], 1).reshape(frames, 6, h * w)
    old = buffer.gather(2, index[:, None].expand(-1, 6, -1))
    closer = hit.reshape(frames, 1, h * w) & (values[:, :1] > old[:, :1])
    buffer.scatter_(2, index[:, None].expand(-1, 6, -1), torch.where(closer, values, old))


def _bone_frame(axis: torch.Tensor) -> torch.Tensor:
    """Frames (T, 3, 3), columns x, y, z, of axes (T, 3): y is the axis, z as near the body's front as possible."""
    # Feet and nose point forward, so their upper side counts as front.
    forward = torch.where((axis[:, 2:].abs() > 0.9), axis.new_tensor([0.0, 1.0, 0.0]), axis.new_tensor([0.0, 0.0, 1.0]))
    z = normalize(forward - (forward * axis).sum(-1, keepdim=True) * axis, dim=-1)
    x = torch.linalg.cross(axis, z)
    x = torch.where(x[:, :1] >= 0, x, -x)  # x points to the person's left, even if that mirrors the frame
    return torch.stack([x, axis, z], -1)


def _chart(i: int, bodies: Bodies, point, along, frame, scale):
    """Part, texture layer, U, V and angle about the axis of points on a cone's surface.

    point: (T, h, w, 3) in the cone's scaled frame. along: (T, h, w) position on the axis, 0 at its start and 1 at its
    end.
    """
    kind, (front, back) = bodies.kinds[i], bodies.kinds[i].parts
    span = bodies.span[:, i, None, None]
    if kind.chart in ("torso", "head"):
        local = (point * scale[:, None, None]) @ frame.transpose(1, 2)[:, None] + bodies.start[:, i, None, None]
        angle = torch.atan2(local[..., 0], local[..., 2])
        if kind.chart == "torso":
            size, rest = bodies.torso, TORSO_JOINTS[kind.joint]
        else:
            size, rest = bodies.head, 0.855
        low, high = HEIGHTS[kind.chart]
        height = local[..., 1] / size[:, None, None] + rest
        v = (height - low) / (high - low)
    elif kind.chart == "skirt":
        angle = torch.atan2(point[..., 0], point[..., 2]) - bodies.twist[:, None, None] * along
        angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        return *_skirt_chart(angle, span[..., 0] + (span[..., 1] - span[..., 0]) * along.clamp(0, 1)), angle
    else:
        angle = torch.atan2(point[..., 0] * scale[:, None, None, 0], point[..., 2] * scale[:, None, None, 2])
        length = (bodies.end[:, i] - bodies.start[:, i]).norm(dim=-1)[:, None, None]
        ra, rb = bodies.radii[:, i, :, None, None].unbind(1)
        bare = (along * length + ra) / (length + ra + rb).clamp_min(1e-6)
        v = torch.where(span[..., 1] > 0, span[..., 0] + (span[..., 1] - span[..., 0]) * along, bare)
    if kind.chart in ("whole", "none"):
        u, part = angle / (2 * math.pi) + 0.5, torch.full_like(v, front)
    elif kind.chart == "head":
        u, part = angle.abs() / math.pi, torch.where(angle >= 0, float(front), float(back))
    else:
        u, part = _halves(angle, front, back)
    layer = part - 1 if kind.layer is None else torch.full_like(part, kind.layer)
    return part, layer, u.clamp(0, 1), v.clamp(0, 1), angle


def _halves(angle, front: float, back: float):
    """U and part around a limb or the torso; the middle of the front chart is at angle 0."""
    is_front = angle.abs() <= math.pi / 2
    u = torch.where(is_front, 0.5 + angle / math.pi, (angle / math.pi) % 2 - 0.5)
    return u, torch.where(is_front, float(front), float(back))


def _skirt_chart(angle, height):
    """Part, layer, U and V of a skirt's points, from their angle and rest height.

    As in DensePose, cloth takes the body part under it. Above the hips that is the torso; below, each quarter of the
    skirt is the front or back of one leg, from its inner to its outer side.
    """
    low, high = HEIGHTS["torso"]
    u, part = _halves(angle, *TORSO)
    v = (height - low) / (high - low)
    left, is_front = angle >= 0, angle.abs() <= math.pi / 2
    # 0 between the legs, 1 at the side
    outwards = torch.where(is_front, angle.abs(), math.pi - angle.abs()) * 2 / math.pi
    # U grows towards the person's left on a front, towards the right on a back
    leg_u = torch.where(left == is_front, outwards, 1 - outwards)
    for limb, top in _CLOTH_FROM.items():
        below = height < top
        first, last = HEIGHTS[limb]
        sides = [torch.where(is_front, *map(float, PARTS[f"{side}_{limb}"])) for side in ("left", "right")]
        part = torch.where(below, torch.where(left, *sides), part)
        u, v = torch.where(below, leg_u, u), torch.where(below, (height - first) / (last - first), v)
    return part, part - 1, u.clamp(0, 1), v.clamp(0, 1)


def _occlude(buffer, size: tuple[int, int]) -> None:
    """Darken points closely behind something nearer, such as the body next to an arm; writes into `buffer`."""
    height, width = size
    seen = buffer[:, 2] >= 0
    depth = torch.where(seen, buffer[:, 0], buffer.new_tensor(-0.5)).reshape(-1, 1, height, width)
    step = max(1, height // 80)  # the shade is soft, so a coarse grid is enough
    small = avg_pool2d(depth, step)
    near = avg_pool2d(small, 5, 1, 2, count_include_pad=False)
    near = interpolate(near, size=(height, width), mode="bilinear", align_corners=False).flatten(1)
    buffer[:, 5] *= 1 - (5.0 * (near - buffer[:, 0])).clamp(0, 0.3) * seen


def _blocks(x: torch.Tensor, size: tuple[int, int], s: int) -> torch.Tensor:
    """Group rays (T, H s W s, ...) by pixel: (T, H, W, s s, ...)."""
    x = x.reshape(len(x), size[0], s, size[1], s, *x.shape[2:])
    return x.transpose(2, 3).reshape(len(x), *size, s * s, *x.shape[5:])


def _coloured(buffer, atlas, background, tint, size, s) -> torch.Tensor:
    """Pictures uint8 (T, H, W, 3): the rays' colours, averaged and laid over the background."""
    seen = buffer[:, 2] >= 0
    shade = buffer[:, 5, :, None] * tint[:, None]
    colour = torch.zeros_like(shade)
    layer, u, v = (buffer[:, k][seen] for k in (2, 3, 4))
    colour[seen] = _looked_up(atlas, layer.long(), u, v) * shade[seen]
    rgb = _blocks(colour, size, s).mean(3) + (1 - _blocks(seen, size, s).float().mean(-1)[..., None]) * background
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8)


def _labels(buffer, size, s) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts uint8 (T, H, W) and U, V float16 (T, 2, H, W).

    Each pixel takes those of its first ray that hits the person; it stays 0 if less than half of its rays do.
    """
    hits = _blocks(buffer[:, 1] > 0, size, s)
    chosen = hits.float().argmax(-1, keepdim=True)  # the first ray of the pixel that hits
    keep = hits.float().mean(-1) >= 0.5

    def pick(x: torch.Tensor) -> torch.Tensor:
        return torch.where(keep, _blocks(x, size, s).gather(3, chosen)[..., 0], 0.0)

    part, u, v = (pick(buffer[:, k]) for k in (1, 3, 4))
    return part.to(torch.uint8), torch.stack([u, v], 1).to(torch.float16)


def _looked_up(atlas, layer, u, v) -> torch.Tensor:
    """Sample an atlas (L, K, K, 3) bilinearly at layer, u, v, each (N,): colours (N, 3)."""
    texels = atlas.shape[1]
    flat, total = atlas.reshape(-1, 3), 0
    column, row = (u * texels - 0.5).clamp(0, texels - 1), (v * texels - 0.5).clamp(0, texels - 1)
    left, top = column.long().clamp_max(texels - 2), row.long().clamp_max(texels - 2)
    right_share, low_share = column - left, row - top
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (right_share if dx else 1 - right_share) * (low_share if dy else 1 - low_share)
            total = total + flat[(layer * texels + top + dy) * texels + left + dx] * weight[..., None]
    return total
