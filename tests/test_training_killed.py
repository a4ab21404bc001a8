"""Killed in the middle and started again, training gives the weights of a run that was never disturbed, to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from drawn import drawn_clip
from tiny import make_tiny_clips, make_tiny_model, tiny_pipeline

from dreampose_core.settings import REPOSITORY
from dreampose_core.subject import recipe, tuning
from dreampose_core.subject.finetuning import finetune
from dreampose_core.subject.recipe import SubjectRecipe
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.training import run
from dreampose_core.training.checkpoints import newest_checkpoint, save_checkpoint
from dreampose_core.training.loop import LoopOptions
from dreampose_core.training.run_folder import MiniRun

STEPS, EVERY = 16, 4  # in all, and between two checkpoints
RECIPES = {
    "fast": SubjectRecipe(unet_steps=STEPS, decoder_steps=STEPS, batch_size=2, views=4, rank=2),
    "paper": SubjectRecipe(unet_steps=STEPS, decoder_steps=STEPS, unet_lr=1e-4, batch_size=1, rank=None, views=None),
}


def work(kind: str, folder: Path) -> Path:
    """Trains or tunes in `folder`, going on where it was; returns the folder of the weights that came out."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (run, tuning):
            patch.setattr(module, "LoopOptions", partial(LoopOptions, checkpoint_every=EVERY, checkpoint_share=1e9))
        if kind in RECIPES:
            patch.setitem(recipe.RECIPES, "fast", RECIPES[kind])
            rgb, poses = drawn_clip(HELD_OUT, "walk", 1, (40, 32), fps=4.0)
            out, kept = folder / "subject", folder / "checkpoints"
            finetune(tiny_pipeline(), list(rgb), poses, "fast", 0, out, checkpoints=kept)
            return out
        steps = {"steps": 0, "end_to_end_steps": 0} | {kind: STEPS}
        source = {"data": str(folder.parent / "clips"), "init": str(folder.parent / "start")}
        run.train_mini(MiniRun(batch_size=2, **source, **steps), folder, resume=(folder / "run.json").exists())
        return folder / "model"


def weights(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        ("steps", "base"),
        pytest.param("end_to_end_steps", "end_to_end", marks=pytest.mark.slow),
        pytest.param("fast", "tuning", marks=pytest.mark.slow),
        pytest.param("fast", "decoder", marks=pytest.mark.slow),
        pytest.param("paper", "tuning", marks=pytest.mark.slow),
    ],
)
def test_killed_and_gone_on_with_gives_the_same_weights(kind, stage, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    make_tiny_clips(tmp_path / "clips"), make_tiny_model(tmp_path / "start")
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, kind, str(killed)], env=environment, cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 180
        while not list(killed.rglob(f"{stage}/checkpoint-*/manifest.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random.random() * 0.1)  # wherever it is by then
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert weights(work(kind, whole)) == weights(work(kind, killed)) != {}
    assert not list(killed.rglob(".part.*"))


def test_killed_inside_each_step_of_writing_a_checkpoint_the_last_good_one_is_there(tmp_path):
    """Every line of `save` is the last one of a process; a fork for each."""
    state = {"step 2": torch.arange(4.0), "step 3": torch.arange(9.0)}
    lines, saved = 0, set()
    while True:
        folder = tmp_path / f"{lines}"
        save_checkpoint(folder, 2, {"weights": state["step 2"]})
        child = os.fork()
        if child == 0:
            left = lines

            def traced(frame, event, argument):
                nonlocal left
                if frame.f_code is not save_checkpoint.__code__:
                    return None
                if event == "line":
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                return traced

            sys.settrace(traced)
            save_checkpoint(folder, 3, {"weights": state["step 3"]})
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        step, found = newest_checkpoint(folder)
        assert torch.equal(found["weights"], state[f"step {step}"])
        assert not list(folder.glob(".*")), "nothing is left half written after the next start"
        saved.add(step)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        lines += 1
    assert saved == {2, 3} and lines > 10


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
