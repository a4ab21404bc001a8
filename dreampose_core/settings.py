"""Typed settings of an installation and options of a run; reads no files and imports no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
MINI = REPOSITORY / "assets" / "mini"
MODELS = {"mini": MINI}  # shipped models by name
BODY_TRACKER = REPOSITORY / "assets" / "body"
PEOPLE = REPOSITORY / "assets" / "synthetic" / "people.npz"
EXAMPLES = REPOSITORY / "examples"

Recipe = Literal["none", "fast", "paper"]
Quality = Literal["draft", "standard", "best"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Solver = Literal["dpm++", "unipc", "ddim", "pndm"]
LogFormat = Literal["text", "json"]
EstimatorName = Literal["none", "body", "torchscript"]
_MOTIONS = (
    "idle walk stroll march jog catwalk turn turn_quick pirouette side_step wave wave_both clap point "
    "shrug bow curtsy salute phone look_around arms stretch fashion contrapposto over_shoulder show_dress "
    "twist squat lunge kick jump boxing swing tree dance disco robot"
)
MotionName = Literal[tuple(_MOTIONS.split())]
Height = Literal["child", "short", "average", "tall"]

MAX_SEED = 2**31 - 1
MAX_FRAMES = 1200
MIN_FREE_MB = 200  # disk space; with less, no new work starts, so that running jobs can finish


class Options(BaseModel):
    """Base class of all option sets: unknown names are errors, and values never change. The docstring of a field is its
    description on the command line, in the API and in the API's documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def described(cls) -> dict[str, str]:
        """Return the description of each option, with its range if it has one."""
        descriptions = {}
        for name, schema in cls.model_json_schema()["properties"].items():
            descriptions[name] = schema.get("description", "")
            for part in schema.get("anyOf", [schema]):
                if "minimum" in part:
                    to = f" to {part['maximum']:.10g}" if "maximum" in part else " or more"
                    descriptions[name] += f" {part['minimum']:.10g}{to}."
        return descriptions


def frame_range(text: str | None, name: str) -> tuple[int | None, int | None]:
    """Parse a half-open range such as "20:80" to (first, last); None for a side that is left out.

    name: the option's name in the error sentence. Raises InputError.
    """
    first, colon, last = (part.strip() for part in (text or ":").partition(":"))
    if not colon or not all(part == "" or part.isdecimal() and len(part) < 10 for part in (first, last)):
        raise InputError(f"{name} must be FIRST:LAST with LAST not included, for example 0:60, got {text!r}.")
    return int(first) if first else None, int(last) if last else None


class EditOptions(Options):
    """Edits of a pose sequence, applied in this order."""

    first_frame: int | None = Field(None, ge=0)
    """First frame of the motion to use."""
    last_frame: int | None = Field(None, ge=1)
    """Stop before this frame."""
    fill_holes: bool = False
    """Close holes in the motion's pose maps."""
    smooth: bool = False
    """Remove flicker of the parts from the motion."""
    stride: int = Field(1, ge=1, le=100)
    """Use every n-th frame, which makes the motion faster."""
    speed: float = Field(1, ge=0.25, le=4)
    """Factor on the motion's speed; the frame rate stays."""
    fps: float | None = Field(None, ge=1, le=120)
    """Change the frame rate; the speed stays."""
    mirror: bool = False
    """Swap left and right."""
    reverse: bool = False
    """Play the motion backwards."""
    loops: int = Field(1, ge=1, le=100)
    """How often the motion is repeated; 1 plays it once."""

    @property
    def keeps_timing(self) -> bool:
        """True if each moment of the result shows the same moment of the clip, counted from first_frame."""
        return self.stride == 1 and self.speed == 1 and not self.reverse and self.loops == 1


