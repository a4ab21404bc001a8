"""The job store: claims, fences, leases, attempts, cancels, places. Run: .venv/bin/pytest tests/test_jobs_store.py"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading

import pytest

from dreampose_core.errors import InputError, LostClaim, StorageError, UnknownJob
from dreampose_core.jobs.records import Limits
from dreampose_core.jobs.store import GIVEN_UP, LEASE_S, MAX_ATTEMPTS, Store, storage_error
from dreampose_core.jobs.worker import MAX_LOSSES, with_loss
from dreampose_core.progress import Progress

OWNER = "anna"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    store = Store(tmp_path / "jobs.sqlite3", clock=clock)
    yield store
    store.close()


def add(store: Store, *ids: str) -> None:
    for job_id in ids:
        store.add(job_id, OWNER, "{}", Limits(100))


def on_device(store: Store, *ids: str) -> None:
    """Adds jobs that have passed the light lane."""
    add(store, *ids)
    for job_id in ids:
        claim = store.claim("light", "light-1")
        assert claim.id == job_id
        store.advance(claim, "device")


def places(store: Store) -> dict[str, int]:
    return {job.id: job.place for job in store.jobs_of(OWNER)}


def test_a_job_passes_both_lanes_in_order_of_submission(store):
    add(store, "a", "b")
    assert store.claim("device", "device-1") is None
    first = store.claim("light", "light-1")
    assert (first.id, first.fence) == ("a", 1)
    store.advance(first, "device", ("checked",))
    claim = store.claim("device", "device-1")
    assert (claim.id, claim.fence) == ("a", 2)
    assert store.claim("device", "device-2") is None  # b is still in the light lane
    store.record(claim, Progress("frames", 1, 2, 3.5, None), ((1, 0.5),))
    job = store.get(OWNER, "a")
    assert (job.state, job.progress, job.losses) == ("running", Progress("frames", 1, 2, 3.5, None), ((1, 0.5),))
    store.finish(claim, ("slow",))
    job = store.get(OWNER, "a")
    assert (job.state, job.notices, job.error) == ("done", ("checked", "slow"), None)


def test_places_count_down_and_skip_what_has_started_or_ended(store):
    on_device(store, "a", "b")
    add(store, "c")
    assert places(store) == {"c": 3, "b": 2, "a": 1}
    claim = store.claim("device", "device-1")
    assert places(store) == {"c": 2, "b": 1, "a": 0}
    store.interrupt(claim)
    assert places(store) == {"c": 2, "b": 1, "a": 0}, "an interrupted job has started; those behind it do not move back"
    store.cancel(OWNER, "b")
    assert places(store) == {"c": 1, "b": 0, "a": 0}


def test_every_write_of_a_stale_claim_is_refused_and_changes_nothing(store, clock):
    on_device(store, "a")
    stale = store.claim("device", "frozen")
    clock.now += LEASE_S + 1
    assert store.recover() == ["frozen"]
    writes = [
        lambda: store.renew(stale),
        lambda: store.record(stale, Progress("frames", 9, 9), ()),
        lambda: store.cancel_asked(stale),
        lambda: store.advance(stale, "device"),
        lambda: store.finish(stale),
        lambda: store.fail(stale, "no", "input"),
        lambda: store.interrupt(stale),
    ]
    for holder in (None, store.claim("device", "next")):
        before = store.get(OWNER, "a"), store.pulse("a")
        for write in writes:
            with pytest.raises(LostClaim):
                write()
        assert (store.get(OWNER, "a"), store.pulse("a")) == before, holder
    store.finish(holder)
    assert holder.fence == stale.fence + 1
    for write in writes:
        with pytest.raises(LostClaim):
            write()
    assert store.get(OWNER, "a").state == "done"


def test_a_lease_holds_as_long_as_it_is_renewed(store, clock):
    on_device(store, "a")
    claim = store.claim("device", "device-1")
    for _ in range(3):
        clock.now += LEASE_S - 1
        assert store.recover() == []
        store.renew(claim)
    clock.now += LEASE_S - 1
    store.record(claim, Progress("frames", 1, 9), ())  # progress is a heartbeat, too
    clock.now += LEASE_S - 1
    assert store.recover() == []
    clock.now += 2
    assert store.recover() == ["device-1"]
    assert store.get(OWNER, "a").state == "interrupted"
    assert store.claim("device", "device-2").id == "a"


def test_a_dead_worker_loses_its_job_before_the_lease_ends(store):
    on_device(store, "a", "b")
    store.claim("device", "dies")
    store.claim("device", "lives")
    assert store.recover(dead=["dies"]) == ["dies"]
    assert [store.get(OWNER, job).state for job in "ab"] == ["interrupted", "running"]
    assert store.recover(dead=["dies"]) == []


def test_three_attempts_without_a_new_step_give_the_job_up(store):
    on_device(store, "a")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert store.get(OWNER, "a").state in ("queued", "interrupted")
        store.claim("device", "dies")
        store.recover(dead=["dies"])
        assert (store.get(OWNER, "a").state == "failed") == (attempt == MAX_ATTEMPTS)
    assert store.get(OWNER, "a").error == GIVEN_UP
    assert store.claim("device", "next") is None


def test_new_steps_clear_the_count_and_repeated_steps_do_not(store):
    on_device(store, "a")
    for step in range(1, 8):  # each attempt gets one step further
        claim = store.claim("device", "dies")
        store.record(claim, Progress("frames", step, 9), ())
        store.recover(dead=["dies"])
    for _ in range(MAX_ATTEMPTS):
        assert store.get(OWNER, "a").state == "interrupted"
        claim = store.claim("device", "dies")
        store.record(claim, Progress("loading", 0, 1), ())
        store.record(claim, Progress("frames", 7, 9), ())
        store.recover(dead=["dies"])
    assert store.get(OWNER, "a").state == "failed"


def test_orderly_interruptions_never_give_a_job_up(store):
    on_device(store, "a")
    for _ in range(3 * MAX_ATTEMPTS):
        store.interrupt(store.claim("device", "leaves"))
    store.claim("device", "dies")
    store.recover(dead=["dies"])
    assert store.get(OWNER, "a").state == "interrupted", "only one attempt was fruitless"
    store.finish(store.claim("device", "stays"))
    assert store.get(OWNER, "a").state == "done"


@pytest.mark.parametrize("ending", ["finish", "fail", "interrupt", "advance", "recover"])
def test_an_accepted_cancel_wins_over_however_the_worker_ends(store, ending):
    on_device(store, "a")
    claim = store.claim("device", "device-1")
    assert not store.cancel_asked(claim)
    store.cancel(OWNER, "a")
    assert store.get(OWNER, "a").state == "cancelling"
    assert store.cancel_asked(claim)
    store.renew(claim)  # the worker may take its time
    {
        "finish": lambda: store.finish(claim),
        "fail": lambda: store.fail(claim, "broken", "input"),
        "interrupt": lambda: store.interrupt(claim),
        "advance": lambda: store.advance(claim, "device"),
        "recover": lambda: store.recover(dead=["device-1"]),
    }[ending]()
    assert store.get(OWNER, "a").state == "cancelled"
    assert store.claim("device", "device-1") is None


def test_cancelling_ends_what_nobody_works_on_and_leaves_final_states(store, clock):
    on_device(store, "a", "b")
    add(store, "c")
    store.interrupt(store.claim("device", "device-1"))
    for job in "abc":
        store.cancel(OWNER, job)
        assert store.get(OWNER, job).state == "cancelled"
        pulse = store.pulse(job)
        store.cancel(OWNER, job)
        assert store.pulse(job) == pulse
    on_device(store, "d")
    store.finish(store.claim("device", "device-1"))
    store.cancel(OWNER, "d")
    assert store.get(OWNER, "d").state == "done"
    on_device(store, "e")
    store.claim("device", "device-1")
    store.cancel(OWNER, "e")
    clock.now += 3
    store.cancel(OWNER, "e")
    assert store.cancelling() == {"device-1": 3.0}, "asking twice does not restart the grace period"


def test_unknown_and_foreign_jobs_give_one_text(store):
    add(store, "a")
    texts = set()
    for action in (store.get, store.cancel):
        for owner, job in ((OWNER, "b"), ("ben", "a"), ("ben", "b")):
            with pytest.raises(UnknownJob) as error:
                action(owner, job)
            texts.add(str(error.value))
    assert len(texts) == 1
    assert store.get(OWNER, "a").state == "queued"
    assert store.jobs_of("ben") == []


def test_a_key_is_one_job_per_owner(store):
    assert store.add("a", OWNER, "{}", Limits(9), key="k") == "a"
    assert store.add("b", OWNER, "{}", Limits(9), key="k") == "a"
    assert store.add("c", "ben", "{}", Limits(9), key="k") == "c"
    assert store.add("d", OWNER, "{}", Limits(9)) == "d"
    assert store.add("e", OWNER, "{}", Limits(9)) == "e"
    assert store.find_key(OWNER, "k") == "a"
    assert [job.id for job in store.jobs_of(OWNER)] == ["e", "d", "a"]


def test_a_full_queue_refuses_in_one_sentence(store):
    on_device(store, "a", "b")
    store.claim("device", "device-1")
    store.add("c", OWNER, "{}", Limits(2))
    with pytest.raises(InputError, match="The queue is full \\(2 jobs are waiting\\)"):
        store.add("d", OWNER, "{}", Limits(2))
    store.cancel(OWNER, "b")
    store.add("d", OWNER, "{}", Limits(2))


def test_the_pulse_beats_exactly_when_something_changed(store):
    on_device(store, "a", "b")
    seen = [store.pulse("b")]
    claim = store.claim("device", "device-1")  # a starts, so b moves up
    seen.append(store.pulse("b"))
    assert seen[1] != seen[0]
    store.renew(claim)
    store.record(claim, Progress("frames", 1, 2), ())
    assert store.pulse("b") == seen[1]
    before = store.pulse("a")
    store.renew(claim)
    assert store.pulse("a") == before, "a heartbeat is nothing to look at"
    store.record(claim, Progress("frames", 2, 2), ())
    assert store.pulse("a") != before


def test_equal_submits_at_the_same_time_are_one_job(store):
    ids = []
    threads = [threading.Thread(target=lambda i=i: ids.append(store.add(f"job{i}", OWNER, "{}", Limits(999), key="k"))) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 50
    assert len(set(ids)) == 1
    assert len(store.jobs_of(OWNER)) == 1


CLAIM_ALL = """
import sys, threading
from pathlib import Path
from dreampose_core.jobs.records import Limits
from dreampose_core.jobs.store import Store
store = Store(Path(sys.argv[1]))
input()  # until all are ready
def claim_all(name):
    while claim := store.claim("light", name):
        sys.stdout.write(f"{claim.id} {claim.fence}\\n")  # in one piece, so that threads do not mix
        store.fail(claim, "taken", "input")
