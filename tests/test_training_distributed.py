"""Several processes learn what one learns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from dreampose_core.errors import InputError
from dreampose_core.training import run as training_run
from dreampose_core.training.run_folder import MiniRun

REPOSITORY = Path(__file__).resolve().parent.parent
LAUNCH = "-m torch.distributed.run --standalone --nproc-per-node 2"


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
