"""JobService: submit, watch, cancel, delete. The whole of jobs that the page knows; it neither decodes user bytes nor
loads torch."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from ..errors import Busy, DiskFull, InputError, StorageError, TooLarge, UnknownJob
from ..files import flush
from ..settings import MIN_FREE_MB, Settings
from .cleanup import Cleanup, size_of, subjects
from .locks import living
from .logs import JobLog
from .messages import NO_SUCH_JOB, storage_error
from .records import (
    FINAL_STATES,
    QUEUES,
    THINGS,
    Job,
    JobFolder,
    JobRequest,
    JobStatus,
    Kind,
    Limits,
    Queue,
    StoredRequest,
    SubjectEntry,
    Timing,
    Upload,
)
from .store import Store
from .supervisor import Command, Supervisor, worker_command
from .timings import Timings

log = logging.getLogger("dreampose.jobs")

WATCH_EVERY_S = 0.25
MAX_NAME = 60
_ID = re.compile(r"[0-9a-f]{32}")
_FRAME = re.compile(r"\d{6}\.png")
_CHUNK = re.compile(r"\d{6}\.mp4")


class JobService:
    """The jobs of one installation, kept in `settings.home`; several threads may use it.

    command: how a queue's worker is started (queue -> command line).
    """

    def __init__(self, settings: Settings, command: Command = worker_command):
        self.settings = settings.with_folders()
        self.home = self.settings.home
        self._command = command
        self._store: Store | None = None
        self._supervisor: Supervisor | None = None
        self._cleanup: Cleanup | None = None

    def start(self) -> None:
        """Creates the data folder and the store, and starts the workers; unfinished jobs go on. Raises StorageError."""
        try:
            for folder in (self.home, self.home / "jobs", self.home / "subjects"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            words = (
                f"The data folder {self.home} cannot be created ({error.strerror}); choose another with DREAMPOSE_HOME."
            )
            raise StorageError(words) from error
        self._store = Store(self.home / "jobs.sqlite3")
        self._cleanup = Cleanup(self._store, self.settings)
        if self._cleanup.bucket is not None:
            self._cleanup.bucket.restore(self._store)
        self._supervisor = Supervisor(self._store, self.settings, self._command)
        self._supervisor.start()
        self._cleanup.start()

    def stop(self) -> None:
        """Lets the workers give their jobs back and ends them; a later start resumes. Does nothing when stopped."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._cleanup.stop()
            self._store.close()
            self._supervisor = self._cleanup = self._store = None

    def __enter__(self) -> JobService:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def worker_pids(self) -> dict[Queue, list[int]]:
        """The process ids of each queue's living workers; one that died is replaced within seconds."""
        pids = self._supervisor.pids() if self._supervisor else []
        return {queue: [pid for of, pid in pids if of == queue and pid is not None] for queue in QUEUES}

    def health(self) -> dict:
        """How the installation is, for /healthz.

        healthy: all workers live and there is room on the disk. workers: how many live in each queue, of how many.
        devices: what models run on, of the workers that have loaded one. queue: animations that wait. free_disk_mb.
        Raises StorageError and OSError.
        """
        pids, wanted = self.worker_pids(), {"light": 1, "device": self.settings.workers}
        workers = {queue: {"living": len(pids[queue]), "wanted": wanted[queue]} for queue in QUEUES}
        free_mb = shutil.disk_usage(self.home).free >> 20
        complete = all(one["living"] == one["wanted"] for one in workers.values())
        devices = [about["device"] for about in living(self.home / "workers").values() if about.get("device")]
        return {
            "healthy": complete and free_mb >= MIN_FREE_MB,
            "workers": workers,
            "devices": devices,
            "queue": self.store.num_waiting(),
            "free_disk_mb": free_mb,
        }

    def submit(self, owner: str, request: JobRequest, key: str | None = None) -> str:
        """Queues a job and returns its id; the files are copied first, so the caller may delete them.

        key: the same owner and key are one job, however often they are submitted.
        Raises InputError (a file is missing), TooLarge, Busy (the queue is full, too much is the owner's already) and
        StorageError.
        """
        if (
            known := self.admit(owner, request.kind, key)
        ) is not None:  # before anything is copied; asked again when the row is written
            return known
        owner = _hashed(owner)
        job_id = secrets.token_hex(16)
        folder = JobFolder(self.home / "jobs" / job_id)
        try:
            # Files first, the row last: after a crash in between there is a folder that nobody knows, never a job
            # without files.
            folder.input.mkdir(parents=True, mode=0o700)
            stored = StoredRequest(
                kind=request.kind,
                image=self._stored(request.image, "image", folder) if request.image else None,
                poses=self._stored(request.poses, "poses", folder) if request.poses else None,
                image_poses=self._stored(request.image_poses, "image_poses", folder) if request.image_poses else None,
                more_images=tuple(
                    self._stored(path, f"more_{index}", folder) for index, path in enumerate(request.more_images)
                ),
                options=request.options,
                motion=request.motion,
                consent=request.consent,
            ).model_dump_json()
            with open(folder.request, "x", encoding="utf-8") as file:
                file.write(stored)
                file.flush()
                os.fsync(file.fileno())
            for path in (folder.input, folder.path, folder.path.parent):
                flush(path)
            added = self.store.add(job_id, owner, stored, self._limits, key, request.kind)
        except BaseException as error:
            shutil.rmtree(folder.path, ignore_errors=True)
            if isinstance(error, OSError):
                reason = (
                    f"The job could not be stored ({error.strerror}); nothing was started. Please tell the operator."
                )
                raise storage_error(error) or StorageError(reason) from error
            raise
        if added != job_id:  # the same key came twice at the same time
            shutil.rmtree(folder.path, ignore_errors=True)
        else:
            JobLog(log, job_id).info("queued")
        return added

    def admit(self, owner: str, kind: Kind, key: str | None = None) -> str | None:
        """Whether a job of this kind may be submitted now: None where it may, the id of the job where `key` is known
        already.

        For those who want to know before its files have come. Raises Busy and StorageError as `submit`.
        """
        owner = _hashed(owner)
        if key is not None and (known := self.store.find_key(owner, key)) is not None:
            return known
        self.store.check_room(owner, kind, self._limits)
        if kind == "animate":
            self._check_disk(owner)
        return None

    def status(self, owner: str, job_id: str) -> JobStatus:
        """The job as it stands. Raises UnknownJob, with one text for unknown ids and for those of others."""
        return self._status(self.store.get(_hashed(owner), _checked(job_id)))

    def watch(self, owner: str, job_id: str, timeout_s: float | None = None) -> Iterator[JobStatus]:
        """The job's status now and after each change, up to the final one or until `timeout_s` seconds are over.

        Raises UnknownJob at the call.
        """
        self.status(owner, job_id)
        return self._watch(owner, job_id, math.inf if timeout_s is None else time.monotonic() + timeout_s)

    def cancel(self, owner: str, job_id: str) -> None:
        """Ends the job soon; one that has ended stays as it is. Raises UnknownJob."""
        owner, job_id = _hashed(owner), _checked(job_id)
        self.store.cancel(owner, job_id)
        if self.store.get(owner, job_id).state == "cancelled":  # nobody works on it
            JobFolder(self.home / "jobs" / job_id).delete_uploads()

    def jobs(self, owner: str) -> list[JobStatus]:
        """All animations of `owner`, newest first; previews and motions come and go and are not listed."""
        found = [self._status(job) for job in self.store.jobs_of(_hashed(owner))]
        return [status for status in found if status.kind == "animate"]

    def rename(self, owner: str, job_id: str, name: str) -> None:
        """Gives the job a name of its owner's. Raises UnknownJob, and InputError for what is no name."""
        name = " ".join(name.split()) if isinstance(name, str) else ""
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise InputError(f"A name has 1 to {MAX_NAME} letters; please choose another.")
        self.store.rename(_hashed(owner), _checked(job_id), name)

    def delete(self, owner: str, job_id: str) -> None:
        """The job and all its files go: at once where it has ended, else as soon as its worker has let go of it. Raises
        UnknownJob."""
        self.store.disown(_hashed(owner), _checked(job_id))
        self._cleanup.remove_unwanted()

    def size_mb(self, owner: str, job_id: str) -> float:
        """What the job takes on the disk. Raises UnknownJob."""
        return size_of(self.home / "jobs" / self.store.get(_hashed(owner), _checked(job_id)).id) / 1e6

    def subjects(self, owner: str) -> list[SubjectEntry]:
        """The subjects of `owner`, the one used last first."""
        found = []
        for folder in subjects(self.home / "subjects" / _hashed(owner)):
            with suppress(OSError, ValueError, KeyError):  # it is being removed
                told, used = (
                    json.loads((folder / "subject.json").read_text()),
                    (folder / "subject.json").stat().st_mtime,
                )
                (photo, *more), poses = sorted(folder.glob("photo_[0-9]*.png")), folder / "photo_poses.npz"
                found.append(
                    SubjectEntry(
                        folder.name,
                        f"{folder.parent.name}-{folder.name}",
                        told["recipe"],
                        told["seed"],
                        size_of(folder) / 1e6,
                        used,
                        photo,
                        poses if poses.exists() else None,
                        tuple(more),
                    )
                )
        return sorted(found, key=lambda subject: -subject.used)

    def subject(self, owner: str, key: str) -> SubjectEntry:
        """One of them; raises InputError, with one text for unknown keys and for those of others."""
        found = next((subject for subject in self.subjects(owner) if subject.key == key), None)
        if found is None:
            raise InputError("There is no such person here, or they have been deleted.")
        return found

    def delete_subject(self, owner: str, key: str) -> None:
        """The subject's files go; a job that needs it tunes it again. Raises InputError as `subject`, and while one of
        the owner's jobs is at work, which may be about to load it."""
        folder = self.subject(owner, key).photo.parent
        if any(
            job.queue == "device" and job.state in ("running", "cancelling")
            for job in self.store.jobs_of(_hashed(owner))
        ):
            raise InputError(
                "One of your videos is being made right now; wait until it is finished, or stop it, then delete the "
                "person."
            )
        shutil.rmtree(folder, ignore_errors=True)
        if self._cleanup.bucket is not None:
            self._cleanup.bucket.forget_subject(folder.parent.name, key)

    def pace(self, recipe: str, quality: str) -> Timing:
        """How long it takes on this machine, from what was measured on the last jobs."""
        return Timings(self.home).of(recipe, quality)

    @property
    def store(self) -> Store:
        if self._store is None:
            raise StorageError("The job service is not running; please try again in a moment.")
        return self._store

    @property
    def _limits(self) -> Limits:
        return Limits(self.settings.max_queue, self.settings.max_own, self.settings.workers)

    def _watch(self, owner: str, job_id: str, deadline: float) -> Iterator[JobStatus]:
        last = None
        while True:
            pulse = self.pulse(owner, job_id)  # before the status, so that no change falls in between
            status = self.status(owner, job_id)
            if status != last:
                yield status
            last = status
            if status.final:
                return
            while True:
                if time.monotonic() >= deadline:
                    return
                time.sleep(WATCH_EVERY_S)
                if self.pulse(owner, job_id) != pulse:
                    break

    def pulse(self, owner: str, job_id: str) -> tuple:
        """Changes whenever the job does: its row, its place, the listing of its frames, chunks or samples, or the first
        frame's latent preview.

        Costs a small part of what `status` does. Raises UnknownJob.
        """
        folder = JobFolder(self.home / "jobs" / _checked(job_id))
        shown = folder.frames, folder.chunks, folder.samples, folder.latent_preview
        return (*self.store.pulse(_hashed(owner), job_id), *(_changed_at(path) for path in shown))

    def _status(self, job: Job) -> JobStatus:
        folder = JobFolder(self.home / "jobs" / job.id)
        request = _canonical(job, folder)
        # For its owner a job that is being checked by the light queue still waits for the device.
        kind = "animate" if request is None else request.kind
        looks = kind == "preview" and request.poses is None
        state = (
            "queued"
            if kind == "animate" and job.queue == "light" and job.state in ("running", "interrupted")
            else job.state
        )
        return JobStatus(
            id=job.id,
            state=state,
            place=job.place,
            progress=job.progress,
            created=job.created,
            kind=kind,
            losses=tuple(loss for _, loss in job.losses),
            samples=_listed(folder.samples, _FRAME),
            chunks=_listed(folder.chunks, _CHUNK),
            frames=_listed(folder.frames, _FRAME),
            result=folder.result if job.state == "done" and not looks else None,
            look=folder.look if job.state == "done" and looks else None,
            motion=folder.motion if job.state == "done" and kind == "motion" else None,
            latent_preview=_content(folder.latent_preview) if job.state == "running" else None,
            name=job.name,
            things=tuple(thing for thing in THINGS if folder.thing(thing)) if job.state in FINAL_STATES else (),
            error=job.error,
            code=job.code,
            notices=job.notices,
            request=request,
        )

    def _check_disk(self, owner: str) -> None:
        """Raises DiskFull when the disk is nearly full, Busy when the owner's finished jobs take more than they may.

        Subjects do not count here: the cleanup removes those used longest ago, and they are tuned again.
        """
        if shutil.disk_usage(self.home).free >> 20 < MIN_FREE_MB:
            raise DiskFull(
                f"The server's disk has less than {MIN_FREE_MB} MB left, so nothing new is begun; please tell the "
                "operator."
            )
        used_mb = (
            sum(size_of(self.home / "jobs" / job.id) for job in self.store.jobs_of(owner) if job.state in FINAL_STATES)
            / 1e6
        )
        if used_mb >= self.settings.max_own_mb:
            raise Busy(
                f"Your results take {used_mb:.0f} MB on the server, and {self.settings.max_own_mb} MB is the most; "
                f"the oldest go {self.settings.keep_results_h:g} hours after they end, please come back then."
            )

    def _stored(self, source: Path, role: str, folder: JobFolder) -> Upload:
        """Copies an upload under a name of ours, at most max_upload_mb of it."""
        suffix = source.suffix.lower()
        upload = Upload(
            file=f"upload-{role}" + (suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""),
            name="".join(c for c in source.name if c.isprintable())[-100:],
        )
        limit = self.settings.max_upload_mb << 20
        try:
            # Non-blocking, so that a pipe in a file's place cannot hold us; asked what it is before anything is read
            # from it.
            descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise IsADirectoryError(errno.EISDIR, "not a regular file")
        except OSError as error:
            raise InputError(f"{upload.name} cannot be read as a file; please choose it again.") from error
        with open(descriptor, "rb") as reader, open(folder.input / upload.file, "xb") as writer:
            while block := reader.read(1 << 20):
                if writer.tell() + len(block) > limit:
                    raise TooLarge(
                        f"{upload.name} is larger than {self.settings.max_upload_mb} MB, the most that is accepted."
                    )
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        return upload


def _hashed(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()


def _checked(job_id: str) -> str:
    if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
        raise UnknownJob(NO_SUCH_JOB)
    return job_id


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _changed_at(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _listed(folder: Path, pattern: re.Pattern) -> tuple[Path, ...]:
    try:
        return tuple(folder / name for name in sorted(filter(pattern.fullmatch, os.listdir(folder))))
    except FileNotFoundError:
        return ()


def _canonical(job: Job, folder: JobFolder) -> JobRequest | None:
    try:
        stored = StoredRequest.model_validate_json(job.request)
    except ValidationError:  # written by another version of the program
        return None
    image_poses = folder.image_poses if folder.image_poses.exists() else None
    image = folder.image if stored.image is not None else None
    poses = folder.poses if stored.poses is not None else None
    more = tuple(folder.more_image(index) for index in range(len(stored.more_images)))
    return JobRequest(
        kind=stored.kind,
        image=image,
        poses=poses,
        image_poses=image_poses,
        more_images=more,
        options=stored.options,
        motion=stored.motion,
        consent=stored.consent,
    )
