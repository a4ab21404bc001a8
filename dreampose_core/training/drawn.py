"""Draw clips to disk, and make training samples from them: cropped targets with photo, maps and moved texture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..densepose import Estimator
from ..errors import InputError
from ..files import appearing
from ..model.conditioning import condition_pixels, pose_tensors, to_pixels, to_uint8
from ..model.config import ModelConfig
from ..model.texture import harvest, move
from ..poses import PoseSequence, window_indices
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..synthetic.clips import Clip, draw_clip
from .distributed import Draws

SIDE = 256  # of crops, in pixels
_EMPTY = 1000  # bytes: files of clips without a person are smaller
_HARD, WRONG = 0.6, 0.25  # share of crops around a wrong pixel; mean colour error (range 0..2) above which one is wrong
_GRID = 16  # pixels: crops start at multiples of it, so that their latent cells match the frame's
_HELD_EVERY = 20  # one clip of so many is held back from training


def draw_clips(
    folder: Path,
    numbers: range,
    seed: int,
    estimator: Estimator,
    backdrops: Sequence[Path] = (),
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> None:
    """Draw the clips `numbers` of the training set `seed` into `folder`; existing ones are skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    clock = StageClock("drawing", len(numbers), on_progress)
    for done, number in enumerate(numbers):
        check_stop(should_stop)
        path = folder / f"{number:06d}.npz"
        if not path.exists():
            write_clip(path, draw_clip(seed, number, estimator, backdrops))
        clock.tick(done + 1)


def write_clip(path: Path, clip: Clip | None) -> None:
    """Store a clip: pictures as JPEG, maps and the moved texture's flags as PNG; an empty archive for None."""
    stored = {}
    if clip is not None:
        jpeg, png = (partial(_encoded, kind=kind) for kind in ("JPEG", "PNG"))
        stored = {"photo": jpeg(clip.photo), "own": png(_as_rgb(clip.image_poses, 0))}
        planes = moved(clip.photo, clip.image_poses, clip.poses)
        for index, frame in enumerate(clip.frames):
            stored[f"frame{index}"] = jpeg(frame)
            stored[f"moved{index}"] = jpeg(to_uint8(planes[index, :3]).numpy())
            stored[f"known{index}"] = png(_packed(planes[index, 3:]))
            stored[f"maps{index}"] = png(_as_rgb(clip.poses, index))
    with appearing(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, **stored)


@torch.no_grad()
def moved(photo: np.ndarray, image_poses: PoseSequence, poses: PoseSequence) -> torch.Tensor:
    """Move the photo's texture to each map: planes (T, 5, H, W), see `texture.move`."""
    parts, uv = pose_tensors(image_poses, "body")
    texture = harvest(to_pixels(torch.from_numpy(photo))[None], parts, uv)
    parts, uv = pose_tensors(poses, "body")
    return torch.cat([move(texture, parts[i : i + 1], uv[i : i + 1], background=True) for i in range(len(poses))])


@dataclass
class Crops:
    """B cropped targets.

    photo: (B, 3, h, w), whole, at the condition's size; target: (B, 3, s, s); planes: (B, 5, s, s); parts: (B, 5, s, s)
    and uv: (B, 5, 2, s, s) of the pose window.
    """

    photo: torch.Tensor
    target: torch.Tensor
    planes: torch.Tensor
    parts: torch.Tensor
    uv: torch.Tensor


