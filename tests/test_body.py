"""A body of our own: its joints over time, its proportions from pictures, and another person's motion done by it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import drawn_clip

from dreampose_core.body.build import Build, Stances, drawn
from dreampose_core.body.cones import HEAD, HEIGHTS, LIMBS, PARTS, TORSO, euler_matrices
from dreampose_core.body.fitting import Points, offsets_of, stance_of
from dreampose_core.body.outline import outline_of
from dreampose_core.body.retarget import on_body
from dreampose_core.body.worn import fitted_body
from dreampose_core.densepose.body_tracker import BodyTracker, _together
from dreampose_core.errors import Cancelled, InputError
from dreampose_core.inputs.framing import make_scene
from dreampose_core.media import Box
from dreampose_core.poses import PoseSequence, edited, fitted, read_poses, write_poses
from dreampose_core.poses.sequence import JOINT_INDEX, JOINTS, SIDES, Joints, both
from dreampose_core.settings import BODY_TRACKER, EditOptions, MotionOptions, SceneOptions
from dreampose_core.synthetic import HELD_OUT, Person
from dreampose_core.synthetic.acting import acted
from dreampose_core.synthetic.clips import exact_clip
from dreampose_core.synthetic.clothing import dressed, load_surface, worn_body

SIZE = (200, 160)
LIMB_BONES = [pair for start, end in LIMBS.values() for pair in zip(both(start), both(end))]  # from joint to joint
STILL = np.broadcast_to(np.eye(3), (1, len(JOINTS), 3, 3))
PLACES = Build.average().positions(STILL)


@pytest.fixture(scope="module")
def clip() -> PoseSequence:
    """A drawn person who dances, with their exact joints."""
    return drawn_clip(HELD_OUT + 43, "dance", 6, SIZE, fps=5.0)[1]


def turned(count: int, most: float = 0.7) -> np.ndarray:
    """(count, J, 3, 3) random rotations."""
    angles = (torch.rand(count, len(JOINTS), 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * most
    return euler_matrices(angles).double().numpy()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


# -- joints ------------------------------------------------------------------------------------------------------------


def same(a: Joints, b: Joints, tolerance: float = 1e-5) -> bool:
    return all(np.allclose(x, y, atol=tolerance) for x, y in zip(vars(a).values(), vars(b).values()))


def test_joints_go_through_every_edit_with_their_maps(clip):
    options = EditOptions(first_frame=1, last_frame=5, stride=2, reverse=True, loops=2)
    assert same(edited(clip, options).joints, clip.joints.select([3, 1, 3, 1]))
    mirrored = edited(clip, EditOptions(mirror=True))
    assert not same(mirrored.joints, clip.joints, 0.01) and same(mirrored.joints.mirrored(), clip.joints)
    for poses in (clip, mirrored):
        at = places(poses.joints, poses.size)[:, JOINT_INDEX["left_elbow"]]
        rows, columns = at[:, 1].astype(int), at[:, 0].astype(int)
        parts = poses.parts[np.arange(len(poses)), rows, columns]
        assert np.isin(parts, (15, 17, 19, 21)).sum() >= 4, "the left arm's, unless something is in front of it"


def places(joints: Joints, size: tuple[int, int]) -> np.ndarray:
    """(T, J, 2) x and y in pixels from the frame's corner."""
    scale, x, y = joints.camera.T[:, :, None]
    across = x * size[1] + joints.positions[..., 0] * scale * size[0]
    return np.stack([across, (y - joints.positions[..., 1] * scale) * size[0]], -1)


def test_joints_keep_their_place_in_a_crop(clip):
    box = Box(20.0, -10.0, 150.0, 120.0)
    small = fitted(clip, (100, 80), box)
    expected = (places(clip.joints, SIZE) - [box.left, box.top]) * [80 / box.width, 100 / box.height]
    assert np.allclose(places(small.joints, (100, 80)), expected, atol=1e-3)


def test_joints_are_written_and_read(clip, tmp_path):
    write_poses(clip, tmp_path / "a.npz")
    assert same(read_poses(tmp_path / "a.npz").joints, clip.joints)
    write_poses(replace(clip, joints=None), tmp_path / "none.npz")
    assert read_poses(tmp_path / "none.npz").joints is None
    arrays = dict(np.load(tmp_path / "a.npz"))
    assert arrays["version"] == 2 and arrays["joints"].shape == (6, len(JOINTS), 3)
    np.savez(tmp_path / "b.npz", **arrays | {"body_version": np.int64(99)})
    assert read_poses(tmp_path / "b.npz").joints is None, "those of another skeleton are left out"
    np.savez(tmp_path / "c.npz", **{name: x for name, x in arrays.items() if name != "camera"})
    with pytest.raises(InputError, match="lacks camera"):
        read_poses(tmp_path / "c.npz")


