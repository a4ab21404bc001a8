"""Jobs on a Ray cluster over a shared folder: a list of actors, each with a model, and batches of frames for them."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no calls home
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from . import __version__
from .animate.engine import LocalEngine, ModelInfo
from .errors import ClusterAway, DreamPoseError, ModelError
from .files import appearing
from .model import memory
from .model.loading import load_pipeline
from .progress import OnProgress, ShouldStop, check_stop
from .settings import MODELS, Settings
from .subject.folder import Subject, subject_loaded

CONNECT_S = 60.0
WAIT_S = 0.2  # how often a job looks whether it is to stop, and asks its nodes for news
AGAIN_AFTER_S = 60.0  # a model that could not be used is loaded again then
NO_NODE_S = 120.0  # a job that has no node for so long is given back
STOP_S = 3.0  # a model that does not stop within is ended; the supervisor ends a worker that takes longer than 4 s
MOST_LOSSES = 3  # of nodes, by one batch
log = logging.getLogger("dreampose.cluster")

_connecting: Future | None = None  # the newest attempt; while it hangs there is no other


def connect(address: str) -> None:
    """Makes this process a driver of the cluster at host:port, unless it is one. Raises ClusterAway within CONNECT_S.

    Ray waits for minutes for a head that is silent, and in the main thread it takes the handler of SIGTERM; so it has a
    thread of its own.
    """
    global _connecting
    if ray.is_initialized():
        return
    host, _, port = address.rpartition(":")
    try:
        # Ray looks for this machine's cluster at its address in the network
        host = ray.util.get_node_ip_address() if host in ("localhost", "127.0.0.1", "[::1]") else host.strip("[]")
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        why = "it must be host:port" if not isinstance(error, OSError) else error.strerror or str(error)
        raise ClusterAway(
            f"The Ray cluster at {address} cannot be reached ({why}); start it with ray start, or correct "
            "DREAMPOSE_RAY_ADDRESS."
        ) from error

    def initialize(done: Future) -> None:
        try:
            done.set_result(ray.init(address=address, log_to_driver=False, configure_logging=False))
        except BaseException as error:
            done.set_exception(error)

    if _connecting is None or _connecting.done():
        _connecting = Future()
        threading.Thread(target=initialize, args=(_connecting,), name="connect", daemon=True).start()
    try:
        _connecting.result(CONNECT_S)
    except Exception as error:  # for example for a Ray or a Python of another version
        why = " ".join(str(error).split())[:300] if _connecting.done() else f"no answer within {CONNECT_S:.0f} s"
        raise ClusterAway(f"The Ray cluster at {address} does not take this program in: {why}") from error


def versions() -> dict[str, str]:
    """Versions of what must be the same wherever frames of one video are made, by name."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"DreamPose": __version__, "Python": python, "PyTorch": torch.__version__.partition("+")[0]}


