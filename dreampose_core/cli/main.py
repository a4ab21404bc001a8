"""The command line: `python -m dreampose_core COMMAND`; each command makes the same core calls as the page's
workers."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from .. import __version__
from ..errors import Cancelled, DreamPoseError, InputError
from ..files import storage_error
from ..progress import Progress
from ..settings import (
    MAX_SEED,
    AnimateOptions,
    Device,
    EditOptions,
    EstimatorName,
    FinetuneOptions,
    FrameOptions,
    Options,
    Precision,
    Quality,
    Recipe,
    SceneOptions,
)
from ..training.run_folder import MiniRun
from . import commands, model_commands


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 wrong input (one sentence on stderr), 1 another error, 130
    stopped by a signal."""
    args = build_parser().parse_args(arguments)
    stop = threading.Event()

    def on_signal(number, frame):
        stop.set()
        signal.signal(number, signal.default_int_handler)  # a second Ctrl-C ends the program at once

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    bars = _Bars()
    try:
        try:
            args.run(args, on_progress=bars, should_stop=stop.is_set)
        finally:
            bars.close()  # before an error is printed
    except Cancelled:
        print("stopped.", file=sys.stderr)
        return 130
    except (DreamPoseError, OSError) as error:  # OSError: a folder without write permission, a full disk
        message = storage_error(error, error.filename or "A file") if isinstance(error, OSError) else error
        print(f"error: {message}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


class _Parser(argparse.ArgumentParser):
    """Prints an error in the command line as one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


class _Bars:
    """Draws progress records as one bar per stage."""

    def __init__(self):
        self.stage, self.bar = None, None

    def __call__(self, progress: Progress) -> None:
        from tqdm import tqdm

        if progress.stage != self.stage:
            self.close()
            self.stage = progress.stage
            self.bar = tqdm(total=progress.total, desc=progress.stage, file=sys.stderr, leave=True)
        if progress.loss is not None:
            self.bar.set_postfix(loss=f"{progress.loss:.4f}", refresh=False)
        self.bar.update(progress.step - self.bar.n)
        if progress.step == progress.total:
            self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.stage = self.bar = None


def number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MAX_SEED}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit() and 16 <= int(height) <= 2048 and 16 <= int(width) <= 2048):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, each 16 to 2048, for example 160x128")
    return int(height), int(width)


def channels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, for example 64,128,192") from None


Add = Callable[[argparse.ArgumentParser], object]
"""A function that adds one or more arguments to a parser."""


def option(name: str, words: str, kind=str, default=None, **more) -> Add:
    """Define an argument with its help text. kind: bool for a switch, a Literal for a choice, or a function that parses
    the value."""
    if kind is bool:
        more["action"] = "store_true"
    else:
        more |= {"choices": get_args(kind)} if get_args(kind) else {"type": kind}
        more |= {"default": default, "metavar": more.get("metavar", {size: "HxW", channels: "A,B,C"}.get(kind))}
        words += f" (default: {default})" if default is not None and "(default" not in words else ""
    return lambda parser: parser.add_argument(name, help=words.strip().replace("%", "%%"), **more)


def options_of(kind: type[Options], without=(), **kinds) -> list[Add]:
    """Define the options of an option set, with its fields' descriptions as help. without: fields to leave out. kinds:
    (parser, default as text) for fields that need their own parser."""
    words, made = kind.described(), []
    for name, field in kind.model_fields.items():
        if name not in without:
            parts = get_args(field.annotation)
            of = parts[0] if type(None) in parts else field.annotation  # X of X | None
            made.append(option(f"--{name.replace('_', '-')}", words[name], *kinds.get(name, (of, field.default))))
    return made


def edits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("changes to the motion, in this order")
    group.add_argument("--frames", dest="range", metavar="FIRST:LAST", help="use only these frames, LAST not included")
    for add in options_of(EditOptions, without=("first_frame", "last_frame")):
        add(group)


CLIP = "openai/clip-vit-base-patch32"
DATA = (
    "drawn (people drawn as meshes, pose maps from the body tracker), or a folder of videos, with or without DensePose "
    "files next to them"
)
DEVICE = option("--device", "where to compute", Device, "auto")
MODEL = (
    option("--model", "mini, a model folder, or a hub id OWNER/NAME", default="mini"),
    DEVICE,
    option("--precision", "auto: bf16 if the GPU supports it, else fp16; fp32 on the CPU", Precision, "auto"),
    option("--low-memory", "keep networks that are not computing out of the GPU's memory; slower", bool),
)
BASE = (
    option("--base", "SD 1.x, a folder or hub id: CompVis/stable-diffusion-v1-4", required=True, metavar="MODEL"),
    option("--image-encoder", "CLIP's vision model, a folder or a hub id", default=CLIP, metavar="MODEL"),
    option("--out", "the model folder to write", required=True),
)
READING = (
    option("--estimator", "how to estimate DensePose from pictures; body: the body tracker", EstimatorName, "body"),
    option("--estimator-file", "a TorchScript export to use instead of the one on the hub", Path),
    option("--estimator-colours", "the channel order that the export expects", Literal["bgr", "rgb"], "bgr"),
    option("--person", "if several: 1 is the leftmost (body) or largest (others); default: the largest", number),
)
MOTION_PERSON = option("--motion-person", "as --person, for the motion's clip", number)
PHOTOS = (
    option("--image", "a photo; repeat to learn from more photos", required=True, action="append"),
    option("--image-poses", "its DensePose, FILE or FILE:K for map K (default: estimated)", action="append"),
)
VIDEO, MOTION = "the video to write (.mp4)", "the motion: DensePose in any format, or a video of a person moving"


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m dreampose_core", description="Animate a person's photo with a motion.")
    parser.add_argument("--version", action="version", version=__version__)
    top = parser.add_subparsers(required=True, metavar="COMMAND")
    groups = {}

    def group(name: str, words: str) -> None:
        groups[name] = top.add_parser(name, help=words).add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable, *options: Add) -> argparse.ArgumentParser:
        """Add a command with the function's name, in the group that the name's first word names, and the function's
        docstring as help."""
        first, _, rest = run.__name__.partition("_")
        within, name = (groups[first], rest) if first in groups else (top, run.__name__.replace("_", "-"))
        sub = within.add_parser(name, help=run.__doc__, description=run.__doc__)
        sub.set_defaults(run=run)
        for add in options:
            add(sub)
        return sub

    command(
        commands.animate,
        *PHOTOS,
        option("--poses", MOTION, required=True),
        option("--out", VIDEO + "; its settings go into a .json file next to it", required=True),
        *MODEL,
        option("--subject", "use this fine-tuned subject folder instead of fine-tuning now", Path),
        edits,
        *options_of(AnimateOptions, without=(*EditOptions.model_fields, "batch_size")),
        option("--label", "write in a corner of each frame that it is generated", bool),
        option("--safety-checker", "Stable Diffusion 1.x whose checker turns unsafe frames black", metavar="MODEL"),
        *READING,
        MOTION_PERSON,
    )
    command(
        commands.finetune,
        *PHOTOS,
        option("--out", "the subject folder to write", required=True),
        *options_of(FinetuneOptions),
        option("--resume", "continue the interrupted fine-tuning to --out", bool),
        *options_of(FrameOptions),
        *MODEL,
        *READING,
    )

    group("poses", "inspect, edit and convert motions")
    command(commands.poses_info, option("file", MOTION), *READING, DEVICE)
    command(
        commands.poses_convert,
        option("file", "any format that animate accepts, or your own detectron2 dump (.pkl)"),
        option("out", ".npz (everything), .zip (IUV pictures), .mp4 (MagicAnimate) or a folder (DreamPose's .npy)"),
        option("--size", "size of a dump's pictures (default: that of pictures next to it, else from boxes)", size),
        edits,
        *READING,
        DEVICE,
    )
    command(
        commands.poses_preview,
        option("file", MOTION),
        option("out", VIDEO),
        option("--image", "a photo: also show the motion on it, and its pixels moved by the motion"),
        option("--image-poses", "the photo's DensePose (default: estimated)"),
        option("--model", "the model that sets the size", default="mini"),
        edits,
        *options_of(SceneOptions, without=EditOptions.model_fields),
        *READING,
        MOTION_PERSON,
        DEVICE,
    )

    command(
        model_commands.doctor,
        option("--model", "the model to check (default: DREAMPOSE_MODEL, or mini)"),
        option("--device", "where to run it (default: auto)", Device),
        option("--home", "the data folder (default: DREAMPOSE_HOME)"),
    )

    train = command(
        model_commands.train,
        option("--data", MiniRun.described()["data"]),
        option("--out", "the run folder; the trained model is written to its model/"),
        option("--minutes", "stop with a checkpoint after this many minutes", float),
        option("--resume", "continue from the run folder's last checkpoint", bool),
        *options_of(MiniRun, ("data",), size=(size, "160x128"), unet_channels=(channels, "64,128,192")),
        DEVICE,
    )
    groups["train"] = train.add_subparsers(metavar="prepare|draw|start")
    command(
        model_commands.train_prepare,
        option("folder", "videos and folders of frame_<n>.png; DensePose is read from files next to them or estimated"),
        option("--out", "the folder to write; finished clips in it are kept", required=True),
        option("--size", "the frames' size: the model's", size, "640x512"),
        *READING,
        DEVICE,
    )
    command(
        model_commands.train_draw,
        option("folder", "the folder to write; clips in it are kept"),
        option("--clips", "number of clips; each takes 2.5 MB and 8 seconds", number, 1000),
        option("--seed", "the same seed draws the same clips", seed, 0),
        option("--backdrops", "a folder of pictures; half of the clips get one as their background", Path),
    )
    command(
        model_commands.train_start,
        *BASE,
        option("--vae", "another VAE, such as stabilityai/sd-vae-ft-mse: a folder or a hub id", metavar="MODEL"),
        option("--pose-encoding", "the paper uses uv", Literal["iuv", "uv"], "iuv"),
        option("--reference-warp", "the paper uses none", Literal["none", "texture"], "texture"),
        option("--size", "the model's size, multiples of 64", size, "640x512"),
    )
    command(
        model_commands.import_released,
        option("--zip", "custom-chkpts.zip as downloaded; or give its files:", Path),
        option("--unet", "unet_epoch_20.pth", Path, metavar="PTH"),
        option("--adapter", "adapter_20.pth", Path, metavar="PTH"),
        option("--vae", "vae_1499.pth, if the VAE was fine-tuned, too", Path, metavar="PTH"),
        *BASE,
    )

    command(
        model_commands.evaluate,
        *MODEL,
        option("--data", DATA, default="drawn"),
        option("--people", "number of held-out people (default: 8), or of videos in --data (default: all)", number),
        option("--recipe", "measure the model after this fine-tuning, too", Recipe, "none"),
        option("--quality", "as in animate", Quality, "standard"),
        option("--robustness", "measure with perturbed or missing DensePose of the photo, too, on fewer frames", bool),
        option("--seed", "the same seed gives the same report", seed, 0),
        option("--lpips", "a TorchScript file of LPIPS; measure it, too", Path, metavar="FILE"),
        option("--out", "the folder for report.json, table.md, about.json and contact.jpg", required=True),
    )
    group("bench", "measure time and memory")
    command(
        model_commands.bench_gpu,
        option("--out", "the folder for each stage's JSON", required=True),
        option("--minutes", "begin no stage after so many minutes", float, 8.0),
        option("--stages", "only these stages", nargs="+", metavar="NAME"),
        option("--device", "where to compute", Literal["cuda", "cpu"], "cuda"),
        option("--tiny", "tiny networks, to try the command on a CPU", bool),
    )
    return parser
