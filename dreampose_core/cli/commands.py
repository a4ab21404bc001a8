"""What the commands for people, motions and figures do: arguments in, the same core calls as the page's workers, a line
or two out."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files import appearing, storage_error
from ..settings import (
    MAX_FRAMES,
    MODELS,
    AnimateOptions,
    EditOptions,
    FinetuneOptions,
    FrameOptions,
    MotionOptions,
    Options,
    SceneOptions,
    frame_range,
    validated,
)


def animate(args, on_progress, should_stop) -> None:
    options = _options(AnimateOptions, args)
    out = _new_file(args.out, ".mp4")
    estimate = _estimate(args, on_progress, should_stop)
    images, about_images = _images(args)
    reading = _motion(args.poses, args, estimate)
    reading.poses.clip(options.first_frame, options.last_frame)  # a wrong range is said before the model is loaded
    from ..animate.engine import LocalEngine
    from ..animate.run import animate
    from ..inputs.framing import keep_sound
    from ..model.loading import load_pipeline
    from ..poses import convertible
    from ..subject.folder import fingerprint, read_subject

    pipe = load_pipeline(args.model, args.device, args.precision, args.low_memory, args.safety_checker)
    if args.subject is not None:
        read_subject(args.subject, fingerprint(pipe))
    (photo, *more), about_maps = _photos(args, images, estimate)
    poses = reading.poses
    if options.align == "body" and convertible("body", pipe.model_config.charts):
        poses = estimate.with_joints(poses)
        photo = replace(photo, image_poses=estimate.with_joints(photo.image_poses))
    _say(about_images, _about(args.poses, reading), about_maps, estimate.notices)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.stem}.", dir=out.parent))
    try:
        sound = folder / "sound.m4a"
        if options.keep_sound:
            _say(keep_sound(Path(args.poses), len(reading.poses), reading.poses.fps, options, sound))
        result = animate(
            LocalEngine(pipe),
            image=photo.image,
            poses=poses,
            image_poses=photo.image_poses,
            more=more,
            options=options,
            folder=folder,
            label=args.label,
            sound=sound if sound.exists() else None,
            subject=args.subject,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        for suffix, source in ((".mp4", "result.mp4"), (".json", "result.json")):
            with appearing(out.with_suffix(suffix)) as temporary:
                shutil.copyfile(folder / source, temporary)
    except OSError as error:
        raise storage_error(error, out) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(result["notices"])
    print(
        f"{out}: {_frames(result['num_frames'])} at {result['fps']:g} fps, {result['height']} x "
        f"{result['width']} (height x width)"
    )


def finetune(args, on_progress, should_stop) -> None:
    from ..inputs.photos import crowds, fit_photos, maps_together
    from ..progress import Progress
    from ..subject.folder import check_subject_folder

    options = validated(FinetuneOptions, {"recipe": args.recipe, "steps": args.steps, "seed": args.seed})
    frame = _options(FrameOptions, args)
    out = Path(os.path.abspath(_new_folder(args.out)))
    check_subject_folder(out)
    checkpoints = out.with_name(f".{out.name}.checkpoints")
    if args.resume and not checkpoints.is_dir():
        raise InputError(f"There is no interrupted tuning of {out.name} to go on with; leave out --resume.")
    if checkpoints.is_dir() and not args.resume:
        raise InputError(
            f"A tuning of {out.name} was interrupted; give --resume to go on, or delete {checkpoints} to start anew."
        )
    images, about_images = _images(args)
    estimate = _estimate(args, on_progress, should_stop)
    photos, about_maps = _photos(args, images, estimate)
    _say(about_images, about_maps, estimate.notices, crowds(photos))
    from ..model.loading import load_pipeline
    from ..subject.finetuning import finetune

    pipe = load_pipeline(args.model, args.device, args.precision, args.low_memory)
    photos = fit_photos(
        photos, pipe.model_config.shaped_like(photos[0].image.shape[:2]), frame, pipe.model_config.bilinear
    )
    image_poses, said = maps_together(photos)
    _say(said)
    steps: list[Progress] = []
    subject = finetune(
        pipe,
        [photo.image for photo in photos],
        image_poses,
        options.recipe,
        options.seed,
        out,
        steps=options.steps,
        checkpoints=checkpoints,
        on_progress=lambda progress: (steps.append(progress), on_progress(progress)),
        should_stop=should_stop,
    )
    _say(subject.notices)
    how = (
        f"tuned to {len(photos)} photo{'s' * (len(photos) > 1)}"
        if steps
        else "was tuned to the same before, and is kept"
    )
    print(f"{out}: subject {subject.key}, {how}; use it with --subject {out}")


def poses_info(args, on_progress, should_stop) -> None:
    estimate = _estimate(args, on_progress, should_stop)
    reading = _motion(args.file, args, estimate)
    poses = reading.poses
    _say(_about(args.file, reading), estimate.notices)
    print(
        f"person on {poses.mask.mean():.1%} of the pixels; nobody in {int((~poses.mask.any(axis=(1, 2))).sum())} frames"
    )


def poses_convert(args, on_progress, should_stop) -> None:
    from ..poses import MIRRORED, check_target, edited, write_any

    options = _options(EditOptions, args)
    check_target(args.out)
    estimate = _estimate(args, on_progress, should_stop)
    reading = _motion(args.file, args, estimate)
    poses = edited(reading.poses, options)
    left_out = write_any(poses, args.out)
    _say(
        _about(args.file, reading),
        (MIRRORED,) if poses.uv is None and reading.poses.uv is not None else (),
        estimate.notices,
        left_out,
    )
    print(f"{args.out}: {_frames(len(poses))} at {poses.fps:g} fps, {poses.size[0]} x {poses.size[1]} (height x width)")


def poses_preview(args, on_progress, should_stop) -> None:
    options = _options(SceneOptions, args)
    out = _new_file(args.out, ".mp4")
    estimate = _estimate(args, on_progress, should_stop)
    reading = _motion(args.file, args, estimate)
    poses, scene, about = reading.poses, None, _about(args.file, reading)
    from ..inputs.framing import frame_size, known_charts
    from ..inputs.preview import preview_size, write_preview
    from ..poses import source_frames

    if args.image is not None:
        from ..inputs.framing import make_scene
        from ..inputs.photo_checks import photo_checks
        from ..media import read_photo

        image, about_image = read_photo(args.image)
        own, about_map = _image_poses(args.image_poses, image, estimate)
        model = MODELS.get(args.model) or args.model
        if options.align == "body":
            poses, own = estimate.with_joints(poses), estimate.with_joints(own)
        source = image.shape[:2]
        scene = make_scene(image, poses, own, preview_size(model, source), options, known_charts(model))
        checks = photo_checks(own, scene.box, source, frame_size(model, source))
        about += (*about_image, *about_map, *checks, *scene.notices)
    notices = write_preview(poses, out, options, scene, on_progress=on_progress, should_stop=should_stop)
    _say(about, estimate.notices, notices)
    print(f"{out}: {_frames(len(source_frames(len(poses), poses.fps, options)))}")


def mannequin_render(args, on_progress, should_stop) -> None:
    from ..media import write_png
    from ..poses import write_poses
    from ..progress import StageClock, check_stop
    from ..synthetic import Figure, render_clip

    out = _new_folder(args.out)
    if not 1 <= args.frames <= MAX_FRAMES:
        raise InputError(f"--frames is {args.frames}; it must be 1 to {MAX_FRAMES}.")
    if not 1 <= args.fps <= 120:
        raise InputError(f"--fps is {args.fps}; it must be 1 to 120.")
    given = validated(MotionOptions, {"speed": args.speed, "amplitude": args.amplitude})
    figure = Figure.from_seed(args.seed)
    manner = replace(figure.manner, speed=given.speed * figure.manner.speed, size=given.amplitude * figure.manner.size)
    rgb, poses = render_clip(figure, args.motion, args.frames, args.size, fps=args.fps, manner=manner)
    out.mkdir(parents=True, exist_ok=True)
    clock = StageClock("frames", len(rgb), on_progress)
    for index, frame in enumerate(rgb.numpy()):
        check_stop(should_stop)
        write_png(frame, out / f"frame_{index:05d}.png")
        clock.tick(index + 1)
    write_poses(poses, out / "poses.npz")
    print(f"{out}: {_frames(len(rgb))} and poses.npz")


# -- what several commands need ----------------------------------------------------------------------------------------


def _options(kind: type[Options], args) -> Options:
    """The option set `kind` from the arguments of the same names, and --frames, where it has one."""
    given = {name: getattr(args, name) for name in kind.model_fields if hasattr(args, name)}
    if "first_frame" in kind.model_fields:
        given["first_frame"], given["last_frame"] = frame_range(args.range, "--frames")
    return validated(kind, given)


def _estimate(args, on_progress, should_stop):
    """DensePose from pictures for whoever turns out to need it; the estimator is loaded when it is first asked."""
    from ..densepose import Estimates

    return Estimates(
        args.estimator,
        args.device,
        args.estimator_file,
        args.estimator_colours,
        args.person,
        getattr(args, "motion_person", args.person),
        on_progress=on_progress,
        should_stop=should_stop,
    )


def _motion(path: str, args, estimate):
    """The reading of a pose sequence in any form."""
    from ..poses import read_any

    if str(path).lower().endswith(".pkl") and getattr(args, "reads_pickles", False):
        from ..densepose.dump import read_dump

        return read_dump(path, args.person, args.size)
    reading = read_any(path, estimate.callback)
    option = "motion_person" if hasattr(args, "motion_person") else "person"
    if getattr(args, option) is not None and not estimate.used:
        raise InputError(f"{path} shows one person already; leave out --{option.replace('_', '-')}.")
    return replace(reading, notices=(*reading.notices, *estimate.notices))


def _about(path: str, reading) -> tuple[str, ...]:
    return (f"{path}: {reading.describe()}", *reading.notices)


def _image_poses(spec: str | None, image, estimate):
    """The photo's own map, from the file that was given, else estimated, else None; and sentences about it."""
    from ..poses import read_image_map

    if spec is not None:
        reading = read_image_map(spec, estimate.callback)
        return reading.poses, reading.notices
    return estimate.of_photo(image)


