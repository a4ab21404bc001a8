"""Checkpoints: folders `checkpoint-<step>`, written atomically with checksums; training resumes from the newest intact
one."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..files import appearing_folder, flush, sha256, storage_error

KEPT = 2
_STATE, _MANIFEST = "state.safetensors", "manifest.json"
log = logging.getLogger("dreampose.training")


def save_checkpoint(folder: Path, step: int, state: dict[str, torch.Tensor]) -> None:
    """Write a checkpoint, whole or not at all, then drop all but the newest KEPT. Raises StorageError."""
    final = folder / f"checkpoint-{step}"
    with appearing_folder(final) as temporary:
        save_file(state, temporary / _STATE)
        (temporary / _MANIFEST).write_text(json.dumps({_STATE: {"sha256": sha256(temporary / _STATE)}}))
        for name in (_STATE, _MANIFEST):
            flush(temporary / name)
        shutil.rmtree(final, ignore_errors=True)
    for old in list(_by_step(folder).values())[:-KEPT]:
        shutil.rmtree(old)


def newest_checkpoint(folder: Path) -> tuple[int, dict[str, torch.Tensor]] | None:
    """Return step and state of the newest intact checkpoint, None without any.

    Makes the folder, and removes damaged checkpoints and what a crash left half written. Raises StorageError if the
    folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    for left in folder.glob(".part.*.checkpoint-*"):
        shutil.rmtree(left)
    for step, path in reversed(_by_step(folder).items()):
        try:
            if json.loads((path / _MANIFEST).read_text())[_STATE]["sha256"] == sha256(path / _STATE):
                return step, load_file(path / _STATE)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        log.warning("%s is damaged and is not used.", path)
        shutil.rmtree(path)  # or it would count as one of those to keep
    return None


def _by_step(folder: Path) -> dict[int, Path]:
    found = {path.name.split("-", 1)[1]: path for path in folder.glob("checkpoint-*")}
    return {int(step): found[step] for step in sorted(filter(str.isdigit, found), key=int)}
