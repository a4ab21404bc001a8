"""Whether the Ray cluster that is set can be used, looked at in a process of its own: whoever asks imports no ray and
never hangs."""

from __future__ import annotations

import importlib.util
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import ClusterAway, DreamPoseError
from ..settings import REPOSITORY, Settings

DEADLINE_S = 120.0
NODES_S = 60.0  # the most that all nodes together take to answer, which includes the import of PyTorch there
_REFUSED = 3  # exit status


def check_cluster(settings: Settings, deadline_s: float = DEADLINE_S) -> str:
    """What was found, in words. Raises ClusterAway with one sentence where the cluster cannot be used as it is set."""
    if importlib.util.find_spec("ray") is None:
        raise ClusterAway(
            f"Ray is not installed; install it with {sys.executable} -m pip install -r requirements-ray.txt."
        )
    given = settings.with_folders().model_dump_json(exclude={"secret"})
    program = f"import sys, {__name__} as checks; sys.exit(checks.main())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=given,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            cwd=REPOSITORY,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterAway(
            f"The Ray cluster at {settings.ray_address} did not answer within {deadline_s:.0f} s; look at ray "
            "status on its head node."
        ) from error
    said = done.stdout.strip().splitlines()[-1:]
    if done.returncode == 0:
        return said[0]
    if done.returncode == _REFUSED:
        raise ClusterAway(said[0])
    why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200]
    raise ClusterAway(
        f"The Ray cluster at {settings.ray_address} could not be looked at ({why}); look at ray status on "
        "its head node."
    )


@dataclass(frozen=True)
class Answer:
    """What a node says of itself. shared: whether it sees the data folder, None where that was not asked."""

    address: str
    versions: tuple[tuple[str, str], ...]
    shared: bool | None


def probe(address: str, marker: Path | None) -> Answer:
    """Runs on the node."""
    from .model import versions

    return Answer(address, versions(), None if marker is None else marker.is_file())


def complaint(answer: Answer, wanted: tuple[tuple[str, str], ...], home: Path) -> str | None:
    """The sentence that says why a node cannot be used."""
    from .model import other_versions

    if other := other_versions(answer.versions, wanted):
        return f"The node {answer.address} has {other}; install the same there as on the server."
    if answer.shared is False:
        return (
            f"The node {answer.address} does not see the data folder {home}; mount it there at the same path, or leave "
            "out DREAMPOSE_RAY_SHARED."
        )
    return None


def _look(settings: Settings) -> str:
    from .connection import cluster_device, connect

    connect(settings.ray_address)
    device = cluster_device(settings.device)
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from .model import versions

    resource = "GPU" if device == "cuda" else "CPU"
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource, 0) >= 1]
    if not nodes:
        raise ClusterAway("The Ray cluster has no node that computes; start one with --num-cpus.")
    marker = None
    try:
        if settings.ray_shared:
            settings.home.mkdir(parents=True, exist_ok=True)
            marker = settings.home / f".shared.{secrets.token_hex(8)}"
            marker.touch()
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(probe).options(scheduling_strategy=there)
            asked[task.remote(node["NodeManagerAddress"], marker)] = node["NodeManagerAddress"]
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=NODES_S)
        for answer in ready:
            try:
                found = complaint(ray.get(answer), versions(), settings.home)
            except RayError as error:
                why = str(error).strip().splitlines()[-1].strip()[:200]
                found = (
                    f"The node {asked[answer]} cannot run DreamPose ({why}); install the same version there as on the "
                    "server."
                )
            if found:
                raise ClusterAway(found)
        if late:
            raise ClusterAway(f"The node {asked[late[0]]} does not answer; look at ray status on the head node.")
    finally:
        if marker is not None:
            marker.unlink(missing_ok=True)
    count = sum(int(node["Resources"][resource]) for node in nodes) if resource == "GPU" else len(nodes)
    what = f"{count} GPU{'s' * (count > 1)}" if resource == "GPU" else f"{count} node{'s' * (count > 1)} without GPU"
    return f"{settings.ray_address}, {what}, the data folder is {'shared' if settings.ray_shared else 'not shared'}"


def main() -> int:
    """Reads settings from standard input, prints what is found in a line."""
    try:
        print(_look(Settings.model_validate_json(sys.stdin.read())))
    except DreamPoseError as error:
        print(error)
        return _REFUSED
    return 0
