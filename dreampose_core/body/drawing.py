"""Draw bodies as pose maps: intersect rounded cones with parallel rays, for batches of frames.

Each pixel takes part, U and V from the surface point that its ray hits first.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import normalize

from ..poses import JOINT_INDEX
from .cones import HEIGHTS, PARTS, REST, TORSO, WAIST, Bodies, Posture

_THROAT, _THROAT_STEP = 0.1, 0.28  # V of the head below which V changes this much more slowly with height
_SHIN_FROM = 0.27
_CLOTH_FROM = {"upper_leg": 0.5, "lower_leg": _SHIN_FROM}  # rest heights below which a skirt shows these charts
_WHOLE = {"hand": (0, 1), "ankle": (0, 0.3), "sole": (0.3, 1)}  # cones with one chart, and their share of it along V
_THIGHS = PARTS["left_upper_leg"], PARTS["right_upper_leg"]
_FAR = -1e4
_OFF_HEM = 0.012  # what a skirt covers beyond its end shows cloth from this much above the hem: the photo's is sure
_LEVEL = 0.6  # cosine of a skirt's steepest angle to the vertical at which its hem hangs level
_SKIRT = 32  # added to the parts of a skirt while it is drawn


def intersect(origin: torch.Tensor, direction: torch.Tensor, length: torch.Tensor, ra: torch.Tensor, rb: torch.Tensor):
    """Intersect rays with the rounded cone from (0, 0, 0), radius ra, to (0, length, 0), radius rb.

    origin: (..., 3). direction: (..., 3) of unit length. length, ra, rb: broadcast against (...).
    Returns hit (bool), distance and point (..., 3) of the first intersection, which solves the quadratics of the cone's
    mantle and its two balls.
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
    t = torch.where(mantle, t, torch.minimum(ta, tb))
    hit = mantle | (disc_a >= 0) | (disc_b >= 0)
    return hit, t, origin + t[..., None] * direction


