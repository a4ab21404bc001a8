"""Pictures of pose maps: the same colours alone and over a photo, and nothing of the whole held twice."""

from __future__ import annotations

import numpy as np
import pytest

from dreampose_core.poses import PoseSequence, render_colours
from dreampose_core.poses.colours import overlay


def sequence(kind: str) -> PoseSequence:
    rng = np.random.default_rng(0)
    parts = rng.integers(0, 25, (3, 20, 16)).astype(np.uint8)
    uv = ((0.1 + 0.9 * rng.random((3, 2, 20, 16))) * (parts > 0)[:, None]).astype(np.float16)
    known = {"parts": (parts, None, "none"), "both": (parts, uv, "densepose"), "uv": (None, uv, "densepose")}[kind]
    return PoseSequence(*known)


@pytest.mark.parametrize("kind", ["parts", "both", "uv"])
@pytest.mark.parametrize("opacity", [0.0, 0.6, 1.0])
def test_the_person_is_laid_over_the_photo_and_the_rest_is_the_photo(kind, opacity):
    poses = sequence(kind)
    photo = np.random.default_rng(1).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    before = photo.copy()
    frames = list(overlay(photo, poses, opacity))
    assert len(frames) == 3 and all(frame.dtype == np.uint8 and frame.shape == photo.shape for frame in frames)
    for frame, colours, mask in zip(frames, render_colours(poses), poses.mask):
        assert (frame[~mask] == photo[~mask]).all()
        wanted = opacity * colours[mask].astype(float) + (1 - opacity) * photo[mask]
        assert np.abs(frame[mask] - wanted).max() <= 0.51
    assert (photo == before).all()


def test_low_u_and_v_are_darker():
    parts = np.full((1, 2, 2), 7, np.uint8)
    uv = np.stack([np.full((2, 2), 0.0), np.array([[0.1, 0.9], [0.1, 0.9]])])[None].astype(np.float16)
    picture = render_colours(PoseSequence(parts, uv, "densepose"))[0].astype(int).sum(axis=-1)
    assert (picture[:, 0] < picture[:, 1]).all()


@pytest.mark.parametrize(
    "photo", [np.zeros((20, 17, 3), np.uint8), np.zeros((20, 16, 3), np.float32), np.zeros((20, 16), np.uint8)]
)
def test_a_photo_of_another_size_is_a_mistake_of_the_caller(photo):
    with pytest.raises(ValueError, match="the maps need uint8"):
        overlay(photo, sequence("both"))
