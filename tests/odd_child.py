"""A child process for tests that is confined as the decoding one is, and then tells of itself or misbehaves, as the
request asks."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time

import dreampose_core.jobs.decoding  # noqa: F401  so that what is told of the modules is true of the decoding child
from dreampose_core.jobs.sandbox import Channel, serve
from dreampose_core.media.ffmpeg import ffmpeg

LIMITS = ("AS", "CPU", "FSIZE", "NOFILE", "CORE")


def misbehave(asked: dict, channel: Channel) -> None:
    match asked:
        case {"do": "tell"}:
            channel.say(
                {
                    "environment": dict(os.environ),
                    "modules": sorted(sys.modules),
                    "folder": os.getcwd(),
                    "path": sys.path,
                    "limits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in LIMITS},
                    "open": [number for number in range(64) if _is_open(number)],
                }
            )
        case {"do": "connect", "port": port}:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                channel.say({"connected": True})
            except OSError as error:
                channel.say({"connected": False, "why": str(error)})
        case {"do": "reach", "read": read, "write": write}:
            for ask in (
                lambda: open(read).read(),
                lambda: os.listdir(os.path.dirname(read)),
                lambda: open(write, "w").close(),
            ):
                try:
                    ask()
                    channel.say({"reached": True})
                except OSError as error:
                    channel.say({"reached": False, "why": str(error)})
        case {"do": "wait"}:
            channel.say({"waiting": True})
            time.sleep(999)
        case {"do": "wait for ffmpeg"}:
            channel.say({"waiting": True})
            with ffmpeg(["-re", "-f", "lavfi", "-i", "testsrc=d=999", "-f", "null", "-"], limited=True) as run:
                run.finish()
        case {"do": "compute"}:
            while True:
                pass
        case {"do": "allocate"}:
            hoard = []
            while True:
                hoard.append(bytearray(1 << 24))
        case {"do": "write"}:
            with open("large", "wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        case {"do": "open"}:
            kept = []
            while True:
                kept.append(open("/dev/null"))
        case {"do": "signal", "number": number}:
            os.kill(os.getpid(), number)
        case {"do": "leave"}:
            os._exit(3)
        case {"do": "raise"}:
            raise RuntimeError("a decoder stumbled")
        case {"do": "print"}:
            print("a library's chatter", flush=True)
            os.write(1, b"and more of it\n")
            channel.say({"said": True})
        case {"do": "say", "text": text}:
            os.write(channel._out.fileno(), text.encode())


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
        return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(serve(misbehave))