def draw(
    bodies: Bodies, now: Posture, scale: torch.Tensor, size: tuple[int, int], supersample: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw T frames of bodies: parts uint8 (T, H, W), U, V float16 (T, 2, H, W), and which pixels show a skirt, bool
    (T, H, W).

    bodies: one for each frame, with their cloth already hanging. now: positions have their 0 in the picture's middle.
    scale: (T,) picture heights per body height. size: (height, width). supersample: rays per pixel side. A pixel
    belongs to the person if at least half of its rays hit the body, and takes the values of the first of these.
    """
    height, width = size[0] * supersample, size[1] * supersample
    buffer = torch.zeros(len(scale), 4, height * width)  # z, part, u, v of every ray
    buffer[:, 0] = _FAR
    hem = _hem(bodies, *now)
    for i in range(len(bodies.kinds)):
        if bodies.radii[0, i, 0] > 0:  # not every body has hair and a skirt
            _draw_cone(buffer, i, bodies, *now, scale, (height, width), hem)
    # by pixel: (T, 4, H, W, rays)
    rays = buffer.reshape(len(scale), 4, size[0], supersample, size[1], supersample).transpose(3, 4).flatten(4)
    hits = (rays[:, 1:2] > 0).float()
    values = rays.gather(4, hits.argmax(4, keepdim=True).expand(-1, 4, -1, -1, -1))[..., 0]
    values = torch.where(hits.mean(4) >= 0.5, values, 0.0)
    parts = values[:, 1].to(torch.uint8)
    return parts % _SKIRT, values[:, 2:].to(torch.float16), parts >= _SKIRT


def _hem(bodies: Bodies, rotations: torch.Tensor, positions: torch.Tensor) -> torch.Tensor | None:
    """Heights (T,) of a skirt's hem, which hangs level; inf where the person bends over or lies; None for no skirt."""
    skirt = [kind.chart for kind in bodies.kinds].index("skirt")
    if not bodies.radii[0, skirt, 0] > 0:
        return None
    joint, start, end = JOINT_INDEX[bodies.kinds[skirt].joint], bodies.start[:, skirt], bodies.end[:, skirt]
    up = rotations[:, joint, 1]  # (T, 3), the vertical in the joint's frame
    is_level = ((start - end) * up).sum(-1) > _LEVEL * (start - end).norm(dim=-1)
    return torch.where(is_level, positions[:, joint, 1] + (end * up).sum(-1), torch.inf)


def _draw_cone(
    buffer,
    i: int,
    bodies: Bodies,
    rotations,
    positions,
    image_scale: torch.Tensor,
    size: tuple[int, int],
    hem: torch.Tensor | None,
) -> None:
    kind, (height, width) = bodies.kinds[i], size
    pixels = image_scale * height  # (T,) per body height
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
    left = (low[:, 0] * pixels + width / 2).floor()
    right = (high[:, 0] * pixels + width / 2).ceil()
    top = (height / 2 - high[:, 1] * pixels).floor()
    bottom = (height / 2 - low[:, 1] * pixels).ceil()
    w = min(int((right - left).max()) + 1, width)
    h = min(int((bottom - top).max()) + 1, height)
    left, top = left.clamp(0, width - w).long(), top.clamp(0, height - h).long()
    columns, rows = left[:, None] + torch.arange(w), top[:, None] + torch.arange(h)
    index = (rows[:, :, None] * width + columns[:, None, :]).reshape(frames, h * w)
    x = (columns + 0.5 - width / 2) / pixels[:, None]
    y = (height / 2 - rows - 0.5) / pixels[:, None]

    # rays (x, y, 0) + t (0, 0, -1) in the bone's scaled frame
    base, across, up = -(to_local @ a[..., None])[..., 0], to_local[..., 0], to_local[..., 1]
    base, across, up = (v[:, None, None] for v in (base, across, up))
    origin = base + x[:, None, :, None] * across + y[:, :, None, None] * up
    direction = -to_local[:, :, 2]
    speed = direction.norm(dim=-1)[:, None, None]
    direction = (direction[:, None, None] / speed[..., None]).expand_as(origin)
    hit, t, point = intersect(origin, direction, length[:, None, None], *radii[:, :, None, None].unbind(1))
    along = point[..., 1] / length[:, None, None]
    above_hem = None
    if hem is not None and (kind.chart == "skirt" or kind.parts in _THIGHS):
        at = a[:, 1, None, None] + (point * (scale * to_world[:, 1])[:, None, None]).sum(-1)
        above_hem = at > hem[:, None, None]
    if kind.chart == "skirt":
        hit = hit & torch.where(hem.isfinite()[:, None, None], above_hem, along <= 1)
    chart = _chart(i, bodies, point, along, frame, scale, above_hem)
    values = torch.stack([-t / speed, *chart], 1).reshape(frames, 4, h * w)
    old = buffer.gather(2, index[:, None].expand(-1, 4, -1))
    closer = hit.reshape(frames, 1, h * w) & (values[:, :1] > old[:, :1])
    buffer.scatter_(2, index[:, None].expand(-1, 4, -1), torch.where(closer, values, old))


def _bone_frame(axis: torch.Tensor) -> torch.Tensor:
    """Frames (T, 3, 3), columns x, y, z, of axes (T, 3): y is the axis, z as near the body's front as possible."""
    # Feet and nose point forward, so their upper side counts as front.
    forward = torch.where((axis[:, 2:].abs() > 0.9), axis.new_tensor([0.0, 1.0, 0.0]), axis.new_tensor([0.0, 0.0, 1.0]))
    z = normalize(forward - (forward * axis).sum(-1, keepdim=True) * axis, dim=-1)
    x = torch.linalg.cross(axis, z)
    x = torch.where(x[:, :1] >= 0, x, -x)  # x points to the person's left, even if that mirrors the frame
    return torch.stack([x, axis, z], -1)


def _chart(i: int, bodies: Bodies, point, along, frame, scale, above_hem):
    """Part, U and V of points on a cone's surface.

    point: (T, h, w, 3) in the cone's scaled frame. along: (T, h, w) position on the axis, 0 at its start and 1 at its
    end. above_hem: (T, h, w), which points lie above a skirt's hem; None for no skirt.
    """
    kind, (front, back) = bodies.kinds[i], bodies.kinds[i].parts
    if kind.chart == "skirt":
        angle = torch.atan2(point[..., 0], point[..., 2]) - bodies.twist[:, None, None] * along
        angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        hem = bodies.hem[:, None, None]
        height = torch.where(along > 1, hem + _OFF_HEM, WAIST + (hem - WAIST) * along.clamp_min(0))
        return _skirt_chart(angle, height)
    if kind.chart in HEIGHTS:
        local = (point * scale[:, None, None]) @ frame.transpose(1, 2)[:, None] + bodies.start[:, i, None, None]
        angle = torch.atan2(local[..., 0], local[..., 2])
        size = {"torso": bodies.torso, "head": bodies.head}.get(kind.chart, torch.ones_like(bodies.head))
        low, high = HEIGHTS[kind.chart]
        height = local[..., 1] / size[:, None, None] + REST[kind.joint][1]
        v = (height - low) / (high - low)
        if kind.chart == "head":  # the throat reaches below the chart, into its lowest tenth
            v = torch.where(v < _THROAT, _THROAT + _THROAT_STEP * (v - _THROAT), v)
    else:
        angle = torch.atan2(point[..., 0] * scale[:, None, None, 0], point[..., 2] * scale[:, None, None, 2])
        length = (bodies.end[:, i] - bodies.start[:, i]).norm(dim=-1)[:, None, None]
        ra, rb = bodies.radii[:, i, :, None, None].unbind(1)
        v = (along * length + ra) / (length + ra + rb).clamp_min(1e-6)
    if kind.chart in _WHOLE:
        first, last = _WHOLE[kind.chart]
        v = first + v * (last - first)
        u, part = angle / (2 * math.pi) + 0.5, torch.full_like(v, front)
    elif kind.chart == "head":
        u, part = angle.abs() / math.pi, torch.where(angle >= 0, float(front), float(back))
    else:
        u, part = _halves(angle, front, back)
    if kind.parts in _THIGHS and above_hem is not None:  # a thigh that sticks out of the skirt is covered by it
        (first, last), (shin, ankle) = HEIGHTS["upper_leg"], HEIGHTS["lower_leg"]
        height = (first + v * (last - first)).maximum(bodies.hem[:, None, None] + _OFF_HEM)
        on_shin = above_hem & (height < _SHIN_FROM)
        v = torch.where(on_shin, (height - shin) / (ankle - shin), v)
        part = part + torch.where(above_hem, _SKIRT + 4.0 * on_shin, 0.0)  # 7 to 10: upper legs; 11 to 14: lower legs
    return part, u.clamp(0, 1), v.clamp(0, 1)


def _halves(angle, front: float, back: float):
    """U and part around a limb or the torso; the middle of the front chart is at angle 0."""
    is_front = angle.abs() <= math.pi / 2
    u = torch.where(is_front, 0.5 + angle / math.pi, (angle / math.pi) % 2 - 0.5)
    return u, torch.where(is_front, float(front), float(back))


def _skirt_chart(angle, height):
    """Part, U and V of a skirt's points, from their angle and rest height.

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
    return part + _SKIRT, u.clamp(0, 1), v.clamp(0, 1)
