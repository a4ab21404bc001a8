"""The job service with real worker processes, which die, hang and are cancelled. Run: .venv/bin/pytest
tests/test_jobs_service.py"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from drawn import drawn_clip
from job_worker import AWAY, CRASHES, DEAF, DISK_FULL, FAILS, GATED, REFUSES
from pydantic import ValidationError
from serving import alive
from tiny import make_tiny_model

from dreampose_core.errors import InputError, StorageError, UnknownJob
from dreampose_core.files import lock_file
from dreampose_core.jobs import supervisor
from dreampose_core.jobs.records import FINAL_STATES, JobFolder, JobRequest, JobStatus
from dreampose_core.jobs.service import JobService, _hashed
from dreampose_core.jobs.store import GIVEN_UP, LEASE_S, Store
from dreampose_core.jobs.supervisor import Supervisor, gpu_of, worker_command, worker_environment
from dreampose_core.media import probe_video, read_image, write_png, write_video
from dreampose_core.poses import PoseSequence, read_poses, write_poses
from dreampose_core.settings import AnimateOptions, MotionOptions, Settings
from dreampose_core.synthetic import HELD_OUT

ANNA, BEN = "anna's token", "ben's token"
DEADLINE_S = 90.0
WORKER = (sys.executable, str(Path(__file__).with_name("job_worker.py")))


def command(queue: str) -> tuple[str, ...]:
    return (*WORKER, "--queue", queue)


def no_device(queue: str) -> tuple[str, ...]:
    """A light queue, and a device worker that never gets as far as claiming."""
    return command(queue) if queue == "light" else (sys.executable, "-c", "import time; time.sleep(999)")


@contextmanager
def running(settings: Settings, command=command) -> Iterator[JobService]:
    """A service with its workers, in this process."""
    with JobService(settings) as service, Supervisor(settings, command):
        yield service


def wait_for(condition, what: str, deadline_s: float = DEADLINE_S):
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {deadline_s:.0f} s in vain for: {what}"
        time.sleep(0.05)
    return value


def settings_of(folder: Path, **changes) -> Settings:
    return Settings(**{"home": folder / "home", "estimator": "none", "max_own": 100} | changes)


@pytest.fixture
def settings(tmp_path):
    return settings_of(tmp_path)


@pytest.fixture(scope="module")
def working(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "BACK_OFF_S", 0.2)
        patch.setattr(supervisor, "CANCEL_KILL_AFTER_S", 2.0)
        with running(settings_of(tmp_path_factory.mktemp("service"))) as service:
            yield service


@pytest.fixture(scope="module")
def working_light(tmp_path_factory):
    with running(settings_of(tmp_path_factory.mktemp("light")), no_device) as service:
        yield service


def cleared(service: JobService) -> Iterator[JobService]:
    """The service, which is left without jobs and files."""
    yield service
    (service.home / "gate").unlink(missing_ok=True)
    for owner in (ANNA, BEN):
        for job in service.store.jobs_of(_hashed(owner)):
            service.delete(owner, job.id)
    wait_for(lambda: service._cleanup.remove_unwanted() or not service.store.ids(), "the jobs to go")
    for path in (*(service.home / "subjects").iterdir(), service.home / "readings"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def service(working):
    """A service with its workers, the same for all tests of a file; each begins without jobs and subjects."""
    yield from cleared(working)


@pytest.fixture
def light(working_light):
    """As `service`, with a device worker that never claims."""
    yield from cleared(working_light)


@pytest.fixture
def files(tmp_path):
    """A small photo and motion of four frames."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    write_png(np.full((8, 6, 3), 90, np.uint8), folder / "anna.png")
    write_poses(PoseSequence(np.ones((4, 8, 6), np.uint8), None, "none"), folder / "walk.npz")
    return folder


def request(files: Path, behaviour: int = 0, frames: int = 4, **changes) -> JobRequest:
    """A request that the device queue of job_worker.py understands."""
    options = AnimateOptions(recipe="none", seed=behaviour, steps=frames)
    return JobRequest(**{"image": files / "anna.png", "poses": files / "walk.npz", "options": options, **changes})


def motion_request(**options) -> JobRequest:
    """A motion of eight frames that is made."""
    return JobRequest(kind="motion", motion=MotionOptions(**({"seconds": 1, "fps": 8} | options)))


