"""A driver's connection to the cluster: reached or refused with a sentence, the pool found or made, its word given
again and again."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from ..errors import ClusterAway
from ..progress import ShouldStop, check_stop
from ..settings import MODELS, Settings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no calls home
import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .model import Setup, versions
from .pool import NAMESPACE, NUM_LISTENERS, Pool, Situation
from .turns import Lease

log = logging.getLogger("dreampose.cluster")

REACH_S = 5.0
CONNECT_S = 60.0
RENEW_EVERY_S = 2.0
ANSWER_S = 20.0  # the most that the pool takes for an answer
NO_MODEL_S = 120.0  # with nobody but nodes that cannot be used, a job waits no longer

_connecting: Future | None = (
    None  # the attempt under way or the last one; one that never ends is not followed by another
)


def check_reached(address: str) -> None:
    """Raises ClusterAway where nobody listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        # Ray looks for this machine's cluster at its address in the network, and takes minutes to find nobody there
        host = ray.util.get_node_ip_address() if host in ("localhost", "127.0.0.1", "[::1]") else host.strip("[]")
        socket.create_connection((host, int(port)), REACH_S).close()
    except (OSError, ValueError, OverflowError) as error:
        why = "it must be host:port" if not isinstance(error, OSError) else error.strerror or str(error)
        raise ClusterAway(
            f"The Ray cluster at {address} cannot be reached ({why}); start it with ray start, or correct "
            "DREAMPOSE_RAY_ADDRESS."
        ) from error


def connect(address: str) -> None:
    """This process becomes a driver of the cluster, unless it is one. Raises ClusterAway, at the latest after
    CONNECT_S."""
    global _connecting
    if ray.is_initialized():
        return
    check_reached(address)
    if _connecting is None or _connecting.done():
        _connecting = Future()
        threading.Thread(target=_initialize, args=(address, _connecting), name="connect", daemon=True).start()
    try:
        _connecting.result(CONNECT_S)
    except (
        TimeoutError,
        RayError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # among them a Ray or a Python of another version
        said = " ".join(str(error).split())[:300] if _connecting.done() else f"no answer within {CONNECT_S:.0f} s"
        raise ClusterAway(f"The Ray cluster at {address} does not take this program in: {said}") from error


def _initialize(address: str, done: Future) -> None:
    """In a thread of its own: nothing ends Ray's waiting for a head that is silent, and in the main thread it would
    take the handler of SIGTERM, so that a worker ended in the middle of a step."""
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        done.set_result(None)
    except BaseException as error:
        done.set_exception(error)


def cluster_device(asked: str) -> str:
    """ "cuda" or "cpu" for what was asked for. Raises ClusterAway where a GPU was and there is none."""
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if asked == "cuda" and num_gpus == 0:
        raise ClusterAway("The Ray cluster has no GPU; start its nodes with --num-gpus, or set DREAMPOSE_DEVICE=cpu.")
    return "cuda" if asked != "cpu" and num_gpus else "cpu"


class Cluster:
    """What a driver, a worker process of the device queue, knows of the cluster. Raises ClusterAway where there is
    none."""

    def __init__(self, settings: Settings):
        connect(settings.ray_address)
        model = next((name for name, path in MODELS.items() if path == Path(settings.model)), settings.model)
        self._setup = Setup(
            model,
            cluster_device(settings.device),
            settings.precision,
            settings.low_memory,
            settings.safety_checker,
            torch.get_num_threads(),
            versions(),
        )
        self.shared = settings.ray_shared
        self.driver = secrets.token_hex(8)
        self._name = f"pool-{hashlib.sha256(repr(self._setup).encode()).hexdigest()[:12]}"
        self._pool = None
        self._closed = threading.Event()
        threading.Thread(target=self._renew, name="renew", daemon=True).start()

    def close(self) -> None:
        """The pool hears no more of this driver."""
        self._closed.set()

    def wait(self, should_stop: ShouldStop) -> Situation:
        """The pool as soon as there is a model in it. Raises Cancelled, and ClusterAway where no node can be used."""
        began = time.monotonic()
        while True:
            check_stop(should_stop)
            found = self.situation()
            if found is not None and found.model is not None and found.ready:
                return found
            if time.monotonic() - began > NO_MODEL_S and (found is None or found.problems):
                raise ClusterAway(
                    found.problems[0] if found is not None else "The Ray cluster does not answer; look at ray status."
                )
            time.sleep(0.2)

    def situation(self) -> Situation | None:
        """None while the pool does not answer."""
        return self._call(lambda pool: pool.situation.remote(self.driver))

    def ask(
        self, job: str, owner: str, subject: str, total: int, released: Sequence[int] = (), lost: Sequence[int] = ()
    ) -> list[tuple[Lease, object]]:
        """What the job holds now, see `Pool.ask`; nothing while the pool does not answer."""
        return self._call(lambda pool: pool.ask.remote(self.driver, job, owner, subject, total, released, lost)) or []

    def news(self, job: str, known: Sequence[int]) -> ray.ObjectRef | None:
        """A reference to what `Pool.news` tells; None while the pool does not answer."""
        return None if self._pool is None else self._pool.news.remote(job, known)

    def _call(self, make):
        if not ray.is_initialized():  # or Ray would start a cluster of its own
            return None
        try:
            if self._pool is None:
                here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
                options = {
                    "name": self._name,
                    "namespace": NAMESPACE,
                    "lifetime": "detached",
                    "get_if_exists": True,
                    "num_cpus": 0,
                    "max_restarts": -1,
                    "max_task_retries": 0,
                    "max_concurrency": 32,
                    "scheduling_strategy": here,
                }
                self._pool = (
                    ray.remote(concurrency_groups={"news": NUM_LISTENERS})(Pool)
                    .options(**options)
                    .remote(self._setup, self._name)
                )
            return ray.get(make(self._pool), timeout=ANSWER_S)
        except Exception as error:  # Ray raises plain ones, too
            log.warning("the pool does not answer: %s", str(error).partition("\n")[0])
            self._pool = None
            return None

    def _renew(self) -> None:
        while not self._closed.wait(RENEW_EVERY_S):
            self.situation()
