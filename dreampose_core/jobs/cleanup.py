"""Delete expired, orphaned and excess files and jobs; copy finished results and subjects to the attached bucket, from
which a server restores them after a restart on an empty disk.

The bucket is a mounted folder, slow and at times unavailable; the store, frames and checkpoints are never kept there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import StorageError
from ..files import appearing, appearing_folder
from ..settings import Settings
from .records import JobFolder
from .store import Store

log = logging.getLogger("dreampose.cleanup")

TICK_S = 5.0
SWEEP_EVERY_S = 60.0
# Unknown files younger than this stay: a job's folder is written before its row, a file under its temporary name first.
GRACE_S = 3600.0
_HOUR, _DAY = 3600.0, 86400.0
_FILES = ("result.mp4", "result.json")
_TROUBLE = OSError, ValueError, KeyError, TypeError, StorageError


class Cleanup:
    """A thread that cleans the data folder of `store`. clock: seconds since 1970, as files' modification times."""

    def __init__(self, store: Store, settings: Settings, clock: Callable[[], float] = time.time):
        self.store, self.settings, self.clock = store, settings, clock
        self.home = settings.home
        self.bucket = Bucket(settings.bucket, settings.home) if settings.bucket is not None else None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cleanup", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, then copy to the bucket what has finished by then."""
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
        """Do one round of cleaning. Raises StorageError and OSError; the next round does what this one missed."""
        now, keep = self.clock(), self.settings
        # Motions and previews can go early: a job that uses a motion has its own copy.
        hours = {"preview": keep.keep_previews_h, "motion": keep.keep_previews_h, "animate": keep.keep_results_h}
        for kind, kept_h in hours.items():
            for job_id in self.store.ended(kind, now - kept_h * _HOUR):
                self.remove(job_id)
        known = self.store.ids()
        unknown = [folder for folder in (self.home / "jobs").glob("*") if folder.name not in known]
        left = [path for name in ("jobs", "subjects", "readings") for path in (self.home / name).rglob(".part.*")]
        for path in (*unknown, *left):  # left: temporary files of dead writers
            if _changed(path) < now - GRACE_S:
                _delete(path)
        unused = now - keep.keep_subjects_days * _DAY
        for subject in subjects(self.home):
            if _changed(subject / "subject.json") < unused:
                _delete(subject)
        if self.bucket is not None:
            self.bucket.forget_subjects(unused)
        for job_id in self.store.ended():  # uploads remain if a job ended together with its worker
            JobFolder(self.home / "jobs" / job_id).delete_uploads()
        self._expire_files(self.home / "uploads", now - keep.keep_uploads_h * _HOUR)
        self._expire_files(self.home / "incoming", now - GRACE_S)  # requests whose server died
        self._expire_files(self.home / "readings", now - keep.keep_results_h * _HOUR)
        self._shrink()

    def remove_unwanted(self) -> None:
        """Remove the ended jobs that their owners have deleted. Raises StorageError."""
        for job_id in self.store.unwanted():
            self.remove(job_id)

    def remove(self, job_id: str) -> None:
        """Remove a job and all its files if it is in a final state."""
        # Row first: a later sweep deletes a folder without a row, but the page would show a row without files.
        if self.store.forget(job_id):
            _delete(self.home / "jobs" / job_id)
            if self.bucket is not None:
                self.bucket.forget("jobs", job_id)

    def _shrink(self) -> None:
        """Delete each owner's least recently used subjects beyond max_own_mb; then delete the oldest things until the
        data folder, unfinished jobs not counted, takes at most max_disk_gb: uploads and readings, then ended jobs, then
        subjects.

        Files and subjects used in the last GRACE_S seconds stay, because a worker may be about to load them.
        """
        ended, before = self.store.ended(), self.clock() - GRACE_S

        def unused(paths: Iterable[Path]) -> list[Path]:
            return sorted((path for path in paths if _changed(path) < before), key=_changed)

        folders = [self.home / name for name in ("uploads", "readings")]
        files = unused(path for folder in folders for path in folder.rglob("*") if path.is_file())
        used = [file.parent for file in unused(folder / "subject.json" for folder in subjects(self.home))]
        for folder in list(used):
            if size_of(folder.parent) > self.settings.max_own_mb * 1e6:
                _delete(folder)
                used.remove(folder)
        jobs = [self.home / "jobs" / job_id for job_id in ended]
        busy = sum(size_of(self.home / "jobs" / job_id) for job_id in self.store.ids() - set(ended))
        too_much = size_of(self.home) - busy - self.settings.max_disk_gb * 1e9
        num_removed = 0
        for path in (*files, *jobs, *used):
            if too_much <= 0:
                break
            too_much -= size_of(path)
            self.remove(path.name) if path in jobs else _delete(path)
            num_removed += 1
        if num_removed:
            log.warning(
                "the data folder took more than %.3g GB; the %d oldest things were removed",
                self.settings.max_disk_gb,
                num_removed,
            )

    @staticmethod
    def _expire_files(folder: Path, before: float) -> None:
        """Delete files and empty folders under `folder` that were last changed before `before`, seconds since 1970."""
        for path in sorted(folder.rglob("*"), reverse=True):  # a folder's contents come before the folder
            if _changed(path) < before:
                with suppress(OSError):  # not empty
                    path.rmdir() if path.is_dir() else path.unlink()


