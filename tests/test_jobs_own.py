"""What is a visitor's own: jobs get names and go when they are deleted, people are listed and forgotten, the pace is
remembered."""

from __future__ import annotations

import json

import pytest
from job_worker import GATED
from test_jobs_service import ANNA, BEN, files, open_gate, request, service, wait_for, wait_gated, wait_state, working  # noqa: F401

from dreampose_core.errors import InputError, UnknownJob
from dreampose_core.jobs.records import THINGS, JobFolder, Timings
from dreampose_core.jobs.service import MAX_NAME, _hashed


def test_a_job_has_the_name_that_its_owner_gives(service, files):  # noqa: F811
    job = service.submit(ANNA, request(files))
    assert service.status(ANNA, job).name is None
    service.rename(ANNA, job, "  Anna \n dances ")
    assert service.status(ANNA, job).name == "Anna dances"
    for wrong in ("", " \t", "x" * (MAX_NAME + 1), "a\x00b", "a\u202eb", None, 7):
        with pytest.raises(InputError, match=f"1 to {MAX_NAME} letters"):
            service.rename(ANNA, job, wrong)
    with pytest.raises(UnknownJob):
        service.rename(BEN, job, "mine")
    assert service.status(ANNA, job).name == "Anna dances"


@pytest.mark.parametrize("state", ["queued", "running", "done"])
def test_a_deleted_job_is_gone_with_all_its_files(service, files, state):  # noqa: F811
    job = service.submit(ANNA, request(files, 0 if state == "done" else GATED))
    if state == "done":
        wait_state(service, job, "done")
    else:
        wait_gated(service, job)
    if state == "queued":
        job = service.submit(ANNA, request(files, GATED))
    service.delete(ANNA, job)
    with pytest.raises(UnknownJob):
        service.status(ANNA, job)
    assert job not in [status.id for status in service.jobs(ANNA)]
    with pytest.raises(UnknownJob):
        service.delete(ANNA, job)
    wait_for(lambda: not (service.home / "jobs" / job).exists() and job not in service.store.ids(), "the files to go")
    open_gate(service)
    wait_state(service, service.submit(ANNA, request(files)), "done")  # the worker is free again


def test_a_key_is_free_again_when_its_job_was_deleted(service, files):  # noqa: F811
    job = service.submit(ANNA, request(files), key="once")
    service.delete(ANNA, job)
    again = service.submit(ANNA, request(files), key="once")
    assert again != job and wait_state(service, again, "done")


def test_things_that_can_be_kept_are_those_that_are_there(service, files):  # noqa: F811
    job = service.submit(ANNA, request(files, GATED))
    wait_gated(service, job)
    assert service.status(ANNA, job).things == ()
    open_gate(service)
    status = wait_state(service, job, "done")
    assert status.things == ("video", "frames", "motion")
    folder = JobFolder(service.home / "jobs" / job)
    for thing, name in (("side_by_side", "side_by_side.mp4"), ("gif", "result.gif"), ("settings", "result.json")):
        (folder.path / name).write_bytes(b"x")
        assert folder.thing(thing).name == name
    assert service.status(ANNA, job).things == tuple(THINGS)
    assert folder.thing("photo") == folder.image and folder.thing("first").name == "000000.png"
    assert folder.thing("../../jobs") is None and folder.thing("request") is None
    folder.chunks.mkdir()
    (folder.chunks / "000002.mp4").write_bytes(b"chunk 2")
    assert folder.thing("chunk_000002").read_bytes() == b"chunk 2"
    assert all(
        folder.thing(name) is None
        for name in ("chunk_000009", "chunk_2", "chunk_../chunks/000002", "chunk_00000\u0662")
    )


# -- people ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def subject(service):  # noqa: F811
    """Makes a tuned subject of an owner's as a worker leaves it, and returns its key."""

    def make(owner: str, key: str, poses: bool = True) -> str:
        folder = service.home / "subjects" / _hashed(owner) / key
        folder.mkdir(parents=True)
        (folder / "subject.json").write_text(json.dumps({"recipe": "fast", "seed": 7}))
        (folder / "photo_000.png").write_bytes(b"x" * 500_000)
        if poses:
            (folder / "photo_poses.npz").write_bytes(b"npz")
        return key

    return make


def test_people_are_listed_for_who_brought_them_and_for_nobody_else(service, subject):  # noqa: F811
    keys = [subject(ANNA, "a" * 32), subject(ANNA, "b" * 32, poses=False)]
    more = [service.subject(ANNA, keys[0]).photo.with_name(f"photo_{number:03d}.png") for number in (1, 2, 3)]
    for path in reversed(more):
        path.write_bytes(b"photo")
    subject(BEN, "c" * 32)
    (service.home / "subjects" / _hashed(ANNA) / ("d" * 32)).mkdir()  # one that is being written
    found = {one.key: one for one in service.subjects(ANNA)}
    assert sorted(found) == keys
    first = found["a" * 32]
    assert (first.recipe, first.seed, round(first.size_mb, 1)) == ("fast", 7, 0.5)
    assert first.photo.name == "photo_000.png" and list(first.more) == more
    assert first.photo.is_file() and first.poses.is_file() and found["b" * 32].poses is None
    assert first.whose == f"{_hashed(ANNA)}-{'a' * 32}"
    assert service.subjects("nobody") == []


def test_a_person_is_forgotten_by_who_brought_them_only(service, subject):  # noqa: F811
    key = subject(ANNA, "a" * 32)
    for hostile in (key, "../" + key, "", None):
        with pytest.raises(InputError, match="no such person"):
            service.delete_subject(BEN, hostile)
    service.delete_subject(ANNA, key)
    assert service.subjects(ANNA) == [] and not (service.home / "subjects" / _hashed(ANNA) / key).exists()


def test_a_person_stays_while_a_video_is_made_of_them(service, subject, files):  # noqa: F811
    key = subject(ANNA, "a" * 32)
    job = service.submit(ANNA, request(files, GATED))
    wait_gated(service, job)
    with pytest.raises(InputError, match="being made right now"):
        service.delete_subject(ANNA, key)
    open_gate(service)
    wait_state(service, job, "done")
    service.delete_subject(ANNA, key)


# -- how long it takes -------------------------------------------------------------------------------------------------


def result(learning: float | None = 40.0, frame: float | None = 0.1, model: str = "m", **options) -> dict:
    seconds = {"frames": 9.0} | ({} if learning is None else {"tuning": learning})
    return {
        "model": model,
        "options": {"recipe": "fast", "quality": "draft", "steps": None} | options,
        "seconds": seconds,
        "seconds_per_frame": frame,
    }


def test_the_pace_is_the_median_of_the_last_jobs(tmp_path):
    timings = Timings(tmp_path)
    assert timings.of("fast", "draft") == (None, None)
    for learning in (40.0, 2.0, 41.0):  # the second was found, or resumed
        timings.add(result(learning), "cpu, fp32")
    assert timings.of("fast", "draft") == (40.0, 0.1)
    assert timings.of("paper", "best") == (None, None)
    for _ in range(Timings.LAST):
        timings.add(result(None, 0.3), "cpu, fp32")
    assert timings.of("fast", "draft") == (40.0, 0.3)


def test_steps_of_ones_own_say_nothing_of_a_quality_and_another_device_is_begun_anew(tmp_path):
    timings = Timings(tmp_path)
    timings.add(result(steps=99, frame=9.0), "cpu")
    assert timings.of("fast", "draft").frame_s is None
    timings.add(result(), "cpu")
    timings.add(result(frame=None, model="another"), "cpu")
    assert timings.of("fast", "draft") == (40.0, None)
