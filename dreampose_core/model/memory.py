"""Precision and memory: the numbers a device computes with, what is kept on it, and how much of it was needed."""

from __future__ import annotations

import gc
import logging
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import ModelError
from ..settings import Precision

log = logging.getLogger("dreampose.device")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def chosen_device(asked: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda". Raises ModelError where there is no GPU, or one that PyTorch is not
    built for."""
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ModelError("No CUDA device was found; choose --device cpu, or check the driver.")
    major, minor = torch.cuda.get_device_capability()
    found = (re.fullmatch(r"(?:sm|compute)_(\d+)(\d)\D?", name) for name in torch.cuda.get_arch_list())
    built = [(int(one[1]), int(one[2])) for one in found if one]
    if built and (major, minor) < min(built):
        least = ".".join(map(str, min(built)))
        raise ModelError(
            f"This GPU ({torch.cuda.get_device_name()}, compute capability {major}.{minor}) is older than this PyTorch "
            f"supports ({least} and above); install a PyTorch built for it, or choose --device cpu."
        )
    return "cuda"


def chosen_precision(device: str, asked: Precision = "auto") -> tuple[torch.dtype, str]:
    """The type of numbers, and why: bfloat16 where the GPU computes in it, else float16; float32 on the CPU. The reason
    is logged."""
    if asked != "auto":
        dtype, reason = _DTYPES[asked], f"{asked}, as it was asked for"
    elif device == "cpu":
        dtype, reason = torch.float32, "fp32, because the model runs on the CPU"
    elif torch.cuda.is_bf16_supported(including_emulation=False):
        dtype, reason = torch.bfloat16, f"bf16, which {torch.cuda.get_device_name()} computes in"
    else:
        dtype, reason = torch.float16, f"fp16, because {torch.cuda.get_device_name()} does not compute in bf16"
    log.info("The model computes in %s.", reason)
    return dtype, reason


def placed(pipe, device: str, low_memory: bool):
    """The pipeline on its device. On a GPU convolutions have their channels last and frames are decoded one by one;
    with low_memory components that do not compute wait in the host's memory. Raises ModelError where there is not
    enough."""
    if device == "cpu":
        return pipe.to(device)
    for module in (pipe.unet, pipe.vae):
        module.to(memory_format=torch.channels_last)
    pipe.vae.enable_slicing()
    if not low_memory:
        with enough_for("to load the model"):
            return pipe.to(device)
    pipe.enable_model_cpu_offload(device=device)
    return pipe


@contextmanager
def all_there(pipe) -> Iterator[None]:
    """In this context all components are on the device, also where they take turns on it: training needs them
    together."""
    device = pipe._execution_device
    offloaded = getattr(pipe, "_all_hooks", None)
    if offloaded:
        pipe.remove_all_hooks()
        pipe.to(device)
    try:
        yield
    finally:
        if offloaded:
            pipe.to("cpu")
            pipe.enable_model_cpu_offload(device=device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU's or the host's memory is full.

    Other errors of CUDA, for example an illegal memory access, are none of these: after them the process is of no use
    any more.
    """
    words = ("can't allocate memory", "not enough memory", "out of memory", "_status_alloc_failed")
    said = str(error).lower()
    _, cuda, told = said.partition("cuda error: ")
    said = (
        told.partition("\n")[0] if cuda else said
    )  # its first line says which; what follows is advice and where it was
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(w in said for w in words)
    )


def too_little(size: tuple[int, int]) -> ModelError:
    """The error where memory does not hold a single frame of (height, width)."""
    return _too_little(f"for a single frame of {size[0]}x{size[1]}")


def _too_little(what: str) -> ModelError:
    free = free_memory_mb()
    left = f"; the GPU has {free} MB free" if free is not None else ""
    return ModelError(
        f"There is not enough memory {what}{left}; close what else uses it, or try --low-memory or --device cpu."
    )


@contextmanager
def enough_for(what: str) -> Iterator[None]:
    """Raises ModelError where memory does not suffice in this context for `what`, for example "to load the model"."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_little(what) from error


def let_go() -> None:
    """Gives memory back that nobody uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory_mb() -> int | None:
    """What is free on the GPU; None without one."""
    return torch.cuda.mem_get_info()[0] >> 20 if torch.cuda.is_available() else None


@contextmanager
def peaks() -> Iterator[dict[str, int]]:
    """Fills the dict, at the end of the context, with "host_mb", the process's peak so far, and "gpu_mb", the
    context's, on a GPU."""
    found: dict[str, int] = {}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        yield found
    finally:
        found["host_mb"] = round(most_memory_mb())
        if torch.cuda.is_available():
            found["gpu_mb"] = torch.cuda.max_memory_allocated() >> 20


def most_memory_mb() -> float:
    """The most memory in MB that this process has held so far."""
    try:
        # getrusage counts in what the parent held when this process was started
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    except OSError:
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
