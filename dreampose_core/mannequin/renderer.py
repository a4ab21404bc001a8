"""Draws mannequins: rounded cones intersected with parallel rays, batched over frames, on any device.

Every pixel's part, U and V are computed from the very surface point that gives it its colour, so the DensePose is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .body import HAIR_LAYER, HEAD_HEIGHTS, JOINT_INDEX, NUM_LAYERS, TORSO_HEIGHTS, Bodies, Cone

_FAR = -1e4
_LIGHT = (0.35, 0.5, 0.79)


@dataclass
class Rendering:
    """rgb uint8 (T, H, W, 3), parts uint8 (T, H, W), uv float16 (T, 2, H, W), on the device that drew them."""

    rgb: torch.Tensor
    parts: torch.Tensor
    uv: torch.Tensor


def intersect(origin: torch.Tensor, direction: torch.Tensor, length: torch.Tensor, ra: torch.Tensor, rb: torch.Tensor):
    """First hit of rays with the rounded cone from (0, 0, 0), radius ra, to (0, length, 0), radius rb.

    origin (..., 3); direction (..., 3) of unit length; length, ra, rb broadcast against (...).
    Returns hit bool, distance, point (..., 3), normal (..., 3).
    The quadratics are those of the cone's mantle and its two balls.
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
    normal = torch.nn.functional.normalize(torch.stack([weight * px, ny, weight * pz], -1), dim=-1)
    return hit, t, point, normal


def draw(
    bodies: Bodies, rotations: torch.Tensor, positions: torch.Tensor, atlases: torch.Tensor, owner: torch.Tensor,
    background: torch.Tensor, scale: torch.Tensor, centre: torch.Tensor, size: tuple[int, int], supersample: int = 2,
) -> Rendering:  # fmt: skip
    """Frames of figures, seen by a parallel camera that looks along -z.

    bodies: of the T frames; rotations (T, J, 3, 3), positions (T, J, 3) from `forward_kinematics`; atlases (F, 25, K, K, 3) in
    [0, 1] and owner (T,) the atlas of each frame; background (T, H, W, 3) in [0, 1]; scale (T,) image heights a body height;
    centre (T, 2) the point in body heights at the image's middle; size (height, width).
    supersample: rays a pixel side; colours are averaged, a pixel belongs to the person when half of its rays hit.
    """
    height, width = size[0] * supersample, size[1] * supersample
    pixels = scale * height  # pixels a body height, (T,)
    # z, part, layer, u, v, shade of every ray
    buffer = torch.zeros(len(positions), 6, height * width, device=positions.device)
    buffer[:, 0] = _FAR
    for i, kind in enumerate(bodies.kinds):
        if bool((bodies.radii[:, i] > 0).any()):
            _draw_cone(buffer, kind, i, bodies, rotations, positions, pixels, centre, (height, width))
    return _resolve(buffer, atlases, owner, background, size, supersample)


def _draw_cone(buffer, kind: Cone, i: int, bodies: Bodies, rotations, positions, pixels, centre, size) -> None:
    height, width = size
    frames, device = len(positions), positions.device
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

    # the window of pixels that can be hit, of one size for all frames
    reach = (radii.amax(1) * scale.amax(1))[:, None] * 1.02
    low, high = torch.minimum(a, b)[:, :2] - reach, torch.maximum(a, b)[:, :2] + reach
    left = ((low[:, 0] - centre[:, 0]) * pixels + width / 2).floor()
    right = ((high[:, 0] - centre[:, 0]) * pixels + width / 2).ceil()
    top = (height / 2 - (high[:, 1] - centre[:, 1]) * pixels).floor()
    bottom = (height / 2 - (low[:, 1] - centre[:, 1]) * pixels).ceil()
    w = min(int((right - left).max()) + 1, width)
    h = min(int((bottom - top).max()) + 1, height)
    left, top = left.clamp(0, width - w).long(), top.clamp(0, height - h).long()
    columns = left[:, None] + torch.arange(w, device=device)
    rows = top[:, None] + torch.arange(h, device=device)
    index = (rows[:, :, None] * width + columns[:, None, :]).reshape(frames, h * w)
    x = (columns + 0.5 - width / 2) / pixels[:, None] + centre[:, :1]
    y = (height / 2 - rows - 0.5) / pixels[:, None] + centre[:, 1:]

    # rays (x, y, 0) + t (0, 0, -1) in the bone's scaled frame
    base = -(to_local @ a[..., None])[..., 0]
    origin = base[:, None, None] + x[:, None, :, None] * to_local[:, None, None, :, 0] + y[:, :, None, None] * to_local[:, None, None, :, 1]
    direction = -to_local[:, :, 2]
    speed = direction.norm(dim=-1)[:, None, None]
    direction = (direction[:, None, None] / speed[..., None]).expand_as(origin)
    hit, t, point, normal = intersect(origin, direction, length[:, None, None], *radii[:, :, None, None].unbind(1))
    hit = hit & (radii[:, :1, None] > 0)

    part, layer, u, v = _chart(kind, bodies.rest, point, frame, scale, start, length[:, None, None], radii)
    world_normal = torch.nn.functional.normalize((normal / scale[:, None, None]) @ to_world.transpose(1, 2)[:, None], dim=-1)
    light = torch.tensor(_LIGHT, device=device)
    shade = 0.62 + 0.42 * (world_normal @ light).clamp_min(0) - 0.1 * (1 - world_normal[..., 2].clamp(0, 1)) ** 2

    values = torch.stack([-t / speed, part, layer, u, v, shade], 1).reshape(frames, 6, h * w)
    old = buffer.gather(2, index[:, None].expand(-1, 6, -1))
    closer = hit.reshape(frames, 1, h * w) & (values[:, :1] > old[:, :1])
    buffer.scatter_(2, index[:, None].expand(-1, 6, -1), torch.where(closer, values, old))


