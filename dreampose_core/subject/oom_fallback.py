"""The memory ladder of tuning: where memory does not hold it, the same with less of it, rung by rung, and every rung is
said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from ..model import memory
from ..training.optimizers import is_available
from .folder import base_restored
from .recipe import SubjectRecipe, recipe_named

T = TypeVar("T")


@dataclass(frozen=True)
class Rung:
    """A way to tune a subject. name: in what is kept of an interrupted tuning. recipe: one of RECIPES, and `how` it is
    run here.
    notice: the sentence that goes with the result; "" on the highest rung, which is what was asked for."""

    name: str
    recipe: str
    how: SubjectRecipe
    notice: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether this machine has what it needs."""
        return is_available(self.how.optimizer)


def ladder(recipe: str, steps: int | None = None) -> list[Rung]:
    """The rungs of a recipe, the highest first; each needs less memory than the one before. steps: see `recipe_named`.

    "twice" gives the same weights, "one by one" the same up to rounding. "8 bits" rounds what the optimizer remembers,
    half of what whole weights need in training. Below these there is another recipe, `fast` in the least memory, which
    tunes a LoRA and decodes halves.
    """
    how = recipe_named(recipe, steps)
    rungs = [Rung("full", recipe, how)]

    def lower(name: str, so: str, **less) -> None:
        rungs.append(Rung(name, recipe, replace(rungs[-1].how, **less), f"Memory did not hold the tuning, so {so}."))

    lower(
        "twice",
        "part of it was computed twice instead of kept, which takes longer and gives the same",
        checkpointing=True,
    )
    if max(how.batch_size, how.decoder_batch_size) > 1:
        lower(
            "one by one",
            "its samples were taken one by one and part of it was computed twice, which takes longer and gives the "
            "same",
            one_by_one=True,
        )
    if how.rank is None:
        lower("8 bits", "its optimizer remembered in 8 bits and part of it was computed twice", optimizer="adamw8bit")
    if recipe != "fast":
        least = replace(recipe_named("fast"), checkpointing=True, one_by_one=True)
        so = (
            f"Memory did not hold the recipe {recipe}, so the person was tuned to with the recipe fast, its "
            "samples taken one by one."
        )
        rungs.append(Rung("fast", "fast", least, so))
    return rungs


def on_ladder(
    pipe, rungs: list[Rung], start: str, tune: Callable[[Rung], T], on_lower: Callable[[Rung, Rung], None]
) -> T:
    """What `tune` returns on the highest of the rungs, from the one named `start` on, that memory holds; `pipe` is
    afterwards, and before each rung, as it was.

    on_lower(before, rung): called when memory did not hold `before`. On the lowest rung its error is raised.
    """
    at = [rung.name for rung in rungs].index(start)
    while True:
        rung = rungs[at]
        with base_restored(pipe, whole=rung.how.rank is None):
            try:
                return tune(rung)
            except (RuntimeError, MemoryError) as error:
                if rung is rungs[-1] or not memory.is_out_of_memory(error):
                    raise
            # out here, where the error no longer holds what was computed, and before weights are given back
            memory.let_go()
        at = next(index for index in range(at + 1, len(rungs)) if rungs[index].is_possible)
        on_lower(rung, rungs[at])
