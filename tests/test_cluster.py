"""A Ray cluster of several nodes on this machine: the same frames, lost nodes, cancelling, and what is wrong with it.

Run: .venv/bin/pytest tests/test_cluster.py; with -m "slow or not slow" it takes some 12 minutes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn import drawn_clip
from safetensors.torch import load_file
from tiny import tiny_pipeline

pytest.importorskip("ray")
from ray_cluster import QUICK, LocalCluster, QuickCluster
from test_animate import contents
from test_jobs_service import wait_for

import app
from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.run import animate
from dreampose_core.doctor import check_cluster
from dreampose_core.errors import Cancelled, ClusterAway, InputError
from dreampose_core.inputs.framing import make_scene
from dreampose_core.jobs.records import JobRequest
from dreampose_core.jobs.service import JobService
from dreampose_core.jobs.supervisor import Supervisor
from dreampose_core.model.loading import load_pipeline
from dreampose_core.progress import never_stop
from dreampose_core.settings import EXAMPLES, REPOSITORY, AnimateOptions, Settings
from dreampose_core.subject.recipe import RECIPES
from dreampose_core.synthetic import HELD_OUT

SIZE, FRAMES, FPS = (40, 32), 11, 3.0
OPTIONS = AnimateOptions(recipe="none", steps=2, batch_size=2)
ANNA = "a" * 43


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    pipe, folder = tiny_pipeline(), tmp_path_factory.mktemp("model")
    with torch.no_grad():
        pipe.unet.conv_in.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip():
    rgb, poses = drawn_clip(HELD_OUT, "walk", FRAMES, SIZE, fps=FPS)
    return {"image": rgb[0], "poses": poses, "image_poses": poses.select([0])}


@pytest.fixture(scope="module")
def local(model):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "fast", QUICK)
        yield LocalEngine(load_pipeline(model, "cpu"))


@pytest.fixture(scope="module")
def nodes():
    cluster = LocalCluster(2)
    yield cluster
    import ray

    ray.shutdown()
    cluster.stop()


@pytest.fixture(scope="module")
def settings(nodes, model, tmp_path_factory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, model=str(model), device="cpu", engine="ray", ray_address=nodes.address)


@pytest.fixture(scope="module")
def cluster(settings):
    return QuickCluster(settings)


def learned(folder: Path) -> dict[str, bytes]:
    """As `contents`, but of weights the numbers: what else is in their files lies in an order that differs from process
    to process."""
    left_out = ("subject.json", ".safetensors")
    found = {name: content for name, content in contents(folder).items() if not name.endswith(left_out)}
    for path in folder.rglob("*.safetensors"):
        found |= {f"{path.relative_to(folder)} {name}": x.numpy().tobytes() for name, x in load_file(path).items()}
    return found


def wait_ready(cluster, num: int) -> None:
    wait_for(lambda: len(cluster.ready(time.monotonic())) == num, f"{num} models")


def test_frames_and_chunks_equal_those_of_the_local_engine(cluster, local, clip, tmp_path):
    results = {}
    for name, engine in (("local", local), ("ray", cluster.wait(never_stop))):
        results[name] = animate(engine, **clip, options=OPTIONS, folder=tmp_path / name)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    same = [json.dumps({k: v for k, v in r.items() if not k.startswith(("seconds", "peak"))}) for r in results.values()]
    assert same[0] == same[1] and results["ray"]["peak_memory"]["host_mb"] > 100


def refusal(settings: Settings, check=check_cluster, **more) -> str:
    with pytest.raises(ClusterAway) as error:
        check(settings, **more)
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 400 and sentence.endswith(".")
    return sentence


def test_a_cluster_that_can_be_used_and_one_without_the_gpu_that_is_asked_for(settings, cluster, nodes):
    from dreampose_core.cluster import look

    wait_ready(cluster, 2)
    assert check_cluster(settings) == f"{nodes.address}, room for 2 models, with 1 processors each"
    sentence = refusal(settings.model_copy(update={"device": "cuda"}), look)
    assert sentence.startswith("The Ray cluster has no GPU; start nodes with --num-gpus")
    assert "room for 2 models" in refusal(settings.model_copy(update={"workers": 3}), look)


LONG = OPTIONS.model_copy(update={"steps": 80, "loops": 2})  # a batch takes a moment


@pytest.fixture(scope="module")
def long(local, clip, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run of the local engine."""
    folder = tmp_path_factory.mktemp("long")
    animate(local, **clip, options=LONG, folder=folder)
    return contents(folder)


