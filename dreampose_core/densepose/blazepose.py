"""BlazePose (Bazarevsky et al., arXiv 2006.10204): find people in pictures, with 33 landmarks and a mask for each.

Coordinates are in pixels of the picture, x to the right and y down; the centre of the first pixel is at 0.5.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from ..errors import ModelError

NUM_LANDMARKS = 33
# the person's (left, right) landmarks
LANDMARKS = {
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
_CENTRE, _TOP = 33, 34  # auxiliary landmarks: the centre of the hips, and a point above the head
_ANCHORS = ((8, 2), (16, 2), (32, 6))  # the detector's grids: stride in pixels, anchors per cell
_ROI_SCALE = 1.25  # enlarges the square around a person
_POSSIBLE = 0.12  # detector score from which the landmark network checks a candidate
_MASK_CELLS = 1.5  # radius, in cells of the mask, of the filter that aligns the mask with the picture's edges
_LEAST_RADIUS = 3  # pixels; with a smaller radius the mask is not filtered
_EDGE = 1e-4  # variance of the grey picture (0 to 1) below which the filter sees no edge
_PRESENT = 0.5  # least confidence of the landmark network that its square shows a person
# Lower limits for a person in a photo: confidence, mean visibility, share of the square that the mask fills. Measured
# on photos: at least .99, .70, .058; on walls, doors and skies at least one of the three is at most .77, .48, .05.
_SURELY_PRESENT, _SEEN, _FILLED = 0.9, 0.6, 0.052
_CANDIDATES, _LEAST_TILE = 6, 224
_ACTIVATIONS = {None: lambda x: x, "relu": F.relu, "relu6": F.relu6}


@dataclass(frozen=True)
class Roi:
    """A square region of a picture, turned so that its person is upright: centre, side in pixels, angle in radians."""

    x: float
    y: float
    side: float
    angle: float

    @classmethod
    def around(cls, centre: np.ndarray, top: np.ndarray) -> Roi:
        """The square around a person: `centre` is the hips' centre, and `top` lies on the circle around the person."""
        dx, dy = top - centre
        return cls(*map(float, centre), 2 * _ROI_SCALE * math.hypot(dx, dy), math.pi / 2 - math.atan2(-dy, dx))

    def matrix(self, size: int) -> np.ndarray:
        """The affine map (2, 3) from coordinates in the square, 0 to `size`, to coordinates in the picture."""
        k, c, s = self.side / size, math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[c, -s], [s, c]]) * k
        return np.concatenate([turn, np.array([[self.x], [self.y]]) - turn @ np.full((2, 1), size / 2)], 1)


@dataclass(frozen=True)
class Pose:
    """A person's landmarks.

    xy: (33, 2) in pixels. world: (33, 3) in metres relative to the centre of the hips, with the picture's axes: x
    right, y down, z away from the camera. visibility: (33,), 0..1. presence: confidence that the square shows a person.
    mask: (256, 256) logits of the person over `roi`. next_roi: the square to search in the next frame.
    """

    xy: np.ndarray
    world: np.ndarray
    visibility: np.ndarray
    presence: float
    mask: np.ndarray
    roi: Roi
    next_roi: Roi

    @property
    def is_person(self) -> bool:
        filled = float((self.mask > 0).mean())
        return self.presence >= _SURELY_PRESENT and float(self.visibility.mean()) >= _SEEN and filled >= _FILLED

    @property
    def area(self) -> float:
        """The person's area in pixels."""
        return float((self.mask > 0).mean()) * self.roi.side**2


