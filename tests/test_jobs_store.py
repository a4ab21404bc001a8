"""The job store: claims, fences, leases, attempts, cancels, places. Run: .venv/bin/pytest tests/test_jobs_store.py"""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from dataclasses import dataclass

import pytest

from dreampose_core.errors import InputError, LostClaim, StorageError
from dreampose_core.jobs.database import storage_error
from dreampose_core.jobs.store import GIVEN_UP, LEASE_S, MAX_ATTEMPTS, MAX_PAUSES, Store
from dreampose_core.jobs.worker import Attempt
from dreampose_core.progress import Progress
from dreampose_core.settings import Settings

OWNER = "anna"


def room(max_queue: int, max_own: int = 1000, workers: int = 1) -> Settings:
    return Settings(home="/", max_queue=max_queue, max_own=max_own, workers=workers)


@dataclass
class Clock:
    now: float = 1000.0

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


def add(store: Store, *ids: str, owner: str = OWNER) -> None:
    for job_id in ids:
        store.add(job_id, owner, "{}", room(100))


def on_device(store: Store, *ids: str) -> None:
    """Adds jobs that have passed the light queue."""
    add(store, *ids)
    for job_id in ids:
        claim = store.claim("light", "light-1")
        assert claim.id == job_id
        store.advance(claim)


def places(store: Store, *owners: str) -> dict[str, int]:
    return {job.id: job.place for owner in owners or (OWNER,) for job in store.jobs_of(owner)}


def test_a_job_passes_both_queues_in_order_of_submission(store):
    add(store, "a", "b")
    assert store.claim("device", "device-1") is None
    first = store.claim("light", "light-1")
    assert (first.id, first.fence) == ("a", 1)
    store.advance(first, ("checked",))
    claim = store.claim("device", "device-1")
    assert (claim.id, claim.fence) == ("a", 2)
    assert store.claim("device", "device-2") is None  # b is still in the light queue
    store.record(claim, Progress("frames", 1, 2, 3.5, None), ((1, 0.5),))
    job = store.get(OWNER, "a")
    assert (job.state, job.progress, job.losses) == ("running", Progress("frames", 1, 2, 3.5, None), (0.5,))
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
        lambda: store.advance(stale),
        lambda: store.finish(stale),
        lambda: store.fail(stale, "no", "input"),
        lambda: store.interrupt(stale),
    ]
    for holder in (None, store.claim("device", "next")):
        before = store.get(OWNER, "a")
        for write in writes:
            with pytest.raises(LostClaim):
                write()
        assert (store.get(OWNER, "a")) == before, holder
    assert holder.fence == stale.fence + 1


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
    assert store.recover(dead=["dies"]) == ["dies"] and store.recover(dead=["dies"]) == []
    assert [store.get(OWNER, job).state for job in "ab"] == ["interrupted", "running"]


def test_three_attempts_without_a_new_step_give_the_job_up(store):
    on_device(store, "a")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert store.get(OWNER, "a").state in ("queued", "interrupted")
        store.claim("device", "dies")
        store.recover(dead=["dies"])
        assert (store.get(OWNER, "a").state == "failed") == (attempt == MAX_ATTEMPTS)
    job = store.get(OWNER, "a")
    assert (job.error, job.code, store.ended()) == (GIVEN_UP, "crash_loop", ["a"])
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
    assert store.get(OWNER, "a").state == "cancelling" and store.cancel_asked(claim)
    store.renew(claim)  # the worker may take its time
    given = {"recover": (["device-1"],), "fail": (claim, "broken", "input")}.get(ending, (claim,))
    getattr(store, ending)(*given)
    assert store.get(OWNER, "a").state == "cancelled"
    assert store.claim("device", "device-1") is None


