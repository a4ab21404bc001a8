"""scripts/run and scripts/test in a folder with a space, as another user, in a tree that is read-only, with the
packages elsewhere.

scripts/test tests/test_scripts.py
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from test_container import free_port, root, user_for  # noqa: F401

from dreampose_core.settings import REPOSITORY

CACHES = {"__pycache__", ".pytest_cache", ".hypothesis", ".ruff_cache"}
DEADLINE_S = 180
PACKAGES = Path(sys.prefix)
SOME = [
    "tests/test_settings.py",
    "tests/test_poses_fit.py",
    "tests/test_browser.py",
    "-k",
    "settings or fit or random_seed",
]


@pytest.fixture
def tree(root: Path) -> Path:  # noqa: F811
    """What a clone holds."""
    if not (PACKAGES / "installed-requirements-dev.txt").exists():
        pytest.skip("these packages were not installed by scripts/test")
    copy = root / "the source"
    left_out = shutil.ignore_patterns(".venv", ".git", "runs", "data", *CACHES)
    shutil.copytree(REPOSITORY, copy, ignore=left_out, symlinks=True)
    (root / "home").mkdir()
    return copy


class Person:
    """Somebody with a home and little else, another than this one where that can be."""

    def __init__(self, tree: Path):
        self.tree, self.home, self.other = tree, tree.parent / "home", user_for(sys.executable)
        for path in [self.home, tree, *tree.rglob("*")] if self.other else ():
            os.chown(path, 1000, 1000)

    def begin(self, *command: str, **more: str) -> subprocess.Popen:
        """Starts a command of the tree from some other folder."""
        environment = {
            name: os.environ[name] for name in ("PATH", "LANG", "CI", "DREAMPOSE_CHROMIUM") if name in os.environ
        } | more
        environment |= {"HOME": str(self.home), "TMPDIR": str(self.home)}
        return subprocess.Popen(
            [str(self.tree / command[0]), *command[1:]],
            cwd=self.home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **self.other,
        )

    def files(self) -> dict[Path, float]:
        """All but caches, which root writes where nobody may."""
        return {
            path: path.stat().st_mtime
            for path in self.tree.rglob("*")
            if path.is_file() and not CACHES & set(path.parts)
        }


def check_run(person: Person, **more: str) -> None:
    port = free_port()
    server = person.begin("scripts/run", "--port", str(port), **more)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert server.poll() is None and time.monotonic() < deadline, server.communicate()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
                    assert answer.status == 200
                break
            except OSError:  # 503 until the workers live
                time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        said, _ = server.communicate(timeout=DEADLINE_S)
        assert server.returncode == 0 and "Traceback" not in said, said
    finally:
        server.kill()
        server.wait()


def check_test(person: Person, **more: str) -> None:
    tests = person.begin("scripts/test", *SOME, **more)
    try:
        said, _ = tests.communicate(timeout=3 * DEADLINE_S)
    finally:
        tests.kill()
        tests.wait()
    assert tests.returncode == 0 and " passed" in said, said


@pytest.mark.slow
def test_another_user_in_a_tree_that_is_read_only(tree: Path):
    person = Person(tree)
    subprocess.run(["chmod", "-R", "a-w", str(tree)], check=True)
    before = person.files()
    check_run(person, DREAMPOSE_VENV=str(PACKAGES))
    check_test(person, DREAMPOSE_VENV=str(PACKAGES))
    assert person.files() == before


@pytest.mark.slow
def test_nothing_is_written_into_the_tree_but_packages_and_caches(tree: Path):
    person = Person(tree)
    (tree / ".venv").symlink_to(PACKAGES)
    before = person.files()
    check_run(person)
    check_test(person)
    assert person.files() == before


def test_a_folder_that_is_no_environment_is_left_alone(tree: Path):
    (tree.parent / "papers").mkdir()
    (tree.parent / "papers" / "novel.txt").write_text("It was a dark night.")
    for given in ("../papers", str(tree.parent / "papers")):  # from where it was called, or whole
        asked = Person(tree).begin("scripts/run", DREAMPOSE_VENV=given)
        said, _ = asked.communicate(timeout=DEADLINE_S)
        assert asked.returncode == 1 and "papers is there and holds no Python environment: name another folder" in said
    assert [path.name for path in (tree.parent / "papers").iterdir()] == ["novel.txt"]
