"""FSDP (Zhao et al., 2023): shards a UNet's weights, gradients, averages and optimizer state over the training
processes."""

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
    """Shard `pipe.unet` over the processes in this context; its blocks are gathered one at a time to compute.

    Results equal those of the whole UNet, in less memory. All processes enter and leave together; afterwards
    `pipe.unet` is a new, whole UNet in each. on: False changes nothing.
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
    # these reach all processes; after any other error the rest would never join the gathering
    except (Cancelled, Diverged):
        _put_together(pipe)
        raise
    _put_together(pipe)


def is_sharded(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether any of the tensors is sharded."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def alike(parameters: Iterable[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Split the parameters into lists of whole and of sharded ones: PyTorch's foreach functions cannot mix them."""
    lists: dict[bool, list] = {}
    for parameter in parameters:
        lists.setdefault(isinstance(parameter, DTensor), []).append(parameter)
    return list(lists.values())


def clip_gradients(parameters: list[torch.nn.Parameter], most: float) -> torch.Tensor:
    """Scale all gradients down to a joint norm of `most`, if it is larger; returns the norm before."""
    lists = [[p for p in group if p.grad is not None] for group in alike(parameters)]
    norms = [gathered(torch.nn.utils.get_total_norm([p.grad for p in group])) for group in lists]
    total = norms[0] if len(norms) == 1 else torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
    for group in lists:
        torch.nn.utils.clip_grads_with_norm_(group, most, total)
    return total


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a sharded tensor from all processes, which must all call this; others are returned as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Move a tensor that every process has whole to the parameter's device, and shard it like the parameter."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _put_together(pipe) -> None:
    spread = pipe.unet
    with torch.device("meta"):
        # fully_shard replaced the UNet's class by one derived from it
        whole = next(kind for kind in type(spread).__mro__ if not issubclass(kind, FSDPModule)).from_config(
            spread.config
        )
    state = {name: gathered(tensor.detach()) for name, tensor in spread.state_dict().items()}
    whole.load_state_dict(state, assign=True)
    whole.set_attn_processor(dict(spread.attn_processors))
    pipe.unet = whole.eval()
