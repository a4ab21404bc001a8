"""The public DensePose network as TorchScript: pictures -> parts and U, V of one person, with torch and torchvision
alone.

The file is `densepose_r50_fpn_dl.torchscript` of the hub repository REPOSITORY, fetched at first use, or any file of
that kind from disk. TorchScript holds no Python code, so nothing of the repository runs here but the network itself.

This module was built on the published signature and tested with stand-ins that have it; the real weights could not be
had where it was written. Where they can be had, one command checks it, and shows above all whether left and right are
told apart (if not, try the other colour order): `python -m dreampose_core poses convert PHOTO_OR_CLIP out.npz
--estimator torchscript`, then `python -m dreampose_core poses preview out.npz preview.mp4`.

Memory: the network's output is two megabytes a person. It is turned at once into parts and U, V within the person's
box, five bytes a pixel, and kept for the few largest people of a frame until all frames are known and the person to
follow is chosen; so a clip takes at most about twice what its result takes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError, ModelError
from ..poses import NUM_PARTS, PoseSequence
from .follow import Detection, followed

REPOSITORY = "LayerNorm/DensePose-TorchScript-with-hint-image"
FILE = "densepose_r50_fpn_dl.torchscript"
LICENCE = (
    "The DensePose network's weights are by Facebook AI Research (detectron2, DensePose), under CC BY-SA 3.0 "
    "(https://creativecommons.org/licenses/by-sa/3.0/)."
)
FPS = 30.0  # of the result; pictures have no rate
_COMPANION = 0.1  # of the followed one's box, so large somebody is who counts as in the picture, too, a third as tall
_SAME = 0.7  # of a box, inside the followed one's: it shows the same person
_PEOPLE = 4  # kept of each frame: the person followed may not be the largest everywhere
_CHANNELS = NUM_PARTS + 1
_OTHER_KIND = (
    "please give the file densepose_r50_fpn_dl.torchscript or densepose_r101_fpn_dl.torchscript of " + REPOSITORY
)

ColorOrder = Literal["bgr", "rgb"]


@dataclass(frozen=True)
class _Patch:
    """A person's map within the frame: parts uint8 (h, w), uv float16 (2, h, w), placed at (top, left)."""

    top: int
    left: int
    parts: np.ndarray
    uv: np.ndarray


