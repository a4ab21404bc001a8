"""BlazePose (Bazarevsky et al., arXiv 2006.10204): people found in pictures, their 33 landmarks and their mask.

Places are in pixels of the picture, x to the right and y down, the first pixel's middle at 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .graph import Graph

NUM_LANDMARKS = 33
LANDMARKS = {  # (left, right), of the person
    "ear": (7, 8),
    "shoulder": (11, 12),
    "elbow": (13, 14),
    "wrist": (15, 16),
    "pinky": (17, 18),
    "index": (19, 20),
    "hip": (23, 24),
    "knee": (25, 26),
    "ankle": (27, 28),
    "heel": (29, 30),
    "toe": (31, 32),
}
NOSE = 0
_CENTRE, _TOP = 33, 34  # auxiliary landmarks: the middle of the hips, and a point above the head
_STRIDES = (8, 16, 32, 32, 32)
_ROI_SCALE = 1.25  # of the square around a person
_POSSIBLE = 0.12  # score of the detector above which the landmarks are asked
_MASK_CELLS = 1.5  # of the mask's: half the width of the filter that brings it to the picture's edges
_LEAST_RADIUS = 3  # pixels
_EDGE = 1e-4  # variance of the picture's grey, 0 to 1, below which there is no edge
_PRESENT = 0.5  # the landmarks' own confidence that a person is in their square
# of a person in a photo at least: confidence, mean visibility, share of the square that the mask fills (measured on
# photos: .99, .70, .058; on walls, doors and skies: one of .77, .48, .05 or less)
_SURELY_PRESENT, _SEEN, _FILLED = 0.9, 0.6, 0.052
_CANDIDATES, _LEAST_TILE = 6, 224


@dataclass(frozen=True)
class Roi:
    """A square of a picture, turned so that the person stands upright: its middle, side in pixels, angle in radians."""

    x: float
    y: float
    side: float
    angle: float

    @classmethod
    def around(cls, centre: np.ndarray, top: np.ndarray) -> Roi:
        """Around the person whose hips' middle is `centre`, with `top` on the circle around them."""
        dx, dy = top - centre
        return cls(*map(float, centre), 2 * _ROI_SCALE * math.hypot(dx, dy), math.pi / 2 - math.atan2(-dy, dx))

    def matrix(self, size: int) -> np.ndarray:
        """(2, 3): from places in the square, 0 to `size`, to places in the picture."""
        k, c, s = self.side / size, math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[c, -s], [s, c]]) * k
        return np.concatenate([turn, np.array([[self.x], [self.y]]) - turn @ np.full((2, 1), size / 2)], 1)


@dataclass(frozen=True)
class Detection:
    """A person found in a picture: where to look for their landmarks, and the detector's score."""

    roi: Roi
    score: float


@dataclass(frozen=True)
class Pose:
    """A person's landmarks.

    xy: (33, 2) in pixels. world: (33, 3) in metres about the hips' middle, x right, y down, z away from the camera, as
    the picture shows them. visibility: (33,) in 0..1. presence: confidence that a person is there. mask: logits of
    the person over `roi`, (256, 256). next_roi: where to look in the next frame.
    """

    xy: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    presence: float
    mask: np.ndarray
    roi: Roi
    next_roi: Roi

    @property
    def area(self) -> float:
        """How large the person is, in pixels."""
        return float((self.mask > 0).mean()) * self.roi.side**2


