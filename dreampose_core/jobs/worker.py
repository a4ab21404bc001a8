"""One worker process: claims jobs of one queue, works on them one after another, and never leaves one in doubt.

    python -m dreampose_core.jobs.worker --queue light|device

Settings come from the environment (DREAMPOSE_*). The service starts, watches and restarts workers; one that is killed
loses nothing, because its claim is taken back and the next worker goes on from the files in the job's folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from ..errors import Cancelled, ClusterAway, DiskFull, DreamPoseError, InputError, LostClaim, StorageError
from ..progress import Progress
from ..settings import Settings
from .confinement import give_way
from .locks import WorkerLock
from .logs import JobLog, configure, current_job
from .messages import CLUSTER_AWAY, DISK_FULL, storage_error
from .records import QUEUES, Claim, JobFolder, Losses, Queue, StoredRequest, Work
from .store import Store

log = logging.getLogger("dreampose.worker")

POLL_S = 0.25
STOP_CHECK_EVERY_S = 0.3
PROGRESS_EVERY_S = 0.2
HEARTBEAT_EVERY_S = 4.0
LEAVE_WITHIN_S = 20.0
NICE = 10  # the page answers first where workers compute on the same cores
MAX_LOSSES = 400

Handler = Callable[[Work], tuple[str, ...]]


def with_loss(losses: Losses, step: int, loss: float) -> Losses:
    """The loss curve with one more point; evenly thinned, and cut back first when tuning went back to an earlier
    step."""
    kept = [point for point in losses if point[0] < step]
    stride = kept[1][0] - kept[0][0] if len(kept) > 1 else 1
    if kept and step - kept[-1][0] < stride:
        return tuple(kept)
    kept.append((step, loss))
    return tuple(kept if len(kept) <= MAX_LOSSES else kept[::2])


class Attempt:
    """One claim at work: turns the handler's reports into store writes and the store's wishes into should_stop.

    Used by the thread that runs the handler and by the heartbeat thread.
    """

    def __init__(self, store: Store, claim: Claim, leaving: Callable[[], bool]):
        self.store, self.claim, self.leaving = store, claim, leaving
        self.log = JobLog(log, claim.id)
        self.cancelled = self.lost = False
        self._lock = threading.RLock()
        self._losses = claim.losses
        self._latest: Progress | None = None
        self._unwritten = False
        self._written_at = self._checked_at = self._renewed_at = time.monotonic()

    def on_progress(self, progress: Progress) -> None:
        """Stores the first and last step of a stage at once, others about five times a second."""
        with self._lock:
            if progress.stage == "tuning" and progress.loss is not None:
                self._losses = with_loss(self._losses, progress.step, progress.loss)
            urgent = self._latest is None or progress.stage != self._latest.stage or progress.step == progress.total
            self._latest, self._unwritten = progress, True
            if urgent or time.monotonic() - self._written_at >= PROGRESS_EVERY_S:
                self.flush()

    def flush(self) -> None:
        """Stores what has been reported and is not stored yet."""
        with self._lock:
            if self._unwritten:
                self._unwritten = False
                self._written_at = self._renewed_at = time.monotonic()
                self._try(lambda: self.store.record(self.claim, self._latest, self._losses))

    def beat(self) -> None:
        """The heartbeat thread's part: renews the lease, and stores reports that the handler was too quick to store
        itself."""
        with self._lock:
            if time.monotonic() - self._written_at >= PROGRESS_EVERY_S:
                self.flush()
            if time.monotonic() - self._renewed_at >= HEARTBEAT_EVERY_S:
                self._renewed_at = time.monotonic()
                self._try(lambda: self.store.renew(self.claim))

    def should_stop(self) -> bool:
        """Whether to stop, because of a cancel, a shutdown or a lost claim; looks into the store every 0.3 s at
        most."""
        if time.monotonic() - self._checked_at >= STOP_CHECK_EVERY_S:
            self._checked_at = time.monotonic()
            self._try(self._ask_store)
        return self.cancelled or self.lost or self.leaving()

    def _ask_store(self) -> None:
        self.cancelled = self.cancelled or self.store.cancel_asked(self.claim)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except LostClaim:
            self.lost = True
        except (
            StorageError
        ) as error:  # progress can be missed; if the store stays away, the lease runs out and the job is resumed
            self.log.warning("%s", error)


class Worker:
    """The claim loop of one queue.

    name: how the store and the service call this process. parent: the process without which this one leaves, or None.
    """

    def __init__(self, queue: Queue, settings: Settings, handler: Handler, name: str, parent: int | None = None):
        self.queue, self.settings, self.handler, self.name, self.parent = queue, settings, handler, name, parent
        try:
            self._lock = WorkerLock(
                settings.home / "workers", name
            )  # before the first claim, which only the living may hold
        except OSError as error:
            raise storage_error(error) or StorageError(
                f"The data folder {settings.home} cannot be used ({error.strerror})."
            ) from error
        self.store = Store(settings.home / "jobs.sqlite3")
        self._attempt: Attempt | None = None
        self._leave = False  # a plain flag: an Event's lock must not be taken in a signal handler
        self._leave_at = 0.0

    def run(self) -> int:
        """Works until SIGTERM, the parent's death or an unforeseen error; returns the exit status."""
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
                return 1  # after an unforeseen error this process's state, above all the GPU's, cannot be trusted
        log.info("%s: leaving", self.name)
        return 0

    def _prepare(self) -> None:
        """Has the handler load what its first job needs, while there is none yet."""
        prepare = getattr(self.handler, "prepare", None)
        if prepare is None:
            return
        try:
            prepare()
        except Exception as error:  # the first job says so to its owner
            log.warning("%s: not prepared: %s", self.name, error)

    def _work(self, claim: Claim) -> bool:
        """Runs the handler and stores how it ended; false when it ended in a way nobody foresaw."""
        current_job.set(claim.id)
        attempt = self._attempt = Attempt(self.store, claim, lambda: self._leave)
        attempt.log.info("%s queue, claim %d", self.queue, claim.fence)
        folder, foreseen = JobFolder(self.settings.home / "jobs" / claim.id), True
        try:
            request = StoredRequest.model_validate_json(claim.request)
            subjects = self.settings.home / "subjects" / claim.owner
            work = Work(claim.id, folder, subjects, request, attempt.on_progress, attempt.should_stop)
            notices = self.handler(work)
            attempt.flush()
            if self.queue == "light" and request.kind == "animate":
                ending = partial(self.store.advance, claim, "device", notices)
            else:
                ending = partial(self.store.finish, claim, notices)
        except Exception as error:
            attempt.flush()
            if isinstance(error, Cancelled) and (attempt.cancelled or attempt.lost or self._leave):
                ending = partial(self.store.interrupt, claim)
            else:
                storage = storage_error(error)
                if isinstance(storage, DiskFull):
                    attempt.log.error("%s", storage)
                    ending = partial(self.store.pause, claim, DISK_FULL)
                elif isinstance(error, ClusterAway):
                    attempt.log.error("%s", error)
                    ending = partial(self.store.pause, claim, CLUSTER_AWAY)
                elif "CUDA error" in str(error):
                    # Whatever this process asks of its GPU from now on fails, too. The next one takes the job over, so
                    # many times.
                    attempt.log.exception("the GPU failed")
                    ending, foreseen = None, False
                else:
                    sentence, code = _failure(storage or error, attempt)
                    foreseen = code != "internal"
                    ending = partial(self.store.fail, claim, sentence, code)
        if ending is not None:
            self._settle(attempt, ending)
        if attempt.cancelled:
            folder.delete_uploads()
        self._attempt = None
        current_job.set(None)
        return foreseen

    def _settle(self, attempt: Attempt, ending: Callable[[], None]) -> None:
        """Stores how a job ended, trying again while the disk is full; the heartbeat keeps the claim meanwhile."""
        while True:
            try:
                ending()
                return
            except LostClaim:
                attempt.log.warning("taken over by another worker, nothing stored")
                return
            except StorageError as error:
                attempt.log.error("%s", error)
                if self._leave:
                    return  # the lease runs out and the job is resumed
                time.sleep(1.0)

    def _say(self) -> None:
        """What /healthz tells of this worker; the device is known once a model was loaded onto it."""
        self._said = getattr(self.handler, "device", None)
        self._lock.say(queue=self.queue, pid=os.getpid(), device=self._said)

    def _ask_to_leave(self) -> None:
        if not self._leave:
            self._leave_at = time.monotonic() + LEAVE_WITHIN_S
            self._leave = True

    def _beat(self) -> None:
        while True:
            if self.parent is not None and os.getppid() != self.parent:
                self._ask_to_leave()
            if self._leave and time.monotonic() > self._leave_at:
                os._exit(1)  # the handler does not listen; its claim will be taken back
            attempt = self._attempt
            if attempt is not None and not attempt.lost:
                attempt.beat()
            if getattr(self.handler, "device", None) != self._said:
                self._say()
            time.sleep(0.5)


