"""The training loop: steps, learning rate, EMA, a log, and checkpoints for exact resumption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import Diverged, ModelError
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .checkpoints import Checkpoints
from .distributed import Processes
from .optimizers import load_optimizer_state, make_optimizer, optimizer_state
from .record import Record, Sample
from .sharding import alike, clip_gradients, gathered, is_sharded, spread_like


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
    improving on the best. curve, tensorboard: see `Record`.
    """

    steps: int
    lr: float
    accumulate: int = 1
    optimizer: str = "adamw"
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
    held_every: int = 10
    patience: int = 3
    curve: bool = False
    tensorboard: bool = False

    def lr_at(self, step: int) -> float:
        """Return the learning rate of step `step`, counted from 0."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup), max(0.0, left))

    def ema_at(self, step: int) -> float:
        """Return the EMA decay of step `step`: low at first, so that the average forgets the initial weights."""
        return min(self.ema, (1 + step) / (10 + step))


def train(
    modules: dict[str, torch.nn.Module],
    loss_at: Callable[[int], torch.Tensor],
    options: LoopOptions,
    stage: str,
    *,
    folder: Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    parameters: Iterable[torch.nn.Parameter] | None = None,
    sample: Sample | None = None,
    held: Callable[[], float] | None = None,
) -> tuple[list[float], bool]:
    """Run `loss_at` and the optimizer until `options.steps`; afterwards the modules hold the EMA weights.

    modules: the modules to train and checkpoint, by name. loss_at(number): returns a loss, a pure function of its
    number and the weights; step s uses the mean of `options.accumulate` = n losses, from number s n on.
    sample(step): called every `sample_every` steps with the current weights, to make pictures; it must not touch any
    random state. If the weights are sharded, all processes call it.
    held(): the error on data held back from training, called before the first step, every `held_every` steps and after
    the last; the weights with the smallest error are kept. It needs a single process, and no EMA.
    folder: for `checkpoint-<step>` folders and the files of `Record`, and to resume from; None writes nothing.
    Returns the losses of all steps and whether all steps are done. Raises Cancelled after writing a checkpoint,
    StorageError, and ModelError when the loss is no longer finite: Diverged, if there is an earlier checkpoint.
    Several processes average their gradients; the main one writes and reports.
    """
    trained = list(parameters) if parameters is not None else [p for m in modules.values() for p in m.parameters()]
    processes, device = Processes(), trained[0].device
    if not processes.main:
        on_progress = ignore_progress
    # together: the weights are sharded, so all processes take part in a checkpoint
    groups, together = alike(trained), is_sharded(trained)
    optimizer = make_optimizer(options.optimizer, groups, options.lr, options.weight_decay)
    average = None if options.ema is None else [p.detach().clone() for p in trained]
    best = None if held is None else _Best(options.patience)
    # resume from the newest checkpoint
    checkpoints = None if folder is None else Checkpoints(folder, processes.main)
    if not processes.main:
        processes.wait()  # until the main process has set damaged checkpoints aside
    step, losses = 0, []
    if checkpoints is not None:
        step, losses = _resume(checkpoints, trained, optimizer, options.optimizer, average, best)
    if processes.main:
        processes.wait()
    keeps = checkpoints is not None and processes.main
    record = Record(folder, stage, step, options.log_every, options.curve, options.tensorboard) if keeps else None
    clock = StageClock(stage, options.steps, on_progress, first=step)
    started = time.monotonic()
    saved, saved_at, saving = step, started, 0.0  # step and time of the last checkpoint, and how long it took to write
    whole = True  # False in the middle of a step, whose state must not be saved
    agreed = not together  # whether all processes know that training ends: only then can they save a last checkpoint

    def stop() -> None:
        nonlocal agreed
        if asked := processes.any(should_stop(), device):
            agreed = True
        check_stop(lambda: asked)

    def save() -> None:
        nonlocal saved, saved_at, saving
        before = time.monotonic()
        state = _state(trained, optimizer, average, best, losses, processes.main)
        if keeps:
            checkpoints.save(step, state)
        saved, saved_at = step, time.monotonic()
        saving = saved_at - before

    def diverged() -> ModelError:
        """Restore the last good weights and return the error to raise; the current weights are not saved."""
        nonlocal saved, agreed
        good, saved, agreed = saved, step, True
        message = f"The {stage} loss is no longer a number at step {step}"
        if not processes.any(keeps and good > 0, device):
            return ModelError(f"{message}: start again in another folder with a lower learning rate.")
        if keeps or together:
            _resume(checkpoints, trained, optimizer, options.optimizer, average, best)
            _settle(trained, average, best)
        return Diverged(
            f"{message}: checkpoint-{good} in {folder} is the last good one; start from it with a lower learning rate."
        )

    try:
        if best is not None and not best.errors:
            best.look(held(), trained)
        while step < options.steps and not (best is not None and best.tired):
            stop()
            if processes.any(options.minutes is not None and time.monotonic() - started > options.minutes * 60, device):
                break
            # gradients, averaged over the processes; an infinite one would spoil the weights and the next checkpoint
            for group in optimizer.param_groups:
                group["lr"] = options.lr_at(step)
            optimizer.zero_grad(set_to_none=True)
            value = _backward(loss_at, step, options.accumulate, processes, stop)
            if math.isfinite(value):
                processes.average_gradients(trained)
            if not math.isfinite(value) or not clip_gradients(trained, options.grad_clip).isfinite():
                raise diverged()
            # optimizer step, and the EMA of the weights
            whole = False
            optimizer.step()
            if average is not None:
                for averages, weights in zip(alike(average), groups):
                    torch._foreach_lerp_(averages, [p.detach() for p in weights], 1 - options.ema_at(step))
            step += 1
            losses.append(value)
            if best is not None and (step % options.held_every == 0 or step == options.steps):
                best.look(held(), trained)
            whole = True
            # progress, log, checkpoint, sample
            clock.tick(step, losses[-1] if best is None else best.errors[-1])
            if keeps:
                record.step(step, losses, options.lr_at(step - 1), time.monotonic() - started)
            since = time.monotonic() - saved_at
            due = step - saved >= options.checkpoint_every or since >= options.checkpoint_seconds
            now = keeps and due and since * options.checkpoint_share >= saving
            if processes.any(now, device) if together else now:
                save()
            if (processes.main or together) and step % options.sample_every == 0:
                sheet = None if sample is None else sample(step)
                if keeps:
                    record.draw(losses)
                    if sheet is not None:
                        record.picture(sheet)
        agreed = True
    finally:
        optimizer.zero_grad(set_to_none=True)  # frees the gradients' GPU memory
        if (keeps or together) and checkpoints is not None and agreed and whole and step > saved:
            save()
        if keeps:
            record.close(losses)
    _settle(trained, average, best)
    return losses, step >= options.steps or (best is not None and best.tired)


@torch.no_grad()
def _settle(trained: list[torch.nn.Parameter], average: list[torch.Tensor] | None, best: _Best | None) -> None:
    """Set the weights to their final values: the average, or the best."""
    kept = average if best is None else best.weights
    for parameter, value in zip(trained, kept or ()):
        parameter.copy_(value)


def _backward(
    loss_at: Callable[[int], torch.Tensor], step: int, count: int, processes: Processes, stop: Callable[[], None]
) -> float:
    """Add the gradients of the mean of a step's `count` losses to the weights' and return the mean loss over the
    processes.

    Ends at the first loss that is not finite. Between two losses `stop` is called, which may raise.
    """
    total = 0.0
    for number in range(step * count, (step + 1) * count):
        if number > step * count:
            stop()
        loss = loss_at(number) / count
        value = processes.mean(loss)
        total += value
        if not math.isfinite(value):
            break
        loss.backward()
    return total


class _Best:
    """The errors on held-back data so far, and the weights with the smallest."""

    def __init__(self, patience: int):
        self.patience, self.errors, self.weights = patience, [], None

    def look(self, error: float, trained: list[torch.nn.Parameter]) -> None:
        """Record an error, and copy these weights if it is the smallest."""
        error = error if math.isfinite(error) else math.inf
        if not self.errors or error < min(self.errors):
            self.weights = [parameter.detach().clone() for parameter in trained]
        self.errors.append(error)

    @property
    def tired(self) -> bool:
        """Whether the last `patience` errors did not improve on the best before them."""
        return len(self.errors) > self.patience and min(self.errors[-self.patience :]) >= min(
            self.errors[: -self.patience]
        )


def _state(trained, optimizer, average, best: _Best | None, losses: list[float], keep: bool) -> dict[str, torch.Tensor]:
    """Return all training state by name. keep: False only takes part in gathering sharded tensors, and returns empty
    ones."""

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        tensor = gathered(tensor.detach())
        if not keep:
            return tensor.new_empty(0)
        if is_sharded(trained):
            return tensor.contiguous().cpu()  # gathered weights may not fit on one GPU
        # copies may not fit on the GPU either, above all after running out of memory
        return tensor if tensor.is_contiguous() else tensor.cpu().contiguous()

    state = {"losses": torch.tensor(losses, dtype=torch.float64)}
    if best is not None:
        state["held"] = torch.tensor(best.errors, dtype=torch.float64)
        state |= {f"best.{i}": whole(weight) for i, weight in enumerate(best.weights)}
    for i, parameter in enumerate(trained):
        state[f"weight.{i}"] = whole(parameter)
        if average is not None:
            state[f"average.{i}"] = whole(average[i])
    return state | optimizer_state(optimizer, trained, whole)


def _resume(
    checkpoints: Checkpoints, trained, optimizer, kind: str, average, best: _Best | None
) -> tuple[int, list[float]]:
    """Restore all training state from the newest intact checkpoint; returns its step (0 if none) and the losses so far.

    kind: the optimizer's name. Raises ModelError if the checkpoint is of another model or optimizer.
    """
    newest = checkpoints.newest()
    if newest is None:
        return 0, []
    step, state = newest
    shapes = [state[key].shape for key in (f"weight.{i}" for i in range(len(trained) + 1)) if key in state]
    if shapes != [parameter.shape for parameter in trained]:
        raise ModelError(f"The checkpoints in {checkpoints.folder} belong to another model; choose an empty folder.")
    with torch.no_grad():
        for i, parameter in enumerate(trained):
            parameter.copy_(spread_like(state[f"weight.{i}"], parameter))
            if average is not None:
                average[i].copy_(spread_like(state[f"average.{i}"], parameter))
    load_optimizer_state(optimizer, trained, state, kind)
    if best is not None:
        best.errors = state["held"].tolist()
        best.weights = [state[f"best.{i}"].to(p.device) for i, p in enumerate(trained)]
    return step, state["losses"].tolist() if "losses" in state else []
