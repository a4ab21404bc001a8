"""Measure everything on a GPU in stages, each of which writes its JSON at once: speed, memory, agreement with the CPU.

It needs torch, diffusers, transformers, scipy and pydantic alone; full-size models have random weights.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import torch

from ..animate.engine import LocalEngine
from ..animate.run import animate
from ..densepose.body_tracker import BodyTracker
from ..errors import Cancelled, InputError
from ..files import appearing
from ..model import stable_diffusion
from ..model.config import ModelConfig
from ..model.full_size import full_size
from ..model.loading import load_pipeline
from ..model.memory import chosen_precision, let_go, peaks, placed
from ..model.mini import build_mini
from ..model.pipeline import DreamPosePipeline
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import BODY_TRACKER, AnimateOptions, Quality
from .clips import Clip, walking
from .metrics import psnr

Figures = dict[str, float | str | None]


@dataclass
class Bench:
    """What the stages share. tiny: networks, frames and steps so small that a CPU does all stages in a minute."""

    device: str
    folder: Path
    tiny: bool
    should_stop: ShouldStop

    @property
    def size(self) -> tuple[int, int]:
        return (64, 64) if self.tiny else stable_diffusion.SIZE

    @property
    def few(self) -> dict[str, int]:
        """Sampling options that tiny runs use instead of a quality's."""
        return {"num_inference_steps": 2} if self.tiny else {}

    @cached_property
    def clip(self) -> Clip:
        return walking(self.size, 2 if self.tiny else 8)

    @cached_property
    def full(self) -> DreamPosePipeline:
        """A model in Stable Diffusion 1.4's shapes, on the device in its precision."""
        return placed(self.another(self.device), self.device, False)

    def another(self, device: str) -> DreamPosePipeline:
        """Another one, as it is built, on `device`."""
        return full_size(self.size, self.tiny, device).to(chosen_precision(self.device)[0])

    def mini(self, device: str) -> DreamPosePipeline:
        """mini, or a tiny model of its kind with random weights."""
        if not self.tiny:
            return load_pipeline("mini", device)
        config = ModelConfig(height=128, width=128, free_shape=True, charts="body", reference_warp="encoded")
        return build_mini(config, unet_channels=(16, 24), vae_channels=(8, 8, 16, 16), width=32).to(device)

    def made(self, pipe, **sampling) -> np.ndarray:
        """Make the clip's frames."""
        return self.clip.made_by(pipe, 0, should_stop=self.should_stop, **sampling)

    def tune(self, pipe, recipe: str, steps: int | None = None) -> None:
        """Fine-tune a model, then restore it. steps: None for the recipe's."""
        from ..subject.finetuning import tuned_to  # needs accelerate, which other stages do without

        steps = 2 if self.tiny else steps
        with tuned_to(pipe, self.clip.photo, self.clip.image_poses, recipe, self.should_stop, steps):
            pass

    @contextmanager
    def timed(self, figures: Figures, name: str, count: int = 1):
        """Write seconds for each of `count`, and the GPU's or else the process's peak memory, to `figures`."""
        let_go()
        with peaks() as peak:
            started = time.monotonic()
            yield
            if self.device == "cuda":
                torch.cuda.synchronize()
            figures[f"{name}_s"] = (time.monotonic() - started) / count
        figures[f"{name}_memory_mb"] = peak.get("gpu_mb", peak["host_mb"])