class FrameOptions(Options):
    """Framing, the part of the photo that frames show: the fitted frame, scaled by 1/zoom, then moved."""

    fit: Literal["auto", "crop", "pad"] = "auto"
    """Crop the photo to the frames' shape, or pad it; auto crops around the person if their position is known."""
    zoom: float = Field(1, ge=0.5, le=3)
    """Enlarge the photo by this factor."""
    shift_right: float = Field(0, ge=-1, le=1)
    """Move the frame to the right by this share of its width."""
    shift_down: float = Field(0, ge=-1, le=1)
    """Move the frame down by this share of its height."""
    person_at: tuple[int, int] | None = None
    """Column and row, in pixels, of a point on the photo's person, where there are several; None: the largest."""


class SceneOptions(EditOptions, FrameOptions):
    """Framing and alignment: how a photo and a motion are combined."""

    align: Literal["body", "outline", "none"] = "body"
    """body: draw the motion on the photo's body, or as outline without joints; outline: move and scale the motion's
    outline to the person; none: leave the motion as it is."""


class AnimateOptions(SceneOptions):
    """Options of an animation."""

    recipe: Recipe = "fast"
    """How to fine-tune the model to the person first; none skips it."""
    quality: Quality = "standard"
    """Number of denoising steps, which the model defines for each quality."""
    steps: int | None = Field(None, ge=1, le=250)
    """Denoising steps; overrides quality."""
    image_guidance: float | None = Field(None, ge=0, le=20)
    """Higher values follow the photo more; the paper's s_I (section 4.3). None: the model's default."""
    pose_guidance: float | None = Field(None, ge=0, le=20)
    """Higher values follow the motion more; the paper's s_P. None: the model's default."""
    solver: Solver | None = None
    """Sampler of the diffusion model. None: the model's default."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """The same seed makes the same video."""
    batch_size: int = Field(8, ge=1, le=64)
    """Frames generated at a time."""
    keep_sound: bool = False
    """Copy the sound of the motion's clip into the video, if the edits keep its timing."""


class MotionOptions(Options):
    """Options of a made motion, which a body drawn by the program performs."""

    motion: MotionName = "walk"
    """What the body does."""
    seconds: float = Field(4, ge=1, le=20)
    """Length of the motion."""
    fps: float = Field(20, ge=8, le=30)
    """Frames per second."""
    speed: float = Field(1, ge=0.25, le=4)
    """Factor on the natural pace."""
    amplitude: float = Field(1, ge=0.25, le=1.5)
    """Factor on the natural size of the movements."""
    height: Height = "average"
    """The body's height."""
    build: Literal["slim", "average", "heavy"] = "average"
    """The body's build."""
    clothes: Literal["close", "skirt", "long_skirt"] = "close"
    """The body's clothes."""
    view: float = Field(0, ge=-180, le=180)
    """Camera angle in degrees; 0 shows the front, 90 the body's left side."""
    turning: float = Field(0, ge=-90, le=90)
    """Degrees per second by which the camera orbits the body."""
    distance: float = Field(1, ge=1, le=3)
    """Factor on the usual camera distance."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of small differences in the proportions and of the side that begins."""

    @property
    def num_frames(self) -> int:
        """The number of frames, 8 to 600."""
        return round(self.seconds * self.fps)


class FinetuneOptions(Options):
    """How to fine-tune a subject (paper, section 4.4): UNet and adapter first, then the VAE decoder."""

    recipe: Literal["fast", "paper"] = "fast"
    """fast: a LoRA in about a minute; paper: the paper's 500 and 1500 steps on all weights."""
    steps: int | None = Field(None, ge=1, le=100_000)
    """Steps of the UNet; the decoder's change in proportion. None: the recipe's default."""
    seed: int = Field(0, ge=0, le=MAX_SEED)
    """The same seed makes the same subject."""


_Folder = Annotated[Path, AfterValidator(lambda folder: folder.expanduser().absolute())]


