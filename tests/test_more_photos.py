"""Several photos of a person from the request to the subject and back: decoded apart, learned together, found again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus import estimate
from drawn import drawn_clip
from PIL import Image
from pydantic import ValidationError
from test_jobs_service import ANNA, stored_request

from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.run import animate
from dreampose_core.errors import InputError, TooLarge
from dreampose_core.inputs.framing import NOT_USED, Photo, fit_photos, maps_together
from dreampose_core.jobs import tasks
from dreampose_core.jobs.records import MAX_MORE_PHOTOS, JobFolder, JobRequest, Work
from dreampose_core.jobs.service import JobService
from dreampose_core.jobs.tasks import DeviceTasks, LightTasks
from dreampose_core.media import read_image, write_png
from dreampose_core.model.loading import load_pipeline
from dreampose_core.poses import PoseSequence, read_poses, write_poses
from dreampose_core.progress import ignore_progress, never_stop
from dreampose_core.settings import AnimateOptions, FrameOptions, Settings
from dreampose_core.subject.folder import fingerprint, subject_key
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe, recipe_named
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.web.form import fields_of, fields_of_person

SIZE, FRAMES = (40, 32), 4
EMPTY = np.full((96, 80, 3), 7, np.uint8)
TUNED = AnimateOptions(recipe="fast", steps=1, batch_size=2)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    short = SubjectRecipe(unet_steps=2, decoder_steps=2, batch_size=2, decoder_batch_size=2, views=2)
    monkeypatch.setitem(RECIPES, "fast", short)


@pytest.fixture(scope="module")
def person():
    """Photos from three sides, larger than the model's, with their exact maps; a motion."""
    rgb, poses = drawn_clip(HELD_OUT, "turn", 3, (96, 80), fps=2.0)
    photos = [Photo(image, poses.select([index]), f"anna{index}.png") for index, image in enumerate(rgb)]
    return photos, drawn_clip(HELD_OUT + 1, "walk", FRAMES, SIZE, fps=4.0)[1]


@pytest.fixture(scope="module")
def pipe(tiny_model):
    return load_pipeline(tiny_model, "cpu")


@pytest.fixture
def settings(tmp_path, tiny_model):
    return Settings(home=tmp_path / "home", model=str(tiny_model), device="cpu", estimator="none")


def run(pipe, person, folder, options=TUNED, more=None, **changes):
    (first, *others), motion = person
    photo = {"image": first.image, "image_poses": first.image_poses, "more": others if more is None else more}
    return animate(LocalEngine(pipe), poses=motion, options=options, folder=folder, **photo, **changes)


def key_of(pipe, photos, options=TUNED) -> str:
    fitted = fit_photos(photos, pipe.model_config.size, options)
    recipe, images = repr(recipe_named(options.recipe)), [photo.image for photo in fitted]
    return subject_key(images, together(fitted), recipe, options.seed, fingerprint(pipe))


def together(photos) -> PoseSequence:
    return maps_together(photos)[0]


def frames(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "frames").glob("*.png"))]


# -- what they do ------------------------------------------------------------------------------------------------------


def test_the_person_is_learned_from_all_and_the_video_made_from_the_first(pipe, person, tmp_path):
    photos, _ = person
    result = run(pipe, person, tmp_path / "three")
    assert result["subject"] == key_of(pipe, photos)
    assert result["notices"] == run(pipe, person, tmp_path / "one", more=[])["notices"]
    subject = tmp_path / "three" / "subjects" / result["subject"]
    kept = [read_image(path) for path in sorted(subject.glob("photo_*.png"))]
    assert all(np.array_equal(a, b.image) for a, b in zip(kept, fit_photos(photos, SIZE, FrameOptions()), strict=True))
    assert len(read_poses(subject / "photo_poses.npz")) == 3
    one = json.loads((tmp_path / "one" / "result.json").read_text())["subject"]
    assert one == key_of(pipe, photos[:1]) != result["subject"]
    repeated = run(pipe, person, tmp_path / "again", subjects=tmp_path / "three" / "subjects")
    made = [frames(tmp_path / name) for name in ("again", "three", "one")]
    assert "tuning" not in repeated["seconds"] and made[0] == made[1] != made[2]
    other = run(pipe, person, tmp_path / "other", more=photos[2:0:-1], subjects=tmp_path / "three" / "subjects")
    assert other["subject"] != result["subject"], "another order is another learning"


