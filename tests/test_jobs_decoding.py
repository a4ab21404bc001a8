"""Users' files opened apart: confined children, their ends, the same results. Run: .venv/bin/pytest
tests/test_jobs_decoding.py"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import corpus
import numpy as np
import pytest
import test_more_photos
from test_corpus import sentence
from test_jobs_service import DEADLINE_S, wait_for

from dreampose_core.errors import Cancelled, DiskFull, InputError, StorageError
from dreampose_core.inputs.framing import Photo
from dreampose_core.jobs import decoding, sandbox
from dreampose_core.jobs.decoding import LIMITS, Decoder
from dreampose_core.jobs.pose_cache import PoseCache
from dreampose_core.jobs.records import Work
from dreampose_core.jobs.sandbox import Limits, run
from dreampose_core.jobs.tasks import LightTasks
from dreampose_core.media import read_photo, write_png, write_video
from dreampose_core.poses import PoseSequence, read_any, read_image_map, read_poses, write_poses
from dreampose_core.progress import never_stop
from dreampose_core.settings import REPOSITORY, AnimateOptions, Settings

# A child that is confined as the decoding one is, knows its modules, and then runs the code that the request holds.
ODD = """import os, resource, socket, sys, time
import dreampose_core.jobs.decoding
from dreampose_core.jobs.sandbox import serve
from dreampose_core.media.ffmpeg import ffmpeg
serve(lambda asked, say: exec(asked["code"], globals() | {"say": say}))"""
OPTIONS = AnimateOptions()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
LANDLOCK = "import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(444, None, 0, 1) < 3)"
UNSHARE = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x50000000) != 0)"  # a user and a network namespace


TELLS = """names = "AS FSIZE NOFILE CORE".split()
say({
    "environment": dict(os.environ), "modules": sorted(sys.modules), "folder": os.getcwd(), "path": sys.path,
    "limits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names},
    "open": sum(os.path.exists(f"/proc/self/fd/{number}") for number in range(64)),
})"""
STARTS = "open('pid', 'w').write(str(os.getpid()))\n"
WAITS_FOR_FFMPEG = (
    f"""{STARTS}with ffmpeg('-re -f lavfi -i testsrc=d=999 -f null -'.split(), limited=True) as run: run.finish()"""
)


def odd(folder: Path, code: str, limits: Limits = LIMITS, should_stop=never_stop) -> dict:
    """The answer of a child that runs `code`."""
    return run(("-c", ODD), {"code": code}, folder, "walk.mp4", limits, should_stop)


def session(leader: int) -> list[int]:
    """The processes that live in the session of `leader`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # gone in between
        if int(own) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


# --- what a child is --------------------------------------------------------------------------------------------------