def test_a_node_killed_while_frames_are_made_costs_its_unfinished_batch_alone(
    nodes, cluster, clip, long, tmp_path, caplog
):
    wait_ready(cluster, 2)
    killed = []

    def kill_one(progress) -> None:
        if progress.step >= 6 and not killed:
            killed.append(next(iter(nodes.nodes)))
            nodes.kill(killed[0])

    result = animate(cluster, **clip, options=LONG, folder=tmp_path, on_progress=kill_one)
    assert killed and result["num_frames"] == 22 and contents(tmp_path) == long
    assert sum("a node of the cluster was lost at range" in message for message in caplog.messages) == 1
    nodes.add()
    wait_ready(cluster, 2)  # a node that comes is used


def test_a_cancel_frees_all_nodes_and_what_is_there_is_kept(cluster, clip, long, tmp_path):
    wait_ready(cluster, 2)
    seen, stopped = [], []

    def should_stop() -> bool:
        if seen and seen[-1].step >= 6 and not stopped:
            stopped.append(time.monotonic())
        return bool(stopped)

    with pytest.raises(Cancelled):
        animate(cluster, **clip, options=LONG, folder=tmp_path, on_progress=seen.append, should_stop=should_stop)
    assert time.monotonic() - stopped[0] < 10
    wait_ready(cluster, 2)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "frames").glob("*.png")}
    assert 0 < len(kept) < 22
    animate(cluster, **clip, options=LONG, folder=tmp_path)
    made = contents(tmp_path)
    made.pop("partial.mp4", None)
    assert made == long and kept == {path: path.stat().st_mtime_ns for path in kept}


FAST = OPTIONS.model_copy(update={"recipe": "fast"})


@pytest.fixture(scope="module")
def learned_here(local, clip, tmp_path_factory) -> dict[str, bytes]:
    """As `learned`, of a run of the local engine."""
    folder = tmp_path_factory.mktemp("fast")
    animate(local, **clip, options=FAST, folder=folder)
    return learned(folder)


def test_a_person_is_learned_on_a_node_and_a_cancel_costs_no_step(cluster, local, clip, learned_here, tmp_path):
    wait_ready(cluster, 2)
    steps: list[int] = []

    def note(progress) -> None:
        steps.extend([progress.step] if progress.stage == "tuning" else [])

    given = {**clip, "options": FAST, "folder": tmp_path, "on_progress": note}
    with pytest.raises(Cancelled):
        animate(cluster, **given, should_stop=lambda: bool(steps) and steps[-1] >= 12)
    assert list((tmp_path / "checkpoints").rglob("*.safetensors")), "written when it was to stop"
    last = steps[-1]
    steps.clear()
    animate(cluster, **given)
    assert last <= steps[0] <= last + 10
    made = learned(tmp_path)
    assert {name for name in made if made[name] != learned_here.get(name)} <= {"partial.mp4"}
    for name, engine in (("local", local), ("ray", cluster)):  # the next job has the model as it was
        animate(engine, **clip, options=OPTIONS, folder=tmp_path / name)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
def test_a_node_killed_while_a_person_is_learned_costs_the_steps_since_the_checkpoint(
    nodes, cluster, clip, learned_here, tmp_path
):
    wait_ready(cluster, 2)
    steps, killed = [], []

    def kill_all(progress) -> None:
        if progress.stage == "tuning":
            steps.append(progress.step)
            if progress.step >= 30 and not killed:
                killed.extend(nodes.nodes)
                for node in killed:
                    nodes.kill(node)
                nodes.add(), nodes.add()

    animate(cluster, **clip, options=FAST, folder=tmp_path, on_progress=kill_all)
    back = [b for a, b in zip(steps, steps[1:]) if b <= a]
    assert back == [26], "it goes on after the checkpoint of step 25"
    one, other = learned_here, learned(tmp_path)
    assert one.keys() == other.keys() and [name for name in one if one[name] != other[name]] == []


@pytest.mark.slow
def test_with_no_node_left_the_job_is_given_back_and_goes_on_later(nodes, cluster, clip, long, tmp_path):
    """After two minutes."""
    wait_ready(cluster, 2)

    def kill_all(progress) -> None:
        if progress.step >= 4:
            for node in list(nodes.nodes):
                nodes.kill(node)

    with pytest.raises(ClusterAway, match="node of the Ray cluster (has room|was lost before it had loaded)"):
        animate(cluster, **clip, options=LONG, folder=tmp_path, on_progress=kill_all)
    nodes.add(), nodes.add()
    animate(cluster, **clip, options=LONG, folder=tmp_path)
    assert contents(tmp_path) == long


