"""The body tracker: BlazePose as LiteRT runs it, drawn and real people found from all sides, maps on their masks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn_clip
from PIL import Image

from dreampose_core.body.build import Build, Stances, drawn, turn_arms
from dreampose_core.body.retarget import in_our_charts
from dreampose_core.densepose import Estimates
from dreampose_core.densepose.blazepose import BlazePose, mask_logits, refined_mask
from dreampose_core.densepose.body_tracker import BodyTracker, _doubts
from dreampose_core.errors import InputError, ModelError
from dreampose_core.media import read_video
from dreampose_core.poses import JOINTS, PoseSequence, read_any
from dreampose_core.poses.renderings import PARULA
from dreampose_core.poses.sequence import both
from dreampose_core.settings import BODY_TRACKER, EXAMPLES, REPOSITORY
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.synthetic.backdrop import backdrop
from dreampose_core.synthetic.dice import Dice

REAL = Path(os.environ.get("DREAMPOSE_REAL", REPOSITORY.parent / "shared" / "real"))
SIZE = (320, 256)
SIDES = ["walk", "turn", "dance", "catwalk", "boxing", "jump"]


@pytest.fixture(scope="module")
def network() -> BlazePose:
    return BlazePose(BODY_TRACKER)


@pytest.fixture(scope="module")
def clip():
    """Eight frames of a drawn person who turns round, and their exact maps."""
    return drawn_clip(HELD_OUT + 703, "turn", 8, SIZE, fps=2.0)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("name", ["detector", "landmarks"])
def test_the_networks_answer_as_litert_does(network, name):
    """tests/blazepose.npz: LiteRT's outputs for two example people, as scripts/convert_blazepose.py thins them out."""
    expected = np.load(Path(__file__).parent / "blazepose.npz")
    graph = {"detector": network.detector, "landmarks": network.network}[name]
    pictures = []
    for person in ("ada", "emil"):
        with Image.open(EXAMPLES / "people" / f"{person}.png") as opened:
            pixels = opened.convert("RGB").resize((graph.side, graph.side), Image.Resampling.BILINEAR)
        pictures.append(torch.tensor(np.asarray(pixels, np.float32) / 255).movedim(-1, 0))
    batch = torch.stack(pictures)
    found = graph(batch * 2 - 1 if name == "detector" else batch)
    # in their own units: pixels, metres, logits
    close = dict(landmarks=0.1, world=1e-3, presence=1e-4, mask=1.0, heatmaps=0.1, boxes=0.1, scores=0.1)
    assert {f"{name}.{key}" for key in found} == {key for key in expected.files if key.startswith(name)}
    for key, value in found.items():
        value = value.permute(0, 2, 3, 1)[:, ::8, ::8] if value.dim() == 4 else value[:, ::7]
        wanted = expected[f"{name}.{key}"]
        assert value.shape == wanted.shape and np.abs(value.numpy() - wanted).max() < close[key], key


@pytest.mark.parametrize("motion", SIDES)
def test_drawn_people_are_found_from_all_sides(motion):
    rgb, poses = drawn_clip(HELD_OUT + 710 + SIDES.index(motion), motion, 4, SIZE, fps=1.0)
    found = BodyTracker(BODY_TRACKER).estimate(list(rgb))
    assert (found.charts, found.size, len(found)) == ("body", SIZE, 4)
    assert np.mean([iou(a, b) for a, b in zip(found.mask, poses.mask)]) > 0.9
    both = found.mask & poses.mask
    assert (found.parts[both] == poses.parts[both]).mean() > 0.6  # by chance 0.1; left for right 0.2


def test_a_refined_mask_lies_on_the_pictures_edges(network):
    rough, fine = [], []
    for seed in range(700, 705):
        rgb, poses = drawn_clip(HELD_OUT + seed, "walk", 1, (512, 410))
        pose = network.people(rgb[0])[0]
        rough.append(iou(mask_logits(pose, (512, 410)) > 0, poses.mask[0]))
        fine.append(iou(refined_mask(pose, rgb[0]) > 127, poses.mask[0]))
    assert np.mean(fine) > np.mean(rough) + 0.005 and np.mean(rough) > 0.9