@pytest.mark.parametrize(
    "name, change",
    [
        ("rotations", lambda x: x * 2),
        ("rotations", lambda x: x[:, :5]),
        ("positions", lambda x: x * np.float32("nan")),
        ("positions", lambda x: x + 50),
        ("camera", lambda x: x * 0),
        ("camera", lambda x: x[:3]),
        ("confidence", lambda x: x + 1),
        ("body", lambda x: np.zeros(1000, np.float32)),
        ("body", lambda x: x.astype(np.float64)),
    ],
)
def test_what_are_no_joints_is_refused(clip, name, change):
    with pytest.raises(InputError, match="joints"):
        replace(clip.joints, **{name: change(getattr(clip.joints, name))})


# -- the body ----------------------------------------------------------------------------------------------------------


def test_a_body_is_its_numbers():
    build = replace(Build.average(), skirt=np.array([0.3, 0.12]), head=1.05, hand=0.06)
    again = Build.of(build.numbers())
    assert np.allclose(again.numbers(), build.numbers()) and again.head == pytest.approx(1.05)
    for wrong in (build.numbers()[:-1], np.append(build.numbers(), 0)):
        with pytest.raises(InputError, match="numbers"):
            Build.of(wrong)


def test_bones_keep_their_lengths_however_they_are_turned():
    build, rotations = Build.average(), turned(20)
    positions = build.positions(rotations)
    for at, to in LIMB_BONES:
        length = np.linalg.norm(positions[:, to] - positions[:, at], axis=1)
        assert np.allclose(length, build.length(JOINTS[to]))
    for rotation, position in zip(rotations, positions):
        assert np.allclose(offsets_of(rotation, position), build.offsets, atol=1e-6)