def bench_gpu(
    folder: Path,
    *,
    device: str = "cuda",
    minutes: float = 8.0,
    stages: Sequence[str] = (),
    tiny: bool = False,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, Figures]:
    """Measure the named stages of STAGES, all without any, and return their figures by stage.

    Writes NAME.json into `folder` after each stage. Stages that would begin after
    `minutes` are left out. A stage that fails has the figure "failed", a sentence. Raises InputError, Cancelled.
    """
    if unknown := sorted(set(stages) - set(STAGES)):
        raise InputError(f"There is no stage {unknown[0]}; stages are {', '.join(STAGES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("No CUDA device was found; check the driver, or give --device cpu --tiny to try the command.")
    folder.mkdir(parents=True, exist_ok=True)
    bench, report, until = Bench(device, folder, tiny, should_stop), {}, time.monotonic() + 60 * minutes
    chosen = [name for name in STAGES if name in stages or not stages]
    clock = StageClock("stages", len(chosen), on_progress)
    for number, name in enumerate(chosen):
        check_stop(should_stop)
        if time.monotonic() > until:
            break
        started, figures = time.monotonic(), {}
        try:
            STAGES[name](bench, figures)
        except (RuntimeError, MemoryError, ImportError, ValueError) as error:
            figures["failed"] = " ".join(str(error).split())[:300] or type(error).__name__
        figures["stage_s"] = time.monotonic() - started
        report[name] = {key: round(x, 4) if isinstance(x, float) else x for key, x in figures.items()}
        with appearing(folder / f"{name}.json") as path:
            path.write_text(json.dumps(report[name], indent=1) + "\n")
        clock.tick(number + 1)
    return report


def _machine(bench: Bench, figures: Figures) -> None:
    figures |= {name: version(name) for name in ("torch", "diffusers", "transformers")}
    figures |= {"python": platform.python_version(), "cores": os.cpu_count() or 0}
    if bench.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        figures |= {"card": card.name, "memory_gb": card.total_memory / 2**30, "cuda": torch.version.cuda}
        figures["capability"] = f"{card.major}.{card.minor}"
    figures["precision"] = chosen_precision(bench.device)[1]


def _correct(bench: Bench, figures: Figures) -> None:
    """The model's precision against float32 on one frame of full size, and mini's frames against the CPU's; in dB."""
    one = bench.clip.cut(slice(1))
    exact = full_size(bench.size, bench.tiny, bench.device)
    figures["full_against_fp32_db"] = _agreement(one, bench.full, exact, **{"num_inference_steps": 10} | bench.few)
    del exact
    let_go()
    figures["mini_against_cpu_db"] = _agreement(one, bench.mini(bench.device), bench.mini("cpu"))


def _agreement(clip: Clip, pipe, other, **options) -> float:
    """PSNR of two models' frames before they are rounded, in dB, at most 100."""
    return psnr(*(255 * clip.made_by(model, 0, output_type="np", **options) for model in (pipe, other)))


def _frames(bench: Bench, figures: Figures) -> None:
    """Full size: each quality, and the original's way."""
    bench.made(bench.full, num_inference_steps=2)  # the first frames choose the GPU's kernels
    for quality in get_args(Quality):
        with bench.timed(figures, f"frame_{quality}", len(bench.clip)):
            bench.made(bench.full, **vars(bench.full.model_config.sampling(quality)) | bench.few)
    few = bench.clip.cut(slice(1 if bench.tiny else 4))
    with bench.timed(figures, "frame_original", len(few)):
        in_the_originals_way(bench.full, few, should_stop=bench.should_stop, **bench.few)
    figures["original_over_standard"] = figures["frame_original_s"] / figures["frame_standard_s"]


def in_the_originals_way(pipe, clip: Clip, **options) -> np.ndarray:
    """Make the clip's frames as the original implementation did: one at a time, the photo encoded again for each, three
    UNet passes per step, 100 steps of PNDM."""
    how = {"solver": "pndm", "reuse_steps": 1, "guidance_interval": (0.0, 1.0), "num_inference_steps": 100} | options
    return np.concatenate([clip.made_by(pipe, 0, batches=[range(i, i + 1)], **how) for i in range(len(clip))])


def _ways(bench: Bench, figures: Figures) -> None:
    """Full size, standard quality: with a contiguous layout, a compiled UNet, and offloading."""
    pipe = bench.another(bench.device)
    bench.made(pipe, num_inference_steps=2)
    with bench.timed(figures, "frame_contiguous", len(bench.clip)):
        bench.made(pipe, **bench.few)
    if not bench.tiny:
        placed(pipe, bench.device, False).unet.compile()
        with bench.timed(figures, "compiling"):
            bench.made(pipe, num_inference_steps=2)
        with bench.timed(figures, "frame_compiled", len(bench.clip)):
            bench.made(pipe, **bench.few)
    del pipe
    pipe = placed(bench.another("cpu"), bench.device, low_memory=True)
    with bench.timed(figures, "frame_low_memory", len(bench.clip)):
        bench.made(pipe, **bench.few)


def _tune(bench: Bench, figures: Figures) -> None:
    """Full size: fine-tuning by both recipes."""
    for recipe in ("fast", "paper"):
        with bench.timed(figures, recipe):
            bench.tune(bench.full, recipe)


def _mini(bench: Bench, figures: Figures) -> None:
    """mini: frames a second, and fast fine-tuning."""
    pipe = bench.mini(bench.device)
    clip = walking(pipe.model_config.size, 4 if bench.tiny else 128)
    clip.cut(slice(4)).made_by(pipe, 0)
    for batch in (2,) if bench.tiny else (8, 32):
        with bench.timed(figures, f"frame_batch_{batch}", len(clip)):
            clip.made_by(pipe, 0, batch_size=batch)
        figures[f"frames_per_second_batch_{batch}"] = 1 / figures[f"frame_batch_{batch}_s"]
    with bench.timed(figures, "tuning"):
        bench.tune(pipe, "paper" if bench.tiny else "fast")


def _body(bench: Bench, figures: Figures) -> None:
    """The body tracker: frames a second of 640 x 512, with and without drawing their maps."""
    tracker = BodyTracker(BODY_TRACKER, bench.device)
    many = list((walking((320, 256), 2) if bench.tiny else walking(stable_diffusion.SIZE, 32)).truth)
    tracker.estimate(many[:1])
    with bench.timed(figures, "frame", len(many)):
        tracker.estimate(many)
    with bench.timed(figures, "network", len(many)):
        for frame in many:
            tracker.network.people(frame)
    figures["frames_per_second"] = 1 / figures["frame_s"]


def _training(bench: Bench, figures: Figures) -> None:
    """Steps of training on noise: full size on frames, and mini end to end on crops."""
    from ..training.base import train_base, train_end_to_end
    from ..training.drawn import SIDE, Crops
    from ..training.loop import LoopOptions

    def train(stage: Callable, pipe, name: str, batch: int, height: int, width: int) -> None:
        """Train a model in float32 on the same batch for one step, then for some that are timed."""
        with torch.device(bench.device):
            pixels = torch.rand(batch, 8, height, width) * 2 - 1
            parts, uv = torch.randint(0, 25, (batch, 5, height, width)), torch.rand(batch, 5, 2, height, width)
        crops, count = Crops(pixels[:, :3], pixels[:, :3], pixels[:, 3:], parts, uv), 1 if bench.tiny else 8
        samples, precision = SimpleNamespace(batch=lambda step: crops), torch.float32 if bench.tiny else torch.bfloat16
        stage(pipe, samples, LoopOptions(1, 1e-5, ema=None), precision=precision)
        with bench.timed(figures, name, count * batch):
            stage(pipe, samples, LoopOptions(count, 1e-5, ema=None), precision=precision)

    full, few = full_size(bench.size, bench.tiny, bench.device), 2 if bench.tiny else 4
    train(train_base, full, "full_sample", few, *bench.size)
    del full
    let_go()
    mini, size = bench.mini(bench.device).to(dtype=torch.float32), (2, 64, 64) if bench.tiny else (32, SIDE, SIDE)
    train(train_end_to_end, mini, "mini_crop", *size)


def _first(bench: Bench, figures: Figures) -> None:
    """Full size: seconds to the first frame, and to the first second of video."""
    if shutil.which("ffmpeg") is None:
        figures["video"] = "left out: ffmpeg is missing"
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, started = Path(temporary), time.monotonic()

        def look() -> bool:
            """Note when the files appear; whether to stop. `animate` calls it at every step and after every frame."""
            now = time.monotonic() - started
            if (folder / "frames" / "000000.png").is_file():
                figures.setdefault("frame_s", now)
            if (folder / "chunks" / "000000.mp4").is_file():
                figures.setdefault("player_s", now)
            return "player_s" in figures or bench.should_stop()

        options = AnimateOptions(recipe="none", align="none", fit="pad")
        inputs = {"image": bench.clip.photo, "poses": bench.clip.poses, "image_poses": bench.clip.image_poses}
        with suppress(Cancelled):
            animate(LocalEngine(bench.full), **inputs, options=options, folder=folder, should_stop=look)
        look()
        check_stop(bench.should_stop)


def _profiles(bench: Bench, figures: Figures) -> None:
    """What takes the time in the two stages that were slowest by the folder's JSON, as tables in text files."""
    from torch.profiler import ProfilerActivity, profile

    measured = {name: bench.folder / f"{name}.json" for name in _PIECES}
    seconds = {name: json.loads(path.read_text())["stage_s"] for name, path in measured.items() if path.exists()}
    slowest = sorted(seconds, key=seconds.get, reverse=True)[:2]
    if not slowest:
        raise ValueError(f"Nothing is profiled before one of the stages {', '.join(_PIECES)} was measured.")
    cuda = bench.device == "cuda"
    for name in slowest:
        with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as seen:
            _PIECES[name](bench)
        table = seen.key_averages().table(sort_by=f"self_{'cuda' if cuda else 'cpu'}_time_total", row_limit=30)
        (bench.folder / f"profile-{name}.txt").write_text(table)
    figures["slowest"] = ", ".join(slowest)


_IN_ORDER = (_machine, _correct, _frames, _tune, _mini, _body, _first, _ways, _training, _profiles)
STAGES: dict[str, Callable[[Bench, Figures], None]] = {stage.__name__[1:]: stage for stage in _IN_ORDER}
# A little of what the slow stages do, for the profiler.
_PIECES: dict[str, Callable[[Bench], object]] = {
    "frames": lambda bench: bench.made(bench.full, num_inference_steps=2),
    "tune": lambda bench: bench.tune(bench.full, "fast", 2),
    "mini": lambda bench: walking((128, 128) if bench.tiny else (640, 512), 8).made_by(bench.mini(bench.device), 0),
    "body": lambda bench: BodyTracker(BODY_TRACKER, bench.device).network.people(bench.clip.truth[0]),
    "training": lambda bench: _training(bench, {}),
}
