"""The real server as a process, and the page's own HTTP calls as a browser makes them: what the chaos and the load run
share."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from dreampose_core.settings import REPOSITORY

APP = (str(REPOSITORY / "app.py"),)
START_S = 180.0  # the most that a start may take before it counts as failed
_LINK = re.compile(r"results/[0-9a-f]{32}/video/[\w.-]+\?expires=\d+&(?:amp;)?signature=[0-9a-f]+")


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
        self.process: asyncio.subprocess.Process | None = None
        self.workers_seen: set[int] = set()
        self._arguments = ("--port", "0", "--model", str(model), "--device", "cpu", "--estimator", estimator)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DREAMPOSE_")}
        own = {"DREAMPOSE_HOME": home, "OMP_NUM_THREADS": num_threads, "HF_HUB_OFFLINE": 1}
        own |= {f"DREAMPOSE_{name.upper()}": value for name, value in settings.items()}
        self._environment = kept | {name: str(value) for name, value in own.items()}

    @property
    def pid(self) -> int:
        return self.process.pid

    async def start(self) -> float:
        """Starts it and waits until the page can be had; returns the moment (`time.time`) at which its process
        began."""
        began = time.time()
        with open(self.log_file, "a") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._program,
                *self._arguments,
                cwd=REPOSITORY,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        line = await asyncio.wait_for(self.process.stdout.readline(), START_S)
        found = re.search(rb"http://127\.0\.0\.1:\d+", line)
        if found is None:
            raise RuntimeError(f"the server did not start:\n{self.log_file.read_text()[-3000:]}")
        self.url = found[0].decode()
        return began

    def workers(self) -> dict[str, int]:
        """The process id of each queue's worker that is a child of this server, by queue."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError, ValueError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) != self.pid:
                    continue
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"--queue" in words:
                    found[words[words.index(b"--queue") + 1].decode()] = int(folder.name)
        self.workers_seen.update(found.values())
        return found

    async def kill(self) -> None:
        """SIGKILL to the web process alone; returns when it is gone."""
        self.workers()
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """As Ctrl-C ends it."""
        if self.process is not None and self.process.returncode is None:
            self.workers()
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 60)
            except TimeoutError:
                await self.kill()

    async def leftovers(self, within_s: float = 40.0) -> list[int]:
        """Workers that outlive all their servers for `within_s` seconds; they are ended here."""
        deadline = time.monotonic() + within_s
        while (left := [pid for pid in self.workers_seen if alive(pid)]) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        for pid in left:
            kill(pid)
        return left


class Layout:
    """Which event of the page has which number, and what its fields are called; the same for every visitor."""

    def __init__(self, config: dict):
        self.components = {component["id"]: component for component in config["components"]}
        by_id = {c["props"].get("elem_id"): c["id"] for c in config["components"] if c["props"].get("elem_id")}
        self.ids = by_id
        self._dependencies = config["dependencies"]
        self.open = self._event("load", lambda d: len(d["inputs"]) == 1)
        self.run = self._event("click", target=by_id["dp-run"])
        self.stop = self._event("click", target=by_id["dp-stop"])
        self.watch = self._event("change", lambda d: d["backend_fn"], target=by_id["dp-job"])
        self.refresh = self._event("tick")
        self.live = self.watch["outputs"].index(by_id["dp-live"])
        self.card = self.watch["outputs"].index(by_id["dp-status"])

    def _event(self, name: str, suits=lambda dependency: True, target: int | None = None) -> dict:
        for dependency in self._dependencies:
            if suits(dependency) and any(n == name and target in (None, i) for i, n in dependency["targets"]):
                return dependency
        raise LookupError(f"the page has no event {name}")

    def form(self, browser: dict, fields: dict) -> list:
        """What Run sends. fields: values by elem_id or by label; the others keep what the page shows at first."""
        values = []
        for number in self.run["inputs"]:
            component = self.components[number]
            props, kind = component["props"], component["type"]
            names = (props.get("elem_id"), props.get("label"))
            chosen = [fields[name] for name in names if name in fields]
            values.append(browser if kind == "browserstate" else chosen[0] if chosen else props.get("value"))
        return values


class Page:
    """One open page of one visitor. `owner`: the token that their browser keeps."""

    def __init__(self, client: httpx.AsyncClient, url: str, owner: str | None = None, layout: Layout | None = None):
        self.client, self.url, self.layout = client, url, layout
        self.browser = {"owner": owner or secrets.token_urlsafe(32), "job": None}
        self.session = secrets.token_hex(6)

    async def open(self, layout: Layout | None = None) -> None:
        """Loads the page and lets it find its place; `layout` where it is known already."""
        (await self.client.get(self.url + "/")).raise_for_status()
        self.layout = layout or Layout((await self.client.get(self.url + "/config")).raise_for_status().json())
        await self.call(self.layout.open, [self.browser])

    async def call(self, event: dict, data: list) -> list:
        """What an event that is answered at once gives."""
        body = {
            "data": data,
            "fn_index": event["id"],
            "session_hash": self.session,
            "trigger_id": event["targets"][0][0],
        }
        answer = await self.client.post(self.url + "/gradio_api/run/predict", json=body)
        return answer.raise_for_status().json()["data"]

    async def upload(self, path: Path) -> dict:
        """The file as the page's fields name it from then on."""
        answer = await self.client.post(
            self.url + "/gradio_api/upload", files={"files": (path.name, path.read_bytes())}
        )
        return {
            "path": answer.raise_for_status().json()[0],
            "orig_name": path.name,
            "meta": {"_type": "gradio.FileData"},
        }

    async def submit(self, fields: dict) -> tuple[str | None, str]:
        """The new job and "", or None and the sentence beside the button."""
        browser, job, message = await self.call(self.layout.run, self.layout.form(self.browser, fields))
        if not isinstance(job, str):
            return None, re.sub(r"<[^>]+>", "", message)
        self.browser = browser
        return job, ""

    async def poll(self, job: str) -> str | None:
        """Asks how the job stands, as the page does to renew its link; the link once the job is done."""
        told = (await self.call(self.layout.refresh, [self.browser, job]))[0]
        link = _LINK.search(told) if isinstance(told, str) else None
        return link[0].replace("&amp;", "&") if link else None

    async def stop(self, job: str) -> str:
        """Presses Stop; the sentence that is shown, "" when it was accepted."""
        return (await self.call(self.layout.stop, [self.browser, job]))[0]

    async def watch(self, job: str) -> AsyncIterator[str]:
        """Every message of the page's watch of `job`, as the text of its data, until the watch ends."""
        body = {"data": [self.browser, job], "fn_index": self.layout.watch["id"], "session_hash": self.session}
        body["trigger_id"] = self.layout.watch["targets"][0][0]
        (await self.client.post(self.url + "/gradio_api/queue/join", json=body)).raise_for_status()
        data = self.client.stream("GET", self.url + "/gradio_api/queue/data", params={"session_hash": self.session})
        async with data as lines:
            lines.raise_for_status()
            async for line in lines.aiter_lines():
                if line.startswith("data: "):
                    yield line[6:]
                    if json.loads(line[6:])["msg"] in ("process_completed", "close_stream"):
                        return

    async def heartbeat(self) -> None:
        """Stays open as long as the page does."""
        async with self.client.stream("GET", f"{self.url}/gradio_api/heartbeat/{self.session}") as lines:
            async for _ in lines.aiter_lines():
                pass
