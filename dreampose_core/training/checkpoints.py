"""Checkpoints: folders written atomically with checksums; training resumes from the newest intact one."""

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


class Checkpoints:
    """The folders `checkpoint-<step>` in `folder`, each of state.safetensors and manifest.json (its SHA-256).

    Creating this object removes checkpoints that a crash left half written. Raises StorageError if the folder cannot be
    made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        for left in folder.glob(".part.*.checkpoint-*"):
            shutil.rmtree(left)

    def save(self, step: int, state: dict[str, torch.Tensor]) -> None:
        """Write a checkpoint, whole or not at all, then drop all but the newest KEPT. Raises StorageError."""
        final = self.folder / f"checkpoint-{step}"
        with appearing_folder(final) as temporary:
            save_file(state, temporary / _STATE)
            (temporary / _MANIFEST).write_text(json.dumps({_STATE: {"sha256": sha256(temporary / _STATE)}}))
            for name in (_STATE, _MANIFEST):
                flush(temporary / name)
            shutil.rmtree(final, ignore_errors=True)
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old)

    def newest(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """Return step and state of the newest intact checkpoint, None without any; damaged ones are logged and
        renamed."""
        for path in reversed(self._all()):
            try:
                if json.loads((path / _MANIFEST).read_text())[_STATE]["sha256"] == sha256(path / _STATE):
                    return _step(path), load_file(path / _STATE)
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                pass
            log.warning("%s is damaged and is not used.", path)
            damaged = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(damaged, ignore_errors=True)
            path.rename(damaged)  # out of the way, or it would count as one of those to keep
        return None

    def _all(self) -> list[Path]:
        found = self.folder.glob("checkpoint-*")
        return sorted((path for path in found if path.name.split("-", 1)[1].isdigit()), key=_step)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])
