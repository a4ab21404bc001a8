"""The Dockerfile's steps without an engine: what it copies, as its user, with its environment alone; health, a job, the
stop signal.

scripts/test -m slow tests/test_container.py       # installs its packages into a new environment, too
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from dreampose_core.media import probe_video
from dreampose_core.settings import REPOSITORY

PLACES = "/usr/local/bin:/usr/bin:/bin"  # of the image's Python, ffmpeg, tini
DEADLINE_S = 180


def steps() -> list[tuple[str, str]]:
    """(instruction, the rest) of each line of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def one(instruction: str) -> str:
    [found] = [rest for name, rest in steps() if name == instruction]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Container:
    """A folder /app with what the Dockerfile copies, read-only, and a folder /data; and `python app.py` there."""

    def __init__(self, root: Path, python: str):
        self.app, self.data, self.python = root / "app", root / "data", python
        self.as_user = user_for(python)
        self.port, self.process = free_port(), None
        self.log = open(root / "log", "a+")
        for folder in (self.app, root / "tmp"):
            folder.mkdir()
        for name, rest in steps():
            if name == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    place = self.app / (Path(source).name if target.endswith("/") else target)
                    given = REPOSITORY / source
                    if given.is_dir():
                        shutil.copytree(given, place, ignore=shutil.ignore_patterns("__pycache__"))
                    else:
                        shutil.copyfile(given, place)
        self.data.mkdir()
        if self.as_user:
            for path in (root, self.data, root / "tmp"):
                os.chown(path, 1000, 1000)
        subprocess.run(["chmod", "-R", "a=rX", str(self.app)], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """The Dockerfile's, with this folder's /data; nothing of the machine's."""
        own = dict(pair.split("=", 1) for pair in shlex.split(one("ENV")))
        own = {name: re.sub("^/(?=data|tmp)", f"{self.data.parent}/", value) for name, value in own.items()}
        return own | {"PATH": PLACES, "DREAMPOSE_PORT": str(self.port), "DREAMPOSE_HOST": "127.0.0.1"}

    def start(self) -> None:
        command = json.loads(one("CMD"))
        assert command[0] == "python"
        how = {"cwd": self.app, "env": self.environment, "stdout": self.log, "stderr": self.log} | self.as_user
        self.process = subprocess.Popen([self.python, *command[1:]], **how)
        self.wait(self.healthy, "the health check")

    def healthy(self) -> bool:
        """What HEALTHCHECK says."""
        assert self.process.poll() is None, self.said()
        code = json.loads(one("HEALTHCHECK").partition("CMD ")[2])
        assert code[:2] == ["python", "-c"] and ":7860/" in code[2]
        check = [self.python, "-c", code[2].replace(":7860/", f":{self.port}/")]
        return subprocess.run(check, capture_output=True).returncode == 0

    def wait(self, condition, what: str):
        deadline = time.monotonic() + DEADLINE_S
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} took too long: {self.said()}"
            time.sleep(0.3)
        return found

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()[-3000:]

    def stop(self) -> int:
        """The exit status after the stop signal that the Dockerfile names."""
        self.process.send_signal(getattr(signal, one("STOPSIGNAL")))
        return self.process.wait(60)

    def ask(self, path: str, token: str = "", **form: str) -> dict:
        url, headers = f"http://127.0.0.1:{self.port}/api/v1/{path}", {"Authorization": f"Bearer {token}"}
        parts = {name: (None, value) for name, value in form.items()}  # as multipart/form-data
        method = "POST" if form or path == "tokens" else "GET"
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.request(method, url, headers=headers if token else {}, files=parts or None)
        return answer.raise_for_status().json()

    def make(self, token: str, person: str, **options) -> str:
        """Submit a video of that person, and return the job's id."""
        form = {"person_name": person, "motion_name": "walk", "options": json.dumps(options)}
        return self.ask("jobs", token, **form)["id"]

    def wait_for_steps(self, job: str, token: str) -> None:
        self.wait(lambda: (self.ask(f"jobs/{job}", token)["progress"] or {}).get("step", 0) > 3, "a few steps")


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that another user may enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="dreampose container "))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def user_for(python: str) -> dict:
    """The Dockerfile's user, where this one may become another, and that one may read `python`; else the present
    one."""
    other = {"user": 1000, "group": 1000, "extra_groups": []}
    if os.getuid() == 0:
        with suppress(OSError):
            done = subprocess.run([python, "-c", "import torch"], cwd="/", capture_output=True, **other)
            return other if done.returncode == 0 else {}
    return {}


def check_container(root: Path, python: str) -> None:
    container = Container(root, python)
    before = sorted((path, path.stat().st_mtime_ns) for path in container.app.rglob("*"))
    try:
        container.start()
        token = container.ask("tokens")["token"]
        job = container.make(token, "ada", recipe="none", last_frame=12)
        told = container.wait(
            lambda: (now := container.ask(f"jobs/{job}", token))["state"] in ("done", "failed") and now, "a job"
        )
        assert told["state"] == "done", told
        result = container.data / "jobs" / job / "result.mp4"
        assert probe_video(result).num_frames == 12
        if container.as_user:
            assert result.stat().st_uid == 1000
        # the stop signal in the middle of learning a person: a checkpoint is written, and the next start goes on from
        # it
        job = container.make(token, "bela", last_frame=4)
        container.wait_for_steps(job, token)
        assert container.stop() == 0, container.said()
        assert list((container.data / "jobs" / job / "checkpoints").rglob("*.safetensors")), "no checkpoint was written"
        container.start()
        container.wait_for_steps(job, token)
        assert container.stop() == 0
    finally:
        if container.process is not None and container.process.poll() is None:
            container.process.kill()
            container.process.wait()
    assert "Traceback" not in container.said(), container.said()
    assert sorted((path, path.stat().st_mtime_ns) for path in container.app.rglob("*")) == before, (
        "the source tree stays as it is"
    )


def test_what_the_image_is_made_of():
    names = [name for name, _ in steps()]
    assert names[0] == "FROM" and one("FROM") == "python:3.12-slim-bookworm"
    assert (one("USER"), one("EXPOSE")) == ("1000", "7860")
    last_run = max(i for i, name in enumerate(names) if name == "RUN")
    assert names.index("COPY") < last_run < names.index("ENV"), "packages come first"
    copied = {source for name, rest in steps() if name == "COPY" for source in rest.split()[:-1]}
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in ignored if line.startswith("!")}, "what is copied is what the engine is sent"
    assert "secret" not in (REPOSITORY / "Dockerfile").read_text().lower() and one("ARG") == 'PIP_EXTRA_INDEX_URL=""'
    installs = " ".join(rest for name, rest in steps() if name == "RUN")
    assert installs.index("^torch==") < installs.index("-r requirements.txt")
    assert "ffmpeg tini" in installs and "--uid 1000" in installs
    assert (REPOSITORY / "packages.txt").read_text().split() == ["ffmpeg"], "what a Space installs"


def test_a_linter_has_nothing_to_say_about_it():
    found = subprocess.run(
        [str(Path(sys.prefix) / "bin" / "hadolint"), str(REPOSITORY / "Dockerfile")], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.slow
def test_it_runs_as_the_dockerfile_says(root):
    check_container(root, sys.executable)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_runs_with_its_own_packages_alone(root):
    subprocess.run([sys.executable, "-m", "venv", str(root / "venv")], check=True)
    python = str(root / "venv" / "bin" / "python")
    torch = re.search(r"^torch==\S+", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)[0]
    for given in ([torch], ["-r", str(REPOSITORY / "requirements.txt")]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *given], check=True)
    check_container(root, python)