def _images(args) -> tuple[list, list[str]]:
    """The pixels of every --image, and sentences about them."""
    from ..media import read_photo

    images, about = zip(*(read_photo(path) for path in args.image))
    if args.image_poses and len(args.image_poses) != len(images):
        given = f"There are {len(images)} --image and {len(args.image_poses)} --image-poses"
        raise InputError(f"{given}; give one map for each photo, or none.")
    return list(images), [sentence for said in about for sentence in said]


def _photos(args, images: list, estimate) -> tuple[list, list[str]]:
    """The photos with their own maps, and sentences about these."""
    from ..inputs.photos import Photo, naming

    photos, about = [], []
    for path, image, spec in zip(args.image, images, args.image_poses or [None] * len(images)):
        own, said = _image_poses(spec, image, estimate)
        photos.append(Photo(image, own, path))
        about += naming(said, path) if len(images) > 1 else said
    return photos, about


def _say(*notices) -> None:
    for sentence in dict.fromkeys(sentence for group in notices for sentence in group):
        print(sentence)


def _frames(number: int) -> str:
    return f"{number} frame{'s' * (number != 1)}"


def _new_file(text: str, suffix: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != suffix:
        raise InputError(f"The file to write is {text}; its name must end in {suffix}.")
    if not path.parent.is_dir():
        raise InputError(f"The file to write is {text}, but there is no folder {path.parent}; create it first.")
    return path


def _new_folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise InputError(f"--out is {text}, which is a file; give a folder.")
    return path
