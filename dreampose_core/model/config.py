"""How a model must be fed and how its frames are denoised: the one description that stands in a model folder."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError
from ..poses import NUM_PARTS, PoseSequence, convertible
from ..settings import Quality, Solver

# of one encoded map: "iuv" is coverage of each part, U, V, "parts known", "UV known"; "uv" is the original's U and V
POSE_CHANNELS = {"iuv": NUM_PARTS + 4, "uv": 2}
# what stands in a frame's window of five maps beyond the ends of the clip: the nearest map; or, as the original was
# run, the frame's own
POSE_WINDOWS = {"five": "nearest", "centred": "centre"}
_TALLEST = 16 / 9  # of frames, height over width


@dataclass(frozen=True)
class Sampling:
    """How frames are denoised, by the names of `DreamPosePipeline.stream`.

    guidance_interval: the part of the noise schedule that is guided, from 0, the clean frame, to 1, pure noise; outside
    one pass is made instead of three. reuse_steps: the UNet's deep features are computed at every such step only.
    solver: None as the model has it.
    """

    num_inference_steps: int
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    reuse_steps: int = 1
    solver: Solver | None = None


@dataclass(frozen=True)
class ModelConfig:
    """How a model must be fed; stands in the model folder's config.

    pose_encoding: "iuv" or "uv", see `encode_maps`. pose_window: "five" or "centred", see `POSE_WINDOWS`.
    photo_encoding: "own" or "released", see `reference_tokens`. init_leak: frames start from the photo's latents with
    noise on top, not from noise alone; where the first timestep is not the noisiest some of the photo is left in it
    (7.2 % with 100 steps of PNDM).
    charts: whose U, V the model was trained on. reference_warp: "none", "texture" or "encoded", see `warp_channels`.
    reference_background: the moved texture lies on the photo's filled background.
    height, width: of photo and frames; with free_shape frames have the photo's shape, and about as many pixels, see
    `shaped_like`.
    image_guidance, pose_guidance: the guidance weights that suit the model (paper, section 4.3: s_I and s_P).
    draft_steps, standard_steps, best_steps: denoising steps of the three qualities.
    guidance_from, guidance_to, reuse_steps: what `draft` and `standard` leave out, see `Sampling`; `best` leaves out
    nothing.
    """

    pose_encoding: str = "iuv"
    pose_window: str = "five"
    photo_encoding: str = "own"
    init_leak: bool = False
    charts: str = "mannequin"
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

    def sampling(self, quality: Quality) -> Sampling:
        """How frames of a quality are denoised."""
        steps = {"draft": self.draft_steps, "standard": self.standard_steps, "best": self.best_steps}[quality]
        return (
            Sampling(steps)
            if quality == "best"
            else Sampling(steps, (self.guidance_from, self.guidance_to), self.reuse_steps)
        )

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def shaped_like(self, photo: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the frames for a photo of (height, width): with free_shape the multiples of 32 that are
        nearest to its shape, from 9:16 to 1:1, and to the config's area."""
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
        """Whether U, V of another size are interpolated for this model, see `poses.fitted`."""
        return self.pose_encoding == "uv"

    def knows_charts(self, poses: PoseSequence) -> bool:
        """Whether U, V of these poses, if they have any, are in the charts that the model was trained on."""
        return poses.charts == "none" or convertible(poses.charts, self.charts)

    @property
    def condition_size(self) -> tuple[int, int]:
        """(height, width) of the photo that the adapter is shown."""
        return (self.height // 2, self.width // 2) if self.free_shape else self.size


def check_config(config: ModelConfig) -> None:
    """Raises InputError for a name that is none of those that a field may have."""
    known = {
        "pose_encoding": POSE_CHANNELS,
        "pose_window": POSE_WINDOWS,
        "photo_encoding": ("own", "released"),
        "charts": ("densepose", "mannequin", "body"),
        "reference_warp": ("none", "texture", "encoded"),
    }
    for name, names in known.items():
        if getattr(config, name) not in names:
            raise InputError(f"{name} is {getattr(config, name)!r}; there are {', '.join(names)}.")
