"""Load models from folders or the hub onto a device, and save them."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers.configuration_utils import FrozenDict
from safetensors import SafetensorError

from ..errors import ModelError
from ..files import os_error, storage_error
from ..settings import MODELS, Precision
from . import memory
from .pipeline import DreamPosePipeline
from .safety import SafetyChecker
from .stable_diffusion import is_hub_id, why_not_loaded

_SMALL = 100 << 20  # bytes of a model's weights


def load_pipeline(
    model: str | Path,
    device: str = "auto",
    precision: Precision = "auto",
    low_memory: bool = False,
    safety_checker: str | Path | None = None,
) -> DreamPosePipeline:
    """Load a model onto a device in the precision that suits it; `pipe.precision` names the precision and the reason.

    model: one of `settings.MODELS`, a model folder, or a hub id "owner/name". device: "auto", "cpu" or "cuda".
    low_memory: see `memory`. safety_checker: Stable Diffusion 1.x, a folder or hub id, whose checker inspects every
    frame; None for no check.
    Raises ModelError with one sentence if there is no such model or device.
    """
    device = memory.chosen_device(device)
    path = MODELS.get(str(model)) or Path(model)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            inside = [found.parent for found in sorted(path.glob("*/model_index.json"))]
            todo = f"; give {inside[0]}" if inside else ""
            raise ModelError(f"{path} is not a model folder: it has no model_index.json{todo}.")
    elif not is_hub_id(model):
        raise ModelError(f"There is no model folder at {path}; give a folder, a hub id such as owner/name, or mini.")
    dtype, reason = memory.chosen_precision(device, precision)
    try:
        pipe = DreamPosePipeline.from_pretrained(
            path if path.is_dir() else str(model), dtype=dtype, use_safetensors=True
        )
    except Exception as error:  # diffusers, transformers and safetensors raise many kinds on broken folders
        raise ModelError(why_not_loaded(error, f"model {model}", model)) from error
    pipe.set_progress_bar_config(disable=True)
    pipe.precision = reason
    if safety_checker is not None:
        with memory.enough_for("to load the safety checker"):
            pipe.safety_checker = SafetyChecker.from_stable_diffusion(safety_checker, "cpu" if low_memory else device)
    return memory.placed(pipe, device, low_memory)


def save_model(pipe: DreamPosePipeline, folder: Path) -> None:
    """Write the model folder in fp16; models below 100 MB in safetensors shards below 9 MB, to fit in a repository.

    Raises StorageError.
    """
    parts = {name: copy.deepcopy(part) for name, part in pipe.components.items()}
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.to("cpu", torch.float16)
        if "_name_or_path" in getattr(part, "_internal_dict", {}):  # do not publish local paths
            part._internal_dict = FrozenDict({k: value for k, value in part.config.items() if k != "_name_or_path"})
    weights = [weight for part in parts.values() if isinstance(part, torch.nn.Module) for weight in part.parameters()]
    small = sum(weight.numel() * weight.element_size() for weight in weights) < _SMALL
    model = DreamPosePipeline(**parts, model_config=pipe.model_config)
    try:
        model.save_pretrained(folder, max_shard_size="8MB" if small else "5GB")
    except (OSError, SafetensorError) as error:
        raise storage_error(error if isinstance(error, OSError) else os_error(error), folder) from error
