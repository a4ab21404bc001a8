"""The pool: an actor by name that keeps a warm model on every GPU of the cluster and says whose turn it is on which."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..animate.engine import ModelFacts
from .model import Setup, WarmModel, other_versions
from .turns import Lease, Turns

log = logging.getLogger("dreampose.cluster")

NAMESPACE = "dreampose"
TEND_EVERY_S = 0.5
ABOUT_EVERY_S = 3.0
SILENT_S = 30.0  # a process that has not answered for so long hangs, and is replaced
AGAIN_AFTER_S = 60.0  # a node on which no model could be loaded is tried again then
LOADING_S = 1800.0  # the most that loading may take; a hub's model is fetched then, too
NEWS_S = 1.0  # the most that news are waited for at a time
NUM_LISTENERS = 64  # jobs that wait for news at a time; others hear of them later, when one of these has ended
ALONE_S = 120.0  # without a driver for so long, everything ends


@dataclass(frozen=True)
class Situation:
    """How a pool is.

    model: what all its models are, None while none is loaded. ready: each that is, a node's id and an actor. problems:
    a sentence for each node that cannot be used.
    """

    model: ModelFacts | None
    ready: tuple[tuple[str, object], ...]
    problems: tuple[str, ...]


@dataclass
class _Seat:
    """A place for a model: one of a node's GPUs, or a node where the CPU is the device. waits: for the answer about the
    model."""

    name: str
    node: str
    address: str
    actor: object
    loading: object
    began: float
    ready: bool = False
    waits: object = None
    asked: float = field(default=0.0)


class Pool:
    """Made once for all drivers that want the same `setup`; lives until none of them has been heard of for a while."""

    def __init__(self, setup: Setup, name: str):
        self._setup, self._name = setup, name
        self._turns, self._lock = Turns(), threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._seats: dict[str, _Seat] = {}
        self._problems: dict[str, tuple[float, str]] = {}  # by node
        self._model: ModelFacts | None = None
        self._heard = time.monotonic()
        self._count = 0
        self._actor_class = ray.remote(concurrency_groups={"control": 4})(WarmModel)
        threading.Thread(target=self._run, name="tend", daemon=True).start()

    def situation(self, driver: str) -> Situation:
        """How the pool is; the driver renews with it."""
        with self._lock:
            self._hear(driver)
            ready = tuple((seat.node, seat.actor) for seat in self._seats.values() if seat.ready)
            return Situation(self._model, ready, tuple(sentence for _, sentence in self._problems.values()))

    def ask(
        self,
        driver: str,
        job: str,
        owner: str,
        subject: str,
        total: int,
        released: Sequence[int] = (),
        lost: Sequence[int] = (),
    ) -> list[tuple[Lease, object]]:
        """As `Turns.ask`, each lease with its model, an actor. lost: leases whose models do not answer any more; these
        are replaced."""
        with self._lock:
            self._hear(driver)
            before = self._turns.valid()
            for model in [model for model, number in before.items() if number in lost]:
                self._leave(self._seats[model])
            self._turns.ask(driver, job, owner, subject, total, released)
            self._end_what_is_void(before)
            self._changed.notify_all()
            return self._held_by(job)

    @ray.method(concurrency_group="news")
    def news(self, job: str, known: Sequence[int]) -> list[tuple[Lease, object]]:
        """What the job holds, as soon as these are not the leases `known`, or after a moment: so who waits has a free
        model at once."""
        with self._lock:
            self._changed.wait_for(lambda: {lease.number for lease in self._turns.leases(job)} != set(known), NEWS_S)
            return self._held_by(job)

    def _held_by(self, job: str) -> list[tuple[Lease, object]]:
        return [(lease, self._seats[lease.model].actor) for lease in self._turns.leases(job)]

    def _hear(self, driver: str) -> None:
        self._heard = time.monotonic()
        self._turns.renew(driver)

    def _end_what_is_void(self, before: dict[str, int]) -> None:
        """Tells models whose lease is over to end what they do; those who released it have nothing under way."""
        now = self._turns.valid()
        for model, number in before.items():
            if now.get(model) != number and model in self._seats:
                self._seats[model].actor.stop.remote(number)

    def _run(self) -> None:
        while True:
            try:
                self._tend()
            except Exception:
                log.exception("the pool could not be looked after")
            time.sleep(TEND_EVERY_S)

    def _tend(self) -> None:
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        with self._lock:
            now = time.monotonic()
            if now - self._heard > ALONE_S:
                for seat in list(self._seats.values()):
                    self._leave(seat)
                ray.kill(ray.get_actor(self._name, NAMESPACE))
            before = self._turns.valid()
            self._turns.expire()
            self._end_what_is_void(before)
            for seat in list(self._seats.values()):
                if seat.node not in nodes:
                    self._leave(seat)
                elif not seat.ready:
                    self._look_at_loading(seat)
                else:
                    self._look_at(seat)
            self._problems = {
                node: told for node, told in self._problems.items() if node in nodes and now - told[0] < AGAIN_AFTER_S
            }
            for node in nodes.values():
                self._fill(node)
            self._changed.notify_all()

    def _fill(self, node: dict) -> None:
        """Puts a model on each GPU of the node that has none yet."""
        resource = "GPU" if self._setup.device == "cuda" else "CPU"
        wanted = int(node["Resources"].get(resource, 0))
        wanted = wanted if resource == "GPU" else min(wanted, 1)
        there = sum(seat.node == node["NodeID"] for seat in self._seats.values())
        if node["NodeID"] in self._problems:
            return
        for _ in range(wanted - there):
            self._count += 1
            options = {
                "num_cpus": int(resource == "CPU"),
                "num_gpus": int(resource == "GPU"),
                "max_restarts": 0,
                "max_task_retries": 0,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            }
            actor = self._actor_class.options(**options).remote(self._setup)
            name = f"{node['NodeManagerAddress']}-{self._count}"
            loading = actor.load.remote()
            self._seats[name] = _Seat(
                name, node["NodeID"], node["NodeManagerAddress"], actor, loading, time.monotonic()
            )

    def _look_at_loading(self, seat: _Seat) -> None:
        if not ray.wait([seat.loading], timeout=0)[0]:
            if time.monotonic() - seat.began > LOADING_S:
                self._refuse(seat, "could not load the model in time")
            return
        try:
            model, found, problem = ray.get(seat.loading)
        except RayError as error:
            self._refuse(
                seat,
                f"could not start DreamPose ({_last_line(error)}); install the same version there as on the server",
            )
            return
        if other := other_versions(found, self._setup.versions):
            self._refuse(seat, f"has {other}; install the same there as on the server")
        elif problem is not None:
            self._refuse(seat, f"cannot load the model: {problem}")
        elif self._model is not None and _kind(model) != _kind(self._model):
            self._refuse(
                seat,
                "has other weights under the model's name, or computes in another precision; copy the model there "
                "again, or set DREAMPOSE_PRECISION",
            )
        else:
            self._model = self._model or model
            seat.ready = True
            self._turns.add(seat.name)
            log.info("a model is ready on %s", seat.address)

    def _look_at(self, seat: _Seat) -> None:
        """Asks whether it lives, and replaces what does not answer or is of no use any more."""
        now = time.monotonic()
        if seat.waits is None:
            if now - seat.asked >= ABOUT_EVERY_S:
                seat.waits, seat.asked = seat.actor.about.remote(), now
        elif ray.wait([seat.waits], timeout=0)[0]:
            try:
                spoiled = ray.get(seat.waits)["spoiled"]
                seat.waits = None
            except RayError:
                spoiled = True
            if spoiled:
                self._leave(seat)
        elif now - seat.asked > SILENT_S:
            self._leave(seat)

    def _refuse(self, seat: _Seat, why: str) -> None:
        self._problems[seat.node] = time.monotonic(), f"The node {seat.address} {why}."
        log.warning("%s", self._problems[seat.node][1])
        self._leave(seat)

    def _leave(self, seat: _Seat) -> None:
        """Ends the process and forgets the seat, which is filled anew if there still is a GPU for it."""
        ray.kill(seat.actor)
        self._turns.remove(seat.name)
        del self._seats[seat.name]


def _kind(model: ModelFacts) -> tuple:
    return model.model_config, model.fingerprint, (model.precision or "").partition(",")[0], model.safety_checker


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
