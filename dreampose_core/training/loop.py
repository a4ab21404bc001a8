"""The one training loop: steps, learning rate, EMA, checkpoints it resumes from exactly, a log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ModelError
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .checkpoints import Checkpoints
from .processes import Processes


@dataclass(frozen=True)
class LoopOptions:
    """steps: in all. lr: after `warmup` steps, falling linearly to 0 over the last `cooldown` share of them.

    ema: decay of the averaged weights, None for none. minutes: stop (with a checkpoint) after so long, None for never.
    checkpoint_every, checkpoint_seconds: after so many steps or so long a checkpoint is due; it waits until writing the one before is
    no more than `checkpoint_share` of the time since. sample_every: steps between calls of the caller's `sample`.
    """

    steps: int
    lr: float
    warmup: int = 50
    cooldown: float = 0.25
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    ema: float | None = 0.999
    minutes: float | None = None
    checkpoint_every: int = 25
    checkpoint_seconds: float = 60.0
    checkpoint_share: float = 0.03
    log_every: int = 20
    sample_every: int = 500

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup), max(0.0, left))

    def ema_at(self, step: int) -> float:
        """EMA decay of step `step`: short at first, so that the start is forgotten."""
        return min(self.ema, (1 + step) / (10 + step))


def train(
    modules: dict[str, torch.nn.Module], loss_at: Callable[[int], torch.Tensor], options: LoopOptions, stage: str, *,
    folder: Path | None = None, on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop,
    parameters: Iterable[torch.nn.Parameter] | None = None, sample: Callable[[int], None] | None = None,
) -> tuple[list[float], bool]:
    """Runs `loss_at(step)` and AdamW until `options.steps`; the modules hold the EMA weights afterwards.

    modules: what is trained and checkpointed, by name. loss_at: the loss of a step, a pure function of the step and weights.
    sample(step): called now and then with the weights as they are, to make pictures; it must leave all randomness alone.
    folder: where `checkpoint-<step>` folders and `stats.jsonl` go, and where a run is resumed from; None keeps nothing.
    Returns the losses of all steps and whether all steps are done. Raises Cancelled after writing a checkpoint, StorageError,
    and ModelError when the loss is no longer a number; the last checkpoint is then from before. Where several processes train together,
    each takes the mean of all gradients, and the main one writes and reports.
    """  # fmt: skip
    trained = list(parameters) if parameters is not None else [p for m in modules.values() for p in m.parameters()]
    processes, device = Processes(), trained[0].device
    if not processes.main:
        on_progress = ignore_progress
    optimizer = torch.optim.AdamW(trained, lr=options.lr, weight_decay=options.weight_decay)
    average = None if options.ema is None else [p.detach().clone() for p in trained]
    checkpoints = None if folder is None else Checkpoints(folder)
    step, losses = (0, []) if checkpoints is None else _resume(checkpoints, trained, optimizer, average)
    clock = StageClock(stage, options.steps, on_progress, first=step)
    started = time.monotonic()
    saved, saved_at, saving = step, started, 0.0  # step and moment of the last checkpoint, and how long it took
    keeps = checkpoints is not None and processes.main

    def save() -> None:
        nonlocal saved, saved_at, saving
        before = time.monotonic()
        checkpoints.save(step, _state(trained, optimizer, average, losses))
        saved, saved_at = step, time.monotonic()
        saving = saved_at - before

    try:
        while step < options.steps:
            check_stop(lambda: processes.any(should_stop(), device))
            if processes.any(options.minutes is not None and time.monotonic() - started > options.minutes * 60, device):
                break
            for group in optimizer.param_groups:
                group["lr"] = options.lr_at(step)
            loss = loss_at(step)
            value = processes.mean(loss)
            optimizer.zero_grad(set_to_none=True)
            if math.isfinite(value):
                loss.backward()
                processes.average_gradients(trained)
                # a gradient without end would spoil the weights, and the next checkpoint with them
                value = value if torch.nn.utils.clip_grad_norm_(trained, options.grad_clip).isfinite() else math.inf
            if not math.isfinite(value):
                last = f"checkpoint-{saved} in {folder} is the last good one; resume" if saved else "start again"
                saved = step  # these weights are no good either
                raise ModelError(f"The {stage} loss is no longer a number at step {step}: {last} with a lower learning rate.")
            optimizer.step()
            if average is not None:
                torch._foreach_lerp_(average, [p.detach() for p in trained], 1 - options.ema_at(step))
            step += 1
            losses.append(value)
            clock.tick(step, losses[-1])
            if keeps and step % options.log_every == 0:
                _log(folder, stage, step, losses[-options.log_every :], time.monotonic() - started)
            since = time.monotonic() - saved_at
            due = step - saved >= options.checkpoint_every or since >= options.checkpoint_seconds
            if keeps and due and since * options.checkpoint_share >= saving:
                save()
            if sample is not None and processes.main and step % options.sample_every == 0:
                sample(step)
    finally:
        if keeps and step > saved:
            save()
    if average is not None:
        with torch.no_grad():
            for parameter, value in zip(trained, average):
                parameter.copy_(value)
    return losses, step >= options.steps


def _log(folder: Path, stage: str, step: int, losses: list[float], seconds: float) -> None:
    mean = sum(losses) / len(losses)
    with open(folder / "stats.jsonl", "a") as file:
        file.write(json.dumps({"stage": stage, "step": step, "loss": round(mean, 6), "seconds": round(seconds, 1)}) + "\n")


def _state(trained, optimizer, average, losses: list[float]) -> dict[str, torch.Tensor]:
    """Everything that changes in training, by name."""
    state = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for i, parameter in enumerate(trained):
        state[f"weight.{i}"] = parameter.detach().contiguous()
        if average is not None:
            state[f"average.{i}"] = average[i].contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{i}.{key}"] = value.detach().contiguous()
    return state


def _resume(checkpoints: Checkpoints, trained, optimizer, average) -> tuple[int, list[float]]:
    """Loads the newest sound checkpoint into everything that changes in training; returns its step (0 if none) and the losses so far."""
    found = checkpoints.newest()
    if found is None:
        return 0, []
    step, state = found
    shapes = [state[key].shape for key in (f"weight.{i}" for i in range(len(trained) + 1)) if key in state]
    if shapes != [parameter.shape for parameter in trained]:
        raise ModelError(f"The checkpoints in {checkpoints.folder} belong to another model; choose an empty folder.")
    with torch.no_grad():
        for i, parameter in enumerate(trained):
            parameter.copy_(state[f"weight.{i}"])
            if average is not None:
                average[i].copy_(state[f"average.{i}"])
            values = {key.split(".")[-1]: value for key, value in state.items() if key.startswith(f"optimizer.{i}.")}
            if values:
                optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in values.items()}
    return step, state["losses"].tolist() if "losses" in state else []