def stored_request(service: JobService, job: str) -> JobRequest:
    """The request in the store, with the files' names as their owner calls them."""
    [row] = service.store._db.rows("SELECT request FROM jobs WHERE id = ?", job)
    return JobRequest.model_validate_json(row["request"])


def wait_state(service: JobService, job: str, *states: str, owner: str = ANNA) -> JobStatus:
    def reached():
        status = service.status(owner, job)
        if status.state in states:
            return status
        assert status.state not in FINAL_STATES, f"{status.state} instead of {states}: {status.error}"

    return wait_for(reached, f"job {states}")


def watch(service: JobService, job: str, owner: str = ANNA, timeout_s: float = 2 * DEADLINE_S) -> Iterator[JobStatus]:
    """The job's status now and after each change, up to the final one or until the time is over."""
    end, last = time.monotonic() + timeout_s, None
    while time.monotonic() < end and not (last and last.state in FINAL_STATES):
        if (status := service.status(owner, job)) != last:
            yield status
        last = status
        time.sleep(0.05)


def wait_gated(service: JobService, job: str, frames: int = 4) -> JobStatus:
    """Until the job waits in its middle."""
    wait_for(lambda: len(service.status(ANNA, job).frames) == frames // 2, "the middle of the job")
    return service.status(ANNA, job)


def open_gate(service: JobService) -> None:
    (service.home / "gate").touch()


def trace(service: JobService, job: str) -> list[int]:
    """The frames in the order in which they were made."""
    return [int(line) for line in (service.home / "jobs" / job / "trace").read_text().split()]


def device_pid(service: JobService) -> int:
    return wait_for(lambda: service.worker_pids()["device"], "a device worker")[0]


def device_worker(service: JobService) -> subprocess.Popen:
    """One that no supervisor started; in its own session, whose priority it lowers."""
    return subprocess.Popen(command("device"), env=worker_environment(service.settings), start_new_session=True)


def let_leases_run_out(home: Path) -> None:
    """As if LEASE_S seconds had passed for the jobs that are claimed now."""
    store = Store(home / "jobs.sqlite3")
    store._db.rows(
        "UPDATE jobs SET lease_until = lease_until - ? WHERE lease_until IS NOT NULL RETURNING 1", LEASE_S + 1
    )
    store.close()


def test_a_job_from_submit_to_result(service, files):
    poses = PoseSequence(np.full((2, 8, 6), 3, np.uint8), None, "none")
    write_poses(poses, files / "anna.npz")
    job = service.submit(ANNA, request(files, image_poses=files / "anna.npz"))
    for name in ("anna.png", "walk.npz", "anna.npz"):
        (files / name).unlink()  # the caller may delete them at once
    seen = list(watch(service, job))
    last = seen[-1]
    assert (seen[0].state, seen[0].place) == ("queued", 1)
    assert (last.state, last.place, last.error, last.notices) == ("done", 0, None, ("A sentence about a fall-back.",))
    assert len(last.frames) == 4 and last.frames == tuple(sorted(last.frames))
    assert last.losses == (1.0, 1 / 2, 1 / 3)
    assert (last.progress.stage, last.progress.step, last.progress.total) == ("frames", 4, 4)
    assert last.result.read_bytes() == b"video"
    folder = JobFolder(service.home / "jobs" / job)
    assert {path.name for path in folder.input.iterdir()} == {"image.png", "image_poses.npz", "poses.npz"}
    assert (read_image(last.request.image) == 90).all()
    assert len(read_poses(last.request.poses)) == 4
    assert len(read_poses(last.request.image_poses)) == 1, "the photo's own map is one map"
    assert last.request.options.steps == 4
    assert last.title == "anna-walk"
    assert [status.id for status in service.jobs(ANNA)] == [job]
    assert list(watch(service, job)) == [last], "watching what has ended gives the end"


def test_a_preview_is_made_in_the_light_queue_and_not_listed(light, files):
    job = light.submit(ANNA, request(files, kind="preview", image_poses=files / "walk.npz"))
    *_, last = watch(light, job)
    assert (last.state, last.kind, last.error) == ("done", "preview", None)
    info = probe_video(last.result)
    assert info.num_frames == 4 and info.width == 3 * 240, "photo, motion, colours of the parts"
    assert last.notices[0] == "The motion: 4 frames at 30 fps, 8 x 6, pose file (npz), parts only."
    assert any("instant preview" in notice for notice in last.notices)
    assert light.jobs(ANNA) == []
    with pytest.raises(UnknownJob):
        light.status(BEN, job)
    alone = light.submit(ANNA, request(files, kind="preview", image=None))
    *_, last = watch(light, alone)
    assert last.state == "done" and probe_video(last.result).width == round(6 * 320 / 8 / 2) * 2
    photo = light.submit(ANNA, request(files, kind="preview", poses=None, image_poses=files / "walk.npz"))
    *_, last = watch(light, photo)
    assert (last.state, last.result) == ("done", None) and read_image(last.look).shape[0] == 320
    assert any("frame shows what the video will show" in notice for notice in last.notices)
    bad = light.submit(ANNA, request(files, kind="preview", image_poses=files / "anna.png"))
    assert "anna.png" in wait_state(light, bad, "failed").error


def test_a_motion_is_made_in_the_light_queue_and_not_listed(light):
    job = light.submit(ANNA, motion_request(motion="wave"))
    seen = list(watch(light, job))
    last = seen[-1]
    assert (last.state, last.kind, last.error, last.look) == ("done", "motion", None, None)
    assert last.notices == ("The motion: 8 frames at 8 fps, 320 x 256, made motion, parts and U, V, body charts.",)
    assert last.request.motion == MotionOptions(motion="wave", seconds=1, fps=8)
    assert all(status.motion is None and status.result is None for status in seen[:-1])
    poses, info = read_poses(last.motion), probe_video(last.result)
    assert (len(poses), poses.size, poses.charts, poses.fps) == (8, (320, 256), "body", 8)
    assert (info.num_frames, info.fps, info.width) == (8, 8, 256)
    assert light.jobs(ANNA) == []
    with pytest.raises(UnknownJob):
        light.status(BEN, job)
    # the same again: nothing is drawn again
    drawn = {path.name: path.stat().st_mtime_ns for path in (light.home / "readings").glob("*.npz")}
    again = wait_state(light, light.submit(BEN, motion_request(motion="wave")), "done", owner=BEN)
    assert (read_poses(again.motion).parts == poses.parts).all() and len(drawn) == 1
    assert drawn == {path.name: path.stat().st_mtime_ns for path in (light.home / "readings").glob("*.npz")}


def test_a_motion_is_stopped_while_it_is_drawn(light):
    job = light.submit(ANNA, motion_request(seconds=20, fps=30))
    watched = watch(light, job)
    status = next(status for status in watched if status.progress is not None and status.progress.step > 0)
    assert (status.progress.stage, status.progress.total) == ("drawing", 600)
    worker = light.worker_pids()["light"]
    light.cancel(ANNA, job)
    assert wait_state(light, job, "cancelled").motion is None
    assert wait_state(light, light.submit(ANNA, motion_request()), "done").motion is not None
    assert light.worker_pids()["light"] == worker, "it stopped by itself"


def test_a_motion_that_was_made_is_animated_and_outlives_its_own_job(service, files):
    made = wait_state(service, service.submit(ANNA, motion_request()), "done")
    poses = read_poses(made.motion)
    job = service.submit(ANNA, request(files, poses=made.motion))
    shutil.rmtree(made.motion.parent)  # as when it expires
    done = wait_state(service, job, "done")
    assert (read_poses(done.request.poses).parts == poses.parts).all() and done.motion is None


def test_each_kind_needs_its_files_and_options_and_nothing_else(files):
    none, made = {"image": None, "poses": None}, {"motion": MotionOptions()}
    for wrong in (
        {"kind": "motion", **none},
        {"kind": "motion", "image": None, **made},
        {"kind": "motion", **none, "image_poses": files / "walk.npz", **made},
        made,
        {"kind": "preview", **made},
        {"image": None},
        {"poses": None},
        {"kind": "preview", **none},
    ):
        with pytest.raises(ValidationError, match="needs a photo and a motion.*a motion to be made its options alone"):
            request(files, **wrong)


def test_a_clip_is_estimated_and_its_sound_kept_by_the_light_queue(tmp_path, files):
    """A video as motion, a photo without a map, and sound; whatever was found out is said."""
    rgb, _ = drawn_clip(HELD_OUT, "walk", 6, (160, 128), fps=6.0)
    write_video(rgb.repeat(5, 0), files / "silent.mp4", 60.0)
    write_png(rgb[0], files / "anna.png")
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1", "-c:v", "copy", files / "walk.mp4"]
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", files / "silent.mp4", *tone], check=True
    )
    options = AnimateOptions(recipe="none", steps=2, keep_sound=True)
    with running(Settings(home=tmp_path / "home"), no_device) as service:
        job = service.submit(ANNA, request(files, poses=files / "walk.mp4", options=options))
        folder = JobFolder(service.home / "jobs" / job)
        said = wait_for(lambda: service.status(ANNA, job).notices, "the uploads to be read")
        status = service.status(ANNA, job)
        assert len(read_poses(folder.poses)) == 15 and read_poses(folder.poses).fps == 30
        assert read_poses(folder.image_poses).size == (160, 128) and folder.sound.stat().st_size > 1000
        assert (
            "The motion: 15 frames at 30 fps, 160 x 128, estimated from a video, parts and U, V, body charts." in said
        )
        assert "walk.mp4 has 60 fps; it is read at 30 fps." in said, "the file is called what its owner calls it"
        assert status.state == "queued"
        # the same files again: nothing is estimated again, and the notices are the same
        kept = {path.name: path.stat().st_mtime_ns for path in (service.home / "readings").glob("*.npz")}
        again = service.submit(BEN, request(files, kind="preview", poses=files / "walk.mp4"))
        *_, last = watch(service, again, BEN)
        assert last.state == "done" and set(said) <= set(last.notices)
        assert len(kept) == 2 and kept == {
            path.name: path.stat().st_mtime_ns for path in (service.home / "readings").glob("*.npz")
        }


