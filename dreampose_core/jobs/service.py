"""The page's interface to jobs: submit, watch, cancel, delete. It neither decodes uploads nor loads torch."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from ..errors import Busy, DiskFull, InputError, StorageError, TooLarge, UnknownJob
from ..files import flush
from ..settings import MIN_FREE_MB, Settings
from .cleanup import Cleanup, size_of, subjects
from .database import storage_error
from .records import (
    FINAL_STATES,
    QUEUES,
    THINGS,
    Job,
    JobFolder,
    JobRequest,
    JobStatus,
    Kind,
    Queue,
    SubjectEntry,
    Timing,
    Timings,
)
from .store import NO_SUCH_JOB, Store
from .supervisor import living

log = logging.getLogger("dreampose.jobs")

MAX_NAME = 60
_ID = re.compile(r"[0-9a-f]{32}")


class JobService:
    """The jobs of one installation, kept in `settings.home`; several threads may use it.

    A `Supervisor` runs the workers; they may start and end at any time.
    """

    def __init__(self, settings: Settings):
        self.settings, self.home = settings, settings.home
        self.store: Store
        self._cleanup: Cleanup

    def __enter__(self) -> JobService:
        """Create the data folder and the store if they do not exist. Raises StorageError."""
        self.store = Store.of(self.home)
        self._cleanup = Cleanup(self.store, self.settings)
        if self._cleanup.bucket is not None:
            self._cleanup.bucket.restore(self.store)
        self._cleanup.start()
        return self

    def __exit__(self, *_) -> None:
        self._cleanup.stop()
        self.store.close()

    def worker_pids(self) -> dict[Queue, list[int]]:
        """Return the process ids of each queue's living workers; a dead worker is replaced within seconds."""
        found = living(self.home).values()
        return {queue: [about["pid"] for about in found if about.get("queue") == queue] for queue in QUEUES}

    def health(self) -> dict:
        """Return the state of the installation, for /healthz.

        healthy: all workers are alive and the disk has room. workers: for each queue, how many are alive and how many
        there should be. devices: what the models run on, for workers that have loaded one. queue: number of waiting
        animations. free_disk_mb: free space on the disk of the data folder. Raises StorageError and OSError.
        """
        pids, wanted = self.worker_pids(), {"light": 1, "device": self.settings.workers}
        free_mb = shutil.disk_usage(self.home).free >> 20
        workers = {queue: {"living": len(pids[queue]), "wanted": wanted[queue]} for queue in QUEUES}
        return {
            "healthy": all(are["living"] == are["wanted"] for are in workers.values()) and free_mb >= MIN_FREE_MB,
            "workers": workers,
            "devices": [about["device"] for about in living(self.home).values() if about.get("device")],
            "queue": self.store.num_waiting(),
            "free_disk_mb": free_mb,
        }

    def submit(self, owner: str, request: JobRequest, key: str | None = None) -> str:
        """Queue a job and return its id. The files are copied, so the caller may delete them afterwards.

        key: idempotency key; the same owner and key are one job, however often it is submitted.
        Raises InputError (a file is missing), TooLarge, Busy (the queue is full, or the owner has too many jobs or
        results) and StorageError.
        """
        if known := self.admit(owner, request.kind, key):  # before any copying; `store.add` checks again
            return known
        owner = _hashed(owner)
        job_id, added = secrets.token_hex(16), None
        folder = JobFolder(self.home / "jobs" / job_id)
        try:
            # Files first, row last: a crash in between leaves a folder without a job, never a job without files.
            folder.input.mkdir(parents=True, mode=0o700)
            named = request.with_files(folder, lambda decoded, file: self._copied(file, folder, decoded))
            for path in (*folder.input.iterdir(), folder.input, folder.path, folder.path.parent):
                flush(path)
            added = self.store.add(job_id, owner, named.model_dump_json(), self.settings, key, request.kind)
        except OSError as error:
            raise storage_error(error) or StorageError(
                f"The job could not be stored ({error.strerror}); nothing was started. Please tell the operator."
            ) from error
        finally:
            if added != job_id:  # it failed, or the same key was submitted twice at the same time
                shutil.rmtree(folder.path, ignore_errors=True)
        if added == job_id:
            logging.LoggerAdapter(log, {"job": job_id}).info("queued")
        return added

    def admit(self, owner: str, kind: Kind, key: str | None = None) -> str | None:
        """Check whether a job of this kind may be submitted now, before its files have arrived.

        Returns None if it may, or the id of the job that `key` already has. Raises Busy and StorageError as `submit`.
        """
        owner = _hashed(owner)
        known = self.store.admit(owner, kind, self.settings, key)
        if known is None and kind == "animate":
            self._check_disk(owner)
        return known

    def status(self, owner: str, job_id: str) -> JobStatus:
        """Return the job's current status. Raises UnknownJob, with one text for unknown ids and other owners' jobs."""
        return self._status(self._job(owner, job_id))

    def cancel(self, owner: str, job_id: str) -> None:
        """Make the job end soon; a job that has ended stays as it is. Raises UnknownJob."""
        self.store.cancel(_hashed(owner), _checked(job_id))
        if self._job(owner, job_id).state == "cancelled":  # no worker holds it
            JobFolder(self.home / "jobs" / job_id).delete_uploads()

    def jobs(self, owner: str) -> list[JobStatus]:
        """List all animations of `owner`, newest first; previews and motions are short-lived and not listed."""
        return [self._status(job) for job in self.store.jobs_of(_hashed(owner)) if job.kind == "animate"]

    def rename(self, owner: str, job_id: str, name: str) -> None:
        """Give the job a name chosen by its owner. Raises UnknownJob, and InputError for an unusable name."""
        name = " ".join(name.split()) if isinstance(name, str) else ""
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise InputError(f"A name has 1 to {MAX_NAME} letters; please choose another.")
        self.store.rename(_hashed(owner), _checked(job_id), name)

    def delete(self, owner: str, job_id: str) -> None:
        """Delete the job and all its files: at once if it has ended, else as soon as its worker releases it. Raises
        UnknownJob."""
        self.store.disown(_hashed(owner), _checked(job_id))
        self._cleanup.remove_unwanted()

    def subjects(self, owner: str) -> list[SubjectEntry]:
        """List the subjects of `owner`, the last used first."""
        found = []
        for folder in subjects(self.home, _hashed(owner)):
            with suppress(OSError, ValueError, KeyError):  # the cleanup is deleting it
                file, poses = folder / "subject.json", folder / "photo_poses.npz"
                about, (photo, *more) = json.loads(file.read_text()), sorted(folder.glob("photo_[0-9]*.png"))
                entry = SubjectEntry(
                    key=folder.name,
                    whose=f"{folder.parent.name}-{folder.name}",
                    recipe=about["recipe"],
                    seed=about["seed"],
                    size_mb=size_of(folder) / 1e6,
                    used=file.stat().st_mtime,
                    photo=photo,
                    poses=poses if poses.exists() else None,
                    more=tuple(more),
                )
                found.append(entry)
        return sorted(found, key=lambda subject: -subject.used)

    def subject(self, owner: str, key: str) -> SubjectEntry:
        """Return one subject of `owner`. Raises InputError, with one text for unknown keys and other owners' ones."""
        found = next((subject for subject in self.subjects(owner) if subject.key == key), None)
        if found is None:
            raise InputError("There is no such person here, or they have been deleted.")
        return found

    def delete_subject(self, owner: str, key: str) -> None:
        """Delete the subject's files; a job that needs it tunes it again.

        Raises InputError as `subject`, and while a job of the owner runs on the device, as it may be about to load it.
        """
        folder = self.subject(owner, key).photo.parent
        states = {job.state for job in self.store.jobs_of(_hashed(owner)) if job.queue == "device"}
        if states & {"running", "cancelling"}:
            raise InputError(
                "One of your videos is being made right now; wait until it is finished, or stop it, then delete the "
                "person."
            )
        shutil.rmtree(folder, ignore_errors=True)
        if self._cleanup.bucket is not None:
            self._cleanup.bucket.forget("subjects", folder.parent.name, key)

    def pace(self, recipe: str, quality: str) -> Timing:
        """Return the time that this recipe and quality take on this machine, measured on the last jobs."""
        return Timings(self.home).of(recipe, quality)

    def _job(self, owner: str, job_id: str) -> Job:
        return self.store.get(_hashed(owner), _checked(job_id))

    def _status(self, job: Job) -> JobStatus:
        folder, request, state = JobFolder(self.home / "jobs" / job.id), job.request, job.state
        ended, done = state in FINAL_STATES, state == "done"
        looks = job.kind == "preview" and request is not None and request.poses is None
        video = folder.thing("video") if ended else None
        if job.kind == "animate" and job.queue == "light" and state in ("running", "interrupted"):
            state = "queued"  # to its owner, a job whose upload is being checked still waits for the device
        shown = {
            "state": state,
            "title": _title(request),
            "megabytes": video and round(size_of(video) / 1e6, 2),
            "chunks": tuple(sorted(folder.chunks.glob("[0-9]*.mp4"))),
            "frames": tuple(sorted(folder.frames.glob("[0-9]*.png"))),
            "result": folder.result if done and not looks else None,
            "look": folder.look if done and looks else None,
            "motion": folder.motion if done and job.kind == "motion" else None,
            "things": tuple(thing for thing in THINGS if folder.thing(thing)) if ended else (),
            "request": request and request.decoded(folder),
        }
        return JobStatus(**vars(job) | shown)

    def _check_disk(self, owner: str) -> None:
        """Raise DiskFull when the disk is nearly full, Busy when the owner's ended jobs take up max_own_mb or more.

        Subjects do not count here: the cleanup deletes the least recently used, and jobs tune them again.
        """
        if shutil.disk_usage(self.home).free >> 20 < MIN_FREE_MB:
            raise DiskFull(
                f"The server's disk has less than {MIN_FREE_MB} MB left, so nothing new is begun; please tell the "
                "operator."
            )
        ended = [job for job in self.store.jobs_of(owner) if job.state in FINAL_STATES]
        used_mb = sum(size_of(self.home / "jobs" / job.id) for job in ended) / 1e6
        if used_mb >= self.settings.max_own_mb:
            raise Busy(
                f"Your results take {used_mb:.0f} MB on the server, and {self.settings.max_own_mb} MB is the most; "
                f"the oldest go {self.settings.keep_results_h:g} hours after they end, please come back then."
            )

    def _copied(self, source: Path, folder: JobFolder, decoded: Path) -> Path:
        """Copy an upload of at most max_upload_mb and return its owner's name. Raises InputError and TooLarge."""
        name = Path("".join(c for c in source.name if c.isprintable())[-100:])
        if not source.is_file():
            raise InputError(f"{name} cannot be read as a file; please choose it again.")
        if source.stat().st_size > self.settings.max_upload_mb << 20:
            raise TooLarge(f"{name} is larger than {self.settings.max_upload_mb} MB, the most that is accepted.")
        shutil.copyfile(source, folder.upload(decoded, name))
        return name


def _hashed(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()


def _checked(job_id: str) -> str:
    if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
        raise UnknownJob(NO_SUCH_JOB)
    return job_id


def _title(request: JobRequest | None) -> str:
    """What was moved and how, by the owner's names of the files, in letters and digits: "bela-dance"."""
    files = [] if request is None else [request.image, request.poses]
    names = [re.sub("[^0-9A-Za-z]+", "-", file.stem).strip("-")[:24] for file in files if file]
    return "-".join(filter(None, names)) or "video"
