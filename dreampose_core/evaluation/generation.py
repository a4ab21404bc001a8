"""How fast frames are made against the original's way of making them, what that costs in quality, and what memory it
takes."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import PNDMScheduler

from ..animate.engine import LocalEngine
from ..animate.run import LATENT_PREVIEW, animate
from ..errors import Cancelled, InputError, ModelError
from ..model.conditioning import decode_latents, to_uint8
from ..model.config import Sampling
from ..model.denoising import denoise
from ..model.loading import load_pipeline
from ..model.memory import most_memory_mb
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import AnimateOptions
from .clips import Clip, MannequinClips
from .scores import Scorer, mean_scores

ORIGINALS_STEPS = 100
_FEW, _MANY = 50, 2000  # frames whose peaks of memory are compared
_OURS = ("draft", "standard", "best")


def bench_generate(
    pipe,
    loaded: tuple | None = None,
    *,
    people: int = 2,
    frames: int = 4,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, float | None]:
    """The figures of making frames, means over the first `people` held-out mannequins, all in one run on one machine.

    frames: how many of each clip are made in the original's way, too: one after the other, the photo encoded again for
    each, three passes of the UNet a step, 100 steps of PNDM, or of the model's own solver where PNDM cannot run it.
    loaded: what `load_pipeline` was given for `pipe`, for the processes whose memory is measured; None leaves that out.
    Raises InputError, ModelError, Cancelled.
    For q in draft, standard, best:

    passes_ratio_q, wall_ratio_q: how many times as many passes through the UNet, and as long, a frame takes in the
    original's way. frame_s_q: seconds a frame; decoder_share_q: of them in the VAE's decoder. psnr_mask_q, sharpness_q:
    on the frames that are made in both ways; psnr_mask_drop_q_db: what is lost against the original's way; the same of
    the original's way as "original".
    preview_s, player_s: from the start until there is a first picture, and a first second of video to play.
    frames_peak_memory_ratio: most memory while 2,000 frames are made in one step each over that while 50 of the same
    motion are.
    """
    if people < 1 or frames < 1:
        raise InputError(f"People are {people} and frames {frames}; both must be at least 1.")
    clock = StageClock("ways", people * (1 + len(_OURS)) + 3, on_progress)
    scores: dict[str, list] = {}
    seconds: dict[str, list[float]] = {}
    passes: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        clock.tick(done)
        check_stop(should_stop)

    for number, clip in enumerate(MannequinClips(people, pipe.model_config.size)):
        both, scorer = clip.first(frames), Scorer(clip.first(frames))
        for way in ("original", *_OURS):
            shown = both if way == "original" else clip
            with _counted(pipe) as counts:
                started = time.monotonic()
                if way == "original":
                    made = _in_the_originals_way(pipe, shown, number, should_stop)
                else:
                    sampling = vars(pipe.model_config.sampling(way))
                    made = pipe(
                        shown.photo, shown.poses, shown.image_poses, generator=seeded(number), **sampling
                    ).frames
                took = time.monotonic() - started
            seconds.setdefault(way, []).append(took / len(made))
            passes.setdefault(way, []).append(counts["passes"] / len(made))
            shares.setdefault(way, []).append(counts["decoding_s"] / took)
            scores.setdefault(way, []).append(scorer.score(made[:frames]))
            tick()
    report = {way: mean_scores(each) for way, each in scores.items()}
    figures: dict[str, float | None] = {}
    for way in ("original", *_OURS):
        figures[f"frame_s_{way}"], figures[f"decoder_share_{way}"] = np.mean(seconds[way]), np.mean(shares[way])
        figures[f"psnr_mask_{way}"], figures[f"sharpness_{way}"] = report[way]["psnr_mask"], report[way]["sharpness"]
        if way != "original":
            figures[f"passes_ratio_{way}"] = np.mean(passes["original"]) / np.mean(passes[way])
            figures[f"wall_ratio_{way}"] = np.mean(seconds["original"]) / np.mean(seconds[way])
            figures[f"psnr_mask_drop_{way}_db"] = report["original"]["psnr_mask"] - report[way]["psnr_mask"]
    figures["preview_s"], figures["player_s"] = _first_sights(pipe, clip, should_stop)
    tick()
    if loaded is not None:
        peaks = []
        for count in (_FEW, _MANY):
            peaks.append(_peak_mb(loaded, count, should_stop))
            tick()
        figures["peak_memory_mb"], figures["frames_peak_memory_ratio"] = peaks[1], peaks[1] / peaks[0]
    return {name: None if value is None else round(float(value), 4) for name, value in figures.items()}


@torch.no_grad()
def _in_the_originals_way(pipe, clip: Clip, number: int, should_stop: ShouldStop) -> np.ndarray:
    s_image, s_pose = pipe.model_config.image_guidance, pipe.model_config.pose_guidance
    every = [(1 - s_image, False, False), (s_image - s_pose, True, False), (s_pose, True, True)]
    own, scheduler = pipe.scheduler, _pndm(pipe.scheduler)
    frames = []
    try:
        pipe.scheduler = scheduler
        for index in range(len(clip)):
            reference = pipe.encode_reference(clip.photo, clip.image_poses)
            noise = torch.randn(reference.latents.shape, generator=seeded(number)).to(reference.latents.device)
            device = reference.latents.device
            pose, warp, planes = pipe._encode_batch(clip.poses, range(index, index + 1), reference, device)
            beneath = reference.latents if pipe.model_config.init_leak else None
            latents = denoise(
                pipe.unet,
                pipe.scheduler,
                pipe.model_config,
                Sampling(ORIGINALS_STEPS),
                every,
                reference,
                noise,
                beneath,
                pose,
                warp,
                lambda *_: None,
                should_stop,
            )
            pixels = decode_latents(pipe.vae, latents, planes)
            frames.append(to_uint8(pixels)[0].cpu().numpy())
    finally:
        pipe.scheduler = own
    return np.stack(frames)


def _pndm(own):
    """PNDM on the model's noise schedule; the model's own solver where that ends in pure noise, or latents are
    predicted."""
    if own.config.prediction_type == "sample" or float(own.alphas_cumprod[-1]) < 1e-6:
        return own
    return PNDMScheduler.from_config(own.config, skip_prk_steps=True)


@contextmanager
def _counted(pipe):
    """Counts, inside, samples that pass through the UNet and seconds in the VAE's decoder."""
    counts = {"passes": 0, "decoding_s": 0.0}
    started = 0.0

    def before(*_) -> None:
        nonlocal started
        started = time.monotonic()

    def after(*_) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        counts["decoding_s"] += time.monotonic() - started

    handles = [
        pipe.unet.register_forward_hook(
            lambda module, given, made: counts.update(passes=counts["passes"] + len(given[0]))
        ),
        pipe.vae.decoder.register_forward_pre_hook(before),
        pipe.vae.decoder.register_forward_hook(after),
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _first_sights(pipe, clip: Clip, should_stop: ShouldStop) -> tuple[float, float]:
    """Seconds from the start of generation until there is a picture, and until there is a chunk of video."""
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
        try:  # looked at every step and after every frame
            given = {"image": clip.photo, "poses": clip.poses, "image_poses": clip.image_poses}
            animate(LocalEngine(pipe), **given, options=options, folder=folder, should_stop=look)
        except Cancelled:
            check_stop(should_stop)
        look()
    return seen["preview"], seen["player"]


def _peak_mb(loaded: tuple, count: int, should_stop: ShouldStop) -> float:
    """The most memory, in a process of its own, while the last `count` of _MANY frames are made, one step each, and
    thrown away."""
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_make_and_tell, args=(tell, loaded, count), daemon=True)
    process.start()
    tell.close()  # here, so that its end is seen
    try:
        while not told.poll(0.2):
            check_stop(should_stop)
        return told.recv()
    except EOFError as error:
        raise ModelError("The process whose memory was to be measured ended early; its error stands above.") from error
    finally:
        process.terminate()
        process.join()


def _make_and_tell(tell, loaded: tuple, count: int) -> None:
    pipe = load_pipeline(*loaded)
    clip = next(iter(MannequinClips(1, pipe.model_config.size)))
    poses: PoseSequence = clip.poses.select(np.resize(np.arange(len(clip)), _MANY))
    for _ in pipe.stream(
        clip.photo, poses, clip.image_poses, 1, generator=seeded(0), first_frame=_MANY - count, batch_size=8
    ):
        pass
    tell.send(most_memory_mb())


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)