def test_the_light_queue_refuses_bad_files_while_the_device_is_busy(service, files):
    busy = service.submit(ANNA, request(files, GATED))
    wait_gated(service, busy)
    light = service.worker_pids()["light"]
    (files / "letter.png").write_text("Dear Sir")
    bad = {
        "letter.png": {"image": files / "letter.png"},
        "Frames 2:9": {"options": AnimateOptions(first_frame=2, last_frame=9)},
    }
    jobs = {service.submit(ANNA, request(files, **change)): text for text, change in bad.items()}
    good = service.submit(ANNA, request(files))
    for job, text in jobs.items():
        status = wait_state(service, job, "failed")
        assert text in status.error, "the file is called what its owner calls it"
        assert "upload-" not in status.error and str(service.home) not in status.error
        assert status.error.count(". ") == 0 and status.error.endswith(".")
        inputs = service.home / "jobs" / job / "input"
        wait_for(lambda inputs=inputs: not list(inputs.glob("upload-*")), "bad files to go, too")
    folder = JobFolder(service.home / "jobs" / good)
    wait_for(folder.poses.exists, "the good job to be prepared")
    wait_for(lambda: not list(folder.input.glob("upload-*")), "its originals to go")
    assert service.status(ANNA, good).place == 1
    assert service.status(ANNA, busy).state == "running"
    assert service.worker_pids()["light"] == light, "bad files cost no worker"
    open_gate(service)
    wait_state(service, good, "done")
    wait_state(service, busy, "done")