class Settings(Options):
    """Settings of one installation: its data folder, model, server and limits.

    home: the data folder. model: mini, a model folder or a hub id. device, precision, low_memory: how the model runs,
    see `memory`. safety_checker: Stable Diffusion 1.x, whose checker examines every frame. root_path: the path at
    which a reverse proxy shows the server, such as /dreampose.

    estimator: how to estimate DensePose from pictures. estimator_file: a TorchScript export to use instead of the one
    on the hub. estimator_colours: the channel order that the export expects.

    engine: "local" runs the networks in the device queue's workers, "ray" on the Ray cluster at ray_address
    (host:port), where all nodes see home at the same path.

    workers: workers of the device queue, one per GPU; with Ray, they share its GPUs evenly. max_queue: waiting jobs of
    all owners. max_own: unfinished jobs of one owner, of which max_active run on devices at the same time. max_own_mb:
    disk space for one owner's results, and the same again for their subjects. max_disk_gb: disk space for all of home.
    keep_...: how long to keep uploads in the page, previews, results and subjects; the time counts from the upload, the
    end of the job, or the subject's last use. label: write on each frame that it is generated; "auto" does so on a
    public server. bucket: a folder that outlives the server's disk, to which results and subjects are copied.
    """

    home: _Folder
    model: str = str(MINI)
    device: Device = "auto"
    precision: Precision = "auto"
    low_memory: bool = False
    safety_checker: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(7860, ge=0, le=65535)
    root_path: Annotated[str, Field(pattern=r"^(/[\w.~-]+)*$")] = ""
    estimator: EstimatorName = "body"
    estimator_file: Path | None = None
    estimator_colours: Literal["bgr", "rgb"] = "bgr"
    engine: Literal["local", "ray"] = "local"
    ray_address: str = "127.0.0.1:6379"
    workers: int = Field(1, ge=1, le=64)
    max_queue: int = Field(16, ge=1)
    max_own: int = Field(8, ge=1)
    max_active: int = Field(2, ge=1)
    max_upload_mb: int = Field(100, ge=1)
    max_own_mb: int = Field(2000, ge=1)
    max_disk_gb: float = Field(20, gt=0)
    keep_uploads_h: float = Field(6, gt=0)
    keep_previews_h: float = Field(1, gt=0)
    keep_results_h: float = Field(72, gt=0)
    keep_subjects_days: float = Field(30, gt=0)
    bucket: _Folder | None = None
    label: Literal["auto", "on", "off"] = "auto"
    log_format: LogFormat = "text"
    secret: str | None = None

    @property
    def labels(self) -> bool:
        """True if each frame is marked as generated: with label "on", or with "auto" when the server listens
        to more than this machine."""
        return self.label == "on" or (self.label == "auto" and self.host not in ("127.0.0.1", "::1", "localhost"))

    @property
    def is_mini(self) -> bool:
        """Whether the model is the shipped one."""
        return self.model in MODELS or Path(self.model).absolute() == MINI

    @classmethod
    def from_environment(cls, **overrides) -> Settings:
        """Read settings from DREAMPOSE_HOME, DREAMPOSE_MODEL, DREAMPOSE_DEVICE, ...; `overrides` that are not None win.

        Raises InputError with one sentence that names the variable and its value.
        """
        values = {name: os.environ.get(f"DREAMPOSE_{name.upper()}", "").strip() for name in cls.model_fields}
        values = {name: text for name, text in values.items() if text}  # stripped of the line ends of an env file
        values |= {name: value for name, value in overrides.items() if value is not None}
        if "home" not in values:
            try:
                values["home"] = Path.home() / ".local" / "share" / "dreampose"
            except RuntimeError as error:  # a user without an entry in passwd
                raise InputError(
                    "This user has no home folder; set DREAMPOSE_HOME to a folder for the data."
                ) from error
        return validated(cls, values, prefix="DREAMPOSE_")


def validated(kind: type[Options], values: dict, prefix: str = ""):
    """Make an option set of the class `kind` from `values`. Raises InputError that names the first wrong value; prefix:
    that of environment variables, for their names in the sentence."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(part for part in first["loc"] if isinstance(part, str))
        name = prefix + name.upper() if prefix else name.replace("_", " ")
        got = "" if first["type"] in ("extra_forbidden", "missing") else f" (given: {first['input']!r})"
        message = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(f"{name}: {message}{got}.") from error
