"""Estimated motions kept by content: found again, told apart, thrown out when damaged."""

from __future__ import annotations

import numpy as np

from dreampose_core.jobs.pose_cache import PoseCache
from dreampose_core.poses import PoseSequence, Reading

READING = Reading(
    PoseSequence(np.ones((2, 4, 3), np.uint8), None, "none", 12.0), "estimated from a video", ("One.", "Two.")
)


def test_a_reading_is_found_by_content_and_way(tmp_path):
    kept = PoseCache(tmp_path / "readings")
    for name, content in (("a.mp4", b"one"), ("b.mp4", b"one"), ("c.mp4", b"two")):
        (tmp_path / name).write_bytes(content)
    key = kept.key(tmp_path / "a.mp4", "mini")
    assert key == kept.key(tmp_path / "b.mp4", "mini")
    assert len({key, kept.key(tmp_path / "c.mp4", "mini"), kept.key(tmp_path / "a.mp4", "torchscript")}) == 3
    assert kept.get(key) is None
    kept.keep(key, READING)
    found = kept.get(key)
    assert np.array_equal(found.poses.parts, READING.poses.parts) and found.poses.fps == 12
    assert (found.form, found.notices) == (READING.form, READING.notices)


def test_a_damaged_one_is_none(tmp_path):
    kept = PoseCache(tmp_path)
    for part in ("npz", "json"):
        kept.keep("k", READING)
        (tmp_path / f"k.{part}").write_bytes(b"{}")
        assert kept.get("k") is None
