"""The subject recipes: steps, learning rates and sampling of fine-tuning (paper, section 4.4), and what each falls back
to when memory is too small."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple


@dataclass(frozen=True)
class SubjectRecipe:
    """How to fine-tune a subject.

    unet_steps: steps of the UNet, on `batch_size` random crops each. rank: of the UNet's LoRA, None to tune all of its
    weights. zoom: the smallest crop, as a share of the photo's side; crops prevent the network from tying clothes to
    places in the picture (paper: texture sticking). decoder_steps: steps of the decoder, on `decoder_batch_size` such
    crops; a random part with `decoder_part` of their sides is decoded, which gives more samples for the same work.
    views: number of crops that are made once, with all the networks' inputs, and reused; part of the person is held
    back from them, and the weights that do best there are kept; some are turned, see `views.Source`. None: every sample
    is a new crop, and nothing is held back.
    one_by_one, checkpointing, optimizer: save memory, see `ladder`: process a step's samples one at a time, use
    gradient checkpointing, use another optimizer. They do not affect a subject's key.
    """

    unet_steps: int = 50
    decoder_steps: int = 120
    unet_lr: float = 5e-4
    decoder_lr: float = 3e-4
    batch_size: int = 4
    decoder_batch_size: int = 2
    decoder_part: float = 0.5
    rank: int | None = 8
    zoom: float = 0.7
    person_weight: float = 4.0
    views: int | None = 24
    one_by_one: bool = field(default=False, repr=False)
    checkpointing: bool = field(default=False, repr=False)
    optimizer: str = field(default="adamw", repr=False)


RECIPES = {
    "fast": SubjectRecipe(),
    "paper": SubjectRecipe(
        unet_steps=500,
        decoder_steps=1500,
        unet_lr=1e-5,
        decoder_lr=5e-5,
        batch_size=1,
        decoder_batch_size=1,
        decoder_part=1,
        rank=None,
        views=None,
    ),
}


def recipe_named(name: str, steps: int | None = None) -> SubjectRecipe:
    """Return one of RECIPES; `steps` replaces the UNet's steps and scales the decoder's accordingly."""
    recipe = RECIPES[name]
    if steps is None:
        return recipe
    return replace(recipe, unet_steps=steps, decoder_steps=round(steps * recipe.decoder_steps / recipe.unet_steps))


class Rung(NamedTuple):
    """A way to tune a subject. name: stored with an interrupted tuning. recipe: a name in RECIPES; how: its settings.

    notice: sentence for the result; "" on the highest rung, which is what was requested.
    """

    name: str
    recipe: str
    how: SubjectRecipe
    notice: str = ""


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

    same = "computed twice, which takes longer and gives the same result"
    lower("twice", f"parts of it were {same}", checkpointing=True)
    if max(how.batch_size, how.decoder_batch_size) > 1:
        lower("one by one", f"samples were processed one by one and parts were {same}", one_by_one=True)
    if how.rank is None:
        lower("8 bits", "the optimizer stored its state in 8 bits and parts were computed twice", optimizer="adamw8bit")
    if recipe != "fast":
        least = replace(recipe_named("fast"), checkpointing=True, one_by_one=True)
        change = f"the recipe fast was used instead of {recipe}, with samples processed one by one"
        rungs.append(Rung("fast", "fast", least, f"Tuning did not fit in memory, so {change}."))
    return rungs
