"""Several processes learn what one learns; with FSDP a UNet is spread over them, its checkpoints are the same, and it
is whole again afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from dreampose_core.errors import InputError
from dreampose_core.training.run import train_mini
from dreampose_core.training.run_folder import MiniRun
from dreampose_core.training.sharding import clip_gradients

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LOOK = """
import sys
import torch
sys.path[:0] = [{tests!r}, {repository!r}]
from tiny import tiny_pipeline
from dreampose_core.training.distributed import Processes
from dreampose_core.training.sharding import sharded
processes = Processes()
pipe = tiny_pipeline()
given, kind = {{name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}}, type(pipe.unet)
with sharded(True, pipe):
    held = sum(p.to_local().numel() for p in pipe.unet.parameters())
    share = held / sum(p.numel() for p in pipe.unet.parameters())
again = pipe.unet.state_dict()
assert type(pipe.unet) is kind and all(torch.equal(again[name], given[name]) for name in given)
with open(f"{out}/{{processes.rank}}", "w") as file:  # printed, the two would mix in one line
    file.write(str(share))
"""


def launched(*arguments: str) -> None:
    place = dict(cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"})
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=600, **place)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def train(tiny_clips, tiny_model):
    """The words of a run in all stages."""
    few = "--size 32x32 --batch-size 4 --accumulate 2 --vae-steps 2 --steps 6 --end-to-end-steps 2 --unet-channels 8,16"
    return f"-m dreampose_core train --data {tiny_clips} --vae {tiny_model} {few} --device cpu".split()


@pytest.fixture(scope="module")
def one(train, tmp_path_factory):
    """The folder of that run in one process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    launched(*train, "--out", str(folder))
    return folder


def check_equal(one: Path, other: Path) -> None:
    """But for rounding: sums are in another order."""
    for stage, last in (("vae", 2), ("base", 6), ("end_to_end", 2)):
        wanted, found = (load_file(run / stage / f"checkpoint-{last}" / "state.safetensors") for run in (one, other))
        assert wanted.keys() == found.keys() and all(wanted[key].shape == found[key].shape for key in wanted)
        assert torch.allclose(wanted["losses"], found["losses"], atol=1e-4) and len(found["losses"]) == last
        compared = [key for key in wanted if key.startswith(("weight.", "average."))]
        assert all(torch.allclose(wanted[key], found[key], atol=1e-3) for key in compared)
        assert stage != "base" or not torch.equal(wanted["losses"], found["losses"]), "there were really two"


@pytest.mark.slow
def test_two_processes_equal_one(train, one, tmp_path):
    """The same batches, shared out, give the same losses: every draw is a sample's own, and gradients are averaged."""
    launched(*LAUNCH, *train, "--out", str(tmp_path / "two"))
    check_equal(one, tmp_path / "two")


@pytest.mark.slow
def test_sharded_training_is_training_and_goes_on_either_way(train, one, tmp_path):
    shard, other = tmp_path / "shard", tmp_path / "other"
    launched(*LAUNCH, *train, "--shard", "--out", str(shard))
    shutil.copytree(one, other)
    # the last stage again, of the sharded run with a whole UNet, of the other with a sharded one
    for folder in (shard, other):
        (folder / "end_to_end").rename(folder / "end_to_end_before")
    launched(*train, "--resume", "--out", str(shard))
    launched(*LAUNCH, *train, "--shard", "--resume", "--out", str(other))
    check_equal(one, shard)
    check_equal(shard, other)
    assert (shard / "model" / "model_index.json").is_file()


def test_each_process_holds_its_share_and_the_unet_is_whole_again(tmp_path):
    script = tmp_path / "look.py"
    (tmp_path / "shares").mkdir()
    script.write_text(LOOK.format(tests=str(REPOSITORY / "tests"), repository=str(REPOSITORY), out=tmp_path / "shares"))
    launched(*LAUNCH, str(script))
    shares = [float(path.read_text()) for path in (tmp_path / "shares").iterdir()]
    assert len(shares) == 2 and sum(shares) == pytest.approx(1, abs=0.01) and max(shares) < 0.6


def test_gradients_are_clipped_as_pytorch_does():
    given = [torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))) for seed in range(3)]
    others = [torch.nn.Parameter(p.detach().clone()) for p in given]
    for some in (given, others):
        sum((p**3).sum() for p in some[:2]).backward()
    assert torch.equal(clip_gradients(given, 0.5), torch.nn.utils.clip_grad_norm_(others, 0.5))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(given[:2], others)) and given[2].grad is None


def test_what_several_processes_cannot_do_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="several processes"):
        train_mini(MiniRun(data="clips"), tmp_path / "run", shard=True)
    monkeypatch.setattr("dreampose_core.training.run.Processes", lambda: SimpleNamespace(count=4, main=True))
    with pytest.raises(InputError, match="batch of 6 cannot be shared by 4 processes; give a multiple of 4"):
        train_mini(MiniRun(data="clips", batch_size=6), tmp_path / "run")
    with pytest.raises(InputError, match="adamw8bit cannot be sharded"):
        train_mini(MiniRun(data="clips", optimizer="adamw8bit"), tmp_path / "run", shard=True)
    assert not (tmp_path / "run").exists()
