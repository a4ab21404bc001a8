"""The commands that train, import, evaluate and benchmark models, and the doctor, which checks the machine. A
function's docstring is the command's help."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import DreamPoseError, InputError, ModelError
from ..files import appearing_folder, check_new_folder
from ..progress import check_stop
from ..training.run_folder import MiniRun
from .commands import _estimate, _frames, _new_folder, _options, _pipeline, _say


def doctor(args, on_progress, should_stop) -> None:
    """check this machine: list what is missing and how to fix it"""
    from ..doctor import examine
    from ..settings import Settings

    overrides = {"model": args.model, "device": args.device, "home": args.home}
    problems = 0
    for finding in examine(Settings.from_environment(**overrides)):
        print(finding, flush=True)
        check_stop(should_stop)
        problems += finding.state == "problem"
    if problems:
        raise DreamPoseError(f"{problems} finding{'s' * (problems > 1)} marked BAD; fix each as described below it.")


def train(args, **watch) -> None:
    """train a base model"""
    from ..model.memory import chosen_device
    from ..training.distributed import processes
    from ..training.run import train_mini

    device = str(processes().device) if processes().num_processes > 1 else chosen_device(args.device)
    if args.out is None or args.data is None:
        values = "a folder of clips to train on, and the run folder to write"
        raise InputError(f"--data and --out are needed: {values}.")
    run = _options(MiniRun, args)
    done = train_mini(run, _new_folder(args.out), device=device, minutes=args.minutes, resume=args.resume, **watch)
    if processes().is_main_process:
        print(f"{args.out}/model: {'all steps done' if done else 'not all steps done; continue with --resume'}")


def train_start(args, on_progress, should_stop) -> None:
    """make the full-size model from which training starts"""
    from ..model.loading import save_model
    from ..model.pipeline import DreamPosePipeline

    out = Path(args.out)
    check_new_folder(out)
    config = {"pose_encoding": args.pose_encoding, "reference_warp": args.reference_warp, "size": args.size}
    pipe = DreamPosePipeline.from_stable_diffusion(args.base, args.image_encoder, vae=args.vae, **config)
    check_stop(should_stop)
    with appearing_folder(out) as folder:
        save_model(pipe, folder)
        check_stop(should_stop)
    print(f"{out}: a model of {args.size[0]} x {args.size[1]} (height x width) to train with --init {out}")


def import_released(args, **watch) -> None:
    """convert the original authors' checkpoints to a model folder"""
    from ..model.released import import_released

    out = import_released(
        args.base,
        Path(args.out),
        archive=args.zip,
        unet=args.unet,
        adapter=args.adapter,
        vae=args.vae,
        image_encoder=args.image_encoder,
        **watch,
    )
    print(f"{out}: the released weights as a model folder; use it with --model {out}")


def train_prepare(args, on_progress, should_stop) -> None:
    """prepare clips of people for training"""
    from ..progress import ignore_progress
    from ..training.prepare import prepare

    estimate = _estimate(args, ignore_progress, should_stop)
    done = prepare(
        Path(args.folder),
        _new_folder(args.out),
        args.size,
        estimate=estimate.callback,
        estimator=" ".join(map(str, (args.estimator, args.estimator_file, args.estimator_colours, args.person))),
        on_progress=on_progress,
        should_stop=should_stop,
    )
    _say(estimate.notices)
    for name, about in done.clips.items():
        if about["without"]:
            print(f"{name}: {' '.join(about['without'])} These are left out.")
    for name, reason in done.left_out.items():
        print(f"{name} is left out: {reason}")
    kept = f", {len(done.before)} of them kept from before" if done.before else ""
    made = f"{len(done.clips)} clips{kept}, {_frames(sum(about['frames'] for about in done.clips.values()))}"
    print(f"{args.out}: {made}; left out: {len(done.left_out)} clips")


def train_draw(args, **watch) -> None:
    """draw clips of random people for training"""
    from ..densepose import load_estimator
    from ..poses.sources import SUFFIXES
    from ..training.drawn import draw_clips

    backdrops = []
    if args.backdrops is not None:
        backdrops = sorted(path for path in args.backdrops.glob("*") if path.suffix.lower() in SUFFIXES)
        if not backdrops:
            raise InputError(f"There is no picture in {args.backdrops}; give a folder of pictures.")
    draw_clips(Path(args.folder), range(args.clips), args.seed, load_estimator("body"), backdrops, **watch)
    print(f"{args.folder}: {args.clips} clips")


def evaluate(args, **watch) -> None:
    """measure a model against ground truth"""
    from ..densepose import load_estimator
    from ..evaluation.benchmark import evaluate
    from ..evaluation.clips import DrawnPeople, VideoClips
    from ..evaluation.scores import load_lpips, table
    from ..subject.folder import fingerprint

    out = _new_folder(args.out)
    lpips = None if args.lpips is None else load_lpips(args.lpips)
    pipe = _pipeline(args)
    try:
        estimator = load_estimator("body", args.device)
    except ModelError as error:
        if args.data == "drawn":
            raise
        estimator = None
        print(f"The pose accuracy is not measured: {error}")
    if args.data == "drawn":
        clips = DrawnPeople(8 if args.people is None else args.people, pipe.model_config, estimator)
    else:
        clips = VideoClips(args.data, pipe.model_config, args.people, estimator)
    report = evaluate(
        pipe,
        clips,
        out,
        recipe=args.recipe,
        quality=args.quality,
        seed=args.seed,
        robustness=args.robustness,
        estimator=estimator,
        lpips=lpips,
        about={"model": str(args.model), "fingerprint": fingerprint(pipe), "device": str(pipe._execution_device)},
        **watch,
    )
    print(table(report))


def bench_gpu(args, **watch) -> None:
    """measure everything on a GPU, in stages"""
    from ..evaluation.gpu import bench_gpu

    how = {"device": args.device, "minutes": args.minutes, "stages": args.stages or (), "tiny": args.tiny}
    print(json.dumps(bench_gpu(_new_folder(args.out), **how, **watch), indent=1))
