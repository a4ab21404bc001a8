"""Check a machine and an installation, report what is missing and how to fix it, and compare generated frames with
ground truth."""

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
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from .errors import ClusterAway, DreamPoseError, ModelError
from .settings import BODY_TRACKER, MIN_FREE_MB, MINI, MODELS, REPOSITORY, Settings

FEW_FREE_MB = 2000  # disk space
FEW_MEMORY_MB = 4000  # fine-tuning mini takes about 2 GB in addition to everything else
HUB_S = 5.0
CLUSTER_S = 120.0  # time limit of the check of a Ray cluster
CHECKED_FRAMES, EXPECTED_PSNR, TOLERANCE_DB = 4, 18.9, 0.5  # mini's PSNR inside the person of `walking`


class Finding(NamedTuple):
    """The result of one check.

    state: "ok"; "note" when only an optional feature is affected; "problem" when the program does not work. todo: how
    to fix it; empty if nothing needs fixing.
    """

    what: str
    state: str
    words: str
    todo: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok  ", "note": "note", "problem": "BAD "}[self.state]
        return f"{mark} {self.what}: {self.words}" + (f"\n     -> {self.todo}" if self.todo else "")


def examine(settings: Settings) -> Iterator[Finding]:
    """Run all checks and yield their findings one by one; a check that fails does not stop the next ones."""
    # Each check returns a finding's state, words and perhaps todo.
    checks = {
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
        "self-check": _self_check,
    }
    for what, check in checks.items():
        try:
            yield Finding(what, *check(settings))
        except DreamPoseError as error:
            yield Finding(what, "problem", str(error))
        except Exception as error:
            message = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            yield Finding(what, "problem", f"the check failed ({message})", "Install the packages again.")


def _python(settings: Settings) -> tuple[str, ...]:
    return "ok", ".".join(map(str, sys.version_info[:3]))  # the packages do not install on older versions


def _packages(settings: Settings) -> tuple[str, ...]:
    wanted = dict(re.findall(r"^([\w-]+)==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE))
    found = {}
    for name in wanted:
        with suppress(PackageNotFoundError):
            found[name] = version(name).partition("+")[0]
    missing = [name for name in wanted if name not in found]
    others = [f"{name} {has} instead of {wanted[name]}" for name, has in found.items() if has != wanted[name]]
    todo = f"Install them: {sys.executable} -m pip install -r requirements.txt"
    if missing:
        return "problem", f"missing: {', '.join(missing)}", todo
    if others:
        return "note", f"not the tested versions: {', '.join(others)}", todo
    return "ok", f"{len(wanted)} packages in the pinned versions"


def _device(settings: Settings) -> tuple[str, ...]:
    import torch

    from .model.memory import chosen_device, chosen_precision, free_memory_mb

    device = chosen_device(settings.device)
    reason = chosen_precision(device, settings.precision)[1]
    if device == "cuda":
        return "ok", f"{torch.cuda.get_device_name()}, {free_memory_mb()} MB free; {reason}"
    if shutil.which("nvidia-smi") and settings.device == "auto":
        words = f"there seems to be an NVIDIA GPU, but PyTorch {torch.__version__} cannot use it"
        return "note", words, "Install a CUDA build of PyTorch, and check the driver with nvidia-smi."
    return "ok", f"CPU, {os.cpu_count()} cores; {reason}; enough for mini, while full size needs a GPU"


def _memory(settings: Settings) -> tuple[str, ...]:
    import psutil

    words = f"{(free_mb := psutil.virtual_memory().available >> 20)} MB free"
    if free_mb < FEW_MEMORY_MB:
        return "note", words, "Close other programs; otherwise fine-tuning uses smaller batches, which is slower."
    return "ok", words


def _ffmpeg(settings: Settings) -> tuple[str, ...]:
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    if missing:
        todo = "Install it (Debian, Ubuntu: sudo apt-get install ffmpeg; macOS: brew install ffmpeg)."
        return "problem", f"{' and '.join(missing)} not on PATH; they are needed to stream videos", todo
    output = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return "ok", output.split(" Copyright")[0]


def _disk(settings: Settings) -> tuple[str, ...]:
    home = settings.home
    existing = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free_mb = shutil.disk_usage(existing).free >> 20
    todo = "Choose another folder with DREAMPOSE_HOME or --home, or free disk space."
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        what = (
            f"the data folder {home}" if existing == home else f"{existing}, where the data folder {home} is to be made"
        )
        return "problem", f"cannot write to {what} ({error.strerror})", todo
    if free_mb < FEW_FREE_MB:
        state = "problem" if free_mb < MIN_FREE_MB else "note"
        return state, f"{free_mb} MB free for the data folder {home}", todo
    return "ok", f"{free_mb / 1000:.0f} GB free for the data folder {home}"


def _shipped(settings: Settings) -> tuple[str, ...]:
    folders = {**MODELS, "body tracker": BODY_TRACKER}
    missing = [name for name, folder in folders.items() if not list(folder.rglob("*.safetensors"))]
    if missing:
        return "problem", f"missing: {', '.join(missing)}", f"Fetch {REPOSITORY / 'assets'} from the repository again."
    return "ok", ", ".join(folders)


def _model(settings: Settings) -> tuple[str, ...]:
    """Check the configured model."""
    model = settings.model
    if Path(model).is_dir():
        if not (Path(model) / "model_index.json").is_file():
            return "problem", f"{model} has no model_index.json", "Give a folder written by train or import-released."
        return "ok", "mini" if Path(model).absolute() == MINI else model
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return "problem", f"{model} is no folder and no hub id", "Give a folder, or a hub id OWNER/NAME."
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "model_index.json"), str):
        return "ok", f"{model}, already downloaded"
    return "note", f"{model} will be downloaded from the hub at the first start"


