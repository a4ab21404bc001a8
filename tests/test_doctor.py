"""`doctor`: each finding with what to do about it, and the self-check's figure."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from dreampose_core import doctor
from dreampose_core.__main__ import main
from dreampose_core.doctor import Finding, examine
from dreampose_core.evaluation import clips
from dreampose_core.model import loading
from dreampose_core.settings import MINI, Settings

CLOSED = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "not" / "there" / "yet")


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(settings)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_self_check", lambda settings: ("ok", "left out"))


def test_a_machine_that_runs_the_tests_is_well(settings):
    findings = found(settings)
    assert [finding.what for finding in findings.values() if finding.state == "problem"] == []
    check = findings["self-check"]
    measured, expected, copied = map(float, re.findall(r"(\d+\.\d+)", check.words))
    assert check.state == "ok" and abs(measured - expected) < 0.3 and measured > copied + 3
    assert findings["shipped models"].words == "mini, body tracker" and findings["model"].words == "mini"
    assert not settings.home.exists(), "looking changes nothing"


def test_a_device_that_computes_otherwise_is_noticed(settings, monkeypatch):
    """The model's frames are 10 dB from the truth."""
    truth = np.zeros((2, 8, 8, 3), np.uint8)
    clip = SimpleNamespace(truth=truth, photo=truth[0] + 40, poses=SimpleNamespace(mask=np.ones((2, 8, 8), bool)))
    clip.made_by = lambda pipe, seed: truth + np.uint8(80)
    monkeypatch.setattr(clips, "walking", lambda *_: clip)
    monkeypatch.setattr(loading, "load_pipeline", lambda *_: SimpleNamespace(model_config=SimpleNamespace(size=(8, 8))))
    state, words, todo = doctor._self_check(settings)
    assert state == "problem" and "10.07 dB" in words and "computes different values" in todo


def test_without_ffmpeg(settings, quick, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = found(settings)["ffmpeg"]
    assert finding.state == "problem" and "apt-get install ffmpeg" in finding.todo
    assert finding.words.startswith("ffmpeg and ffprobe not on PATH")


@pytest.mark.parametrize(("free_mb", "state"), [(50, "problem"), (1500, "note"), (50_000, "ok")])
def test_a_disk_that_is_full(settings, monkeypatch, free_mb, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free_mb << 20))
    finding = Finding("disk", *doctor._disk(settings))
    assert finding.state == state and bool(finding.todo) == (state != "ok")


def test_a_data_folder_that_takes_nothing(settings, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    state, words, todo = doctor._disk(settings)
    assert state == "problem" and str(settings.home) in words and "DREAMPOSE_HOME" in todo


def test_without_a_network(settings, quick, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", CLOSED)
    finding = found(settings)["Hugging Face hub"]
    assert finding.state == "note" and finding.words == f"{CLOSED} cannot be reached"
    assert "shipped models work" in finding.todo
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "not checked" in found(settings)["Hugging Face hub"].words


def test_a_gpu_that_is_asked_for_and_not_there(settings, quick):
    findings = found(settings.model_copy(update={"device": "cuda"}))
    assert findings["device"].state == "problem" and "No CUDA device was found" in findings["device"].words
    assert list(findings)[-1] == "self-check", "the other checks are made all the same"


def test_a_gpu_that_this_pytorch_cannot_use(settings, quick, monkeypatch):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else which(name))
    finding = found(settings)["device"]
    assert finding.state == "note" and "cannot use it" in finding.words and "CUDA build" in finding.todo


def test_packages_that_are_missing_or_others(settings, quick, monkeypatch):
    real = doctor.version

    def missing(name: str) -> str:
        if name == "peft":
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", missing)
    finding = found(settings)["packages"]
    assert finding.state == "problem" and finding.words == "missing: peft"
    assert "pip install -r requirements.txt" in finding.todo
    monkeypatch.setattr(doctor, "version", lambda name: "2.11.0" if name == "torch" else real(name))
    finding = found(settings)["packages"]
    assert finding.state == "note" and "torch 2.11.0 instead of" in finding.words


def test_little_memory(settings, quick, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 30))
    finding = found(settings)["memory"]
    assert finding.state == "note" and finding.words == "1024 MB free"


@pytest.mark.parametrize(
    ("model", "state", "words"),
    [
        (str(MINI), "ok", "mini"),
        ("somebody/model", "note", "will be downloaded"),
        ("no model", "problem", "no folder and no hub id"),
    ],
)
def test_the_model(settings, quick, model, state, words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    finding = found(settings.model_copy(update={"model": model}))["model"]
    assert finding.state == state and words in finding.words
    finding = found(settings.model_copy(update={"model": str(tmp_path)}))["model"]
    assert finding.state == "problem" and "model_index.json" in finding.words


def test_a_check_that_breaks_spoils_no_other(settings, quick, monkeypatch):
    monkeypatch.setattr(doctor, "_python", lambda settings: 1 / 0)
    findings = found(settings)
    assert findings["Python"].state == "problem" and "ZeroDivisionError" in findings["Python"].words
    assert findings["packages"].state == "ok"


def test_the_command_says_it_all(tmp_path, quick, capsys, clean_environment):
    assert main(["doctor", "--home", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("\nok ") >= 6 and "self-check" in said and "BAD" not in said
    assert main(["doctor", "--home", str(tmp_path), "--model", "no model"]) == 1
    told = capsys.readouterr()
    assert "BAD  model: no model is no folder" in told.out and "     -> Give a folder" in told.out
    assert "1 finding marked BAD" in told.err and main(["doctor", "--home", "/proc/nothing"]) == 1