def test_cancel_while_queued_running_done_and_twice(service, files):
    running = service.submit(ANNA, request(files, GATED))
    queued = service.submit(ANNA, request(files))
    wait_gated(service, running)
    pid = device_pid(service)
    service.cancel(ANNA, queued)
    wait_state(service, queued, "cancelled")  # at once, but where the light queue is reading its files
    service.cancel(ANNA, queued)
    service.cancel(ANNA, running)
    service.cancel(ANNA, running)
    status = wait_state(service, running, "cancelled")
    assert len(status.frames) == 2, "what was made is kept"
    assert status.result is None
    open_gate(service)
    third = service.submit(ANNA, request(files))
    wait_state(service, third, "done")
    service.cancel(ANNA, third)
    assert service.status(ANNA, third).state == "done"
    assert [status.state for status in service.jobs(ANNA)] == ["done", "cancelled", "cancelled"]
    assert device_pid(service) == pid, "a job that stops when asked costs no warm worker"


def test_a_job_that_does_not_listen_is_cancelled_with_its_worker(service, files):
    deaf = service.submit(ANNA, request(files, DEAF))
    after = service.submit(ANNA, request(files))
    wait_gated(service, deaf)
    pid = device_pid(service)
    service.cancel(ANNA, deaf)
    wait_state(service, deaf, "cancelled")
    wait_state(service, after, "done")
    assert not alive(pid)