@pytest.mark.slow
def test_a_worker_or_the_head_killed_in_the_middle_of_a_job_costs_no_finished_frame(model, tmp_path):
    """Ray ends a driver whose head has been silent for a minute; the worker that takes its place pauses the job, and
    goes on."""
    first = LocalCluster(1)
    given = {"model": str(model), "device": "cpu", "engine": "ray", "estimator": "none"}
    settings = Settings(home=tmp_path, ray_address=first.address, **given)
    with JobService(settings) as service, Supervisor(settings):
        photo = EXAMPLES / "people" / "ada.png"
        maps, walk = photo.with_suffix(".poses.npz"), EXAMPLES / "motions" / "walk.npz"
        files = {"image": photo, "image_poses": maps, "poses": walk}
        options = AnimateOptions(recipe="none", steps=250, batch_size=2, last_frame=30)
        job = service.submit(ANNA, JobRequest(kind="animate", **files, options=options))

        def status():
            found = service.status(ANNA, job)
            assert found.state != "failed", found
            return found

        def times(num: int) -> list[int]:
            return [path.stat().st_mtime_ns for path in status().frames[:num]]

        wait_for(lambda: len(status().frames) >= 2, "frames", 300)
        made = times(2)
        for pid in service.worker_pids()["device"]:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(status().frames) >= 6, "more frames", 300)
        made += times(6)[2:]
        first.kill_all()
        wait_for(lambda: status().state == "interrupted" and status().error, "sentence", 300)
        assert "cannot be reached just now; the job goes on by itself" in status().error
        second = LocalCluster(1, int(first.address.rpartition(":")[2]))
        try:
            wait_for(lambda: status().state == "done", "video", 300)
        finally:
            second.stop()
        assert times(6) == made


def test_an_error_of_a_model_is_told_as_it_would_be_here(cluster, clip):
    unknown = replace(clip["poses"], parts=None, charts="densepose")
    scene = replace(make_scene(clip["image"], clip["poses"], None, SIZE, OPTIONS), poses=unknown)
    with pytest.raises(InputError, match="has only U, V, in densepose charts"):
        list(cluster.frames(scene, OPTIONS, None, [range(2)], never_stop, on_smaller=print))


def test_a_node_with_other_weights_is_left_out_and_said(cluster, monkeypatch, caplog):
    import ray

    wait_ready(cluster, 2)
    monkeypatch.setattr(cluster, "_again", 0.0)
    make = ray.remote(num_cpus=0, concurrency_groups={"control": 1})
    other = make(QuickCluster.actor_class).remote(cluster.setup)
    cluster._take_in(ray.put(replace(cluster.model, fingerprint="of other weights")), other)
    assert "has other weights under the model's name" in caplog.messages[0] and len(cluster._ready) == 2
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(other.news.remote())


def test_a_node_of_another_version_or_without_the_data_folder(settings, cluster):
    from dreampose_core.cluster import check_node

    check_node(cluster.setup)
    with pytest.raises(ClusterAway, match="has DreamPose .* instead of DreamPose 0.0.1, Python 3.11"):
        check_node(replace(cluster.setup, versions="DreamPose 0.0.1, Python 3.11"))
    with pytest.raises(ClusterAway, match="does not see the data folder /nowhere"):
        check_node(replace(cluster.setup, settings=settings.model_copy(update={"home": Path("/nowhere")})))


def test_what_keeps_a_cluster_from_being_used(settings, clean_environment, capsys):
    with closing(socket.create_server(("127.0.0.2", 0))) as server:
        free = f"127.0.0.2:{server.getsockname()[1]}"
    assert "host:port" in refusal(settings.model_copy(update={"ray_address": "nonsense"}))
    for name, value in (("ENGINE", "ray"), ("RAY_ADDRESS", free), ("HOME", str(settings.home))):
        clean_environment.setenv(f"DREAMPOSE_{name}", value)
    assert app.main(["--port", "0"]) == 2
    sentence = capsys.readouterr().err
    assert free in sentence and "cannot be reached" in sentence and "DREAMPOSE_RAY_ADDRESS" in sentence
    clean_environment.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install -r requirements-ray.txt" in refusal(settings)


def test_a_head_that_is_silent_is_not_waited_for(settings):
    """As after a head that died half: it listens, and Ray itself would wait for minutes."""
    program = """if True:
        import os, sys
        from dreampose_core import cluster
        cluster.CONNECT_S = 1
        for _ in range(2):  # the second time the first attempt is still on its way
            try:
                cluster.connect(sys.argv[1])
            except cluster.ClusterAway as error:
                print(error, flush=True)
        os._exit(0)  # the attempt would hold up the end
    """
    with closing(socket.create_server(("127.0.0.2", 0))) as server:
        address = f"127.0.0.2:{server.getsockname()[1]}"
        command = [sys.executable, "-c", program, address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=REPOSITORY)
        late = f"The Ray cluster at {address} does not accept this program: no answer within 1 s\n"
        assert done.stdout == late * 2, done.stderr
        silent = settings.model_copy(update={"ray_address": address})
        assert "did not answer within 2 s" in refusal(silent, deadline_s=2)
