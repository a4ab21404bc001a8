"""The TorchScript estimator against scripted stand-ins that have the real network's signature; torchvision is not
needed."""

from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreampose_core.densepose import Estimates
from dreampose_core.densepose.torchscript import LICENCE, TorchScriptEstimator
from dreampose_core.errors import Cancelled, InputError, ModelError

SIZE = (80, 100)  # of the frames
RED, GREEN, BLUE = 0, 1, 2
SOMEONE = (BLUE, 20, 10, 60, 66)  # left, top, right, bottom


class Painted(nn.Module):
    """Sees one person for each channel of its input that is not black: the rectangle of what is painted, moved by
    `shift`.

    The person of channel c has part 2 c + 1 in the left and 2 c + 2 in the right half, the coarse map is background in
    the top quarter.
    U is 0.25 in the left and 1.5 in the right part and 0.9 in all others, V runs from 0 at the top to 1 at the bottom.
    """

    def __init__(self, shift: tuple[float, float] = (0, 0), coarse_channels: int = 2):
        super().__init__()
        fine, u = torch.zeros(3, 25, 112, 112), torch.full((3, 25, 112, 112), 0.9)
        for c in range(3):
            fine[c, 2 * c + 1, :, :56] = fine[c, 2 * c + 2, :, 56:] = 5
            u[c, 2 * c + 1], u[c, 2 * c + 2] = 0.25, 1.5
        coarse = torch.zeros(3, coarse_channels, 112, 112)
        coarse[:, 0, :28] = coarse[:, -1, 28:] = 3
        v = ((torch.arange(112) + 0.5) / 112)[:, None].expand(3, 25, 112, 112).contiguous()
        for name, tensor in dict(fine=fine, coarse=coarse, u=u, v=v, shift=torch.tensor([*shift, *shift])).items():
            self.register_buffer(name, tensor)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        assert image.dtype == torch.uint8 and image.shape[0] == 3
        boxes, who = [torch.zeros(4)], [0]
        for c in range(3):
            spots = (image[c] > 0).nonzero()
            if len(spots) > 0:
                low, high = spots.min(dim=0)[0].flip(0), spots.max(dim=0)[0].flip(0) + 1
                boxes.append(torch.cat([low, high]) + self.shift)
                who.append(c)
        found = torch.tensor(who)[1:]
        return torch.stack(boxes)[1:], self.coarse[found], self.fine[found], self.u[found], self.v[found]


class Fixed(nn.Module):
    """Answers with the same tensors whatever it sees."""

    def __init__(self, boxes: Tensor, coarse: Tensor, fine: Tensor, u: Tensor, v: Tensor):
        super().__init__()
        for name, tensor in dict(boxes=boxes, coarse=coarse, fine=fine, u=u, v=v).items():
            self.register_buffer(name, tensor)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.boxes, self.coarse, self.fine, self.u, self.v


@pytest.fixture(autouse=True)
def no_torchvision_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))


@pytest.fixture
def saved(tmp_path):
    """Saves a module as a TorchScript file and gives its path."""

    def save(module: nn.Module):
        path = tmp_path / "network.torchscript"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(module).save(str(path))
        return path

    return save


def frame(*rectangles: tuple[int, int, int, int, int]) -> np.ndarray:
    """Black, with rectangles (channel of RGB, left, top, right, bottom)."""
    image = np.zeros((*SIZE, 3), np.uint8)
    for channel, left, top, right, bottom in rectangles:
        image[top:bottom, left:right, channel] = 200
    return image


def answer(boxes=((10, 10, 50, 60),), coarse=2, fine=25, u=25, v=25, side=112) -> list[Tensor]:
    torch.manual_seed(0)
    maps = (torch.rand(len(boxes), channels, side, side) for channels in (coarse, fine, u, v))
    return [torch.tensor(boxes, dtype=torch.float32), *maps]


@pytest.mark.parametrize("coarse_channels", [2, 15])
def test_parts_and_uv_lie_where_the_person_is(saved, coarse_channels):
    estimator = TorchScriptEstimator(saved(Painted(coarse_channels=coarse_channels)))
    poses = estimator.estimate([frame(SOMEONE)])
    expected = np.zeros(SIZE, np.uint8)
    expected[10 + 14 : 66, 20:40] = 1  # the top quarter of the box is background by the coarse map
    expected[10 + 14 : 66, 40:60] = 2
    assert np.array_equal(poses.parts[0], expected)
    assert poses.charts == "densepose" and poses.fps == 30 and poses.size == SIZE and len(poses) == 1
    u, v = poses.uv[0].astype(np.float32)
    assert set(np.unique(u[expected == 1])) == {0.25} and set(np.unique(u[expected == 2])) == {1.0}  # 1.5 is cut to 1
    assert np.abs(v - np.where(expected > 0, (np.arange(SIZE[0]) - 10 + 0.5)[:, None] / 56, 0)).max() < 1e-3
    assert not u[expected == 0].any()


