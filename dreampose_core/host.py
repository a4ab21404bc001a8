"""What the operating system says of this process."""

from __future__ import annotations

import re
import resource
import sys
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
