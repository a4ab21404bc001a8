"""What is wrong with a Ray cluster is one sentence at start-up and in doctor, and never a hang."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import app
from dreampose_core.cluster import checks
from dreampose_core.cluster.checks import check_cluster
from dreampose_core.doctor import Finding, examine
from dreampose_core.errors import ClusterAway
from dreampose_core.settings import REPOSITORY, Settings

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def settings(tmp_path: Path, **given) -> Settings:
    return Settings(**{"home": tmp_path / "home", "engine": "ray", "device": "cpu", **given})


def finding(settings: Settings) -> Finding:
    return next(one for one in examine(settings) if one.what == "Ray")


def refusal(settings: Settings, **more) -> str:
    with pytest.raises(ClusterAway) as error:
        check_cluster(settings, **more)
    said = str(error.value)
    assert "\n" not in said and len(said) < 400 and said.endswith(".")
    return said


def test_without_ray_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install -r requirements-ray.txt" in refusal(settings(tmp_path))


@needs_ray
def test_an_address_where_nobody_listens_and_one_that_is_none(tmp_path, clean_environment, capsys):
    with closing(socket.create_server(("127.0.0.2", 0))) as server:
        free = f"127.0.0.2:{server.getsockname()[1]}"
    said = refusal(settings(tmp_path, ray_address=free))
    assert free in said and "cannot be reached" in said and "DREAMPOSE_RAY_ADDRESS" in said
    assert "host:port" in refusal(settings(tmp_path, ray_address="nonsense"))
    for name, value in (("ENGINE", "ray"), ("RAY_ADDRESS", free), ("HOME", str(tmp_path / "home"))):
        clean_environment.setenv(f"DREAMPOSE_{name}", value)
    assert app.main(["--port", "0"]) == 2 and "cannot be reached" in capsys.readouterr().err


@needs_ray
def test_who_listens_and_never_answers_is_not_waited_for(tmp_path):
    with closing(socket.create_server(("127.0.0.2", 0))) as server:
        address = f"127.0.0.2:{server.getsockname()[1]}"
        assert "did not answer within 9 s" in refusal(settings(tmp_path, ray_address=address), deadline_s=9)


@needs_ray
def test_a_worker_gives_its_job_back_where_the_head_is_silent():
    """As after a head that died half: somebody listens, and Ray itself would wait for minutes."""
    program = """if True:
        import os, sys
        from dreampose_core.cluster import connection
        from dreampose_core.errors import ClusterAway
        connection.CONNECT_S = 2
        for _ in range(2):  # the second time the first attempt is still on its way
            try:
                connection.connect(sys.argv[1])
            except ClusterAway as error:
                print(error, flush=True)
        os._exit(0)  # the attempt would hold up the end
    """
    with closing(socket.create_server(("127.0.0.2", 0))) as server:
        address = f"127.0.0.2:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", program, address], capture_output=True, text=True, timeout=180, cwd=REPOSITORY
        )
    assert done.stdout == 2 * f"The Ray cluster at {address} does not take this program in: no answer within 2 s\n", (
        done.stderr
    )


def test_what_is_wrong_with_a_node_is_said():
    pytest.importorskip("ray")
    wanted = ("DreamPose", "2"), ("Python", "3.12"), ("PyTorch", "2.13.0")
    good = checks.Answer("10.0.0.5", wanted, True)
    assert checks.complaint(good, wanted, Path("/data")) is None
    other = checks.Answer("10.0.0.5", (("DreamPose", "1"), ("Python", "3.11"), ("PyTorch", "2.13.0")), None)
    assert checks.complaint(other, wanted, Path("/data")) == (
        "The node 10.0.0.5 has DreamPose 1 instead of 2, Python 3.11 instead of 3.12; install the same "
        "there as on the server."
    )
    apart = checks.Answer("10.0.0.5", wanted, checks.probe("10.0.0.5", Path("/nowhere/.shared.1")).shared)
    assert "does not see the data folder /data" in checks.complaint(apart, wanted, Path("/data"))


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    from ray_cluster import LocalCluster

    cluster = LocalCluster(2)
    yield cluster
    cluster.stop()


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_can_be_used(tmp_path, nodes):
    given = settings(tmp_path, ray_address=nodes.address, ray_shared=True)
    assert check_cluster(given) == f"{nodes.address}, 2 nodes without GPU, the data folder is shared"
    assert not list(given.home.iterdir()), "nothing is left"
    assert finding(given).state == "ok" and nodes.address in finding(given).words
    assert finding(settings(tmp_path, engine="local")).words == "no cluster is asked for"


@needs_ray
def test_a_cluster_without_the_gpu_that_is_asked_for(tmp_path, nodes):
    given = settings(tmp_path, ray_address=nodes.address, device="cuda")
    assert refusal(given).startswith("The Ray cluster has no GPU; start its nodes with --num-gpus")
    assert finding(given).state == "problem"


@needs_ray
@pytest.mark.slow
def test_another_version_of_us_on_a_node(tmp_path, nodes):
    """Its processes take up another copy of the package when they start: Ray itself would have them look where this
    process looks."""
    shutil.copytree(
        REPOSITORY / "dreampose_core", tmp_path / "dreampose_core", ignore=shutil.ignore_patterns("__pycache__")
    )
    init = tmp_path / "dreampose_core" / "__init__.py"
    lines = init.read_text().splitlines()
    init.write_text("\n".join('__version__ = "0.0.1"' if line.startswith("__version__") else line for line in lines))
    (tmp_path / "sitecustomize.py").write_text("import dreampose_core")
    node = nodes.add(tmp_path)
    try:
        assert "has DreamPose 0.0.1 instead of" in refusal(settings(tmp_path, ray_address=nodes.address))
    finally:
        nodes.kill(node)