def test_who_is_small_in_a_wide_picture_is_found(clip):
    wide = np.full((700, 1100, 3), 190, np.uint8)
    small = np.asarray(Image.fromarray(clip[0][0]).resize((104, 130)))
    wide[400:530, 800:904] = small
    wide[:, :, 1] -= np.linspace(0, 60, 700).astype(np.uint8)[:, None]
    found = BodyTracker(BODY_TRACKER).estimate([wide])
    rows, columns = np.nonzero(found.mask[0])
    assert len(rows) and 395 < rows.min() and rows.max() < 535 and 795 < columns.min() and columns.max() < 910


@pytest.mark.parametrize("picture", ["green", "noise", "stripes", "room", "another room"])
def test_a_photo_without_a_person_is_refused(picture, clip):
    rows, columns = np.mgrid[:240, :320]
    pictures = {
        "green": np.full((240, 320, 3), (40, 160, 60), np.uint8),
        "noise": np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8),
        "stripes": np.repeat(((columns // 9 + rows // 31) % 2 * 200 + 20).astype(np.uint8)[..., None], 3, -1),
        "room": (backdrop(Dice(3), (240, 320)).numpy() * 255).astype(np.uint8),
        "another room": (backdrop(Dice(4), (240, 320)).numpy() * 255).astype(np.uint8),
    }
    with pytest.raises(InputError, match="^No person was found in the photo; choose one that shows a person from"):
        Estimates("body").of_photo(pictures[picture])


@pytest.fixture(scope="module")
def couple(clip):
    """Three frames of two people, the smaller one on the right."""
    left, right = clip[0][:3], drawn_clip(HELD_OUT + 720, "wave", 3, SIZE, fps=4.0)[0]
    smaller = np.stack([np.asarray(Image.fromarray(frame).resize((179, 224))) for frame in right])
    couple = np.full((3, *SIZE[:1], 450, 3), 128, np.uint8)
    couple[:, :, :256], couple[:, 96:, 256:435] = left, smaller
    return couple


def test_of_two_people_the_larger_one_is_followed_or_who_is_asked_for(couple):
    def middle(tracker: BodyTracker) -> list[float]:
        return [float(np.nonzero(mask)[1].mean()) for mask in tracker.estimate(list(couple)).mask]

    tracker = BodyTracker(BODY_TRACKER)
    assert all(x < 230 for x in middle(tracker)) and tracker.left_out == 1
    assert all(x < 230 for x in middle(BodyTracker(BODY_TRACKER, person=1)))
    assert all(x > 270 for x in middle(BodyTracker(BODY_TRACKER, person=2)))
    with pytest.raises(InputError, match="--person is 3, but there are 2 people in the picture"):
        BodyTracker(BODY_TRACKER, person=3).estimate(list(couple))


@pytest.mark.parametrize("zoom", [1, 4])
def test_a_point_chooses_the_photos_person(couple, zoom):
    """In pixels of the photo, which is larger than what the tracker sees."""
    photo = couple[0].repeat(zoom, axis=0).repeat(zoom, axis=1)

    def middle(person: tuple[int, int] | None) -> float:
        found, notices = Estimates("body").of_photo(photo, person)
        assert len(notices) == 1 and found.mask.any(), "the other one is left out"
        return float(np.nonzero(found.mask[0])[1].mean()) / found.size[1] * 450

    assert middle(None) < 230 and middle((128 * zoom, 160 * zoom)) < 230
    assert middle((345 * zoom, 200 * zoom)) > 270


def test_frames_in_which_the_person_is_lost_are_filled_in_and_said(clip):
    frames = list(drawn_clip(HELD_OUT + 703, "walk", 9, SIZE, fps=12.0)[0])
    whole = BodyTracker(BODY_TRACKER).estimate(frames)
    frames[3], frames[4] = np.zeros_like(frames[3]), np.full_like(frames[4], 99)
    tracker = BodyTracker(BODY_TRACKER)
    found = tracker.estimate(frames)
    assert tracker.notices == ("The person was not found in frames 3-4, which lie between the frames around them.",)
    assert all(iou(found.mask[i], whole.mask[i]) > 0.7 for i in (3, 4))
    first = BodyTracker(BODY_TRACKER).estimate([np.zeros_like(frames[0]), *frames[:2]])
    assert not first.mask[0].any() and first.mask[1:].any(axis=(1, 2)).all()


def test_a_map_covers_the_mask_and_nothing_else(network, clip):
    mask = refined_mask(network.people(clip[0][0])[0], clip[0][0])
    found = BodyTracker(BODY_TRACKER).estimate(clip[0][:1])
    assert iou(found.mask[0], mask > 150) > 0.97 and not (found.mask[0] & (mask < 128)).any()
    assert set(np.unique(found.parts)) >= {0, 2, 23, 24} and ((found.uv >= 0) & (found.uv <= 1)).all()


def test_a_folder_without_the_networks_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="The body tracker's detector cannot be read from"):
        BodyTracker(tmp_path)


# -- joints ------------------------------------------------------------------------------------------------------------


def places(poses: PoseSequence) -> np.ndarray:
    """(T, J, 2) of the joints in body heights, from the frame's corner."""
    joints, (height, width) = poses.joints, poses.size
    scale, x, y = joints.camera.T[:, :, None]
    across = x * width / height / scale + joints.positions[..., 0]
    return np.stack([across, y / scale - joints.positions[..., 1]], -1)


LIMBS = [i for name in ("elbow", "wrist", "knee", "ankle") for i in both(name)]


@pytest.mark.parametrize("how", ["picture", "parts"])
def test_joints_are_found_in_pictures_and_in_parts(clip, how):
    """Of somebody who turns round: left stays left, and joints lie where they are."""
    rgb, poses = clip
    if how == "picture":
        found = BodyTracker(BODY_TRACKER).estimate(list(rgb))
    else:
        found = BodyTracker(BODY_TRACKER).with_joints(replace(poses, uv=None, charts="none", joints=None))
        assert np.array_equal(found.parts, poses.parts), "maps stay as they came"
    off = np.linalg.norm(places(found) - places(poses), axis=-1)[:, LIMBS]
    assert np.median(off) < 0.04 and off.mean() < 0.06


def test_maps_of_parts_alone_are_drawn_anew_in_our_charts(clip):
    plain = replace(clip[1].select([0]), uv=None, charts="none", joints=None)
    own = BodyTracker(BODY_TRACKER).with_joints(plain)
    drawn = in_our_charts(own)
    exact = clip[1].select([0])
    assert drawn.charts == "body" and iou(drawn.mask[0], exact.mask[0]) > 0.95
    both = drawn.mask[0] & exact.mask[0]
    assert (drawn.parts[0][both] == exact.parts[0][both]).mean() > 0.75


def test_a_rendering_of_two_people_is_the_larger_ones(clip):
    parts = clip[1].parts[:2]
    small = np.zeros_like(parts)
    small[:, 120:280, :128] = parts[:, ::2, ::2]
    both = np.concatenate([parts, small], 2)
    tracker = BodyTracker(BODY_TRACKER, person=2)  # of the photo
    found = tracker.with_joints(PoseSequence(both, None, "none"))
    assert tracker.notices == ("Several people are in the motion: the largest one is used.",)
    assert found.joints is not None and not found.mask[:, :, 256:].any() and (found.joints.camera[:, 1] < 0.66).all()


def test_where_parts_show_nobody_there_are_no_joints():
    poses = PoseSequence(np.pad(np.full((3, 20, 20), 2, np.uint8), ((0, 0), (20, 24), (20, 24))), None, "none")
    assert BodyTracker(BODY_TRACKER).with_joints(poses) is poses


def test_a_cut_to_another_scene_is_said_and_not_bridged(clip):
    dark = [np.ascontiguousarray(frame[:, ::-1] // 4) for frame in clip[0][:3]]
    tracker = BodyTracker(BODY_TRACKER)
    found = tracker.estimate([*clip[0][:3], *dark])
    assert len(found) == 6 and tracker.notices[0] == (
        "The clip cuts to another scene at frame 3, where the motion jumps; a range of frames without a cut works "
        "better."
    )


@pytest.mark.parametrize(
    ("fit", "unsure", "words"),
    [
        (0.9, (), None),
        (0.9, ("wrist",), "Arms may come out wrong: the person is partly hidden."),
        (0.9, ("elbow", "knee"), "Arms and legs may come out wrong: the person is partly hidden."),
        (0.3, ("wrist",), "The pose may come out wrong: the body that was found fits the person only in part."),
    ],
)
def test_what_may_come_out_wrong_is_said(clip, fit, unsure, words):
    joints = clip[1].joints.select([0])
    doubtful = np.array([name.split("_")[-1] in unsure for name in JOINTS])
    joints = replace(joints, confidence=np.where(doubtful, 0.1, 1)[None].astype(np.float32))
    at = {name: np.zeros((2, 3)) for name in ("elbow", "wrist", "knee", "ankle")}
    assert _doubts(joints, [at], SIZE, fit) == (() if words is None else (words,))
    away = at | {name: np.full((2, 3), 1e4) for name in ("elbow", "wrist", "knee", "ankle")}
    assert _doubts(joints, [away], SIZE, 0.9) == (), "outside the picture, not hidden"


needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real photos and clips in {REAL}")


@pytest.fixture(scope="module")
def dancer() -> tuple[BodyTracker, PoseSequence, np.ndarray]:
    """A man who dances at home, every twentieth frame: tracked, and the parts of his real DensePose on the right."""
    frames, tracker = list(read_video(REAL / "dance-man-densepose.mp4"))[5:125:20], BodyTracker(BODY_TRACKER)
    found = tracker.estimate([np.ascontiguousarray(frame[:, 94:498]) for frame in frames])
    return tracker, found, np.stack([_parula(frame[:, 774:1178]) for frame in frames]).astype(np.uint8)


def _parula(rgb: np.ndarray) -> np.ndarray:
    """Parts (H, W) of detectron2's colours, the most frequent of 5 x 5 pixels; none on a watermark."""
    labels = ((rgb[:, :, None].astype(np.float32) - PARULA.colours.astype(np.float32)) ** 2).sum(-1).argmin(-1)

    def box(x: np.ndarray) -> np.ndarray:
        return sum(np.roll(np.roll(x, a, 0), b, 1) for a in range(-2, 3) for b in range(-2, 3))

    parts = np.stack([box((labels == k).astype(np.int16)) for k in range(25)], -1).argmax(-1)
    parts[628:, 140:] = 0
    return parts


@needs_real
def test_real_densepose_agrees(dancer):
    """Person IoU, part accuracy, mean part IoU."""
    rows = []
    for own, real in zip(dancer[1].parts, dancer[2]):
        own[628:, 140:] = 0  # a watermark
        a, b = own > 0, real > 0
        parts = [k for k in range(1, 25) if (real == k).sum() > 60]
        rows.append((iou(a, b), (own == real)[a & b].mean(), np.mean([iou(own == k, real == k) for k in parts])))
    agreement = np.mean(rows, axis=0)
    assert (agreement > (0.86, 0.75, 0.33)).all(), agreement


@needs_real
def test_a_video_and_its_densepose_have_the_same_joints(dancer):
    tracker, left, parts = dancer
    right = tracker.with_joints(PoseSequence(parts, None, "none"))
    away = np.linalg.norm(places(left) - places(right), axis=-1)
    seen = [i for name in ("elbow", "wrist", "hip", "knee") for i in both(name)]
    assert away[:, seen].mean() < 0.04


@needs_real
@pytest.mark.parametrize(
    "photo", ["ubc-dress.png", "fashion-top.png", "wall-sweater.jpg", "half-body.jpg", "generated-sitting.jpg"]
)
def test_people_in_real_photos_are_found(photo):
    with Image.open(REAL / photo) as opened:
        found, said = Estimates("body").of_photo(np.asarray(opened.convert("RGB")))
    assert said == () and 0.1 < found.mask.mean() < 0.3 and {2, 23, 24} <= set(np.unique(found.parts))


@needs_real
@pytest.mark.parametrize("name", ["densepose-running.mp4", "densepose-demo4.mp4"])
def test_the_body_drawn_again_covers_a_real_rendering(name):
    poses = read_any(REAL / name).poses.select(slice(0, 40, 10))
    found = BodyTracker(BODY_TRACKER).with_joints(poses)
    drawn = on_itself(found)
    both = drawn.mask & poses.mask
    assert np.mean([iou(a, b) for a, b in zip(drawn.mask, poses.mask)]) > 0.8
    assert (drawn.parts[both] == poses.parts[both]).mean() > 0.7


def on_itself(poses: PoseSequence) -> PoseSequence:
    """The motion drawn on the body of the person who does it, where they do it."""
    joints, body = poses.joints, Build.of(poses.joints.body)
    again = replace(joints, positions=body.positions(joints.rotations.astype(float)).astype(np.float32))
    parts, uv = drawn(Stances.of(again, poses.size), [body] * len(poses), poses.size)
    turn_arms(parts, uv)
    return PoseSequence(parts, uv, "body")
