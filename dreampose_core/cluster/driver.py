"""The engine whose networks are elsewhere: tuning goes to a model of the cluster, frames to as many as are free, a
batch at a time."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError

from .. import errors
from ..animate.engine import Making, ModelFacts, Tuning, Watch
from ..errors import Cancelled, ClusterAway, ModelError
from ..progress import OnProgress, ShouldStop, check_stop
from ..subject.folder import Subject, read_subject
from .connection import NO_MODEL_S, Cluster
from .model import Carried, Places
from .parcels import Mirror, packed, unpack
from .turns import Lease

log = logging.getLogger("dreampose.cluster")

MOST_LOSSES = 3  # of the computers that worked on the same
WAIT_S = 0.1  # how often a job looks whether it is to stop
ASK_EVERY_S = 1.0  # where the pool has told nothing meanwhile
LAST_WORDS_S = (
    3.0  # for a last checkpoint of what is stopped; the supervisor ends a worker that takes longer than 4 s to stop
)


@dataclass
class _Piece:
    """A batch at work. left: its frames that have not come yet."""

    lease: Lease
    actor: object
    batch: range
    left: set[int]


class RayEngine:
    """What one job has done on the cluster."""

    def __init__(self, cluster: Cluster, model: ModelFacts, job: str, owner: str):
        self.model = model
        self.peaks: dict[str, int] = {}
        self._cluster, self._job, self._owner = cluster, job, owner
        self._losses: Counter[str] = Counter()
        self._without = time.monotonic()  # since when nothing is held
        self._lost: list[int] = []  # leases whose models are gone, which the pool is not told yet
        self._holds: list[tuple[Lease, object]] | None = None  # as far as is known; None where the pool is to be asked
        self._asked = 0.0
        self._news: ray.ObjectRef | None = None  # to come from the pool as soon as other models are held

    def tune(
        self,
        tuning: Tuning,
        folder: Path,
        *,
        checkpoints: Path,
        samples: Path,
        on_progress: OnProgress,
        should_stop: ShouldStop,
    ) -> tuple[Subject, float]:
        roots = {"checkpoints": checkpoints, "samples": samples, "subject": folder}
        places = Places(folder, checkpoints, samples) if self._cluster.shared else None
        given = ray.put(tuning)
        while True:
            parcels = []
            if places is None:
                parcels = [
                    parcel for name in ("checkpoints", "samples") for parcel in Mirror(roots[name]).changes(name)
                ]
            with self._held():
                lease, actor = self._one(should_stop)
                stream = actor.tune.options(num_returns="streaming").remote(lease.number, given, places, parcels)
                seconds, lost, stopping = None, False, 0.0
                for event in self._events(stream, should_stop):
                    match event:
                        case None:  # nothing has come for a moment, or it is to be stopped
                            if should_stop() and not stopping:
                                stopping = time.monotonic()
                                actor.stop.remote(lease.number)
                            if stopping and time.monotonic() - stopping > LAST_WORDS_S:
                                break
                        case ("progress", progress):
                            on_progress(progress)
                        case ("parcel", parcel):
                            name, _, place = parcel.place.partition("/")
                            unpack(replace(parcel, place=place or "."), roots[name])
                        case ("tuned", seconds):
                            pass
                        case ("lost",):
                            lost = True
                        case _:
                            self._check(event)
                if lost:
                    self._lost.append(lease.number)
            if seconds is not None:
                return read_subject(folder, self.model.fingerprint), seconds
            check_stop(should_stop)
            if lost:
                self._count_loss("tuning", "learning the person")

    def frames(
        self, making: Making, batches: Sequence[range], watch: Watch, should_stop: ShouldStop
    ) -> Iterator[tuple[int, np.ndarray]]:
        subject = self._carried(making.subject)
        scene = ray.put(replace(making, subject=None))
        waiting, at_work, released = deque(batches), {}, []
        most = max(map(len, batches))
        came: set[int] = set()
        self.peaks = {}

        def on_smaller(size: int) -> None:
            nonlocal most
            most = min(most, size)
            watch.on_smaller(size)

        with self._held():
            while waiting or at_work:
                check_stop(should_stop)
                holds = self._hold(subject[0] if subject else "", len(waiting) + len(at_work), released)
                released = []
                busy = {piece.lease.number for piece in at_work.values()}
                for lease, actor in holds:
                    if waiting and lease.number not in busy:
                        batch = waiting.popleft()
                        parts = [batch[start : start + most] for start in range(0, len(batch), most)]
                        stream = actor.frames.options(num_returns="streaming").remote(
                            lease.number, scene, subject, parts
                        )
                        at_work[stream] = _Piece(lease, actor, batch, set(batch) - came)
                for stream in self._wait(at_work, more=bool(waiting)):
                    piece = at_work[stream]
                    match event := _next(stream):
                        case ("frame", index, frame):
                            if index in piece.left:
                                piece.left.remove(index)
                                came.add(index)
                                yield index, frame
                        case ("step", frame, step):
                            watch.on_step(frame, step)
                        case ("latent_preview", frame, pixels):
                            watch.on_latent_preview(frame, pixels)
                        case ("hidden", frame):
                            if frame in piece.left:
                                watch.on_hidden(frame)
                        case ("smaller", size):
                            on_smaller(size)
                        case ("peaks", peaks):
                            self.peaks = {name: max(mb, self.peaks.get(name, 0)) for name, mb in peaks.items()}
                        case _:
                            del at_work[stream]
                            released.append(piece.lease.number)
                            if event is None or event[0] == "lost":
                                self._lost.append(piece.lease.number)
                                self._count_loss(piece.batch.start, f"the frames from {piece.batch.start}")
                            elif event[0] == "error":
                                self._check(event)
                            if piece.left:
                                waiting.appendleft(piece.batch)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Whatever the job holds is given back at the end, and what is under way there ends."""
        try:
            yield
        finally:
            self._ask("", 0)
            self._holds = self._news = None

    def _hold(self, subject: str, total: int, released: Sequence[int] = ()) -> list[tuple[Lease, object]]:
        """What the job holds. The pool is asked where something is given back, and where it has told nothing for a
        while."""
        if released or self._holds is None or time.monotonic() - self._asked > ASK_EVERY_S:
            self._holds, self._news = (
                self._ask(subject, total, released),
                None,
            )  # what is told before the answer is not true any more
            self._asked = time.monotonic()
        return self._holds

    def _wait(self, streams: Collection, more: bool) -> list:
        """Those of `streams` that have an event, for which it waits a moment; where `more` models are wanted, for
        these, too."""
        if more and self._news is None:
            self._news = self._cluster.news(self._job, [lease.number for lease, _ in self._holds])
        refs = [*streams, *([self._news] if self._news is not None else [])]
        if not refs:
            time.sleep(WAIT_S)
            return []
        ready, _ = ray.wait(refs, timeout=WAIT_S)
        if self._news in ready:
            ready.remove(self._news)
            try:
                self._holds = ray.get(self._news)
            except RayError:  # the pool is gone
                self._holds = None
            self._news = None
        return ready

    def _ask(self, subject: str, total: int, released: Sequence[int] = ()) -> list[tuple[Lease, object]]:
        """As `Pool.ask`. Raises ClusterAway where nothing was held for long and there is nobody to wait for."""
        lost, self._lost = self._lost, []
        holds, now = self._cluster.ask(self._job, self._owner, subject, total, released, lost), time.monotonic()
        if holds or total == 0:
            self._without = now
        elif now - self._without > NO_MODEL_S:
            self._without = now
            found = self._cluster.situation()
            if found is None or not found.ready:
                raise ClusterAway("No node of the Ray cluster has a model ready; look at ray status on its head node.")
        return holds

    def _one(self, should_stop: ShouldStop) -> tuple[Lease, object]:
        while True:
            check_stop(should_stop)
            if holds := self._hold("", 1):
                return holds[0]
            self._wait((), more=True)

    def _events(self, stream, should_stop: ShouldStop) -> Iterator[tuple | None]:
        """What a stream tells until it ends; None whenever nothing came for a moment, and when it is to be stopped."""
        while True:
            ready, _ = ray.wait([stream], timeout=WAIT_S)
            if should_stop() or not ready:
                yield None
            if ready:
                event = _next(stream)
                if event is None:
                    return
                yield event
                if event[0] == "lost":
                    return

    def _check(self, event: tuple) -> None:
        """Raises the error that a model tells of."""
        if event[0] == "error":
            kind = getattr(errors, event[1], None) if event[1] else None
            raise kind(event[2]) if kind is not None else RuntimeError(event[2])

    def _count_loss(self, which: object, what: str) -> None:
        self._losses[str(which)] += 1
        log.warning("a computer of the cluster was lost at %s", what)
        if self._losses[str(which)] >= MOST_LOSSES:
            raise ModelError(
                f"{MOST_LOSSES} computers of the cluster were lost one after the other at {what}; please tell the "
                "operator, and try again."
            )

    def _carried(self, folder: Path | None) -> list:
        """What a model is given to carry the subject: its name and, looked at where it is needed, its files or where
        they are shared."""
        if folder is None:
            return []
        name = hashlib.sha256((folder / "subject.json").read_bytes()).hexdigest()
        shared = self._cluster.shared
        return [name, ray.put(Carried(name, None if shared else packed(folder), folder if shared else None))]


def _next(stream) -> tuple | None:
    """The next event; None at the end, ("lost",) where the process that made it, or the event itself, is gone."""
    try:
        return ray.get(next(stream))
    except StopIteration:
        return None
    except RayActorError:
        return ("lost",)
    except RayError as error:
        log.warning("an event was lost: %s", str(error).splitlines()[0])
        return ("lost",)
    except Cancelled:
        return ("stopped",)
