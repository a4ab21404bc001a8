"""detectron2 dumps: what is read from them, and that nothing in them is ever run."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch

from dreampose_core.densepose.dump import read_dump
from dreampose_core.errors import InputError
from dreampose_core.media import write_png

FIELDS = {
    "DensePoseChartResult": ("labels", "uv"),
    "DensePoseChartResultQuantized": ("labels_uv_uint8",),
    "DensePoseChartResultCompressed": ("shape_chw", "labels_uv_str"),
}


@pytest.fixture
def densepose():
    """Stand-ins of detectron2's result classes under their true names, as a module that cannot be imported."""
    module = types.ModuleType("densepose.structures.chart_result")
    for name, fields in FIELDS.items():

        def init(self, *values, fields=fields):
            self.__dict__.update(zip(fields, values))

        setattr(module, name, type(name, (), {"__init__": init, "__module__": module.__name__, "__qualname__": name}))
    return module


@pytest.fixture
def dump(densepose, tmp_path, monkeypatch):
    """Writes entries as apply_net does, and gives the path; only while it writes can the module densepose be found."""

    def write(entries, **options):
        path = tmp_path / "results.pkl"
        with monkeypatch.context() as patch, open(path, "wb") as file:
            for name in ("densepose", "densepose.structures"):
                patch.setitem(sys.modules, name, types.ModuleType(name))
            patch.setitem(sys.modules, densepose.__name__, densepose)
            torch.save(entries, file, **options)
        return path

    return write


@pytest.fixture
def someone(densepose):
    """A person in the box (x0, y0, x1, y1): (box, score, result), all of one part, U and V constant, the left column
    background."""

    def make(box, part=1, u=0.25, v=0.5, score=0.98, quantised=False):
        height, width = max(int(box[3] - box[1]), 1), max(int(box[2] - box[0]), 1)
        labels = torch.full((height, width), part, dtype=torch.int64)
        labels[:, 0] = 0
        uv = torch.stack([torch.full((height, width), u), torch.full((height, width), v)]) * (labels > 0)
        if quantised:
            both = torch.cat([labels[None], uv * 255]).round().to(torch.uint8)
            return box, score, densepose.DensePoseChartResultQuantized(both)
        return box, score, densepose.DensePoseChartResult(labels, uv)

    return make


def entry(name: str, *people) -> dict:
    boxes = torch.tensor([box for box, _, _ in people], dtype=torch.float32).reshape(-1, 4)
    scores, results = torch.tensor([score for _, score, _ in people]), [result for *_, result in people]
    return {"file_name": name, "scores": scores, "pred_boxes_XYXY": boxes, "pred_densepose": results}


