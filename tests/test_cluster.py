"""The Ray engine on a local cluster of several nodes. Run: .venv/bin/pytest tests/test_cluster.py"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_pipeline

pytest.importorskip("ray")
from ray_cluster import LocalCluster

from dreampose_core.animate.engine import LocalEngine, Making, Watch
from dreampose_core.animate.run import animate
from dreampose_core.errors import Cancelled, ClusterAway, ModelError
from dreampose_core.inputs.framing import make_scene
from dreampose_core.jobs.records import JobRequest
from dreampose_core.jobs.service import JobService
from dreampose_core.model.loading import load_pipeline
from dreampose_core.progress import never_stop
from dreampose_core.settings import EXAMPLES, AnimateOptions, Settings
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

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
    rgb, poses = render_clip(Figure.from_seed(HELD_OUT), "walk", FRAMES, SIZE, fps=FPS)
    return {"image": rgb[0].numpy(), "poses": poses, "image_poses": poses.select([0])}


@pytest.fixture(scope="module")
def local(model):
    torch.set_num_threads(1)
    return LocalEngine(load_pipeline(model, "cpu"))


@pytest.fixture(scope="module")
def nodes():
    cluster = LocalCluster(2)
    yield cluster
    import ray

    ray.shutdown()
    cluster.stop()


@pytest.fixture(scope="module")
def cluster(nodes, model, tmp_path_factory):
    from dreampose_core.cluster.connection import Cluster

    settings = Settings(
        home=tmp_path_factory.mktemp("home"), model=str(model), device="cpu", engine="ray", ray_address=nodes.address
    )
    made = Cluster(settings)
    yield made
    made.close()


def remote(cluster, job: str = "a", owner: str = "anna"):
    from dreampose_core.cluster.driver import RayEngine

    return RayEngine(cluster, cluster.wait(never_stop).model, job, owner)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the result's figures, which hold the seconds it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "result.json"
    }


def learned(folder: Path) -> dict[str, bytes]:
    """As `contents`, but of weights the numbers: what else is in their files lies in an order that differs from process
    to process."""
    found = {
        name: content
        for name, content in contents(folder).items()
        if not name.endswith(("subject.json", ".safetensors"))
    }
    for path in folder.rglob("*.safetensors"):
        found |= {f"{path.relative_to(folder)} {name}": x.numpy().tobytes() for name, x in load_file(path).items()}
    return found


def test_frames_and_chunks_equal_those_of_the_local_engine(cluster, local, clip, tmp_path):
    results = {}
    for name, engine in (("local", local), ("ray", remote(cluster))):
        results[name] = animate(engine, **clip, options=OPTIONS, folder=tmp_path / name)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    same = [json.dumps({k: v for k, v in r.items() if not k.startswith(("seconds", "peak"))}) for r in results.values()]
    assert same[0] == same[1] and results["ray"]["peak_memory"]["host_mb"] > 100


LONG = OPTIONS.model_copy(update={"steps": 120, "loops": 2})  # a batch takes a moment


def ready(cluster, num: int) -> dict:
    """The actors by their node's id, once `num` models are loaded."""
    end = time.monotonic() + 120
    while len(found := cluster.situation().ready) != num:
        assert time.monotonic() < end, f"{len(found)} models instead of {num}"
        time.sleep(0.1)
    return dict(found)


def busy(cluster) -> list[str]:
    import ray

    return [node for node, actor in cluster.situation().ready if ray.get(actor.about.remote(), timeout=60)["busy"]]