def test_cancelling_ends_what_nobody_works_on_and_leaves_final_states(store, clock):
    on_device(store, "a", "b")
    add(store, "c")
    store.interrupt(store.claim("device", "device-1"))
    for job in "abc":
        store.cancel(OWNER, job)
        assert store.get(OWNER, job).state == "cancelled"
        before = store.get(OWNER, job)
        store.cancel(OWNER, job)
        assert store.get(OWNER, job) == before
    on_device(store, "d")
    store.finish(store.claim("device", "device-1"))
    store.cancel(OWNER, "d")
    assert store.get(OWNER, "d").state == "done"
    on_device(store, "e")
    store.claim("device", "device-1")
    store.cancel(OWNER, "e")
    clock.now += 3
    store.cancel(OWNER, "e")
    assert store.holders() == {"device-1": 3.0}, "asking twice does not restart the grace period"


CLAIM_ALL = """
import sys, threading
from pathlib import Path
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
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, path, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
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
    store._db.rows(f"PRAGMA max_page_count = {store._db.rows('PRAGMA page_count')[0][0]}")
    with pytest.raises(StorageError, match="disk is full"):
        store.add("b", OWNER, "x" * 100_000, room(9))
    assert [job.id for job in store.jobs_of(OWNER)] == ["a"]
    assert store.claim("light", "light-1").id == "a"
    store.close()


def test_only_errors_about_the_disk_become_storage_errors():
    assert storage_error(OSError(errno.ENOSPC, "full"))
    assert storage_error(OSError(errno.ENOENT, "gone")) is None
    assert storage_error(ValueError("disk is full")) is None


def test_what_a_stage_reported_is_stored_before_the_next_begins(store):
    """A worker that is killed between two heartbeats must not take a finished stage's losses with it."""
    add(store, "a")
    attempt = Attempt(store, store.claim("light", "light-1"), lambda: False)
    for step in (1, 2, 3):
        attempt.on_progress(Progress("tuning", step, 3, loss=1 / step))
    assert store.get(OWNER, "a").losses == ()
    attempt.on_progress(Progress("frames", 1, 8))
    job = store.get(OWNER, "a")
    assert job.losses == (1, 1 / 2, 1 / 3) and job.progress.stage == "tuning"
    attempt.on_progress(Progress("tuning", 2, 3, loss=0.25))
    attempt.beat()
    assert store.get(OWNER, "a").losses == (1, 0.25), "a restart cuts the curve back"


def submitted(store: Store, ids: str) -> None:
    """Adds jobs; the first letter of an id is its owner."""
    for job_id in ids.split():
        add(store, job_id, owner=job_id[0])


def test_owners_take_turns_and_places_say_so(store):
    submitted(store, "a1 a2 a3 b1 b2 c1")
    assert places(store, *"abc") == {"a1": 1, "b1": 2, "c1": 3, "a2": 4, "b2": 5, "a3": 6}
    checked = [store.claim("light", "light-1") for _ in range(6)]
    assert [claim.id for claim in checked] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    for claim in checked:
        store.advance(claim)
    served = []
    for number in range(6):
        claim = store.claim("device", "device-1")
        served.append(claim.id)
        store.finish(claim)
        if number == 1:  # comes behind those who were there before, and before those who were served since
            submitted(store, "d1")
            store.advance(store.claim("light", "light-1"))
    assert served == ["a1", "b1", "c1", "a2", "b2", "d1"]


def test_who_was_served_before_does_not_wait_for_all_who_come_after(store):
    submitted(store, "a0")
    store.finish(store.claim("light", "light-1"))
    submitted(store, "a1")
    served = []
    for newcomer in ("b1", "c1"):
        submitted(store, newcomer)
        served.append(store.claim("light", "light-1").id)
    assert "a1" in served


def test_what_was_interrupted_goes_on_before_others_begin(store, clock):
    submitted(store, "a1 b1 a2")
    store.pause(store.claim("light", "light-1"), "There is no room.")
    job = store.get("a", "a1")
    assert (job.state, job.error) == ("interrupted", "There is no room.")
    assert store.claim("light", "light-1").id == "b1"  # a1 pauses
    clock.now += 10
    assert (store.claim("light", "light-1").id, store.get("a", "a1").error) == ("a1", None)


