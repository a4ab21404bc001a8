"""The command line: `python -m dreampose_core COMMAND`; each command makes the same core calls as the page's
workers."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from .. import __version__
from ..errors import Cancelled, DreamPoseError, InputError
from ..progress import Progress
from ..settings import (
    MAX_SEED,
    AnimateOptions,
    EditOptions,
    FinetuneOptions,
    FrameOptions,
    MiniRun,
    Options,
    SceneOptions,
)
from . import commands, model_commands


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0 done, 2 a user's mistake (one sentence), 1 anything else, 130
    stopped."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    stop = threading.Event()

    def on_signal(number, frame):
        stop.set()
        signal.signal(number, signal.default_int_handler)  # a second Ctrl-C ends at once

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    bars = _Bars()
    try:
        try:
            args.run(args, bars, stop.is_set)
        finally:
            bars.close()  # before anything is said about an error
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Cancelled:
        print("stopped before it was done.", file=sys.stderr)
        return 130
    except DreamPoseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a folder that may not be written, a disk that is full
        from ..files import storage_error

        print(f"error: {storage_error(error, error.filename or 'A file')}", file=sys.stderr)
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the command line in one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


class _Bars:
    """Draws progress records as one bar a stage."""

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


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit() and 16 <= int(height) <= 2048 and 16 <= int(width) <= 2048):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, each 16 to 2048, for example 160x128")
    return int(height), int(width)


def _channels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, for example 64,128,192") from None


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m dreampose_core", description="One photo and a motion become a video.")
    parser.add_argument("--version", action="version", version=__version__)
    groups = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(group, name: str, run, text: str) -> argparse.ArgumentParser:
        sub = group.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    a = command(groups, "animate", commands.animate, "make a video of the person in a photo")
    a.add_argument(
        "--image",
        required=True,
        action="append",
        help="the photo: PNG, JPEG or WebP; more photos of the same person may follow, for the learning alone",
    )
    a.add_argument("--poses", required=True, help="the motion: DensePose in any form, or a video of somebody moving")
    a.add_argument("--out", required=True, help="the video to write (.mp4); its settings go beside it as .json")
    a.add_argument(
        "--image-poses",
        action="append",
        help="the photo's own DensePose, one for each --image: FILE, or FILE:K for its map K (default: estimated)",
    )
    _model_options(a)
    a.add_argument("--subject", type=Path, help="a tuned subject folder, used instead of tuning one")
    _edit_options(a)
    _add_options(a, AnimateOptions, without=(*EditOptions.model_fields, "batch_size"))
    a.add_argument("--label", action="store_true", help="each frame says in a corner that it is generated")
    a.add_argument(
        "--safety-checker",
        metavar="MODEL",
        help="Stable Diffusion 1.x, a folder or hub id: frames that its checker objects to are black",
    )
    _reading_options(a, motion=True)

    f = command(groups, "finetune", commands.finetune, "tune the model to a person and keep the subject")
    f.add_argument(
        "--image", required=True, action="append", help="a photo; give it again for more photos of the same person"
    )
    f.add_argument(
        "--image-poses", action="append", help="the photo's DensePose, one for each --image (default: estimated)"
    )
    f.add_argument("--out", required=True, help="the subject folder to write")
    _add_options(f, FinetuneOptions)
    f.add_argument("--resume", action="store_true", help="go on with a tuning to --out that was interrupted")
    _add_options(f, FrameOptions)
    _model_options(f)
    _reading_options(f)

    poses = groups.add_parser("poses", help="look into, change and convert pose sequences").add_subparsers(
        required=True, metavar="COMMAND"
    )
    i = command(poses, "info", commands.poses_info, "say what a motion is and holds")
    i.add_argument("file")
    _reading_options(i)
    v = command(
        poses, "convert", commands.poses_convert, "read a motion in any form, change it, write it in another form"
    )
    v.add_argument("file", help="any form that animate takes, and detectron2's dumps (.pkl) of your own")
    v.add_argument(
        "out",
        help=".npz (everything), .zip (IUV pictures), .mp4 (MagicAnimate rendering) or a folder (DreamPose's .npy)",
    )
    v.add_argument(
        "--size", type=_size, metavar="HxW", help="of a dump's pictures (default: found beside it, else from the boxes)"
    )
    v.set_defaults(reads_pickles=True)
    _edit_options(v)
    _reading_options(v)
    p = command(
        poses,
        "preview",
        commands.poses_preview,
        "see a motion, or what it does to a photo, in seconds and without a model",
    )
    p.add_argument("file")
    p.add_argument("out", help="the video to write (.mp4)")
    p.add_argument("--image", help="a photo: the motion is laid over it, and its pixels are moved by it")
    p.add_argument("--image-poses", help="the photo's own DensePose (default: estimated)")
    p.add_argument("--model", default="mini", help="the model whose size is shown (default: mini)")
    _edit_options(p)
    _add_options(p, SceneOptions, without=EditOptions.model_fields)
    _reading_options(p, motion=True)

    group = groups.add_parser("mannequin", help="people drawn by the program").add_subparsers(
        required=True, metavar="COMMAND"
    )
    m = command(group, "render", commands.mannequin_render, "draw a clip with its exact DensePose")
    m.add_argument("--seed", type=int, required=True, help="which figure; 10000 and above are never trained on")
    m.add_argument("--motion", required=True, help="a motion's name, such as walk; any other word lists them all")
    m.add_argument("--frames", type=int, required=True)
    m.add_argument("--size", type=_size, required=True, metavar="HxW")
    m.add_argument("--fps", type=float, default=20.0)
    m.add_argument("--speed", type=float, default=1.0, help="times the figure's own pace, 0.25 to 4 (default: 1)")
    m.add_argument(
        "--amplitude", type=float, default=1.0, help="times its own size of movements, 0.25 to 1.5 (default: 1)"
    )
    m.add_argument("--out", required=True, help="the folder for frame_00000.png ... and poses.npz")

    d = command(
        groups, "doctor", model_commands.doctor, "look at this machine: what is missing, and what to do about it"
    )
    d.add_argument("--model", help="the model that is to run (default: DREAMPOSE_MODEL, or mini)")
    d.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where it is to run (default: auto)")
    d.add_argument("--home", help="the data folder (default: DREAMPOSE_HOME)")

    t = command(groups, "train", model_commands.train, "train a base model")
    t.add_argument("--data", help=MiniRun.described()["data"])
    t.add_argument("--out", help="the run folder; what is trained is written to its model/")
    t.add_argument("--minutes", type=float, help="stop with a checkpoint after so long")
    t.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    t.add_argument("--shard", action="store_true", help="of several processes each holds its share of the UNet (FSDP)")
    t.add_argument("--size", type=_size, metavar="HxW", default=(160, 128), help="a multiple of 32 each")
    t.add_argument(
        "--unet-channels", type=_channels, metavar="A,B,C", default=(64, 128, 192), help="of the UNet's levels"
    )
    _add_options(t, MiniRun, without=("data", "size", "unet_channels"))
    _device_option(t)
    t_groups = t.add_subparsers(metavar="prepare|draw|start")
    c = command(t_groups, "prepare", model_commands.train_prepare, "turn clips of people into what is trained on")
    c.add_argument(
        "folder",
        help="videos, and folders of frame_<n>.png; DensePose that lies beside them is used, else it is estimated",
    )
    c.add_argument("--out", required=True, help="the folder to write; clips that are ready there are not made again")
    c.add_argument(
        "--size", type=_size, metavar="HxW", default=(640, 512), help="of the frames: the model's (default: 640x512)"
    )
    _reading_options(c)

    w = command(t_groups, "draw", model_commands.train_draw, "draw clips of people that the program makes up")
    w.add_argument("folder", help="the folder to write; clips that are there are not drawn again")
    w.add_argument("--clips", type=int, default=1000, help="how many, 2.5 MB and 8 seconds each (default: 1000)")
    w.add_argument("--first", type=int, default=0, help="the number of the first, for several processes (default: 0)")
    w.add_argument("--seed", type=int, default=0)
    w.add_argument("--backdrops", type=Path, help="a folder of pictures, one of which is behind half of the clips")

    start = command(t_groups, "start", model_commands.train_start, "make the full-size model that training starts from")
    _base_options(start)
    start.add_argument(
        "--vae", metavar="MODEL", help="another VAE, such as stabilityai/sd-vae-ft-mse: a folder or a hub id"
    )
    start.add_argument("--pose-encoding", choices=("iuv", "uv"), default="iuv", help="uv is the paper's (default: iuv)")
    start.add_argument(
        "--reference-warp",
        choices=("none", "texture"),
        default="texture",
        help="none is the paper's (default: texture)",
    )
    start.add_argument(
        "--size", type=_size, metavar="HxW", default=(640, 512), help="multiples of 64 (default: 640x512)"
    )

    r = command(
        groups,
        "import-released",
        model_commands.import_released,
        "turn the original authors' checkpoints into a model folder",
    )
    r.add_argument("--zip", type=Path, help="custom-chkpts.zip as it was downloaded; or the files themselves:")
    r.add_argument("--unet", type=Path, metavar="PTH", help="unet_epoch_20.pth")
    r.add_argument("--adapter", type=Path, metavar="PTH", help="adapter_20.pth")
    r.add_argument("--vae", type=Path, metavar="PTH", help="vae_1499.pth, where the VAE was tuned, too")
    _base_options(r)

    e = command(groups, "evaluate", model_commands.evaluate, "measure a model against exact truth")
    _model_options(e)
    e.add_argument(
        "--data", type=Path, help="a folder of real videos instead of mannequins; DensePose files next to them are used"
    )
    e.add_argument(
        "--people", type=int, help="how many held-out mannequins (default: 8), or videos of --data (default: all)"
    )
    e.add_argument(
        "--recipe",
        default="none",
        choices=("none", "fast", "paper"),
        help="measure the tuned model, too (default: none)",
    )
    e.add_argument("--quality", default="standard", choices=("draft", "standard", "best"))
    e.add_argument(
        "--robustness", action="store_true", help="also with the photo's DensePose disturbed or absent, on fewer frames"
    )
    e.add_argument(
        "--seed", type=int, default=0, help=f"0 to {MAX_SEED}; the same seed gives the same report (default: 0)"
    )
    e.add_argument("--lpips", type=Path, metavar="FILE", help="a TorchScript file of LPIPS, which is measured then")
    e.add_argument("--out", required=True, help="the folder for report.json, report.html and what belongs to them")

    bench = groups.add_parser("bench", help="measure time and memory").add_subparsers(required=True, metavar="COMMAND")
    b = command(bench, "poses", model_commands.bench_poses, "read and align a motion in every form")
    b.add_argument("--frames", type=int, default=300)
    b.add_argument("--size", type=_size, default=(640, 512), metavar="HxW")
    b.add_argument("--out", required=True, help="the folder for report.json")

    u = command(bench, "tune", model_commands.bench_tune, "what tuning to a subject is worth, and how long it takes")
    _model_options(u)
    u.add_argument("--people", type=int, default=3, help="held-out people (default: 3)")
    u.add_argument("--json", type=Path, metavar="FILE", help="the file for the figures")
    u.add_argument("--out", help="the folder for report.json and pictures")

    g = command(bench, "generate", model_commands.bench_generate, "how fast frames are made, and what that costs")
    _model_options(g)
    g.add_argument("--people", type=int, default=2, help="held-out people (default: 2)")
    g.add_argument(
        "--frames", type=int, default=4, help="frames of each that are made in the original's way, too (default: 4)"
    )
    g.add_argument("--json", type=Path, metavar="FILE", help="the file for the figures")
    return parser


def _base_options(sub) -> None:
    base = "Stable Diffusion 1.x, such as CompVis/stable-diffusion-v1-4: a folder or a hub id"
    sub.add_argument("--base", required=True, metavar="MODEL", help=base)
    clip = "openai/clip-vit-base-patch32"
    sub.add_argument(
        "--image-encoder",
        default=clip,
        metavar="MODEL",
        help=f"CLIP's vision model: a folder or a hub id (default: {clip})",
    )
    sub.add_argument("--out", required=True, help="the model folder to write")


def _device_option(sub) -> None:
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _model_options(sub) -> None:
    sub.add_argument("--model", default="mini", help="mini, a model folder, or a hub id owner/name (default: mini)")
    _device_option(sub)
    sub.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="of the model's numbers (default: bf16 where the GPU has it, else fp16; fp32 on the CPU)",
    )
    sub.add_argument(
        "--low-memory", action="store_true", help="parts that do not compute wait outside the GPU's memory: slower"
    )


def _edit_options(sub) -> None:
    group = sub.add_argument_group("changes to the motion, in this order")
    group.add_argument("--frames", dest="range", metavar="FIRST:LAST", help="a part of it; LAST is not included")
    _add_options(group, EditOptions, without=("first_frame", "last_frame"))


def _add_options(sub, kind: type[Options], without: Iterable[str] = ()) -> None:
    """Adds the options of a set, but for those named, as its fields describe them."""
    words = kind.described()
    for name, field in kind.model_fields.items():
        if name in without:
            continue
        how = {"default": field.default, "help": words[name].replace("%", "%%")}
        parts = get_args(field.annotation)
        kind = parts[0] if type(None) in parts else field.annotation  # X of X | None
        if kind is bool:
            how["action"] = "store_true"
        elif field.default is not None:
            how["help"] += f" (default: {field.default})"
        if kind in (int, float, str):
            how["type"] = kind
        elif kind is not bool:
            how["choices"] = get_args(kind)
        sub.add_argument(f"--{name.replace('_', '-')}", **how)


def _estimator_options(sub) -> None:
    sub.add_argument(
        "--estimator",
        choices=("body", "torchscript", "none"),
        default="body",
        help="what makes DensePose from pictures (default: body, the body tracker)",
    )
    sub.add_argument("--estimator-file", type=Path, help="a TorchScript export, instead of the one on the hub")
    sub.add_argument(
        "--estimator-colours", choices=("bgr", "rgb"), default="bgr", help="the channel order the export wants"
    )


def _reading_options(sub, motion: bool = False) -> None:
    """motion: there is a clip beside the photo, with people of its own."""
    _estimator_options(sub)
    whom = "whom to take of several people: 1 is the leftmost (body), or the largest (torchscript, a dump)"
    sub.add_argument("--person", type=_number, help=f"{whom}; default: the largest")
    if motion:
        sub.add_argument("--motion-person", type=_number, help="the same in the motion's clip")
    if not any(action.dest == "device" for action in sub._actions):
        _device_option(sub)
