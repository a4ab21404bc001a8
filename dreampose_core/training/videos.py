"""Training samples from clips on disk: pairs of a photo and a target frame with its five maps, a pure function of the
step."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ..body.drawing import Rendering
from ..errors import InputError
from ..inputs.framing import on_map
from ..media import Box, check_aspect, crop_box, fit_image
from ..poses import WINDOW, PoseSequence, fitted, mirrored
from ..synthetic.dataset import Samples
from .distributed import Draws
from .footage import Footage, find_footage

_ZOOM = 0.8  # the smallest crop, as a share of the largest that the frame holds
_STRIDES = (1, 2)  # frames between the maps of a window
_MIRRORED = 0.5, 0.1  # share of samples in a mirror, where U, V can be turned with it, and where they are lost in it
_HELD_EVERY = 20  # of so many clips one is never trained on
_WHOLE = 1.0, 0.5, 0.5  # the largest crop, in the middle
_THREADS = 4  # that read frames


class VideoSamples:
    """Endless samples of the clips in a folder (see `find_footage`): `batch(step)` is the same whenever it is asked.

    A photo is frame i of a clip, its target frame j of the same clip, never the same one, each with its own crop, both
    as in a mirror or neither; picture and maps are cropped and mirrored together, and no crop reaches beyond its frame.
    Every twentieth clip, and one of three at least, is held back, see `held_out`.

    size: (height, width). share: this process's rank and how many
    there are: of every batch it makes only its own part. Raises InputError as `find_footage` does.
    """

    def __init__(
        self,
        folder: str | Path,
        size: tuple[int, int],
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        share: tuple[int, int] = (0, 1),
    ):
        found = find_footage(Path(folder))
        self.held = found[::_HELD_EVERY] if len(found) > 2 else []
        self.clips = [clip for clip in found if clip not in self.held]
        self.charts = next((clip.charts for clip in found if clip.charts != "none"), "none")
        self.size, self.batch_size, self.seed, self.device, self.share = size, batch_size, seed, device, share
        if batch_size % share[1]:
            raise InputError(
                f"A batch of {batch_size} cannot be shared by {share[1]} processes; give a multiple of {share[1]}."
            )
        self._pool = ThreadPoolExecutor(_THREADS)

    def batch(self, step: int) -> Samples:
        """The samples of training step `step`."""
        count = self.batch_size // self.share[1]
        drawn = Draws(self.seed, step, 13, self.share).rand(count, 11).tolist()
        columns = [
            torch.from_numpy(np.stack(column)).to(self.device) for column in zip(*self._pool.map(self._sample, drawn))
        ]
        return Samples(*columns[:6], has_parts=columns[6].float(), has_uv=columns[7].float())

    def frames(self, step: int, count: int, whole: bool = False) -> Rendering:
        """`count` frames of as many clips, for what needs no pairs; of several processes each gets its part, or, with
        `whole`, all."""
        share = (0, 1) if whole else self.share
        drawn = Draws(self.seed, step, 14, share).rand(count // share[1], 6).tolist()
        made = list(self._pool.map(self._frame, drawn))
        return Rendering(*(torch.from_numpy(np.stack(column)).to(self.device) for column in zip(*made)))

    def held_out(self, count: int) -> list[tuple[np.ndarray, PoseSequence, np.ndarray, PoseSequence]]:
        """Photo uint8 (H, W, 3), its map, a true frame and its map, of clips that are not trained on, as far as there
        are any."""
        rows, clips = [], self.held or self.clips
        for number in range(count):
            turn, which = divmod(number, len(clips))
            clip = clips[which]
            target = len(clip) - 1 - turn % (len(clip) - 1)
            (photo, own), (truth, poses) = (self._cut(clip, at, [at], _WHOLE, False) for at in (0, target))
            rows.append((photo, own, truth, poses))
        return rows

    def _sample(self, drawn: list[float]) -> tuple:
        """One sample; drawn: 11 numbers in 0..1."""
        which, i, j, stride, flip, *crops = drawn
        clip = self.clips[int(which * len(self.clips))]
        stride = _STRIDES[int(stride * len(_STRIDES))]
        # targets whose whole window lies in the clip, where it is long enough: at its ends maps repeat
        edge = min(2 * stride, max(0, (len(clip) - 2) // 2))
        target = edge + int(j * (len(clip) - 2 * edge))
        others = [at for at in range(len(clip)) if at != target] or [target]
        photo = others[int(i * len(others))]
        # U, V alone cannot say left from right
        turn = clip.has_parts and flip < _MIRRORED[clip.charts == "densepose"]
        rgb, own = self._cut(clip, photo, [photo], crops[:3], turn)
        truth, window = self._cut(clip, target, self._window(clip, target, stride), crops[3:], turn)
        known = own.parts is not None and window.parts is not None, own.uv is not None and window.uv is not None
        own_parts, own_uv = _arrays(own)
        parts, uv = _arrays(window)
        return rgb, own_parts[0], own_uv[0], truth, parts, uv, *known

    def _frame(self, drawn: list[float]) -> tuple:
        which, at, flip, *crop = drawn
        clip = self.clips[int(which * len(self.clips))]
        index = int(at * len(clip))
        rgb, poses = self._cut(clip, index, [index], crop, clip.has_parts and flip < 0.5)
        parts, uv = _arrays(poses)
        return rgb, parts[0], uv[0]

    def _window(self, clip: Footage, target: int, stride: int) -> list[int]:
        """Indices of the five frames around `target`; frames that were left out of the clip are stood in for by the
        nearest."""
        numbers = np.array([frame.number for frame in clip.frames])
        return [int(np.abs(numbers - (numbers[target] + stride * offset)).argmin()) for offset in WINDOW]

    def _cut(
        self, clip: Footage, index: int, maps: list[int], crop: Sequence[float], flip: bool
    ) -> tuple[np.ndarray, PoseSequence]:
        """A crop of a frame and of maps of the clip, in the model's size; crop: three numbers in 0..1, how large and
        where."""
        rgb, poses = clip.picture(index), clip.maps(maps)
        source = rgb.shape[:2]
        check_aspect(source, poses.size)
        whole = crop_box(source, self.size)
        share, down, across = _ZOOM + (1 - _ZOOM) * crop[0], crop[1], crop[2]
        height, width = share * whole.height, share * whole.width
        box = Box(down * (source[0] - height), across * (source[1] - width), height, width)
        rgb, poses = fit_image(rgb, self.size, box), fitted(poses, self.size, on_map(box, source, poses.size))
        if not flip:
            return rgb, poses
        return np.ascontiguousarray(rgb[:, ::-1]), mirrored(poses)


def _arrays(poses: PoseSequence) -> tuple[np.ndarray, np.ndarray]:
    """parts uint8 (T, H, W) and uv float16 (T, 2, H, W); of parts that are unknown only the person's outline, as part
    1; else zeros."""
    parts = poses.mask.astype(np.uint8) if poses.parts is None else poses.parts
    uv = np.zeros((len(poses), 2, *poses.size), np.float16) if poses.uv is None else poses.uv
    return parts, uv
