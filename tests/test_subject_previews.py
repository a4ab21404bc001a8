"""Pictures of the learning: when they are taken, that they show the weights as they are, and that nothing that is
learned hangs on them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn_clip
from safetensors.torch import load_file
from tiny import same, stop_after, tiny_pipeline, weights

from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.run import animate
from dreampose_core.errors import Cancelled, StorageError
from dreampose_core.inputs.framing import make_scene
from dreampose_core.media import read_image
from dreampose_core.progress import never_stop
from dreampose_core.settings import AnimateOptions
from dreampose_core.subject import finetuning, previews, tuning
from dreampose_core.subject.finetuning import finetune
from dreampose_core.subject.folder import base_restored, read_subject, subject_loaded
from dreampose_core.subject.previews import Samples
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.training import loop

SIZE, FRAMES = (40, 32), 7
UNET, DECODER = 6, 4
NAMES = ["000000.png", "000002.png", "000004.png", "000006.png", "000010.png"]
OPTIONS = AnimateOptions(recipe="fast", steps=2, batch_size=2)
SHORT = SubjectRecipe(unet_steps=UNET, decoder_steps=DECODER, batch_size=2, decoder_batch_size=2, views=None, rank=2)


@pytest.fixture(scope="module")
def pipe():
    """Weights that show in frames, of UNet and decoder alike."""
    pipe, draw = tiny_pipeline(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        pipe.unet.conv_in.weight.normal_(std=0.1, generator=draw)
        for name, parameter in pipe.vae.named_parameters():
            if "conv2.weight" in name:
                parameter.normal_(std=0.2, generator=draw)
    return pipe


@pytest.fixture(scope="module")
def clip():
    return drawn_clip(HELD_OUT, "walk", FRAMES, SIZE, fps=3.0)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setitem(RECIPES, "fast", SHORT)
    monkeypatch.setitem(
        RECIPES, "paper", replace(RECIPES["paper"], unet_steps=UNET, decoder_steps=DECODER, unet_lr=1e-4)
    )


def run(pipe, clip, folder, options=OPTIONS, **more):
    given = {"image": clip[0][0], "poses": clip[1], "image_poses": clip[1].select([0]), "samples": True}
    return animate(LocalEngine(pipe), **{**given, "options": options, "folder": folder, **more})


def taken(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "samples").glob("*"))}


def nearly(a: np.ndarray, b: np.ndarray) -> bool:
    """Frames that are made in batches of another size may differ by rounding."""
    return np.abs(a.astype(int) - b).max() <= 1


def learned(folder: Path, result: dict) -> dict[str, object]:
    """The subject: what is said of it, its weights and photos; and the frames that came of it."""
    place = folder / "subjects" / result["subject"]
    tensors = {f"{path.name} {name}": x for path in place.glob("*.safetensors") for name, x in load_file(path).items()}
    pictures = {path.name: path.read_bytes() for path in (*place.glob("*.png"), *(folder / "frames").iterdir())}
    return {"subject": read_subject(place)} | {name: x.numpy().tobytes() for name, x in tensors.items()} | pictures


@pytest.fixture(scope="module")
def whole(pipe, clip, tmp_path_factory):
    """Uninterrupted runs without and with pictures, with the state of all global randomness after them, and the
    modules' modes."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "fast", SHORT)
        for with_them in (False, True):
            folder = tmp_path_factory.mktemp("job")
            torch.manual_seed(5), random.seed(5), np.random.seed(5)
            result = run(pipe, clip, folder, samples=with_them)
            state = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
            found.append((folder, result, state))
    return found


def test_they_are_taken_before_at_every_third_and_after(pipe, clip, whole):
    (without, _, _), (folder, _, _) = whole
    assert list(taken(folder)) == NAMES and not (without / "samples").exists()
    pictures = [read_image(folder / "samples" / name) for name in NAMES]
    assert {picture.shape for picture in pictures} == {(*SIZE, 3)}
    assert all((a != b).any() for a, b in zip(pictures, pictures[1:])), "each shows something new"


