"""The command line: `python -m dreampose_core COMMAND`; each command makes the same core calls as the page's workers."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import fields
from pathlib import Path

from . import __version__
from .errors import Cancelled, DreamPoseError, InputError
from .progress import Progress
from .settings import MAX_FRAMES, MAX_SEED, AnimateOptions, FinetuneOptions, validated


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0 done, 2 a user's mistake (one sentence), 1 anything else, 130 stopped."""
    parser = _parser()
    args = parser.parse_args(arguments)
    stop = threading.Event()

    def on_signal(number, frame):
        stop.set()
        signal.signal(number, signal.default_int_handler)  # a second Ctrl-C ends at once

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        args.run(args, _Bars(), stop.is_set)
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
        from .files import storage_error

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


def _animate(args, on_progress, should_stop) -> None:
    from .files import appearing, storage_error
    from .images import read_image
    from .poses import read_image_poses, read_poses

    first, last = _frame_range(args.frames)
    options = validated(AnimateOptions, {
        "recipe": args.recipe, "quality": args.quality, "steps": args.steps, "image_guidance": args.image_guidance,
        "pose_guidance": args.pose_guidance, "seed": args.seed, "fps": args.fps, "first_frame": first, "last_frame": last,
    })  # fmt: skip
    out = _new_file(args.out, ".mp4")
    image, poses = read_image(args.image), read_poses(args.poses)
    image_poses = None if args.image_poses is None else read_image_poses(args.image_poses)
    poses.clip(first, last)  # a wrong range is said before the model is loaded
    from .animation import animate, load_pipeline

    pipe = load_pipeline(args.model, args.device)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.stem}.", dir=out.parent))
    try:
        result = animate(
            pipe, image=image, poses=poses, image_poses=image_poses, options=options, folder=folder, subject=args.subject,
            on_progress=on_progress, should_stop=should_stop,
        )  # fmt: skip
        for suffix, source in ((".mp4", "result.mp4"), (".json", "result.json")):
            with appearing(out.with_suffix(suffix)) as temporary:
                shutil.copyfile(folder / source, temporary)
    except OSError as error:
        raise storage_error(error, out) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for notice in result["notices"]:
        print(notice)
    print(f"{out}: {result['num_frames']} frames at {result['fps']:g} fps, {result['height']} x {result['width']} (height x width)")


def _finetune(args, on_progress, should_stop) -> None:
    import numpy as np

    from .images import read_image
    from .poses import PoseSequence, fitted, read_image_poses
    from .subject import check_subject_folder

    options = validated(FinetuneOptions, {"recipe": args.recipe, "seed": args.seed})
    out = Path(os.path.abspath(_new_folder(args.out)))
    check_subject_folder(out)
    photos = [read_image(path) for path in args.image]
    maps = [read_image_poses(spec) for spec in args.image_poses or []]
    if maps and len(maps) != len(photos):
        raise InputError(f"There are {len(photos)} --image and {len(maps)} --image-poses; give one map for each photo, or none.")
    from .animation import finetune, load_pipeline

    pipe = load_pipeline(args.model, args.device)
    image_poses = None
    if maps:
        maps = [fitted(poses, pipe.form.size) for poses in maps]
        one = len({poses.charts for poses in maps}) == 1  # U, V of different charts do not belong together
        same = [all(poses.parts is not None for poses in maps), one and maps[0].uv is not None]
        parts, uv = (np.concatenate([getattr(poses, kind) for poses in maps]) if has else None for kind, has in zip(("parts", "uv"), same))
        image_poses = PoseSequence(parts, uv, maps[0].charts if uv is not None else "none")
    subject = finetune(pipe, photos, image_poses, options.recipe, options.seed, out, on_progress=on_progress, should_stop=should_stop)
    print(f"{out}: subject {subject.key}, tuned to {len(photos)} photo{'s' * (len(photos) > 1)}; use it with --subject {out}")