class TorchScriptEstimator:
    """Estimates DensePose maps with the TorchScript network.

    path: the network's file; None fetches it from the hub. revision: the hub repository's commit, None for the newest.
    device: "cpu" (32-bit) or "cuda". color_order: of the pictures as the network wants them; "bgr" is its origin's.
    person: whom to follow, see follow.followed.

    Raises InputError for an unknown colour order or a card that is not there, ModelError when torchvision is missing,
    or the file cannot be had or is not such a network.
    """

    notices = (LICENCE,)
    left_out = 0  # of the last picture: people beside the one that was chosen without anybody's word

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str = "cpu",
        color_order: ColorOrder = "bgr",
        person: int | None = None,
    ):
        if color_order not in ("bgr", "rgb"):
            raise InputError(f"The colour order is {color_order!r}; please give bgr or rgb.")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(
                f"The DensePose network was to run on {device}, but no such card can be used here; please choose cpu."
            )
        _require_torchvision()
        self.device, self.color_order, self.person = torch.device(device), color_order, person
        path = _download(revision) if path is None else Path(path)
        self.name = path.name
        self.network = _load(path, self.device)

    def estimate(self, images: Iterable[np.ndarray]) -> PoseSequence:
        """Maps (T frames, charts "densepose", FPS) of the size of `images`: uint8 (H, W, 3), RGB, all of one size.

        Frames in which the followed person is not seen are all 0. `images` is read one by one, so that a generator may
        report progress or raise Cancelled between two frames.

        Raises InputError when there are no images or no such person, ModelError when the network's answer is not
        DensePose.
        """
        frames: list[list[Detection]] = []
        size = None
        for image in images:
            if (
                image.dtype != np.uint8
                or image.ndim != 3
                or image.shape[2] != 3
                or image.shape[:2] != (size or image.shape[:2])
            ):
                raise ValueError(
                    f"images are uint8 (H, W, 3) of one size, not {image.dtype} {image.shape} after {size}"
                )
            size = image.shape[:2]
            frames.append(self._detect(image))
        if size is None:
            raise InputError("There are no pictures to estimate poses from; please give at least one.")
        parts = np.zeros((len(frames), *size), np.uint8)
        uv = np.zeros((len(frames), 2, *size), np.float16)
        for i, chosen in enumerate(followed(frames, self.person)):
            self.left_out = 0
            if chosen is not None:
                if self.person is None:
                    self.left_out = _num_companions(frames[i], chosen)
                patch = frames[i][chosen].payload
                height, width = patch.parts.shape
                place = np.s_[patch.top : patch.top + height, patch.left : patch.left + width]
                parts[i][place], uv[i][:, *place] = patch.parts, patch.uv
            frames[i] = []
        return PoseSequence(parts, uv, "densepose", FPS)

    @torch.inference_mode()
    def _detect(self, image: np.ndarray) -> list[Detection]:
        """The largest people in `image`, their maps as payload."""
        pixels = image if self.color_order == "rgb" else image[..., ::-1]
        # (H, W, 3) -> (3, H, W)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(self.device)
        try:
            output = self.network(tensor)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(f"{self.name} cannot be run on a picture; {_OTHER_KIND}.") from error
        boxes, coarse, fine, u, v = self._checked(output, image.shape[:2])
        areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
        largest = areas.argsort(descending=True, stable=True)[: max(_PEOPLE, (self.person or 1) + 2)]
        return [
            Detection(
                tuple(boxes[i].tolist()),
                payload=_patch(boxes[i].tolist(), coarse[i], fine[i], u[i], v[i], image.shape[:2]),
            )
            for i in largest.tolist()
        ]

    def _checked(self, output: object, size: tuple[int, int]) -> list[torch.Tensor]:
        """Boxes (N, 4), coarse (N, C, h, w), fine, u, v (N, 25, h, w), people without a usable box left out."""
        answer = list(output) if isinstance(output, (tuple, list)) else []
        if len(answer) != 5 or not all(isinstance(tensor, torch.Tensor) for tensor in answer):
            raise ModelError(f"{self.name} does not answer with boxes, coarse and fine parts, U and V; {_OTHER_KIND}.")
        boxes, *maps = (tensor.float() for tensor in answer)
        if boxes.numel() == 0:
            return [boxes.new_zeros(0, 4), *(boxes.new_zeros(0, _CHANNELS, 1, 1) for _ in maps)]
        expected = (len(boxes), _CHANNELS, *maps[1].shape[2:])
        fits = (
            boxes.shape == (len(boxes), 4)
            and maps[1].ndim == 4
            and all(tensor.shape == expected for tensor in maps[1:])
        )
        if (
            not fits
            or maps[0].ndim != 4
            or len(maps[0]) != len(boxes)
            or maps[0].shape[1] < 2
            or 0 in maps[0].shape + expected
        ):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in answer)
            raise ModelError(f"{self.name} answers with shapes {shapes}, which are not DensePose's; {_OTHER_KIND}.")
        if not all(tensor.isfinite().all() for tensor in (boxes, *maps)):
            raise ModelError(
                f"{self.name} answers with values that are not finite numbers; its file may be damaged, or "
                f"{_OTHER_KIND}."
            )
        height, width = size
        if boxes.abs().max() > 2 * max(size) + 100:
            raise ModelError(
                f"{self.name} finds people far outside a picture of {width} x {height} pixels; {_OTHER_KIND}."
            )
        corner = boxes.new_tensor([width, height])
        seen = ((boxes[:, :2] < corner) & (boxes[:, 2:] >= 1) & (boxes[:, 2:] > boxes[:, :2])).all(dim=1)
        return [boxes[seen], *(tensor[seen] for tensor in maps)]