def refusal(path, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_dump(path, *args, **options)
    text = str(caught.value)
    assert "\n" not in text and text.endswith((".", "accepted.")) and path.name in text
    return text


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_parts_and_uv_lie_in_the_box(dump, someone, form):
    people = someone((10.6, 5.9, 30.2, 45.1), part=3), someone((12, 6, 32, 46), part=24)
    path = dump([entry(f"in/frame_{t}.png", person) for t, person in enumerate(people)], **form)
    reading = read_dump(path)
    poses = reading.poses
    assert (len(poses), poses.size, poses.charts, poses.fps) == (2, (46, 32), "densepose", 30.0)
    assert reading.form == "detectron2 dump"
    expected = np.zeros((46, 32), np.uint8)
    expected[5 : 5 + 39, 11 : 10 + 19] = 3
    assert np.array_equal(poses.parts[0], expected)
    assert np.array_equal(poses.uv[0], np.stack([expected > 0] * 2) * np.float16([0.25, 0.5])[:, None, None])
    assert set(np.unique(poses.parts[1])) == {0, 24}
    for words in ("32 x 46 pixels is inferred", "30 fps is assumed"):
        assert words in " ".join(reading.notices)


def test_quantised_results_and_uv_beyond_0_and_1(dump, someone):
    poses = read_dump(dump([entry("1.jpg", someone((0, 0, 20, 30), 7, 0.2, 1.0, quantised=True))])).poses
    assert set(np.unique(poses.parts)) == {0, 7}
    assert np.allclose(poses.uv[0][:, poses.parts[0] > 0].T, [0.2, 1.0], atol=1e-3)
    box, score, result = someone((0, 0, 20, 30), u=1.25, v=-0.5)
    result.uv[:, :, 0] = float("nan")  # on background, where it says nothing
    poses = read_dump(dump([entry("1.jpg", (box, score, result))])).poses
    assert np.array_equal(poses.uv[0, 0], (poses.parts[0] > 0).astype(np.float16)) and not poses.uv[0, 1].any()


def test_missing_numbers_and_frames_with_nobody_are_filled_and_told(dump, someone):
    """Frames 0, 5, 10, 20, 25 at a stride of 5; 15 was not dumped, in 5 nobody was found, in 25 only a guess of low
    score."""
    entries = [entry(f"{t}.png", someone((0, 0, 20, 30), part)) for t, part in ((0, 1), (10, 3), (20, 5))]
    entries += [entry("5.png"), entry("25.png", someone((0, 0, 20, 30), 9, score=0.1))]
    reading = read_dump(dump(entries))
    assert reading.poses.parts.max(axis=(1, 2)).tolist() == [1, 1, 3, 3, 5, 5]
    notice = "In results.pkl the person is missing in frames 5, 15 and 25; they repeat the nearest frame."
    assert notice in reading.notices


@pytest.mark.parametrize(
    ("names", "order"),
    [
        # apply_net sorts by name: 10 before 9; numbers before the last one, and that of the suffix, say nothing
        ([f"a/run7_frame_{t * 5}.mp4" for t in (10, 8, 9)], [2, 3, 1]),
        ([f"frame_{t}\n{'x' * 200}.png" for t in range(3)], [1, 2, 3]),
        (["second.jpg", "1.jpg"], [1, 2]),
        (["photo.jpg"], [1]),
    ],
)
def test_frames_are_in_the_order_of_the_last_number_or_of_the_dump(dump, someone, names, order):
    reading = read_dump(dump([entry(name, someone((0, 0, 20, 30), 1 + t)) for t, name in enumerate(names)]))
    assert reading.poses.parts.max(axis=(1, 2)).tolist() == order
    assert ("in the order of the dump" in reading.notices[0]) == (len(names) == 2)
    assert len(refusal(dump([entry(names[0], someone((0, 0, 20, 30), 30))]))) < 300, "shortened for sentences only"


@pytest.mark.parametrize(
    ("names", "seen", "words"),
    [
        ("0123", "2", "the person is missing in frames 0-1 and 3, which is 3 of 4"),
        (("a3", "b3", "c4"), ("a3", "b3", "c4"), "have the same number 3"),
        (("0", "1", f"{10**12}"), "0", "reach from 0 to 1000000000000, which is"),  # nothing is allocated
    ],
)
def test_numbers_that_make_no_clip(dump, someone, names, seen, words):
    entries = [entry(f"{name}.png", *[someone((0, 0, 9, 9))][: name in seen]) for name in names]
    assert words in refusal(dump(entries))


def test_the_larger_person_is_followed_and_the_other_on_demand(dump, someone):
    def people(t):
        return someone((60 + t, 0, 100 + t, 90), part=2), someone((5 + t, 40, 35 + t, 90), part=4)

    path = dump([entry(f"{t}.png", *people(t)[:: 1 if t % 2 else -1]) for t in range(6)])
    assert set(np.unique(read_dump(path).poses.parts)) == {0, 2}
    assert set(np.unique(read_dump(path, person=2).poses.parts)) == {0, 4}
    assert read_dump(path, person=2).poses.size == (90, 105)  # of all people: the frame is one
    assert "2 people" in refusal(path, person=3)


def test_the_size_is_taken_from_the_pictures_beside_it(dump, someone, tmp_path):
    path = dump([entry("/somewhere/else/frame_3.png", someone((0, 0, 20, 30)))])
    write_png(np.zeros((64, 48, 3), np.uint8), tmp_path / "frame_3.png")
    reading = read_dump(path)
    assert reading.poses.size == (64, 48) and any("frame_3.png" in notice for notice in reading.notices)
    write_png(np.zeros((16, 16, 3), np.uint8), tmp_path / "frame_3.png")  # of another picture: the person does not fit
    assert read_dump(path).poses.size == (30, 20)
    (tmp_path / "frame_3.png").write_bytes(b"broken")
    assert read_dump(path).poses.size == (30, 20)


def test_pictures_outside_are_never_opened(dump, someone, tmp_path, monkeypatch):
    """A name in a dump may be any path of the machine."""
    write_png(np.zeros((64, 48, 3), np.uint8), tmp_path / "frame.png")
    path = dump([entry(name, someone((0, 0, 20, 30))) for name in (str(tmp_path / "frame.png"), "../frame.png")])
    (tmp_path / "folder").mkdir()
    os.replace(path, tmp_path / "folder" / path.name)
    monkeypatch.chdir(tmp_path / "folder")
    assert read_dump(tmp_path / "folder" / path.name).poses.size == (30, 20)


def test_a_size_that_is_given_and_boxes_beyond_the_border(dump, someone):
    path = dump([entry("1.png", someone((0, 0, 20, 30)))])
    reading = read_dump(path, size=(50, 40))
    assert reading.poses.size == (50, 40) and not any("inferred" in notice for notice in reading.notices)
    assert "reaching to 20 x 30 pixels, so its pictures are not 40 x 25" in refusal(path, size=(25, 40))
    refusal(path, size=(90_000, 90_000))
    assert (read_dump(dump([entry("1.png", someone((-10, -5, 20, 30), 6))]), size=(30, 20)).poses.parts == 6).all()
    reading = read_dump(dump([entry("1.png", someone((0, 0, 768, 1536), 5))]))
    assert reading.poses.size == (768, 384) and (reading.poses.parts == 5).mean() > 0.99
    assert "768 x 1536 pixels are reduced to 384 x 768" in " ".join(reading.notices)


@pytest.mark.parametrize("box", [(0, 0, 1e6, 1e6), (0, 0, 9000, 10), (0, 0, 3e38, 1)])
def test_huge_boxes_are_refused_before_anything_is_allocated(dump, someone, box):
    _, score, result = someone((0, 0, 10, 10))
    path = dump([entry("1.png", someone((0, 0, 20, 30)), (box, score, result))])
    assert "pixels per side are accepted" in refusal(path)


def put(field: str, place, value):
    return lambda result: getattr(result, field).__setitem__(place, value)


def become(**fields):
    """fields: what makes the new tensor of the old one."""
    return lambda result: [setattr(result, name, make(getattr(result, name))) for name, make in fields.items()]


@pytest.mark.parametrize(
    "spoil",
    [
        put("labels", (3, 3), 25),
        put("labels", (3, 3), -1),
        put("uv", (0, 3, 3), float("nan")),
        become(labels=torch.Tensor.float),
        become(labels=lambda labels: None),
        become(labels=lambda labels: labels[:0], uv=lambda uv: uv[:, :0]),
        become(labels=lambda labels: labels[:-5], uv=lambda uv: uv[:, :-5]),  # of another size than the box
        become(uv=lambda uv: uv[:1]),
        become(labels=lambda labels: torch.zeros(1, dtype=torch.int64).expand(10**9, 10**9)),
        become(labels=torch.Tensor.to_sparse),
    ],
    ids=range(10),
)
def test_spoiled_results_are_named(dump, someone, spoil):
    box, score, result = someone((0, 0, 20, 30))
    spoil(result)
    text = refusal(dump([entry("frame_7.png", (box, score, result))]))
    assert "frame_7.png" in text and "labels from 0 to 24 and finite U, V that fit its box of 20 x 30 pixels" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({"pred_boxes_XYXY": boxes}, "belong together") for boxes in (torch.zeros(2, 4), torch.zeros(1, 5), None)),
        ({"pred_boxes_XYXY": torch.full((1, 4), float("nan"))}, "belong together"),
        *(({"scores": scores}, "belong together") for scores in (torch.tensor([float("inf")]), torch.zeros(3), "high")),
        *(({"pred_densepose": results}, "belong together") for results in ({}, [torch.zeros(3)])),
        ({"file_name": 5}, "without file_name"),
    ],
    ids=range(10),
)
def test_entries_that_do_not_fit_are_refused(dump, someone, change, words):
    assert words in refusal(dump([entry("1.png", someone((0, 0, 20, 30))) | change]))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("1.png"), entry("2.png")], "shows no person in any of its 2 frames"),
        ([], "does not hold a list"),
        ({"file_name": "1.png"}, "does not hold a list"),
        ([1, 2], "without file_name"),
        ([0] * 2001, "at most 2000"),
    ],
    ids=range(5),
)
def test_dumps_without_anybody(dump, entries, words):
    assert words in refusal(dump(entries))


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_a_dump_that_would_run_a_command_is_refused_by_name_and_does_not_run(
    dump, someone, tmp_path, monkeypatch, form
):
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    harmful = dump([entry("1.png", someone((0, 0, 20, 30))), Shell(f"echo > {marker}")], **form)
    text = refusal(harmful)
    assert f"asks for {os.name}.system, which" in text and "nothing of it was run" in text
    assert not marker.exists()
    if not form:
        torch.load(harmful, weights_only=False, pickle_module=StubbedPickle)  # the command is a real one
        assert marker.exists()