def wait_idle(cluster) -> None:
    end = time.monotonic() + 60
    while busy(cluster):
        assert time.monotonic() < end, "a model still works"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def long(local, clip, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run of the local engine."""
    folder = tmp_path_factory.mktemp("long")
    animate(local, **clip, options=LONG, folder=folder)
    return contents(folder)


def test_a_node_killed_while_frames_are_made_costs_its_unfinished_batch_alone(nodes, cluster, clip, long, tmp_path):
    ready(cluster, 2)
    engine, killed = remote(cluster), []

    def kill_one(progress) -> None:
        if progress.step >= 4 and not killed and len(working := busy(cluster)) == 2:
            killed.append(working[0])
            nodes.kill(working[0])

    result = animate(engine, **clip, options=LONG, folder=tmp_path, on_progress=kill_one)
    assert killed and result["num_frames"] == 22 and contents(tmp_path) == long
    assert sum(engine._losses.values()) == 1, "a model works on one batch at a time"
    nodes.add()
    assert killed[0] not in ready(cluster, 2), "a node that comes is used"


def test_a_cancel_frees_all_nodes_and_what_is_there_is_kept(cluster, clip, long, tmp_path):
    ready(cluster, 2)
    seen = []
    with pytest.raises(Cancelled):
        animate(
            remote(cluster),
            **clip,
            options=LONG,
            folder=tmp_path,
            on_progress=seen.append,
            should_stop=lambda: bool(seen) and seen[-1].step >= 6,
        )
    wait_idle(cluster)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "frames").glob("*.png")}
    assert 0 < len(kept) < 22
    animate(remote(cluster), **clip, options=LONG, folder=tmp_path)
    made = contents(tmp_path)
    made.pop("partial.mp4", None)
    assert made == long and kept == {path: path.stat().st_mtime_ns for path in kept}


FAST = OPTIONS.model_copy(update={"recipe": "fast"})


@pytest.fixture(scope="module")
def learned_here(local, clip, tmp_path_factory) -> dict[str, bytes]:
    """As `learned`, of a run of the local engine."""
    folder = tmp_path_factory.mktemp("fast")
    animate(local, **clip, options=FAST, folder=folder, samples=True)
    return learned(folder)


def test_a_cancel_while_a_person_is_learned_brings_the_last_steps_back(cluster, clip, learned_here, tmp_path):
    ready(cluster, 2)
    steps: list[int] = []

    def note(progress) -> None:
        steps.extend([progress.step] if progress.stage == "tuning" else [])

    with pytest.raises(Cancelled):
        animate(
            remote(cluster),
            **clip,
            options=FAST,
            folder=tmp_path,
            samples=True,
            on_progress=note,
            should_stop=lambda: bool(steps) and steps[-1] >= 12,
        )
    wait_idle(cluster)
    assert list((tmp_path / "checkpoints").rglob("*.safetensors")), "written when it was to stop"
    last = steps[-1]
    steps.clear()
    animate(remote(cluster), **clip, options=FAST, folder=tmp_path, samples=True, on_progress=note)
    assert steps[0] >= 12 and steps[0] <= last + 3
    made = learned(tmp_path)
    assert {name for name in made if made[name] != learned_here.get(name)} <= {"partial.mp4"}


@pytest.mark.slow
def test_a_node_killed_while_a_person_is_learned_costs_the_steps_since_the_checkpoint(
    nodes, cluster, clip, learned_here, tmp_path
):
    ready(cluster, 2)
    engine, steps, killed = remote(cluster), [], []

    def kill_it(progress) -> None:
        if progress.stage == "tuning":
            steps.append(progress.step)
            if progress.step >= 30 and not killed:
                killed.extend(busy(cluster))
                nodes.kill(killed[0])

    animate(engine, **clip, options=FAST, folder=tmp_path, samples=True, on_progress=kill_it)
    assert len(killed) == 1 and engine._losses["tuning"] == 1
    back = [b for a, b in zip(steps, steps[1:]) if b <= a]
    assert back == [26], "it goes on after the checkpoint of step 25"
    one, other = learned_here, learned(tmp_path)
    assert one.keys() == other.keys() and [name for name in one if one[name] != other[name]] == []
    nodes.add()


@pytest.mark.slow
def test_over_a_shared_folder_the_same_is_learned_and_made(cluster, local, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "shared", True)
    ready(cluster, 2)
    options = OPTIONS.model_copy(update={"recipe": "fast"})
    for name, engine in (("local", local), ("ray", remote(cluster))):
        animate(engine, **clip, options=options, folder=tmp_path / name, samples=True)
    assert learned(tmp_path / "ray") == learned(tmp_path / "local")


@pytest.mark.slow
def test_with_no_node_left_the_job_is_given_back_and_goes_on_later(nodes, cluster, clip, long, tmp_path, monkeypatch):
    from dreampose_core.cluster import driver

    monkeypatch.setattr(driver, "NO_MODEL_S", 1.0)
    engine = remote(cluster)

    def kill_all(progress) -> None:
        if progress.step >= 4:
            for node in list(nodes.nodes):
                nodes.kill(node)

    with pytest.raises(ClusterAway, match="No node of the Ray cluster has a model ready"):
        animate(engine, **clip, options=LONG, folder=tmp_path, on_progress=kill_all)
    nodes.add(), nodes.add()
    animate(remote(cluster), **clip, options=LONG, folder=tmp_path)
    assert contents(tmp_path) == long


@pytest.mark.slow
def test_a_cluster_that_is_gone_with_its_head_pauses_the_job_until_there_is_another(model, tmp_path):
    """Ray ends a driver whose head has been silent for a minute; the worker that takes its place pauses the job, and
    goes on."""

    def wait_for(condition, what: str, deadline_s: float = 300.0) -> None:
        end = time.monotonic() + deadline_s
        while not condition(status := service.status(ANNA, job)):
            assert time.monotonic() < end and not status.final, f"no {what}: {status}"
            time.sleep(0.1)

    first = LocalCluster(1)
    settings = Settings(
        home=tmp_path, model=str(model), device="cpu", engine="ray", ray_address=first.address, estimator="none"
    )
    with JobService(settings) as service:
        photo, options = (
            EXAMPLES / "people" / "ada.png",
            AnimateOptions(recipe="none", steps=250, batch_size=2, last_frame=30),
        )
        files = {
            "image": photo,
            "image_poses": photo.with_suffix(".poses.npz"),
            "poses": EXAMPLES / "motions" / "walk.npz",
        }
        job = service.submit(ANNA, JobRequest(kind="animate", **files, options=options))
        wait_for(lambda status: len(status.frames) >= 2, "frames")
        first.kill_all()
        made = {path: path.stat().st_mtime_ns for path in service.status(ANNA, job).frames[:2]}
        wait_for(lambda status: status.state == "interrupted" and status.error, "sentence")
        assert "cannot be reached just now; the job goes on by itself" in service.status(ANNA, job).error
        second = LocalCluster(1, int(first.address.rpartition(":")[2]))
        try:
            wait_for(lambda status: status.state == "done", "video")
        finally:
            second.stop()
        assert {path: path.stat().st_mtime_ns for path in service.status(ANNA, job).frames[:2]} == made


def test_an_error_of_a_model_is_told_as_it_would_be_here(cluster, clip, tmp_path):
    engine = remote(cluster)
    folder = tmp_path / "subject"
    folder.mkdir()
    (folder / "subject.json").write_text("{}")
    scene = make_scene(clip["image"], clip["poses"], None, SIZE, OPTIONS)
    watch = Watch(*([lambda *_: None] * 4))
    with pytest.raises(ModelError, match="is not a subject folder"):
        list(engine.frames(Making(scene, OPTIONS, folder), [range(2)], watch, never_stop))
    wait_idle(cluster)


def test_a_node_with_other_weights_is_left_out_and_said(nodes, cluster, model):
    ready(cluster, 2)
    file = next((model / "unet").glob("*.safetensors"))
    right = file.read_bytes()
    weights = load_file(file)
    save_file(weights | {"conv_in.bias": weights["conv_in.bias"] + 1}, file, {"format": "pt"})
    try:
        other, end = nodes.add(), time.monotonic() + 120
        while not (problems := cluster.situation().problems):
            assert time.monotonic() < end, "nothing is said of the node"
            time.sleep(0.1)
    finally:
        file.write_bytes(right)
    assert len(problems) == 1 and "has other weights under the model's name" in problems[0]
    assert other not in ready(cluster, 2)
    nodes.kill(other)


@pytest.mark.slow
def test_when_the_last_server_has_gone_its_models_end(nodes, cluster):
    """Two minutes after it was heard of last."""
    import ray

    ready(cluster, 2)
    assert ray.available_resources().get("CPU", 0) == 0, "each model holds a processor"
    cluster.close()
    end = time.monotonic() + 400
    while ray.available_resources().get("CPU", 0) != 2:
        assert time.monotonic() < end, "the models are still there"
        time.sleep(1)
    with pytest.raises(ValueError):
        ray.get_actor(cluster._name, "dreampose")
