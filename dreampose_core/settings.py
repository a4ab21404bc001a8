"""Typed settings (of one installation) and options (of one run); nothing here reads files or imports torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
MINI = REPOSITORY / "assets" / "mini"
MODELS = {"mini": MINI}  # those that are shipped, by name
BODY_TRACKER = REPOSITORY / "assets" / "body"
PEOPLE = REPOSITORY / "assets" / "synthetic" / "people.npz"
EXAMPLES = REPOSITORY / "examples"

Recipe = Literal["none", "fast", "paper"]
Quality = Literal["draft", "standard", "best"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Fit = Literal["auto", "crop", "pad"]
Align = Literal["body", "outline", "none"]
Solver = Literal["dpm++", "unipc", "ddim", "pndm"]
EngineName = Literal["local", "ray"]
LogFormat = Literal["text", "json"]
LabelChoice = Literal["auto", "on", "off"]
EstimatorName = Literal["none", "body", "torchscript"]
Height = Literal["child", "short", "average", "tall"]
Build = Literal["slim", "average", "heavy"]
Clothes = Literal["close", "skirt", "long_skirt"]

MAX_SEED = 2**31 - 1
MAX_FRAMES = 1200
MIN_FREE_MB = 200  # of the disk: below that nothing new is begun, so that what is under way can be finished


class Options(BaseModel):
    """Base of all option sets: unknown names are errors, values never change. The text below a field is what the
    command line, the API and its documents say of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def described(cls) -> dict[str, str]:
        """What is said of each option, with its range where it has one."""
        told = {}
        for name, schema in cls.model_json_schema()["properties"].items():
            told[name] = schema.get("description", "")
            for part in schema.get("anyOf", [schema]):
                if "minimum" in part:
                    to = f" to {part['maximum']:.10g}" if "maximum" in part else " or more"
                    told[name] += f" {part['minimum']:.10g}{to}."
        return told


def frame_range(text: str | None, name: str) -> tuple[int | None, int | None]:
    """First and last of "20:80" (half-open; None where a side is left out). Raises InputError; `name` is what the user
    calls it."""
    first, colon, last = (part.strip() for part in (text or ":").partition(":"))
    if not colon or not all(part == "" or part.isdecimal() and len(part) < 10 for part in (first, last)):
        raise InputError(f"{name} is {text!r}; give FIRST:LAST, for example 0:60, where LAST is not included.")
    return int(first) if first else None, int(last) if last else None


class EditOptions(Options):
    """What is done to a pose sequence, in this order."""

    first_frame: int | None = Field(None, ge=0)
    """The motion's first frame that is taken."""
    last_frame: int | None = Field(None, ge=1)
    """The first that is not taken any more."""
    fill_holes: bool = False
    """Close holes in the motion's maps."""
    smooth: bool = False
    """Take flicker of the parts out of the motion."""
    stride: int = Field(1, ge=1, le=100)
    """Take every n-th frame, so the motion runs faster."""
    speed: float = Field(1, ge=0.25, le=4, allow_inf_nan=False)
    """Times the motion's own, at the same rate."""
    fps: float | None = Field(None, ge=1, le=120, allow_inf_nan=False)
    """Another rate at the same speed."""
    mirror: bool = False
    """Left becomes right."""
    reverse: bool = False
    """Backwards."""
    loops: int = Field(1, ge=1, le=100)
    """How often the motion is shown."""

    @property
    def keeps_timing(self) -> bool:
        """Whether each moment of the result is that moment of the clip, counted from first_frame."""
        return self.stride == 1 and self.speed == 1 and not self.reverse and self.loops == 1


class FrameOptions(Options):
    """What of a photo frames show: the fitted frame, made 1/zoom as large, then moved."""

    fit: Fit = "auto"
    """Crop the photo to the frames' shape, or pad it; auto crops around the person where their place is known."""
    zoom: float = Field(1, ge=0.5, le=3, allow_inf_nan=False)
    """The frame shows the photo so many times larger."""
    shift_right: float = Field(0, ge=-1, le=1, allow_inf_nan=False)
    """The frame is moved by this share of its width."""
    shift_down: float = Field(0, ge=-1, le=1, allow_inf_nan=False)
    """And by this share of its height."""


class SceneOptions(EditOptions, FrameOptions):
    """How a photo and a motion come together."""

    align: Align = "body"
    """Draw the motion on the photo's own body, move and scale its outline to the person, or leave it as it is; body is
    outline where joints are not known."""


