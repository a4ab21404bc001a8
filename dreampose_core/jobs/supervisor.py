"""Start, watch, restart and stop the processes of one installation: the web process, one worker of the light queue, and
the device queue's workers, one a GPU; take back the jobs of dead workers."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import StorageError
from ..settings import REPOSITORY, Settings
from .records import QUEUES, Queue
from .store import LEASE_S, Store

log = logging.getLogger("dreampose.jobs")

TICK_S = 0.25
CANCEL_KILL_AFTER_S = 7.0  # a worker checks every 0.2 s whether to stop; if it has not by then, it is stuck
STOP_S = 22.0
BACK_OFF_S = 3.0  # least time between two starts, because a process that cannot start ends at once

Command = Callable[[Queue], Sequence[str]]


def worker_command(queue: Queue) -> Sequence[str]:
    """Return the command line of a worker, to which the supervisor adds --parent and --name."""
    return (sys.executable, "-m", "dreampose_core.jobs.worker", "--queue", queue)


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which a worker finds the same settings and code; without the secret, which it does not
    need."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DREAMPOSE_")}
    for name, value in settings.model_dump(exclude={"secret"}, exclude_none=True).items():
        environment[f"DREAMPOSE_{name.upper()}"] = str(value)
    # threads that wait do not spin: two workers on the same cores would make each other many times slower
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return environment


def gpu_of(number: int, workers: int, visible: str | None, num_gpus: int) -> dict[str, str]:
    """Return the environment that gives device worker `number` of `workers` one GPU; empty for a single worker, which
    gets all GPUs, and on a machine without any. Workers share if there are more of them than GPUs.

    visible: the value of CUDA_VISIBLE_DEVICES, from which the GPU is taken; None: from all `num_gpus`.
    """
    if workers == 1 or (visible is None and num_gpus == 0):
        return {}
    devices = visible.split(",") if visible is not None else range(num_gpus)
    return {"CUDA_VISIBLE_DEVICES": str(devices[number % len(devices)]).strip()}


def living(home: Path) -> dict[str, dict]:
    """Return what each living worker reports about itself, by name; delete the files of dead workers.

    Each worker locks its file in home/workers until its process ends, in whatever way; a worker that is stopped but not
    dead keeps the lock, and loses its claim when the lease expires.
    """
    found = {}
    for path in sorted((home / "workers").glob("*-*")):
        with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                found[path.name] = {}
                found[path.name] = json.loads(file.read())
    return found


@dataclass
class _Slot:
    """One process to keep alive: how to start it, and the current process."""

    kind: Queue | Literal["web"]
    command: Sequence[str]
    environment: dict[str, str]
    pass_fds: Sequence[int] = ()
    name: str = ""
    process: subprocess.Popen | None = None
    started: float = -BACK_OFF_S
    num_starts: int = 0

    def start(self) -> None:
        """Start a new process, unless the last start was less than BACK_OFF_S ago."""
        if time.monotonic() - self.started < BACK_OFF_S:
            return
        self.name = f"{self.kind}-{secrets.token_hex(4)}"
        self.started, self.num_starts = time.monotonic(), self.num_starts + 1
        name = ["--name", self.name] if self.kind in QUEUES else []
        try:
            # Its own session: Ctrl-C reaches only this process, which then lets the workers release their jobs.
            self.process = subprocess.Popen(
                [*self.command, "--parent", str(os.getpid()), *name],
                env=self.environment,
                pass_fds=self.pass_fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            log.error("%s process %s cannot be started: %s", self.kind, self.name, error)

    def kill(self) -> None:
        """Kill the process and what it started (for example an encoder); it leads a process group of its own."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):  # ended in between
                os.killpg(self.process.pid, signal.SIGKILL)


class Supervisor:
    """The processes of one installation, which run while the `with` block lasts.

    command: returns the command line of a queue's worker. web: None for no web process, else its command line, to which
    --listener and --parent are added, and the descriptor of its listening socket. Each new web process inherits the
    socket, so no connection is refused during a restart.
    """

    def __init__(
        self, settings: Settings, command: Command = worker_command, web: tuple[Sequence[str], int] | None = None
    ):
        """Open the store and plan the processes; none starts yet. Raises StorageError."""
        self.home, self.store = settings.home, Store.of(settings.home)
        environment = worker_environment(settings)
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        num_gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))  # without torch, which is not loaded here
        self._workers = [_Slot("light", command("light"), environment)]
        for i in range(settings.workers):
            gpu = gpu_of(i, settings.workers, visible, num_gpus) if settings.engine == "local" else {}
            self._workers.append(_Slot("device", command("device"), environment | gpu))
        self._web = []
        if web is not None:
            command, listener = web
            secret = {} if settings.secret is None else {"DREAMPOSE_SECRET": settings.secret}
            self._web = [_Slot("web", [*command, "--listener", str(listener)], environment | secret, [listener])]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        """Ask the workers to release their jobs and exit, then the web process; kill those still alive after STOP_S
        seconds."""
        self._stopping.set()
        self._thread.join()
        for slots in (self._workers, self._web):
            started, deadline = [slot for slot in slots if slot.process], time.monotonic() + STOP_S
            for slot in started:
                slot.process.terminate()
            for slot in started:
                with suppress(subprocess.TimeoutExpired):
                    slot.process.wait(max(0.0, deadline - time.monotonic()))
                slot.kill()
                slot.process.wait()
        with suppress(StorageError):
            self._recover()
        self.store.close()

    def wait(self) -> None:
        """Block until the web process has reported that it cannot serve with these settings."""
        self._thread.join()

    def _run(self) -> None:
        last_tick = time.time()
        while not self._stopping.is_set():
            if time.time() - last_tick > LEASE_S / 2:
                # The whole machine was suspended, workers included: let their heartbeats come first.
                self._stopping.wait(LEASE_S / 2)
            last_tick = time.time()
            for slot in self._web + self._workers:
                self._tend(slot)
            try:
                silent, holders = self._recover()
                for slot in self._workers:
                    if slot.name in silent or holders.get(slot.name, 0.0) >= CANCEL_KILL_AFTER_S:
                        log.warning("worker %s does not answer, or does not stop its job, and is killed", slot.name)
                        slot.kill()
            except StorageError as error:
                log.error("%s", error)
                self._stopping.wait(2.0)
            self._stopping.wait(TICK_S)

    def _tend(self, slot: _Slot) -> None:
        if slot.process is not None and (status := slot.process.poll()) is not None:
            if slot.kind == "web" and status == 2 and slot.num_starts == 1:
                self._stopping.set()  # it has printed why
                return
            log.warning("%s process %s has ended with status %s", slot.kind, slot.name, status)
            slot.process = None
        if slot.process is None:
            slot.start()

    def _recover(self) -> tuple[list[str], dict[str, float]]:
        """Take back the jobs whose worker is dead, of whatever server, or whose lease has expired; return the names of
        their workers, and what `Store.holders` returned before."""
        holders = self.store.holders()  # before `living`, so that a worker that claims in between is not taken for dead
        return self.store.recover(dead=holders.keys() - living(self.home).keys()), holders