def _failure(error: Exception, attempt: Attempt) -> tuple[str, str]:
    """What to tell the owner, in a sentence and in a word; the traceback of what nobody foresaw goes to the log."""
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


def run(
    queue: Queue, settings: Settings, handler: Handler | None = None, name: str | None = None, parent: int | None = None
) -> int:
    """Works on `queue` until told to leave; returns the exit status. Must be called from the main thread.

    handler: what is done with a job; None takes the queue's own (`tasks.for_queue`).
    """
    if handler is None:
        from . import tasks  # here, so that a worker with another handler needs neither images nor torch

        handler = tasks.for_queue(queue, settings)
    return Worker(queue, settings, handler, name or f"{queue}-{os.getpid()}", parent).run()


def main(arguments: list[str] | None = None, handler: Handler | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dreampose_core.jobs.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--queue", choices=QUEUES, required=True)
    parser.add_argument("--name", help="how the store calls this worker")
    parser.add_argument("--parent", type=int, help="leave when this process is no longer the parent")
    given = parser.parse_args(arguments)
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # until the worker has its own: nothing is begun yet, so there is nothing to give back
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        give_way(NICE)
        settings = Settings.from_environment()
        configure(settings.log_format)
        return run(given.queue, settings, handler, given.name, given.parent)
    except DreamPoseError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # the thread that loads the model would be waited for, or torn apart
