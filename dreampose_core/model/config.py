"""The model's config: how the model must be conditioned and how its frames are denoised; stored in the model folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

from ..errors import InputError
from ..poses import NUM_PARTS, PoseSequence
from ..settings import Quality, Solver

# channels of one encoded map: "iuv" is coverage of each part, U, V, "parts known", "UV known"; "uv" is the paper's U, V
POSE_CHANNELS = {"iuv": NUM_PARTS + 4, "uv": 2}
# which map replaces those of the pose window that lie beyond the ends of the clip: the nearest map, or, as in the
# authors' code, the frame's own
POSE_WINDOWS = {"five": "nearest", "centred": "centre"}
_TALLEST = 16 / 9  # largest height / width of frames


@dataclass(frozen=True)
class Sampling:
    """Settings for denoising, named as the arguments of `DreamPosePipeline.stream`.

    guidance_interval: the part of the noise schedule with guidance, from 0 (clean frame) to 1 (pure noise); outside it
    the UNet makes one pass instead of three. reuse_steps: compute the UNet's deep features only at every n-th step.
    solver: None for the model's own. Raises InputError if one is out of range.
    """

    num_inference_steps: int
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    reuse_steps: int = 1
    solver: Solver | None = None

    def __post_init__(self):
        if self.num_inference_steps < 1:
            raise InputError(f"The number of steps is {self.num_inference_steps}; it must be at least 1.")
        if self.reuse_steps < 1 or not 0 <= self.guidance_interval[0] <= self.guidance_interval[1] <= 1:
            raise InputError(
                "reuse_steps must be at least 1, and guidance_interval two increasing shares of the noise schedule in "
                "0..1."
            )
        if self.solver not in (None, *get_args(Solver)):
            raise InputError(f"The solver is {self.solver!r}; it must be one of {', '.join(get_args(Solver))}.")


@dataclass(frozen=True)
class ModelConfig:
    """How a model must be conditioned; stored in the model folder.

    pose_encoding: "iuv" or "uv", see `encode_maps`. pose_window: "five" or "centred", see `POSE_WINDOWS`.
    photo_encoding: "own" or "released", see `reference_tokens`. init_leak: frames start from the photo's latents with
    noise on top, not from noise alone; if the first timestep is not the noisiest, some of the photo remains (7.2 % with
    100 steps of PNDM).
    charts: the charts of the U, V that the model was trained on. reference_warp: "none", "texture" or "encoded", see
    `warp_channels`. reference_background: put the photo's filled background behind the moved texture.
    height, width: of photo and frames; with free_shape frames have the photo's shape and about as many pixels, see
    `shaped_like`.
    image_guidance, pose_guidance: default guidance weights (paper, section 4.3: s_I and s_P).
    draft_steps, standard_steps, best_steps: denoising steps of the three qualities.
    guidance_from, guidance_to, reuse_steps: shortcuts of `draft` and `standard`, see `Sampling`; `best` takes none.
    """

    pose_encoding: str = "iuv"
    pose_window: str = "five"
    photo_encoding: str = "own"
    init_leak: bool = False
    charts: str = "body"
    reference_warp: str = "texture"
    reference_background: bool = True
    height: int = 160
    width: int = 128
    free_shape: bool = False
    image_guidance: float = 1.0
    pose_guidance: float = 1.0
    draft_steps: int = 8
    standard_steps: int = 15
    best_steps: int = 50
    guidance_from: float = 0.0
    guidance_to: float = 1.0
    reuse_steps: int = 1

    def sampling(self, quality: Quality, **changes) -> Sampling:
        """Return the sampling settings of a quality, with those of `changes` that are not None. Raises InputError."""
        sampling = Sampling(getattr(self, f"{quality}_steps"))
        if quality != "best":
            short = {"guidance_interval": (self.guidance_from, self.guidance_to), "reuse_steps": self.reuse_steps}
            sampling = replace(sampling, **short)
        return replace(sampling, **{name: value for name, value in changes.items() if value is not None})

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def shaped_like(self, photo: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of frames for a photo of (height, width).

        With free_shape: the multiples of 32 nearest to the photo's shape, limited to 9:16 to 1:1, and to the config's
        area. Otherwise the config's size.
        """
        if not self.free_shape:
            return self.size
        tall, area = min(max(photo[0] / photo[1], 1.0), _TALLEST), self.height * self.width
        around = (round((area * tall) ** 0.5 / 32), round((area / tall) ** 0.5 / 32))
        sizes = [(32 * (around[0] + i), 32 * (around[1] + j)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        return min(
            (size for size in sizes if min(size) > 0),
            key=lambda size: 2 * abs(math.log(size[0] / size[1] / tall)) + abs(math.log(size[0] * size[1] / area)),
        )

    @property
    def bilinear(self) -> bool:
        """Whether to interpolate U, V bilinearly on resizing, see `poses.fitted`."""
        return self.pose_encoding == "uv"

    def knows_charts(self, poses: PoseSequence) -> bool:
        """Whether these poses have no U, V, or U, V in the model's charts."""
        return poses.charts in ("none", self.charts)

    @property
    def condition_size(self) -> tuple[int, int]:
        """(height, width) of the photo as the adapter's input."""
        return (self.height // 2, self.width // 2) if self.free_shape else self.size