threads = [threading.Thread(target=claim_all, args=(f"{sys.argv[2]}-{i}",)) for i in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
"""


def test_processes_and_threads_that_race_claim_each_job_once(tmp_path):
    path = tmp_path / "jobs.sqlite3"
    # All open the new file at the same moment, too.
    racers = [
        subprocess.Popen([sys.executable, "-c", CLAIM_ALL, path, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    store = Store(path)
    ids = [f"job{i}" for i in range(60)]
    add(store, *ids)
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    claimed = [line for racer in racers for line in racer.communicate(timeout=120)[0].split("\n") if line]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert sorted(claimed) == sorted(f"{job_id} 1" for job_id in ids)
    store.close()


def test_jobs_survive_reopening_and_other_schemas_are_refused(tmp_path):
    store = Store(tmp_path / "jobs.sqlite3")
    add(store, "a")
    store.close()
    store = Store(tmp_path / "jobs.sqlite3")
    assert store.get(OWNER, "a").state == "queued"
    store.close()
    with pytest.raises(StorageError, match="cannot be used"):
        store.get(OWNER, "a")
    db = sqlite3.connect(tmp_path / "jobs.sqlite3")
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(StorageError, match="schema 7"):
        Store(tmp_path / "jobs.sqlite3")
    (tmp_path / "other.sqlite3").write_bytes(b"no database " * 1000)
    with pytest.raises(StorageError, match=r"other\.sqlite3 cannot be used"):
        Store(tmp_path / "other.sqlite3")


def test_a_full_disk_is_one_sentence_and_the_store_goes_on(tmp_path):
    store = Store(tmp_path / "jobs.sqlite3")
    add(store, "a")
    store._db.execute(f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StorageError, match="disk is full"):
        store.add("b", OWNER, "x" * 100_000, Limits(9))
    assert [job.id for job in store.jobs_of(OWNER)] == ["a"]
    assert store.claim("light", "light-1").id == "a"
    store.close()


def test_only_errors_about_the_disk_become_storage_errors():
    import errno

    assert storage_error(OSError(errno.ENOSPC, "full"))
    assert storage_error(OSError(errno.ENOENT, "gone")) is None
    assert storage_error(ValueError("disk is full")) is None


def test_the_loss_curve_is_thinned_evenly_and_cut_back_by_a_restart():
    losses = ()
    for step in range(1, 5001):
        losses = with_loss(losses, step, 1 / step)
    steps = [step for step, _ in losses]
    assert MAX_LOSSES / 2 <= len(steps) <= MAX_LOSSES
    assert len({b - a for a, b in zip(steps, steps[1:], strict=False)}) == 1
    assert steps[0] == 1
    assert steps[-1] > 5000 - 2 * (steps[1] - steps[0])
    back = with_loss(losses, 1000, 0.5)
    assert max(step for step, _ in back) <= 1000
    assert with_loss(losses, 1, 7.0) == ((1, 7.0),)
