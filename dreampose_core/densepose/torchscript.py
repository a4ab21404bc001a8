"""Run the public DensePose network as TorchScript: parts and U, V of one person, with torch and torchvision only.

The file is `densepose_r50_fpn_dl.torchscript` of the hub repository REPOSITORY, downloaded at first use, or a file of
that kind from disk. TorchScript contains no Python code, so nothing of the repository runs here except the network.

This module follows the network's published signature and is tested with stand-ins of that signature; the real weights
were not available where it was written. With the weights, these two commands check it, above all that left and right
are correct (if not, try the other colour order):
`python -m dreampose_core poses convert PHOTO_OR_CLIP out.npz --estimator torchscript`, then
`python -m dreampose_core poses preview out.npz preview.mp4`.

Memory: the network's output takes two megabytes per person. It is converted at once to parts and U, V within the
person's box, five bytes per pixel, and kept for the few largest people of a frame until all frames are known and the
person to follow is chosen. So a clip takes at most about twice the memory of its result.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError, ModelError
from ..poses import NUM_PARTS, PoseSequence
from .follow import Detection, followed, place

REPOSITORY = "LayerNorm/DensePose-TorchScript-with-hint-image"
FILE = "densepose_r50_fpn_dl.torchscript"
LICENCE = (
    "The DensePose network's weights are by Facebook AI Research (detectron2, DensePose), under CC BY-SA 3.0 "
    "(https://creativecommons.org/licenses/by-sa/3.0/)."
)
_COMPANION = 0.1  # share of the followed person's box area from which another person counts: about a third as tall
_SAME = 0.7  # a box with this share of its area inside the followed person's box shows the same person
_PEOPLE = 4  # people kept of each frame, because the followed one may not be the largest in every frame
_CHANNELS = NUM_PARTS + 1
_OTHER_KIND = f"please give the file {FILE} or densepose_r101_fpn_dl.torchscript of {REPOSITORY}"


class TorchScriptEstimator:
    """Estimates pose maps with the TorchScript network.

    path: the network's file; None downloads it from the hub.
    device: "cpu" (32-bit) or "cuda". colours: the channel order that the network expects, "rgb" or "bgr", that of its
    source, detectron2.
    person: which person to follow, see follow.followed.

    Raises InputError for a missing GPU, ModelError when torchvision is missing or the file is unavailable or not such a
    network.
    """

    notices = (LICENCE,)
    left_out = 0  # other people in the last picture; 0 if the user chose the person

    def __init__(self, path: Path | None = None, device: str = "cpu", colours: str = "bgr", person: int | None = None):
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"The DensePose network was to run on {device}, but no such card is here; choose cpu.")
        try:
            import torchvision  # noqa: F401  # brings the operations (nms, roi_align) that the network is made of
        except Exception as error:  # missing, or built for another torch, which raises RuntimeError or OSError
            raise ModelError(
                "The TorchScript DensePose estimator needs torchvision, which is missing or does not fit the installed "
                "torch; please run: pip install -r requirements-densepose.txt"
            ) from error
        self.device, self.colours, self.person = torch.device(device), colours, person
        path = path or _download()
        self.name = path.name
        self.network = _load(path, self.device)

    def estimate(self, images: Iterable[np.ndarray]) -> PoseSequence:
        """Estimate maps (T frames, charts "densepose") of RGB `images`, uint8 (H, W, 3) of one size, at that size.

        Frames without the followed person are all 0. `images` is read one by one, so a generator may report progress or
        raise Cancelled between two frames.

        Raises InputError when there are no images or no such person, ModelError when the network's output is not
        DensePose's.
        """
        frames: list[list[Detection]] = []
        for image in images:
            size = image.shape[:2]
            frames.append(self._detect(image))
        if not frames:
            raise InputError("There are no pictures to estimate poses from; please give at least one.")
        parts = np.zeros((len(frames), *size), np.uint8)
        uv = np.zeros((len(frames), 2, *size), np.float16)
        for i, chosen in enumerate(followed(frames, self.person)):
            self.left_out = 0
            if chosen is not None:
                if self.person is None:
                    self.left_out = _num_companions(frames[i], chosen)
                person = frames[i][chosen]
                for frame, own in zip((parts[i], uv[i]), person.payload):
                    place(own, person.box, frame)
            frames[i] = []
        return PoseSequence(parts, uv, "densepose")

    @torch.inference_mode()
    def _detect(self, image: np.ndarray) -> list[Detection]:
        """Detect the largest people in `image`, with their maps as payload."""
        pixels = image if self.colours == "rgb" else image[..., ::-1]
        # (H, W, 3) -> (3, H, W)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(self.device)
        try:
            output = self.network(tensor)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(f"{self.name} cannot be run on a picture; {_OTHER_KIND}.") from error
        boxes, *maps = self._checked(output, image.shape[:2])
        areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
        largest = areas.argsort(descending=True, stable=True)[: max(_PEOPLE, (self.person or 1) + 2)]
        found = ((boxes[i].tolist(), *(tensor[i] for tensor in maps)) for i in largest.tolist())
        return [Detection(tuple(box), payload=_maps(box, *maps)) for box, *maps in found]

    def _checked(self, output: object, size: tuple[int, int]) -> list[torch.Tensor]:
        """Check the output: boxes (N, 4), coarse (N, C, h, w), fine, u, v (N, 25, h, w); drop unusable boxes."""
        answer = output if isinstance(output, (tuple, list)) else ()
        answer = [tensor.float() for tensor in answer if isinstance(tensor, torch.Tensor)]
        if len(answer) == 5 and answer[0].numel() == 0:
            return [answer[0].new_zeros(0, *shape) for shape in ((4,), *[(_CHANNELS, 1, 1)] * 4)]
        shapes = [tuple(tensor.shape) for tensor in answer]
        fits = list(map(len, shapes)) == [2, 4, 4, 4, 4] and len({shape[0] for shape in shapes}) == 1
        fits = fits and shapes[0][1] == 4 and shapes[1][1] > 1 and {shape[1] for shape in shapes[2:]} == {_CHANNELS}
        fits = fits and len(set(shapes[2:])) == 1 and all(0 not in shape for shape in shapes)
        fits = fits and all(tensor.isfinite().all() for tensor in answer)
        if not fits or answer[0].abs().max() > 2 * max(size) + 100:
            what = "boxes in the picture, coarse and fine parts, U and V, as DensePose does"
            raise ModelError(f"{self.name} does not answer with {what}; {_OTHER_KIND}.")
        boxes, corner = answer[0], answer[0].new_tensor(size[::-1])
        seen = ((boxes[:, :2] < corner) & (boxes[:, 2:] >= 1) & (boxes[:, 2:] > boxes[:, :2])).all(dim=1)
        return [tensor[seen] for tensor in answer]


def _num_companions(detections: list[Detection], chosen: int) -> int:
    """Count the other people of a relevant size, except boxes inside the chosen one's (the same person, seen twice)."""
    boxes = np.array([detection.box for detection in detections], np.float64)  # (N, 4)
    sides = np.minimum(boxes[:, 2:], boxes[chosen, 2:]) - np.maximum(boxes[:, :2], boxes[chosen, :2])
    areas, common = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.prod(sides.clip(0), axis=1)
    return int(np.count_nonzero((areas >= _COMPANION * areas[chosen]) & (common < _SAME * areas)))


