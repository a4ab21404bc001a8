"""The commands for subjects and motions; each makes the same core calls as the page's workers and prints a
line or two. A function's docstring is the command's help. `watch` holds on_progress and should_stop."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files import appearing, storage_error
from ..settings import (
    MODELS,
    AnimateOptions,
    EditOptions,
    FinetuneOptions,
    FrameOptions,
    Options,
    SceneOptions,
    frame_range,
    validated,
)

_LONGEST_NAME = 200  # bytes; a file system takes 255, some of them for the name while it is written


def animate(args, **watch) -> None:
    """animate the person in a photo with a motion and write a video"""
    options = _options(AnimateOptions, args)
    out = _new_file(args.out, ".mp4")
    estimate = _estimate(args, **watch)
    photos, about_photos = _photos(args.image, args.image_poses)
    motion, about_motion = _motion(args.poses, args, estimate)
    motion.clip(options.first_frame, options.last_frame)  # raises for a wrong range before the model is loaded
    from ..animate.engine import LocalEngine
    from ..animate.run import animate
    from ..inputs.framing import keep_sound
    from ..subject.folder import fingerprint, read_subject

    pipe = _pipeline(args)
    if args.subject is not None:
        read_subject(args.subject, fingerprint(pipe))
    (photo, *more), about_maps = _with_maps(photos, args.image_poses, estimate)
    poses = motion
    if options.align == "body" and pipe.model_config.charts == "body":
        poses = estimate.with_joints(motion)
        photo = replace(photo, image_poses=estimate.with_joints(photo.image_poses))
    _say(about_photos, about_motion, about_maps, estimate.notices)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.stem}.", dir=out.parent))
    try:
        sound = folder / "sound.m4a"
        if options.keep_sound:
            _say(keep_sound(Path(args.poses), len(motion), motion.fps, options, sound))
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
            **watch,
        )
        for suffix in (".mp4", ".json"):
            with appearing(out.with_suffix(suffix)) as temporary:
                shutil.copyfile(folder / f"result{suffix}", temporary)
    except OSError as error:
        raise storage_error(error, out) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(result["notices"])
    print(f"{out}: {_frames(result['num_frames'], result['fps'], (result['height'], result['width']))}")


def finetune(args, *, on_progress, should_stop) -> None:
    """fine-tune the model to a person and write the subject folder"""
    from ..inputs.framing import crowds, fit_photos, maps_together
    from ..subject.folder import check_subject_folder

    options = _options(FinetuneOptions, args)
    frame = _options(FrameOptions, args)
    out = Path(os.path.abspath(_new_folder(args.out)))
    check_subject_folder(out)
    checkpoints = out.with_name(f".{out.name}.checkpoints")
    if args.resume and not checkpoints.is_dir():
        raise InputError(f"There is no interrupted tuning of {out.name} to continue; leave out --resume.")
    if checkpoints.is_dir() and not args.resume:
        todo = f"give --resume to continue, or delete {checkpoints} to start over"
        raise InputError(f"A tuning of {out.name} was interrupted; {todo}.")
    photos, about_photos = _photos(args.image, args.image_poses)
    estimate = _estimate(args, on_progress, should_stop)
    photos, about_maps = _with_maps(photos, args.image_poses, estimate)
    _say(about_photos, about_maps, estimate.notices, crowds(photos))
    from ..subject.finetuning import finetune

    pipe = _pipeline(args)
    size = pipe.model_config.shaped_like(photos[0].image.shape[:2])
    photos = fit_photos(photos, size, frame, pipe.model_config.bilinear)
    image_poses, notices = maps_together(photos)
    _say(notices)
    steps = []
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
    tuned = f"tuned to {len(photos)} photo{'s' * (len(photos) > 1)}"
    result = tuned if steps else "already tuned with these inputs, unchanged"
    print(f"{out}: subject {subject.key}, {result}; use it with --subject {out}")


def poses_info(args, **watch) -> None:
    """print a motion's format and properties"""
    estimate = _estimate(args, **watch)
    poses, about = _motion(args.file, args, estimate)
    mask = poses.mask
    _say(about)
    print(f"person on {mask.mean():.1%} of the pixels; no person in {int((~mask.any(axis=(1, 2))).sum())} frames")


def poses_convert(args, **watch) -> None:
    """convert a motion to another format, with changes if you like"""
    from ..poses import MIRRORED, check_target, edited, write_any

    options = _options(EditOptions, args)
    check_target(args.out)
    estimate = _estimate(args, **watch)
    motion, about = _motion(args.file, args, estimate)
    poses = edited(motion, options)
    left_out = write_any(poses, args.out)
    mirrored = (MIRRORED,) if poses.uv is None and motion.uv is not None else ()
    _say(about, mirrored, left_out)
    print(f"{args.out}: {_frames(len(poses), poses.fps, poses.size)}")


