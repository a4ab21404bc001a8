"""A Ray cluster of several nodes on this machine alone, for the tests and the bench; each node is for one model on the
CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Before ray is imported, and for the nodes: nobody is called, and what they compute does not depend on the machine.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_TQDM="0", OMP_NUM_THREADS="1")

from ray.cluster_utils import Cluster  # noqa: E402

from dreampose_core import cluster  # noqa: E402
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe  # noqa: E402

QUICK = SubjectRecipe(unet_steps=40, decoder_steps=20)
HERE = "127.0.0.2"  # where nobody outside comes in; what is called 127.0.0.1 Ray takes for the address in the network


class QuickModel(cluster.ModelActor):
    """Fine-tunes in fewer steps."""

    def load(self):
        RECIPES["fast"] = QUICK
        return super().load()


class QuickCluster(cluster.Cluster):
    actor_class = QuickModel


@contextmanager
def our_code() -> Iterator[None]:
    """Processes that are started inside look for code here first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "tests"))), prepend=os.pathsep)
        yield


class LocalCluster:
    """A head without processors, to which drivers connect at `port` (one that is free), and `nodes` others of one
    processor each."""

    def __init__(self, nodes: int, port: int | None = None):
        head = {"num_cpus": 0, "node_ip_address": HERE, "include_dashboard": False, "gcs_server_port": port}
        with our_code():
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = {}
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        return self._cluster.address

    def add(self) -> str:
        """A new node's id."""
        with our_code():
            node = self._cluster.add_node(num_cpus=1, node_ip_address=HERE)
        self.nodes[node.node_id] = node
        return node.node_id

    def kill(self, node_id: str) -> None:
        """SIGKILL to all processes of a node, in the middle of whatever they do."""
        self._cluster.remove_node(self.nodes.pop(node_id), allow_graceful=False)

    def kill_all(self) -> None:
        """SIGKILL to the head and to all nodes."""
        for node in (self._cluster.head_node, *self.nodes.values()):
            node.kill_all_processes(check_alive=False, allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()
