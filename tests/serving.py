"""The real server as a process, and a visitor who uses its page and its HTTP API."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from dreampose_core.settings import REPOSITORY

APP = (str(REPOSITORY / "app.py"),)
START_S = 180.0  # the most that a start may take before it counts as failed


def alive(pid: int) -> bool:
    """Whether the process still runs; one that has ended and is not waited for yet does not."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill(pid: int) -> None:
    """SIGKILL; nothing when it has ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def memory_mb(pid: int) -> float:
    """What the process holds in memory (resident), in MB of 2^20 bytes."""
    return psutil.Process(pid).memory_info().rss / 2**20


def processor_s(pid: int) -> float:
    """What the process has computed so far, in seconds of processor."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


class Server:
    """`python app.py` with a data folder of its own; it may be killed and started again.

    num_threads: for torch, one, so that what is computed does not depend on the machine and the other core is left
    alone.
    program: what Python runs, before the arguments of app.py.
    """

    def __init__(
        self,
        home: Path,
        model: Path,
        estimator: str = "none",
        num_threads: int = 1,
        program: Sequence[str] = APP,
        **settings: object,
    ):
        self.home, self.log_file, self._program = home, home.with_suffix(".log"), program
        self.url = ""
        self.process: subprocess.Popen | None = None
        self.children_seen: set[int] = set()
        self._arguments = ("--port", "0", "--model", str(model), "--device", "cpu", "--estimator", estimator)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DREAMPOSE_")}
        own = {"DREAMPOSE_HOME": home, "OMP_NUM_THREADS": num_threads, "HF_HUB_OFFLINE": 1}
        own |= {f"DREAMPOSE_{name.upper()}": value for name, value in settings.items()}
        self._environment = kept | {name: str(value) for name, value in own.items()}

    @property
    def web_pid(self) -> int:
        """The web process's, which there must be."""
        return self.children()["web"]

    def start(self) -> None:
        """Starts it and waits until the page can be had."""
        if self.process is not None:
            self.process.stdout.close()  # of one that was killed
        with open(self.log_file, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._program, *self._arguments],
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        late = threading.Timer(START_S, self.process.kill)
        late.start()
        found = re.search(rb"http://127\.0\.0\.1:\d+", self.process.stdout.readline())
        late.cancel()
        if found is None:
            raise RuntimeError(f"the server did not start:\n{self.log_file.read_text()[-3000:]}")
        self.url = found[0].decode()

    def children(self) -> dict[str, int]:
        """The process id of the server's web process, "web", and of each queue's worker."""
        found = {}
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children():
                words = process.cmdline()
                found[words[words.index("--queue") + 1] if "--queue" in words else "web"] = process.pid
        self.children_seen.update(found.values())
        return found

    def stop(self) -> None:
        """As Ctrl-C ends it."""
        if self.process is not None and self.process.poll() is None:
            self.children()
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def leftovers(self, within_s: float = 40.0) -> list[int]:
        """Processes that outlive all their servers for `within_s` seconds; they are ended here."""
        deadline = time.monotonic() + within_s
        while (left := [pid for pid in self.children_seen if alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in left:
            kill(pid)
        return left


@contextmanager
def running_server(home: Path, model: Path, **given: object) -> Iterator[Server]:
    """A server while the block lasts; it leaves no error and no process."""
    server = Server(home, model, **given)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        left = server.leftovers()
    said = server.log_file.read_text()
    assert not left and "Traceback" not in said and "ERROR" not in said, said


class Visitor:
    """One visitor: a client of the HTTP API with an owner token, and a browser that opens the page.

    Refusals raise httpx.HTTPStatusError with the server's sentence. token: one that exists already.
    """

    def __init__(self, client: httpx.AsyncClient, server: Server, token: str = ""):
        self.client, self.server, self.token = client, server, token

    async def _call(self, method: str, path: str, **what) -> httpx.Response:
        headers = what.pop("headers", {}) | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        answer = await self.client.request(method, self.server.url + path, headers=headers, **what)
        if answer.is_error:
            raise httpx.HTTPStatusError(f"{answer.status_code}: {answer.text}", request=answer.request, response=answer)
        return answer

    async def make_token(self) -> None:
        """Become a new owner."""
        self.token = (await self._call("POST", "/api/v1/tokens")).json()["token"]

    async def open(self) -> None:
        """Get the page and send its load event, as a browser does."""
        page = (await self._call("GET", "/")).text
        config, _ = json.JSONDecoder().raw_decode(page.partition("window.gradio_config = ")[2])
        [load] = [event["id"] for event in config["dependencies"] if "load" in dict(event["targets"]).values()]
        event = {"data": [{"owner": self.token}], "fn_index": load, "session_hash": self.token[:10]}
        await self._call("POST", "/gradio_api/run/predict", json=event)

    async def submit(self, request: dict[str, object], key: str = "") -> str:
        """Queue a video; return the job's id. request: fields of the form; a Path or a list of them is a file.

        key: the same key makes the same job.
        """
        files, texts = [], {}
        for name, value in request.items():
            if isinstance(value, Path | list):
                paths = value if isinstance(value, list) else [value]
                files += [(name, (path.name, path.read_bytes())) for path in paths]
            else:
                texts[name] = value if isinstance(value, str) else json.dumps(value)
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self._call("POST", "/api/v1/jobs", files=files, data=texts, headers=headers)
        return answer.json()["id"]

    async def status(self, job: str) -> dict:
        """The job's JobView."""
        return (await self._call("GET", f"/api/v1/jobs/{job}")).json()

    async def cancel(self, job: str) -> None:
        """Stop the job."""
        await self._call("POST", f"/api/v1/jobs/{job}/cancel")

    async def get(self, link: str) -> bytes:
        """The content of one of a JobView's links, such as a chunk or the result."""
        return (await self._call("GET", link)).content
