"""Checkpoints: folders that appear whole, carry the sums of their files, and of which the newest that is sound is gone
on from."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..files import flush, os_error, sha256, storage_error

KEPT = 2
_STATE, _MANIFEST = "state.safetensors", "manifest.json"
log = logging.getLogger("dreampose.training")


class Checkpoints:
    """The folders `checkpoint-<step>` in `folder`, each of state.safetensors and manifest.json (its size and SHA-256).

    What a crash left half written is removed when this is made. writes: whether this process is the one that writes and
    removes.
    Raises StorageError where there can be no folder.
    """

    def __init__(self, folder: Path, writes: bool = True):
        self.folder, self.writes = folder, writes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        for left in folder.glob(".checkpoint-*.part") if writes else ():
            shutil.rmtree(left)

    def save(self, step: int, state: dict[str, torch.Tensor]) -> None:
        """Writes a checkpoint beside the others, whole or not at all, then drops all but the newest KEPT. Raises
        StorageError."""
        temporary, final = self.folder / f".checkpoint-{step}.part", self.folder / f"checkpoint-{step}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_file(state, temporary / _STATE)
            manifest = {_STATE: {"bytes": (temporary / _STATE).stat().st_size, "sha256": sha256(temporary / _STATE)}}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            for name in (_STATE, _MANIFEST):
                flush(temporary / name)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise storage_error(error if isinstance(error, OSError) else os_error(error), final) from error
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old)

    def newest(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """The step and the state of the newest checkpoint that is sound, None without any; damaged ones are said and
        set aside."""
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
                path.rename(path.with_name(f"damaged-{path.name}"))  # or it would count as one of those that are kept
        return None

    def _all(self) -> list[Path]:
        return sorted(
            (path for path in self.folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)), key=_step
        )


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])