class Graph(nn.Module):
    """The network NAME.json (steps) with the weights NAME.safetensors, both made by scripts/convert_blazepose.py.

    side: of its square input, in pixels.
    """

    def __init__(self, folder: Path, name: str):
        super().__init__()
        try:
            plan = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            weights = load_file(folder / f"{name}.safetensors")
        except (OSError, ValueError) as error:
            unread = f"The body tracker's {name} cannot be read from {folder}"
            raise ModelError(f"{unread}; fetch the project again.") from error
        self.input, self.side, self.outputs, self.steps = plan["input"], plan["side"], plan["outputs"], plan["steps"]
        for key, value in weights.items():
            self.register_buffer(key.replace(".", "_"), value.float())
        # the last step that needs each value, after which `forward` frees it
        self._last = {i: number for number, step in enumerate(self.steps) for i in step["inputs"]}

    @torch.inference_mode()
    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run pictures (B, 3, side, side); returns its outputs by name, those with four dimensions as (B, C, H, W)."""
        values, kept = {self.input: pictures}, set(self.outputs.values())
        for number, step in enumerate(self.steps):
            values[step["out"]] = self._do(step, [values[i] for i in step["inputs"]])
            for i in step["inputs"]:
                if self._last[i] == number and i not in kept:
                    values.pop(i, None)
        return {name: values[i] for name, i in self.outputs.items()}

    def _do(self, step: dict, given: list[torch.Tensor]) -> torch.Tensor:
        x = given[0]
        match step["do"]:
            case "conv":
                weight, bias = (getattr(self, f"{step['out']}_{name}") for name in ("weight", "bias"))
                x = F.pad(x, step["pad"]) if any(step["pad"]) else x
                x = F.conv2d(x, weight, bias, step["stride"], groups=step["groups"])
                return _ACTIVATIONS[step["activation"]](x)
            case "add":
                return _ACTIVATIONS[step["activation"]](x + given[1])
            case "pad":
                return F.pad(x, step["pad"])
            case "resize":
                return F.interpolate(x, size=step["size"], mode="bilinear", align_corners=False)
            case "max_pool":
                return F.max_pool2d(F.pad(x, step["pad"], value=-torch.inf), step["kernel"], step["stride"])
            case "logistic":
                return x.sigmoid()
            case "reshape":  # the shape refers to the order (B, H, W, C)
                x = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
                return x.reshape(len(x), *step["shape"])
            case "concatenate":
                return torch.cat(given, step["axis"])
            case "depth_to_space":  # (B, k k C, H, W) -> (B, C, k H, k W)
                k, (batch, channels, height, width) = step["block"], x.shape
                x = x.reshape(batch, k, k, channels // k**2, height, width).permute(0, 3, 4, 1, 5, 2)
                return x.reshape(batch, channels // k**2, k * height, k * width)
        raise ValueError(f"there is no step {step['do']}")


class BlazePose:
    """The person detector and the landmark network, on one device."""

    def __init__(self, folder: Path, device: str = "cpu"):
        self.device = torch.device(device)
        self.detector = Graph(folder, "detector").to(self.device)
        self.network = Graph(folder, "landmarks").to(self.device)
        self._anchors = _anchors(self.detector.side)

    def detect(self, image: np.ndarray) -> list[tuple[float, Roi]]:
        """Detect possible people in a picture, uint8 (H, W, 3): (score, square to search for landmarks), best first."""
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
        found, middles = [], []
        for i in np.argsort(-scores)[:60]:
            if scores[i] < _POSSIBLE:
                break
            middle = ((boxes[i, 0] + self._anchors[i]) * side - (left, top)) / scale
            centre, above = ((boxes[i, 2:4] + self._anchors[i]) * side - (left, top)) / scale
            reach = float(boxes[i, 1].max()) * side / scale
            if all(np.linalg.norm(middle - other) > 0.6 * reach for other in middles):
                found.append((float(scores[i]), Roi.around(centre, above)))
                middles.append(middle)
        return found

    def poses(self, image: np.ndarray, rois: list[Roi]) -> list[Pose]:
        """Find the landmarks of the person in each of these squares of one picture, uint8 (H, W, 3)."""
        if not rois:
            return []
        crops = torch.cat([self._crop(image, roi) for roi in rois])
        out = {name: value.float().cpu().numpy() for name, value in self.network(crops).items()}
        return [self._pose(roi, {name: value[i] for name, value in out.items()}) for i, roi in enumerate(rois)]

    def people(self, image: np.ndarray) -> list[Pose]:
        """Find all people in a picture, uint8 (H, W, 3), from left to right.

        The landmark network looks at each person twice. The detector gives low scores to some people of a group, and to
        anyone who sits or is small in a wide picture. So the landmark network's confidence decides; if it confirms no
        person, the detector searches parts of the picture.
        """
        found = self._confirmed(image, self.detect(image))
        return found or self._confirmed(image, sorted(self._in_tiles(image), key=lambda one: -one[0]))

    def _confirmed(self, image: np.ndarray, detected: list[tuple[float, Roi]]) -> list[Pose]:
        """The poses of the first detections that the landmark network confirms, one per person, from left to right."""
        rois = [roi for _, roi in detected[:_CANDIDATES]]
        first = [pose for pose in self.poses(image, rois) if pose.presence >= _PRESENT]
        poses = [pose for pose in self.poses(image, [pose.next_roi for pose in first]) if pose.is_person]
        kept: list[Pose] = []
        for pose in sorted(poses, key=lambda pose: -pose.presence * float(pose.visibility.mean())):
            if all(math.hypot(pose.roi.x - p.roi.x, pose.roi.y - p.roi.y) > 0.25 * p.roi.side for p in kept):
                kept.append(pose)
        return sorted(kept, key=lambda pose: pose.xy[:, 0].mean())

    def _in_tiles(self, image: np.ndarray) -> list[tuple[float, Roi]]:
        """Detect people in overlapping square tiles of a picture."""
        height, width = image.shape[:2]
        short, found = min(height, width), []
        for side in sorted({short, max(short // 2, _LEAST_TILE), max(short // 3, _LEAST_TILE)}):
            if side >= max(height, width):
                continue
            for top, left in product(_starts(height, side), _starts(width, side)):
                for score, roi in self.detect(image[top : top + side, left : left + side]):
                    found.append((score, replace(roi, x=roi.x + left, y=roi.y + top)))
        return found

    def _pixels(self, image: np.ndarray) -> torch.Tensor:
        """Convert uint8 (H, W, 3) to (1, 3, H, W) in 0..1 on the device."""
        return torch.tensor(image, device=self.device).movedim(-1, 0)[None].float() / 255

    def _crop(self, image: np.ndarray, roi: Roi) -> torch.Tensor:
        """Cut out the square as (1, 3, side, side); black beyond the picture."""
        size = self.network.side
        matrix = roi.matrix(size)
        corners = (matrix[:, :2] @ np.array([[0, size, 0, size], [0, 0, size, size]]) + matrix[:, 2:]).T
        height, width = image.shape[:2]
        left, top = np.floor(corners.min(0)).clip(0, (width - 1, height - 1)).astype(int)
        right, bottom = np.ceil(corners.max(0)).clip((left + 1, top + 1), (width, height)).astype(int)
        cut = self._pixels(image[top:bottom, left:right])
        # Average the pixels first when the crop has fewer than the square, against aliasing.
        shrink = max(1.0, roi.side / size)
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


def mask_logits(pose: Pose, size: tuple[int, int]) -> np.ndarray:
    """The person's mask in the picture: logits float32 (height, width); pixels outside the square are background."""
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
    """The person's mask in a picture, uint8 (H, W, 3), refined along its edges: probabilities uint8 (H, W), 0 to 255.

    Uses a guided filter (He et al., 2013) as wide as the cells of the mask.
    """
    chance = torch.from_numpy(1 / (1 + np.exp(-mask_logits(pose, image.shape[:2])))).float()[None, None]
    rows, columns = (torch.nonzero(chance[0, 0].amax(axis) > 0.01)[:, 0] for axis in (1, 0))
    if not len(rows):
        return np.zeros(image.shape[:2], np.uint8)
    radius = round(_MASK_CELLS * pose.roi.side / pose.mask.shape[-1])
    if radius < _LEAST_RADIUS:  # the mask's cells are about as small as the picture's pixels
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
    """Move landmarks (39, 2) in the square to the mean of their heat maps (39, h, w) nearby, where those reach 0.5."""
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
    """The centres (N, 2) of the detector's cells as shares of the picture, repeated for each anchor of a cell."""
    found = []
    for stride, count in _ANCHORS:
        rows, columns = np.indices((side // stride, side // stride)).reshape(2, -1)
        found.append((np.stack([columns, rows], 1).repeat(count, axis=0) + 0.5) / (side // stride))
    return np.concatenate(found)


def _starts(length: int, side: int) -> list[int]:
    """The starts of tiles of length `side` that cover `length` and overlap by half."""
    count = max(1, math.ceil((length - side) / (side / 2))) + 1 if length > side else 1
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