def poses_preview(args, **watch) -> None:
    """preview a motion, alone or applied to a photo, in seconds and without a model"""
    options = _options(SceneOptions, args)
    out = _new_file(args.out, ".mp4")
    estimate = _estimate(args, **watch)
    poses, about = _motion(args.file, args, estimate)
    scene = None
    from ..inputs.framing import frame_size, known_charts, make_scene
    from ..inputs.photo_checks import photo_checks
    from ..inputs.preview import preview_size, write_preview
    from ..poses import source_frames

    if args.image is not None:
        photos, about_photo = _photos([args.image], None)
        (photo,), about_map = _with_maps(photos, [args.image_poses], estimate)
        image, image_poses, model = photo.image, photo.image_poses, MODELS.get(args.model) or args.model
        if options.align == "body":
            poses, image_poses = estimate.with_joints(poses), estimate.with_joints(image_poses)
        source = image.shape[:2]
        scene = make_scene(image, poses, image_poses, preview_size(model, source), options, known_charts(model))
        checks = photo_checks(image_poses, scene.box, source, frame_size(model, source))
        about += (*about_photo, *about_map, *checks, *scene.notices)
    notices = write_preview(poses, out, options, scene, **watch)
    _say(about, estimate.notices, notices)
    print(f"{out}: {_frames(len(source_frames(len(poses), poses.fps, options)))}")


# -- shared by several commands ----------------------------------------------------------------------------------------


def _options(kind: type[Options], args) -> Options:
    """Make the option set `kind` from the arguments of the same names, and from --frames if it has a frame range.
    Raises InputError."""
    values = {name: getattr(args, name) for name in kind.model_fields if hasattr(args, name)}
    if "first_frame" in kind.model_fields:
        values["first_frame"], values["last_frame"] = frame_range(args.range, "--frames")
    return validated(kind, values)


def _pipeline(args):
    from ..model.loading import load_pipeline

    checker = getattr(args, "safety_checker", None)
    return load_pipeline(args.model, args.device, args.precision, args.low_memory, checker)


def _estimate(args, on_progress, should_stop):
    """Make the object that estimates DensePose from pictures; it loads the estimator at its first use."""
    from ..densepose import Estimates

    choice = (args.estimator, args.device, args.estimator_file, args.estimator_colours)
    people = (args.person, getattr(args, "motion_person", args.person))
    return Estimates(*choice, *people, on_progress=on_progress, should_stop=should_stop)


def _motion(path: str, args, estimate) -> tuple:
    """Read a motion in any accepted format; returns the pose sequence, and sentences about it."""
    from ..poses import read_any

    if path.lower().endswith(".pkl") and args.run is poses_convert:
        from ..densepose.dump import read_dump

        reading = read_dump(path, args.person, args.size)
    else:
        reading = read_any(path, estimate.callback)
        option = "motion_person" if hasattr(args, "motion_person") else "person"
        if getattr(args, option) is not None and not estimate.used:
            raise InputError(f"{path} shows one person only; leave out --{option.replace('_', '-')}.")
    return reading.poses, (f"{path}: {reading.describe()}", *reading.notices, *estimate.notices)


def _photos(paths: list[str], maps: list[str] | None) -> tuple[list, list[str]]:
    """Read the photos, still without pose maps; returns them and sentences about them."""
    from ..inputs.framing import Photo
    from ..media import read_photo

    photos, about = [], []
    for path in paths:
        image, notices, _ = read_photo(path)
        photos.append(Photo(image, None, path))
        about += notices
    if maps and len(maps) != len(photos):
        counts = f"There are {len(photos)} --image and {len(maps)} --image-poses"
        raise InputError(f"{counts}; give one map for each photo, or none.")
    return photos, about


def _with_maps(photos: list, maps: list[str | None] | None, estimate) -> tuple[list, list[str]]:
    """Add pose maps to the photos, from the files `maps` or else estimated; returns the photos and sentences about the
    maps."""
    from ..inputs.framing import naming
    from ..poses import read_image_map

    complete, about = [], []
    for photo, spec in zip(photos, maps or [None] * len(photos)):
        if spec is None:
            image_poses, notices = estimate.of_photo(photo.image)
        else:
            reading = read_image_map(spec, estimate.callback)
            image_poses, notices = reading.poses, reading.notices
        complete.append(replace(photo, image_poses=image_poses))
        about += naming(notices, photo.name) if len(photos) > 1 else notices
    return complete, about


def _say(*notices) -> None:
    for sentence in dict.fromkeys(sentence for group in notices for sentence in group):
        print(sentence)


def _frames(number: int, fps: float | None = None, size: tuple[int, int] | None = None) -> str:
    frames = f"{number} frame{'s' * (number != 1)}"
    return frames if size is None else f"{frames} at {fps:g} fps, {size[0]} x {size[1]} (height x width)"


def _new_file(text: str, suffix: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != suffix:
        raise InputError(f"The output file is {text}; its name must end in {suffix}.")
    if not path.parent.is_dir():
        raise InputError(f"The output file is {text}, but there is no folder {path.parent}; create it first.")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise InputError(f"The output file's name is longer than {_LONGEST_NAME} bytes; choose a shorter one.")
    return path


def _new_folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise InputError(f"--out is {text}, which is a file; give a folder.")
    return path
