"""The web door: reads the settings, starts the workers, builds the page and serves it; nothing happens at import."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys

from dreampose_core.doctor import check_cluster
from dreampose_core.errors import DreamPoseError, InputError
from dreampose_core.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM; the exit code: 0 after a clean end, 2 with one sentence for a user's mistake."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        settings = _settings(arguments)
        if settings.engine == "ray":
            check_cluster(settings)
        _serve(settings, _listener(settings.host, settings.port))
    except DreamPoseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def _settings(arguments: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(prog="app.py", description="Serves the DreamPose page and runs its jobs.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1; 0.0.0.0 for every network)")
    parser.add_argument("--port", type=int, help="port to listen on (default 7860; 0 takes a free one)")
    parser.add_argument(
        "--model", help="a model folder or Hugging Face model id in this project's layout (default: the shipped mini)"
    )
    parser.add_argument("--workers", type=int, help="how many jobs run at a time, one a GPU (default 1)")
    parser.add_argument(
        "--bucket", help="a folder that outlives this disk; finished results and subjects are copied to it"
    )
    parser.add_argument("--home", help="folder for jobs and results (default ~/.local/share/dreampose)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the model runs (default auto)")
    parser.add_argument(
        "--estimator", choices=("body", "torchscript", "none"), help="what makes DensePose from pictures (default body)"
    )
    parser.add_argument(
        "--estimator-file", help="a TorchScript export for --estimator torchscript, instead of the one on the hub"
    )
    parser.add_argument(
        "--estimator-colours", choices=("bgr", "rgb"), help="the channel order that the export wants (default bgr)"
    )
    given = vars(parser.parse_args(arguments))
    if os.environ.get("SPACE_ID"):
        _on_a_space()
    if given["model"] == "mini":
        given["model"] = None
    return Settings.from_environment(**given)


def _on_a_space() -> None:
    """On a Hugging Face Space the port is the outside's, and nothing but an attached bucket outlives a restart."""
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
    """A bound socket, before anything else is started; raises InputError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InputError(
            f"Cannot listen on {host}, port {port} ({error.strerror}); choose another with --host and --port."
        ) from error


def _serve(settings: Settings, listener: socket.socket) -> None:
    # read by gradio when it is imported: no calls home, and visitors' uploads stay in the data folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(settings.home.expanduser().absolute() / "uploads")
    from dreampose_core.jobs.logs import configure
    from dreampose_core.jobs.service import JobService

    configure(settings.log_format)
    service = JobService(settings)
    try:
        service.start()  # the workers load the model while the page is being built
        import uvicorn

        from dreampose_core.web.server import build_app

        app = build_app(settings, service)
        # Pages that are open keep their connection; that they lose it at the end is no error.
        logging.getLogger("uvicorn.error").addFilter(
            lambda record: "graceful shutdown exceeded" not in record.getMessage()
        )
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", timeout_graceful_shutdown=2, server_header=False
        )
        host, port = listener.getsockname()[:2]
        print(f"DreamPose is at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)  # it listens already
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        service.stop()


def _leave(signal_number: int, frame: object) -> None:
    """SIGTERM ends the program the way Ctrl-C does, so that the workers are stopped and finish their step."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