def _maps(
    box: list[float], coarse: torch.Tensor, fine: torch.Tensor, u: torch.Tensor, v: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Convert a person's maps (C, h, w) to the size of their box, whose sides are rounded down.

    Returns parts uint8 (h, w) and uv float16 (2, h, w). Maps are resized before the part is chosen and its U, V taken,
    so that U, V of two parts are never mixed.
    """
    x0, y0, x1, y1 = box
    width, height = max(int(x1 - x0), 1), max(int(y1 - y0), 1)

    def resized(tensor: torch.Tensor) -> torch.Tensor:
        return F.interpolate(tensor[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]

    def strongest(maps: torch.Tensor) -> torch.Tensor:
        """argmax over the channels, one channel at a time: all at the size of a large picture would take gigabytes."""
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
    return parts.cpu().numpy(), uv.clamp(0, 1).to(torch.float16).cpu().numpy()


def _download() -> Path:
    """The network's file in the local cache of the hub, downloaded if it is missing (265 MB)."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(REPOSITORY, FILE))
    except Exception as error:  # no network, a full disk, ...: many kinds
        raise ModelError(
            f"{FILE} of {REPOSITORY} could not be fetched from the Hugging Face hub; please check network and disk, or "
            "download the file by other means and give its path."
        ) from error


def _load(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    if not path.is_file():
        raise ModelError(f"There is no DensePose network at {path}; {_OTHER_KIND}.")
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated, but there is no other loader for such files
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device).eval()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch raises RuntimeError, ValueError and others on damaged files
        raise ModelError(f"{path.name} cannot be loaded as TorchScript; it may be damaged: {_OTHER_KIND}.") from error
    return network.float() if device.type == "cpu" else network