def _bone_frame(axis: torch.Tensor) -> torch.Tensor:
    """Axes (T, 3) -> frames (T, 3, 3) with columns x, y, z: y is the axis, z as close to the body's front as can be."""
    # feet and nose point forward: their upper side takes the place of the front
    forward = torch.where((axis[:, 2:].abs() > 0.9), axis.new_tensor([0.0, 1.0, 0.0]), axis.new_tensor([0.0, 0.0, 1.0]))
    z = torch.nn.functional.normalize(forward - (forward * axis).sum(-1, keepdim=True) * axis, dim=-1)
    x = torch.linalg.cross(axis, z)
    x = torch.where(x[:, :1] >= 0, x, -x)  # x stays on the person's left, mirrored if need be
    return torch.stack([x, axis, z], -1)


def _chart(kind: Cone, rest, point, frame, scale, start, length, radii):
    """Part, texture layer, U and V of surface points (T, h, w, 3) given in the cone's own scaled frame."""
    front, back = kind.parts
    if kind.chart in ("limb", "whole"):
        angle = torch.atan2(point[..., 0] * scale[:, None, None, 0], point[..., 2] * scale[:, None, None, 2])
        ra, rb = radii[:, :, None, None].unbind(1)
        v = ((point[..., 1] + ra) / (length + ra + rb)).clamp(0, 1)
    else:
        body = (point * scale[:, None, None]) @ frame.transpose(1, 2)[:, None] + (start + rest[:, JOINT_INDEX[kind.joint]])[:, None, None]
        lift = (rest[:, JOINT_INDEX["head"], 1] - 0.855)[:, None, None]  # longer legs raise everything above them
        low, high = TORSO_HEIGHTS if kind.chart == "torso" else HEAD_HEIGHTS
        v = ((body[..., 1] - lift - low) / (high - low)).clamp(0, 1)
        angle = torch.atan2(body[..., 0], body[..., 2])
    if kind.chart == "whole":
        u, part = angle / (2 * math.pi) + 0.5, torch.full_like(v, front)
    elif kind.chart == "head":
        u, part = angle.abs() / math.pi, torch.where(angle >= 0, float(front), float(back))
    else:
        is_front = angle.abs() <= math.pi / 2
        u = torch.where(is_front, 0.5 + angle / math.pi, (angle / math.pi) % 2 - 0.5)
        part = torch.where(is_front, float(front), float(back))
    layer = torch.full_like(part, HAIR_LAYER) if kind.hair else part - 1
    return part, layer, u.clamp(0, 1), v


def _resolve(buffer, atlases, owner, background, size, s) -> Rendering:
    """Rays to pixels: look colours up, average them over the background, keep one hit ray's part, U and V a pixel."""
    frames = len(buffer)
    (height, width), texels = size, atlases.shape[2]
    person = buffer[:, 1] > 0
    layer, u, v, shade = buffer[:, 2].long(), buffer[:, 3], buffer[:, 4], buffer[:, 5]
    row, column = (v * texels).long().clamp(0, texels - 1), (u * texels).long().clamp(0, texels - 1)
    layer = layer + owner[:, None] * NUM_LAYERS
    colour = atlases.reshape(-1, 3)[(layer * texels + row) * texels + column] * shade[..., None]
    colour = torch.where(person[..., None], colour, torch.zeros_like(colour))
    # (T, H s, W s) -> (T, H, W, s s)
    def blocks(x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(frames, height, s, width, s, *x.shape[2:])
        return x.transpose(2, 3).reshape(frames, height, width, s * s, *x.shape[5:])

    hits = blocks(person)
    share = hits.float().mean(-1)
    rgb = blocks(colour).mean(3) + (1 - share[..., None]) * background
    chosen = hits.float().argmax(-1, keepdim=True)  # the first ray of the pixel that hits
    keep = share >= 0.5

    def pick(x: torch.Tensor) -> torch.Tensor:
        return torch.where(keep, blocks(x).gather(3, chosen)[..., 0], 0.0)

    return Rendering(
        rgb=(rgb.clamp(0, 1) * 255).round().to(torch.uint8),
        parts=pick(buffer[:, 1]).to(torch.uint8),
        uv=torch.stack([pick(u), pick(v)], 1).to(torch.float16),
    )
