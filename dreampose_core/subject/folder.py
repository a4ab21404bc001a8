"""A subject folder: the weights that tuning changed in a base model, and its photos; save, check, load and unload
them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .. import __version__
from ..errors import InputError, ModelError
from ..files import appearing_folder, flush, sha256
from ..media import write_png
from ..poses import PoseSequence, write_poses

LORA = "subject"  # the name of the one LoRA adapter a model may carry
_LORA_FILE, _UNET_FILE = "unet_lora.safetensors", "unet.safetensors"  # a subject has one of them
_ADAPTER_FILE, _DECODER_FILE = "adapter.safetensors", "vae_decoder.safetensors"


@dataclass(frozen=True)
class Subject:
    """The content of a subject folder's subject.json.

    key: of the photos and the options of tuning. base: fingerprint of the subject's base model. recipe: the one used,
    also after an out-of-memory fallback. losses: of UNet and decoder steps. knows_poses: whether the photos' DensePose
    was used in tuning. notices: sentences about fallbacks in tuning.
    """

    key: str
    base: str
    recipe: str
    seed: int
    knows_poses: bool
    losses: dict[str, list[float]]
    notices: list[str] = field(default_factory=list)
    version: str = __version__


def fingerprint(pipe) -> str:
    """Return a short name for a model's weights: a hash of names, shapes and the first values of every tensor.

    Values are hashed as bfloat16, so the fingerprint does not depend on the precision a model is loaded in; the one
    exception is a float32 folder loaded in float16.
    """
    digest = hashlib.sha256()
    for part in ("unet", "vae", "adapter", "image_encoder"):
        for name, tensor in sorted(getattr(pipe, part).state_dict().items()):
            digest.update(f"{part}.{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten()[:64].detach().to(torch.bfloat16).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def subject_key(photos: list[np.ndarray], image_poses: PoseSequence | None, recipe: str, seed: int, base: str) -> str:
    """Return the key of the subject that this tuning produces, so that the same photos are never tuned to twice."""
    digest = hashlib.sha256(f"1 {recipe} {seed} {base}".encode())
    arrays = list(photos)
    if image_poses is not None:
        digest.update(image_poses.charts.encode())
        arrays += [array for array in (image_poses.parts, image_poses.uv) if array is not None]
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def save_subject(
    pipe, folder: Path, subject: Subject, photos: list[np.ndarray], image_poses: PoseSequence | None
) -> None:
    """Write the tuned weights of `pipe` and their photos; the folder appears whole or not at all.

    photos: uint8 (H, W, 3) each. Raises StorageError if the disk is full, InputError if `folder` is no subject.
    """
    check_subject_folder(folder)
    with appearing_folder(folder) as temporary:
        modules = {_ADAPTER_FILE: pipe.adapter, _DECODER_FILE: pipe.vae.decoder}
        if _has_lora(pipe.unet):
            pipe.unet.save_lora_adapter(temporary, adapter_name=LORA, weight_name=_LORA_FILE)
        else:
            modules[_UNET_FILE] = pipe.unet
        for name, module in modules.items():
            state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
            save_file(state, temporary / name)
        for i, photo in enumerate(photos):
            write_png(photo, temporary / f"photo_{i:03d}.png")
        if image_poses is not None:
            write_poses(image_poses, temporary / "photo_poses.npz")
        sums = {file.name: sha256(file) for file in sorted(temporary.glob("*.safetensors"))}
        (temporary / "subject.json").write_text(json.dumps({**vars(subject), "sha256": sums}, indent=1))
        for file in temporary.iterdir():
            flush(file)
        shutil.rmtree(folder, ignore_errors=True)


def check_subject_folder(folder: Path) -> None:
    """Raise InputError if `folder` holds files that are no subject and must not be replaced."""
    if folder.exists() and not (folder / "subject.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not a subject; choose a new folder for the subject.")


def read_subject(folder: str | Path, base: str | None = None) -> Subject:
    """Read the subject in `folder` and check its files against their SHA-256.

    base: fingerprint of the model it must belong to. Raises ModelError with one sentence if it cannot be used.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / "subject.json").read_text())
        sums = content.pop("sha256")
        subject = Subject(**content)
        unet = _UNET_FILE if _UNET_FILE in sums else _LORA_FILE
        damaged = [name for name in (unet, _ADAPTER_FILE, _DECODER_FILE) if sha256(folder / name) != sums[name]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder} is not a subject folder, or it is incomplete; tune the subject again.") from error
    if damaged:
        raise ModelError(f"The subject in {folder} is damaged ({', '.join(damaged)}); tune it again.")
    if base is not None and subject.base != base:
        raise ModelError(
            f"The subject in {folder} was tuned from another model; choose that model, or tune the subject again."
        )
    return subject


@contextmanager
def subject_loaded(pipe, folder: str | Path) -> Iterator[None]:
    """Load the weights of a subject that `read_subject` has checked onto `pipe` for the duration of the context;
    afterwards the base is restored exactly."""
    folder = Path(folder)
    whole = (folder / _UNET_FILE).is_file()
    with base_restored(pipe, whole):
        if whole:
            pipe.unet.load_state_dict(load_file(folder / _UNET_FILE))
        else:
            pipe.unet.load_lora_adapter(
                folder, prefix=None, adapter_name=LORA, weight_name=_LORA_FILE, use_safetensors=True
            )
        pipe.adapter.load_state_dict(load_file(folder / _ADAPTER_FILE))
        pipe.vae.decoder.load_state_dict(load_file(folder / _DECODER_FILE))
        yield


@contextmanager
def base_restored(pipe, whole: bool = False) -> Iterator[None]:
    """Undo all tuning of `pipe` at the end of the context: unload the LoRA, copy the other weights back.

    whole: also back up all weights of the UNet, in CPU memory, and copy them back.
    """
    tuned = (pipe.unet, pipe.adapter, pipe.vae.decoder) if whole else (pipe.adapter, pipe.vae.decoder)

    def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {key: value.detach().to("cpu", copy=True) for key, value in module.state_dict().items()}

    kept = [(module, copied(module)) for module in tuned]
    try:
        yield
    finally:
        if _has_lora(pipe.unet):
            pipe.unet.unload_lora()
        for module, state in kept:
            device = next(module.parameters()).device
            # in place of the tuned weights, whose precision and memory layout may differ
            module.load_state_dict(state, assign=True)
            module.to(device)
        for module in (pipe.unet, pipe.vae, pipe.adapter, pipe.image_encoder):
            module.eval().requires_grad_(False)


def _has_lora(unet: torch.nn.Module) -> bool:
    return LORA in getattr(unet, "peft_config", {})
