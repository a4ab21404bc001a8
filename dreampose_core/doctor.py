"""Looks at a machine and an installation: what is there, what is missing and what to do about it; a generation compared
with its truth."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from .errors import ClusterAway, DreamPoseError, ModelError
from .settings import BODY_TRACKER, MIN_FREE_MB, MINI, MODELS, REPOSITORY, Settings

OLDEST_PYTHON = (3, 11)
FEW_FREE_MB = 2000  # of the disk
FEW_MEMORY_MB = 4000  # tuning mini takes about 2 GB beside everything else
HUB_S = 5.0
CLUSTER_S = 120.0  # the most that a look at a Ray cluster takes
CHECKED_FRAMES, EXPECTED_PSNR, TOLERANCE_DB = 8, 20.9, 0.5  # mini on the first held-out clip, inside the person

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found out. state: a "note" leaves something out that not everybody needs, with a "problem" the program
    does not work.
    todo: what to do about it, empty where nothing is to be done."""

    what: str
    state: State
    words: str
    todo: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok  ", "note": "note", "problem": "BAD "}[self.state]
        return f"{mark} {self.what}: {self.words}" + (f"\n     -> {self.todo}" if self.todo else "")


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything there is to find out, one after the other; no check spoils those that follow."""
    checks: dict[str, Callable[[Settings], Finding]] = {
        "Python": _python,
        "packages": _packages,
        "device": _device,
        "memory": _memory,
        "ffmpeg": _ffmpeg,
        "disk": _disk,
        "shipped models": _shipped,
        "model": _model,
        "safety checker": _safety_checker,
        "Ray": _ray,
        "Hugging Face hub": _hub,
        "Chromium": _chromium,
        "self-check": _self_check,
    }
    for what, check in checks.items():
        try:
            yield check(settings)
        except DreamPoseError as error:
            yield Finding(what, "problem", str(error))
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            yield Finding(what, "problem", f"could not be looked at ({said})", "Install the packages anew.")


def _python(settings: Settings) -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Finding(
            "Python",
            "problem",
            found,
            f"Install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer and make .venv anew.",
        )
    return Finding("Python", "ok", found)


def _packages(settings: Settings) -> Finding:
    wanted = dict(re.findall(r"^([\w-]+)==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE))
    missing, others = [], []
    for name, pinned in wanted.items():
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            missing.append(name)
            continue
        if found != pinned:
            others.append(f"{name} {found} instead of {pinned}")
    todo = f"Install them: {sys.executable} -m pip install -r requirements.txt"
    if missing:
        return Finding("packages", "problem", f"missing: {', '.join(missing)}", todo)
    if others:
        return Finding("packages", "note", f"not those that were tried together: {', '.join(others)}", todo)
    return Finding("packages", "ok", f"{len(wanted)}, as pinned")


def _device(settings: Settings) -> Finding:
    import torch

    from .model.memory import chosen_device, chosen_precision, free_memory_mb

    device = chosen_device(settings.device)
    reason = chosen_precision(device, settings.precision)[1]
    if device == "cuda":
        return Finding("device", "ok", f"{torch.cuda.get_device_name()}, {free_memory_mb()} MB free; {reason}")
    if shutil.which("nvidia-smi") and settings.device == "auto":
        todo = "Install a CUDA build of it, and look at what nvidia-smi says of the driver."
        return Finding(
            "device", "note", f"an NVIDIA GPU seems to be there, but PyTorch {torch.__version__} cannot use it", todo
        )
    return Finding("device", "ok", f"CPU, {os.cpu_count()} cores; {reason}; mini is made for it, full size needs a GPU")


def _memory(settings: Settings) -> Finding:
    import psutil

    free_mb = psutil.virtual_memory().available >> 20
    if free_mb < FEW_MEMORY_MB:
        return Finding(
            "memory",
            "note",
            f"{free_mb} MB free",
            "Close other programs, or tuning takes smaller steps, which is slower.",
        )
    return Finding("memory", "ok", f"{free_mb} MB free")


def _ffmpeg(settings: Settings) -> Finding:
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    if missing:
        todo = "Install it (Debian, Ubuntu: sudo apt-get install ffmpeg; macOS: brew install ffmpeg)."
        return Finding("ffmpeg", "problem", f"{' and '.join(missing)} not on PATH; videos could not be streamed", todo)
    said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return Finding("ffmpeg", "ok", said.split(" Copyright")[0])


def _disk(settings: Settings) -> Finding:
    home = settings.home
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free_mb = shutil.disk_usage(there).free >> 20
    another = "Choose another folder with DREAMPOSE_HOME or --home, or make room."
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        return Finding("disk", "problem", f"nothing can be written in {there} ({error.strerror})", another)
    if free_mb < FEW_FREE_MB:
        state: State = "problem" if free_mb < MIN_FREE_MB else "note"
        return Finding("disk", state, f"{free_mb} MB free for the data folder {home}", another)
    return Finding("disk", "ok", f"{free_mb / 1000:.0f} GB free for the data folder {home}")


def _shipped(settings: Settings) -> Finding:
    folders = {**MODELS, "body tracker": BODY_TRACKER}
    missing = [name for name, folder in folders.items() if not list(folder.rglob("*.safetensors"))]
    if missing:
        todo = f"Fetch {REPOSITORY / 'assets'} anew from the repository."
        return Finding("shipped models", "problem", f"missing: {', '.join(missing)}", todo)
    return Finding("shipped models", "ok", ", ".join(folders))


def _model(settings: Settings) -> Finding:
    """The model that the program is set to run, if it is not a shipped one."""
    model = settings.model
    if Path(model).is_dir():
        if not (Path(model) / "model_index.json").is_file():
            return Finding(
                "model",
                "problem",
                f"{model} has no model_index.json",
                "Give a folder that train or import-released wrote.",
            )
        return Finding("model", "ok", "mini" if Path(model).absolute() == MINI else model)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return Finding(
            "model", "problem", f"{model} is no folder and no model id", "Give a folder, or OWNER/NAME of the hub."
        )
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "model_index.json"), str):
        return Finding("model", "ok", f"{model}, fetched before")
    return Finding("model", "note", f"{model} will be fetched from the hub at the first start")


def _safety_checker(settings: Settings) -> Finding:
    source = settings.safety_checker
    if source is None:
        return Finding("safety checker", "ok", "none is asked for")
    from .model.safety import SafetyChecker

    try:
        SafetyChecker.from_stable_diffusion(source)
    except ModelError as error:
        return Finding("safety checker", "problem", str(error), "Give another in DREAMPOSE_SAFETY_CHECKER, or none.")
    return Finding("safety checker", "ok", source)


def _ray(settings: Settings) -> Finding:
    if settings.engine != "ray":
        return Finding("Ray", "ok", "no cluster is asked for")
    return Finding("Ray", "ok", check_cluster(settings))


def check_cluster(settings: Settings, deadline_s: float = CLUSTER_S) -> str:
    """What a look at the Ray cluster finds, a line; a child process looks, so that this one loads no ray and never
    hangs.

    Raises ClusterAway with one sentence where the cluster cannot be used with these settings.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterAway(
            f"Ray is not installed; install it with {sys.executable} -m pip install -r requirements-ray.txt."
        )
    program = "import sys; from dreampose_core.cluster import main; sys.exit(main(sys.stdin.read()))"
    given = settings.with_folders().model_dump_json(exclude={"secret"})
    wrong = f"The Ray cluster at {settings.ray_address}"
    try:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=deadline_s, cwd=REPOSITORY)
    except subprocess.TimeoutExpired as error:
        raise ClusterAway(
            f"{wrong} did not answer within {deadline_s:.0f} s; look at ray status on its head."
        ) from error
    said = (done.stdout.strip() or done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
    if done.returncode not in (0, 3):
        raise ClusterAway(f"{wrong} could not be looked at ({said[:200]}); look at ray status on its head.")
    if done.returncode == 3:
        raise ClusterAway(said)
    return said


def _hub(settings: Settings) -> Finding:
    from huggingface_hub import constants

    only = "The shipped models work without it; others must lie in folders."
    if constants.HF_HUB_OFFLINE:
        return Finding("Hugging Face hub", "note", "left alone, because HF_HUB_OFFLINE is set", only)
    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_S):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError:
        return Finding("Hugging Face hub", "note", f"{constants.ENDPOINT} cannot be reached", only)
    return Finding("Hugging Face hub", "ok", f"{constants.ENDPOINT} answers")


