"""The run folder: a run is gone on with only as it was started, and what differs is said."""

from __future__ import annotations

import json

import pytest

from dreampose_core.errors import InputError
from dreampose_core.training.run_folder import MiniRun, claim


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
