"""Several photos of a person brought together: each fitted around its own person, their maps joined by one rule, and
what is lost said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dreampose_core.errors import InputError
from dreampose_core.inputs.framing import fit_photo
from dreampose_core.inputs.photos import Photo, crowds, fit_photos, maps_together, naming
from dreampose_core.poses import PoseSequence
from dreampose_core.settings import FrameOptions
from dreampose_core.synthetic import HELD_OUT, Figure, render_clip

SIZE = (80, 64)


@pytest.fixture(scope="module")
def photos():
    rgb, poses = render_clip(Figure.from_seed(HELD_OUT), "turn", 3, (96, 80), fps=2.0)
    return [Photo(image, poses.select([index]), f"{index}.png") for index, image in enumerate(rgb.numpy())]


def of(photo: Photo, own: PoseSequence | None) -> Photo:
    return replace(photo, image_poses=own)


def parts_only(poses: PoseSequence) -> PoseSequence:
    return replace(poses, uv=None, charts="none")


def test_each_is_fitted_as_a_photo_alone_is(photos):
    for photo, fitted in zip(photos, fit_photos(photos, SIZE, FrameOptions())):
        image, own, _ = fit_photo(photo.image, photo.image_poses, SIZE, FrameOptions())
        assert (
            np.array_equal(fitted.image, image)
            and np.array_equal(fitted.image_poses.parts, own.parts)
            and fitted.name == photo.name
        )
    wide = of(photos[1], photos[1].image_poses.select([0]))
    wide = replace(wide, image=wide.image[:40])
    with pytest.raises(InputError, match="^1.png: The photo is 40 x 80 and its DensePose 96 x 80"):
        fit_photos([photos[0], wide], SIZE, FrameOptions())


def test_maps_are_joined_in_their_order(photos):
    joined, said = maps_together(fit_photos(photos, SIZE, FrameOptions()))
    fitted = fit_photos(photos, SIZE, FrameOptions())
    assert said == () and (len(joined), joined.charts) == (3, "mannequin")
    for index, photo in enumerate(fitted):
        assert np.array_equal(joined.parts[index], photo.image_poses.parts[0])
        assert (
            np.array_equal(joined.uv[index], photo.image_poses.uv[0]) and joined.uv.dtype == photo.image_poses.uv.dtype
        )


def test_one_photo_keeps_its_map_as_it_is(photos):
    assert maps_together(photos[:1]) == (photos[0].image_poses, ())
    assert maps_together([of(photos[0], None)]) == (None, ())


def test_where_one_is_unknown_none_is_used_and_it_is_said(photos):
    joined, said = maps_together([photos[0], of(photos[1], None), of(photos[2], None)])
    assert joined is None and said == (
        "The DensePose of 1.png, 2.png is unknown, so the person is learned without that of any photo.",
    )
    assert maps_together([of(photo, None) for photo in photos]) == (None, ())


def test_what_not_all_maps_know_is_left_out_and_said(photos):
    other = replace(photos[1].image_poses, charts="densepose")
    for odd in (other, parts_only(photos[1].image_poses)):
        joined, (said,) = maps_together([photos[0], of(photos[1], odd)])
        assert joined.uv is None and joined.charts == "none" and len(joined) == 2 and "their parts alone" in said
    alone = [of(photo, parts_only(photo.image_poses)) for photo in photos]
    assert maps_together(alone)[1] == ()
    only_uv = of(photos[1], replace(photos[1].image_poses, parts=None))
    joined, said = maps_together([photos[0], only_uv])
    assert joined.parts is None and joined.charts == "mannequin" and said == ()
    with pytest.raises(InputError, match="some know only the parts and some only U, V"):
        maps_together([alone[0], only_uv])


def test_several_people_are_said_of_the_photo_that_shows_them(photos):
    rgb, poses = render_clip(Figure.from_seed(HELD_OUT), "idle", 1, (160, 128))
    two = PoseSequence(np.concatenate([poses.parts, poses.parts], 2), None, "none")
    crowd = Photo(np.concatenate([rgb[0].numpy()] * 2, 1), two, "party.png")
    assert crowds([photos[0], crowd, of(photos[1], None)]) == (
        "party.png: Two people are in the photo: the larger one is used.",
    )


def test_what_an_estimator_says_is_said_of_the_file():
    assert naming(
        ["Nobody was found in the photo; a photo of one person seen whole works best.", "It knows few."], "b.jpg"
    ) == ("Nobody was found in b.jpg; a photo of one person seen whole works best.", "It knows few.")