class AnimateOptions(SceneOptions):
    """How frames are made."""

    recipe: Recipe = "fast"
    """Whether and how the model is fine-tuned to the person first."""
    quality: Quality = "standard"
    """The model's own numbers of denoising steps."""
    steps: int | None = Field(None, ge=1, le=250)
    """Denoising steps instead of the quality's."""
    image_guidance: float | None = Field(None, ge=0, le=20, allow_inf_nan=False)
    """More: nearer to the photo; the paper's s_I (section 4.3). None takes the model's own."""
    pose_guidance: float | None = Field(None, ge=0, le=20, allow_inf_nan=False)
    """More: nearer to the motion; the paper's s_P. None takes the model's own."""
    solver: Solver | None = None
    """How noise becomes a frame. None takes the model's own."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """The same seed makes the same video."""
    batch_size: int = Field(8, ge=1, le=64)
    """Frames that are made at a time."""
    keep_sound: bool = False
    """The motion clip's sound goes into the video, where its timing is kept."""


class MotionOptions(Options):
    """A motion done by a mannequin, a person drawn by the program."""

    motion: str = Field("walk", min_length=1, max_length=40)
    """What the mannequin does."""
    seconds: float = Field(4, ge=1, le=20, allow_inf_nan=False)
    """Its length."""
    fps: float = Field(20, ge=8, le=30, allow_inf_nan=False)
    """Its rate."""
    speed: float = Field(1, ge=0.25, le=4, allow_inf_nan=False)
    """Times the natural pace."""
    amplitude: float = Field(1, ge=0.25, le=1.5, allow_inf_nan=False)
    """Times the natural size of the movements."""
    height: Height = "average"
    """The mannequin's."""
    build: Build = "average"
    """The mannequin's."""
    clothes: Clothes = "close"
    """The mannequin's."""
    view: float = Field(0, ge=-180, le=180, allow_inf_nan=False)
    """Degrees; 0 is the front, 90 the mannequin's left side."""
    turning: float = Field(0, ge=-90, le=90, allow_inf_nan=False)
    """Degrees a second by which the camera goes round."""
    distance: float = Field(1, ge=1, le=3, allow_inf_nan=False)
    """Times the usual one."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Of small differences in its proportions, and of the side that it begins with."""

    @property
    def num_frames(self) -> int:
        """How many maps that makes, 8 to 600."""
        return round(self.seconds * self.fps)


class FinetuneOptions(Options):
    """How a subject is tuned (paper, section 4.4): UNet and adapter first, then the VAE decoder."""

    recipe: Literal["fast", "paper"] = "fast"
    """A LoRA in about a minute, or the paper's 500 and 1500 steps on whole weights."""
    steps: int | None = Field(None, ge=1, le=100_000)
    """Steps of the UNet, and of the decoder in proportion. None takes the recipe's own."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """The same seed makes the same subject."""


class MiniRun(Options):
    """What a training run of mini is asked to do; stands in the run folder's run.json."""

    data: str = "mannequin"
    """mannequin: people of capsules, drawn as they are needed; or a folder of clips, see train prepare and train draw;
    those that were drawn train a model whose decoder sees the moved texture, with frames of the photo's shape."""
    init: str | None = None
    """Start from this model's weights: mini, a model folder, or a hub id; its size, reference_warp and unet_channels
    stay. None: from random ones."""
    vae: str | None = None
    """Take this model's VAE, and train only the rest from random weights."""
    size: tuple[Annotated[int, Field(ge=32, multiple_of=32)], Annotated[int, Field(ge=32, multiple_of=32)]] = (160, 128)
    """Height and width of frames."""
    reference_warp: Literal["encoded", "texture", "none"] = "encoded"
    """How the UNet is shown the moved texture."""
    unet_channels: Annotated[
        tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...], Field(min_length=2, max_length=3)
    ] = (64, 128, 192)
    """Of the UNet's levels."""
    vae_steps: int | None = Field(None, ge=0)
    """VAE steps. None: 1200, or none where the VAE comes from a model."""
    steps: int = Field(400, ge=0)
    """Steps of UNet, adapter and image encoder by their latents, after those."""
    end_to_end_steps: int = Field(1500, ge=0)
    """Steps of these and the VAE's decoder by the frames they make, after those."""
    batch_size: int = Field(8, ge=2, multiple_of=2)
    """Samples of a batch."""
    accumulate: int = Field(1, ge=1, le=1024)
    """Batches of a step: gradients as of a batch so many times as large, in its memory."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit: a quarter of the memory; needs requirements-train.txt."""
    gradient_checkpointing: bool = False
    """Less memory, a fifth more time."""
    vae_lr: float = Field(3e-4, gt=0, lt=1)
    """Learning rate of the VAE's steps."""
    lr: float = Field(8e-4, gt=0, lt=1)
    """Learning rate of the UNet's steps."""
    end_to_end_lr: float = Field(4e-4, gt=0, lt=1)
    """Learning rate of the last steps."""
    crop: float = Field(0.8, gt=0, le=1)
    """Sides of the part of each frame that is trained on, as a share."""
    side: int = Field(256, ge=64, multiple_of=64)
    """Of the crops of drawn clips, in pixels."""
    noisier: float = Field(0.15, gt=0, le=10)
    """Below 1 the UNet sees more noisy latents than clean ones, 1: all alike."""
    min_snr: float | None = Field(None, gt=0, le=1000)
    """Weigh timesteps by min-SNR with this gamma, usually 5. None: all alike."""
    warp_dropout: float = Field(0.4, ge=0, le=1)
    """Share of samples without the moved texture, from which the tokens have to be learnt."""
    adversarial: float = Field(0.05, ge=0, le=10)
    """Weight of the discriminator in the last stage: higher is sharper, 0: no discriminator."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the arithmetic; weights stay fp32."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Of weights and samples."""
    tensorboard: bool = False
    """Write its events, too; needs requirements-train.txt."""


