"""The training loop: steps, learning rate, EMA, a log, and checkpoints for exact resumption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import Diverged, ModelError
from ..files import storage_error
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .checkpoints import newest_checkpoint, save_checkpoint
from .distributed import average_gradients, in_any, mean, processes
from .optimizers import load_optimizer_state, make_optimizer, optimizer_state

_LOGGED = 20  # steps between two lines of stats.jsonl


@dataclass(frozen=True)
class LoopOptions:
    """Options of `train`. steps: total steps. lr: peak, reached after `warmup` steps, falling linearly to 0 over the
    last `cooldown` share of the steps.

    accumulate: losses per step, whose gradients are averaged: batches larger by that factor, in the memory of one.
    optimizer: see `optimizers`. ema: decay of the averaged weights, None to disable.
    minutes: stop (with a checkpoint) after that time, None for no limit.
    checkpoint_every, checkpoint_seconds: a checkpoint is due after so many steps or seconds; it is delayed until
    writing the previous one took at most `checkpoint_share` of the time since. sample_every, held_every: steps between
    calls of the caller's `sample` and `held`. patience: stop training after that many calls of `held` in a row without
    improving on the best.
    """

    steps: int
    lr: float
    accumulate: int = 1
    optimizer: str = "adamw"
    warmup: int = 50
    cooldown: float = 0.25
    ema: float | None = 0.999
    minutes: float | None = None
    checkpoint_every: int = 25
    checkpoint_seconds: float = 60.0
    checkpoint_share: float = 0.03
    sample_every: int = 500
    held_every: int = 10
    patience: int = 3

    def lr_at(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup), max(0.0, left))

    def ema_at(self, step: int) -> float:
        """Return the EMA decay of step `step`: low at first, so that the average forgets the initial weights."""
        return min(self.ema, (1 + step) / (10 + step))


def train(
    parameters: Iterable[torch.nn.Parameter],
    loss_at: Callable[[int], torch.Tensor],
    options: LoopOptions,
    stage: str,
    *,
    folder: Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    sample: Callable[[int], object] | None = None,
    held: Callable[[], float] | None = None,
) -> tuple[list[float], bool]:
    """Run `loss_at` and the optimizer until `options.steps`; afterwards the parameters hold the EMA weights.

    loss_at(number): returns a loss, a pure function of its number and the weights; step s uses the mean of
    `options.accumulate` = n losses, from number s n on.
    sample(step): called every `sample_every` steps with the current weights, to make pictures; it must not touch any
    random state.
    held(): the error on data held back from training, called before the first step, every `held_every` steps and after
    the last; the weights with the smallest error are kept. It needs a single process, and no EMA.
    folder: for `checkpoint-<step>` folders and stats.jsonl, and to resume from; None writes nothing.
    Returns the losses of all steps and whether all steps are done. Raises Cancelled after writing a checkpoint,
    StorageError, and ModelError when the loss is no longer finite: Diverged, if there is an earlier checkpoint.
    Several processes average their gradients; the main one writes and reports.
    """
    main, state = processes().is_main_process, _State(list(parameters), options, folder, held is not None)
    losses, started = state.losses, time.monotonic()
    whole = True  # False in the middle of a step, whose state must not be saved
    with processes().main_process_first():  # which removes damaged checkpoints
        first = state.resume()
    keeps = folder is not None and main
    clock = StageClock(stage, options.steps, on_progress if main else ignore_progress, first)
    try:
        if held is not None and not state.errors:
            state.look(held())
        while not state.done:
            if in_any(options.minutes is not None and time.monotonic() - started > options.minutes * 60):
                break
            # gradients, averaged over the processes; an infinite one would spoil the weights and the next checkpoint
            step, value = len(losses), 0.0
            state.optimizer.zero_grad(set_to_none=True)
            for number in range(step * options.accumulate, (step + 1) * options.accumulate):
                check_stop(lambda: in_any(should_stop()))
                loss = loss_at(number) / options.accumulate
                value += mean(loss)
                loss.backward()
            whole = False
            average_gradients(state.parameters)
            norm = torch.nn.utils.clip_grad_norm_(state.parameters, 1.0)
            if not (math.isfinite(value) and norm.isfinite()):
                raise _diverged(state, f"The {stage} loss is no longer a number at step {step}")
            # the optimizer's step, the EMA of the weights, and the error on held-back data
            state.update(value)
            step += 1
            if held is not None and (step % options.held_every == 0 or step == options.steps):
                state.look(held())
            whole = True
            # progress, log, checkpoint, sample
            clock.tick(step, state.errors[-1] if state.errors else value)
            if keeps and step % _LOGGED == 0:
                state.log(stage, time.monotonic() - started)
            if keeps and state.is_due():
                state.save()
            if main and sample is not None and step % options.sample_every == 0:
                sample(step)
    finally:
        state.optimizer.zero_grad(set_to_none=True)  # frees the gradients' GPU memory
        if keeps and whole and len(losses) > state.saved:
            state.save()
    state.settle()
    return losses, state.done


def _diverged(state: _State, message: str) -> ModelError:
    """Restore the last good weights and return the error to raise."""
    if not (good := state.resume()):
        return ModelError(f"{message}: start again in another folder with a lower learning rate.")
    state.settle()
    place = f"checkpoint-{good} in {state.folder}"
    return Diverged(f"{message}: {place} is the last good one; start from it with a lower learning rate.")


class _State:
    """What a checkpoint stores: weights, those that are kept at the end, the optimizer's state, the losses of the steps
    done, and the errors on held-back data so far."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], options: LoopOptions, folder: Path | None, keeps_best: bool
    ):
        self.parameters, self.options, self.folder, self.losses, self.errors = parameters, options, folder, [], []
        self.optimizer = make_optimizer(options.optimizer, parameters, options.lr)
        self.kind = "best" if keeps_best else "average"
        self.kept = [p.detach().clone() for p in parameters] if options.ema is not None else []
        self.saved, self.saved_at, self.saving = 0, time.monotonic(), 0.0  # step, time and seconds of the last save

    @property
    def done(self) -> bool:
        """Whether all steps are done, or the last `patience` errors did not improve on the best before them."""
        before, last = self.errors[: -self.options.patience], self.errors[-self.options.patience :]
        return len(self.losses) >= self.options.steps or (bool(before) and min(last) >= min(before))

    def update(self, loss: float) -> None:
        """Take an optimizer step, average the weights, and record the step's loss."""
        step = len(self.losses)
        self.optimizer.param_groups[0]["lr"] = self.options.lr_at(step)
        self.optimizer.step()
        if self.options.ema is not None:
            decay = self.options.ema_at(step)
            for kept, parameter in zip(self.kept, self.parameters):
                kept.lerp_(parameter.detach(), 1 - decay)
        self.losses.append(loss)

    def look(self, error: float) -> None:
        """Record an error on held-back data, and keep these weights if it is the smallest."""
        error = error if math.isfinite(error) else math.inf
        if not self.errors or error < min(self.errors):
            self.kept = [parameter.detach().clone() for parameter in self.parameters]
        self.errors.append(error)

    @torch.no_grad()
    def settle(self) -> None:
        """Set the weights to those that are kept."""
        for parameter, value in zip(self.parameters, self.kept):
            parameter.copy_(value)

    def log(self, stage: str, seconds: float) -> None:
        """Append the last step, its learning rate, and the mean loss since the last line to stats.jsonl. Raises
        StorageError."""
        step, path = len(self.losses), self.folder / "stats.jsonl"
        line = {"stage": stage, "step": step, "loss": round(sum(self.losses[-_LOGGED:]) / _LOGGED, 6)}
        line |= {"lr": float(f"{self.options.lr_at(step - 1):.6g}"), "seconds": round(seconds, 1)}
        try:
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise storage_error(error, path) from error

    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        steps, since = len(self.losses) - self.saved, time.monotonic() - self.saved_at
        due = steps >= self.options.checkpoint_every or since >= self.options.checkpoint_seconds
        return due and since * self.options.checkpoint_share >= self.saving

    def save(self) -> None:
        """Write a checkpoint. Raises StorageError."""
        numbers = {"losses": self.losses} | ({"held": self.errors} if self.errors else {})
        state = {key: torch.tensor(values, dtype=torch.float64) for key, values in numbers.items()}
        state |= {f"weight.{i}": parameter.detach() for i, parameter in enumerate(self.parameters)}
        state |= {f"{self.kind}.{i}": value for i, value in enumerate(self.kept)}
        state |= optimizer_state(self.optimizer, self.parameters)
        # copies of weights in another layout may not fit on the GPU, above all after running out of memory
        state = {key: x if x.is_contiguous() else x.cpu().contiguous() for key, x in state.items()}
        before, self.saved = time.monotonic(), len(self.losses)
        save_checkpoint(self.folder, self.saved, state)
        self.saved_at = time.monotonic()
        self.saving = self.saved_at - before

    @torch.no_grad()
    def resume(self) -> int:
        """Restore the newest intact checkpoint and return its step, 0 if there is none. Raises ModelError if it is of
        another model."""
        newest = None if self.folder is None else newest_checkpoint(self.folder)
        if newest is None:
            return 0
        self.saved, state = newest
        weights, self.kept = (
            [state[key] for i in range(len(state)) if (key := f"{kind}.{i}") in state] for kind in ("weight", self.kind)
        )
        if [weight.shape for weight in weights] != [parameter.shape for parameter in self.parameters]:
            raise ModelError(f"The checkpoints in {self.folder} belong to another model; choose an empty folder.")
        for parameter, weight in zip(self.parameters, weights):
            parameter.copy_(weight)
        self.kept = [value.to(parameter.device) for value, parameter in zip(self.kept, self.parameters)]
        load_optimizer_state(self.optimizer, self.parameters, state)
        self.losses[:], self.errors = state["losses"].tolist(), state["held"].tolist() if "held" in state else []
        return self.saved