@dataclass(frozen=True)
class Setup:
    """What all models of a cluster are.

    settings: the server's, without its secret. device: "cuda" or "cpu". num_threads: of torch, the same on every node,
    since results on a CPU depend on it. token: what stands in the data folder's cluster.id.
    """

    settings: Settings
    device: str
    num_threads: int
    token: str
    versions: dict[str, str]

    @classmethod
    def of(cls, settings: Settings) -> Setup:
        """For the cluster that this process is connected to. Raises ClusterAway where a GPU is asked for and there is
        none."""
        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        if settings.device == "cuda" and not has_gpu:
            raise ClusterAway("The Ray cluster has no GPU; start nodes with --num-gpus, or set DREAMPOSE_DEVICE=cpu.")
        # a shipped model goes by its name, since the code may lie elsewhere on a node
        model = next((name for name, path in MODELS.items() if path == Path(settings.model)), settings.model)
        settings = settings.with_folders().model_copy(update={"secret": None, "model": model})
        settings.home.mkdir(parents=True, exist_ok=True)
        marker = settings.home / "cluster.id"
        if not marker.is_file():
            with appearing(marker) as temporary:
                temporary.write_text(secrets.token_hex(8))
        device = "cuda" if has_gpu and settings.device != "cpu" else "cpu"
        return cls(settings, device, torch.get_num_threads(), marker.read_text(), versions())

    def room(self) -> dict[str, int]:
        """How many models each node takes, by Ray's id of the node; without nodes that take none."""
        name, each = ("GPU", 1) if self.device == "cuda" else ("CPU", self.num_threads)
        found = {node["NodeID"]: node["Resources"].get(name, 0) // each for node in ray.nodes() if node["Alive"]}
        return {node: int(models) for node, models in found.items() if models >= 1}


def check_node(setup: Setup) -> None:
    """Runs on a node. Raises ClusterAway where it cannot work for the server that has this setup."""
    found, address = versions(), ray.util.get_node_ip_address()
    other = [f"{name} {found[name]} instead of {has}" for name, has in setup.versions.items() if found[name] != has]
    if other:
        raise ClusterAway(f"The node {address} has {', '.join(other)}; install the same there as on the server.")
    home = setup.settings.home
    if not (home / "cluster.id").is_file() or (home / "cluster.id").read_text() != setup.token:
        raise ClusterAway(f"The node {address} does not see the data folder {home}; mount it there at the same path.")


def _sentence(error: Exception) -> str:
    """Why a node could not be used."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, DreamPoseError):
        return str(cause)
    if isinstance(error, RayActorError):
        return "A node of the Ray cluster was lost before it had loaded the model; look at ray status."
    line = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
    return f"A node of the Ray cluster cannot run DreamPose ({line}); install the same version there as on the server."


class ModelActor:
    """A model in a process of the cluster: one batch or one tuning at a time, and `news` meanwhile."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._news: deque[tuple[str, tuple]] = deque()
        self._subject, self._loaded = b"", ExitStack()

    def load(self) -> ModelInfo:
        """Raises ClusterAway as `check_node`, and ModelError."""
        check_node(self._setup)
        torch.set_num_threads(self._setup.num_threads)
        given = self._setup.settings
        pipe = load_pipeline(given.model, self._setup.device, given.precision, given.low_memory, given.safety_checker)
        self._engine = LocalEngine(pipe)
        return self._engine.model

    def news(self) -> list[tuple[str, tuple]]:
        """Name and arguments of each call of a callback since the last time."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def frames(self, work: tuple, batches: list[range]) -> tuple[np.ndarray, list[int], dict[str, int]]:
        """The frames of `batches`, uint8 (N, H, W, 3), those of them that were made black, and `LocalEngine.peaks`.

        work: scene, options and subject of `LocalEngine.frames`. The subject stays loaded for the next batch.
        """
        scene, options, subject = work
        self._carry(subject)
        told = {name: partial(self._tell, name) for name in ("on_step", "on_smaller", "on_latent_preview")}
        hidden: list[int] = []
        should_stop = ray.get_runtime_context().is_canceled
        with memory.peaks() as peaks:
            made = self._engine.loaded_frames(scene, options, batches, should_stop, on_hidden=hidden.append, **told)
            frames = np.stack([frame for _, frame in made])
        return frames, hidden, peaks

    def tune(self, *given, **named) -> tuple[Subject, float]:
        """As `LocalEngine.tune`, in the shared folder."""
        self._carry(None)
        named |= {"on_progress": partial(self._tell, "on_progress")}
        return self._engine.tune(*given, **named, should_stop=ray.get_runtime_context().is_canceled)

    def _tell(self, name: str, *given) -> None:
        self._news.append((name, given))

    def _carry(self, folder: Path | None) -> None:
        """Loads the subject that is asked for in place of the last one, unless it is the same."""
        about = None if folder is None else folder / "subject.json"  # holds the sums of the weights
        subject = about.read_bytes() if about is not None and about.is_file() else b""
        if not subject or subject != self._subject:
            self._loaded.close()
            self._subject = b""
            if folder is not None:
                self._loaded.enter_context(subject_loaded(self._engine.pipe, folder))
                self._subject = subject


@dataclass(eq=False)
class _Node:
    """An actor. started: a reference that is there once Ray has found a place for it; loading: to the model."""

    actor: object
    started: ray.ObjectRef
    loading: ray.ObjectRef
    ready: bool = False


class Cluster:
    """The engine of one worker process, as `LocalEngine`, with the worker's share of the models that the cluster takes.

    They stay loaded while this process lives; Ray ends them with it. Raises ClusterAway where no cluster can be used.
    """

    actor_class = ModelActor

    def __init__(self, settings: Settings):
        connect(settings.ray_address)
        self.setup = Setup.of(settings)
        self.model: ModelInfo | None = None  # until a node is ready
        self.peaks: dict[str, int] = {}
        self._nodes: list[_Node] = []
        self._problem, self._tended, self._again = "", 0.0, 0.0

    def wait(self, should_stop: ShouldStop) -> Cluster:
        """Returns itself when a node is ready. Raises Cancelled, and ClusterAway where none will be."""
        connect(self.setup.settings.ray_address)
        began = time.monotonic()
        while not self.ready(began):
            check_stop(should_stop)
            time.sleep(WAIT_S)
        return self

    def tune(self, *given, on_progress: OnProgress, should_stop: ShouldStop, **named) -> tuple[Subject, float]:
        """As `LocalEngine.tune`; where a node is lost, another goes on from the last checkpoint."""
        todo, told = ["learning the person"], {"on_progress": on_progress}
        made = self._spread(todo, lambda actor, _: actor.tune.remote(*given, **named), told, should_stop)
        return next(result for _, result in made)

    def frames(self, scene, options, subject, batches, should_stop, **callbacks) -> Iterator[tuple[int, np.ndarray]]:
        """As `LocalEngine.frames`, each batch on a node that is free; those of a lost node are made again elsewhere."""
        work, most = ray.put((scene, options, subject)), options.batch_size
        self.peaks = {}

        def on_smaller(size: int) -> None:
            nonlocal most
            most = min(most, size)
            callbacks["on_smaller"](size)

        def submit(actor, batch: range) -> ray.ObjectRef:
            return actor.frames.remote(work, [batch[i : i + most] for i in range(0, len(batch), most)])

        told = {**callbacks, "on_smaller": on_smaller}
        for batch, (frames, hidden, peaks) in self._spread(batches, submit, told, should_stop):
            self.peaks = {name: max(mb, self.peaks.get(name, 0)) for name, mb in peaks.items()}
            for index in hidden:
                callbacks["on_hidden"](index)
            yield from zip(batch, frames)

    def _spread(
        self, todo: Iterable, submit: Callable, callbacks: dict[str, Callable], should_stop: ShouldStop
    ) -> Iterator[tuple]:
        """Each of `todo` and its result, in any order. submit(actor, one) calls the actor that makes it.

        Raises Cancelled, what was raised on a node, ModelError where one of `todo` has lost MOST_LOSSES nodes, and
        ClusterAway where no node is left.
        """
        waiting, at_work, losses = deque(todo), {}, Counter()
        self._relay(self._nodes, None)  # drops nodes that are gone
        since = time.monotonic()
        try:
            while waiting or at_work:
                check_stop(should_stop)
                busy = [node for node, _ in at_work.values()]
                for node in [node for node in self.ready(since) if node not in busy][: len(waiting)]:
                    one = waiting.popleft()
                    at_work[submit(node.actor, one)] = node, one
                if not at_work:
                    time.sleep(WAIT_S)
                    continue
                since = time.monotonic()
                done, _ = ray.wait(list(at_work), timeout=WAIT_S)
                self._relay([node for node, _ in at_work.values()], callbacks)
                for ref in done:
                    node, one = at_work.pop(ref)
                    try:
                        result = ray.get(ref)
                    except RayTaskError as error:
                        raise (error.cause if isinstance(error.cause, DreamPoseError) else error) from None
                    except RayError:
                        self._drop(node)
                        losses[one] += 1
                        log.warning("a node of the cluster was lost at %s", one)
                        if losses[one] == MOST_LOSSES:
                            raise ModelError(f"{MOST_LOSSES} nodes were lost at {one}; tell the operator.") from None
                        waiting.appendleft(one)
                        continue
                    yield one, result
        finally:
            for ref in at_work:
                ray.cancel(ref)
            late = ray.wait(list(at_work), num_returns=len(at_work), timeout=STOP_S)[1] if at_work else []
            for ref in late:
                self._drop(at_work[ref][0])

    def _relay(self, nodes: Iterable[_Node], callbacks: dict[str, Callable] | None) -> None:
        """Repeats the calls of callbacks on these nodes, None to forget them; drops nodes that are gone."""
        asked = {node.actor.news.options(concurrency_group="control").remote(): node for node in nodes if node.ready}
        for ref in ray.wait(list(asked), num_returns=len(asked), timeout=WAIT_S)[0] if asked else []:
            try:
                news = ray.get(ref)
            except RayError:
                self._drop(asked[ref])
                continue
            for name, given in news if callbacks is not None else []:
                callbacks[name](*given)

    def ready(self, since: float) -> list[_Node]:
        """The nodes that are ready; starts those for which there is room.

        since: when the job had a node last. Raises ClusterAway where that is long ago and none is about to load.
        """
        if (now := time.monotonic()) - self._tended >= 1:
            self._tended = now
            for node in [node for node in self._nodes if not node.ready]:
                if ray.wait([node.loading], timeout=0)[0]:
                    self._take_in(node)
            share = max(1, -(-sum(self.setup.room().values()) // self.setup.settings.workers))
            needs = (0, 1) if self.setup.device == "cuda" else (self.setup.num_threads, 0)
            for _ in range(share - len(self._nodes) if now >= self._again else 0):
                make = ray.remote(num_cpus=needs[0], num_gpus=needs[1], concurrency_groups={"control": 1})
                actor = make(self.actor_class).remote(self.setup)
                started = actor.news.options(concurrency_group="control").remote()
                self._nodes.append(_Node(actor, started, actor.load.remote()))
            if now - since > NO_NODE_S and not any(ray.wait([node.started], timeout=0)[0] for node in self._nodes):
                raise ClusterAway(self._problem or "No node of the Ray cluster has room; look at ray status.")
        return [node for node in self._nodes if node.ready]

    def _take_in(self, node: _Node) -> None:
        """Marks a node as ready, or drops it with a sentence in the log."""
        try:
            model = ray.get(node.loading)
            known = self.model or model
            if replace(model, precision=None) != replace(known, precision=None) or (
                str(model.precision).partition(",")[0] != str(known.precision).partition(",")[0]  # without the reason
            ):
                raise ModelError(
                    "A node of the Ray cluster has other weights under the model's name, or computes in another "
                    "precision; copy the model there again, or set DREAMPOSE_PRECISION."
                )
            self.model, node.ready, self._problem = known, True, ""
        except (RayError, ModelError) as error:
            self._problem, self._again = _sentence(error), time.monotonic() + AGAIN_AFTER_S
            log.warning("%s", self._problem)
            self._drop(node)

    def _drop(self, node: _Node) -> None:
        """Ends an actor; another is started while there is room for it."""
        ray.kill(node.actor)
        if node in self._nodes:
            self._nodes.remove(node)


def look(settings: Settings) -> str:
    """What there is of a cluster, a line. Raises ClusterAway with a sentence for what is wrong with it."""
    connect(settings.ray_address)
    setup = Setup.of(settings)
    room, each = setup.room(), "a GPU" if setup.device == "cuda" else f"{setup.num_threads} processors"
    found = f"room for {sum(room.values())} models, with {each} each"
    if sum(room.values()) < settings.workers:
        raise ClusterAway(f"The Ray cluster has {found}; start more nodes, or correct DREAMPOSE_WORKERS.")
    for node in room:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        check = ray.remote(num_cpus=0, max_retries=0)(check_node).options(scheduling_strategy=there)
        try:
            ray.get(check.remote(setup), timeout=CONNECT_S)
        except RayError as error:
            raise ClusterAway(_sentence(error)) from error
    return f"{settings.ray_address}, {found}"


def main(settings: str) -> int:
    """Prints what `look` finds for these settings, as JSON; the exit status is 3 where the cluster cannot be used."""
    try:
        print(look(Settings.model_validate_json(settings)))
    except ClusterAway as error:
        print(error)
        return 3
    return 0