def _chromium(settings: Settings) -> Finding:
    found = os.environ.get("DREAMPOSE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        return Finding(
            "Chromium", "note", "none; only the tests of the page need it", "Debian: sudo apt-get install chromium"
        )
    return Finding("Chromium", "ok", found)


def _self_check(settings: Settings) -> Finding:
    """A few frames of mini against the exact truth."""
    import numpy as np
    import torch

    from .evaluation.clips import MannequinClips
    from .evaluation.metrics import psnr
    from .model.loading import load_pipeline

    began = time.monotonic()
    pipe = load_pipeline("mini", settings.device, settings.precision, settings.low_memory)
    clip = next(iter(MannequinClips(1, pipe.model_config.size))).first(CHECKED_FRAMES)
    made = pipe(clip.photo, clip.poses, clip.image_poses, generator=torch.Generator().manual_seed(0)).frames
    found = psnr(made, clip.truth, clip.poses.mask)
    copied = psnr(np.broadcast_to(clip.photo, clip.truth.shape), clip.truth, clip.poses.mask)
    words = (
        f"{CHECKED_FRAMES} frames of a person whom mini never saw in {time.monotonic() - began:.0f} s: {found:.2f} dB "
        f"inside the person, {EXPECTED_PSNR} expected, {copied:.1f} for the photo repeated"
    )
    if abs(found - EXPECTED_PSNR) > TOLERANCE_DB:
        return Finding(
            "self-check",
            "problem",
            words,
            "Run scripts/test; the device or a package computes otherwise than ours did.",
        )
    return Finding("self-check", "ok", words)
