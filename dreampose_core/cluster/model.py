"""The model in a process of the cluster: loaded once, kept warm with the subject that it carried last; one piece of
work at a time."""

from __future__ import annotations

import logging
import os
import platform
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import ray
import torch

from ..animate.engine import LocalEngine, Making, ModelFacts, Tuning, Watch
from ..errors import Cancelled, DreamPoseError
from ..model.loading import load_pipeline
from ..progress import Progress
from ..settings import Precision
from .parcels import Mirror, Parcel, packed, unpack

log = logging.getLogger("dreampose.cluster")

STEPS_EVERY_S = 0.1  # how often the steps of denoising are told
MOST_UNSENT = 64  # events
ENDINGS = "done", "stopped", "error"

Event = tuple  # its name, then what belongs to it; see `events`
Emit = Callable[..., None]


@dataclass(frozen=True)
class Setup:
    """What every model of a pool is.

    model: a shipped one's name, a folder that is at the same place on every node, or a hub id. device, precision,
    low_memory, safety_checker: as `load_pipeline`. num_threads: of torch, on every node alike: on a CPU results hang on
    it. versions: see there.
    """

    model: str
    device: str
    precision: Precision
    low_memory: bool
    safety_checker: str | None
    num_threads: int
    versions: tuple[tuple[str, str], ...]


def versions() -> tuple[tuple[str, str], ...]:
    """Of what must be the same wherever frames of one video are made, by name."""
    ours = import_module("dreampose_core").__version__  # of the code that lies on this node
    python = ".".join(platform.python_version_tuple()[:2])
    return ("DreamPose", ours), ("Python", python), ("PyTorch", torch.__version__.partition("+")[0])


def other_versions(found: tuple[tuple[str, str], ...], wanted: tuple[tuple[str, str], ...]) -> str:
    """What differs, in words; empty where nothing does."""
    return ", ".join(
        f"{name} {has} instead of {asked}" for (name, asked), (_, has) in zip(wanted, found) if has != asked
    )


@dataclass(frozen=True)
class Carried:
    """A subject to be carried: `name` tells it from all others; its files, or where they lie on a folder that is
    shared."""

    name: str
    files: Parcel | None
    folder: Path | None


@dataclass(frozen=True)
class Places:
    """Folders of a tuning that all nodes share, as `Engine.tune` is given them."""

    subject: Path
    checkpoints: Path
    samples: Path


