"""What the operating system says of this process, and how it is ranked there."""

from __future__ import annotations

import os
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path


def most_memory_mb() -> float:
    """The most memory in MB that this process has held so far."""
    try:
        # getrusage counts in what the parent held when this process was started
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    except OSError:
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def give_way(nice: int) -> None:
    """Lets processes of a lower niceness go first, also those of other sessions. nice: 0 to 19, at least what was inherited is taken.

    Linux shares processors out between sessions first (autogroup), so in a session of its own a process's niceness says nothing to others.
    """
    nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with suppress(OSError):  # another system, no autogroups, or asked for by too many at once
        Path("/proc/self/autogroup").write_text(str(nice))