def test_a_killed_worker_costs_no_frame_and_no_job(service, files):
    job = service.submit(ANNA, request(files, GATED, frames=8))
    after = service.submit(ANNA, request(files))
    seen: list[JobStatus] = []
    watcher = threading.Thread(target=lambda: seen.extend(watch(service, job)))
    watcher.start()
    wait_gated(service, job, frames=8)
    pid = device_pid(service)
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: service.worker_pids()["device"] not in ([], [pid]), "another worker")
    wait_for(lambda: service.status(ANNA, job).state == "running", "the job to be resumed")
    open_gate(service)
    wait_state(service, job, "done")
    wait_state(service, after, "done")
    watcher.join(DEADLINE_S)
    assert [status.state for status in seen if status.state in FINAL_STATES] == ["done"]
    assert trace(service, job) == list(range(8)), "every frame was made once"
    assert len(seen[-1].losses) == 3


def test_a_job_that_kills_every_worker_is_given_up_and_the_next_one_runs(service, files):
    poison = service.submit(ANNA, request(files, CRASHES))
    after = service.submit(ANNA, request(files))
    assert wait_state(service, poison, "failed").error == GIVEN_UP
    wait_state(service, after, "done")


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [(FAILS, "Something went wrong"), (REFUSES, "The photo shows nobody; please choose another.")],
)
def test_an_error_is_one_sentence_and_the_next_job_runs(service, files, behaviour, text):
    job = service.submit(ANNA, request(files, behaviour))
    after = service.submit(ANNA, request(files))
    status = wait_state(service, job, "failed")
    assert text in status.error
    assert "none of the user's business" not in status.error
    assert (job in status.error) == (behaviour == FAILS), "a job id for what nobody foresaw"
    assert status.code == {FAILS: "internal", REFUSES: "input"}[behaviour]
    wait_state(service, after, "done")


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [(DISK_FULL, "disk is full"), pytest.param(AWAY, "cannot be reached just now", marks=pytest.mark.slow)],
)
def test_a_full_disk_or_a_lost_cluster_pauses_a_job_until_it_can_go_on(service, files, behaviour, sentence):
    job = service.submit(ANNA, request(files, behaviour))
    after = service.submit(ANNA, request(files))
    said = wait_state(service, job, "interrupted").error
    assert sentence in said and "10.0.0.5" not in said
    wait_state(service, after, "done")  # others that do not need it go on
    open_gate(service)
    status = wait_state(service, job, "done")
    assert status.error is None and trace(service, job) == list(range(4)), "every frame was made once"


def test_a_restart_keeps_the_order_and_resumes(settings, files):
    with running(settings) as service:
        jobs = [service.submit(ANNA, request(files, GATED)) for _ in range(3)]
        wait_gated(service, jobs[0])
        pids = sum(service.worker_pids().values(), [])
    assert all(not alive(pid) for pid in pids)
    with running(settings, no_device) as service:
        assert [service.status(ANNA, job).state for job in jobs] == ["interrupted", "queued", "queued"]
        assert [service.status(ANNA, job).place for job in jobs] == [0, 1, 2]
    open_gate(service)
    with running(settings) as service:
        ended = []
        for job in jobs:
            wait_state(service, job, "done")
            ended.append((service.home / "jobs" / job / "result.mp4").stat().st_mtime_ns)
            assert trace(service, job) == list(range(4))
        assert ended == sorted(ended)
        with pytest.raises(UnknownJob):
            service.status(BEN, jobs[0])
    with pytest.raises(StorageError, match="cannot be used"):
        service.status(ANNA, jobs[0])


SERVER = """
import sys, time
sys.path[:0] = sys.argv[1:2]
from pathlib import Path
from test_jobs_service import ANNA, GATED, Settings, request, wait_gated, running
with running(Settings(home=Path(sys.argv[2]), estimator="none")) as service:
    jobs = [service.submit(ANNA, request(Path(sys.argv[3]), GATED)) for _ in range(2)]
    wait_gated(service, jobs[0])
    print(*jobs, *service.worker_pids()["light"], *service.worker_pids()["device"], flush=True)
    time.sleep(999)
"""