def test_the_whole_of_random_answers_equals_the_plain_formula(saved):
    """All channels resized at once, argmax, gather."""
    boxes, coarse, fine, u, v = answer(boxes=((12.7, 5.2, 60.9, 70.8),))
    poses = TorchScriptEstimator(saved(Fixed(boxes, coarse, fine, u * 1.5 - 0.25, v))).estimate([frame()])
    height, width = 65, 48
    coarse, fine, u, v = (
        F.interpolate(x, (height, width), mode="bilinear", align_corners=False)[0]
        for x in (coarse, fine, u * 1.5 - 0.25, v)
    )
    parts = fine.argmax(0) * (coarse.argmax(0) > 0)
    uv = torch.stack([x.gather(0, parts[None])[0] * (parts > 0) for x in (u, v)]).clamp(0, 1)
    inside = np.s_[5 : 5 + height, 12 : 12 + width]
    assert len(np.unique(parts)) == 25
    assert np.array_equal(poses.parts[0][inside], parts.numpy())
    assert np.abs(poses.uv[0][:, *inside].astype(np.float32) - uv.numpy()).max() < 1e-3
    assert (poses.parts[0] > 0).sum() == (parts > 0).sum()


@pytest.mark.parametrize(
    ("shift", "rows", "columns"),
    [
        ((-30, 0), slice(24, 66), slice(0, 30)),
        ((0, -34), slice(0, 32), slice(20, 60)),
        ((55, 30), slice(54, 80), slice(75, 100)),
    ],
)
def test_a_box_beyond_the_border_is_cut_off_there(saved, shift, rows, columns):
    whole = TorchScriptEstimator(saved(Painted())).estimate([frame(SOMEONE)])
    poses = TorchScriptEstimator(saved(Painted(shift))).estimate([frame(SOMEONE)])
    corners = [[rows.start, columns.start], [rows.stop - 1, columns.stop - 1]]
    assert np.array_equal(np.argwhere(poses.parts[0])[[0, -1]], corners)
    moved = np.s_[rows.start - shift[1] : rows.stop - shift[1], columns.start - shift[0] : columns.stop - shift[0]]
    assert np.array_equal(poses.parts[0, rows, columns], whole.parts[0][moved])
    assert np.array_equal(poses.uv[0, :, rows, columns], whole.uv[0][:, *moved])


@pytest.mark.parametrize(("colours", "expected"), [("bgr", {5, 6}), ("rgb", {1, 2})])
def test_colour_order(saved, colours, expected):
    poses = TorchScriptEstimator(saved(Painted()), colours=colours).estimate([frame((RED, 20, 10, 60, 66))])
    assert set(np.unique(poses.parts)) == {0} | expected


def test_two_people_and_frames_without_anybody(saved):
    """Blue is larger, but for one frame; green is not seen in frame 2, nobody in frame 3."""
    blue, green = (BLUE, 5, 5, 45, 75), (GREEN, 60, 20, 90, 70)
    frames = [frame(blue, green), frame((BLUE, 5, 40, 45, 75), green), frame(blue), frame(), frame(green, blue)]
    path = saved(Painted())
    first, second = TorchScriptEstimator(path).estimate(frames), TorchScriptEstimator(path, person=2).estimate(frames)
    assert [set(np.unique(x)) for x in first.parts] == [{0, 1, 2}] * 3 + [{0}, {0, 1, 2}]
    assert [set(np.unique(x)) for x in second.parts] == [{0, 3, 4}] * 2 + [{0}] * 2 + [{0, 3, 4}]
    assert not first.uv[3].any() and not second.uv[2].any()
    with pytest.raises(InputError, match="Person 3 .* 2 people"):
        TorchScriptEstimator(path, person=3).estimate(frames)


def test_people_beside_the_chosen_one_are_told(saved):
    blue, green = (BLUE, 5, 5, 45, 75), (GREEN, 60, 20, 90, 70)
    path = saved(Painted())
    estimates = Estimates("torchscript", file=path)
    own, said = estimates.of_photo(frame(blue, green, (RED, 92, 2, 98, 20)))
    assert set(np.unique(own.parts)) == {0, 1, 2}
    assert said == ("Two people are in the photo: the larger one is used.",), "red is far behind"
    for alone in (frame(blue), frame(blue, (GREEN, 10, 10, 40, 40))):  # green is part of blue
        assert estimates.of_photo(alone)[1] == ()
    # a person who was asked for needs no notice
    assert Estimates("torchscript", file=path, person=2).of_photo(frame(blue, green))[1] == ()