def size_of(folder: Path) -> int:
    """Return the total bytes of a folder's files, or of one file; 0 if there is none."""
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names]
    total = 0
    for path in [folder] if folder.is_file() else paths:
        with suppress(OSError):  # it has just been deleted
            total += os.lstat(path).st_size
    return total


def _changed(path: Path) -> float:
    """Return the time of the last change in seconds since 1970, infinity if the path does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class Bucket:
    """The bucket's files: jobs/<id>/ with job.json and the result, subjects/<owner>/<key>/ as on the local disk.

    Each copy appears under its name only when it is complete.
    """

    def __init__(self, folder: Path, home: Path):
        self.folder, self.home = folder, home

    def keep(self, store: Store) -> None:
        """Copy what has finished since the last call. Logs what cannot be copied, and tries it again next time."""
        for job in store.unkept():
            try:
                _copy_files(self.home / "jobs" / job["id"], self.folder / "jobs" / job["id"])
                # job.json comes last: it marks the copy as complete
                with appearing(self.folder / "jobs" / job["id"] / "job.json") as temporary:
                    temporary.write_text(json.dumps(job), encoding="utf-8")
                store.mark_kept(job["id"])
            except _TROUBLE as error:
                logging.LoggerAdapter(log, {"job": job["id"]}).warning("cannot be kept in the bucket: %s", error)
        for subject in subjects(self.home):
            there = self.folder / subject.relative_to(self.home)
            try:
                if not (there / "subject.json").exists():
                    _copy_folder(subject, there)
                used = (subject / "subject.json").stat().st_mtime
                if used - _changed(there / "subject.json") > _HOUR:
                    os.utime(there / "subject.json", (used, used))  # unused subjects expire in the bucket, too
            except _TROUBLE as error:
                log.warning("a subject cannot be kept in the bucket: %s", error)

    def restore(self, store: Store) -> None:
        """Copy back the results that this disk lacks and add their jobs to the store."""
        for file in (self.folder / "jobs").glob("[0-9a-f]*/job.json"):
            job_id = file.parent.name
            try:
                job = json.loads(file.read_text(encoding="utf-8"))
                if job["id"] != job_id:
                    raise ValueError("it is another job's")
                _copy_files(file.parent, self.home / "jobs" / job_id)
                store.restore(job)
            except _TROUBLE as error:
                logging.LoggerAdapter(log, {"job": job_id}).warning("cannot be restored from the bucket: %s", error)

    def bring_subject(self, owner: str, key: str) -> None:
        """Copy a subject back if this disk lacks it and the bucket has it."""
        local, there = (root / "subjects" / owner / key for root in (self.home, self.folder))
        if not local.exists() and (there / "subject.json").is_file():
            try:
                _copy_folder(there, local)
            except StorageError as error:  # the job tunes it again
                log.warning("a subject in the bucket cannot be used: %s", error)

    def forget(self, *names: str) -> None:
        """Remove a folder from the bucket: "jobs", id; or "subjects", owner, key."""
        shutil.rmtree(self.folder.joinpath(*names), ignore_errors=True)

    def forget_subjects(self, before: float) -> None:
        """Remove the bucket's subjects last used before `before`, seconds since 1970, unless this disk has them.

        A subject that is in use is always on this disk.
        """
        for subject in subjects(self.folder):
            with suppress(OSError):
                local = self.home / subject.relative_to(self.folder)
                if not local.exists() and (subject / "subject.json").stat().st_mtime < before:
                    shutil.rmtree(subject, ignore_errors=True)


def subjects(root: Path, owner: str = "[0-9a-f]*") -> list[Path]:
    """List the folders of all complete subjects under `root`, or of one owner's (hashed)."""
    return [path.parent for path in sorted(root.glob(f"subjects/{owner}/[0-9a-f]*/subject.json"))]


def _copy_files(source: Path, target: Path) -> None:
    """Copy those files of a job's result that `target` lacks."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in _FILES:
        if (source / name).is_file() and not (target / name).exists():
            with appearing(target / name) as temporary:
                shutil.copyfile(source / name, temporary)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder; the copy appears only when it is complete. Raises StorageError."""
    try:
        with appearing_folder(target) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
    except StorageError:
        if not (target / "subject.json").is_file():  # otherwise another process has just made the copy
            raise
