"""What the system says of a process: its memory, and who goes first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreampose_core.model.memory import most_memory_mb

AUTOGROUP = Path("/proc/self/autogroup")
SAY = """
import os
from dreampose_core.jobs.sandbox import give_way
give_way({nice})
print(os.getpriority(os.PRIO_PROCESS, 0), open("/proc/self/autogroup").read().split()[-1])
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="Linux shares by sessions, where it was built to")
@pytest.mark.parametrize(("before", "asked", "then"), [(0, 10, 10), (15, 10, 15), (7, 0, 7)])
def test_a_session_of_its_own_gives_way_as_a_whole_and_never_less_than_before(before, asked, then):
    here = os.getpriority(os.PRIO_PROCESS, 0)
    command = ["nice", "-n", str(before - here), sys.executable, "-c", SAY.format(nice=asked)]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, start_new_session=True, timeout=60
    ).stdout.split()
    assert said == [str(then), str(then)]


def test_most_memory_is_this_processs_own():
    assert 10 < most_memory_mb() < 100_000