def _num_companions(detections: list[Detection], chosen: int) -> int:
    """How many others there are of some size, boxes that lie in the chosen one's (a part of that person, seen twice)
    left out."""
    boxes = np.array([detection.box for detection in detections], np.float64)  # (N, 4)
    sides = np.minimum(boxes[:, 2:], boxes[chosen, 2:]) - np.maximum(boxes[:, :2], boxes[chosen, :2])
    areas, common = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(sides.clip(0), axis=1)
    return int(np.count_nonzero((areas >= _COMPANION * areas[chosen]) & (common < _SAME * areas)))


def _patch(
    box: list[float], coarse: torch.Tensor, fine: torch.Tensor, u: torch.Tensor, v: torch.Tensor, size: tuple[int, int]
) -> _Patch:
    """A person's maps (C, h, w) as they lie in a frame of (height, width) = `size`, cut off at its border.

    The box's corner and sides are rounded down. Maps are resized first, then the part is chosen and its U, V taken, so
    that U, V of two parts are never mixed.
    """
    x0, y0, x1, y1 = box
    left, top, width, height = int(np.floor(x0)), int(np.floor(y0)), max(int(x1 - x0), 1), max(int(y1 - y0), 1)

    def resized(tensor: torch.Tensor) -> torch.Tensor:
        return F.interpolate(tensor[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]

    def strongest(maps: torch.Tensor) -> torch.Tensor:
        """argmax over channels, one channel at a time: all of them at the size of a large picture would take
        gigabytes."""
        best, index = resized(maps[0]), torch.zeros(height, width, dtype=torch.uint8, device=maps.device)
        for channel in range(1, len(maps)):
            values = resized(maps[channel])
            index[values > best] = channel
            best = torch.maximum(best, values)
        return index

    parts = strongest(fine) * (strongest(coarse) > 0)
    uv = torch.zeros(2, height, width, device=u.device)
    for part in parts.unique().tolist():
        if part:
            here = parts == part
            uv[0][here], uv[1][here] = resized(u[part])[here], resized(v[part])[here]
    # Copies of what lies inside the frame, so that nothing larger is kept.
    rows, columns = slice(max(-top, 0), max(size[0] - top, 0)), slice(max(-left, 0), max(size[1] - left, 0))
    uv = uv[:, rows, columns].clamp(0, 1).to(torch.float16)
    return _Patch(max(top, 0), max(left, 0), parts[rows, columns].cpu().numpy().copy(), uv.cpu().numpy().copy())


def _require_torchvision() -> None:
    """Imports torchvision, which brings the operations (nms, roi_align) that the network is made of."""
    try:
        _import_torchvision()
    except Exception as error:  # missing, or built for another torch, which shows as RuntimeError or OSError
        raise ModelError(
            "The TorchScript DensePose estimator needs torchvision, which is missing or does not fit the installed "
            "torch; please run: pip install -r requirements-densepose.txt"
        ) from error


def _import_torchvision() -> None:
    import torchvision  # noqa: F401


def _download(revision: str | None) -> Path:
    """The network's file in the local cache of the hub, fetched if it is not there yet (265 MB)."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(REPOSITORY, FILE, revision=revision))
    except Exception as error:  # no network, no such revision, no room, ...: many kinds
        at = f" at revision {revision}" if revision else ""
        raise ModelError(
            f"{FILE} of {REPOSITORY}{at} could not be fetched from the Hugging Face hub; please check the network and "
            "the disk, or download the file by other means and give its path."
        ) from error


def _load(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    if not path.is_file():
        raise ModelError(f"There is no DensePose network at {path}; {_OTHER_KIND}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of torch.jit as a whole; there is no other loader for such files
            network = torch.jit.load(str(path), map_location=device).eval()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch raises RuntimeError, ValueError and others on damaged files
        raise ModelError(
            f"{path.name} cannot be loaded as a TorchScript network; it may be damaged: {_OTHER_KIND}."
        ) from error
    return network.float() if device.type == "cpu" else network