def _poses_info(args, on_progress, should_stop) -> None:
    from .poses import read_poses

    poses = read_poses(args.file)
    height, width = poses.size
    kinds = " and ".join(name for name, array in (("parts", poses.parts), ("U, V", poses.uv)) if array is not None)
    print(f"{args.file}: {len(poses)} frames at {poses.fps:g} fps, {height} x {width} (height x width), {kinds}, charts: {poses.charts}")
    print(f"person on {poses.mask.mean():.1%} of the pixels; nobody in {int((~poses.mask.any(axis=(1, 2))).sum())} frames")


def _mannequin_render(args, on_progress, should_stop) -> None:
    from .images import write_png
    from .mannequin import Figure, render_clip
    from .poses import write_poses
    from .progress import StageClock, check_stop

    out = _new_folder(args.out)
    if not 1 <= args.frames <= MAX_FRAMES:
        raise InputError(f"--frames is {args.frames}; it must be 1 to {MAX_FRAMES}.")
    if not 1 <= args.fps <= 120:
        raise InputError(f"--fps is {args.fps}; it must be 1 to 120.")
    rgb, poses = render_clip(Figure.from_seed(args.seed), args.motion, args.frames, args.size, fps=args.fps)
    out.mkdir(parents=True, exist_ok=True)
    clock = StageClock("frames", len(rgb), on_progress)
    for index, frame in enumerate(rgb.numpy()):
        check_stop(should_stop)
        write_png(frame, out / f"frame_{index:05d}.png")
        clock.tick(index + 1)
    write_poses(poses, out / "poses.npz")
    print(f"{out}: {len(rgb)} frames and poses.npz")


def _train(args, on_progress, should_stop) -> None:
    import torch

    from .mini import MiniRun, train_mini

    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    given = {field.name: getattr(args, field.name) for field in fields(MiniRun)}
    run = MiniRun(**{name: value for name, value in given.items() if value is not None})
    done = train_mini(run, _new_folder(args.out), device=device, minutes=args.minutes, resume=args.resume,
                      on_progress=on_progress, should_stop=should_stop)  # fmt: skip
    print(f"{args.out}/model: {'all steps done' if done else 'not all steps done; go on with --resume'}")


def _evaluate(args, on_progress, should_stop) -> None:
    from .animation import load_pipeline, tuned_to
    from .evaluation.report import evaluate, table

    pipe = load_pipeline(args.model, args.device)
    report = evaluate(pipe, args.people, args.recipe, args.quality, _new_folder(args.out), on_progress=on_progress, should_stop=should_stop,
                      tune=lambda photo, own: tuned_to(pipe, photo, own, args.recipe, should_stop))  # fmt: skip
    print(table(report))


