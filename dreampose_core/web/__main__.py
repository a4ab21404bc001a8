"""The web process, `python -m dreampose_core.web --listener FD --parent PID`; app.py starts and restarts it.

Settings come from the environment (DREAMPOSE_*).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time

from ..errors import DreamPoseError
from ..jobs.logs import configure
from ..jobs.service import JobService
from ..settings import Settings


def main() -> int:
    """Serve until SIGTERM; return 0 after a clean end, 2 after printing a sentence about a user's mistake."""
    parser = argparse.ArgumentParser(prog="python -m dreampose_core.web", description=__doc__.splitlines()[0])
    parser.add_argument("--listener", type=int, required=True, help="descriptor of a socket that listens")
    parser.add_argument("--parent", type=int, required=True, help="leave when this process is no longer the parent")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    threading.Thread(target=_leave_with, args=[args.parent], name="parent", daemon=True).start()
    try:
        settings = Settings.from_environment()
        configure(settings.log_format)
        # Gradio reads these when it is imported: no telemetry, and uploads stay in the data folder.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(settings.home / "uploads")
        import uvicorn

        from .server import build_app

        with JobService(settings) as service, socket.socket(fileno=args.listener) as listener:
            app = build_app(service)
            # Open pages keep a connection; closing it at shutdown is no error.
            logging.getLogger("uvicorn.error").addFilter(
                lambda record: "graceful shutdown exceeded" not in record.getMessage()
            )
            config = uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                timeout_graceful_shutdown=2,
                server_header=False,
                root_path=settings.root_path,
            )
            host, port = listener.getsockname()[:2]
            print(f"DreamPose is at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
            uvicorn.Server(config).run(sockets=[listener])
    except DreamPoseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