@pytest.mark.parametrize("given", [False, True])
def test_where_nobody_is_learned_they_change_nothing_and_it_is_said(pipe, person, tmp_path, given):
    options, extra = TUNED.model_copy(update={"recipe": "none"}), {}
    if given:
        subject = run(pipe, person, tmp_path / "subject", more=[])["subject"]
        options, extra = TUNED, {"subject": tmp_path / "subject" / "subjects" / subject}
    both = enumerate((None, []))
    with_them, without = (run(pipe, person, tmp_path / str(i), options, more=more, **extra) for i, more in both)
    assert frames(tmp_path / "0") == frames(tmp_path / "1")
    assert with_them["notices"] == [*without["notices"], NOT_USED] and with_them["subject"] == without["subject"]


def test_one_without_densepose_is_said_and_frames_keep_the_firsts(pipe, person, tmp_path):
    photos = [person[0][0], replace(person[0][1], image_poses=None)]
    result = run(pipe, person, tmp_path, more=photos[1:])
    assert result["subject"] == key_of(pipe, photos)
    assert any(notice.startswith("The DensePose of anna1.png is unknown") for notice in result["notices"])
    subject = tmp_path / "subjects" / result["subject"]
    assert not (subject / "photo_poses.npz").exists() and len(list(subject.glob("photo_*.png"))) == 2
    assert not any(notice.startswith("No DensePose") for notice in result["notices"])


def test_what_is_wrong_with_one_is_said_before_anything_is_learned(pipe, person, tmp_path):
    seen = []
    wrong = replace(person[0][1], image=person[0][1].image[:40])
    with pytest.raises(InputError, match="^anna1.png: The photo is 40 x 80"):
        run(pipe, person, tmp_path, more=[wrong], on_progress=seen.append)
    assert not seen


# -- in jobs -----------------------------------------------------------------------------------------------------------


def test_the_store_has_their_names_and_the_page_their_decoded_files(settings, person, tmp_path):
    (photo, *_), motion = person
    write_png(photo.image, tmp_path / "a.png")
    write_poses(motion, tmp_path / "m.npz")
    given = {"image": tmp_path / "a.png", "poses": tmp_path / "m.npz", "more_images": (tmp_path / "a.png",) * 4}
    with JobService(settings) as service:
        several = service.submit(ANNA, JobRequest(**given, options=TUNED))
        folder = JobFolder(service.home / "jobs" / several)
        assert stored_request(service, several).more_images == (Path("a.png"),) * 4
        assert all((folder.input / f"upload-more_{i}.png").exists() for i in range(4))
        shown = service.status(ANNA, several).request
        assert shown.more_images == tuple(folder.more_image(i) for i in range(4)) and shown.image == folder.image


def test_there_is_a_limit_to_their_number_size_and_use(settings, person, tmp_path):
    write_png(person[0][0].image, tmp_path / "a.png")
    write_poses(person[1], tmp_path / "m.npz")
    given = {"image": tmp_path / "a.png", "poses": tmp_path / "m.npz"}
    with pytest.raises(ValidationError, match="at most 4"):
        JobRequest(**given, more_images=(tmp_path / "a.png",) * (MAX_MORE_PHOTOS + 1))
    with pytest.raises(ValidationError, match="for animations alone"):
        JobRequest(**given, kind="preview", more_images=(tmp_path / "a.png",))
    (tmp_path / "large.png").write_bytes(bytes((1 << 20) + 1))
    with JobService(settings.model_copy(update={"max_upload_mb": 1})) as service:
        for name, kind, words in (
            ("large.png", TooLarge, "large.png is larger than 1 MB"),
            ("none.png", InputError, "none.png cannot be"),
        ):
            with pytest.raises(kind, match=words):
                service.submit(ANNA, JobRequest(**given, more_images=(tmp_path / "a.png", tmp_path / name)))
        assert not list((service.home / "jobs").iterdir())


