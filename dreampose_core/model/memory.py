"""Precision and memory: choose device and dtype, place the model, and handle running out of memory."""

from __future__ import annotations

import gc
import logging
import re
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ..errors import ModelError
from ..settings import Precision

Made = TypeVar("Made")
log = logging.getLogger("dreampose.device")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def chosen_device(asked: str) -> str:
    """Resolve "auto", "cpu" or "cuda" to "cpu" or "cuda".

    Raises ModelError if the GPU is missing or too old for this PyTorch.
    """
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ModelError("No CUDA device was found; choose --device cpu, or check the driver.")
    major, minor = torch.cuda.get_device_capability()
    built = [divmod(int(number), 10) for number in re.findall(r"_(\d+)", " ".join(torch.cuda.get_arch_list()))]
    if built and (major, minor) < min(built):
        least = ".".join(map(str, min(built)))
        raise ModelError(
            f"This GPU ({torch.cuda.get_device_name()}, compute capability {major}.{minor}) is older than this PyTorch "
            f"supports ({least} and above); install a PyTorch built for it, or choose --device cpu."
        )
    return "cuda"


def chosen_precision(device: str, asked: Precision = "auto") -> tuple[torch.dtype, str]:
    """Return the dtype and the reason, and log it: bfloat16 on GPUs that support it, else float16; float32 on the
    CPU."""
    if asked != "auto":
        dtype, reason = _DTYPES[asked], f"{asked}, as requested"
    elif device == "cpu":
        dtype, reason = torch.float32, "fp32, because the model runs on the CPU"
    elif torch.cuda.is_bf16_supported(including_emulation=False):
        dtype, reason = torch.bfloat16, f"bf16, which {torch.cuda.get_device_name()} computes in"
    else:
        dtype, reason = torch.float16, f"fp16, because {torch.cuda.get_device_name()} does not compute in bf16"
    log.info("The model computes in %s.", reason)
    return dtype, reason


def placed(pipe, device: str, low_memory: bool):
    """Move the pipeline to its device.

    On a GPU convolutions use channels-last layout and frames are decoded one by one; with low_memory idle components
    wait in host memory. Raises ModelError if memory is too small.
    """
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
    """Keep all components on the device in this context, even with low_memory: training needs them together."""
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
    """Whether an error means that GPU or host memory is full.

    Other CUDA errors, for example an illegal memory access, are not: after those the process is unusable.
    """
    words = ("can't allocate memory", "not enough memory", "out of memory", "_status_alloc_failed")
    message = str(error).lower()
    _, cuda, details = message.partition("cuda error: ")
    # only the first line of a CUDA error names it; advice and location follow
    message = details.partition("\n")[0] if cuda else message
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(w in message for w in words)
    )


def halving(
    batches: Sequence[range],
    most: int,
    make: Callable[[range], np.ndarray],
    size: tuple[int, int],
    on_smaller: Callable[[int], None] | None = None,
) -> Iterator[tuple[range, np.ndarray]]:
    """Yield pieces of each batch, at most `most` long, with the result of `make`; when out of memory, halve `most`
    for the rest.

    on_smaller(most): called on each halving. size: (height, width) of a frame, for the error. Raises ModelError if
    memory is too small for a single frame.
    """
    with enough_for(f"for a single frame of {size[0]}x{size[1]}"):
        for batch in batches:
            while batch:
                numbers = batch[:most]
                if (made := unless_full(partial(make, numbers), last=len(numbers) == 1)) is None:
                    most = len(numbers) // 2
                    if on_smaller is not None:
                        on_smaller(most)
                else:
                    yield numbers, made
                    batch = batch[len(numbers) :]


def unless_full(make: Callable[[], Made], last: bool) -> Made | None:
    """Return what `make` returns, or free memory and return None if it ran out of it; the `last` attempt raises."""
    try:
        return make()
    except (RuntimeError, MemoryError) as error:
        if last or not is_out_of_memory(error):
            raise
    let_go()  # outside of except, where the error no longer keeps tensors alive
    return None


@contextmanager
def enough_for(what: str) -> Iterator[None]:
    """Raise ModelError if memory runs out in this context. what: for the error, for example "to load the model"."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free = f"; the GPU has {free_memory_mb()} MB free" if torch.cuda.is_available() else ""
        todo = "close what else uses it, or try --low-memory or --device cpu"
        raise ModelError(f"There is not enough memory {what}{free}; {todo}.") from error


def let_go() -> None:
    """Free unused memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory_mb() -> int | None:
    """Return the free memory of the GPU in MB, or None without a GPU."""
    return torch.cuda.mem_get_info()[0] >> 20 if torch.cuda.is_available() else None


@contextmanager
def peaks() -> Iterator[dict[str, int]]:
    """Yield a dict that is filled at the end of the context: "host_mb", the process's peak so far, and on a GPU
    "gpu_mb", the context's peak."""
    peak: dict[str, int] = {}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        yield peak
    finally:
        peak["host_mb"] = round(most_memory_mb())
        if torch.cuda.is_available():
            peak["gpu_mb"] = torch.cuda.max_memory_allocated() >> 20


def most_memory_mb() -> float:
    """Return the peak memory of this process so far in MB."""
    try:
        # getrusage would include what the parent held when it started this process
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    except OSError:
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
