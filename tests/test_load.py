"""A few visitors at once on the real server: each is answered, and nothing breaks. Run: scripts/test -m slow
tests/test_load.py

With figures: python -m tests.load --visitors 100
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.load import load

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory is read in /proc")


@pytest.mark.parametrize(("visitors", "seconds"), [(2, 6.0), pytest.param(10, 20.0, marks=pytest.mark.slow)])
def test_visitors_are_answered_and_nothing_breaks(tmp_path, visitors, seconds):
    told = asyncio.run(load(visitors, seconds, tmp_path, after_s=1.0))
    print(json.dumps(told, indent=1))
    assert (told["answers_5xx"], told["failures"]) == (0, {})
    assert told["answered"] == told["submitted"] == visitors
    assert (
        told["counts"]["cancel"] >= (visitors == 10)
        and told["counts"]["poll"] >= visitors
        and told["answers_by_status"].keys() == {200}
    )
