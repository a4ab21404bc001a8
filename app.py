"""The server: reads the settings, then keeps the web process and the workers running. Importing it does nothing."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys

from dreampose_core.doctor import check_cluster
from dreampose_core.errors import DreamPoseError, InputError
from dreampose_core.jobs.logs import configure
from dreampose_core.jobs.supervisor import Supervisor
from dreampose_core.settings import Settings

_OPTIONS = {
    "host": "address to listen on (default 127.0.0.1; 0.0.0.0 for every network)",
    "port": "port to listen on (default 7860; 0 takes a free one)",
    "model": "a model folder or Hugging Face model id in this project's layout (default: the shipped mini)",
    "workers": "how many jobs run at a time, one a GPU (default 1)",
    "bucket": "a folder that outlives this disk; finished results and subjects are copied to it",
    "home": "folder for jobs and results (default ~/.local/share/dreampose)",
    "device": "where the model runs: auto (default), cpu or cuda",
    "estimator": "what makes DensePose from pictures: body (default), torchscript or none",
    "estimator-file": "a TorchScript export for --estimator torchscript, instead of the one on the hub",
    "estimator-colours": "the channel order that the export wants: bgr (default) or rgb",
}


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return 0 after a clean end, 2 after printing a sentence about a user's mistake."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the workers finish their step
    try:
        settings = _settings(arguments)
        if settings.engine == "ray":
            check_cluster(settings)
        configure(settings.log_format)
        web = (sys.executable, "-m", "dreampose_core.web")
        with (
            _listener(settings.host, settings.port) as listener,
            Supervisor(settings, web=(web, listener.fileno())) as supervisor,
        ):
            supervisor.wait()
            return 2  # the web process has printed why
    except DreamPoseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def _settings(arguments: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(prog="app.py", description="Serves the DreamPose page and runs its jobs.")
    for name, words in _OPTIONS.items():
        parser.add_argument(f"--{name}", help=words)
    given = vars(parser.parse_args(arguments))
    if os.environ.get("SPACE_ID"):
        _on_a_space()
    if given["model"] == "mini":
        given["model"] = None
    return Settings.from_environment(**given)


def _on_a_space() -> None:
    """Set the defaults for a Hugging Face Space: listen on every network, and use storage attached at /data as the
    bucket, because nothing else outlives a restart."""
    os.environ.setdefault("DREAMPOSE_HOST", "0.0.0.0")
    if os.access("/data", os.W_OK):
        os.environ.setdefault("DREAMPOSE_BUCKET", "/data")
    elif not os.environ.get("DREAMPOSE_BUCKET"):
        print(
            "No storage is attached to this Space at /data: videos, and what was learned of people, are lost at a "
            "restart.",
            flush=True,
        )


def _listener(host: str, port: int) -> socket.socket:
    """Return a listening socket, made before any process starts. Raises InputError when the address is unavailable."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InputError(
            f"Cannot listen on {host}, port {port} ({error.strerror}); choose another with --host and --port."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
