"""One worker process: claims jobs of one queue, runs them one after another, and records how each one ended.

    python -m dreampose_core.jobs.worker --queue light|device

Settings come from the environment (DREAMPOSE_*). The supervisor starts, watches and restarts workers. Killing one loses
nothing: its claim is taken back, and the next worker continues from the files in the job's folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..errors import Cancelled, ClusterAway, DiskFull, DreamPoseError, InputError, LostClaim, StorageError
from ..files import lock_file
from ..progress import Progress
from ..settings import Settings
from .database import DISK_FULL, storage_error
from .logs import configure, current_job
from .records import QUEUES, Claim, JobFolder, JobRequest, Queue, Work
from .sandbox import give_way
from .store import Store

log = logging.getLogger("dreampose.worker")

POLL_S = 0.25
BEAT_EVERY_S = 0.2
RENEW_EVERY_S = 4.0
LEAVE_WITHIN_S = 20.0
NICE = 10  # on shared cores, the page goes before workers
CLUSTER_AWAY = (
    "The computers that make videos cannot be reached just now; the job goes on by itself when they are back."
)

Handler = Callable[[Work], tuple[str, ...]]


class Attempt:
    """A claim that is being worked on. The handler reports progress and asks whether to stop; the heartbeat thread
    exchanges both with the store."""

    def __init__(self, store: Store, claim: Claim, leaving: Callable[[], bool]):
        self.store, self.claim, self.leaving = store, claim, leaving
        self.log = logging.LoggerAdapter(log, {"job": claim.id})
        self.cancelled = self.lost = False
        self._lock = threading.RLock()
        self._losses = claim.losses
        self._unwritten: Progress | None = None
        self._renewed_at = time.monotonic()

    def on_progress(self, progress: Progress) -> None:
        with self._lock:
            if self._unwritten is not None and self._unwritten.stage != progress.stage:
                self.beat()  # a stage's end is stored before the next stage begins: its losses are not reported again
            self._unwritten = progress
            if progress.stage == "tuning" and progress.loss is not None:  # tuning may go back to earlier steps
                before = tuple(point for point in self._losses if point[0] < progress.step)
                self._losses = (*before, (progress.step, progress.loss))

    def should_stop(self) -> bool:
        """Return whether to stop, because of a cancel, a shutdown or a lost claim."""
        return self.cancelled or self.lost or self.leaving()

    def beat(self) -> None:
        """Store the reported progress, or else renew the lease in time; check whether the job was cancelled."""
        with self._lock:
            try:
                progress, self._unwritten = self._unwritten, None
                if progress is not None:
                    self.store.record(self.claim, progress, self._losses)
                    self._renewed_at = time.monotonic()
                elif time.monotonic() - self._renewed_at >= RENEW_EVERY_S:
                    self.store.renew(self.claim)
                    self._renewed_at = time.monotonic()
                self.cancelled = self.cancelled or self.store.cancel_asked(self.claim)
            except LostClaim:
                self.lost = True
            except StorageError as error:
                # Lost progress does no harm; if the store stays unusable, the lease expires and the job is resumed.
                self.log.warning("%s", error)


class Worker:
    """The claim loop of one queue.

    name: identifies this process to the store and the supervisor. parent: id of the parent process, without which this
    one exits; None for no such check.
    """

    def __init__(self, queue: Queue, settings: Settings, handler: Handler, name: str, parent: int | None = None):
        self.queue, self.settings, self.handler, self.name, self.parent = queue, settings, handler, name, parent
        try:
            (settings.home / "workers").mkdir(parents=True, exist_ok=True, mode=0o700)
            # Lock before the first claim: a claim without a lock is taken back. `living` briefly takes such locks.
            while (file := lock_file(settings.home / "workers" / name)) is None:
                time.sleep(0.01)
        except OSError as error:
            raise storage_error(error) or StorageError(
                f"The data folder {settings.home} cannot be used ({error.strerror})."
            ) from error
        self._lock = file
        self.store = Store(settings.home / "jobs.sqlite3")
        self._attempt: Attempt | None = None
        self._leave = False  # a plain flag: an Event's lock must not be taken in a signal handler
        self._leave_at = 0.0

    def run(self) -> int:
        """Work until SIGTERM, the parent's death or an unexpected error; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ask_to_leave())
        self._say()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        threading.Thread(target=self._prepare, name="prepare", daemon=True).start()
        log.info("%s: ready", self.name)
        while not self._leave:
            try:
                claim = self.store.claim(self.queue, self.name, self.settings.max_active)
            except StorageError as error:
                log.warning("%s: %s", self.name, error)
                claim = None
                time.sleep(2.0)
            if claim is None:
                time.sleep(POLL_S)
            elif not self._work(claim):
                return 1  # after an unexpected error the state of this process, above all of its GPU, is unknown
        log.info("%s: leaving", self.name)
        return 0

    def _prepare(self) -> None:
        """Let the handler load what its first job needs, while it waits for one."""
        try:
            getattr(self.handler, "prepare", lambda: None)()
        except Exception as error:  # the first job reports it to its owner
            log.warning("%s: not prepared: %s", self.name, error)

    def _work(self, claim: Claim) -> bool:
        """Run the handler and store how it ended; return False after an unexpected error."""
        current_job.set(claim.id)
        attempt = self._attempt = Attempt(self.store, claim, lambda: self._leave)
        attempt.log.info("%s queue, claim %d", self.queue, claim.fence)
        folder, foreseen, resumes = JobFolder(self.settings.home / "jobs" / claim.id), True, False
        try:
            request = JobRequest.model_validate_json(claim.request)
            subjects = self.settings.home / "subjects" / claim.owner
            work = Work(folder, subjects, request, attempt.on_progress, attempt.should_stop)
            advances = self.queue == "light" and request.kind == "animate"
            ending = partial(self.store.advance if advances else self.store.finish, claim, self.handler(work))
        except Exception as error:
            storage = storage_error(error)
            if isinstance(error, Cancelled) and attempt.should_stop():
                ending, resumes = partial(self.store.interrupt, claim), True
            elif isinstance(storage, DiskFull) or isinstance(error, ClusterAway):
                resumes = True
                attempt.log.error("%s", storage or error)
                ending = partial(self.store.pause, claim, DISK_FULL if storage else CLUSTER_AWAY)
            elif "CUDA error" in str(error):
                # After such an error, every GPU call of this process fails. The next process takes the job over, until
                # MAX_ATTEMPTS is reached.
                attempt.log.exception("the GPU failed")
                ending, foreseen = None, False
            else:
                sentence, code = _failure(storage or error, attempt)
                foreseen = code != "internal"
                ending = partial(self.store.fail, claim, sentence, code)
        attempt.beat()
        if (ending is not None and self._settle(attempt, ending) and not resumes) or attempt.cancelled:
            folder.delete_uploads()
        self._attempt = None
        current_job.set(None)
        return foreseen

    def _settle(self, attempt: Attempt, ending: Callable[[], None]) -> bool:
        """Store how a job ended, retrying on StorageError; the heartbeat keeps the claim meanwhile. Return whether it
        is stored."""
        while True:
            try:
                ending()
                return True
            except LostClaim:
                attempt.log.warning("taken over by another worker, nothing stored")
                return False
            except StorageError as error:
                attempt.log.error("%s", error)
                if self._leave:
                    return False  # the lease expires and the job is resumed
                time.sleep(1.0)

    def _say(self) -> None:
        """Write what /healthz reports about this worker; the device is known once a model is loaded on it."""
        self._said = getattr(self.handler, "device", None)
        with suppress(OSError):  # a full disk must not end the worker
            self._lock.seek(0)
            self._lock.write(json.dumps({"queue": self.queue, "pid": os.getpid(), "device": self._said}))
            self._lock.truncate()
            self._lock.flush()

    def _ask_to_leave(self) -> None:
        if not self._leave:
            self._leave_at = time.monotonic() + LEAVE_WITHIN_S
            self._leave = True

    def _beat(self) -> None:
        while True:
            if self.parent is not None and os.getppid() != self.parent:
                self._ask_to_leave()
            if self._leave and time.monotonic() > self._leave_at:
                os._exit(1)  # the handler does not stop; the supervisor takes its claim back
            attempt = self._attempt
            if attempt is not None and not attempt.lost:
                attempt.beat()
            if getattr(self.handler, "device", None) != self._said:
                self._say()
            time.sleep(BEAT_EVERY_S)