class BlazePose:
    """The detector and the landmarks' network on a device."""

    def __init__(self, folder: Path, device: str = "cpu"):
        self.device = torch.device(device)
        self.detector = Graph(folder, "detector").to(self.device)
        self.network = Graph(folder, "landmarks").to(self.device)
        self._anchors = _anchors(self.detector.side)

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Everyone who may be in a picture uint8 (H, W, 3), the highest score first."""
        height, width = image.shape[:2]
        side, scale = self.detector.side, self.detector.side / max(height, width)
        small = max(1, round(height * scale)), max(1, round(width * scale))
        picture = self._pixels(image)
        picture = F.interpolate(picture, small, mode="bilinear", antialias=True, align_corners=False)
        top, left = (side - small[0]) // 2, (side - small[1]) // 2
        picture = F.pad(picture, (left, side - small[1] - left, top, side - small[0] - top))
        out = self.detector(picture * 2 - 1)
        scores = out["scores"][0, :, 0].double().clamp(-80, 80).sigmoid().cpu().numpy()
        boxes = out["boxes"][0].double().cpu().numpy().reshape(-1, 6, 2) / side
        found: list[tuple[Detection, np.ndarray, float]] = []
        for i in np.argsort(-scores)[:60]:
            if scores[i] < _POSSIBLE:
                break
            middle = ((boxes[i, 0] + self._anchors[i]) * side - (left, top)) / scale
            centre, above = ((boxes[i, 2:4] + self._anchors[i]) * side - (left, top)) / scale
            reach = float(boxes[i, 1].max()) * side / scale
            if all(np.linalg.norm(middle - other) > 0.6 * reach for _, other, _ in found):
                found.append((Detection(Roi.around(centre, above), float(scores[i])), middle, reach))
        return [detection for detection, _, _ in found]

    def poses(self, image: np.ndarray, rois: list[Roi]) -> list[Pose]:
        """The landmarks of the person in each of these squares of one picture uint8 (H, W, 3)."""
        if not rois:
            return []
        crops = torch.cat([self._crop(image, roi) for roi in rois])
        out = {name: value.float().cpu().numpy() for name, value in self.network(crops).items()}
        return [self._pose(roi, {name: value[i] for name, value in out.items()}) for i, roi in enumerate(rois)]

    def people(self, image: np.ndarray) -> list[Pose]:
        """All people in a picture uint8 (H, W, 3), each looked at twice, from left to right.

        Where several are in a picture the detector scores some of them low, and all who sit or are small in a wide
        picture: the landmarks' own confidence judges, and where no one is found parts of the picture are searched.
        """
        found = self._confirmed(image, self.detect(image)[:_CANDIDATES])
        if not found:
            candidates = sorted(self._in_tiles(image), key=lambda detection: -detection.score)
            found = self._confirmed(image, candidates[:_CANDIDATES])
        return found

    def _confirmed(self, image: np.ndarray, detections: list[Detection]) -> list[Pose]:
        """Those of the detections that the landmarks confirm, one pose for each person, from left to right."""
        first = [pose for pose in self.poses(image, [d.roi for d in detections]) if pose.presence >= _PRESENT]
        poses = [pose for pose in self.poses(image, [pose.next_roi for pose in first]) if _is_person(pose)]
        kept: list[Pose] = []
        for pose in sorted(poses, key=lambda pose: -pose.presence * float(pose.visibility.mean())):
            if all(math.hypot(pose.roi.x - p.roi.x, pose.roi.y - p.roi.y) > 0.25 * p.roi.side for p in kept):
                kept.append(pose)
        return sorted(kept, key=lambda pose: pose.xy[:, 0].mean())

    def _in_tiles(self, image: np.ndarray) -> list[Detection]:
        """What is found in overlapping squares of a picture."""
        height, width = image.shape[:2]
        short, found = min(height, width), []
        for side in sorted({short, max(short // 2, _LEAST_TILE), max(short // 3, _LEAST_TILE)}):
            if side >= max(height, width):
                continue
            for top in _starts(height, side):
                for left in _starts(width, side):
                    for one in self.detect(image[top : top + side, left : left + side]):
                        moved = Roi(one.roi.x + left, one.roi.y + top, one.roi.side, one.roi.angle)
                        found.append(Detection(moved, one.score))
        return found

    def _pixels(self, image: np.ndarray) -> torch.Tensor:
        """uint8 (H, W, 3) -> (1, 3, H, W) in 0..1 on the device."""
        return torch.tensor(image, device=self.device).movedim(-1, 0)[None].float() / 255

    def _crop(self, image: np.ndarray, roi: Roi) -> torch.Tensor:
        """The square as (1, 3, side, side); black beyond the picture."""
        size = self.network.side
        matrix = roi.matrix(size)
        corners = (matrix[:, :2] @ np.array([[0, size, 0, size], [0, 0, size, size]]) + matrix[:, 2:]).T
        height, width = image.shape[:2]
        left, top = np.floor(corners.min(0)).clip(0, (width - 1, height - 1)).astype(int)
        right, bottom = np.ceil(corners.max(0)).clip((left + 1, top + 1), (width, height)).astype(int)
        cut = self._pixels(image[top:bottom, left:right])
        shrink = max(1.0, roi.side / size)  # what is read more coarsely than it is kept is averaged first
        small = max(1, round((bottom - top) / shrink)), max(1, round((right - left) / shrink))
        if shrink > 1:
            cut = F.interpolate(cut, small, mode="bilinear", antialias=True, align_corners=False)
        at = torch.arange(size, device=self.device) + 0.5
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)
        to_picture = torch.from_numpy(matrix).float().to(self.device)
        places = grid @ to_picture[:, :2].T + to_picture[:, 2] - torch.tensor([left, top], device=self.device)
        extent = torch.tensor([right - left, bottom - top], device=self.device)
        return F.grid_sample(cut, (places / extent * 2 - 1)[None], mode="bilinear", align_corners=False)

    def _pose(self, roi: Roi, out: dict[str, np.ndarray]) -> Pose:
        size = self.network.side
        matrix = roi.matrix(size)
        landmarks = out["landmarks"].reshape(-1, 5)
        xy = _refined(landmarks[:, :2].astype(np.float64), out["heatmaps"], size)
        xy = xy @ matrix[:, :2].T + matrix[:, 2]
        world = out["world"].reshape(-1, 3)[:NUM_LANDMARKS].astype(np.float64)
        c, s = math.cos(roi.angle), math.sin(roi.angle)
        world[:, :2] = world[:, :2] @ np.array([[c, s], [-s, c]])
        visibility = 1 / (1 + np.exp(-landmarks[:NUM_LANDMARKS, 3].astype(np.float64)))
        next_roi = Roi.around(xy[_CENTRE], xy[_TOP])
        return Pose(xy[:NUM_LANDMARKS], world, visibility, float(out["presence"][0]), out["mask"][0], roi, next_roi)


def _is_person(pose: Pose) -> bool:
    filled = float((pose.mask > 0).mean())
    return pose.presence >= _SURELY_PRESENT and float(pose.visibility.mean()) >= _SEEN and filled >= _FILLED


def mask_logits(pose: Pose, size: tuple[int, int]) -> np.ndarray:
    """The person's mask as logits float32 (height, width) in the picture; what lies beyond their square is outside."""
    height, width = size
    side = pose.mask.shape[-1]
    matrix = np.linalg.inv(np.vstack([pose.roi.matrix(side), [0, 0, 1]]))[:2].astype(np.float32)
    columns, rows = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    x = matrix[0, 0] * columns[None] + (matrix[0, 1] * rows + matrix[0, 2])[:, None]
    y = matrix[1, 0] * columns[None] + (matrix[1, 1] * rows + matrix[1, 2])[:, None]
    grid = torch.from_numpy(np.stack([x, y], -1) / side * 2 - 1)[None]
    logits = torch.from_numpy(pose.mask)[None, None].clamp(-20, 20)
    there = F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0].numpy()
    return np.where((x > 0) & (x < side) & (y > 0) & (y < side), there, -20.0)


