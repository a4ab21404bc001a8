"""The one training loop: steps, learning rate, EMA, checkpoints that resume exactly, a log."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import ModelError
from ..files import os_error, storage_error
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .processes import Processes


@dataclass(frozen=True)
class LoopOptions:
    """steps: in all. lr: after `warmup` steps, falling linearly to 0 over the last `cooldown` share of them.

    ema: decay of the averaged weights, None for none. minutes: stop (with a checkpoint) after so long, None for never.
    sample_every: steps between calls of the caller's `sample`.
    """

    steps: int
    lr: float
    warmup: int = 50
    cooldown: float = 0.25
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    ema: float | None = 0.999
    minutes: float | None = None
    checkpoint_every: int = 500
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
    step, losses = (0, []) if folder is None else _resume(folder, trained, optimizer, average)
    clock = StageClock(stage, options.steps, on_progress, first=step)
    started, saved = time.monotonic(), step
    try:
        while step < options.steps:
            check_stop(lambda: processes.any(should_stop(), device))
            if processes.any(options.minutes is not None and time.monotonic() - started > options.minutes * 60, device):
                break
            for group in optimizer.param_groups:
                group["lr"] = options.lr_at(step)
            loss = loss_at(step)
            value = processes.mean(loss)
            if not math.isfinite(value):
                saved = step  # these weights are no good either
                raise ModelError(f"The {stage} loss is no longer a number at step {step}; resume with a lower learning rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            processes.average_gradients(trained)
            torch.nn.utils.clip_grad_norm_(trained, options.grad_clip)
            optimizer.step()
            if average is not None:
                torch._foreach_lerp_(average, [p.detach() for p in trained], 1 - options.ema_at(step))
            step += 1
            losses.append(value)
            clock.tick(step, losses[-1])
            if folder is not None and processes.main and step % options.log_every == 0:
                _log(folder, stage, step, losses[-options.log_every :], time.monotonic() - started)
            if folder is not None and processes.main and step % options.checkpoint_every == 0:
                _save(folder, step, trained, optimizer, average, losses)
                saved = step
            if sample is not None and processes.main and step % options.sample_every == 0:
                sample(step)
    finally:
        if folder is not None and processes.main and step > saved:
            _save(folder, step, trained, optimizer, average, losses)
    if average is not None:
        with torch.no_grad():
            for parameter, value in zip(trained, average):
                parameter.copy_(value)
    return losses, step >= options.steps


def _log(folder: Path, stage: str, step: int, losses: list[float], seconds: float) -> None:
    mean = sum(losses) / len(losses)
    with open(folder / "stats.jsonl", "a") as file:
        file.write(json.dumps({"stage": stage, "step": step, "loss": round(mean, 6), "seconds": round(seconds, 1)}) + "\n")


def _save(folder: Path, step: int, trained, optimizer, average, losses: list[float]) -> None:
    """Writes `checkpoint-<step>` beside the others, whole or not at all, then drops all but the newest two."""
    state = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for i, parameter in enumerate(trained):
        state[f"weight.{i}"] = parameter.detach().contiguous()
        if average is not None:
            state[f"average.{i}"] = average[i].contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{i}.{key}"] = value.detach().contiguous()
    temporary = folder / f".checkpoint-{step}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    final = folder / f"checkpoint-{step}"
    try:
        temporary.mkdir(parents=True)
        save_file(state, temporary / "state.safetensors")
        with open(temporary / "state.safetensors", "rb") as file:
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise storage_error(error if isinstance(error, OSError) else os_error(error), final) from error
    for old in _checkpoints(folder)[:-2]:
        shutil.rmtree(old)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def _resume(folder: Path, trained, optimizer, average) -> tuple[int, list[float]]:
    """Loads the newest checkpoint into everything that changes in training; returns its step, 0 without any, and the losses so far."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _checkpoints(folder)
    if not found:
        return 0, []
    state = load_file(found[-1] / "state.safetensors")
    shapes = [state[key].shape for key in (f"weight.{i}" for i in range(len(trained) + 1)) if key in state]
    if shapes != [parameter.shape for parameter in trained]:
        raise ModelError(f"{found[-1]} belongs to another model; choose an empty folder.")
    with torch.no_grad():
        for i, parameter in enumerate(trained):
            parameter.copy_(state[f"weight.{i}"])
            if average is not None:
                average[i].copy_(state[f"average.{i}"])
            values = {key.split(".")[-1]: value for key, value in state.items() if key.startswith(f"optimizer.{i}.")}
            if values:
                optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in values.items()}
    return int(found[-1].name.split("-")[1]), state["losses"].tolist() if "losses" in state else []