def _failure(error: Exception, attempt: Attempt) -> tuple[str, str]:
    """Return a sentence for the owner and a code for programs; log the traceback of an unexpected error."""
    if isinstance(error, InputError):
        attempt.log.info("refused: %s", type(error).__name__)  # its sentence may name the owner's files
        return str(error), "input"
    if isinstance(error, StorageError):
        attempt.log.error("%s", error)
        return "The server could not write its files; please tell the operator, and try again later.", "storage"
    attempt.log.exception("failed")
    sentence = (
        "Something went wrong in the program while it worked on this job; please try again, "
        f"and if it happens twice give the operator this number: {attempt.claim.id}."
    )
    return sentence, "internal"


def main(arguments: list[str] | None = None, handler: Handler | None = None) -> int:
    """Run a worker and return its exit status. handler: runs a job; None takes the queue's own (`tasks`)."""
    parser = argparse.ArgumentParser(prog="python -m dreampose_core.jobs.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--queue", choices=QUEUES, required=True)
    parser.add_argument("--name", help="how the store calls this worker")
    parser.add_argument("--parent", type=int, help="leave when this process is no longer the parent")
    args = parser.parse_args(arguments)
    try:
        give_way(NICE)
        settings = Settings.from_environment()
        configure(settings.log_format)
        if handler is None:
            from . import tasks  # late, so that a worker with another handler needs no image libraries and no torch

            handler = (tasks.LightTasks if args.queue == "light" else tasks.DeviceTasks)(settings)
        return Worker(args.queue, settings, handler, args.name or f"{args.queue}-{os.getpid()}", args.parent).run()
    except DreamPoseError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # a normal exit would wait for the thread that loads the model, or crash it
