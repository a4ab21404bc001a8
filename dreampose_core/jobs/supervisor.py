"""Keeps the worker processes alive, one in the light queue and one a GPU: starts, watches, stops and restarts them;
takes back the jobs of dead ones."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import StorageError
from ..settings import REPOSITORY, Settings
from .locks import is_alive
from .records import Queue
from .store import Store

log = logging.getLogger("dreampose.jobs")

TICK_S = 0.25
CANCEL_TERM_AFTER_S = 4.0  # the worker asks every 0.3 s whether to stop; one that has not by then is stuck
CANCEL_KILL_AFTER_S = 7.0
MAX_BACK_OFF_S = 4.0
STEADY_AFTER_S = 8.0  # what cannot even start dies sooner

Command = Callable[[Queue], Sequence[str]]


def worker_command(queue: Queue) -> Sequence[str]:
    """The command line of a worker, to which the supervisor adds --name and --parent."""
    return (sys.executable, "-m", "dreampose_core.jobs.worker", "--queue", queue)


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment in which a worker finds the same settings and the same code; without the secret, which it does
    not need."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DREAMPOSE_")}
    for name, value in settings.model_dump(exclude={"secret"}, exclude_none=True).items():
        environment[f"DREAMPOSE_{name.upper()}"] = str(value)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return environment


def gpu_of(number: int, workers: int, visible: str | None, num_gpus: int) -> str | None:
    """What CUDA_VISIBLE_DEVICES is for the device worker `number` of `workers`: a single one of those in `visible`, or
    of all `num_gpus`; None to leave it as it is. Workers that are too many share."""
    if workers == 1 or (visible is None and num_gpus == 0):
        return None
    devices = (
        [name.strip() for name in visible.split(",")] if visible is not None else [str(i) for i in range(num_gpus)]
    )
    return devices[number % len(devices)]


def _num_gpus() -> int:
    """Of NVIDIA's, as the driver tells; torch is not asked, because it is not loaded here."""
    try:
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        return 0


class _Slot:
    """One worker's place: the process in it, and how often in a row it died young. gpu: the one that is its alone, None
    for all."""

    def __init__(self, queue: Queue, gpu: str | None = None):
        self.queue, self.gpu = queue, gpu
        self.name = ""
        self.process: subprocess.Popen | None = None
        self.started = self.not_before = 0.0
        self.num_early_deaths = 0
        self.told_to_stop = False


class Supervisor:
    """Runs the worker processes of one installation until `stop()`."""

    def __init__(self, store: Store, settings: Settings, command: Command = worker_command):
        self.store, self.command = store, command
        self._environment = worker_environment(settings)
        self._locks = Path(settings.home) / "workers"
        workers, visible, num_gpus = settings.workers, self._environment.get("CUDA_VISIBLE_DEVICES"), _num_gpus()
        gpus = [gpu_of(i, workers, visible, num_gpus) if settings.engine == "local" else None for i in range(workers)]
        self._slots = [_Slot("light"), *(_Slot("device", gpu) for gpu in gpus)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pids(self) -> list[tuple[Queue, int | None]]:
        """The queue and the process id of each worker; None for one that is being restarted."""
        processes = [(slot.queue, slot.process) for slot in self._slots]
        return [
            (queue, process.pid if process is not None and process.poll() is None else None)
            for queue, process in processes
        ]

    def stop(self, timeout_s: float = 22.0) -> None:
        """Asks the workers to give their jobs back and leave; kills those that have not left after `timeout_s`
        seconds."""
        self._stopping.set()
        self._thread.join()
        processes = [(slot, slot.process) for slot in self._slots if slot.process is not None]
        for _, process in processes:
            process.terminate()
        deadline = time.monotonic() + timeout_s
        for slot, process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill(process)
                process.wait()
            slot.process = None
            self._take_back(slot.name)

    def _run(self) -> None:
        last_tick = time.time()
        while not self._stopping.is_set():
            if time.time() - last_tick > self.store.lease_s / 2:
                # The whole machine slept, and the workers with it: let their heartbeats come first.
                self._stopping.wait(self.store.lease_s / 2)
            last_tick = time.time()
            for slot in self._slots:
                self._tend(slot)
            try:
                self._hurry_cancels()
                self._replace_hung()
            except StorageError as error:
                log.error("%s", error)
                self._stopping.wait(2.0)
            self._stopping.wait(TICK_S)

    def _tend(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is not None and slot.process.poll() is not None:
            log.log(
                logging.INFO if slot.told_to_stop else logging.WARNING,
                "worker %s has ended with status %s",
                slot.name,
                slot.process.returncode,
            )
            if not self._take_back(slot.name):
                return  # the store is away; seen again at the next tick
            slot.process = None
            early = now - slot.started < STEADY_AFTER_S and not slot.told_to_stop
            slot.num_early_deaths = slot.num_early_deaths + 1 if early else 0
            slot.not_before = now + (min(0.25 * 2 ** (slot.num_early_deaths - 1), MAX_BACK_OFF_S) if early else 0.0)
        if slot.process is None and now >= slot.not_before:
            self._start_worker(slot)

    def _start_worker(self, slot: _Slot) -> None:
        slot.name = f"{slot.queue}-{secrets.token_hex(4)}"
        slot.started, slot.told_to_stop = time.monotonic(), False
        command = [*self.command(slot.queue), "--name", slot.name, "--parent", str(os.getpid())]
        try:
            # A session of its own: Ctrl-C reaches the server alone, which then lets the workers give their jobs back.
            environment = (
                self._environment if slot.gpu is None else {**self._environment, "CUDA_VISIBLE_DEVICES": slot.gpu}
            )
            slot.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            log.error("worker %s cannot be started: %s", slot.name, error)
            slot.not_before = time.monotonic() + MAX_BACK_OFF_S

    def _take_back(self, name: str) -> bool:
        try:
            self.store.recover(dead=[name])
            return True
        except StorageError as error:
            log.error("%s", error)
            return False

    def _hurry_cancels(self) -> None:
        waits = self.store.cancelling()
        for slot in self._slots:
            waited_s = waits.get(slot.name, 0.0)
            if slot.process is None or waited_s < CANCEL_TERM_AFTER_S:
                continue
            if waited_s >= CANCEL_KILL_AFTER_S:
                _kill(slot.process)
            elif not slot.told_to_stop:
                slot.process.terminate()
            slot.told_to_stop = True

    def _replace_hung(self) -> None:
        """Takes back jobs whose worker is dead or whose lease ran out; our own worker among these hangs and is killed,
        to be replaced."""
        silent = self.store.recover(dead=[name for name in self.store.holders() if not is_alive(self._locks, name)])
        for slot in self._slots:
            if slot.name in silent and slot.process is not None:
                log.warning("worker %s has been silent for %.0f s", slot.name, self.store.lease_s)
                _kill(slot.process)


def _kill(process: subprocess.Popen) -> None:
    """Ends the worker and what it started (an encoder, say); it leads a process group of its own."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # ended in between