class WarmModel:
    """An actor of Ray's. Work comes with the number of the lease that allows it: a higher one ends what came with a
    lower."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._engine: LocalEngine | None = None
        self._carried, self._worn = "", ExitStack()
        self._lock = threading.Lock()
        self._newest = self._stopped = 0  # numbers of leases
        self._busy = self._spoiled = False

    def load(self) -> tuple[ModelFacts | None, tuple[tuple[str, str], ...], str | None]:
        """What the model is, the versions here, and the sentence that says why there is none."""
        setup, found = self._setup, versions()
        if found == setup.versions:
            try:
                how = setup.device, setup.precision, setup.low_memory, setup.safety_checker
                self._engine = LocalEngine(load_pipeline(setup.model, *how))
            except DreamPoseError as error:
                return None, found, str(error)
            return self._engine.model, found, None
        return None, found, None

    def frames(self, number: int, making: Making, carried: list, batches: list[range]) -> Iterator[Event]:
        """The frames of `batches`; carried: nothing, or a reference to `Carried`, which is looked at where it is not
        carried already."""
        yield from self._events(
            number, lambda emit, should_stop: self._make(making, carried, batches, emit, should_stop)
        )

    def tune(self, number: int, tuning: Tuning, places: Places | None, parcels: list[Parcel]) -> Iterator[Event]:
        """A subject, written to `places` where these are shared. Else parcels of checkpoints and samples come and go,
        and it goes last."""
        yield from self._events(
            number, lambda emit, should_stop: self._tune(tuning, places, parcels, emit, should_stop)
        )

    @ray.method(concurrency_group="control")
    def stop(self, number: int) -> None:
        """Ends what came with this lease, or with one before it."""
        with self._lock:
            self._stopped = max(self._stopped, number)

    @ray.method(concurrency_group="control")
    def about(self) -> dict:
        """pid: of this process. busy: whether there is work. spoiled: whether an error left it in a state that nobody
        knows."""
        return {"pid": os.getpid(), "busy": self._busy, "spoiled": self._spoiled}

    def _events(self, number: int, work: Callable[[Emit, Callable[[], bool]], None]) -> Iterator[Event]:
        """What `work` emits, until it ends; then how: "done", "stopped", ("error", its kind, its sentence)."""
        with self._lock:
            stale = number < self._newest or number <= self._stopped
            self._newest = max(self._newest, number)
        if stale:
            yield ("stopped",)
            return
        unsent: queue.Queue[Event] = queue.Queue(MOST_UNSENT)
        gone = threading.Event()

        def should_stop() -> bool:
            return number <= self._stopped or number < self._newest or gone.is_set()

        def emit(*event) -> None:
            while not gone.is_set():
                try:
                    unsent.put(event, timeout=1)
                    return
                except queue.Full:
                    pass
            raise Cancelled("nobody listens any more")

        def run() -> None:
            try:
                torch.set_num_threads(
                    self._setup.num_threads
                )  # Ray's way, a runtime_env, starts nothing from a folder with a space
                work(emit, should_stop)
                ending = ("done",)
            except Cancelled:
                ending = ("stopped",)
            except DreamPoseError as error:
                ending = "error", type(error).__name__, str(error)
            except Exception as error:
                log.exception("a piece of work failed")
                self._spoiled = True
                if "CUDA error" in str(error):
                    os._exit(1)  # whatever is asked of this GPU from now on fails, too
                ending = "error", "", f"{type(error).__name__}: {error}"
            with suppress(Cancelled):
                emit(*ending)

        self._busy = True
        worker = threading.Thread(target=run, name="work", daemon=True)
        worker.start()
        try:
            while (event := unsent.get())[0] not in ENDINGS:
                yield event
            yield event
        finally:
            gone.set()
            worker.join()
            self._busy = False

    def _make(
        self, making: Making, carried: list, batches: list[range], emit: Emit, should_stop: Callable[[], bool]
    ) -> None:
        self._carry(carried)
        told = 0.0

        def on_step(frame: int, step: int) -> None:
            nonlocal told
            if time.monotonic() - told >= STEPS_EVERY_S:
                told = time.monotonic()
                emit("step", frame, step)

        watch = Watch(
            on_step,
            lambda size: emit("smaller", size),
            lambda frame, pixels: emit("latent_preview", frame, pixels),
            lambda frame: emit("hidden", frame),
        )
        for index, frame in self._engine.frames(making, batches, watch, should_stop):
            emit("frame", index, frame)
        emit("peaks", self._engine.peaks)

    def _carry(self, carried: list) -> None:
        """Puts the subject on that is asked for, unless it is on already."""
        name = carried[0] if carried else ""
        if name == self._carried:
            return
        self._worn.close()
        self._carried = ""
        if not carried:
            return
        subject: Carried = ray.get(carried[1])
        with tempfile.TemporaryDirectory(prefix="dreampose-") as temporary:
            if subject.files is not None:
                unpack(replace(subject.files, place="subject"), Path(temporary))
            self._worn.enter_context(self._engine.loaded(subject.folder or Path(temporary) / "subject"))
        self._carried = name

    def _tune(
        self, tuning: Tuning, places: Places | None, parcels: list[Parcel], emit: Emit, should_stop: Callable[[], bool]
    ) -> None:
        self._carry([])
        with tempfile.TemporaryDirectory(prefix="dreampose-") as temporary:
            root = Path(temporary)
            for parcel in parcels:
                unpack(parcel, root)
            own = places or Places(root / "subject", root / "checkpoints", root / "samples")
            mirrors = {} if places else {"samples": Mirror(own.samples), "checkpoints": Mirror(own.checkpoints)}
            for name, mirror in mirrors.items():
                list(mirror.changes(name))  # the other side has these

            def send(*names: str) -> None:
                for name in names:
                    for parcel in mirrors[name].changes(name):
                        emit("parcel", parcel)

            def told(progress: Progress) -> None:
                emit("progress", progress)
                send(*mirrors)

            try:
                _, seconds = self._engine.tune(
                    tuning,
                    own.subject,
                    checkpoints=own.checkpoints,
                    samples=own.samples,
                    on_progress=told,
                    should_stop=should_stop,
                )
            except Cancelled:
                send(*mirrors)  # the last checkpoint
                raise
            if places is None:
                send("samples")
                emit("parcel", packed(own.subject, "subject"))
            emit("tuned", seconds)