def test_nobody_is_background_whatever_shape_the_answer_has(saved):
    for module in (Painted(), Fixed(*(torch.zeros(0) for _ in range(5)))):
        poses = TorchScriptEstimator(saved(module)).estimate(frame() for _ in range(3))
        assert poses.parts.shape == (3, *SIZE) and not poses.parts.any() and not poses.uv.any()
    boxes = ((-50, 0, -10, 50), (110, 0, 150, 50), (10, 10, 50, 60))  # two are outside the picture
    poses = TorchScriptEstimator(saved(Fixed(*answer(boxes=boxes)))).estimate([frame()])
    assert np.argwhere(poses.parts[0]).min() >= 10


def test_no_pictures_and_a_generator_of_frames_that_cancels(saved):
    def frames():
        yield frame()
        raise Cancelled("stopped on request")

    estimator = TorchScriptEstimator(saved(Painted()))
    for images, error in (([], InputError), (frames(), Cancelled)):
        with pytest.raises(error):
            estimator.estimate(images)


@pytest.mark.parametrize(
    "module",
    [
        nn.Identity(),
        nn.Linear(7, 7),  # does not take a picture
        Fixed(*answer(fine=15)),
        Fixed(*answer(u=24)),
        Fixed(*answer(coarse=1)),
        Fixed(*answer(boxes=((1, 2, 3),))),
        Fixed(*answer(side=0)),
        Fixed(answer()[0].repeat(2, 1), *answer()[1:]),
        Fixed(*answer(boxes=((0, 0, 90_000, 90_000),))),
        Fixed(answer()[0] * float("nan"), *answer()[1:]),
        Fixed(*answer()[:-1], answer()[-1] / 0),
    ],
    ids=range(11),
)
def test_a_network_of_another_kind_is_a_model_error_of_one_sentence(saved, module):
    with pytest.raises(ModelError, match=r"^network\.torchscript .*densepose_r50_fpn_dl\.torchscript") as caught:
        TorchScriptEstimator(saved(module)).estimate([frame()])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.5, 2])
def test_what_cannot_be_loaded_is_a_model_error(saved, share, monkeypatch):
    path = saved(Painted())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)] if share < 1 else b"no network" * 99)
    with pytest.raises(ModelError, match=r"^network\.torchscript cannot be loaded .* damaged"):
        TorchScriptEstimator(path)
    with pytest.raises(ModelError, match="There is no DensePose network at"):
        TorchScriptEstimator(path.parent / "missing")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ModelError, match="needs torchvision.*pip install -r requirements-densepose.txt"):
        TorchScriptEstimator(saved(Painted()))


def test_the_hub_is_asked_for_one_file_and_a_download_that_fails_says_what_to_do(saved, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args: asked.append(args) or saved(Painted()))
    estimator = TorchScriptEstimator()
    assert asked == [("LayerNorm/DensePose-TorchScript-with-hint-image", "densepose_r50_fpn_dl.torchscript")]
    assert estimator.estimate([frame(SOMEONE)]).parts.any()

    def download(*_):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(ModelError, match="could not be fetched .* give its path"):
        TorchScriptEstimator()


def test_half_precision_files_run_on_the_cpu(saved):
    estimator = TorchScriptEstimator(saved(Painted().half()))
    assert {tensor.dtype for tensor in estimator.network.buffers() if tensor.ndim > 1} == {torch.float32}
    assert set(np.unique(estimator.estimate([frame(SOMEONE)]).parts)) == {0, 1, 2}


def test_where_parts_are_equally_likely_the_lowest_is_taken_and_the_licence_is_told(saved):
    boxes, coarse, fine, u, v = answer()
    for maps in ((coarse, fine * 0), (coarse * 0, fine)):
        estimator = TorchScriptEstimator(saved(Fixed(boxes, *maps, u, v)))
        assert not estimator.estimate([frame()]).parts.any()
    assert estimator.notices == (LICENCE,) and "CC BY-SA 3.0" in LICENCE


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there(saved):
    with pytest.raises(InputError, match="on cuda, but no such card .* choose cpu"):
        TorchScriptEstimator(saved(Painted()), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
def test_the_card_gives_what_the_cpu_gives(saved):
    path, frames = saved(Fixed(*answer())), [frame(), frame()]
    on_cpu, on_card = (TorchScriptEstimator(path, device=device).estimate(frames) for device in ("cpu", "cuda"))
    assert (on_cpu.parts == on_card.parts).mean() > 0.999
    assert np.abs(on_cpu.uv.astype(np.float32) - on_card.uv.astype(np.float32)).mean() < 1e-3
