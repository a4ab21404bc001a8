"""Benchmark of generation: speed and quality against the original implementation's sampling, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from ..animate.engine import LocalEngine
from ..animate.run import LATENT_PREVIEW, animate
from ..errors import Cancelled, InputError, ModelError
from ..model.conditioning import decode_latents, to_uint8
from ..model.config import Sampling
from ..model.denoising import denoise
from ..model.loading import load_pipeline
from ..model.memory import most_memory_mb
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import REPOSITORY, AnimateOptions, Quality, Solver
from .clips import Clip, MannequinClips
from .scores import Scorer, mean_scores

ORIGINALS_STEPS = 100
_FEW, _MANY = 50, 2000  # numbers of frames whose peak memory is compared


def bench_generate(
    pipe,
    loaded: tuple | None = None,
    *,
    people: int = 2,
    frames: int = 4,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, float | None]:
    """Measure generation on the first `people` held-out mannequins and return the means by name.

    frames: how many frames of each clip are also made with the original's sampling: one frame at a time, the photo
    encoded again for each, three UNet passes per step, 100 steps of PNDM (or of the model's own solver where PNDM
    cannot run it). loaded: the arguments of `load_pipeline` for `pipe`, for the processes that measure memory; None
    skips that measurement. Raises InputError, ModelError, Cancelled.

    Names, for q in draft, standard, best:

    passes_ratio_q, wall_ratio_q: UNet passes and time per frame of the original's sampling, divided by those of q.
    frame_s_q: seconds per frame. decoder_share_q: the share of that time in the VAE decoder. psnr_mask_q, sharpness_q:
    over the frames that are made both ways. psnr_mask_drop_q_db: the original's psnr_mask minus that of q.
    frame_s, decoder_share, psnr_mask and sharpness are also given for q "original".

    preview_s, player_s: seconds from the start to the first picture, and to the first second of video.
    peak_memory_mb, frames_peak_memory_ratio: peak memory of making 2,000 frames in one step each, and that divided by
    the peak for 50 frames of the same motion.
    """
    if people < 1 or frames < 1:
        raise InputError(f"people and frames must be at least 1, got {people} and {frames}.")
    ways = ("original", *get_args(Quality))
    clock, done = StageClock("ways", people * len(ways) + 3, on_progress), 0
    runs, scores = defaultdict(list), defaultdict(list)

    def tick() -> None:
        nonlocal done
        done += 1
        clock.tick(done)
        check_stop(should_stop)

    for number, clip in enumerate(MannequinClips(people, pipe.model_config.size)):
        both = clip.cut(slice(frames))
        scorer = Scorer(both)
        for way in ways:
            with _counted(pipe) as counts:
                started = time.monotonic()
                if way == "original":
                    made = in_the_originals_way(pipe, both, number, should_stop)
                else:
                    made = clip.made_by(pipe, number, **vars(pipe.model_config.sampling(way)))
                took = time.monotonic() - started
            runs[way].append((took / len(made), counts["passes"] / len(made), counts["decoding_s"] / took))
            scores[way].append(scorer.score(made[:frames]))
            tick()

    figures: dict[str, float] = {}
    original_s, original_passes, _ = np.mean(runs["original"], axis=0)
    for way in ways:
        seconds, passes, decoder_share = np.mean(runs[way], axis=0)
        score = mean_scores(scores[way])
        figures |= {f"frame_s_{way}": seconds, f"decoder_share_{way}": decoder_share}
        figures |= {f"{name}_{way}": score[name] for name in ("psnr_mask", "sharpness")}
        if way != "original":
            figures |= {f"passes_ratio_{way}": original_passes / passes, f"wall_ratio_{way}": original_s / seconds}
            figures[f"psnr_mask_drop_{way}_db"] = figures["psnr_mask_original"] - score["psnr_mask"]
    figures["preview_s"], figures["player_s"] = first_sights(pipe, clip, should_stop)
    tick()
    if loaded is not None:
        peaks = []
        for count in (_FEW, _MANY):
            peaks.append(in_own_process(__name__, loaded, count, should_stop=should_stop))
            tick()
        figures["peak_memory_mb"], figures["frames_peak_memory_ratio"] = peaks[1], peaks[1] / peaks[0]
    return {name: round(float(value), 4) for name, value in figures.items()}


@torch.no_grad()
def in_the_originals_way(
    pipe, clip: Clip, number: int, should_stop: ShouldStop, steps: int | None = None
) -> np.ndarray:
    """Make the clip's frames as the original implementation did, see `bench_generate`."""
    s_image, s_pose = pipe.model_config.image_guidance, pipe.model_config.pose_guidance
    branches = [(1 - s_image, False, False), (s_image - s_pose, True, False), (s_pose, True, True)]
    sampling = Sampling(steps or ORIGINALS_STEPS, solver=_originals_solver(pipe.scheduler))
    frames = []
    for index in range(len(clip)):
        reference = pipe.encode_reference(clip.photo, clip.image_poses)
        device = reference.latents.device
        noise = torch.randn(reference.latents.shape, generator=torch.Generator().manual_seed(number)).to(device)
        pose, warp, planes = pipe._encode_batch(clip.poses, range(index, index + 1), reference)
        init_latents = reference.latents if pipe.model_config.init_leak else None
        args = (branches, reference, noise, init_latents, pose, warp, lambda *_: None, should_stop)
        latents = denoise(pipe.unet, pipe.scheduler, pipe.model_config, sampling, *args)
        frames.append(to_uint8(decode_latents(pipe.vae, latents, planes))[0].cpu().numpy())
    return np.stack(frames)


