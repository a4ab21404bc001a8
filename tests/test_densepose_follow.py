"""Following one person through frames of detections: who is chosen, crossings, gaps, crowds and nonsense boxes."""

from __future__ import annotations

import numpy as np
import pytest

from dreampose_core.densepose.follow import PATIENCE, Detection, followed
from dreampose_core.errors import InputError


def at(x: float, y: float = 50, width: float = 40, height: float = 100, score: float = 0.9, who: str = "") -> Detection:
    """A detection whose box is centred on (x, y)."""
    return Detection((x - width / 2, y - height / 2, x + width / 2, y + height / 2), score, who)


def shuffled(frames: list[list[Detection]]) -> list[list[Detection]]:
    """The same with each frame's detections in an order that says nothing."""
    rng = np.random.default_rng(0)
    return [[frame[i] for i in rng.permutation(len(frame))] for frame in frames]


def names(frames: list[list[Detection]], person: int | None = None) -> list[str | None]:
    found = followed(frames, person)
    assert len(found) == len(frames)
    return [None if i is None else frame[i].payload for frame, i in zip(frames, found)]


def test_the_larger_of_two_is_followed_and_the_other_on_demand():
    frames = shuffled([[at(100 + t, who="small", height=80), at(300 - t, who="large", height=150)] for t in range(30)])
    assert names(frames) == names(frames, 1) == ["large"] * 30
    assert names(frames, 2) == ["small"] * 30
    for person in (0, 3, -1):
        with pytest.raises(InputError, match=rf"Person {person} .* 2 people are seen .* from 1 to 2\.$"):
            followed(frames, person)


def test_no_person_anywhere_and_a_single_picture():
    assert followed([[], [], []]) == [None] * 3 and followed([]) == []
    with pytest.raises(InputError, match="no person is seen"):
        followed([[], []], 1)
    assert followed([[at(10), at(50, height=200), at(90)]]) == [1]
    assert followed([[at(10, height=90), at(50, height=200), at(90, height=50)]], 3) == [2]


def test_two_people_crossing_keep_their_names():
    both = [[at(50 + 6 * t, who="to the right", height=120), at(350 - 6 * t, who="to the left")] for t in range(51)]
    frames = shuffled(both)
    assert names(frames, 1) == ["to the right"] * 51
    assert names(frames, 2) == ["to the left"] * 51


def test_one_hidden_behind_the_other_is_found_again():
    """The one behind is not detected for the frames in which they overlap."""
    frames = [
        [at(50 + 6 * t, who="front", height=120)] + ([] if abs(100 - 4 * t) < 20 else [at(250 - 2 * t, who="behind")])
        for t in range(51)
    ]
    assert names(frames, 1) == ["front"] * 51
    assert set(names(frames, 2)) == {"behind", None}
    assert names(frames, 2)[0] == names(frames, 2)[-1] == "behind"


def test_one_leaves_and_a_short_visit_of_a_larger_person_does_not_count():
    stays = at(100, who="stays")
    frames = [[stays] + [at(300 + 10 * t, who="leaves", height=160)] * (t < 12) for t in range(20)]
    assert names(frames) == ["leaves"] * 12 + [None] * 8
    assert names(frames, 2) == ["stays"] * 20
    frames = [[stays] + [at(300, who="visitor", height=300, width=200)] * (5 <= t < 10) for t in range(20)]
    assert names(frames) == ["stays"] * 20
    with pytest.raises(InputError, match="1 person is seen"):
        followed(frames, 2)


def test_one_large_box_does_not_make_a_large_person():
    """In one frame the arms are spread."""
    frames = [
        [at(100, who="small", height=80, width=200 if t == 3 else 40), at(400, who="large", height=150)]
        for t in range(9)
    ]
    assert names(frames) == ["large"] * 9


def test_flicker_of_detections_leaves_gaps_but_one_person():
    """The person is missed in every third frame, in one of which a speck is at their place; guesses of low score lie
    around, one of them larger and at the same place."""
    frames = []
    for t in range(30):
        person = [] if t % 3 == 2 else [at(100 + 3 * t, who="person")]
        guesses = [at(100 + 3 * t, width=80, height=140, score=0.2, who="guess"), at(10, height=10, who="speck")]
        frames.append(person + guesses)
    frames[5].append(at(115, width=12, height=30, who="speck"))
    assert names(shuffled(frames)) == [None if t % 3 == 2 else "person" for t in range(30)]


@pytest.mark.parametrize(("gap", "at_first", "later"), [(PATIENCE, 100, 110), (40, 100, 600)])
def test_who_is_away_for_a_while_or_for_long_is_one_person(gap, at_first, later):
    frames = [[at(at_first, who="out")]] * 20 + [[]] * gap + [[at(later, who="in")]] * 20
    assert names(frames) == ["out"] * 20 + [None] * gap + ["in"] * 20
    with pytest.raises(InputError, match="1 person is seen"):
        followed(frames, 2)


def test_fast_movement_between_boxes_that_no_longer_touch():
    frames = [[at(45 * t, who="fast"), at(1500, height=20, who="far")] for t in range(20)]
    assert names(frames) == ["fast"] * 20


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ((np.nan, 0, 10, 10), 1.0),
        ((0, 0, np.inf, 10), 1.0),
        ((-np.inf, 0, np.inf, 10), 1.0),
        ((0, 0, 1e300, 1e300), 1.0),
        ((10, 0, 10, 50), 1.0),
        ((50, 50, 10, 10), 1.0),
        ((0, 0, 200, 200), float("nan")),
    ],
)
def test_nonsense_is_never_followed(box, score):
    frames = [[Detection(box, score, "nonsense"), at(100, who="person")] for _ in range(5)]
    assert names(frames) == ["person"] * 5
    assert followed([[Detection(box, score)]]) == [None]


def test_a_crowd():
    """Many more boxes than are looked at, in every frame; the largest is still found."""
    crowd = [at(20 * i, height=50, who=f"{i}") for i in range(200)]
    frames = shuffled([[*crowd, at(100 + t, height=200, who="largest")] for t in range(20)])
    assert names(frames) == ["largest"] * 20
