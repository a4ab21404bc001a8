"""Training runs: what their folders hold, from what they start and go on, and that several processes learn what one
learns."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from drawn import drawn_clip
from safetensors.torch import load_file
from tiny import same, stop_after, weights

from dreampose_core.errors import Cancelled, Diverged, InputError, ModelError
from dreampose_core.model.loading import load_pipeline
from dreampose_core.model.pipeline import DreamPosePipeline
from dreampose_core.poses import PoseSequence
from dreampose_core.settings import REPOSITORY, validated
from dreampose_core.training import loop
from dreampose_core.training import run as training_run
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.run import train_mini
from dreampose_core.training.run_folder import MiniRun, claim

LAUNCH = "-m torch.distributed.run --standalone --nproc-per-node 2"


@pytest.fixture(scope="module")
def tiny_run(tiny_clips, tiny_model):
    source = dict(data=str(tiny_clips), vae=str(tiny_model))
    return MiniRun(**source, size=(32, 32), unet_channels=(8, 16), batch_size=2, steps=2, end_to_end_steps=2)


def changed(run, **changes):
    return run.model_copy(update=changes)


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mini"
    assert train_mini(tiny_run, folder)
    return folder


def test_a_finished_run_is_a_model_folder(finished):
    pipe = DreamPosePipeline.from_pretrained(finished / "model")
    config = pipe.model_config
    assert (config.size, config.reference_warp, config.charts) == ((32, 32), "encoded", "body")
    sizes = {path.name: path.stat().st_size for path in (finished / "model").rglob("*.safetensors")}
    assert max(sizes.values()) < 9e6 and sum(sizes.values()) < 32 << 20
    rgb, poses = drawn_clip(0, "walk", 2, (32, 32))
    poses = PoseSequence(poses.parts, None, "none")
    frames = pipe(rgb[0], poses, num_inference_steps=1, generator=torch.Generator()).frames
    assert frames.shape == (2, 32, 32, 3)
    assert json.loads((finished / "run.json").read_text())["steps"] == 2


def test_what_was_learnt_before_a_loss_was_no_number_is_left_to_start_from(tiny_run, tmp_path, monkeypatch):
    steps = iter(range(6))
    monkeypatch.setattr(loop, "mean", lambda loss: loss.item() if next(steps) < 3 else math.nan)
    sooner = partial(LoopOptions, checkpoint_every=2, checkpoint_share=1e9)
    monkeypatch.setattr(training_run, "LoopOptions", sooner)
    run = changed(tiny_run, steps=6)
    with pytest.raises(
        Diverged,
        match=r"The base loss is no longer a number at step 3: checkpoint-2 in .* is the last good one; start "
        r"from it with a lower learning rate in another folder \(--init .*model\)\.",
    ):
        train_mini(run, tmp_path / "run")
    monkeypatch.undo()
    again = changed(run, init=str(tmp_path / "run" / "model"), vae=None, steps=1, lr=1e-5)
    assert train_mini(again, tmp_path / "again")


def test_a_run_may_start_from_a_model(tmp_path, tiny_run, finished):
    start = finished / "model"
    run = MiniRun(data=tiny_run.data, init=str(start), steps=0, end_to_end_steps=0, batch_size=2)  # of the model's size
    assert train_mini(run, tmp_path / "same")
    for file in start.rglob("*.safetensors"):
        before, after = load_file(file), load_file(tmp_path / "same" / "model" / file.relative_to(start))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert train_mini(changed(run, steps=1), tmp_path / "tuned") and not (tmp_path / "tuned" / "vae").exists()
    before, after = (load_pipeline(folder, "cpu") for folder in (start, tmp_path / "tuned" / "model"))
    assert same(weights(before.vae), weights(after.vae)) and not same(weights(before.unet), weights(after.unet))
    assert not any(str(start) in file.read_text() for file in (tmp_path / "tuned" / "model").rglob("*.json"))
    narrow = dict(vae=str(start), steps=1, end_to_end_steps=0, reference_warp="none")
    assert train_mini(changed(tiny_run, **narrow), tmp_path / "narrow")
    other = load_pipeline(tmp_path / "narrow" / "model", "cpu")
    assert same(weights(before.vae), weights(other.vae)) and other.model_config.reference_warp == "none"
    assert other.vae.config.scaling_factor == before.vae.config.scaling_factor
    assert list(other.unet.config.block_out_channels) == [8, 16]
    with pytest.raises(InputError, match="leave out vae"):
        train_mini(changed(run, vae="mini"), tmp_path / "new")
    with pytest.raises(InputError, match="--init was None"):
        train_mini(run, finished, resume=True)
    with pytest.raises(ModelError, match="no model folder"):
        train_mini(changed(run, init=str(tmp_path / "nowhere")), tmp_path / "new")
    with pytest.raises(InputError, match="starts from a model; give it with --init, or with --vae"):
        train_mini(changed(run, init=None), tmp_path / "new")
    with pytest.raises(InputError, match="learns from clips of train draw only; leave out --vae-steps"):
        train_mini(changed(tiny_run, vae_steps=1), tmp_path / "new")
    with pytest.raises(InputError, match="no clips in nowhere; give a folder that train draw or train prepare made"):
        train_mini(changed(run, data="nowhere"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


NAN = float("nan")
WRONG = {
    "size": [(40, 32), (0, 32)],
    "batch_size": [3, 0],
    "accumulate": [0],
    "steps": [-1],
    "lr": [NAN],
    "vae_lr": [0.0],
    "seed": [-1, 2**40],
    "unet_channels": [(64,), (64, 100)],
    "adversarial": [-0.1, NAN],
    "optimizer": ["sgd"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_runs_that_make_no_sense_are_refused(name, value):
    with pytest.raises(InputError, match=name.replace("_", ".")):
        validated(MiniRun, {"data": "clips", name: value})


def test_every_stage_trains_in_bfloat16(tiny_run, tmp_path):
    """On the GPU if there is one."""
    run = changed(tiny_run, steps=1, end_to_end_steps=1, precision="bf16")
    assert train_mini(run, tmp_path, device="cuda" if torch.cuda.is_available() else "cpu")
    assert (tmp_path / "model" / "model_index.json").is_file()
    assert all((tmp_path / part / "checkpoint-1").is_dir() for part in ("base", "end_to_end"))


@pytest.mark.slow
def test_every_option_of_the_steps_is_gone_on_with_to_the_same_bits(tiny_run, tmp_path):
    """All of them at once, in all stages."""
    run = changed(tiny_run, steps=4, accumulate=2, optimizer="adamw8bit", gradient_checkpointing=True)
    assert train_mini(run, tmp_path / "whole")
    for stop in (3, 7):  # in the middle of a step of each stage
        with pytest.raises(Cancelled):
            train_mini(run, tmp_path / "parts", resume=(tmp_path / "parts").exists(), should_stop=stop_after(stop))
    assert train_mini(run, tmp_path / "parts", resume=True)
    for file in (tmp_path / "whole" / "model").rglob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "parts" / file.relative_to(tmp_path / "whole")).read_bytes(), file


def test_a_run_is_gone_on_with_as_it_was_started(tmp_path):
    run = MiniRun(data="clips", size=(64, 32), steps=7, gradient_checkpointing=True)
    claim(run, tmp_path, False)
    before = (tmp_path / "run.json").read_text()
    for name in MiniRun.model_fields:  # each of them, those too that are yet to come
        with pytest.raises(
            InputError, match=f"The run in .* was started with .*: --{name.replace('_', '-')} was .*; use"
        ):
            claim(run.model_copy(update={name: "x"}), tmp_path, True)
    words = r"options: --seed was 0, --size was \[64, 32\], --steps was 7; use the same .* \(--init .*model\)"
    with pytest.raises(InputError, match=words):
        claim(run.model_copy(update=dict(seed=3, steps=9, size=(32, 32))), tmp_path, True)
    assert (tmp_path / "run.json").read_text() == before
    claim(run, tmp_path, True)


def test_what_an_older_version_did_not_write_down_had_its_default(tmp_path):
    run = MiniRun(data="clips", seed=3)
    old = {key: value for key, value in vars(run).items() if key not in ("accumulate", "optimizer", "vae")}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(old | {"gone": 1}))
    claim(run, tmp_path, True)
    path.write_text(json.dumps(old))
    with pytest.raises(InputError, match="--accumulate was 1, --vae was None; use the same options"):
        claim(run.model_copy(update=dict(accumulate=2, vae="mini")), tmp_path, True)
    for damaged in ("{", "[1]", "\x00"):
        path.write_text(damaged)
        with pytest.raises(InputError, match="run.json is damaged; choose another folder"):
            claim(run, tmp_path, True)


@pytest.mark.slow
def test_two_processes_equal_one(tiny_clips, tiny_model, tmp_path):
    """The same batches, shared out, give the same losses: every draw is a sample's own, and gradients are averaged."""
    few = "--size 32x32 --batch-size 4 --accumulate 2 --steps 6 --end-to-end-steps 2 --unet-channels 8,16 --device cpu"
    for name, launch in (("one", ""), ("two", LAUNCH)):
        command = (
            f"{launch} -m dreampose_core train --data {tiny_clips} --vae {tiny_model} {few} --out {tmp_path / name}"
        )
        place = dict(cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"})
        done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, timeout=600, **place)
        assert done.returncode == 0, done.stderr
    for stage, last in (("base", 6), ("end_to_end", 2)):
        wanted, found = (
            load_file(tmp_path / name / stage / f"checkpoint-{last}" / "state.safetensors") for name in ("one", "two")
        )
        assert wanted.keys() == found.keys() and len(found["losses"]) == last
        # but for rounding: sums are in another order
        assert torch.allclose(wanted["losses"], found["losses"], atol=1e-4)
        compared = [key for key in wanted if key.startswith(("weight.", "average."))]
        assert compared and all(torch.allclose(wanted[key], found[key], atol=1e-3) for key in compared)
        assert stage != "base" or not torch.equal(wanted["losses"], found["losses"]), "there were really two"


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, monkeypatch):
    four = SimpleNamespace(num_processes=4, is_main_process=True)
    monkeypatch.setattr(training_run, "processes", lambda: four)
    with pytest.raises(InputError, match="batch of 6 cannot be shared by 4 processes; give a multiple of 4"):
        training_run.train_mini(MiniRun(data="clips", batch_size=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()
