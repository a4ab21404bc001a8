"""Cache of estimated and drawn motions, keyed by their inputs: two previews and the job after them estimate a file
once."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from ..files import appearing, sha256
from ..poses import Reading, read_poses, write_poses


class PoseCache:
    """Readings in a folder, each an npz and a JSON file with its form and notices.

    Only one process at a time may write: the light queue's worker.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def key(self, file: Path, *how: object) -> str:
        """Return the key for reading this file's content in the way that `how` describes."""
        return self.key_of(sha256(file), *how)

    @staticmethod
    def key_of(*what: object) -> str:
        """Return the key, 32 hex digits, for what depends on these values alone."""
        return hashlib.sha256(repr(what).encode()).hexdigest()[:32]

    def get(self, key: str) -> Reading | None:
        """Return the reading stored under `key`, or None if there is none or it is damaged."""
        with suppress(OSError, ValueError, KeyError, InputError):
            said = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            return Reading(read_poses(self.folder / f"{key}.npz"), said["form"], tuple(said["notices"]))
        return None

    def keep(self, key: str, reading: Reading) -> None:
        """Store `reading`; the cleanup deletes it. Raises StorageError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_poses(reading.poses, self.folder / f"{key}.npz")
        with appearing(self.folder / f"{key}.json") as temporary:
            temporary.write_text(json.dumps({"form": reading.form, "notices": reading.notices}), encoding="utf-8")
