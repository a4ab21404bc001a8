"""What several test files share: no network, one thread for torch, a Chromium or a loud word about its absence, tiny
models."""

from __future__ import annotations

import os
import shutil

import pytest

# Before any library is imported: tests speak to nobody outside, and leave the other cores alone.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")

CI = os.environ.get("CI") == "true"
CHROMIUM = os.environ.get("DREAMPOSE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None and not CI:
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


def pytest_terminal_summary(terminalreporter) -> None:
    if CHROMIUM is None:
        line = "NO CHROMIUM: no browser test was run (Debian: sudo apt-get install chromium)"
        terminalreporter.write_line(f"########  {line}  ########", red=True)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to drive."""
    assert CHROMIUM is not None, "no Chromium on this machine"
    return CHROMIUM


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any DREAMPOSE_ variable; returns the monkeypatch that takes more changes."""
    for name in list(os.environ):
        if name.startswith("DREAMPOSE_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a tiny model."""
    from tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_clips(tmp_path_factory: pytest.TempPathFactory):
    """The folder of tiny clips to train on."""
    from tiny import make_tiny_clips

    return make_tiny_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory):
    """A tiny model in Stable Diffusion's layout."""
    from tiny import make_tiny_stable_diffusion

    return make_tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory: pytest.TempPathFactory):
    """A tiny CLIP vision model that fits `base`."""
    from tiny import make_tiny_clip

    return make_tiny_clip(tmp_path_factory.mktemp("clip"))
