"""FSDP (Zhao et al., 2023): a UNet's weights, gradients, averages and optimizer state, spread over the processes that
train together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import Cancelled, Diverged
from .distributed import Processes


@contextmanager
def sharded(on: bool, pipe) -> Iterator[None]:
    """In this context each process holds its share of `pipe.unet`, whose blocks are put together one after the other as
    they compute.

    It computes what the whole UNet computes, in less memory. All processes enter and leave together; afterwards each
    has the whole UNet again, a new one. on: False changes nothing.
    """
    if not on:
        yield
        return
    unet = pipe.unet
    mesh = init_device_mesh(unet.device.type, (Processes().count,))
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks, unet):
        fully_shard(block, mesh=mesh)
    try:
        yield
    except (
        Cancelled,
        Diverged,
    ):  # in all processes; at any other error the others are somewhere else, and would be waited for in vain
        _put_together(pipe)
        raise
    _put_together(pipe)


def is_sharded(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether some of them are spread over the processes."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def alike(parameters: Iterable[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """The parameters in lists that PyTorch's functions of many tensors take: whole ones and spread ones, never both."""
    lists: dict[bool, list] = {}
    for parameter in parameters:
        lists.setdefault(isinstance(parameter, DTensor), []).append(parameter)
    return list(lists.values())


def clip_gradients(parameters: list[torch.nn.Parameter], most: float) -> torch.Tensor:
    """Scales all gradients down to a norm of `most` together, if it is larger; returns what it was."""
    lists = [[p for p in some if p.grad is not None] for some in alike(parameters)]
    norms = [gathered(torch.nn.utils.get_total_norm([p.grad for p in some])) for some in lists]
    total = norms[0] if len(norms) == 1 else torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
    for some in lists:
        torch.nn.utils.clip_grads_with_norm_(some, most, total)
    return total


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, put together from all processes if it is spread: then every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A tensor that every process has whole, on the parameter's device, and spread as the parameter is."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _put_together(pipe) -> None:
    spread = pipe.unet
    with torch.device("meta"):
        # FSDP has given the UNet a class derived from its own
        whole = next(kind for kind in type(spread).__mro__ if not issubclass(kind, FSDPModule)).from_config(
            spread.config
        )
    state = {name: gathered(tensor.detach()) for name, tensor in spread.state_dict().items()}
    whole.load_state_dict(state, assign=True)
    whole.set_attn_processor(dict(spread.attn_processors))
    pipe.unet = whole.eval()
