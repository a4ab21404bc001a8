"""Out-of-memory fallback for tuning: ever smaller settings, each with a notice."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .recipe import SubjectRecipe, recipe_named


@dataclass(frozen=True)
class Rung:
    """A way to tune a subject. name: stored with an interrupted tuning. recipe: a name in RECIPES; how: its settings.

    notice: sentence for the result; "" on the highest rung, which is what was requested.
    """

    name: str
    recipe: str
    how: SubjectRecipe
    notice: str = ""

    def continues(self, before: Rung) -> bool:
        """Whether it continues from the checkpoints of `before`, which fit the same weights and optimizer only."""
        return (self.recipe, self.how.optimizer) == (before.recipe, before.how.optimizer)


def ladder(recipe: str, steps: int | None = None) -> list[Rung]:
    """Return the rungs of a recipe, the highest first; each needs less memory than the one before.

    steps: see `recipe_named`. "twice" gives the same weights, "one by one" the same up to rounding. "8 bits" rounds the
    optimizer's state, which is half of the memory when all weights are trained. The last rung below other recipes is
    `fast` in the least memory, which tunes a LoRA and decodes crops of half the side.
    """
    how = recipe_named(recipe, steps)
    rungs = [Rung("full", recipe, how)]

    def lower(name: str, change: str, **less) -> None:
        rungs.append(Rung(name, recipe, replace(rungs[-1].how, **less), f"Tuning did not fit in memory, so {change}."))

    lower("twice", "parts of it were computed twice, which takes longer and gives the same result", checkpointing=True)
    if max(how.batch_size, how.decoder_batch_size) > 1:
        lower(
            "one by one",
            "samples were processed one by one and parts were computed twice, which takes longer and gives the same "
            "result",
            one_by_one=True,
        )
    if how.rank is None:
        lower("8 bits", "the optimizer stored its state in 8 bits and parts were computed twice", optimizer="adamw8bit")
    if recipe != "fast":
        least = replace(recipe_named("fast"), checkpointing=True, one_by_one=True)
        change = (
            f"Tuning did not fit in memory, so the recipe fast was used instead of {recipe}, with samples processed "
            "one by one."
        )
        rungs.append(Rung("fast", "fast", least, change))
    return rungs