def _frame_range(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    first, colon, last = text.partition(":")
    if not colon or not all(part == "" or part.isdigit() for part in (first, last)):
        raise InputError(f"--frames is {text!r}; give FIRST:LAST, for example 0:60, where LAST is not included.")
    return (int(first) if first else None), (int(last) if last else None)


def _new_file(text: str, suffix: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != suffix:
        raise InputError(f"--out is {text}; its name must end in {suffix}.")
    if not path.parent.is_dir():
        raise InputError(f"--out is {text}, but there is no folder {path.parent}; create it first.")
    return path


def _new_folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise InputError(f"--out is {text}, which is a file; give a folder.")
    return path


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit() and 16 <= int(height) <= 2048 and 16 <= int(width) <= 2048):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, each 16 to 2048, for example 160x128")
    return int(height), int(width)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m dreampose_core", description="One photo and a DensePose sequence become a video.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(group, name: str, run, text: str) -> argparse.ArgumentParser:
        sub = group.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def model_options(sub) -> None:
        sub.add_argument("--model", default="mini", help="mini, a model folder, or a hub id owner/name (default: mini)")
        sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    a = command(commands, "animate", _animate, "make a video of the person in a photo")
    a.add_argument("--image", required=True, help="the photo: PNG, JPEG or WebP")
    a.add_argument("--poses", required=True, help="the pose sequence (.npz)")
    a.add_argument("--out", required=True, help="the video to write (.mp4); its settings go beside it as .json")
    a.add_argument("--image-poses", help="the photo's own DensePose: FILE, or FILE:K for map K of it")
    model_options(a)
    a.add_argument("--subject", type=Path, help="a tuned subject folder, used instead of tuning one")
    a.add_argument("--recipe", default="fast", help="none or fast (default: fast)")
    a.add_argument("--quality", default="standard", help="draft, standard or best: 8, 15 or 50 steps (default: standard)")
    a.add_argument("--steps", type=int, help="denoising steps, 1 to 250, instead of the quality's")
    a.add_argument("--image-guidance", type=float, help="0 to 20 (default: the model's)")
    a.add_argument("--pose-guidance", type=float, help="0 to 20 (default: the model's)")
    a.add_argument("--seed", type=int, default=0, help=f"0 to {MAX_SEED}; the same seed gives the same video (default: 0)")
    a.add_argument("--fps", type=float, help="frames per second, 1 to 120 (default: the sequence's)")
    a.add_argument("--frames", metavar="FIRST:LAST", help="a part of the sequence; LAST is not included")

    f = command(commands, "finetune", _finetune, "tune the model to a person and keep the subject")
    f.add_argument("--image", required=True, action="append", help="a photo; give it again for more photos of the same person")
    f.add_argument("--image-poses", action="append", help="the photo's DensePose, one for each --image")
    f.add_argument("--out", required=True, help="the subject folder to write")
    f.add_argument("--recipe", default="fast", help="fast")
    f.add_argument("--seed", type=int, default=0)
    model_options(f)

    poses = commands.add_parser("poses", help="look into pose files").add_subparsers(required=True, metavar="COMMAND")
    command(poses, "info", _poses_info, "say what a pose file holds").add_argument("file")

    group = commands.add_parser("mannequin", help="people drawn by the program").add_subparsers(required=True, metavar="COMMAND")
    m = command(group, "render", _mannequin_render, "draw a clip with its exact DensePose")
    m.add_argument("--seed", type=int, required=True, help="which figure; 10000 and above are never trained on")
    m.add_argument("--motion", required=True, help="walk, turn, wave, catwalk, arms, side_step, twist, squat, dance or idle")
    m.add_argument("--frames", type=int, required=True)
    m.add_argument("--size", type=_size, required=True, metavar="HxW")
    m.add_argument("--fps", type=float, default=20.0)
    m.add_argument("--out", required=True, help="the folder for frame_00000.png ... and poses.npz")

    t = command(commands, "train", _train, "train a base model")
    t.add_argument("--data", required=True, choices=("mannequin",), help="mannequin: people drawn by the program")
    t.add_argument("--out", required=True, help="the run folder; the model is written to its model/")
    t.add_argument("--minutes", type=float, help="stop with a checkpoint after so long")
    t.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    # without a default here: MiniRun's, which are the measured ones, stand in one place
    t.add_argument("--steps", type=int, help="UNet steps in all")
    t.add_argument("--vae-steps", type=int, help="VAE steps before them")
    t.add_argument("--batch-size", type=int)
    t.add_argument("--vae-lr", type=float)
    t.add_argument("--lr", type=float)
    t.add_argument("--size", type=_size, metavar="HxW", help="a multiple of 32 each")
    t.add_argument("--reference-warp", choices=("texture", "none"))
    t.add_argument("--precision", choices=("fp32", "bf16"))
    t.add_argument("--seed", type=int)
    t.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")

    e = command(commands, "evaluate", _evaluate, "measure a model on held-out mannequins, beside its baselines")
    model_options(e)
    e.add_argument("--people", type=int, default=8)
    e.add_argument("--recipe", default="none", choices=("none", "fast"))
    e.add_argument("--quality", default="standard", choices=("draft", "standard", "best"))
    e.add_argument("--out", required=True, help="the folder for report.json and contact.png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
