"""Video files: one frame in is one frame out, players can play them, and a full disk leaves nothing half-written."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from dreampose_core.errors import Cancelled, InputError, StorageError
from dreampose_core.media import add_sound, extract_sound, is_video, probe_video, read_video, write_gif, write_video
from dreampose_core.media import ffmpeg as ffmpeg_process


def ffmpeg(*arguments, data: bytes = b"") -> bytes:
    """What ffmpeg writes to stdout; makes a file as some other program would. A text is several arguments."""
    words = [x for one in arguments for x in (one.split() if isinstance(one, str) else [str(one)])]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *words]
    return subprocess.run(command, check=True, input=data, timeout=300, stdout=subprocess.PIPE).stdout


def steps(num_frames: int, height=48, width=64):
    """Frames whose one colour tells their number."""
    return [np.full((height, width, 3), 16 + 8 * i, np.uint8) for i in range(num_frames)]


def numbers(frames) -> list[int]:
    """The numbers that `steps` put into the frames."""
    return [round((float(f.mean()) - 16) / 8) for f in frames]


def source(size="64x48", rate=25, seconds=1.0) -> str:
    return f"-f lavfi -i testsrc=s={size}:r={rate}:d={seconds}"


def noise(num_frames: int, height=128, width=160):
    rng = np.random.default_rng(0)
    for _ in range(num_frames):
        yield rng.integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("num_frames", "fps"), [(1, 30), (2, 12.5), (25, 24000 / 1001)])
def test_every_frame_arrives_once_and_in_order(tmp_path, num_frames, fps):
    write_video(iter(steps(num_frames)), tmp_path / "a.mp4", fps)
    info = probe_video(tmp_path / "a.mp4")
    assert (info.num_frames, info.height, info.width) == (num_frames, 48, 64)
    assert (info.codec, info.pixel_format, info.fps) == ("h264", "yuv420p", pytest.approx(fps, rel=1e-6))
    frames = list(read_video(tmp_path / "a.mp4"))
    assert all(f.dtype == np.uint8 and f.shape == (48, 64, 3) and f.flags.writeable for f in frames)
    assert numbers(frames) == list(range(num_frames))


def test_the_index_comes_first_and_time_starts_at_0(tmp_path):
    write_video(steps(25), tmp_path / "a.mp4", 25)
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    command = ["ffprobe", *"-v error -show_streams -print_format json".split(), str(tmp_path / "a.mp4")]
    stream = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"][0]
    assert (stream["codec_name"], stream["pix_fmt"]) == ("h264", "yuv420p")
    assert (stream["color_space"], stream["nb_frames"]) == ("bt709", "25")
    assert float(stream["start_time"]) == 0 and float(stream["duration"]) == pytest.approx(1)


def test_colours_survive(tmp_path):
    quarters = np.array([[(200, 60, 30), (20, 180, 60)], [(40, 50, 210), (240, 235, 220)]], np.uint8)
    frame = quarters.repeat(32, 0).repeat(32, 1)
    write_video([frame] * 5, tmp_path / "a.mp4", 25)
    write_video([frame] * 5, tmp_path / "b.mp4", 25, crf=51)
    assert (tmp_path / "a.mp4").stat().st_size > (tmp_path / "b.mp4").stat().st_size
    back = next(read_video(tmp_path / "a.mp4"))
    for y, x in ((16, 16), (16, 48), (48, 16), (48, 48)):
        assert np.abs(back[y, x].astype(int) - frame[y, x]).max() <= 5


def test_odd_sides_are_padded_by_their_edge(tmp_path):
    frame = np.zeros((33, 41, 3), np.uint8)
    frame[-8:], frame[:, -8:] = 200, 200
    write_video([frame] * 3, tmp_path / "a.mp4", 25)
    back = list(read_video(tmp_path / "a.mp4"))
    assert len(back) == 3 and back[0].shape == (34, 42, 3)
    assert back[0][-1].min() > 180 and back[0][:, -1].min() > 180  # not black


def test_gif(tmp_path):
    write_gif(iter(steps(12, 33, 41)), tmp_path / "a.gif", 20)
    info = probe_video(tmp_path / "a.gif")
    assert (info.num_frames, info.height, info.width, info.codec) == (12, 33, 41, "gif")
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in (tmp_path / "a.gif").read_bytes()  # endless
    assert numbers(read_video(tmp_path / "a.gif")) == list(range(12))


def test_frames_that_are_wrong_or_missing(tmp_path):
    with pytest.raises(StorageError, match="a.mp4 could not be written: there is no folder"):
        write_video(steps(2), tmp_path / "nowhere" / "a.mp4", 25)
    floats = np.zeros((8, 8, 3), np.float32)
    for frames in ([], [floats], [*steps(2), np.zeros((8, 8, 3), np.uint8)]):
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


def refusal(path) -> str:
    texts = []
    for call in (lambda: list(read_video(path)), lambda: probe_video(path)):
        with pytest.raises(InputError) as caught:
            call()
        texts.append(str(caught.value))
    assert texts[0] == texts[1] and path.name in texts[0] and texts[0].endswith(".") and "\n" not in texts[0]
    return texts[0]


@pytest.mark.parametrize(
    ("suffix", "encoding"),
    [
        ("mov", "-c:v mpeg4 -q:v 2"),
        ("webm", "-c:v libvpx-vp9 -crf 20"),
        ("mkv", "-c:v copy"),
        ("mp4", "-c:v libx265 -loglevel quiet"),
        ("gif", ""),
        ("avi", "-c:v mpeg4 -q:v 2"),
        ("wmv", "-c:v wmv2 -q:v 2"),
        ("mpg", "-q:v 2"),
        ("ts", "-c:v copy"),
        ("m2ts", "-c:v copy"),
    ],
)
def test_the_forms_are_read_whatever_their_names(tmp_path, suffix, encoding):
    write_video(steps(20), tmp_path / "own.mp4", 25)
    ffmpeg("-i", tmp_path / "own.mp4", encoding, tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.bin")
    info = probe_video(tmp_path / "a.bin")
    assert is_video(tmp_path / "a.bin")
    assert (info.num_frames, info.height, info.width, info.variable) == (20, 48, 64, False)
    assert info.fps == pytest.approx(25, rel=1e-6) and info.seconds == pytest.approx(0.8, abs=0.01)
    assert numbers(read_video(tmp_path / "a.bin")) == list(range(20))


@pytest.mark.parametrize(
    ("suffix", "encoding"),
    [("mp4", "libx264 -pix_fmt yuv420p10le"), ("mov", "prores_ks"), ("webm", "libvpx-vp9 -pix_fmt yuv420p10le")],
)
def test_more_than_eight_bits_a_channel_are_read(tmp_path, suffix, encoding):
    path = tmp_path / f"a.{suffix}"
    ffmpeg(source(seconds=0.4), "-c:v", encoding, path)
    frames = np.stack(list(read_video(path)))
    ffmpeg(source(seconds=0.4), "-c:v libx264 -qp 0", tmp_path / "plain.mp4")
    plain = np.stack(list(read_video(tmp_path / "plain.mp4")))
    assert frames.dtype == np.uint8 and frames.shape == plain.shape
    assert np.abs(frames.astype(int) - plain).mean() < 12


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
@pytest.mark.parametrize("codec", ["libx265 -x265-params log-level=none", "libvpx-vp9"])
def test_hdr_is_mapped_to_standard_range(tmp_path, transfer, codec):
    """Greys of a standard picture, stored as HDR, come back about as bright as they were, the darker one darker."""
    greys = np.linspace(20, 200, 8).astype(np.uint8)
    picture = np.repeat(np.repeat(np.repeat(greys, 16)[None, :, None], 64, 0), 3, 2)
    plain = "color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    linear = f"scale=out_color_matrix=bt709:out_range=tv,format=yuv444p,setparams={plain},zscale=t=linear:npl=100"
    bright = f"{linear},format=gbrpf32le,zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl=100,format=yuv420p10le"
    tags = f"-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc"
    path = tmp_path / ("a.mov" if "265" in codec else "a.webm")
    given = f"-f rawvideo -pix_fmt rgb24 -s {picture.shape[1]}x64 -r 5 -i -"
    ffmpeg(given, "-vf", bright, "-c:v", codec, tags, path, data=picture.tobytes() * 3)
    found = next(iter(read_video(path)))[32, 8::16].mean(1)
    assert (np.diff(found) > 4).all() and np.abs(found - greys).max() < 15


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(tmp_path, rotation, turns):
    frame = np.full((48, 64, 3), 20, np.uint8)
    frame[:24, :32] = 220  # top left
    write_video([frame] * 5, tmp_path / "own.mp4", 25)
    ffmpeg(f"-display_rotation {rotation} -i", tmp_path / "own.mp4", "-c copy", tmp_path / "a.mp4")
    expected = np.rot90(frame, turns).astype(int)
    info, frames = probe_video(tmp_path / "a.mp4"), list(read_video(tmp_path / "a.mp4"))
    assert (info.height, info.width) == expected.shape[:2] and info.codec == "h264"
    assert len(frames) == 5 and all(np.abs(f.astype(int) - expected).mean() < 5 for f in frames)


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    write_video(steps(5), tmp_path / "own.mp4", 25)
    ffmpeg("-i", tmp_path / "own.mp4", "-vf setsar=2", tmp_path / "a.mp4")
    info = probe_video(tmp_path / "a.mp4")
    assert (info.height, info.width) == (48, 128) == next(read_video(tmp_path / "a.mp4")).shape[:2]


def test_frames_of_uneven_length_are_made_even(tmp_path):
    write_video(steps(10), tmp_path / "own.mp4", 10)
    uneven = r"-vf setpts=(N+gt(N\,4)*10)/10/TB -fps_mode vfr"  # one second of rest after frame 4
    ffmpeg("-i", tmp_path / "own.mp4", uneven, tmp_path / "a.mp4")
    info = probe_video(tmp_path / "a.mp4")
    assert info.variable and info.fps == pytest.approx(10) and info.seconds == pytest.approx(2.0, abs=0.01)
    assert numbers(read_video(tmp_path / "a.mp4")) == list(range(info.num_frames)) == list(range(10))  # once each
    assert numbers(read_video(tmp_path / "a.mp4", fps=10)) == [0, 1, 2, 3] + [4] * 11 + [5, 6, 7, 8, 9]
    assert numbers(read_video(tmp_path / "a.mp4", fps=5))[::2] == [0, 4, 4, 4, 6]
    assert not probe_video(tmp_path / "own.mp4").variable


@pytest.mark.parametrize(("fps", "expected"), [(10, 10), (5, 5), (20, 20), (24000 / 1001, 24), (3, 3)])
def test_another_rate_keeps_the_time(tmp_path, fps, expected):
    write_video(steps(10), tmp_path / "a.mp4", 10)
    found = numbers(read_video(tmp_path / "a.mp4", fps=fps))
    assert len(found) == expected and found == sorted(found)
    half = 0.5 / max(10, fps)
    # nearest, or on the screen
    assert all(-half - 0.001 <= i / fps - n / 10 <= 0.101 - half for i, n in enumerate(found))


def test_slow_gifs_have_a_rate_of_one(tmp_path):
    write_gif(steps(3), tmp_path / "a.gif", 0.5)
    info = probe_video(tmp_path / "a.gif")
    assert (info.num_frames, info.fps, info.variable) == (3, 1.0, True) and info.seconds == pytest.approx(6)
    assert numbers(read_video(tmp_path / "a.gif", fps=info.fps)) == [0, 0, 1, 1, 2, 2]


def test_large_pictures_are_reduced_on_the_way(tmp_path):
    frame = np.zeros((48, 96, 3), np.uint8)
    frame[:, 1::2] = 240  # columns of one pixel: averaged to grey, or picked as they are
    path = tmp_path / "a.mkv"
    ffmpeg("-f rawvideo -pix_fmt rgb24 -s 96x48 -i - -c:v ffv1", path, data=frame.tobytes() * 3)
    small, labels = next(read_video(path, max_side=32)), next(read_video(path, max_side=32, nearest=True))
    assert small.shape == labels.shape == (16, 32, 3)
    assert 60 < small.min() and small.max() < 180 and set(np.unique(labels)) <= {0, 240}
    assert all((next(read_video(path, max_side=side)) == frame).all() for side in (96, 500))


def test_what_is_too_long_is_refused_and_60_seconds_are_not(tmp_path):
    ffmpeg(source("16x16", 5, 61), tmp_path / "a.mp4")
    assert refusal(tmp_path / "a.mp4") == "a.mp4 is longer than 60 seconds; please cut it to the part that is needed."
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):  # durations, set to next to nothing
        at = content.find(box) + offset
        content[at : at + 4] = (1).to_bytes(4, "big")
    (tmp_path / "a.mp4").write_bytes(content)
    assert "longer than 60 seconds" in refusal(tmp_path / "a.mp4"), "found by decoding, not by the header"
    ffmpeg(source("16x16", 5, 60), tmp_path / "b.mp4")
    assert probe_video(tmp_path / "b.mp4").seconds == pytest.approx(60)
    assert sum(1 for _ in read_video(tmp_path / "b.mp4")) == 300
    # one picture that is shown for two minutes: few frames, but many once they are made even
    ffmpeg(source("16x16", Fraction(1, 120), 120), "-c:v libx264", tmp_path / "c.mp4")
    assert "longer than 60 seconds" in refusal(tmp_path / "c.mp4")
    with pytest.raises(InputError, match="longer than 60 seconds"):
        list(read_video(tmp_path / "c.mp4", fps=30))


@pytest.mark.parametrize("size", ["7700x4400", "4400x7700"])
def test_what_is_too_wide_is_refused(tmp_path, size):
    ffmpeg(f"-f lavfi -i color=c=red:s={size}:r=5:d=0.2 -c:v mpeg4", tmp_path / "a.mp4")
    text = refusal(tmp_path / "a.mp4")
    assert size.replace("x", " x ") in text and "at most 7680 x 4320" in text


@pytest.mark.parametrize(("rate", "seconds"), [(480, 0.1), (300, 3)])
def test_what_is_too_fast_is_refused(tmp_path, rate, seconds):
    ffmpeg(source("16x16", rate, seconds), tmp_path / "a.mp4")
    assert "more than 240 frames per second" in refusal(tmp_path / "a.mp4")
    ffmpeg(source("16x16", 240, seconds), tmp_path / "b.mp4")
    assert probe_video(tmp_path / "b.mp4").fps == pytest.approx(240)


def test_a_picture_size_that_changes_is_refused(tmp_path):
    for size in ("64x48", "48x64"):
        ffmpeg(source(size, 10, 0.3), "-c:v libvpx", tmp_path / f"{size}.webm")
    (tmp_path / "list").write_text("file 64x48.webm\nfile 48x64.webm\n")
    ffmpeg("-f concat -i", tmp_path / "list", "-c copy", tmp_path / "a.webm")
    assert "changes its picture size from 64 x 48 to 48 x 64" in refusal(tmp_path / "a.webm")


def test_sound_and_cover_pictures_are_no_video(tmp_path):
    ffmpeg("-f lavfi -i sine=d=1 -c:a aac", tmp_path / "a.mp4")
    assert "holds no video" in refusal(tmp_path / "a.mp4")
    ffmpeg(source(), "-frames:v 1", tmp_path / "cover.png")
    cover = "-map 0 -map 1 -c copy -disposition:v:0 attached_pic"
    ffmpeg("-i", tmp_path / "a.mp4", "-i", tmp_path / "cover.png", cover, tmp_path / "b.mp4")
    assert "holds no video" in refusal(tmp_path / "b.mp4")


def test_the_first_video_stream_counts(tmp_path):
    write_video(steps(5), tmp_path / "own.mp4", 25)
    streams = "-f lavfi -i sine=d=1 -map 2 -map 1 -map 0"
    ffmpeg(source(), "-i", tmp_path / "own.mp4", streams, tmp_path / "a.mkv")
    info = probe_video(tmp_path / "a.mkv")
    assert (info.num_frames, info.codec) == (5, "h264")
    assert numbers(read_video(tmp_path / "a.mkv")) == list(range(5))


def test_network_addresses_are_names_of_no_file(tmp_path):
    for address in ("http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "data:video/mp4;base64,AAAA", "a.mp4\x00b"):
        with pytest.raises(InputError, match="There is no video file"):
            probe_video(address)
        assert not is_video(address)


def test_references_to_other_files_are_not_followed(tmp_path, monkeypatch):
    """An old MOV may say that its frames lie in another file; that file is not opened."""
    write_video(steps(20), tmp_path / "own.mp4", 25)
    content = (tmp_path / "own.mp4").read_bytes()
    at = content.find(b"url \x00\x00\x00\x01")
    assert at > 0
    name = b"own.mp4\x00"
    alias = b"alis" + bytes(154) + b"\x00\x02" + len(name).to_bytes(2, "big") + name + b"\xff\xff\x00\x00"
    entry = (len(alias) + 4).to_bytes(4, "big") + alias
    changed = bytearray(content[: at - 4] + entry + content[at + 8 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        where = changed.find(box) - 4
        size = int.from_bytes(changed[where : where + 4], "big") + len(entry) - 12
        changed[where : where + 4] = size.to_bytes(4, "big")
    where = changed.find(b"mdat")
    (tmp_path / "a.mov").write_bytes(changed[: where + 4] + bytes(len(changed) - where - 4))  # without its own frames
    monkeypatch.chdir(tmp_path)  # from here the name would lead to it
    with pytest.raises(InputError):
        list(read_video("a.mov"))


def test_memory_is_limited(tmp_path, monkeypatch):
    write_video(steps(5), tmp_path / "a.mp4", 25)
    monkeypatch.setattr(ffmpeg_process, "MAX_MEMORY", 48 << 20)
    with pytest.raises(InputError, match="a.mp4"):
        probe_video(tmp_path / "a.mp4")
    monkeypatch.undo()
    assert probe_video(tmp_path / "a.mp4").num_frames == 5


@pytest.mark.parametrize("codec", ["libx264 -preset ultrafast", "mpeg4"])
def test_the_largest_honest_pictures_fit_into_the_memory_limit(tmp_path, codec):
    ffmpeg(source("7680x4320", 5, 0.4), "-c:v", codec, tmp_path / "a.mp4")
    assert [frame.shape for frame in read_video(tmp_path / "a.mp4", max_side=768)] == [(432, 768, 3)] * 2


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system cannot limit another process")
def test_time_is_limited(tmp_path, monkeypatch):
    ffmpeg(source("1920x1080", 60, 0.2), "-preset ultrafast", tmp_path / "few.mp4")
    ffmpeg("-stream_loop 100 -i", tmp_path / "few.mp4", "-c copy", tmp_path / "a.mp4")
    monkeypatch.setattr(ffmpeg_process, "MAX_CPU_S", 1)
    assert "takes too long to decode" in refusal(tmp_path / "a.mp4")


def loudness(path, start: float, seconds: float) -> float:
    """How loud a file is in a stretch of time, 0 for silence."""
    sound = ffmpeg(f"-ss {start} -t {seconds} -i", path, "-f s16le -ac 1 -")
    return float(np.abs(np.frombuffer(sound, np.int16).astype(float)).mean()) if sound else 0.0


@pytest.fixture
def beep(tmp_path):
    """A video of 4 seconds that is silent but for its third second."""
    tone = "-f lavfi -i sine=d=4 -af volume=enable='lt(t,2)+gt(t,3)':volume=0 -c:a aac"
    ffmpeg(source("64x48", 25, 4), tone, tmp_path / "beep.mp4")
    return tmp_path / "beep.mp4"


def test_sound_is_taken_from_its_time_and_put_under_another_video(tmp_path, beep):
    assert extract_sound(beep, tmp_path / "s.m4a", 1.5, 2.0)
    assert loudness(tmp_path / "s.m4a", 0, 0.4) < 20 < 500 < loudness(tmp_path / "s.m4a", 0.6, 0.8)
    for num_frames, rate in ((20, 20), (60, 20)):  # shorter and longer than the sound
        write_video(steps(num_frames // 2) * 2, tmp_path / "v.mp4", rate)
        add_sound(tmp_path / "v.mp4", tmp_path / "s.m4a", tmp_path / "out.mp4")
        info = probe_video(tmp_path / "out.mp4")
        assert (info.num_frames, info.fps, info.codec) == (num_frames, rate, "h264")
        same, own = ([f.tobytes() for f in read_video(tmp_path / name)] for name in ("out.mp4", "v.mp4"))
        assert same == own
        assert loudness(tmp_path / "out.mp4", 0, 0.4) < 20 < 500 < loudness(tmp_path / "out.mp4", 0.6, 0.3)
        sound = ffmpeg("-i", tmp_path / "out.mp4", "-f s16le -ac 1 -ar 1000 -")
        assert len(sound) / 2000 <= num_frames / rate + 0.06  # cut to the pictures' length
    add_sound(tmp_path / "v.mp4", tmp_path / "s.m4a", tmp_path / "v.mp4")  # onto itself
    assert loudness(tmp_path / "v.mp4", 0.6, 0.3) > 500


def test_sound_that_begins_late_stays_late(tmp_path):
    ffmpeg(source("64x48", 25, 2), "-f lavfi -itsoffset 1 -i sine=d=1 -c:a aac", tmp_path / "a.mp4")
    assert extract_sound(tmp_path / "a.mp4", tmp_path / "s.m4a", 0, 2)
    assert loudness(tmp_path / "s.m4a", 0, 0.8) < 20 < 500 < loudness(tmp_path / "s.m4a", 1.2, 0.6)


@pytest.mark.parametrize("form", ["mp4", "mkv", "ts", "mov"])
@pytest.mark.parametrize("late_s", [-0.7, 1.0])
def test_sound_keeps_step_with_pictures_that_begin_later(tmp_path, form, late_s):
    """A beep at 2 s of the pictures, in files whose pictures begin `late_s` after the sound."""
    offset = f"-itsoffset {max(0, late_s)}"
    beeping = f"sine=f=800:d=4,volume=enable='lt(t,{2 + late_s})':volume=0"
    sound = f"-itsoffset {max(0, -late_s)} -f lavfi -i {beeping}"
    codecs = "-c:v mpeg4 -c:a aac -shortest"
    path = tmp_path / f"a.{form}"
    ffmpeg(offset, source(seconds=4), sound, codecs, path)
    assert extract_sound(path, tmp_path / "s.m4a", 1.0, 2.0)
    assert loudness(tmp_path / "s.m4a", 0, 0.9) < 20 < 500 < loudness(tmp_path / "s.m4a", 1.1, 0.5)


@pytest.mark.parametrize("form", ["mp4", "mkv", "webm", "avi"])
def test_the_good_part_of_a_damaged_video_is_read(tmp_path, form):
    path = tmp_path / f"a.{form}"
    codec = "libvpx" if form == "webm" else "mpeg4"
    ffmpeg(source("320x240", 25, 4), f"-c:v {codec} -b:v 2M -g 5 -movflags +faststart", path)
    whole = probe_video(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    assert "damaged" in refusal(path)
    info = probe_video(path, partly=True)
    assert 0.3 * whole.num_frames < info.num_frames < whole.num_frames
    assert re.fullmatch(r"is damaged after [123]\.\d seconds; the rest is left out\.", info.left_out)
    assert info.num_frames - 1 <= len(list(read_video(path, partly=True))) <= info.num_frames


@pytest.mark.parametrize("form", ["mp4", "mkv", "webm", "gif"])
def test_the_first_minute_of_a_long_video_is_read(tmp_path, form):
    path = tmp_path / f"a.{form}"
    ffmpeg(source("32x32", 5, 63), path)
    info = probe_video(path, partly=True)
    assert info.num_frames == 300 and info.left_out == "is longer than 60 seconds; the rest is left out."
    assert len(list(read_video(path, partly=True))) == 300


def test_no_sound_leaves_no_file(tmp_path, beep):
    write_video(steps(5), tmp_path / "mute.mp4", 25)
    assert not extract_sound(tmp_path / "mute.mp4", tmp_path / "s.m4a", 0, 1)
    assert not extract_sound(beep, tmp_path / "s.m4a", 30, 1)
    (tmp_path / "bad.mp4").write_bytes(beep.read_bytes()[:2000])
    with pytest.raises(InputError, match="bad.mp4 is not a video"):
        extract_sound(tmp_path / "bad.mp4", tmp_path / "s.m4a", 0, 1)
    with pytest.raises(StorageError, match="there is no folder"):
        extract_sound(beep, tmp_path / "nowhere" / "s.m4a", 0, 1)
    assert sorted(os.listdir(tmp_path)) == ["bad.mp4", "beep.mp4", "mute.mp4"]


def test_a_name_that_looks_like_an_option_or_a_protocol_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "concat:a|b.mp4", "100%d.mp4"):
        write_video(steps(2), name, 25)
        assert probe_video(name).num_frames == 2
    assert len(os.listdir(tmp_path)) == 3


@pytest.fixture
def small_files():
    """Files may not grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# the limit is met at the end, when buffers are written; midway
@pytest.mark.parametrize(("name", "num_frames"), [("a.mp4", 12), ("a.mp4", 60), ("a.gif", 12)])
def test_a_file_that_may_not_grow_is_a_plain_sentence(tmp_path, small_files, name, num_frames):
    with pytest.raises(StorageError, match=f"^{name} could not be written: the file may not grow larger") as error:
        (write_gif if name.endswith("gif") else write_video)(noise(num_frames), tmp_path / name, 25)
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []


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
    # around the brim: while frames come, while the rest is flushed, while the index moves
    for num_frames in (*range(9, 20, 2), 60, 200):
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
    write_video(steps(3), small_disk / "new.mp4", 25)  # there is room again
