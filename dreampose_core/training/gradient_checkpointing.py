"""Gradient checkpointing: recompute a block's activations in the backward pass instead of storing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint


@contextmanager
def gradient_checkpointing(on: bool, *networks: torch.nn.Module) -> Iterator[None]:
    """In this context the blocks of these UNets, VAEs and image encoders store no activations; gradients do not change.

    Trades time for memory: about a fifth more time (docs/experiments.md). on: False changes nothing.
    """
    try:
        for network in networks if on else ():
            # a transformers model, where it works in training mode only
            if hasattr(network, "activation_checkpointing_enable"):
                network.activation_checkpointing_enable({"use_reentrant": False})
            else:
                network.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))
        yield
    finally:
        for network in networks if on else ():
            if hasattr(network, "activation_checkpointing_disable"):
                network.activation_checkpointing_disable()
            else:
                network.disable_gradient_checkpointing()
