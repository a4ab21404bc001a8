"""Video files: one frame in is one frame out, players can play them, and a full disk leaves nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from dreampose_core.errors import Cancelled, InputError, StorageError
from dreampose_core.video import probe_video, read_video, write_gif, write_video


def steps(num_frames: int, height=48, width=64):
    """Frames whose one colour tells their number."""
    return [np.full((height, width, 3), 16 + 8 * i, np.uint8) for i in range(num_frames)]


def noise(num_frames: int, height=128, width=160):
    rng = np.random.default_rng(0)
    for _ in range(num_frames):
        yield rng.integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("num_frames", [1, 2, 25])
@pytest.mark.parametrize("fps", [30, 12.5, 24000 / 1001])
def test_every_frame_arrives_once_and_in_order(tmp_path, num_frames, fps):
    assert write_video(iter(steps(num_frames)), tmp_path / "a.mp4", fps) == num_frames
    info = probe_video(tmp_path / "a.mp4")
    assert (info.num_frames, info.height, info.width, info.codec, info.pixel_format) == (num_frames, 48, 64, "h264", "yuv420p")
    assert info.fps == pytest.approx(fps, rel=1e-6)
    frames = list(read_video(tmp_path / "a.mp4"))
    assert all(f.dtype == np.uint8 and f.shape == (48, 64, 3) and f.flags.writeable for f in frames)
    assert [round((f.mean() - 16) / 8) for f in frames] == list(range(num_frames))


def test_the_index_comes_first_and_time_starts_at_0(tmp_path):
    write_video(steps(25), tmp_path / "a.mp4", 25)
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    ffprobe = shutil.which("ffprobe")
    if ffprobe is None:
        pytest.skip("ffprobe is not on PATH")
    command = [ffprobe, "-v", "error", "-show_streams", "-print_format", "json", str(tmp_path / "a.mp4")]
    stream = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"][0]
    assert (stream["codec_name"], stream["pix_fmt"], stream["color_space"], stream["nb_frames"]) == ("h264", "yuv420p", "bt709", "25")
    assert float(stream["start_time"]) == 0 and float(stream["duration"]) == pytest.approx(1)


def test_colours_survive(tmp_path):
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:32, :32], frame[:32, 32:], frame[32:, :32], frame[32:, 32:] = (200, 60, 30), (20, 180, 60), (40, 50, 210), (240, 235, 220)
    write_video([frame] * 5, tmp_path / "a.mp4", 25)
    back = next(read_video(tmp_path / "a.mp4"))
    for y, x in ((16, 16), (16, 48), (48, 16), (48, 48)):
        assert np.abs(back[y, x].astype(int) - frame[y, x]).max() <= 5


def test_quality_follows_crf(tmp_path):
    write_video(noise(5), tmp_path / "a.mp4", 25, crf=10)
    write_video(noise(5), tmp_path / "b.mp4", 25, crf=40)
    assert (tmp_path / "a.mp4").stat().st_size > 2 * (tmp_path / "b.mp4").stat().st_size


def test_odd_sides_are_padded_by_their_edge(tmp_path):
    frame = np.zeros((33, 41, 3), np.uint8)
    frame[-8:], frame[:, -8:] = 200, 200
    assert write_video([frame] * 3, tmp_path / "a.mp4", 25) == 3
    back = list(read_video(tmp_path / "a.mp4"))
    assert len(back) == 3 and back[0].shape == (34, 42, 3)
    assert back[0][-1].min() > 180 and back[0][:, -1].min() > 180  # not black


def test_gif(tmp_path):
    assert write_gif(iter(steps(12, 33, 41)), tmp_path / "a.gif", 20) == 12
    info = probe_video(tmp_path / "a.gif")
    assert (info.num_frames, info.height, info.width, info.codec) == (12, 33, 41, "gif")
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in (tmp_path / "a.gif").read_bytes()  # endless
    assert [round((f.mean() - 16) / 8) for f in read_video(tmp_path / "a.gif")] == list(range(12))


def test_frames_of_uneven_length_arrive_once_each(tmp_path):
    write_video(steps(10), tmp_path / "even.mp4", 10)
    uneven = ["-vf", "setpts=(N+gt(N\\,4)*20)/10/TB", "-fps_mode", "vfr", str(tmp_path / "a.mp4")]  # two seconds of rest after frame 4
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "even.mp4"), *uneven], check=True, capture_output=True)
    assert probe_video(tmp_path / "a.mp4").num_frames == 10
    assert [round((f.mean() - 16) / 8) for f in read_video(tmp_path / "a.mp4")] == list(range(10))


def test_frames_that_are_wrong_or_missing(tmp_path):
    wrong = [[], [np.zeros((8, 8), np.uint8)], [np.zeros((8, 8, 3), np.float32)], [*steps(2), np.zeros((8, 8, 3), np.uint8)]]
    for frames in wrong:
        with pytest.raises(ValueError, match="frame"):
            write_video(frames, tmp_path / "a.mp4", 25)
        assert os.listdir(tmp_path) == []


def test_what_the_frames_raise_passes_through_and_the_old_file_stays(tmp_path):
    write_video(steps(3), tmp_path / "a.mp4", 25)
    before = (tmp_path / "a.mp4").read_bytes()

    def frames():
        yield from noise(20)
        raise Cancelled("stopped on request")

    with pytest.raises(Cancelled):
        write_video(frames(), tmp_path / "a.mp4", 25)
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == before


def test_a_reader_that_is_left_early_ends_its_ffmpeg(tmp_path):
    write_video(noise(60), tmp_path / "a.mp4", 25)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split()
    reader = read_video(tmp_path / "a.mp4")
    next(reader)
    assert len(children.read_text().split()) == len(before) + 1
    reader.close()
    assert children.read_text().split() == before


def test_no_folder(tmp_path):
    with pytest.raises(StorageError, match="a.mp4 could not be written: there is no folder"):
        write_video(steps(2), tmp_path / "nowhere" / "a.mp4", 25)


def refusal(path) -> str:
    texts = []
    for call in (lambda: list(read_video(path)), lambda: probe_video(path)):
        with pytest.raises(InputError) as caught:
            call()
        texts.append(str(caught.value))
    assert texts[0] == texts[1] and path.name in texts[0] and texts[0].endswith(".") and "\n" not in texts[0]
    return texts[0]


def test_what_is_no_video_is_refused(tmp_path):
    assert "There is no video file" in refusal(tmp_path / "nope.mp4")
    assert "There is no video file" in refusal(tmp_path)
    write_video(noise(20), tmp_path / "whole.mp4", 25)
    whole = (tmp_path / "whole.mp4").read_bytes()
    for content in (b"", b"hello", whole[:100], whole[: len(whole) // 2], whole[:-200]):
        (tmp_path / "a.mp4").write_bytes(content)
        assert "not a video that can be read" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize("content", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile whole.mp4\n",
])
def test_playlists_that_open_other_files_are_refused(tmp_path, content):
    write_video(steps(20), tmp_path / "whole.mp4", 25)
    for name in ("a.mp4", "a.m3u8", "a.ffconcat"):
        (tmp_path / name).write_text(content)
        assert "not a video that can be read" in refusal(tmp_path / name)


def test_a_name_that_looks_like_an_option_or_a_protocol_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "concat:a|b.mp4", "100%d.mp4"):
        assert write_video(steps(2), name, 25) == 2
        assert probe_video(name).num_frames == 2
    assert len(os.listdir(tmp_path)) == 3


CHILD = """
    import os, resource, sys
    import numpy as np
    from dreampose_core.errors import StorageError
    from dreampose_core.video import write_gif, write_video
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 255, (128, 160, 3), dtype=np.uint8) for _ in range(int(sys.argv[3])))
    write = write_gif if sys.argv[1].endswith("gif") else write_video
    try:
        write(frames, sys.argv[1], 25)
    except StorageError as error:
        print(error)
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
@pytest.mark.parametrize("num_frames", [12, 60])  # the limit is met at the end, when buffers are written; and in the middle
def test_a_file_that_may_not_grow_is_a_plain_sentence(tmp_path, name, num_frames):
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / name), "100000", str(num_frames)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name} could not be written: the file may not grow larger.") and done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB; skipped where none may be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_at_any_moment_is_a_plain_sentence_and_loses_nothing(small_disk):
    write_video(steps(3), small_disk / "old.mp4", 25)
    before = (small_disk / "old.mp4").read_bytes()
    outcomes = []
    for num_frames in [*range(9, 20), 60, 200]:  # around the brim: while frames come, while the rest is flushed, while the index moves
        path = small_disk / "a.mp4"
        try:
            write_video(noise(num_frames), path, 25)
            assert probe_video(path).num_frames == num_frames
            path.unlink()
            outcomes.append(True)
        except StorageError as error:
            assert str(error).startswith("a.mp4 could not be written: the disk is full.") and "\n" not in str(error)
            outcomes.append(False)
        assert os.listdir(small_disk) == ["old.mp4"]
    assert outcomes[0] and not outcomes[-1] and outcomes == sorted(outcomes, reverse=True)
    with pytest.raises(StorageError, match="the disk is full"):
        write_video(noise(60), small_disk / "old.mp4", 25)
    assert (small_disk / "old.mp4").read_bytes() == before
    assert write_video(steps(3), small_disk / "new.mp4", 25) == 3  # there is room again


