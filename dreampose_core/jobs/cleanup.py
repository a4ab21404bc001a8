"""Removes what has expired, what nobody knows of and what is too much, from the disk and the store; copies results to
the bucket."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..errors import StorageError
from ..settings import Settings
from .bucket import Bucket
from .records import JobFolder
from .store import Store

log = logging.getLogger("dreampose.cleanup")

TICK_S = 5.0
SWEEP_EVERY_S = 60.0
# what is younger may be about to be known: a job's folder is written before its row, a file under its temporary name
GRACE_S = 3600.0
_HOUR, _DAY = 3600.0, 86400.0


class Cleanup:
    """A thread that looks after the data folder of `store`. clock: seconds since 1970, as files' times."""

    def __init__(self, store: Store, settings: Settings, clock: Callable[[], float] = time.time):
        """settings.home must be absolute."""
        self.store, self.settings, self.clock = store, settings, clock
        self.home = settings.home
        self.bucket = Bucket(settings.bucket, settings.home) if settings.bucket is not None else None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cleanup", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; what is done by then is copied to the bucket first."""
        self._stopping.set()
        self._thread.join()
        self._try(self._keep)

    def _run(self) -> None:
        swept = -SWEEP_EVERY_S
        while not self._stopping.is_set():
            self._try(self._keep)
            self._try(self.remove_unwanted)
            if time.monotonic() - swept >= SWEEP_EVERY_S:
                swept = time.monotonic()
                self._try(self.sweep)
            self._stopping.wait(TICK_S)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (StorageError, OSError) as error:
            log.warning("%s", error)

    def _keep(self) -> None:
        if self.bucket is not None:
            self.bucket.keep(self.store)

    def sweep(self) -> None:
        """One round. Raises StorageError and OSError; what it did not come to, the next one does."""
        now, keep = self.clock(), self.settings
        for kind in ("preview", "motion"):  # who uses a motion has a copy of it in the job
            for job_id in self.store.ended(kind, now - keep.keep_previews_h * _HOUR):
                self.remove(job_id)
        for job_id in self.store.ended("animate", now - keep.keep_results_h * _HOUR):
            self.remove(job_id)
        self.store.forget_turns()
        known = self.store.ids()
        for folder in _entries(self.home / "jobs"):
            if folder.name not in known and _changed(folder) < now - GRACE_S:
                _delete(folder)
        for subject in subjects(self.home / "subjects"):
            if _changed(subject / "subject.json") < now - keep.keep_subjects_days * _DAY:
                _delete(subject)
        if self.bucket is not None:
            self.bucket.forget_subjects(now - keep.keep_subjects_days * _DAY)
        for folder in ("jobs", "subjects", "readings"):
            for path in list(_temporary(self.home / folder)):
                if _changed(path) < now - GRACE_S:
                    _delete(path)
        for job_id in self.store.ended():  # of jobs that ended with their worker
            JobFolder(self.home / "jobs" / job_id).delete_uploads()
        self._expire_files(self.home / "uploads", now - keep.keep_uploads_h * _HOUR)
        self._expire_files(self.home / "incoming", now - GRACE_S)  # of requests whose server died
        self._expire_files(self.home / "readings", now - keep.keep_results_h * _HOUR)
        self._shrink()

    def remove_unwanted(self) -> None:
        """Removes what its owner has deleted. Raises StorageError."""
        for job_id in self.store.unwanted():
            self.remove(job_id)

    def remove(self, job_id: str) -> None:
        """Removes a job that has ended, with all its files."""
        if self.store.forget(
            job_id
        ):  # the row first: a folder that nobody knows is removed later, a row without files would be shown
            _delete(self.home / "jobs" / job_id)
            if self.bucket is not None:
                self.bucket.forget_job(job_id)

    def _shrink(self) -> None:
        """Removes what is oldest until the data folder, less what is at work in it, takes no more than it may: uploads,
        then jobs that have ended, then subjects; and of each owner the subjects used longest ago that are too much for
        one. What was used within GRACE_S stays: a worker may be about to load it."""
        now, ended = self.clock(), self.store.ended()
        idle: list[tuple[Path, Callable[[], None]]] = []
        uploads = [Path(parent, name) for parent, _, files in os.walk(self.home / "uploads") for name in files]
        used = [
            folder for folder in subjects(self.home / "subjects") if _changed(folder / "subject.json") < now - GRACE_S
        ]
        used.sort(key=lambda folder: _changed(folder / "subject.json"))
        for owner in {folder.parent for folder in used}:
            too_much = size_of(owner) - self.settings.max_own_mb * 1e6
            for folder in [folder for folder in used if folder.parent == owner]:
                if too_much > 0:
                    too_much -= size_of(folder)
                    _delete(folder)
                    used.remove(folder)
        idle += [
            (path, partial(_delete, path)) for path in sorted(uploads, key=_changed) if _changed(path) < now - GRACE_S
        ]
        idle += [(self.home / "jobs" / job_id, partial(self.remove, job_id)) for job_id in ended]
        idle += [(folder, partial(_delete, folder)) for folder in used]
        busy = sum(size_of(self.home / "jobs" / job_id) for job_id in self.store.ids() - set(ended))
        too_much = size_of(self.home) - busy - self.settings.max_disk_gb * 1e9
        num_removed = 0
        for path, remove in idle:
            if too_much <= 0:
                break
            too_much -= size_of(path)
            remove()
            num_removed += 1
        if num_removed:
            log.warning(
                "the data folder took more than %.3g GB; the %d oldest things were removed",
                self.settings.max_disk_gb,
                num_removed,
            )

    @staticmethod
    def _expire_files(folder: Path, before: float) -> None:
        """Removes files under `folder` that were written before that time, and folders that are empty then."""
        for parent, folders, files in os.walk(folder, topdown=False):
            for name in files:
                path = Path(parent, name)
                if _changed(path) < before:
                    path.unlink(missing_ok=True)
            for name in folders:
                with suppress(OSError):  # not empty
                    if _changed(Path(parent, name)) < before:
                        os.rmdir(Path(parent, name))


def subjects(folder: Path) -> list[Path]:
    """The subject folders of all owners under `folder`, or of one."""
    return [path.parent for pattern in ("*/subject.json", "*/*/subject.json") for path in folder.glob(pattern)]


def size_of(folder: Path) -> int:
    """Bytes that the files of a folder, or a file, take; 0 where there is none."""
    if folder.is_file():
        return folder.stat().st_size
    total, waiting = 0, [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _temporary(folder: Path) -> Iterator[Path]:
    """What was to appear under another name, see `files`."""
    for parent, folders, files in os.walk(folder):
        for name in [name for name in folders if name.startswith(".part.")]:
            folders.remove(name)
            yield Path(parent, name)
        yield from (Path(parent, name) for name in files if name.startswith(".part."))


def _changed(path: Path) -> float:
    """When it was changed last, in seconds since 1970; never, where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