class StubbedPickle:
    """pickle as it is, but for the classes of detectron2."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            return type(name, (), {}) if module.startswith("densepose") else super().find_class(module, name)


def test_code_in_the_state_of_a_result_is_refused_by_name(dump, someone, tmp_path):
    box, score, result = someone((0, 0, 20, 30))
    result.extra = Shell(f"echo > {tmp_path / 'marker'}")
    assert f"{os.name}.system" in refusal(dump([entry("1.png", (box, score, result))]))
    assert not (tmp_path / "marker").exists()


def test_plain_pickles_and_other_classes_are_refused(dump, densepose, tmp_path):
    compressed = densepose.DensePoseChartResultCompressed((3, 1, 1), "")
    assert "chart_result.DensePoseChartResultCompressed" in refusal(dump([compressed]))
    path = tmp_path / "plain.pkl"
    for protocol in range(6):
        path.write_bytes(pickle.dumps([Shell(f"echo > {tmp_path / 'marker'}")], protocol))
        refusal(path)
    assert not (tmp_path / "marker").exists()


def test_a_dump_of_a_cse_model_is_named_as_such(dump, monkeypatch):
    module = types.ModuleType("densepose.structures.cse")
    name = "DensePoseEmbeddingPredictorOutput"
    setattr(module, name, type(name, (), {"__module__": module.__name__}))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert "dump of a CSE model" in refusal(dump([module.DensePoseEmbeddingPredictorOutput()]))


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_truncated_and_damaged_files(dump, someone, form):
    before = set(torch.serialization.get_safe_globals())
    path = dump([entry(f"{number}.png", someone((0, 0, 20, 30))) for number in (1, 2)], **form)
    data = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.6, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        refusal(path)
    for content in (b"", b"PK\x03\x04", b"\x80\x02.", b"no pickle at all" * 50, struct.pack("<Q", 10**15) * 40):
        path.write_bytes(content)
        refusal(path)
    rng = np.random.default_rng(0)
    for _ in range(75):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_dump(path)
        except InputError as error:
            assert "\n" not in str(error)
    path.unlink()
    refusal(path)
    assert set(torch.serialization.get_safe_globals()) == before, "no class stays allowed afterwards"
