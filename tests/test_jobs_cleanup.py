"""What expires, what nobody knows of, what is too much, and what the bucket gives back. Run: .venv/bin/pytest
tests/test_jobs_cleanup.py"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from test_jobs_store import Clock, room

from dreampose_core.files import lock_file
from dreampose_core.jobs.cleanup import GRACE_S, Bucket, Cleanup, size_of
from dreampose_core.jobs.store import Store
from dreampose_core.jobs.supervisor import living
from dreampose_core.settings import Settings

ANNA, BEN = "a" * 64, "b" * 64
HOUR, DAY = 3600.0, 86400.0


@pytest.fixture
def clock():
    return Clock(time.time())


@pytest.fixture
def home(tmp_path):
    for name in ("jobs", "subjects"):
        (tmp_path / "home" / name).mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def store(home, clock):
    store = Store(home / "jobs.sqlite3", clock=clock)
    yield store
    store.close()


def cleanup(store: Store, home: Path, clock: Clock, **settings) -> Cleanup:
    return Cleanup(store, Settings(home=home, **settings), clock)


def job(store: Store, home: Path, number: int, kind: str = "animate", state: str = "done", size: int = 1000) -> str:
    """A job with files; the fence is of no matter here."""
    job_id = f"{number:032x}"
    store.add(job_id, ANNA, json.dumps({"kind": kind}), room(1000), kind=kind)
    claim = store.claim("light", "light-1")
    if state == "done" and kind == "animate":
        store.advance(claim)
        claim = store.claim("device", "device-1")
    if state == "done":
        store.finish(claim, ("A sentence.",))
    folder = home / "jobs" / job_id
    (folder / "frames").mkdir(parents=True)
    (folder / "frames" / "000000.png").write_bytes(b"x" * size)
    (folder / "result.mp4").write_bytes(b"mp4 of " + job_id.encode())
    (folder / "result.json").write_text("{}")
    return job_id


def subject(root: Path, owner: str, number: int, size: int = 1000) -> Path:
    folder = root / "subjects" / owner / f"{number:032x}"
    folder.mkdir(parents=True)
    (folder / "unet_lora.safetensors").write_bytes(b"w" * size)
    (folder / "subject.json").write_text("{}")
    return folder


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_results_and_previews_go_when_their_time_is_over_and_what_is_not_finished_stays(store, home, clock):
    old, preview, motion = job(store, home, 1), job(store, home, 2, kind="preview"), job(store, home, 5, kind="motion")
    running = job(store, home, 3, state="running")
    clock.now += 2 * HOUR
    tidy = cleanup(store, home, clock)
    tidy.sweep()
    assert store.ids() == {old, running} and not any((home / "jobs" / gone).exists() for gone in (preview, motion))
    clock.now += 68 * HOUR
    new = job(store, home, 4)
    tidy.sweep()
    assert store.ids() == {old, running, new}
    clock.now += 3 * HOUR
    tidy.sweep()
    assert store.ids() == {running, new}
    assert sorted(path.name for path in (home / "jobs").iterdir()) == [running, new]
    assert cleanup(store, home, clock, keep_results_h=0.5).sweep() is None and store.ids() == {running}


def test_what_no_job_knows_and_what_was_half_written_goes_after_an_hour(store, home, clock):
    known, person = job(store, home, 1), subject(home, ANNA, 1)
    left = [
        home / "jobs" / ("d" * 32),
        person.with_name(".part.77.half"),
        home / "jobs" / known / "frames" / ".part.77.000001.png",
    ]
    for folder in left[:2]:
        folder.mkdir()
        (folder / "adapter.safetensors").write_bytes(b"half")
    left[2].write_bytes(b"half")
    cleanup(store, home, clock).sweep()
    assert all(path.exists() for path in left)  # another process may be writing
    for path in (*left, home / "jobs" / known):
        age(path, GRACE_S + 60)
    cleanup(store, home, clock).sweep()
    assert not any(path.exists() for path in left)
    assert (home / "jobs" / known / "frames" / "000000.png").exists() and (person / "subject.json").exists()


def test_subjects_go_when_nobody_used_them_for_long(store, home, clock):
    used, unused = subject(home, ANNA, 1), subject(home, BEN, 2)
    age(used / "subject.json", 29 * DAY)
    age(unused / "subject.json", 31 * DAY)
    cleanup(store, home, clock).sweep()
    assert used.exists() and not unused.exists()


def test_files_that_are_not_needed_go(store, home, clock):
    """Uploads, files of requests whose server died, and estimates."""
    old = {"uploads/abc/photo.png": 7, "incoming/old/photo/a.png": 2, "readings/1.npz": 73}  # hours
    new = ["incoming/new/photo/a.png", "readings/2.npz", "uploads/def/photo.png"]
    for name in (*old, *new):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x")
    for name, hours in old.items():
        age(home / name, hours * HOUR)
    cleanup(store, home, clock).sweep()
    folders = (home / "incoming", home / "readings", home / "uploads")
    left = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    assert left == [home / name for name in new]
    assert (home / "uploads/abc").exists()  # empty, and another process may be about to write there
    age(home / "uploads/abc", 7 * HOUR)
    cleanup(store, home, clock).sweep()
    assert not (home / "uploads/abc").exists()


def test_too_much_makes_the_oldest_results_go_first_and_then_subjects(store, home, clock):
    jobs, people = [], [subject(home, ANNA, number, 500_000) for number in range(2)]
    for number in range(4):
        jobs.append(job(store, home, number, size=1_000_000))
        clock.now += 1
    running = job(store, home, 9, state="running", size=1_000_000)
    age(people[1] / "subject.json", 2 * HOUR)
    (home / "uploads").mkdir()
    (home / "uploads" / "photo.png").write_bytes(bytes(1_000_000))
    age(home / "uploads" / "photo.png", 2 * HOUR)
    base = size_of(home) / 1e9 - 0.001  # what is at work does not count: others cannot make room for it
    cleanup(store, home, clock, max_disk_gb=base).sweep()
    assert store.ids() == {*jobs, running} and (home / "uploads" / "photo.png").exists()
    cleanup(store, home, clock, max_disk_gb=base - 0.0009).sweep()
    assert store.ids() == {*jobs, running} and not (home / "uploads" / "photo.png").exists()
    cleanup(store, home, clock, max_disk_gb=base - 0.0025).sweep()
    assert store.ids() == {*jobs[2:], running} and all(folder.exists() for folder in people)
    cleanup(store, home, clock, max_disk_gb=base - 0.0052).sweep()
    assert store.ids() == {running} and people[0].exists() and not people[1].exists()
    assert (home / "jobs" / running / "frames" / "000000.png").exists()
    cleanup(store, home, clock, max_disk_gb=1e-9).sweep()
    assert people[0].exists()  # it was used a moment ago: a worker may be about to load it


def test_too_many_subjects_of_one_owner_go_and_nobody_elses(store, home, clock):
    hers, his = [subject(home, ANNA, number, 600_000) for number in range(3)], subject(home, BEN, 9, 600_000)
    for number, folder in enumerate((*hers, his)):
        age(folder / "subject.json", (10 - number) * HOUR)
    cleanup(store, home, clock, max_own_mb=1).sweep()
    assert [folder.exists() for folder in (*hers, his)] == [False, False, True, True]


def test_uploads_of_jobs_that_ended_with_their_worker_go(store, home, clock):
    poison, running = job(store, home, 1, state="running"), job(store, home, 2, state="running")
    for one in (poison, running):
        (home / "jobs" / one / "input").mkdir()
        (home / "jobs" / one / "input" / "upload-image.png").write_bytes(b"hostile")
    store.cancel(ANNA, poison)
    store._db.rows("UPDATE jobs SET worker = 'light-2' WHERE id = ? RETURNING 1", poison)
    store.recover(dead=["light-2"])
    cleanup(store, home, clock).sweep()
    assert list((home / "jobs" / poison / "input").iterdir()) == []
    assert (home / "jobs" / running / "input" / "upload-image.png").exists()


def test_what_was_deleted_at_work_goes_once_it_has_ended(store, home, clock):
    running, tidy = job(store, home, 1, state="running"), cleanup(store, home, clock)
    store.disown(ANNA, running)
    tidy.remove_unwanted()
    assert (home / "jobs" / running).exists()
    store.recover(dead=["light-1"])  # as when the server ended in between
    tidy.remove_unwanted()
    assert not (home / "jobs" / running).exists() and not store.ids()


def test_a_restart_on_an_empty_disk_finds_results_and_subjects_in_the_bucket(home, clock, tmp_path):
    store = Store(home / "jobs.sqlite3", clock=clock)
    done = job(store, home, 5)
    job(store, home, 2, state="running"), job(store, home, 3, kind="preview")
    clock.now += 1
    later = job(store, home, 4)
    person = subject(home, ANNA, 7)
    bucket = Bucket(tmp_path / "bucket", home)
    bucket.keep(store)
    bucket.keep(store)  # nothing new
    shown = store.get(ANNA, done)
    store.close()
    shutil.rmtree(home)
    (home / "jobs").mkdir(parents=True)
    store = Store(home / "jobs.sqlite3", clock=clock)
    bucket.restore(store)
    bucket.restore(store)
    assert store.get(ANNA, done) == shown
    assert [one.id for one in store.jobs_of(ANNA)] == [later, done], "in their order, and no others"
    assert (home / "jobs" / done / "result.mp4").read_bytes() == b"mp4 of " + done.encode()
    bucket.bring_subject(BEN, person.name)
    bucket.bring_subject(ANNA, "0" * 32)
    assert not person.exists()
    bucket.bring_subject(ANNA, person.name)
    assert sorted(path.name for path in person.iterdir()) == ["subject.json", "unet_lora.safetensors"]
    assert store.ids() == {done, later}
    store.close()


def test_what_is_removed_goes_from_the_bucket_too(store, home, clock, tmp_path):
    tidy = cleanup(store, home, clock, bucket=tmp_path / "bucket")
    done, person = job(store, home, 1), subject(home, ANNA, 7)
    tidy.bucket.keep(store)
    there = tmp_path / "bucket" / "subjects" / ANNA / person.name
    assert (tmp_path / "bucket" / "jobs" / done / "result.mp4").exists() and there.exists()
    clock.now += 73 * HOUR
    tidy.sweep()
    assert not (tmp_path / "bucket" / "jobs" / done).exists() and there.exists()
    age(person / "subject.json", 31 * DAY)
    age(there / "subject.json", 31 * DAY)
    clock.now = time.time()
    tidy.sweep()
    assert not person.exists() and not there.exists()


def test_a_bucket_that_is_away_or_holds_nonsense_stops_nothing(store, home, clock, tmp_path):
    blocked, done = job(store, home, 2), job(store, home, 1)
    (tmp_path / "file").write_text("no folder")
    away = Bucket(tmp_path / "file" / "bucket", home)
    subject(home, ANNA, 7)
    away.keep(store)
    assert len(store.unkept()) == 2
    away.restore(store)
    away.bring_subject(ANNA, "0" * 32)
    bucket, jobs = Bucket(tmp_path / "bucket", home), tmp_path / "bucket" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / blocked).write_text("in its place")
    bucket.keep(store)
    assert [one["id"] for one in store.unkept()] == [blocked], "one that cannot be kept keeps no other from it"
    for digit, text in (("e", "[]"), ("f", '{"id": "%s", "owner": ["list"]}' % ("f" * 32)), ("0", "no json")):
        (jobs / (digit * 32)).mkdir()
        (jobs / (digit * 32) / "job.json").write_text(text)
    shutil.copytree(jobs / done, jobs / ("9" * 32))  # says that it is another one
    shutil.rmtree(home / "jobs")
    (home / "jobs").mkdir()
    told = json.loads((jobs / done / "job.json").read_text())
    for digit, change in (("7", {"losses": "nonsense"}), ("8", {"finished": None}), ("6", {"notices": "[1]"})):
        shutil.copytree(jobs / done, jobs / (digit * 32))
        (jobs / (digit * 32) / "job.json").write_text(json.dumps(told | {"id": digit * 32} | change))
    fresh = Store(home / "fresh.sqlite3", clock=clock)
    bucket.restore(fresh)
    assert fresh.ids() == {done} and [one.id for one in fresh.jobs_of(ANNA)] == [done]
    fresh.close()


def test_the_bucket_hears_that_a_subject_is_used(store, home, clock, tmp_path):
    bucket, person = Bucket(tmp_path / "bucket", home), subject(home, ANNA, 7)
    age(person / "subject.json", 40 * DAY)
    bucket.keep(store)
    age(person / "subject.json", 1 * DAY)
    bucket.keep(store)
    shutil.rmtree(person)
    Bucket(tmp_path / "bucket", home).forget_subjects(time.time() - 30 * DAY)
    assert (tmp_path / "bucket" / "subjects" / ANNA / person.name / "subject.json").exists()


def test_a_lock_is_held_as_long_as_its_process_lives(tmp_path):
    assert living(tmp_path) == {}
    folder = tmp_path / "workers"
    folder.mkdir()
    (folder / "light-9").write_text("of a dead one")
    with lock_file(folder / "device-1") as file:
        assert living(tmp_path) == {"device-1": {}}, "it has said nothing yet"
        file.write('{"queue": "device"}')
        file.flush()
        assert living(tmp_path) == {"device-1": {"queue": "device"}}
        assert not (folder / "light-9").exists()
    assert living(tmp_path) == {}