def refined_mask(pose: Pose, image: np.ndarray) -> np.ndarray:
    """The person's mask uint8 (H, W), a probability 0 to 255, in a picture uint8 (H, W, 3): along the picture's own
    edges, by a guided filter (He et al., 2013) as wide as the mask is coarse."""
    chance = torch.from_numpy(1 / (1 + np.exp(-mask_logits(pose, image.shape[:2])))).float()[None, None]
    rows, columns = (torch.nonzero(chance[0, 0].amax(axis) > 0.01)[:, 0] for axis in (1, 0))
    if not len(rows):
        return np.zeros(image.shape[:2], np.uint8)
    radius = round(_MASK_CELLS * pose.roi.side / pose.mask.shape[-1])
    if radius < _LEAST_RADIUS:  # the mask is as fine as the picture
        return (chance[0, 0] * 255).round().numpy().astype(np.uint8)
    top, left = max(0, int(rows[0]) - 2 * radius), max(0, int(columns[0]) - 2 * radius)
    bottom, right = int(rows[-1]) + 1 + 2 * radius, int(columns[-1]) + 1 + 2 * radius
    chance = chance[:, :, top:bottom, left:right]
    grey = torch.from_numpy(image[top:bottom, left:right].mean(-1)).float()[None, None] / 255

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)

    mean_grey, mean_chance = mean(grey), mean(chance)
    slope = (mean(grey * chance) - mean_grey * mean_chance) / (mean(grey * grey) - mean_grey**2 + _EDGE)
    found = mean(slope) * grey + mean(mean_chance - slope * mean_grey)
    out = np.zeros(image.shape[:2], np.uint8)
    out[top:bottom, left:right] = (found[0, 0].clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    return out


def _refined(places: np.ndarray, heatmaps: np.ndarray, size: int) -> np.ndarray:
    """Places (39, 2) in the square, moved to the mean of the heat map (39, h, w) around them where that is warm."""
    places, cells = places.copy(), heatmaps.shape[-1]
    step = size / cells
    for j in range(NUM_LANDMARKS):
        column, row = (int(value / step) for value in places[j])
        if not (0 <= column < cells and 0 <= row < cells):
            continue
        top, left = max(0, row - 3), max(0, column - 3)
        heat = 1 / (1 + np.exp(-heatmaps[j, top : row + 4, left : column + 4].astype(np.float64)))
        if heat.max() >= 0.5:
            rows, columns = np.mgrid[top : top + heat.shape[0], left : left + heat.shape[1]]
            places[j] = np.array([(heat * columns).sum(), (heat * rows).sum()]) / heat.sum() * step
    return places


def _anchors(side: int) -> np.ndarray:
    """(N, 2): middles of the detector's cells as shares of the picture, two for each stride at each cell."""
    found, k = [], 0
    while k < len(_STRIDES):
        same = sum(stride == _STRIDES[k] for stride in _STRIDES[k:])
        cells = side // _STRIDES[k]
        for y in range(cells):
            for x in range(cells):
                found += [((x + 0.5) / cells, (y + 0.5) / cells)] * (2 * same)
        k += same
    return np.array(found)


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` begin that cover `length` and overlap by half."""
    count = max(1, math.ceil((length - side) / (side / 2))) + 1 if length > side else 1
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
