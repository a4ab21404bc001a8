"""Run jobs on a Ray cluster with a shared data folder: actors hold the model and make batches of frames."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads this at import; it sends no usage statistics
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from . import __version__
from .animate.engine import LocalEngine, ModelInfo
from .errors import ClusterAway, DreamPoseError, ModelError
from .files import appearing
from .model.loading import load_pipeline
from .progress import OnProgress, ShouldStop, check_stop
from .settings import MODELS, Settings
from .subject.folder import Subject, subject_loaded

CONNECT_S = 60.0
WAIT_S = 0.2  # interval at which a job checks whether to stop, and polls its nodes
AGAIN_AFTER_S = 60.0  # wait before loading the model again after a node failed to load it
NO_NODE_S = 120.0  # a job without a node for this long is given back to the queue
STOP_S = 3.0  # an actor that does not stop within this time is killed; the supervisor kills a worker after 4 s
MOST_LOSSES = 3  # a job fails when the same batch has lost this many nodes
log = logging.getLogger("dreampose.cluster")

_connector = ThreadPoolExecutor(1)  # of one thread, so that no attempt to connect starts while another hangs


def connect(address: str) -> None:
    """Make this process a driver of the cluster at host:port, once. Raises ClusterAway within CONNECT_S.

    Ray gets its own thread: it waits minutes for a silent head, and in the main thread it takes SIGTERM's handler.
    """
    if ray.is_initialized():
        return
    host, _, port = address.rpartition(":")
    try:
        # Ray expects a cluster on this machine at the machine's network address.
        host = ray.util.get_node_ip_address() if host in ("localhost", "127.0.0.1", "[::1]") else host.strip("[]")
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = "it must be host:port" if not isinstance(error, OSError) else error.strerror or str(error)
        how = "start it with ray start, or correct DREAMPOSE_RAY_ADDRESS"
        raise ClusterAway(f"The Ray cluster at {address} cannot be reached ({reason}); {how}.") from error
    quiet = {"log_to_driver": False, "configure_logging": False}
    connecting = _connector.submit(ray.init, address, ignore_reinit_error=True, **quiet)
    try:
        connecting.result(CONNECT_S)
    except Exception as error:  # for example a different version of Ray or Python
        reason = " ".join(str(error).split())[:300] if connecting.done() else f"no answer within {CONNECT_S:.0f} s"
        connecting.cancel()  # if it has not begun, so that attempts do not pile up behind one that hangs
        raise ClusterAway(f"The Ray cluster at {address} does not accept this program: {reason}") from error


def versions() -> str:
    """Return the versions that must be equal on all nodes that make frames of one video."""
    python, pytorch = platform.python_version().rpartition(".")[0], torch.__version__.partition("+")[0]
    return f"DreamPose {__version__}, Python {python}, PyTorch {pytorch}"


@dataclass(frozen=True)
class Setup:
    """How every node of a cluster runs the model.

    settings: the server's, without its secret. device: "cuda" or "cpu". num_threads: of torch, the same on every node,
    since CPU results depend on it. token: the content of cluster.id in the shared folder. versions: the server's.
    """

    settings: Settings
    device: str
    num_threads: int
    token: str
    versions: str = field(default_factory=versions)

    @classmethod
    def of(cls, settings: Settings) -> Setup:
        """Make the setup for the connected cluster. Raises ClusterAway when it lacks the GPU that the settings want."""
        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        if settings.device == "cuda" and not has_gpu:
            raise ClusterAway("The Ray cluster has no GPU; start nodes with --num-gpus, or set DREAMPOSE_DEVICE=cpu.")
        # Use a shipped model's name instead of its path, since nodes may have the code in other folders.
        model = next((name for name, path in MODELS.items() if path == Path(settings.model)), settings.model)
        settings = settings.model_copy(update={"secret": None, "model": model})
        settings.home.mkdir(parents=True, exist_ok=True)
        marker = settings.home / "cluster.id"
        if not marker.is_file():
            with appearing(marker) as temporary:
                temporary.write_text(secrets.token_hex(8))
        device = "cuda" if has_gpu and settings.device != "cpu" else "cpu"
        return cls(settings, device, torch.get_num_threads(), marker.read_text())

    def room(self) -> dict[str, int]:
        """Return how many models each node has room for, by Ray's node id, without nodes that have no room."""
        name, each = ("GPU", 1) if self.device == "cuda" else ("CPU", self.num_threads)
        alive = {node["NodeID"]: node["Resources"].get(name, 0) for node in ray.nodes() if node["Alive"]}
        return {node: int(amount // each) for node, amount in alive.items() if amount >= each}


def check_node(setup: Setup) -> None:
    """Check, on a node, its versions and data folder. Raises ClusterAway when it cannot work with this setup."""
    node, home = f"The node {ray.util.get_node_ip_address()}", setup.settings.home
    if versions() != setup.versions:
        raise ClusterAway(f"{node} has {versions()} instead of {setup.versions}; install the server's versions there.")
    marker = home / "cluster.id"
    if not marker.is_file() or marker.read_text() != setup.token:
        raise ClusterAway(f"{node} does not see the data folder {home}; mount it there at the same path.")


def _sentence(error: Exception) -> str:
    """Return the error sentence for a node that cannot be used."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, DreamPoseError):
        return str(cause)
    if isinstance(error, RayActorError):
        return "A node of the Ray cluster was lost before it had loaded the model; run ray status."
    line = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
    return f"A node of the Ray cluster cannot run DreamPose ({line}); install the server's versions there."


class ModelActor:
    """A model in a process of the cluster. Runs one batch or one fine-tuning at a time; answers `news` meanwhile."""

    def __init__(self, setup: Setup):
        self._setup = setup
        self._news: deque[tuple[str, tuple]] = deque()
        self._subject, self._loaded = b"", ExitStack()

    def load(self) -> ModelInfo:
        """Load the model. Raises ClusterAway as `check_node` does, and ModelError."""
        check_node(self._setup)
        torch.set_num_threads(self._setup.num_threads)
        its = self._setup.settings
        how = its.model, self._setup.device, its.precision, its.low_memory, its.safety_checker
        self._engine = LocalEngine(load_pipeline(*how))
        return self._engine.model

    @ray.method(concurrency_group="control")
    def news(self) -> list[tuple[str, tuple]]:
        """Return the name and arguments of each callback call since the last time."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def frames(self, work: tuple, batches: list[range]) -> tuple[np.ndarray, list[int], dict[str, int]]:
        """Make frames uint8 (N, H, W, 3); also returns the indices of blacked-out ones, and `LocalEngine.peaks`.

        work: scene, options and subject of `LocalEngine.frames`. The subject stays loaded for the next batch.
        """
        scene, options, subject = work
        self._load_subject(subject)
        calls = {name: self._noting(name) for name in ("on_step", "on_smaller")}
        hidden: list[int] = []
        should_stop = ray.get_runtime_context().is_canceled
        # subject None: the loaded one
        made = self._engine.frames(scene, options, None, batches, should_stop, on_hidden=hidden.append, **calls)
        return np.stack([frame for _, frame in made]), hidden, self._engine.peaks

    def tune(self, *args, **kwargs) -> Subject:
        """Fine-tune a subject as `LocalEngine.tune` does, in the shared folder."""
        self._load_subject(None)
        how = {"on_progress": self._noting("on_progress"), "should_stop": ray.get_runtime_context().is_canceled}
        return self._engine.tune(*args, **kwargs, **how)

    def _noting(self, name: str) -> Callable[..., None]:
        return lambda *args: self._news.append((name, args))

    def _load_subject(self, folder: Path | None) -> None:
        """Load the subject in `folder`, or none, in place of the last one, unless it is the same."""
        subject = b"" if folder is None else (folder / "subject.json").read_bytes()  # contains the weights' checksums
        if subject != self._subject:
            self._loaded.close()
            self._subject = b""
            if folder is not None:
                self._loaded.enter_context(subject_loaded(self._engine.pipe, folder))
            self._subject = subject


class Cluster:
    """The engine of one worker process: `LocalEngine`'s methods on the worker's share of the cluster's models.

    Models stay loaded until this process ends. Raises ClusterAway when the cluster cannot be used.
    """

    actor_class = ModelActor

    def __init__(self, settings: Settings):
        connect(settings.ray_address)
        self.setup = Setup.of(settings)
        self.model: ModelInfo | None = None  # None until a node is ready
        self.peaks: dict[str, int] = {}
        self._ready: list = []  # actors whose model is loaded
        # the others, by the reference to what `load` returns, with one that is ready when they are placed
        self._loading: dict[ray.ObjectRef, tuple] = {}
        self._problem, self._tended, self._again = "", 0.0, 0.0

    def wait(self, should_stop: ShouldStop) -> Cluster:
        """Wait until a node is ready and return self. Raises Cancelled, and ClusterAway when no node becomes ready."""
        connect(self.setup.settings.ray_address)
        started = time.monotonic()
        while not self.ready(started):
            check_stop(should_stop)
            time.sleep(WAIT_S)
        return self

    def tune(self, *args, on_progress: OnProgress, should_stop: ShouldStop, **kwargs) -> Subject:
        """Fine-tune as `LocalEngine.tune` does; when a node is lost, another continues from the last checkpoint."""
        todo, callbacks = ["learning the person"], {"on_progress": on_progress}
        made = self._spread(todo, lambda actor, _: actor.tune.remote(*args, **kwargs), callbacks, should_stop)
        return next(result for _, result in made)

    def frames(self, scene, options, subject, batches, should_stop, **callbacks) -> Iterator[tuple[int, np.ndarray]]:
        """Make frames as `LocalEngine.frames` does, each batch on a free node; another takes over a lost node's."""
        work, limit = ray.put((scene, options, subject)), options.batch_size
        self.peaks = {}

        def on_smaller(size: int) -> None:
            nonlocal limit
            limit = min(limit, size)
            callbacks["on_smaller"](size)

        def submit(actor, batch: range) -> ray.ObjectRef:
            return actor.frames.remote(work, [batch[i : i + limit] for i in range(0, len(batch), limit)])

        given = batches, submit, callbacks | {"on_smaller": on_smaller}, should_stop
        for batch, (frames, hidden, peaks) in self._spread(*given):
            self.peaks = {name: max(mb, self.peaks.get(name, 0)) for name, mb in peaks.items()}
            for index in hidden:
                callbacks["on_hidden"](index)
            yield from zip(batch, frames)

    def _spread(
        self, todo: Iterable, submit: Callable, callbacks: dict[str, Callable], should_stop: ShouldStop
    ) -> Iterator[tuple]:
        """Distribute the items of `todo` over the nodes; yields (item, result) in any order.

        submit(actor, item) starts an item on an actor and returns Ray's reference. callbacks: by name, called with what
        the actors report. Raises Cancelled, any exception raised on a node, ModelError when one item has lost
        MOST_LOSSES nodes, and ClusterAway when no node is left.
        """
        waiting, at_work, losses, since = deque(todo), {}, Counter(), time.monotonic()
        self._relay({})  # drops lost nodes, and calls of an earlier job
        try:
            while waiting or at_work:
                check_stop(should_stop)
                busy = [actor for actor, _ in at_work.values()]
                for actor in [actor for actor in self.ready(since) if actor not in busy][: len(waiting)]:
                    one = waiting.popleft()
                    at_work[submit(actor, one)] = actor, one
                if not at_work:
                    time.sleep(WAIT_S)
                    continue
                since = time.monotonic()
                done, _ = ray.wait(list(at_work), timeout=WAIT_S)
                self._relay(callbacks)
                for ref in done:
                    actor, one = at_work.pop(ref)
                    try:
                        yield one, ray.get(ref)
                    except RayTaskError as error:
                        raise (error.cause if isinstance(error.cause, DreamPoseError) else error) from None
                    except RayError:
                        self._drop(actor)
                        waiting.appendleft(one)
                        losses[one] += 1
                        log.warning("a node of the cluster was lost at %s", one)
                        if losses[one] == MOST_LOSSES:
                            raise ModelError(f"{MOST_LOSSES} nodes were lost at {one}; tell the operator.") from None
        finally:
            for ref in at_work:
                ray.cancel(ref)
            late = ray.wait(list(at_work), num_returns=len(at_work), timeout=STOP_S)[1] if at_work else []
            for ref in late:
                self._drop(at_work[ref][0])

    def _relay(self, callbacks: dict[str, Callable]) -> None:
        """Make the calls of these callbacks that the nodes have recorded, discard others, and drop lost nodes."""
        asked = {actor.news.remote(): actor for actor in self._ready}
        for ref in ray.wait(list(asked), num_returns=len(asked), timeout=WAIT_S)[0] if asked else []:
            news = []
            try:
                news = ray.get(ref)
            except RayError:
                self._drop(asked[ref])
            for name, args in news:
                if name in callbacks:
                    callbacks[name](*args)

    def ready(self, since: float) -> list:
        """Return the actors that are ready, and start others where the cluster has room.

        since: when the job last had a node, as time.monotonic(). Raises ClusterAway when that is more than NO_NODE_S
        ago and Ray has placed no actor.
        """
        if (now := time.monotonic()) - self._tended >= 1:
            self._tended = now
            for loaded in [ref for ref in self._loading if ray.wait([ref], timeout=0)[0]]:
                self._take_in(loaded, self._loading.pop(loaded)[0])
            share = max(1, -(-sum(self.setup.room().values()) // self.setup.settings.workers))
            needs = (0, 1) if self.setup.device == "cuda" else (self.setup.num_threads, 0)
            for _ in range(share - len(self._ready) - len(self._loading) if now >= self._again else 0):
                make = ray.remote(num_cpus=needs[0], num_gpus=needs[1], concurrency_groups={"control": 1})
                actor = make(self.actor_class).remote(self.setup)
                self._loading[actor.load.remote()] = actor, actor.news.remote()
            placed = any(ray.wait([started], timeout=0)[0] for _, started in self._loading.values())
            if now - since > NO_NODE_S and not self._ready and not placed:
                raise ClusterAway(self._problem or "No node of the Ray cluster has room; run ray status.")
        return list(self._ready)

    def _take_in(self, loaded: ray.ObjectRef, actor) -> None:
        """Add an actor whose model is loaded to those that are ready, or drop it and log the reason."""
        try:
            model = ray.get(loaded)
            known = self.model or model
            # precision is "NAME, reason"; only the names must be equal.
            one, other = (replace(info, precision=str(info.precision).partition(",")[0]) for info in (model, known))
            if one != other:
                raise ModelError(
                    "A node of the Ray cluster has other weights under the model's name, or computes in another "
                    "precision; copy the model there again, or set DREAMPOSE_PRECISION."
                )
            self.model, self._problem = known, ""
            self._ready.append(actor)
        except (RayError, ModelError) as error:
            self._problem, self._again = _sentence(error), time.monotonic() + AGAIN_AFTER_S
            log.warning("%s", self._problem)
            self._drop(actor)

    def _drop(self, actor) -> None:
        """Kill an actor; `ready` starts another when there is room."""
        ray.kill(actor)
        if actor in self._ready:
            self._ready.remove(actor)


def look(settings: Settings) -> str:
    """Check the cluster of these settings and return one line about it. Raises ClusterAway."""
    connect(settings.ray_address)
    setup = Setup.of(settings)
    room, each = setup.room(), "a GPU" if setup.device == "cuda" else f"{setup.num_threads} processors"
    summary = f"room for {(total := sum(room.values()))} models, with {each} each"
    if total < settings.workers:
        raise ClusterAway(f"The Ray cluster has {summary}; start more nodes, or correct DREAMPOSE_WORKERS.")
    check = ray.remote(num_cpus=0, max_retries=0)(check_node)
    on_nodes = [NodeAffinitySchedulingStrategy(node, soft=False) for node in room]
    try:
        ray.get([check.options(scheduling_strategy=node).remote(setup) for node in on_nodes], timeout=CONNECT_S)
    except RayError as error:
        raise ClusterAway(_sentence(error)) from error
    return f"{settings.ray_address}, {summary}"


def main(settings: str) -> int:
    """Print the line that `look` returns for `settings` (JSON), or its error; then the exit status is 3."""
    try:
        print(look(Settings.model_validate_json(settings)))
    except ClusterAway as error:
        print(error)
        return 3
    return 0