def test_killing_the_server_loses_nothing(settings, files):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, Path(__file__).parent, settings.home, files],
        stdout=subprocess.PIPE,
        text=True,
        env=worker_environment(settings),
    )
    *jobs, light, device = server.stdout.readline().split()
    server.kill()
    server.communicate()
    for pid in (int(light), int(device)):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not alive(pid), "a worker without its server to leave")
    with running(settings) as service:
        open_gate(service)
        for job in jobs:
            wait_state(service, job, "done")
            assert trace(service, job) == list(range(4))


def test_threads_of_workers_do_not_spin_while_they_wait(settings, monkeypatch):
    """Two workers on the same cores made each other ten times slower."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert worker_environment(settings)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert worker_environment(settings)["OMP_WAIT_POLICY"] == "ACTIVE"


def freeze(pid: int, home: Path) -> None:
    """SIGSTOP, at a moment when the process does not hold the store's lock."""
    with closing(sqlite3.connect(home / "jobs.sqlite3", timeout=0.2, isolation_level=None)) as store:
        while True:
            os.kill(pid, signal.SIGSTOP)
            try:
                store.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)


def test_a_frozen_worker_that_wakes_up_changes_nothing(light, files):
    job = light.submit(ANNA, request(files, GATED))
    worker = device_worker(light)
    try:
        wait_gated(light, job)
        freeze(worker.pid, light.home)
        let_leases_run_out(light.home)
        wait_state(light, job, "interrupted")
        store = Store(light.home / "jobs.sqlite3")
        lock = lock_file(light.home / "workers" / "device-another")
        claim = wait_for(lambda: store.claim("device", "device-another"), "the job to be claimable")
        worker.send_signal(signal.SIGCONT)
        time.sleep(0.5)  # time to do harm in
        assert light.status(ANNA, job).state == "running" and not store.cancel_asked(claim), "our claim still holds"
        assert len(light.status(ANNA, job).frames) == 2
        store.finish(claim)
        lock.close()
        other = light.submit(ANNA, request(files))
        wait_state(light, other, "done")  # the woken worker has let go and is of use again
        store.close()
    finally:
        worker.send_signal(signal.SIGCONT)
        worker.terminate()
        assert worker.wait(DEADLINE_S) == 0


def test_a_hung_worker_is_replaced(service, files):
    job = service.submit(ANNA, request(files, GATED))
    wait_gated(service, job)
    pid = device_pid(service)
    freeze(pid, service.home)
    let_leases_run_out(service.home)
    open_gate(service)
    wait_state(service, job, "done")
    assert not alive(pid)
    assert trace(service, job) == list(range(4))


