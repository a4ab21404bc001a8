"""A child process for tests that is confined as the decoding one is, and then runs the code that the request holds."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time

import dreampose_core.jobs.decoding  # noqa: F401  so that what is told of the modules is true of the decoding child
from dreampose_core.jobs.sandbox import Say, serve
from dreampose_core.media.ffmpeg import ffmpeg

KNOWN = {"os": os, "resource": resource, "socket": socket, "sys": sys, "time": time, "ffmpeg": ffmpeg}


def misbehave(asked: dict, say: Say) -> None:
    exec(asked["code"], KNOWN | {"say": say})


if __name__ == "__main__":
    sys.exit(serve(misbehave))
