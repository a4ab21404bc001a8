"""What the commands that make and measure models do: train, import, evaluate, bench; and what looks at the machine that
they run on."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import DreamPoseError, InputError
from ..files import appearing, appearing_folder, check_new_folder
from ..progress import check_stop
from ..settings import MAX_SEED, MiniRun, validated
from .commands import _estimate, _frames, _new_file, _new_folder, _say


def doctor(args, on_progress, should_stop) -> None:
    from ..doctor import examine
    from ..settings import Settings

    given = {"model": args.model, "device": args.device, "home": args.home}
    problems = 0
    for finding in examine(Settings.from_environment(**given).with_folders()):
        print(finding, flush=True)
        check_stop(should_stop)
        problems += finding.state == "problem"
    if problems:
        raise DreamPoseError(f"{problems} finding{'s' * (problems > 1)} marked BAD; what to do stands below each.")


def train(args, on_progress, should_stop) -> None:
    import torch

    from ..training.distributed import Processes
    from ..training.run import train_mini

    processes = Processes()
    device = processes.device or (
        args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    )
    if args.out is None or args.data is None:
        raise InputError(
            "--data and --out are needed: what to train on, mannequin or a folder of clips, and the run folder to "
            "write."
        )
    given = {name: getattr(args, name) for name in MiniRun.model_fields}
    done = train_mini(
        validated(MiniRun, given),
        _new_folder(args.out),
        device=device,
        minutes=args.minutes,
        resume=args.resume,
        shard=args.shard,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if processes.main:
        print(f"{args.out}/model: {'all steps done' if done else 'not all steps done; go on with --resume'}")


def train_start(args, on_progress, should_stop) -> None:
    from ..model.loading import save_model
    from ..model.pipeline import DreamPosePipeline

    out = Path(args.out)
    check_new_folder(out)
    pipe = DreamPosePipeline.from_stable_diffusion(
        args.base,
        args.image_encoder,
        pose_encoding=args.pose_encoding,
        reference_warp=args.reference_warp,
        size=args.size,
        vae=args.vae,
    )
    check_stop(should_stop)
    with appearing_folder(out) as folder:
        save_model(pipe, folder)
        check_stop(should_stop)
    print(f"{out}: a model of {args.size[0]} x {args.size[1]} (height x width) to train with --init {out}")


def import_released(args, on_progress, should_stop) -> None:
    from ..model.released import import_released

    out = import_released(
        args.base,
        Path(args.out),
        archive=args.zip,
        unet=args.unet,
        adapter=args.adapter,
        vae=args.vae,
        image_encoder=args.image_encoder,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    print(f"{out}: the released weights as a model folder; use it with --model {out}")


def train_prepare(args, on_progress, should_stop) -> None:
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
    for name, number in done.fewer.items():
        print(f"{name}: {_frames(number)} left out, for they show nobody")
    for name, why in done.left_out.items():
        print(f"{name} is left out: {why}")
    again = f", {len(done.before)} of them ready before" if done.before else ""
    print(
        f"{args.out}: {len(done.frames)} clips{again}, {_frames(sum(done.frames.values()))}; left out: "
        f"{len(done.left_out)} clips"
    )


def train_draw(args, on_progress, should_stop) -> None:
    from ..densepose import load_estimator
    from ..poses.pictures import SUFFIXES
    from ..training.drawn import draw_clips

    if args.clips < 1 or not (0 <= args.first < 10**6 - args.clips and 0 <= args.seed <= MAX_SEED):
        raise InputError("A training set has at most a million clips, and --first and --seed are not negative.")
    backdrops = []
    if args.backdrops is not None:
        backdrops = sorted(path for path in args.backdrops.glob("*") if path.suffix.lower() in SUFFIXES)
        if not backdrops:
            raise InputError(f"There is no picture in {args.backdrops}.")
    numbers = range(args.first, args.first + args.clips)
    run = {"on_progress": on_progress, "should_stop": should_stop}
    draw_clips(Path(args.folder), numbers, args.seed, load_estimator("body"), backdrops, **run)
    print(f"{args.folder}: {args.clips} clips")


def evaluate(args, on_progress, should_stop) -> None:
    from ..densepose import load_estimator
    from ..errors import ModelError
    from ..evaluation.benchmark import evaluate
    from ..evaluation.clips import MannequinClips, VideoClips
    from ..evaluation.report import table
    from ..evaluation.scores import load_lpips
    from ..model.loading import load_pipeline
    from ..settings import MAX_SEED
    from ..subject.finetuning import tuned_to
    from ..subject.folder import fingerprint

    out, people = _new_folder(args.out), 8 if args.people is None else args.people
    if not 0 <= args.seed <= MAX_SEED:
        raise InputError(f"--seed is {args.seed}; it must be 0 to {MAX_SEED}.")
    lpips = None if args.lpips is None else load_lpips(args.lpips)
    pipe = load_pipeline(args.model, args.device, args.precision, args.low_memory)
    config = pipe.model_config
    try:
        estimator = load_estimator("body", args.device)
    except ModelError as error:
        estimator = None
        print(f"The pose accuracy is not measured: {error}")
    if args.data is None:
        clips = MannequinClips(people, config.size)
    else:
        clips = VideoClips(args.data, config, args.people, estimator)
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
        tune=lambda photo, own: tuned_to(pipe, photo, own, args.recipe, should_stop),
        on_progress=on_progress,
        should_stop=should_stop,
        about={"model": str(args.model), "fingerprint": fingerprint(pipe), "device": str(pipe._execution_device)},
    )
    print(table(report))


def bench_poses(args, on_progress, should_stop) -> None:
    from ..evaluation.bench import bench_poses
    from ..evaluation.report import table

    print(
        table(
            bench_poses(args.frames, args.size, _new_folder(args.out), on_progress=on_progress, should_stop=should_stop)
        )
    )


def bench_tune(args, on_progress, should_stop) -> None:
    from ..densepose import load_estimator
    from ..evaluation.tuning import bench_tune
    from ..model.loading import load_pipeline
    from ..subject.finetuning import tuned_to

    out = None if args.out is None else _new_folder(args.out)
    _new_file_or_none(args.json)
    pipe = load_pipeline(args.model, args.device, args.precision, args.low_memory)
    figures = bench_tune(
        pipe,
        lambda photo, own, recipe: tuned_to(pipe, photo, own, recipe, should_stop),
        out,
        people=args.people,
        estimator=load_estimator("body", args.device),
        on_progress=on_progress,
        should_stop=should_stop,
    )
    _figures(figures, args.json)


def bench_generate(args, on_progress, should_stop) -> None:
    from ..evaluation.generation import bench_generate
    from ..model.loading import load_pipeline

    _new_file_or_none(args.json)
    pipe = load_pipeline(args.model, args.device, args.precision, args.low_memory)
    figures = bench_generate(
        pipe,
        (args.model, args.device, args.precision, args.low_memory),
        people=args.people,
        frames=args.frames,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    _figures(figures, args.json)


def _figures(figures: dict, path: Path | None) -> None:
    """Prints the figures, and writes them where that is asked for."""
    told = json.dumps(figures, indent=1)
    if path is not None:
        with appearing(path) as temporary:
            temporary.write_text(told + "\n")
    print(told)


def _new_file_or_none(path: Path | None) -> None:
    if path is not None:
        _new_file(str(path), ".json")