def test_a_job_that_never_finds_room_waits_longer_and_longer_and_ends(store, clock):
    add(store, "a")
    waits = []
    while store.get(OWNER, "a").state != "failed":
        store.pause(store.claim("light", "light-1"), "No room.")
        waits.append(store._db.rows("SELECT not_before FROM jobs")[0][0] - clock.now)
        clock.now += waits[-1] - 1
        assert store.claim("light", "light-1") is None
        clock.now += 1
    job = store.get(OWNER, "a")
    assert (job.code, job.error, store.ended()) == ("storage", "No room.", ["a"])
    assert waits[:3] == [10, 20, 40] and max(waits) == 600 and len(waits) == MAX_PAUSES + 1


def test_a_new_step_ends_the_count_of_pauses(store, clock):
    add(store, "a")
    for _ in range(2):
        store.pause(store.claim("light", "light-1"), "No room.")
        clock.now += 600
    claim = store.claim("light", "light-1")
    store.record(claim, Progress("frames", 1, 2), ())
    store.pause(claim, "No room.")
    assert store._db.rows("SELECT not_before FROM jobs")[0][0] == clock.now + 10
    store.cancel(OWNER, "a")
    assert (store.get(OWNER, "a").state, store.get(OWNER, "a").error) == ("cancelled", None)


def test_an_owner_has_only_so_many_at_work(store):
    submitted(store, "a1 a2 b1")
    assert [store.claim("light", f"light-{i}", max_active=1).id for i in range(2)] == ["a1", "b1"]
    assert store.claim("light", "light-3", max_active=1) is None
    store.finish(store.claim("light", "light-3", max_active=2))  # a2
    assert store.claim("light", "light-3", max_active=2) is None


def test_an_owner_has_only_so_many_jobs_and_previews_count_apart(store):
    def submit(job_id, owner=OWNER, kind="animate", settings=room(100, max_own=2)):  # noqa: B008
        return store.add(job_id, owner, "{}", settings, kind=kind)

    for job_id, kind in zip("abcd", ("animate", "animate", "preview", "motion")):
        submit(job_id, kind=kind)
    for kind in ("animate", "preview", "motion"):  # the latter two count together
        with pytest.raises(InputError, match="2 of your jobs are not finished"):
            submit("e", kind=kind)
    submit("e", "ben")
    store.cancel(OWNER, "a")
    submit("f")
    with pytest.raises(InputError, match="The queue is full"):
        submit("g", "cleo", settings=room(3))
    submit("g", "cleo", "preview", room(3))


def test_a_full_queue_says_how_long_it_takes(store, clock):
    on_device(store, "a", "b")
    for seconds in (60, 120):
        claim = store.claim("device", "device-1")
        clock.now += seconds
        store.finish(claim)
    add(store, "c", "d", "e", "f")
    for workers, words in ((1, "about 6 minutes"), (3, "about 2 minutes"), (6, "about a minute")):
        with pytest.raises(InputError, match=f"4 jobs are waiting.*{words}"):
            store.admit("ben", "animate", room(4, workers=workers))


def test_the_end_of_a_job_has_its_time_and_its_code(store, clock):
    def ended() -> dict:
        return {row["id"]: row["finished"] for row in store._db.rows("SELECT id, finished FROM jobs")}

    add(store, "a", "b", "c", "d", "e")
    claims = {claim.id: claim for claim in (store.claim("light", f"light-{i}") for i in range(4))}
    assert set(ended().values()) == {None}
    clock.now = 2000.0
    store.finish(claims["a"])
    store.fail(claims["b"], "broken", "input")
    store.cancel(OWNER, "c")  # at work: not ended yet
    store.cancel(OWNER, "e")
    store.interrupt(claims["d"])
    assert ended() == {"a": 2000, "b": 2000, "c": None, "d": None, "e": 2000}
    assert store.get(OWNER, "b").code == "input"
    clock.now = 2001.0
    store.interrupt(claims["c"])
    assert (ended()["c"], store.get(OWNER, "c").state) == (2001, "cancelled")
    assert store.ended() == ["a", "b", "e", "c"] and store.ended(before=2001) == ["a", "b", "e"]
    assert store.ended("preview") == []
    assert not store.forget("d") and store.forget("a") and not store.forget("a")
    assert store.ids() == {"b", "c", "d", "e"}
    store.cancel(OWNER, "d")
    assert all(store.forget(job) for job in "bcde") and not store._db.rows("SELECT 1 FROM turns")
