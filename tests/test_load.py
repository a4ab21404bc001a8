"""A few visitors at once on the real server: each is answered, and nothing breaks. Run: scripts/test -m slow tests/test_load.py

With figures: python -m tests.load --visitors 100
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.load import load

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory is read in /proc")


@pytest.mark.slow
def test_ten_visitors_are_answered_and_nothing_breaks(tmp_path):
    told = asyncio.run(load(10, 20.0, tmp_path))
    print(json.dumps(told, indent=1))
    assert (told["answers_5xx"], told["failures"]) == (0, {})
    assert told["answered"] == told["submitted"] == 10
    assert told["counts"]["cancel"] >= 1 and told["counts"]["poll"] >= 10 and told["answers_by_status"].keys() == {200}