def prepared(
    tmp_path: Path, person, maps: PoseSequence | None = None, options=TUNED, should_stop=never_stop, name: str = "1"
) -> Work:
    """A job with three photos as it was submitted; maps: what the file of the first one's map holds."""
    photos, motion = person
    folder = JobFolder(tmp_path / "jobs" / name)
    folder.input.mkdir(parents=True)
    (tmp_path / "home").mkdir(exist_ok=True)
    for photo, name in zip(photos, ("image", "more_0", "more_1")):
        Image.fromarray(photo.image).save(folder.input / f"upload-{name}.png", compress_level=1)
    write_poses(motion, folder.input / "upload-poses.npz")
    if maps is not None:
        write_poses(maps, folder.input / "upload-image_poses.npz")
    first, *more = (Path(photo.name) for photo in photos)
    own = None if maps is None else Path("anna.npz")
    request = JobRequest(image=first, poses=Path("walk.npz"), image_poses=own, more_images=tuple(more), options=options)
    return Work(folder, tmp_path / "subjects", request, ignore_progress, should_stop)


def test_a_broken_one_is_one_sentence_that_names_it(tmp_path, person, settings):
    work = prepared(tmp_path, person)
    (work.folder.input / "upload-more_1.png").write_bytes(b"Dear Sir")
    with pytest.raises(InputError) as error:
        LightTasks(settings)(work)
    text = str(error.value)
    assert "anna2.png" in text and "upload-" not in text and "\n" not in text


def estimating(monkeypatch, settings, tmp_path) -> tuple[LightTasks, list]:
    """A light queue whose estimator finds a block in every photo but EMPTY; the pictures that it is asked about, with
    the person it is asked for."""
    asked = []

    class Estimator:
        notices, left_out, person = (), 0, None

        def with_joints(self, poses, on_progress):
            self.notices = ()
            return poses

        def estimate(self, frames):
            self.notices = ("It is made up.",)
            frames = list(frames)
            asked.extend((frame, self.person) for frame in frames)
            poses = estimate(frames)
            return poses if (frames[0] != EMPTY).any() else replace(poses, parts=poses.parts * 0)

    monkeypatch.setattr("dreampose_core.densepose.load_estimator", lambda *_: Estimator())
    return LightTasks(settings.model_copy(update={"estimator": "body"})), asked


def test_their_densepose_is_estimated_where_the_person_is_learned(tmp_path, person, settings, monkeypatch):
    photos, motion = person
    queue, asked = estimating(monkeypatch, settings, tmp_path)
    hidden = [photos[0], replace(photos[1], image=EMPTY), photos[2]]
    work = prepared(tmp_path, (hidden, motion))
    said = queue(work)
    missing = "No person was found in anna1.png; choose one that shows a person from head to foot."
    assert len(asked) == 3 and said == ("It is made up.", missing), "one photo less to learn from"
    assert not work.folder.more_poses(0).exists() and len(read_poses(work.folder.more_poses(1))) == 1
    assert [photo.image_poses is None for photo in tasks._photos(work)] == [False, True, False]
    # a later attempt says the same again and asks nothing of those who were found
    assert queue(work) == said and len(asked) == 4
    untuned = prepared(tmp_path, person, options=TUNED.model_copy(update={"recipe": "none"}), name="2")
    queue(untuned)
    assert len(asked) == 4, "the first one's is known, the others' are not needed"
    work = prepared(tmp_path, ([hidden[1]], motion), name="3")
    with pytest.raises(InputError, match="^No person was found in"):
        queue(work)


def test_the_person_clicked_in_the_photo_is_not_looked_for_there_in_others(tmp_path, person, settings, monkeypatch):
    queue, asked = estimating(monkeypatch, settings, tmp_path)
    queue(prepared(tmp_path, person, options=TUNED.model_copy(update={"person_at": (8, 90)})))
    assert [place for _, place in asked] == [(8, 90), None, None]


