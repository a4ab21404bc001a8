"""Whose turn it is on a pool of models: fair, first come first served, and nothing is held by who is silent. Without
ray."""

from __future__ import annotations

import random
from collections import Counter

from dreampose_core.cluster.turns import Lease, Turns


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pool(models: int, clock: Clock | None = None) -> Turns:
    turns = Turns(lease_s=15, clock=clock or Clock())
    for number in range(models):
        turns.add(f"model {number}")
    return turns


def models(leases: list[Lease]) -> list[str]:
    return sorted(lease.model for lease in leases)


def test_one_job_gets_all_that_is_free_but_no_more_than_it_can_use():
    turns = pool(3)
    assert models(turns.ask("d", "a", "anna", "", 2)) == ["model 0", "model 1"]
    assert len(turns.ask("d", "a", "anna", "", 5)) == 3
    assert turns.ask("d", "a", "anna", "", 0) == [] and turns.valid() == {}


def test_a_job_that_comes_gets_its_share_as_the_other_finishes_batches():
    turns = pool(4)
    held = turns.ask("d", "a", "anna", "", 100)
    assert len(held) == 4 and turns.ask("e", "b", "ben", "", 100) == []
    for _ in range(8):
        held = turns.ask("d", "a", "anna", "", 100, [held[0].number])
        assert len(held) >= 2
    assert len(held) == 2 and len(turns.ask("e", "b", "ben", "", 100)) == 2


def test_the_owner_with_less_is_next():
    turns = pool(2)
    turns.ask("d", "a", "anna", "", 1)
    first = turns.ask("d", "b", "anna", "", 1)
    assert turns.ask("d", "c", "anna", "", 1) == turns.ask("e", "x", "ben", "", 1) == []
    turns.ask("d", "b", "anna", "", 0, [first[0].number])
    assert turns.ask("d", "c", "anna", "", 1) == [] and len(turns.ask("e", "x", "ben", "", 1)) == 1


def test_who_waits_has_what_another_gives_back_at_once_and_need_not_ask_again():
    clock = Clock()
    turns = pool(2, clock)
    first, second = turns.ask("d", "a", "anna", "", 9)
    assert turns.ask("e", "b", "ben", "", 9) == []
    turns.ask("d", "a", "anna", "", 9, [first.number])
    assert models(turns.leases("b")) == [first.model]
    turns.ask("d", "a", "anna", "", 0)
    assert models(turns.leases("b")) == ["model 0", "model 1"] and turns.leases("a") == []
    turns.add("model 2")
    assert len(turns.leases("b")) == 3
    assert turns.ask("f", "c", "cleo", "", 1) == []
    clock.now = 10
    turns.renew("f")
    clock.now = 20
    turns.expire()
    assert len(turns.leases("c")) == 1 and turns.leases("b") == []


def test_who_waits_longest_is_first_among_equals_and_keeps_its_place_by_asking_again():
    turns = pool(1)
    held = turns.ask("d", "a", "anna", "", 9)
    for _ in range(3):
        assert turns.ask("e", "b", "ben", "", 1) == turns.ask("f", "c", "cleo", "", 1) == []
    assert turns.ask("d", "a", "anna", "", 9, [held[0].number]) == []
    b = turns.ask("e", "b", "ben", "", 1)
    assert len(b) == 1
    turns.ask("e", "b", "ben", "", 0, [b[0].number])
    assert len(turns.ask("f", "c", "cleo", "", 1)) == 1


def test_a_model_that_carries_the_subject_is_preferred():
    turns = pool(3)
    held = {lease.model: lease for name in ("ada", "bo", "cy") for lease in turns.ask("d", name, name, name, 1)}
    for name, model in (("ada", "model 0"), ("bo", "model 1"), ("cy", "model 2")):
        turns.ask("d", name, name, name, 0, [held[model].number])
    assert models(turns.ask("d", "new", "x", "bo", 1)) == ["model 1"]


def test_the_silent_lose_what_they_hold_and_renewing_keeps_it():
    clock = Clock()
    turns = pool(1, clock)
    held = turns.ask("d", "a", "anna", "", 1)
    clock.now = 10
    turns.renew("d")
    clock.now = 20
    assert turns.ask("e", "b", "ben", "", 1) == [] and turns.valid() == {"model 0": held[0].number}
    clock.now = 26
    other = turns.ask("e", "b", "ben", "", 1)
    assert other[0].number > held[0].number and turns.valid() == {"model 0": other[0].number}


def test_another_driver_of_the_same_job_makes_the_leases_of_the_first_void():
    turns = pool(2)
    before = turns.ask("dead", "a", "anna", "", 2)
    after = turns.ask("alive", "a", "anna", "", 2)
    assert len(after) == 2 and min(lease.number for lease in after) > max(lease.number for lease in before)


def test_what_was_released_late_or_twice_harms_nobody():
    turns = pool(1)
    held = turns.ask("d", "a", "anna", "", 1)
    turns.remove("model 0")
    assert turns.ask("d", "a", "anna", "", 0) == []
    turns.add("model 0")
    other = turns.ask("e", "b", "ben", "", 1)
    assert turns.ask("d", "a", "anna", "", 1, [held[0].number, held[0].number]) == []
    assert turns.valid() == {"model 0": other[0].number}


def test_twenty_jobs_of_five_owners_leave_no_model_idle_and_share_fairly():
    """A simulated pool of four in which a batch takes one tick; each owner has four jobs of mixed lengths."""
    draw, turns = random.Random(0), pool(4)
    left = {f"{owner} {number}": draw.randint(3, 40) for owner in range(5) for number in range(4)}
    total, ticks, served = sum(left.values()), 0, Counter()
    held = {job: [] for job in left}
    while any(left.values()):
        for job in [job for job in left if left[job] or held[job]]:
            held[job] = turns.ask(f"driver {job}", job, job.split()[0], "", left[job])
        assert sum(map(len, held.values())) == min(4, sum(left.values())), "a model is idle while work waits"
        done = [(job, lease) for job, leases in held.items() for lease in leases]
        draw.shuffle(done)  # batches do not end in the same order each time
        for job, lease in done:
            left[job] -= 1
            if all(left.values()):
                served[job.split()[0]] += 1
            turns.ask(f"driver {job}", job, job.split()[0], "", left[job], [lease.number])
        ticks += 1
    assert ticks <= -(-total // 4) + 3
    assert len(served) == 5 and max(served.values()) - min(served.values()) <= 6