def _originals_solver(scheduler) -> Solver | None:
    """Return "pndm", or None (the model's own solver) where the schedule ends in pure noise or the UNet predicts
    latents, which PNDM cannot run."""
    unusable = scheduler.config.prediction_type == "sample" or float(scheduler.alphas_cumprod[-1]) < 1e-6
    return None if unusable else "pndm"


@contextmanager
def _counted(pipe):
    """Count, inside the block, the samples that pass through the UNet and the seconds in the VAE decoder."""
    counts = {"passes": 0, "decoding_s": 0.0}
    started = 0.0

    def before(*_) -> None:
        nonlocal started
        started = time.monotonic()

    def after(*_) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        counts["decoding_s"] += time.monotonic() - started

    def count(module, given, made) -> None:
        counts["passes"] += len(given[0])

    decoder = pipe.vae.decoder
    handles = [decoder.register_forward_pre_hook(before), decoder.register_forward_hook(after)]
    handles.append(pipe.unet.register_forward_hook(count))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def first_sights(pipe, clip: Clip, should_stop: ShouldStop) -> tuple[float, float]:
    """Measure the seconds from the start of generation to the first picture and to the first chunk of video."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, seen = Path(temporary), {}

        def look(*_) -> bool:
            now = time.monotonic() - started
            if (folder / LATENT_PREVIEW).is_file() or (folder / "frames" / "000000.png").is_file():
                seen.setdefault("preview", now)
            if (folder / "chunks" / "000000.mp4").is_file():
                seen.setdefault("player", now)
            return "player" in seen or should_stop()

        options = AnimateOptions(recipe="none", align="none", fit="pad")
        started = time.monotonic()
        try:  # animate calls `look` at every step and after every frame
            inputs = {"image": clip.photo, "poses": clip.poses, "image_poses": clip.image_poses}
            animate(LocalEngine(pipe), **inputs, options=options, folder=folder, should_stop=look)
        except Cancelled:
            check_stop(should_stop)
        look()
    return seen["preview"], seen["player"]


def _peak_mb(loaded: tuple, count: int) -> float:
    """Make the last `count` of _MANY frames in one step each; return this process's peak memory in MB."""
    pipe = load_pipeline(*loaded)
    clip = next(iter(MannequinClips(1, pipe.model_config.size)))
    poses = clip.poses.select(np.resize(np.arange(len(clip)), _MANY))
    args = {"generator": torch.Generator().manual_seed(0), "batch_size": 8}
    batches = [range(i, min(i + 8, _MANY)) for i in range(_MANY - count, _MANY, 8)]
    for _ in pipe.stream(clip.photo, poses, clip.image_poses, 1, batches=batches, **args):
        pass
    return most_memory_mb()


def in_own_process(module: str, *given, should_stop: ShouldStop = never_stop):
    """Run a module as a program with `given` as one JSON argument and return the JSON that it prints.

    Raises ModelError when the process fails, and Cancelled.
    """
    command = [sys.executable, "-m", module, json.dumps(given)]
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            while process.poll() is None:
                check_stop(should_stop)
                time.sleep(0.1)
        finally:
            process.kill()
        if process.returncode != 0:
            raise ModelError("The process that measures memory failed; see its error above.")
        return json.load(process.stdout)


if __name__ == "__main__":
    print(_peak_mb(*json.loads(sys.argv[1])))