def test_a_file_of_as_many_maps_is_of_all_photos(tmp_path, person, settings, monkeypatch):
    photos, motion = person
    queue, asked = estimating(monkeypatch, settings, tmp_path)
    work = prepared(tmp_path, person, maps=together(photos))
    assert queue(work) == ("anna.npz holds 3 maps: one for each photo, in their order.",) and asked == []
    for photo, given in zip(tasks._photos(work), photos, strict=True):
        for array in ("parts", "uv"):
            assert np.array_equal(getattr(photo.image_poses, array), getattr(given.image_poses, array))
        assert np.array_equal(photo.image, given.image) and photo.name == given.name
    other = prepared(tmp_path, person, maps=motion, name="2")  # four maps, three photos: the first is the photo's
    assert queue(other) == ("It is made up.",) and len(asked) == 2 and len(read_poses(other.folder.image_poses)) == 1


def queues(settings: Settings, work: Work) -> dict:
    """What the two queues make of a job: its result."""
    LightTasks(settings)(work)
    DeviceTasks(settings)(work)
    return json.loads(work.folder.settings.read_text())


def resubmitted(tmp_path: Path, form: dict, motion: PoseSequence, name: str, monkeypatch) -> Work:
    """The job of a form that was filled from the library."""
    photos = [Photo(read_image(path), None, Path(path).name) for path in (form["photo"], *(form["more_photos"] or ()))]
    maps = read_poses(form["photo_poses"]) if form["photo_poses"] else None
    options = TUNED.model_copy(update={key: form[key] for key in ("fit", "recipe", "seed")})
    work = prepared(tmp_path, (photos, motion), maps=maps, options=options, name=name)
    shutil.copyfile(form["photo"], work.folder.input / "upload-image.png")
    return work


@pytest.mark.parametrize(("known", "fit"), [(True, "auto"), (False, "crop")])
def test_a_person_of_several_photos_is_found_again_with_another_motion(
    tmp_path, person, settings, monkeypatch, fit, known
):
    """As the page does it: the subject's photos and maps fill the form, which is submitted."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    photos, motion = person
    options = TUNED.model_copy(update={"fit": fit, "seed": 3})
    work = prepared(tmp_path, person, maps=together(photos) if known else None, options=options)
    first = queues(settings, work)
    folder = tmp_path / "home" / "subjects" / "owner"
    shutil.copytree(tmp_path / "subjects", folder)
    service = JobService(settings)
    monkeypatch.setattr("dreampose_core.jobs.service._hashed", lambda owner: "owner")
    entry = service.subject(ANNA, first["subject"])
    assert len(entry.more) == 2 and (entry.poses is not None) == known
    form = fields_of_person(entry)
    assert len(form["more_photos"]) == 2
    other = motion.select(slice(None, None, -1))
    second = queues(settings, resubmitted(tmp_path, form, other, "2", monkeypatch))
    assert second["subject"] == first["subject"]
    assert "tuning" not in second["seconds"] and NOT_USED not in second["notices"]
    # and a person of one photo is another one
    one_map = photos[0].image_poses if known else None
    alone = prepared(tmp_path, (photos[:1], motion), maps=one_map, options=options, name="3")
    assert queues(settings, alone)["subject"] != first["subject"]


@pytest.mark.parametrize("source", ["one map", "none"])
def test_made_again_it_is_the_same_person(tmp_path, person, settings, monkeypatch, source):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    photos, motion = person
    queue, asked = estimating(monkeypatch, settings, tmp_path)
    maps = photos[0].image_poses if source == "one map" else None
    work = prepared(tmp_path, person, maps=maps)
    queue(work)
    DeviceTasks(settings)(work)
    form = fields_of(work.request.decoded(work.folder))
    assert len(form["more_photos"]) == 2 and all(Path(path).is_file() for path in form["more_photos"])
    second = resubmitted(tmp_path, form, motion, "2", monkeypatch)
    queue(second)
    DeviceTasks(settings)(second)
    first, other = (json.loads(one.folder.settings.read_text()) for one in (work, second))
    assert other["subject"] == first["subject"] and "tuning" not in other["seconds"]
    assert len(asked) == (2 if maps else 3), "what was estimated is remembered"
