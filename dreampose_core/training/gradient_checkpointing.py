"""Gradient checkpointing: what a block computed on the way forward is computed again on the way back, instead of kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.checkpoint import checkpoint

from ..attention import again


@contextmanager
def gradient_checkpointing(on: bool, *networks: torch.nn.Module) -> Iterator[None]:
    """In this context the blocks of these UNets, VAEs and image encoders keep no activations; gradients stay what they are.

    Memory for time: about a fifth more of it (docs/experiments.md). on: False changes nothing.
    """
    try:
        for network in networks if on else ():
            if hasattr(network, "activation_checkpointing_enable"):  # of transformers, where it works in training mode only
                network.activation_checkpointing_enable({"use_reentrant": False})
            else:
                network.enable_gradient_checkpointing(_block_function(network))
        yield
    finally:
        for network in networks if on else ():
            if hasattr(network, "activation_checkpointing_disable"):
                network.activation_checkpointing_disable()
            else:
                network.disable_gradient_checkpointing()


def _block_function(network: torch.nn.Module):
    """What diffusers calls for each block."""

    def run(block, *args):
        return checkpoint(block, *args, use_reentrant=False, context_fn=lambda: again(network))

    return run