def points_of(stances: Stances) -> Points:
    """The landmarks of one frame, in pixels."""
    at, turn = stances.positions[0] * stances.height[0], stances.rotations[0]

    def pair(name: str, offset=(0, 0, 0)) -> np.ndarray:
        return np.stack([at[i] + turn[i] @ offset * stances.height[0] for i in both(name)])

    on_head = np.array([(0, 0.06, 0.06), (0.05, 0.068, 0), (-0.05, 0.068, 0)]) * stances.height[0]
    nose, *ears = at[JOINT_INDEX["head"]] + on_head @ turn[JOINT_INDEX["head"]].T
    joints = {name: pair(name) for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")}
    hand, heel, toe = pair("wrist", (0, -0.055, 0)), pair("ankle", (0, -0.03, -0.03)), pair("ankle", (0, -0.03, 0.08))
    return dict(nose=nose, ear=np.stack(ears), hand=hand, heel=heel, toe=toe, **joints)


@pytest.mark.parametrize("motion", ["dance", "walk", "boxing"])
def test_landmarks_of_a_known_stance_give_it_back(motion):
    exact = Stances.of(acted(MotionOptions(motion=motion, seconds=4, fps=8), SIZE).joints, SIZE).select(slice(0, 32, 6))
    for index in range(len(exact)):
        known = exact.select([index])
        stance, build = stance_of(points_of(known), known.height[0])
        for at, to in LIMB_BONES:
            along = known.positions[0, to] - known.positions[0, at]
            # a limb points where it did; how it is turned about itself cannot be told from landmarks
            assert np.allclose(-stance.rotations[0, at, :, 1], along / np.linalg.norm(along), atol=1e-4)
        again = build.positions(stance.rotations)[0] + stance.positions[0, 0]
        assert np.abs(again - known.positions[0]).max() < 0.03


def test_a_raised_arm_does_not_turn_about_itself():
    """Straight up is the opposite of hanging: near it a small change of direction must stay a small turn."""
    found = []
    for tilt in (-0.1, -0.03, 0.03, 0.1):
        for forward in (-0.1, 0.1):
            points = points_of(Stances(STILL, Build.average().positions(STILL), np.array([180.0])))
            points["elbow"][0] = points["shoulder"][0] + np.array([tilt, 1.0, forward]) * 30
            points["wrist"][0] = points["shoulder"][0] + np.array([tilt, 1.0, forward]) * 58
            stance, _ = stance_of(points, 180.0)
            found.append(stance.rotations[0, JOINT_INDEX["left_shoulder"]])
    assert max(np.arccos(((np.trace(a.T @ b) - 1) / 2).clip(-1, 1)) for a in found for b in found) < 0.7


def fitted_to(motion: str = "idle", **clothes) -> tuple[Build, np.ndarray, np.ndarray]:
    """The body fitted to a person's exact joints and mask, the outline drawn from it, and the exact one."""
    person, plain = Person.from_seed(HELD_OUT), dict(hem=0.0, loose_leg=0.0, hair="short", shoe=0.2)
    wear = replace(person.wear, **plain | clothes)
    layers = dressed(wear, torch.zeros(len(load_surface().place)))
    person = replace(person, wear=wear, layers=layers, body=worn_body(person.body, wear))
    poses = exact_clip(person, person.moments(motion, torch.tensor([0.5])), SIZE)[1]
    stance, exact = Stances.of(poses.joints, SIZE), poses.mask[0]
    build = fitted_body(stance, Build(Build.of(poses.joints.body).offsets), exact.astype(np.uint8) * 255)
    return build, drawn(stance, [build], SIZE)[0][0] > 0, exact


def standing(yaw: float, outline: np.ndarray | None = None) -> np.ndarray:
    """Parts (H, W) of the average body, 480 pixels high, turned about its axis by `yaw` degrees."""
    body = Build.average() if outline is None else replace(Build.average(), outline=outline)
    turn = euler_matrices(torch.tensor([0, math.radians(yaw), 0])).numpy()
    rotations = np.broadcast_to(turn, (1, len(JOINTS), 3, 3)).astype(float)
    return drawn(Stances(rotations, body.positions(rotations), np.array([480.0])), [body], (512, 384))[0][0]


@pytest.mark.parametrize("yaw", range(2, 20, 3))
def test_a_limbs_back_does_not_come_and_go_along_its_edge(yaw):
    parts = standing(yaw)
    for back in (1, 11, 12):
        rows = (parts == back).any(1)
        assert np.abs(np.diff(rows.astype(int))).sum() <= 4, "a sliver in some rows would grow to the teeth of a comb"


def test_the_outline_of_a_leg_seen_from_the_side_is_smooth():
    outline = np.zeros(Build.average().outline.shape)
    outline[..., 1] = 0.02  # the left side stands off, the right does not
    for yaw in (85, 90, 95):
        leg = standing(yaw, outline)[400:440] > 0
        assert np.abs(np.diff(leg.argmax(1))).max() <= 2


def test_cloth_next_to_legs_below_a_hem_is_not_their_outline():
    body = Build.average()
    parts, uv = drawn(Stances(STILL, body.positions(STILL), np.array([480.0])), [body], (512, 384))
    wider = np.roll(parts[0] > 0, 12, 1) | np.roll(parts[0] > 0, -12, 1)
    trousers, skirt = (outline_of(parts[0], uv[0].astype(np.float32), wider, 480.0, hem) for hem in (0.0, 0.3))
    lowered = trousers > skirt  # the legs' bins from the hem down, at 0.3 of the height
    assert skirt[lowered].max() <= 0.015 < trousers[lowered].min() and lowered.any((1, 2)).sum() == 4
    assert np.array_equal(trousers[~lowered], skirt[~lowered])


def test_between_legs_apart_nothing_hangs_and_hands_on_hips_are_not_their_outline():
    body, apart = Build.average(), STILL.copy()
    for side, angle in (("left", 0.5), ("right", -0.5)):
        turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
        apart[0, [JOINT_INDEX[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle")]] = turn
    places = body.positions(apart)
    parts, uv = (x[0] for x in drawn(Stances(apart, places, np.array([480.0])), [body], (512, 384)))
    below = places[0, both("hip"), 1].mean() - (256 - np.nonzero(parts == TORSO[0])[0].max()) / 480
    assert 0.05 < below < 0.085, "the torso ends a little below the hips"
    hands = (parts > 0) | np.roll(parts > 0, 14, 1) | np.roll(parts > 0, -14, 1)
    offsets = outline_of(parts, uv.astype(np.float32), hands, 480.0)
    assert offsets[[2, 3], 0].max() <= 0 < offsets[[2, 3], 2].min()


def test_hands_have_fingers():
    side = euler_matrices(torch.tensor([0, -math.pi / 2, 0])).numpy() @ STILL
    stances = Stances(side, Build.average().positions(side), np.array([1600.0]))
    parts, uv = (x[0] for x in drawn(stances, [Build.average()], (1800, 1000)))
    hand = parts == PARTS["left_hand"][0]
    rows = np.nonzero(hand.any(1))[0]
    runs = (np.diff(hand.astype(int), axis=1) > 0).sum(1)[rows]
    assert runs[: len(rows) // 16].max() == 1 and runs[len(rows) // 2 :].max() >= 3, "a palm, then fingers that part"
    wrist, tips = (uv[1, row][hand[row]].mean() for row in rows[[len(rows) // 10, -5]])
    assert wrist < 0.2 < 0.7 < tips, "one chart along the whole hand"


def test_no_two_places_of_a_foot_or_a_throat_have_one_place_in_the_chart():
    """Their colours hung in stripes or were mixed."""
    parts, uv = (x[0] for x in drawn(Stances(STILL, PLACES, np.array([1600.0])), [Build.average()], (1800, 1000)))
    foot = parts == PARTS["left_foot"][0]
    rows = np.nonzero(foot.any(1))[0]
    ankle, toes = (uv[1, row][foot[row]].astype(float).max() for row in (rows[5], rows[-5]))
    assert ankle < 0.3 < toes
    face = np.nonzero((parts == HEAD[0]) & (uv[0] < 0.1))
    lowest = face[0].max() - np.arange(0, 40, 10)
    heights = [uv[1][row, face[1][face[0] == row]].astype(float).mean() for row in lowest]
    assert np.diff(heights).min() > 0.003 and heights[0] < 0.04


def test_a_skirts_hem_hangs_level_also_when_the_person_leans():
    body, posed = replace(Build.average(), skirt=np.array([0.36, 0.17])), np.repeat(STILL, 2, 0)
    for joint, angles in (("left_hip", (0, 0, 0.25)), ("right_hip", (0, 0, -0.25)), ("root", (0, 0, 0))):
        own = euler_matrices(torch.tensor(angles, dtype=torch.float32)).numpy()
        posed[0, JOINT_INDEX[joint]] = own
        posed[1, JOINT_INDEX[joint]] = euler_matrices(torch.tensor([0.35, 0.0, 0.0])).numpy() @ own
    stances = Stances(posed, body.positions(posed), np.full(2, 480.0))
    for mask in drawn(stances, [body] * 2, (512, 384))[0] > 0:
        lowest = 511 - mask[::-1].argmax(0)
        hem = lowest[192]  # between the legs
        left, right = np.flatnonzero(mask[hem - 3])[[0, -1]]
        assert np.abs(lowest[[*range(left + 2, left + 7), *range(right - 6, right - 1)]] - hem).max() <= 2


def test_thighs_do_not_come_through_a_skirt():
    wide_knees = Build.average().limbs * [[1, 1], [1, 1], [1, 1.5], [1, 1]]
    body, sitting = replace(Build.average(), skirt=np.array([0.25, 0.08]), limbs=wide_knees), STILL.copy()
    for side in SIDES:
        sitting[0, JOINT_INDEX[f"{side}_hip"]] = euler_matrices(torch.tensor([-0.5, 0.0, 0.0])).numpy()
    stances = Stances(sitting, body.positions(sitting), np.array([480.0]))
    parts, uv = (x[0] for x in drawn(stances, [body], (512, 384)))
    thighs = np.isin(parts, [front for side in SIDES for front in PARTS[f"{side}_upper_leg"]])
    first, last = HEIGHTS["upper_leg"]
    height = first + (last - first) * uv[1].astype(float)
    knees, cloth = (np.nonzero(thighs & shown)[0] for shown in (height < 0.255, height > 0.29))
    assert len(knees) > 50 and knees.min() > cloth.max(), "knees show below the hem only"


def test_legs_under_a_wide_skirt_stay_as_they_are():
    outline, skirt = np.zeros(Build.average().outline.shape), np.array([0.25, 0.09])
    outline[2:6] = 0.04  # all that belongs to the legs' charts, so the skirt
    bodies = [replace(Build.average(), skirt=skirt, outline=x) for x in (np.zeros_like(outline), outline)]
    plain, wide = (drawn(Stances(STILL, PLACES, np.array([480.0])), [body], (512, 384))[0][0] > 0 for body in bodies)
    hem, below = (round(256 + (0.53 - height) * 480) for height in (0.3, 0.2))
    assert wide[hem].sum() >= plain[hem].sum() + 30 and wide[below].sum() <= plain[below].sum() + 30


@pytest.mark.parametrize(
    "hem, clothes",
    [*((hem, dict(hem=(0.515 - hem) / 0.235, flare=0.4)) for hem in (0.14, 0.22, 0.3, 0.36))]
    + [(0, dict(leg=1.9, loose_leg=loose)) for loose in (0.0, 0.02)],
)
def test_a_skirt_is_found_and_drawn_and_trousers_are_none(hem, clothes):
    build, outline, exact = fitted_to("walk", **clothes)
    assert build.skirt[0] == pytest.approx(hem, abs=0.06 if hem else 0) and iou(outline, exact) > 0.89
    assert build.skirt.any() == bool(hem)


def test_what_most_frames_show_is_worn():
    plain, skirted = Build.average(), replace(Build.average(), skirt=np.array([0.3, 0.12]))
    assert not _together([plain, skirted], [plain], True).skirt.any(), "half a skirt is none"
    assert np.allclose(_together([plain, skirted, skirted], [plain], True).skirt, skirted.skirt)


@pytest.mark.parametrize("hair", ["afro", "bob"])
def test_hair_is_in_the_outline(hair):
    (_, outline, exact), (_, without, _) = fitted_to(hair=hair, hair_volume=1.0), fitted_to(hair="none")
    top = slice(0, int(np.nonzero(exact.any(1))[0][0] + 0.17 * SIZE[0]))
    assert iou(outline[top], exact[top]) > max(0.85, iou(without[top], exact[top]) + 0.03)


# -- another person's motion on a body ---------------------------------------------------------------------------------


def moved_on(scale: float = 1.0, shift: tuple[float, float] = (0, 0), count: int = 3) -> PoseSequence:
    """A still person who gets larger by `scale` in all and moves by `shift` (right, down) of the frame."""
    body, still, share = Build.average(), np.repeat(STILL, count, 0), np.linspace(0, 1, count, dtype=np.float32)
    camera = np.tile(np.float32([0.8, 0.5, 0.48]), (count, 1))
    camera[:, 0] *= 1 + (scale - 1) * share
    camera[:, 1:] += share[:, None] * np.float32(shift)
    moving = (x.astype(np.float32) for x in (still, body.positions(still), camera, np.ones((count, len(JOINTS)))))
    maps = np.zeros((count, *SIZE), np.uint8), np.zeros((count, 2, *SIZE), np.float16)
    return PoseSequence(*maps, "body", 10.0, Joints(*moving, body.numbers()))


OWN = moved_on(count=1)


def rows_of(mask: np.ndarray) -> tuple[int, int]:
    rows = np.nonzero(mask.any(1))[0]
    return int(rows[0]), int(rows[-1])


def test_the_photos_own_body_does_the_motion_where_it_stands(clip):
    own = clip.select([0])
    other = drawn_clip(HELD_OUT + 61, "walk", 4, (160, 200), fps=5.0)[1]
    done, said = on_body(other, own)
    assert done.size == SIZE and len(done) == 4 and done.charts == own.charts and not said
    body = Build.of(own.joints.body)
    assert np.allclose(done.joints.rotations, other.joints.rotations)
    assert np.allclose(done.joints.positions, body.positions(other.joints.rotations.astype(float)), atol=1e-4)
    assert abs(rows_of(done.mask[0])[1] - rows_of(own.mask[0])[1]) <= 5, "the feet stand where the photo's stand"


@pytest.mark.parametrize("count, batches", [(3, 1), (16, 2), (20, 3)])
def test_drawing_a_long_motion_can_be_stopped_at_every_batch(count, batches):
    """A preview that could not be stopped for seconds cost its worker's life."""
    asked = []
    on_body(moved_on(count=count), OWN, should_stop=lambda: asked.append(1) or False)
    assert len(asked) == batches
    with pytest.raises(Cancelled):
        on_body(moved_on(count=count), OWN, should_stop=lambda: len(asked) >= batches)


def test_estimating_can_be_stopped_after_the_last_frame_was_read():
    tracker, read = BodyTracker(BODY_TRACKER), []
    frames = drawn_clip(HELD_OUT + 43, "dance", 3, (160, 128), fps=5.0)[0]
    tracker.should_stop = lambda: len(read) == 3
    with pytest.raises(Cancelled):
        tracker.estimate(read.append(1) or frame for frame in frames)


def test_coming_nearer_makes_larger_the_path_is_kept_and_who_leaves_the_frame_is_told():
    grown, _ = on_body(moved_on(scale=1.15), OWN)
    tall = [np.subtract(*rows_of(mask)[::-1]) for mask in grown.mask]
    assert tall[2] / tall[0] == pytest.approx(1.15, abs=0.03)
    gone, _ = on_body(moved_on(shift=(0.2, -0.1)), OWN)
    middles = [np.nonzero(mask)[1].mean() for mask in gone.mask]
    assert middles[2] - middles[0] == pytest.approx(0.2 * SIZE[1], abs=2)
    assert rows_of(gone.mask[0])[1] - rows_of(gone.mask[2])[1] == pytest.approx(0.1 * SIZE[0], abs=2)
    assert on_body(moved_on(shift=(0.7, 0), count=8), OWN)[1] == (
        "The person leaves the picture in frames 5-7; a photo with more room around them, or a smaller zoom, shows all "
        "of the motion.",
    )


def test_the_feet_stay_on_the_floor_in_a_motion_that_shows_no_legs():
    motion = moved_on(shift=(0.1, -0.1))
    confidence = motion.joints.confidence.copy()
    confidence[:, both("ankle")] = 0.1
    done, _ = on_body(replace(motion, joints=replace(motion.joints, confidence=confidence)), OWN)
    lowest, middles = [rows_of(mask)[1] for mask in done.mask], [np.nonzero(mask)[1].mean() for mask in done.mask]
    assert max(lowest) - min(lowest) <= 1 and middles[2] - middles[0] == pytest.approx(0.1 * SIZE[1], abs=2)


@pytest.mark.parametrize("is_shown", [True, False])
def test_joints_that_the_motion_never_shows_keep_the_photos_pose(is_shown):
    arm, joints = [JOINT_INDEX["left_shoulder"], JOINT_INDEX["left_elbow"]], moved_on().joints
    rotations, confidence = joints.rotations.copy(), joints.confidence.copy()
    rotations[:, arm] = euler_matrices(torch.tensor([0.0, 0.0, 2.0])).numpy()
    confidence[:, arm] = 1 if is_shown else 0.1
    motion = replace(moved_on(), joints=replace(joints, rotations=rotations, confidence=confidence))
    found = on_body(motion, OWN)[0].joints.rotations[:, arm]
    assert np.allclose(found, rotations[:, arm] if is_shown else np.eye(3))


def test_a_scene_draws_the_motion_on_the_body_where_joints_are_known(clip):
    photo = np.zeros((*SIZE, 3), np.uint8)
    own, other = clip.select([0]), drawn_clip(HELD_OUT + 61, "walk", 3, (100, 80), fps=5.0)[1]

    def scene(motion: PoseSequence, align: str, **how):
        return make_scene(photo, motion, own, (100, 80), SceneOptions(align=align), **how)

    body, outline, as_it_is = (scene(other, align) for align in ("body", "outline", "none"))
    assert outline.notices and outline.notices == scene(replace(other, joints=None), "body").notices
    assert not np.array_equal(body.poses.parts, outline.poses.parts)
    assert np.array_equal(as_it_is.poses.parts, other.parts)
    fed = scene(other, "body", charts="densepose")
    assert fed.notices == outline.notices, "whose model knows real DensePose is fed the maps as they came"
    real = replace(own, charts="densepose")  # a model of ours gets what it knows
    assert make_scene(photo, other, real, (100, 80), SceneOptions()).image_poses.charts == "body"


def test_a_person_in_anothers_motion_is_the_person_who_does_it():
    """A known body in B's motion, photo and motion tracked: against A's exact map in the very pose."""
    size, tracker = (320, 256), BodyTracker(BODY_TRACKER)
    a, b = Person.from_seed(11_001), Person.from_seed(HELD_OUT + 61)
    a, b = (replace(f, manner=a.manner, camera=replace(f.camera, sway=0.0, breathe=0.0)) for f in (a, b))
    (rgb, truth), (other, _) = (exact_clip(f, f.moments("dance", torch.arange(5) / 3), size) for f in (a, b))
    done, _ = on_body(tracker.estimate(list(other)), tracker.estimate([rgb[0]]))
    got, both = done.mask, done.mask & truth.mask
    tall = [np.mean([np.subtract(*rows_of(m)[::-1]) for m in masks]) for masks in (got, truth.mask)]
    assert np.mean([iou(x, y) for x, y in zip(got, truth.mask)]) >= 0.8
    assert (done.parts[both] == truth.parts[both]).mean() >= 0.75 and tall[0] == pytest.approx(tall[1], rel=0.04)
