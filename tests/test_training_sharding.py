"""FSDP: a UNet spread over two processes learns what a whole one learns, its checkpoints are the same, and it is whole
again afterwards."""

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
WORDS = "train --size 32x32 --batch-size 4 --device cpu --vae-steps 1 --steps 6 --end-to-end-steps 2"
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


def launched(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_sharded_training_is_training_and_goes_on_either_way(tiny_clips, tiny_model, tmp_path):
    one, shard, other = (tmp_path / name for name in ("one", "shard", "other"))
    source = "--data", str(tiny_clips), "--vae", str(tiny_model)
    train = ["-m", "dreampose_core", *WORDS.split(), "--unet-channels", "8,16", *source]
    launched(*train, "--out", str(one))
    launched(*LAUNCH, *train, "--shard", "--out", str(shard))
    shutil.copytree(one, other)
    for folder in (
        shard,
        other,
    ):  # the last stage again, of the sharded run with a whole UNet, of the other with a sharded one
        (folder / "end_to_end").rename(folder / "end_to_end_before")
    launched(*train, "--resume", "--out", str(shard))
    launched(*LAUNCH, *train, "--shard", "--resume", "--out", str(other))
    for folder in (shard, other):
        for stage, last in (("base", 6), ("end_to_end", 2)):
            wanted, found = (
                load_file(run / stage / f"checkpoint-{last}" / "state.safetensors") for run in (one, folder)
            )
            assert wanted.keys() == found.keys() and all(wanted[key].shape == found[key].shape for key in wanted)
            assert torch.allclose(wanted["losses"], found["losses"], atol=1e-4) and len(found["losses"]) == last
            assert all(
                torch.allclose(wanted[key], found[key], atol=1e-3)
                for key in wanted
                if key.startswith(("weight.", "average."))
            )
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


def test_one_process_and_the_8_bit_optimizer_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="several processes"):
        train_mini(MiniRun(data="clips"), tmp_path / "run", shard=True)
    monkeypatch.setattr("dreampose_core.training.run.Processes", lambda: SimpleNamespace(count=2, main=True))
    with pytest.raises(InputError, match="adamw8bit cannot be sharded"):
        train_mini(MiniRun(data="clips", optimizer="adamw8bit"), tmp_path / "run", shard=True)
    assert not (tmp_path / "run").exists()