def test_they_show_what_is_kept_where_learning_ends_early(pipe, clip, tmp_path, monkeypatch):
    """Part of the person is held back, and the weights that do best there are kept: here those of the second look."""
    early = replace(SHORT, unet_steps=100, views=4, unet_lr=0.1)
    look, planted = loop._State.look, (3.0, 1.0, 2.0)
    monkeypatch.setattr(loop._State, "look", lambda self, _: look(self, planted[min(len(self.errors), 2)]))
    told: dict[tuple[int, int], dict] = {}
    with base_restored(pipe):
        losses = tuning.tune_subject(
            pipe,
            pipe.fit_photos([clip[0][0]]),
            clip[1].select([0]),
            early,
            sample=lambda step, total: told.update({(step, total): weights(pipe.adapter)}),
        )
        done = len(losses["tuning"])
        assert done < 100 and list(told) == [*((step, 100) for step in range(done + 1)), (done, done)]
        assert same(told[done, done], weights(pipe.adapter)) and not same(told[done, done], told[done, 100])
    monkeypatch.setitem(RECIPES, "fast", early)
    run(pipe, clip, tmp_path)
    assert list(taken(tmp_path))[-2:] == [f"{done:06d}.png", f"{done + len(losses['decoder']):06d}.png"]


def test_they_show_the_middle_frame_from_the_weights_as_they_are(pipe, clip, whole):
    """The first from the model that was not tuned, the last from the subject; but for the steps they are the video's
    frame."""
    folder, result, _ = whole[1]
    first, last = (read_image(folder / "samples" / name) for name in (NAMES[0], NAMES[-1]))
    assert nearly(last, read_image(folder / "frames" / f"{FRAMES // 2:06d}.png"))

    def frame():
        how = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), "batch_size": 1}
        return pipe(clip[0][0], clip[1], clip[1].select([0]), **how).frames[FRAMES // 2]

    assert np.array_equal(first, frame())
    with subject_loaded(pipe, folder / "subjects" / result["subject"]):
        assert np.array_equal(last, frame())


def test_what_is_learned_is_the_same_to_the_bit_with_and_without_them(whole):
    (without, plain, before), (folder, result, after) = whole
    assert learned(without, plain) == learned(folder, result)
    assert before == after, "no global randomness is used"


def test_they_take_few_steps_and_little_room(pipe, clip, tmp_path, monkeypatch):
    asked = []
    stream = type(pipe).stream
    monkeypatch.setattr(type(pipe), "stream", lambda *given, **how: asked.append(how) or stream(*given, **how))
    monkeypatch.setattr(previews, "_SIDE", 20)
    scene = make_scene(clip[0][0], clip[1], clip[1].select([0]), SIZE, OPTIONS)
    for steps, wanted in ((250, 6), (3, 3), (None, 6)):
        options, folder = AnimateOptions(quality="best", steps=steps, image_guidance=2.0), tmp_path / str(steps)
        folder.mkdir()
        Samples(pipe, scene, options, folder / "samples", never_stop).take(0, 9)
        how = {"num_inference_steps": wanted, "image_guidance": 2.0, "pose_guidance": None}
        assert how.items() <= asked[-1].items()
        assert read_image(folder / "samples" / "000000.png").shape == (20, 16, 3)
    one = tiny_pipeline(draft_steps=1)  # as mini: a model that needs no more is asked for no more
    (tmp_path / "one").mkdir()
    Samples(one, scene, AnimateOptions(), tmp_path / "one" / "samples", never_stop).take(0, 9)
    assert asked[-1]["num_inference_steps"] == 1


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_motion_may_be_short(pipe, clip, tmp_path, length):
    result = run(pipe, (clip[0], clip[1].select(slice(0, length))), tmp_path)
    assert list(taken(tmp_path)) == NAMES and result["num_frames"] == length
    last, frame = tmp_path / "samples" / NAMES[-1], tmp_path / "frames" / f"{length // 2:06d}.png"
    assert nearly(read_image(last), read_image(frame))


@pytest.mark.parametrize("stop", range(0, 24, 4))
def test_a_run_stopped_anywhere_gives_the_same_and_has_all_of_them(pipe, clip, whole, tmp_path, stop):
    """Also in the midst of a picture: it is taken then, or a step later."""
    with pytest.raises(Cancelled):
        run(pipe, clip, tmp_path, should_stop=stop_after(stop))
    before = taken(tmp_path)
    result = run(pipe, clip, tmp_path)
    assert learned(tmp_path, result) == learned(whole[0][0], whole[0][1])
    found, expected = taken(tmp_path), taken(whole[1][0])
    assert before.items() <= found.items(), "none is taken twice"
    assert len(found) == len(NAMES) and list(found)[-1] == NAMES[-1]
    assert all(expected[name] == picture for name, picture in found.items() if name in expected)
    assert [int(name[:6]) * 3 // UNET for name in list(found)[:-1]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), StorageError("It could not be written.")]
)
def test_one_that_cannot_be_made_is_logged_and_costs_nothing_else(
    pipe, clip, whole, tmp_path, monkeypatch, caplog, error
):
    tries = []

    def fails(*_):
        tries.append(1)
        raise error

    monkeypatch.setattr(Samples, "_frame", fails)
    result = run(pipe, clip, tmp_path)
    assert learned(tmp_path, result) == learned(*whole[0][:2]) and result["notices"] == whole[0][1]["notices"]
    assert len(tries) == 1 and taken(tmp_path) == {}
    said = [message for name, _, message in caplog.record_tuples if name == "dreampose.samples"]
    assert len(said) == 1 and str(error) in said[0] and "step 0" in said[0]


def test_a_person_who_is_known_has_none(pipe, clip, whole, tmp_path):
    result = run(pipe, clip, tmp_path, subjects=whole[1][0] / "subjects")
    assert "tuning" not in result["seconds"] and not (tmp_path / "samples").exists()
    assert not (run(pipe, clip, tmp_path / "none", OPTIONS.model_copy(update={"recipe": "none"}))["subject"])
    assert not (tmp_path / "none" / "samples").exists()


def test_those_of_another_learning_go(pipe, clip, tmp_path):
    """As where the model was exchanged between an interrupted attempt and the next; what was half written goes, too."""
    (tmp_path / "samples").mkdir(parents=True)
    for name in ("000099.png", ".part.7.000001.png"):
        (tmp_path / "samples" / name).write_bytes(b"old")
    run(pipe, clip, tmp_path)
    assert list(taken(tmp_path)) == NAMES


def test_where_memory_forces_another_recipe_they_begin_anew(pipe, clip, tmp_path, monkeypatch):
    real = finetuning.tune_subject

    def full(*given, **more):
        if given[3].rank is None:
            more["sample"](0, UNET)
            more["sample"](5, UNET)
            assert list(taken(tmp_path)) == ["000000.png", "000005.png"]
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert taken(tmp_path) == {}
        return real(*given, **more)

    monkeypatch.setattr(finetuning, "tune_subject", full)
    scene = make_scene(clip[0][0], clip[1], clip[1].select([0]), SIZE, OPTIONS)
    taker = Samples(pipe, scene, OPTIONS, tmp_path / "samples", never_stop)
    subject = finetune(pipe, [clip[0][0]], clip[1].select([0]), "paper", 0, tmp_path / "anna", samples=taker)
    assert subject.recipe == "fast" and list(taken(tmp_path)) == NAMES


def test_the_networks_precision_in_tuning_is_no_matter(clip, tmp_path):
    """The base in bfloat16, LoRA and adapter in float32, as on a GPU."""
    pipe = tiny_pipeline()
    for module in (pipe.unet, pipe.vae, pipe.adapter, pipe.image_encoder):
        module.to(torch.bfloat16)
    scene = make_scene(clip[0][0], clip[1], clip[1].select([0]), SIZE, OPTIONS)
    for recipe in (SHORT, RECIPES["paper"]):
        folder = tmp_path / str(recipe.rank)
        folder.mkdir()
        taker = Samples(pipe, scene, OPTIONS, folder / "samples", never_stop)
        with base_restored(pipe, whole=recipe.rank is None):
            tuning.tune_subject(pipe, pipe.fit_photos([clip[0][0]]), clip[1].select([0]), recipe, sample=taker.take)
            taker.take(UNET + DECODER, UNET + DECODER)
        assert list(taken(folder)) == NAMES and not taker._failed
