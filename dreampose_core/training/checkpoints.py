"""Checkpoints: folders written atomically with checksums; training resumes from the newest intact one."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..files import appearing_folder, flush, sha256, storage_error

KEPT = 2
_STATE, _MANIFEST = "state.safetensors", "manifest.json"
log = logging.getLogger("dreampose.training")


class Checkpoints:
    """The folders `checkpoint-<step>` in `folder`, each of state.safetensors and manifest.json (its size and SHA-256).

    Creating this object removes checkpoints that a crash left half written. writes: whether this process writes and
    removes. Raises StorageError if the folder cannot be made.
    """

    def __init__(self, folder: Path, writes: bool = True):
        self.folder, self.writes = folder, writes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        for left in folder.glob(".part.*.checkpoint-*") if writes else ():
            shutil.rmtree(left)

    def save(self, step: int, state: dict[str, torch.Tensor]) -> None:
        """Write a checkpoint, whole or not at all, then drop all but the newest KEPT. Raises StorageError."""
        final = self.folder / f"checkpoint-{step}"
        with appearing_folder(final) as temporary:
            save_file(state, temporary / _STATE)
            manifest = {_STATE: {"bytes": (temporary / _STATE).stat().st_size, "sha256": sha256(temporary / _STATE)}}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
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
                manifest = json.loads((path / _MANIFEST).read_text())
                if manifest[_STATE] == {"bytes": (path / _STATE).stat().st_size, "sha256": sha256(path / _STATE)}:
                    return _step(path), load_file(path / _STATE)
            except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError):
                pass
            if self.writes:
                log.warning("%s is damaged and is not used.", path)
                shutil.rmtree(path.with_name(f"damaged-{path.name}"), ignore_errors=True)
                # out of the way, or it would count as one of those to keep
                path.rename(path.with_name(f"damaged-{path.name}"))
        return None

    def _all(self) -> list[Path]:
        found = self.folder.glob("checkpoint-*")
        return sorted((path for path in found if re.fullmatch(r"checkpoint-\d+", path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])
