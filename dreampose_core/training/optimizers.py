"""The optimizers of training, and their state as named tensors for checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import InputError, ModelError
from .sharding import spread_like

OPTIMIZERS = {"adamw": "exp_avg", "adamw8bit": "state1"}
"""Each name, and the key of the optimizer's average of a parameter's gradients."""


def is_available(name: str) -> bool:
    """Whether this optimizer is installed and works."""
    try:
        optimizer_class(name)
    except InputError:
        return False
    return True


def make_optimizer(
    name: str, groups: list[list[torch.nn.Parameter]], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Make an optimizer of `optimizer_class` for all groups' parameters; raises what that raises."""
    if name == "adamw8bit":
        for parameter in (parameter for group in groups for parameter in group):
            # it processes numbers in memory order, but checkpoints store them contiguously
            parameter.data = parameter.data.contiguous()
    return optimizer_class(name)([{"params": group} for group in groups], lr=lr, weight_decay=weight_decay)


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Return AdamW with averages in 32 bits, or ("adamw8bit"; Dettmers et al., 2022) in 8 bits, for parameters of at
    least 4096 elements.

    Raises InputError for other names, and if bitsandbytes is not installed.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"There is no optimizer {name}; give one of {', '.join(OPTIMIZERS)}.")
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


def optimizer_state(
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    whole: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return the optimizer's state: tensors as `optimizer.<parameter's number>.<name>`, plain numbers as
    `number.<...>.<name>`.

    whole: converts each tensor for storage.
    """
    state, seen = {}, set()
    for i, parameter in enumerate(parameters):
        for name, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, torch.Tensor):
                state[f"number.{i}.{name}"] = torch.tensor(value)
                continue
            # 8-bit parameters share their quantization table, but a safetensors file cannot store a tensor twice
            value = whole(value)
            state[f"optimizer.{i}.{name}"] = value.clone() if value.data_ptr() in seen else value
            seen.add(value.data_ptr())
    return state


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], state: dict[str, torch.Tensor], name: str
) -> None:
    """Restore the result of `optimizer_state` for an optimizer of this name; "adamw8bit" also accepts AdamW's, which it
    rounds. Raises ModelError for another optimizer's."""
    for key, value in state.items():
        kind, _, rest = key.partition(".")
        if kind not in ("optimizer", "number"):
            continue
        number, _, inner = rest.partition(".")
        remembered = optimizer.state[parameters[int(number)]]
        # AdamW keeps its step count on the CPU
        remembered[inner] = (
            value.item()
            if kind == "number"
            else value
            if inner == "step"
            else spread_like(value, parameters[int(number)])
        )
    if name == "adamw8bit":
        _round(optimizer)
    if any(remembered and OPTIMIZERS[name] not in remembered for remembered in optimizer.state.values()):
        raise ModelError(
            f"The checkpoints are of another optimizer than {name}; resume with that one, or choose an empty folder."
        )


@torch.no_grad()
def _round(optimizer: torch.optim.Optimizer) -> None:
    """Convert AdamW's state to that of 8-bit AdamW, in place."""
    from bitsandbytes.functional import quantize_blockwise

    for group_index, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if "exp_avg" not in (before := optimizer.state[parameter]):
                continue
            optimizer.state[parameter] = {}
            optimizer.init_state(group, parameter, group_index, index)
            after = optimizer.state[parameter]
            after["step"] = int(before["step"])
            for number, name in ((1, "exp_avg"), (2, "exp_avg_sq")):
                value = before[name]
                # quantized in blocks of 256 numbers: each is an entry of a table times the block's largest value
                if f"qmap{number}" in after:
                    value, block = quantize_blockwise(value, code=after[f"qmap{number}"], blocksize=256)
                    after[f"absmax{number}"].copy_(block.absmax)
                after[f"state{number}"].copy_(value)
