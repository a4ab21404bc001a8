"""Self-attention that looks further than the frame: at the photo's features (as in Animate Anyone, section 3.2), at the frame before.

For the photo, its latents go through the same UNet once, with their own pose and without noise; what its self-attentions see there is
kept, and keys and values of every frame's self-attentions are extended by it; likewise by what they see of the frame before. Nothing is
added to the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from diffusers.models.attention_processor import AttnProcessor2_0


class WiderProcessor(AttnProcessor2_0):
    """Self-attention that keeps what it sees, or attends also to what was kept: (1 or B, n, c), expanded to the batch; and, where the
    batch is made of runs of `run` consecutive frames, to the frame before, the first frame of a run to the second."""

    def __init__(self):
        super().__init__()
        self.keeping, self.kept, self.run = False, None, 1

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        """As `AttnProcessor2_0`; hidden_states (B, n, c)."""
        seen = [hidden_states]
        if self.keeping:
            self.kept = hidden_states
        elif self.kept is not None:
            seen.append(self.kept.expand(len(hidden_states), -1, -1))
        if self.run > 1:
            runs = hidden_states.unflatten(0, (-1, self.run))  # (B, n, c) -> (B / run, run, n, c)
            seen.append(torch.cat([runs[:, 1:2], runs[:, :-1]], 1).flatten(0, 1))
        if len(seen) > 1:
            encoder_hidden_states = torch.cat(seen, 1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


def install(unet) -> None:
    """Gives every self-attention of the UNet a `WiderProcessor`; its weights stay as they are."""
    unet.set_attn_processor({
        name: WiderProcessor() if name.endswith("attn1.processor") else processor for name, processor in unet.attn_processors.items()
    })


def reference_states(unet, given: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
    """What the self-attentions see of photos: `given` as from `conditioning.photo_input`; tokens (B, n, d)."""
    processors = _processors(unet)
    for processor in processors:
        processor.keeping = True
    try:
        unet(given, 0, tokens)
        return [processor.kept for processor in processors]
    finally:
        for processor in processors:
            processor.keeping, processor.kept = False, None


@contextmanager
def attending(unet, states: list[torch.Tensor] | None, run: int = 1) -> Iterator[None]:
    """In this context the UNet's self-attentions also look at `states`, one for each of them, and at the frame before where the batch
    is made of runs of `run` consecutive frames; None and 1 change nothing."""
    processors = _processors(unet)
    for processor, state in zip(processors, states or [None] * len(processors)):
        processor.kept, processor.run = state, run
    try:
        yield
    finally:
        for processor in processors:
            processor.kept, processor.run = None, 1


def again(unet) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts for `torch.utils.checkpoint`: one for now, and one for when a part of the UNet is computed again for its gradients, in which
    self-attentions look at what they look at now. A network without them is left alone."""
    processors = _processors(unet) if hasattr(unet, "attn_processors") else []
    now = [(processor.keeping, processor.kept, processor.run) for processor in processors]

    @contextmanager
    def as_now() -> Iterator[None]:
        later = [(processor.keeping, processor.kept, processor.run) for processor in processors]
        try:
            for processor, state in zip(processors, now):
                processor.keeping, processor.kept, processor.run = state
            yield
        finally:
            for processor, state in zip(processors, later):
                processor.keeping, processor.kept, processor.run = state

    return nullcontext(), as_now()


def _processors(unet) -> list[WiderProcessor]:
    return [processor for processor in unet.attn_processors.values() if isinstance(processor, WiderProcessor)]
