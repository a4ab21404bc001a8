"""The attached bucket: finished results and subjects are copied there and found again after a restart on an empty disk.

It is a folder that is mounted from elsewhere, slow and sometimes away; the store, frames and checkpoints never lie
there.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import StorageError
from ..files import appearing
from .logs import JobLog
from .store import Store

log = logging.getLogger("dreampose.bucket")

_FILES = ("result.mp4", "result.json")
_USED_AGAIN_S = 3600.0  # the bucket hears of a subject's use once in so long
_ID, _OWNER, _KEY = (re.compile(pattern) for pattern in (r"[0-9a-f]{32}", r"[0-9a-f]{64}", r"[0-9a-f]{32}"))


class Bucket:
    """jobs/<id>/ with job.json and the result, subjects/<owner>/<key>/ as on the local disk; all appear whole."""

    def __init__(self, folder: Path, home: Path):
        self.folder, self.home = folder, home
        self._kept: dict[tuple[str, str], float] = {}  # subjects that the bucket has, and the use that it knows of

    def keep(self, store: Store) -> None:
        """Copies what has been finished since the last call. What cannot be copied is said, and tried again the next
        time."""
        for job in store.unkept():
            try:
                self._keep_job(job)
                store.mark_kept(job["id"])
            except StorageError as error:
                JobLog(log, job["id"]).warning("cannot be kept in the bucket: %s", error)
        for owner, key in _subjects(self.home):
            try:
                self._keep_subject(owner, key)
            except (OSError, StorageError) as error:
                log.warning("a subject cannot be kept in the bucket: %s", error)

    def _keep_job(self, job: dict) -> None:
        local, there = self.home / "jobs" / job["id"], self.folder / "jobs" / job["id"]
        _make(there)
        for name in _FILES:
            if (local / name).is_file():
                _copy(local / name, there / name)
        with appearing(there / "job.json") as temporary:  # the last: what has it is complete
            temporary.write_text(json.dumps(job), encoding="utf-8")

    def _keep_subject(self, owner: str, key: str) -> None:
        """Copies a subject, or tells the copy that it was used: what nobody uses for long goes there, too."""
        local, there = (root / "subjects" / owner / key for root in (self.home, self.folder))
        used = (local / "subject.json").stat().st_mtime
        if self._kept.get((owner, key), 0.0) > used - _USED_AGAIN_S:
            return
        if not (there / "subject.json").exists():
            _copy_folder(local, there)
        os.utime(there / "subject.json", (used, used))
        self._kept[owner, key] = used

    def restore(self, store: Store) -> None:
        """Brings back the results that this disk does not have, and their jobs, in the order in which they were
        submitted."""
        found = []
        for folder in _listed(self.folder / "jobs", _ID):
            try:
                job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
                if job["id"] != folder.name:
                    raise ValueError("it is another job's")
                found.append((float(job["created"]), folder, job))
            except (OSError, ValueError, KeyError, TypeError) as error:
                JobLog(log, folder.name).warning("cannot be restored from the bucket: %s", error)
        for _, folder, job in sorted(found, key=lambda one: one[0]):
            local = self.home / "jobs" / folder.name
            try:
                _make(local)
                for name in _FILES:
                    if (folder / name).is_file() and not (local / name).exists():
                        _copy(folder / name, local / name)
                store.restore(job)
            except (OSError, ValueError, TypeError, StorageError) as error:
                JobLog(log, folder.name).warning("cannot be restored from the bucket: %s", error)

    def bring_subject(self, owner: str, key: str) -> None:
        """Brings a subject back that this disk does not have, where the bucket has it."""
        local, there = (root / "subjects" / owner / key for root in (self.home, self.folder))
        if not local.exists() and (there / "subject.json").is_file():
            try:
                _copy_folder(there, local)
            except StorageError as error:  # it is tuned again then
                log.warning("a subject in the bucket cannot be used: %s", error)

    def forget_job(self, job_id: str) -> None:
        """Removes a job's result."""
        shutil.rmtree(self.folder / "jobs" / job_id, ignore_errors=True)

    def forget_subject(self, owner: str, key: str) -> None:
        """Removes a subject."""
        shutil.rmtree(self.folder / "subjects" / owner / key, ignore_errors=True)
        self._kept.pop((owner, key), None)

    def forget_subjects(self, before: float) -> None:
        """Removes the subjects that are not on this disk, where they would have been used, and were kept before that
        time."""
        for owner, key in _subjects(self.folder):
            there = self.folder / "subjects" / owner / key
            with suppress(OSError):
                if (
                    not (self.home / "subjects" / owner / key).exists()
                    and (there / "subject.json").stat().st_mtime < before
                ):
                    shutil.rmtree(there, ignore_errors=True)


def _subjects(root: Path) -> Iterator[tuple[str, str]]:
    """Owners and keys of the whole subjects under `root`."""
    for folder in _listed(root / "subjects", _OWNER):
        for subject in _listed(folder, _KEY):
            if (subject / "subject.json").is_file():
                yield folder.name, subject.name


def _listed(folder: Path, names: re.Pattern) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if names.fullmatch(path.name))
    except OSError:
        return []


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made ({error.strerror}).") from error


def _copy(source: Path, target: Path) -> None:
    with appearing(target) as temporary:
        shutil.copyfile(source, temporary)


def _copy_folder(source: Path, target: Path) -> None:
    """A copy that appears whole; what else is there under its name stays."""
    temporary = target.with_name(f".part.{time.monotonic_ns():x}.{target.name}")
    _make(target.parent)
    try:
        shutil.copytree(source, temporary)
        temporary.rename(target)
    except (OSError, shutil.Error) as error:
        if (target / "subject.json").is_file():
            return  # another was faster
        raise StorageError(f"{source.name} could not be copied.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
