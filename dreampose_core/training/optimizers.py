"""The optimizers of training, their state as named tensors for checkpoints, and gradient checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import diffusers
import torch

from ..errors import InputError


def is_available(name: str) -> bool:
    """Whether this optimizer is installed and works."""
    with suppress(InputError):
        return bool(optimizer_class(name))
    return False


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Return AdamW with averages in 32 bits ("adamw"), or ("adamw8bit"; Dettmers et al., 2022) in 8 bits, for
    parameters of at least 4096 elements.

    Raises InputError if bitsandbytes is not installed.
    """
    if name == "adamw":
        return torch.optim.AdamW
    try:
        import bitsandbytes  # takes seconds to import
    except Exception as error:  # builds for another machine raise RuntimeError or OSError
        raise InputError(
            "The optimizer adamw8bit needs bitsandbytes, which is missing or does not fit this machine; "
            "please run: pip install -r requirements-train.txt"
        ) from error
    return bitsandbytes.optim.AdamW8bit


def make_optimizer(name: str, parameters: list[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Make an optimizer of `optimizer_class`; raises what that raises."""
    if name == "adamw8bit":
        for parameter in parameters:  # it processes numbers in memory order, but checkpoints store them contiguously
            parameter.data = parameter.data.contiguous()
    return optimizer_class(name)(parameters, lr=lr, weight_decay=0.01)


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as `optimizer.<parameter's number>.<name>`."""
    return {
        # 8-bit parameters share their quantization tables, but a safetensors file cannot store a tensor twice
        f"optimizer.{i}.{name}": value.clone() if name.startswith("qmap") else torch.as_tensor(value)
        for i, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], state: dict[str, torch.Tensor]
) -> None:
    """Restore the result of `optimizer_state`."""
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            parameter = parameters[int(number)]
            if name != "step":
                value = value.to(parameter.device)
            elif not value.is_floating_point():  # AdamW counts with a tensor on the CPU, 8-bit AdamW with an int
                value = value.item()
            optimizer.state[parameter][name] = value


@contextmanager
def gradient_checkpointing(on: bool, *networks: torch.nn.Module) -> Iterator[None]:
    """In this context the blocks of these UNets, VAEs and image encoders store no activations but compute them again in
    the backward pass; gradients do not change.

    Trades time for memory: about a fifth more time (docs/experiments.md). on: False changes nothing.
    """

    def switch(word: str) -> None:
        for network in networks if on else ():
            diffusers_own = isinstance(network, diffusers.ModelMixin)
            name = f"{word}_gradient_checkpointing" if diffusers_own else f"activation_checkpointing_{word}"
            getattr(network, name)()

    try:
        switch("enable")
        yield
    finally:
        switch("disable")