def _safety_checker(settings: Settings) -> tuple[str, ...]:
    source = settings.safety_checker
    if source is None:
        return "ok", "not configured"
    from .model.safety import SafetyChecker

    try:
        SafetyChecker.from_stable_diffusion(source)
    except ModelError as error:
        return "problem", str(error), "Change or unset DREAMPOSE_SAFETY_CHECKER."
    return "ok", source


def _ray(settings: Settings) -> tuple[str, ...]:
    return "ok", check_cluster(settings) if settings.engine == "ray" else "no cluster configured"


def check_cluster(settings: Settings, deadline_s: float = CLUSTER_S) -> str:
    """Check the Ray cluster and return one line about it. A child process does the check, so that this one does not
    import ray and never hangs.

    Raises ClusterAway with one sentence when the cluster cannot be used with these settings.
    """
    if importlib.util.find_spec("ray") is None:
        todo = f"install it with {sys.executable} -m pip install -r requirements-ray.txt"
        raise ClusterAway(f"Ray is not installed; {todo}.")
    program = "import sys; from dreampose_core.cluster import main; sys.exit(main(sys.stdin.read()))"
    values = settings.model_dump_json(exclude={"secret"})
    cluster = f"The Ray cluster at {settings.ray_address}"
    try:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, input=values, capture_output=True, text=True, timeout=deadline_s, cwd=REPOSITORY)
    except subprocess.TimeoutExpired as error:
        late = f"did not answer within {deadline_s:.0f} s"
        raise ClusterAway(f"{cluster} {late}; run ray status on its head.") from error
    message = (done.stdout.strip() or done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
    if done.returncode not in (0, 3):
        raise ClusterAway(f"{cluster} could not be checked ({message[:200]}); run ray status on its head.")
    if done.returncode == 3:
        raise ClusterAway(message)
    return message


def _hub(settings: Settings) -> tuple[str, ...]:
    from huggingface_hub import constants

    todo = "The shipped models work without the hub; other models must be local folders."
    if constants.HF_HUB_OFFLINE:
        return "note", "not checked, because HF_HUB_OFFLINE is set", todo
    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_S):
            pass
    except urllib.error.HTTPError:
        pass  # the hub answers
    except OSError:
        return "note", f"{constants.ENDPOINT} cannot be reached", todo
    return "ok", f"{constants.ENDPOINT} answers"


def _self_check(settings: Settings) -> tuple[str, ...]:
    """Compare a few frames of mini with the exact truth."""
    import numpy as np

    from .evaluation.clips import walking
    from .evaluation.metrics import psnr
    from .model.loading import load_pipeline

    started = time.monotonic()
    pipe = load_pipeline("mini", settings.device, settings.precision, settings.low_memory)
    clip = walking(pipe.model_config.size, CHECKED_FRAMES)
    measured = psnr(clip.made_by(pipe, 0), clip.truth, clip.poses.mask)
    repeated = psnr(np.broadcast_to(clip.photo, clip.truth.shape), clip.truth, clip.poses.mask)
    words = (
        f"{CHECKED_FRAMES} frames of a person unknown to mini in {time.monotonic() - started:.0f} s: {measured:.2f} dB "
        f"inside the person, {EXPECTED_PSNR} expected, {repeated:.1f} for the photo repeated"
    )
    if abs(measured - EXPECTED_PSNR) > TOLERANCE_DB:
        return "problem", words, "Run scripts/test; the device or a package computes different values than expected."
    return "ok", words