class DrawnClips:
    """Endless crops of the clips in a folder: `batch(step)` is deterministic as long as no clips are added.

    Crops contain a random pixel of the person, or one where the moved texture is wrong. Every twentieth clip is held
    back. Raises InputError for fewer than two clips.
    """

    def __init__(self, folder: Path, config: ModelConfig, batch_size: int, seed: int = 0):
        paths = [path for path in drawn_clips(folder) if path.stat().st_size > _EMPTY]
        if len(paths) < 2:
            raise InputError(f"There are fewer than two clips in {folder}; draw them with train draw.")
        self.held, self.paths = paths[::_HELD_EVERY], [p for i, p in enumerate(paths) if i % _HELD_EVERY]
        self.config, self.batch_size, self.seed = config, batch_size, seed

    def batch(self, step: int) -> Crops:
        """Return the crops of a training step."""
        draws, rows = Draws(self.seed, step, 7), []
        for _ in range(self.batch_size):
            (which,), ((at, *place),) = draws.rand(1).tolist(), draws.rand(1, 5).tolist()
            with np.load(self.paths[int(which * len(self.paths))]) as clip:
                photo = condition_pixels(self.config, to_pixels(torch.from_numpy(_read(clip["photo"])))[None])
                frame = read_frame(clip, int(at * _length(clip)))
            rows.append((photo, *_crop(frame, place)))
        photo, target, planes, parts, uv = zip(*rows)
        return Crops(torch.cat(photo), *(torch.stack(x) for x in (target, planes, parts, uv)))

    def held_out(self, count: int) -> list[tuple[np.ndarray, PoseSequence, np.ndarray, PoseSequence]]:
        """Return photo uint8 (H, W, 3), its map, a true frame and its map, of `count` held-back clips."""
        rows = []
        for path in self.held[:count]:
            with np.load(path) as clip:
                image_poses, target = (_read(clip[name])[None] for name in ("own", "maps6"))
                rows.append((_read(clip["photo"]), _poses(image_poses), _read(clip["frame6"]), _poses(target)))
        return rows


def drawn_clips(folder: Path) -> list[Path]:
    """List the files of clips that `draw_clips` wrote to a folder."""
    return sorted(folder.glob("[0-9]" * 6 + ".npz"))


def read_frame(clip, index: int):
    """Read target (3, H, W), planes (5, H, W), window parts (5, H, W) and uv (5, 2, H, W) of a frame from an open
    file."""
    target, colours = (to_pixels(torch.from_numpy(_read(clip[f"{name}{index}"]))) for name in ("frame", "moved"))
    planes = torch.cat([colours, _unpacked(_read(clip[f"known{index}"]))])
    maps = torch.from_numpy(np.stack([_read(clip[f"maps{i}"]) for i in window_indices(index, _length(clip))]))
    return target, planes, maps[..., 0].long(), maps[..., 1:].movedim(-1, 1).float() / 255


def _length(clip) -> int:
    return sum(name.startswith("frame") for name in clip.files)


def _crop(frame: tuple[torch.Tensor, ...], place: list[float]) -> list[torch.Tensor]:
    """Cut a square out of the result of `read_frame`; place: random numbers for its position."""
    target, planes, parts, _ = frame
    height, width = target.shape[1:]
    hard, at, down, right = place
    wrong = (planes[:3] - target).abs().mean(0) > WRONG
    rows, columns = (wrong if hard < _HARD and wrong.any() else parts[2] > 0).nonzero(as_tuple=True)
    pixel = int(at * len(rows))
    row, column = (int(rows[pixel]), int(columns[pixel])) if len(rows) else (height // 2, width // 2)
    reach = SIDE - _GRID
    top = min(max(row - int(down * reach), 0), height - SIDE) // _GRID * _GRID
    left = min(max(column - int(right * reach), 0), width - SIDE) // _GRID * _GRID
    return [x[..., top : top + SIDE, left : left + SIDE] for x in frame]


def _packed(known: torch.Tensor) -> np.ndarray:
    """Pack seen and source (2, H, W) into one uint8 (H, W)."""
    seen, source = known
    return (seen * 8 + source * 2 + 2).round().to(torch.uint8).numpy()


def _unpacked(packed: np.ndarray) -> torch.Tensor:
    values = torch.from_numpy(packed)
    return torch.stack([(values >= 8).float(), (values % 8).float() / 2 - 1])


def _as_rgb(poses: PoseSequence, index: int) -> np.ndarray:
    uv = (poses.uv[index].astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)
    return np.stack([poses.parts[index], *uv], -1)


def _poses(maps: np.ndarray) -> PoseSequence:
    """Restore poses from the maps (T, H, W, 3) of `_as_rgb`."""
    uv = (maps[..., 1:].astype(np.float32) / 255).astype(np.float16)
    return PoseSequence(maps[..., 0], uv.transpose(0, 3, 1, 2), "body")


def _encoded(picture: np.ndarray, kind: str) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, quality=95, subsampling=0, compress_level=4)
    return np.frombuffer(file.getvalue(), np.uint8)


def _read(stored: np.ndarray) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(stored.tobytes())))
