"""What leaving work out of the denoising loop gains and costs: guidance in an interval, deep features used again, fewer steps."""

from __future__ import annotations

import time

from ..conditioning import Sampling
from ..errors import InputError
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .clips import MannequinClips
from .generation import seeded
from .scores import Scorer, mean_scores

_SHOWN = ("psnr_mask", "sharpness", "identity_seen", "identity_unseen", "temporal_error")


def ways_of(steps: int) -> dict[str, Sampling]:
    """What is compared, by name. Beside each shortcut stands the number of steps that takes about as long without it."""
    return {
        "all": Sampling(steps),
        "guided 0.1-0.8": Sampling(steps, (0.1, 0.8)),
        "guided 0.0-0.8": Sampling(steps, (0.0, 0.8)),
        "reuse 2": Sampling(steps, reuse_steps=2),
        "reuse 3": Sampling(steps, reuse_steps=3),
        "guided 0.1-0.8, reuse 2": Sampling(steps, (0.1, 0.8), 2),
        "3/4 of the steps": Sampling(max(1, round(steps * 3 / 4))),
        "1/2 of the steps": Sampling(max(1, steps // 2)),
        "1/4 of the steps": Sampling(max(1, steps // 4)),
    }


def bench_shortcuts(
    pipe, *, steps: int = 25, image_guidance: float = 3.0, pose_guidance: float = 2.0, people: int = 2, frames: int = 8,
    on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop,
) -> dict[str, dict[str, float | None]]:  # fmt: skip
    """Of each of `ways_of`, on the same photos, poses and noise of held-out people: times_faster than "all", and figures of `Scorer`.

    mini itself takes one step without guidance; more of both are asked of it here, as a model of full size takes them.
    """
    if min(steps, people, frames) < 1:
        raise InputError(f"Steps are {steps}, people {people} and frames {frames}; each must be at least 1.")
    ways = ways_of(steps)
    clock, done = StageClock("ways", people * len(ways), on_progress), 0
    seconds, scores = dict.fromkeys(ways, 0.0), {way: [] for way in ways}
    for number, clip in enumerate(MannequinClips(people, pipe.form.size)):
        clip = clip.first(frames)
        scorer = Scorer(clip)
        for way, sampling in ways.items():
            started = time.monotonic()
            made = pipe(clip.photo, clip.poses, clip.image_poses, image_guidance=image_guidance, pose_guidance=pose_guidance,
                        generator=seeded(number), **vars(sampling)).frames  # fmt: skip
            seconds[way] += time.monotonic() - started
            scores[way].append(scorer.score(made))
            done += 1
            clock.tick(done)
            check_stop(should_stop)
    report = {}
    for way, each in scores.items():
        means = mean_scores(each)
        report[way] = {"times_faster": round(seconds["all"] / seconds[way], 2), **{name: means[name] for name in _SHOWN}}
    return report
