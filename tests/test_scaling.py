"""Jobs from submit to MP4 over Ray, by the real store and workers, with frames that wait. Run: .venv/bin/pytest
tests/test_scaling.py

With figures: python -m tests.scaling --json FILE
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
sys.path.insert(0, str(Path(__file__).parent))  # as the nodes find slow_model

from tests import scaling


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_no_finished_frame_and_a_cancel_frees_the_nodes():
    with scaling.bench(2, 1) as bench:
        job = bench.submit("anna", 40)
        folder = bench.service.home / "jobs" / job / "frames"
        scaling.wait_for(lambda: len(list(folder.glob("[0-9]*.png"))) >= 8, "the first frames")
        for pid in bench.service.worker_pids()["device"]:
            os.kill(pid, signal.SIGKILL)
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*.png")}
        bench.wait_done("anna", job)
        assert len(list(folder.iterdir())) == 40 and kept == {path: path.stat().st_mtime_ns for path in kept}
        assert scaling.cancel_s(bench, 2) < scaling.WAIT_S


@pytest.mark.slow
def test_more_nodes_are_as_much_faster_and_owners_take_turns(tmp_path):
    file = tmp_path / "scaling.json"
    scaling.main(["--json", str(file)])
    told = json.loads(file.read_text())
    print(json.dumps(told, indent=1))
    assert told["efficiency_4"] > 0.8 and told["idle_share"] < 0.2
    most, least, each = told["spread"]
    assert most == each and least > each / 2
