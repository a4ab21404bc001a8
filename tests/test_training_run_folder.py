"""The run folder: a run is gone on with only as it was started, and what differs is said."""

from __future__ import annotations

import json

import pytest

from dreampose_core.errors import InputError
from dreampose_core.training.run_folder import MiniRun, claim


def test_a_run_is_gone_on_with_as_it_was_started(tmp_path):
    given = dict(data="clips", size=(64, 32), unet_channels=(8, 16), steps=7, gradient_checkpointing=True)
    other = {  # what the error says of an option, and another value
        "size": ("with --size 64x32", (32, 32)),
        "unet_channels": ("with --unet-channels 8,16", (8, 24)),
        "steps": ("with --steps 7", 8),
        "vae_steps": ("without --vae-steps", 1200),
        "seed": ("with --seed 0", 1),
        "gradient_checkpointing": ("with --gradient-checkpointing", False),
        "optimizer": ("with --optimizer adamw", "adamw8bit"),
    }
    run = MiniRun(**given)
    claim(run, tmp_path, False)
    before = (tmp_path / "run.json").read_text()
    for name in MiniRun.model_fields:  # each of them, those too that are yet to come
        words, value = other.get(name, (f"--{name.replace('_', '-')}", ["x"]))
        with pytest.raises(InputError) as raised:
            claim(run.model_copy(update={name: value}), tmp_path, True)
        assert str(raised.value).startswith(f"The run in {tmp_path} was started with") and words in str(raised.value)
        assert str(raised.value).endswith(
            f"; use the same options, or start from its weights in another folder (--init {tmp_path / 'model'})."
        )
    with pytest.raises(
        InputError, match="was started with --seed 0, with --size 64x32, with --steps 7; use the same options"
    ):
        claim(run.model_copy(update=dict(seed=3, steps=9, size=(32, 32))), tmp_path, True)
    assert (tmp_path / "run.json").read_text() == before


def test_what_an_older_version_did_not_write_down_had_its_default(tmp_path):
    run = MiniRun(data="clips", seed=3)
    old = {key: value for key, value in vars(run).items() if key not in ("accumulate", "optimizer", "vae")}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(old | {"gone": 1}))
    claim(run, tmp_path, True)
    path.write_text(json.dumps(old))
    with pytest.raises(InputError, match="was started with --accumulate 1, without --vae; use the same options"):
        claim(run.model_copy(update=dict(accumulate=2, vae="mini")), tmp_path, True)
    for damaged in ("{", "[1]", "\x00"):
        path.write_text(damaged)
        with pytest.raises(InputError, match="run.json is damaged; choose another folder"):
            claim(run, tmp_path, True)