def test_submits_with_one_key_are_one_job(settings, files):
    with JobService(settings) as service:
        ids, together = [], threading.Barrier(20)

        def submit():
            together.wait()
            ids.append(service.submit(ANNA, request(files), "form 1"))

        threads = [threading.Thread(target=submit) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 20 and len(set(ids)) == 1
        assert os.listdir(service.home / "jobs") == ids[:1], "the folders of the others are gone"
        assert service.submit(BEN, request(files), "form 1") != ids[0]


def test_a_full_queue_and_unusable_files_are_refused_at_once(settings, files):
    settings = settings.model_copy(update={"max_queue": 2, "max_upload_mb": 1})
    with JobService(settings) as service:
        (files / "large.png").write_bytes(bytes((1 << 20) + 1))
        os.mkfifo(files / "pipe.npz")
        for change, text in (
            ({"image": files / "large.png"}, "large.png is larger than 1 MB"),
            ({"poses": files / "pipe.npz"}, "pipe.npz cannot be read as a file"),
            ({"poses": files}, "cannot be read as a file"),
            ({"image": files / "none.png"}, "none.png cannot be read"),
        ):
            with pytest.raises(InputError, match=text):
                service.submit(ANNA, request(files, **change))
        jobs = [service.submit(ANNA, request(files)) for _ in range(2)]
        with pytest.raises(InputError, match="The queue is full"):
            service.submit(BEN, request(files))
        assert sorted(os.listdir(service.home / "jobs")) == sorted(jobs), "nothing is left of those refused"
        uploads = service.home / "jobs" / jobs[0] / "input"
        assert sorted(path.name for path in uploads.iterdir()) == ["upload-image.png", "upload-poses.npz"]
        service.cancel(ANNA, jobs[0])
        assert list(uploads.iterdir()) == []
        service.submit(BEN, request(files))


def test_a_full_disk_at_submit_is_one_sentence_and_nothing_else_is_lost(settings, files):
    with JobService(settings) as service:
        before = service.submit(ANNA, request(files))
        (files / "large.png").write_bytes(bytes(8 << 20))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, limits[1]))  # to a writer this is a full disk
        try:
            with pytest.raises(StorageError, match="disk is full") as error:
                service.submit(ANNA, request(files, image=files / "large.png"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(service.home) not in str(error.value)
        assert os.listdir(service.home / "jobs") == [before]
        after = service.submit(ANNA, request(files))
        assert [status.id for status in service.jobs(ANNA)] == [after, before]


def test_what_is_foreign_or_unknown_or_no_id_at_all_looks_the_same(settings, files):
    with JobService(settings) as service:
        job = service.submit(ANNA, request(files))
        texts = set()
        wrong = ("0" * 32, "../../etc", "", None, job.upper())
        for owner, given in ((BEN, job), ("", job), *((ANNA, one) for one in wrong)):
            for action in (service.status, service.cancel, service.delete):
                with pytest.raises(UnknownJob) as error:
                    action(owner, given)
                texts.add(str(error.value))
        assert len(texts) == 1
        assert service.status(ANNA, job).state == "queued"
        assert service.jobs(BEN) == []
        store = (service.home / "jobs.sqlite3").read_bytes() + (service.home / "jobs.sqlite3-wal").read_bytes()
        assert ANNA.encode() not in store, "only the hash of an owner's token is stored"


def test_names_of_uploads_never_become_paths(light, files):
    odd = files / "..\\$(x)\n\u202e.PnG"
    (files / "anna.png").rename(odd)
    (files / "walk.npz").rename(files / "walk.npz; rm")
    job = light.submit(ANNA, request(files, image=odd, poses=files / "walk.npz; rm"))
    folder = JobFolder(light.home / "jobs" / job)
    stored = stored_request(light, job)
    assert (str(stored.image), str(stored.poses)) == ("..\\$(x).PnG", "walk.npz; rm")
    assert folder.upload(folder.image, stored.image) == folder.input / "upload-image.png"
    assert folder.upload(folder.poses, stored.poses) == folder.input / "upload-poses"
    wait_for(folder.poses.exists, "the files to be read all the same")


def test_health_tells_of_the_workers_that_live(service, settings):
    wait_for(lambda: service.health()["healthy"], "both workers")
    workers = service.health()["workers"]
    assert workers == {"light": {"living": 1, "wanted": 1}, "device": {"living": 1, "wanted": 1}}
    with JobService(settings) as alone:
        assert alone.worker_pids() == {"light": [], "device": []} and not alone.health()["healthy"]


def test_a_worker_whose_files_cannot_grow_goes_on_when_they_can(service, files):
    """The limit holds for the store, too, as a full disk does; the web process and what is finished are not touched."""
    jobs = [service.submit(ANNA, request(files, GATED, frames=8)) for _ in range(2)]
    before = wait_gated(service, jobs[0], frames=8).frames
    pid = device_pid(service)
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    open_gate(service)
    time.sleep(1)
    assert service.health()["healthy"] and service.status(ANNA, jobs[0]).state in ("running", "interrupted")
    assert service.status(ANNA, jobs[0]).frames == before
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    for job in jobs:
        frames = wait_state(service, job, "done").frames
        assert [path.read_bytes() for path in frames] == [b"frame %d" % index for index in range(8)]
    assert device_pid(service) == pid


def test_several_device_workers_share_the_jobs_and_each_has_a_gpu(tmp_path, files, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    settings = Settings(home=tmp_path / "home", estimator="none", workers=2, max_own=100)
    with running(settings) as service:
        jobs = [service.submit(ANNA, request(files, GATED)) for _ in range(3)]
        wait_gated(service, jobs[0])
        wait_gated(service, jobs[1])
        third = service.submit(BEN, request(files))
        assert service.status(ANNA, jobs[2]).state == "queued"  # both are at work, and two of one owner are the most
        environments = [
            Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in service.worker_pids()["device"]
        ]
        assert sorted(line for lines in environments for line in lines if line.startswith(b"CUDA_VISIBLE")) == [
            b"CUDA_VISIBLE_DEVICES=0",
            b"CUDA_VISIBLE_DEVICES=1",
        ]
        assert service.health()["workers"]["device"] == {"living": 2, "wanted": 2}
        open_gate(service)
        for job in jobs:
            wait_state(service, job, "done")
            assert trace(service, job) == list(range(4))
        wait_state(service, third, "done", owner=BEN)


def test_which_gpu_is_whose():
    assert gpu_of(0, 1, "3,4", 8) == gpu_of(0, 2, None, 0) == {}
    for visible, num_gpus, devices in ((None, 4, "012"), (None, 2, "010"), ("5, GPU-abc", 8, ("5", "GPU-abc", "5"))):
        found = [gpu_of(i, 3, visible, num_gpus) for i in range(3)]
        assert found == [{"CUDA_VISIBLE_DEVICES": device} for device in devices]


def test_one_owner_may_not_fill_the_queue_or_the_disk(tmp_path, files):
    settings = Settings(home=tmp_path / "home", estimator="none", max_own=2, max_own_mb=1)
    with JobService(settings) as service:
        jobs = [service.submit(ANNA, request(files)) for _ in range(2)]
        with pytest.raises(InputError, match="2 of your jobs are not finished"):
            service.submit(ANNA, request(files))
        service.cancel(ANNA, jobs[0])
        (service.home / "jobs" / jobs[0] / "big").write_bytes(bytes(1_100_000))
        with pytest.raises(InputError, match="results take 1 MB on the server"):
            service.submit(ANNA, request(files))
        service.submit(BEN, request(files))
        assert len(list((service.home / "jobs").iterdir())) == 3, "nothing is left of what was refused"


def test_results_survive_an_empty_disk_when_a_bucket_is_attached(tmp_path, files):
    settings = Settings(home=tmp_path / "home", estimator="none", bucket=tmp_path / "bucket")
    with JobService(settings) as service:
        job = service.submit(ANNA, request(files))
        service.store.advance(service.store.claim("light", "light-1"))
        (service.home / "jobs" / job / "result.mp4").write_bytes(b"video")
        service.store.finish(service.store.claim("device", "device-1"))
    shutil.rmtree(settings.home)
    with JobService(settings) as service:
        status = service.status(ANNA, job)
        assert (status.state, status.result.read_bytes()) == ("done", b"video")
        assert [known.id for known in service.jobs(ANNA)] == [job] and service.jobs(BEN) == []


def test_logs_name_jobs_and_nothing_of_their_owners(tmp_path, files, capfd):
    with running(Settings(home=tmp_path / "home", estimator="none", log_format="json")) as service:
        jobs = [service.submit(ANNA, request(files, behaviour)) for behaviour in (0, REFUSES, FAILS)]
        for job, state in zip(jobs, ("done", "failed", "failed")):
            wait_state(service, job, state)
    errors = capfd.readouterr().err
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    for job in jobs:
        assert [line for line in lines if line.get("job") == job]
    assert {line["level"] for line in lines} >= {"info", "error"}
    assert all(line.keys() >= {"time", "logger"} for line in lines)
    assert "Traceback" in next(line["traceback"] for line in lines if "traceback" in line)
    for private in ("anna", "walk.npz", "nobody"):
        assert private not in errors.lower().replace(str(tmp_path).lower(), "")


def test_the_model_is_loaded_before_anybody_asks(settings, files, tmp_path):
    model = make_tiny_model(tmp_path / "model")
    with running(settings.model_copy(update={"model": str(model)}), worker_command) as service:
        wait_for(lambda: service.health()["devices"], "the model on its device")
        wait_state(service, service.submit(ANNA, request(files)), "done")


def test_a_model_that_cannot_be_loaded_is_said_to_who_asks_and_the_worker_stays(settings, files, tmp_path):
    with running(settings.model_copy(update={"model": str(tmp_path / "nowhere")}), worker_command) as service:
        worker = wait_for(lambda: service.worker_pids()["device"], "a worker")
        for _ in range(2):
            wait_state(service, service.submit(ANNA, request(files)), "failed")
        assert service.worker_pids()["device"] == worker and service.health()["devices"] == []