class Settings(Options):
    """One installation: where data lies, what is served and to whom.

    device, precision, low_memory: of the model, see `memory`. safety_checker: Stable Diffusion 1.x, whose checker looks
    at every frame.

    estimator: what makes DensePose from pictures. estimator_file: a TorchScript export to use instead of the one on the
    hub; estimator_colours: the channel order it wants.

    engine: where the networks are, in the device queue's workers or on the Ray cluster at ray_address (host:port),
    where home lies at the same path on all nodes.

    workers: of the device queue, one a GPU; with Ray, they share its GPUs evenly. max_queue: jobs that may wait,
    of everybody; max_own: unfinished jobs of one visitor, max_active of them at a time on devices; max_own_mb: what a
    visitor's results may take on disk, and what their subjects may; max_disk_gb: everything in home. keep_...: how long
    something is kept; uploads_h is for files that were chosen in the page, the others count from the end of the job, or
    the subject's last use. label: a word on each frame that it is generated; "auto" where the server is public. bucket:
    a folder that outlives this machine's disk; results and subjects are copied.
    """

    home: Path
    model: str = str(MINI)
    device: Device = "auto"
    precision: Precision = "auto"
    low_memory: bool = False
    safety_checker: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(7860, ge=0, le=65535)
    estimator: EstimatorName = "body"
    estimator_file: Path | None = None
    estimator_colours: Literal["bgr", "rgb"] = "bgr"
    engine: EngineName = "local"
    ray_address: str = "127.0.0.1:6379"
    workers: int = Field(1, ge=1, le=64)
    max_queue: int = Field(16, ge=1)
    max_own: int = Field(8, ge=1)
    max_active: int = Field(2, ge=1)
    max_upload_mb: int = Field(100, ge=1)
    max_own_mb: int = Field(2000, ge=1)
    max_disk_gb: float = Field(20, gt=0, allow_inf_nan=False)
    keep_uploads_h: float = Field(6, gt=0, allow_inf_nan=False)
    keep_previews_h: float = Field(1, gt=0, allow_inf_nan=False)
    keep_results_h: float = Field(72, gt=0, allow_inf_nan=False)
    keep_subjects_days: float = Field(30, gt=0, allow_inf_nan=False)
    bucket: Path | None = None
    label: LabelChoice = "auto"
    log_format: LogFormat = "text"
    secret: str | None = None

    @property
    def labels(self) -> bool:
        """Whether frames say that they are generated: where asked for, and by itself where others than this machine's
        people are served."""
        return self.label == "on" or (self.label == "auto" and self.host not in ("127.0.0.1", "::1", "localhost"))

    def with_folders(self) -> Settings:
        """The same with whole paths: no ~, and the same wherever the process goes."""
        folders = {name: getattr(self, name) for name in ("home", "bucket")}
        return self.model_copy(update={name: path and path.expanduser().absolute() for name, path in folders.items()})

    @classmethod
    def from_environment(cls, **overrides) -> Settings:
        """Settings from DREAMPOSE_HOME, DREAMPOSE_MODEL, DREAMPOSE_DEVICE, ...; `overrides` win.

        Raises InputError with one sentence that names the variable and the value.
        """
        values: dict[str, object] = {"home": Path.home() / ".local" / "share" / "dreampose"}
        for name in cls.model_fields:
            variable = f"DREAMPOSE_{name.upper()}"
            if os.environ.get(variable):
                values[name] = os.environ[variable]
        values.update({k: v for k, v in overrides.items() if v is not None})
        return validated(cls, values, prefix="DREAMPOSE_")


def validated(kind: type[Options], values: dict, prefix: str = ""):
    """An option set made of `values`; raises InputError that names the first wrong one."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(part for part in first["loc"] if isinstance(part, str))
        name = prefix + name.upper() if prefix else name.replace("_", " ")
        given = "" if first["type"] in ("extra_forbidden", "missing") else f" (given: {first['input']!r})"
        message = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(f"{name}: {message}{given}.") from error