def test_a_child_knows_nothing_and_may_little(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMPOSE_SECRET", "a secret")
    monkeypatch.setenv("HF_TOKEN", "another")
    monkeypatch.setenv("PYTHONPATH", ".")
    (tmp_path / "json.py").write_text("raise SystemExit('imported from among the uploads')")
    told = odd(tmp_path, TELLS)
    allowed = "PYTHONPATH OMP_NUM_THREADS OPENBLAS_NUM_THREADS IMAGEIO_FFMPEG_EXE LD_LIBRARY_PATH LC_CTYPE".split()
    assert set(told["environment"]) <= set(allowed)  # Python itself sets LC_CTYPE
    assert told["folder"] == str(tmp_path) and str(tmp_path) not in told["path"] and "" not in told["path"]
    assert told["limits"] == {
        "AS": [LIMITS.memory] * 2,
        "FSIZE": [LIMITS.file_bytes] * 2,
        "NOFILE": [LIMITS.open_files] * 2,
        "CORE": [0, 0],
    }
    assert told["open"] == 4, "stdin, stdout, stderr, the way of the answer"
    assert not {"torch", "diffusers", "transformers", "gradio", "fastapi", "sqlite3"} & set(told["modules"])


def test_limits_are_never_raised(tmp_path):
    code = (
        "import resource, sys; from dreampose_core.jobs.sandbox import Limits, confine\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))\n"
        f"confine(Limits(**{asdict(LIMITS)!r})); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout.split() == ["50", "50"], done.stderr


def test_a_child_reaches_no_network(tmp_path):
    if subprocess.run([sys.executable, "-c", UNSHARE]).returncode != 0:
        pytest.skip("NO NETWORK NAMESPACES here, so decoders keep their network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()  # whoever is not confined gets through
        code = f"say({{'connected': socket.socket().connect_ex(('127.0.0.1', {port})) == 0}})"
        assert odd(tmp_path, code) == {"connected": False}


def test_a_child_reaches_no_other_folder(tmp_path):
    if subprocess.run([sys.executable, "-c", LANDLOCK]).returncode != 0:
        pytest.skip("NO LANDLOCK here, so decoders may read what their worker may")
    place, other = tmp_path / "input", tmp_path / "other"
    for folder in (place, other):
        folder.mkdir()
        (folder / "secret").write_text("of somebody else")
    for folder in (other, place):
        for code in (f"open('{folder}/secret')", f"os.listdir('{folder}')", f"open('{folder}/new', 'w')"):
            tries = f"try: {code}; reached = True\nexcept OSError: reached = False\nsay({{'reached': reached}})"
            assert odd(place, tries)["reached"] == (folder == place)
    assert os.listdir(other) == ["secret"]


# --- how a child ends -------------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.parametrize(
    ("code", "limits", "words"),
    [
        ("hoard = [bytearray(1 << 24) for _ in iter(int, 1)]", {"memory": 1 << 30}, "needs more memory"),
        ("file = open('large', 'wb')\nwhile True: file.write(bytes(1 << 20))", {"file_bytes": 10 << 20}, "can be kept"),
        ("kept = [open('/dev/null') for _ in iter(int, 1)]", {}, "broke off"),
        ("os.kill(os.getpid(), 9)", {}, "needs more memory"),
        ("os.kill(os.getpid(), 11)", {}, "broke off"),
        ("raise RuntimeError('a decoder stumbled')", {}, "broke off"),
        ("os.write(3, b'rubbish\\n')", {}, "broke off"),
        ("say([1])", {}, "broke off"),
    ],
)
def test_a_child_that_misbehaves_is_one_sentence_and_gone(tmp_path, code, limits, words):
    with pytest.raises(InputError) as error:
        odd(tmp_path, STARTS + code, replace(LIMITS, **limits))
    wait_for(lambda: session(int((tmp_path / "pid").read_text())) == [], "all it started to be gone")
    text = sentence(error.value)
    assert text.startswith("walk.mp4 ") and words in text


def test_what_libraries_print_is_no_answer(tmp_path):
    assert odd(tmp_path, "print('chatter', flush=True); os.write(1, b'more'); say({'said': True})") == {"said": True}


def test_a_child_that_cannot_be_started_is_the_programs_fault(tmp_path):
    with pytest.raises(RuntimeError, match="No module named dreampose_core.jobs.gone"):
        run(("-m", "dreampose_core.jobs.gone"), {}, tmp_path, "walk.mp4", LIMITS, never_stop)


@LINUX
def test_to_cancel_ends_the_child_and_its_ffmpeg(tmp_path):
    def both_run() -> bool:
        return (tmp_path / "pid").exists() and len(session(int((tmp_path / "pid").read_text() or 0))) == 2

    with pytest.raises(Cancelled):
        odd(tmp_path, WAITS_FOR_FFMPEG, LIMITS, both_run)
    wait_for(lambda: session(int((tmp_path / "pid").read_text())) == [], "ffmpeg, told to go, to be gone")


@LINUX
def test_a_child_ends_with_the_worker_that_is_killed(tmp_path):
    request = {"code": STARTS + "time.sleep(999)"}
    code = (
        "import sys; from pathlib import Path; from dreampose_core.jobs.sandbox import run\n"
        "from dreampose_core.progress import never_stop\n"
        "from dreampose_core.jobs.decoding import LIMITS\n"
        f"run(('-c', {ODD!r}), {request!r}, Path(sys.argv[1]), 'walk.mp4', LIMITS, never_stop)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=REPOSITORY)
    pid = tmp_path / "pid"
    child = int(wait_for(lambda: pid.exists() and pid.read_text(), "the child to run"))
    assert session(child) == [child]
    worker.kill()
    worker.wait()
    wait_for(lambda: session(child) == [], "the child to end")


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_takes_too_much_is_one_sentence(tmp_path):
    photo, motion = tmp_path / "anna.png", tmp_path / "walk.npz"
    write_png(np.zeros((4000, 5000, 3), np.uint8), photo)
    write_poses(PoseSequence(np.zeros((500, 768, 768), np.uint8), None, "none"), motion)
    small = Decoder(never_stop, replace(LIMITS, memory=300 << 20))
    for ask in (
        lambda: small.photo(photo, tmp_path / "out.png"),
        lambda: small.motion(motion, tmp_path / "out.npz", OPTIONS, None),
    ):
        with pytest.raises(InputError, match="needs more memory"):
            ask()
    tight = Decoder(never_stop, replace(LIMITS, file_bytes=1000))
    with pytest.raises(InputError, match="anna.png holds more than can be kept"):
        tight.photo(photo, tmp_path / "out.png")
    with pytest.raises(InputError, match="walk.npz takes too long"):
        Decoder(never_stop, replace(LIMITS, wait_s=0.0)).motion(motion, tmp_path / "out.npz", OPTIONS, None)
    assert sorted(os.listdir(tmp_path)) == ["anna.png", "walk.npz"]


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    write_png(np.zeros((4, 4, 3), np.uint8), tmp_path / "anna.png")
    (tmp_path / "out.png").mkdir()
    with pytest.raises(StorageError, match="out.png could not be written"):
        Decoder(never_stop).photo(tmp_path / "anna.png", tmp_path / "out.png")


def test_a_child_that_is_killed_while_it_writes_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 25, (200, 384, 384)).astype(np.uint8)
    write_poses(PoseSequence(noise, None, "none"), tmp_path / "walk.npz")
    with pytest.raises(Cancelled):
        Decoder(lambda: any(tmp_path.glob(".part.*.poses.npz"))).motion(
            tmp_path / "walk.npz", tmp_path / "poses.npz", OPTIONS, None
        )
    assert os.listdir(tmp_path) == ["walk.npz"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[corpus.Case]]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, corpus.make(folder)


def test_a_hostile_file_of_each_kind_is_one_sentence_and_leaves_nothing(made, tmp_path):
    """`test_corpus` reads them all, in one process."""
    folder, cases = made
    bad = [case for case in cases if case.good is None and case.reader != "video" and os.path.isfile(case.path)]
    kinds = {(case.path.parent, case.reader): case for case in bad}.values()
    assert len(bad) >= 90 and len(kinds) >= 6
    decoder, before, wrong = Decoder(never_stop), sorted(folder.rglob("*")), []
    for case in (*kinds, *bad[::24]):
        place = tmp_path / "input"
        place.mkdir()
        source = place / case.path.name
        shutil.copy(case.path, source)
        estimate = corpus.estimate if case.reader == "estimate" else None
        with pytest.raises(InputError) as error:
            if case.reader == "photo":
                decoder.photo(source, place / "image.png")
            else:
                decoder.motion(source, place / "poses.npz", OPTIONS, estimate)
        text = sentence(error.value)
        if case.words not in text or os.listdir(place) != [source.name]:
            wrong.append(f"{case.path.name}: {os.listdir(place)}, should say {case.words!r}, said: {text}")
        shutil.rmtree(place)
    assert not wrong, "\n".join(wrong)
    assert sorted(folder.rglob("*")) == before and not list(tmp_path.iterdir())
    assert not list(folder.rglob(corpus.RAN)), "a pickle's code was run"


GOOD = "both.npz maps.zip single.webp 0.mp4 fast.mov gaps.zip".split()


@pytest.mark.parametrize("name", GOOD)
def test_what_a_child_reads_is_what_is_read_directly(made, tmp_path, name):
    folder, cases = made
    if name == "gaps.zip":
        whole = corpus._zip_of(tmp_path / "gaps.zip", next(folder.glob("*/gaps")))
        estimate = corpus.estimate
    else:
        case = next(case for case in cases if case.path.name == name and case.good is not None)
        whole, estimate = case.path, corpus.estimate if case.reader == "estimate" else None
    source, decoder = tmp_path / name, Decoder(never_stop)
    if whole != source:
        shutil.copy(whole, source)
    for direct, ask in ((read_any, "motion"), (read_image_map, "map")):
        target = tmp_path / f"{ask}.npz"
        want, options = direct(source, estimate), {"options": OPTIONS} if ask == "motion" else {}
        found = getattr(decoder, ask)(source, target, estimate=estimate, **options)
        assert target.exists() == (estimate is None)
        poses = found.poses if estimate else read_poses(target)
        assert (found.form, found.notices, found.describe()) == (want.form, want.notices, want.describe())
        assert (poses.fps, poses.charts, poses.size) == (want.poses.fps, want.poses.charts, want.poses.size)
        for own, other in ((poses.parts, want.poses.parts), (poses.uv, want.poses.uv)):
            assert (own is None) == (other is None)
            assert own is None or (own.dtype == other.dtype and np.array_equal(own, other))


def test_an_estimator_is_given_the_very_frames_and_how_many(made, tmp_path):
    folder, _ = made
    given: list[tuple[int, list[np.ndarray]]] = []

    def estimate(photos):
        given.append((photos.__length_hint__(), list(photos)))
        return corpus.estimate(given[-1][1])

    clip = tmp_path / "clip.mp4"
    shutil.copy(next(folder.glob("*/clip.mp4")), clip)
    read_any(clip, estimate)
    Decoder(never_stop).motion(clip, tmp_path / "poses.npz", OPTIONS, estimate)
    (hint, frames), (other_hint, others) = given
    assert hint == other_hint and len(frames) == len(others) == corpus.NUM_FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(frames, others))


def test_a_clip_that_breaks_off_on_the_way_to_the_estimator_is_refused(made, tmp_path):
    """Pictures of which the last is of another size: known only when it comes."""
    folder, _ = made
    shutil.copytree(next(folder.glob("*/pictures")), tmp_path / "pictures")
    corpus._save_picture(tmp_path / "pictures" / "p30.png", np.zeros((8, 8, 3), np.uint8))
    source = corpus._zip_of(tmp_path / "walk.zip", tmp_path / "pictures")
    with pytest.raises(InputError) as want:
        read_any(source, corpus.estimate)
    with pytest.raises(InputError) as got:
        Decoder(never_stop).motion(source, tmp_path / "poses.npz", OPTIONS, corpus.estimate)
    assert str(got.value) == str(want.value) and "one size" in str(want.value)


def test_a_photo_is_the_same_bytes(made, tmp_path):
    photo = next(made[0].glob("*/progressive.jpg"))
    shutil.copy(photo, tmp_path / "anna.jpg")
    pixels, notices, _ = read_photo(photo)
    write_png(pixels, tmp_path / "direct.png")
    assert Decoder(never_stop).photo(tmp_path / "anna.jpg", tmp_path / "sandbox.png") == notices
    assert (tmp_path / "direct.png").read_bytes() == (tmp_path / "sandbox.png").read_bytes()


# --- the queue --------------------------------------------------------------------------------------------------------


def prepared(tmp_path: Path, should_stop=never_stop, **options) -> Work:
    """A job with a photo, a motion of four frames and the photo's own map."""
    motion = PoseSequence(np.ones((4, 8, 6), np.uint8), None, "none")
    photo = Photo(np.full((8, 6, 3), 90, np.uint8), None, "anna.png")
    return test_more_photos.prepared(tmp_path, ([photo], motion), motion, AnimateOptions(**options), should_stop)


def queue(tmp_path: Path) -> LightTasks:
    return LightTasks(Settings(home=tmp_path / "home", estimator="none"))


def test_what_is_cancelled_may_be_gone_on_with(tmp_path):
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += work.folder.image.exists()
        return asked > 2  # in the midst of the motion

    work = prepared(tmp_path, should_stop=stop)
    with pytest.raises(Cancelled):
        queue(tmp_path)(work)
    assert not work.folder.poses.exists()
    queue(tmp_path)(replace(work, should_stop=never_stop))
    assert (len(read_poses(work.folder.poses)), len(read_poses(work.folder.image_poses))) == (4, 1)


def test_a_clip_is_opened_by_no_process_but_the_child(tmp_path, monkeypatch):
    """The queue's own process starts no ffmpeg and opens no picture of the user's, also where the motion must be
    estimated."""
    from dreampose_core.densepose import Estimates
    from dreampose_core.media import ffmpeg, images
    from dreampose_core.poses import sources

    work, jointless = prepared(tmp_path, keep_sound=True), []
    clip = work.folder.input / "upload-poses.mp4"
    write_video((np.full((32, 24, 3), 40 * i, np.uint8) for i in range(5)), clip, 25)
    (work.folder.input / "upload-poses.npz").unlink()
    work = replace(work, request=work.request.model_copy(update={"poses": Path("walk.mp4")}))
    monkeypatch.setattr(Estimates, "_estimate", lambda self, frames, person: corpus.estimate(frames))
    monkeypatch.setattr(Estimates, "with_joints", lambda self, poses: (jointless.append(len(poses)), poses)[1])

    def forbidden(*_, **__):
        raise AssertionError("opened in the worker")

    def started(command, real=subprocess.Popen, **given):
        return forbidden() if "ffmpeg" in os.path.basename(command[0]) else real(command, **given)

    monkeypatch.setattr(ffmpeg.subprocess, "Popen", started)
    for module in (images, sources):
        monkeypatch.setattr(module, "open_picture", forbidden)
    said = LightTasks(Settings(home=tmp_path / "home"))(work)
    assert said[0].startswith("The motion: 5 frames at 25 fps, 32 x 24, estimated from a video")
    assert "no sound" in said[1]
    assert jointless == [5, 1], "joints are found in the motion's maps and in the photo's"
    assert len(list((tmp_path / "home" / "readings").glob("*.npz"))) == 3


@pytest.mark.parametrize("place", ["the child", "the worker"])
def test_a_disk_that_is_full_for_a_while_loses_no_upload(tmp_path, monkeypatch, place):
    """The first attempt ends as DiskFull, which pauses the job; the second, with room again, goes on."""
    work, light = prepared(tmp_path), queue(tmp_path)

    def full(*_):
        raise DiskFull("image.png could not be written: the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(*((decoding, "run") if place == "the child" else (PoseCache, "key")), full)
        with pytest.raises(DiskFull):
            light(work)
    light(work)
    assert read_poses(work.folder.poses).parts.shape == (4, 8, 6)


def test_a_child_says_that_the_disk_is_full():
    assert sandbox._told(DiskFull("The disk is full.")) == {"error": "full", "text": "The disk is full."}
    assert sandbox._told(StorageError("No.")) == {"error": "storage", "text": "No."}
