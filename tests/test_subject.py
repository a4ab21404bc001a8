"""Subjects: tuning helps and is undone without a trace, a saved subject is the tuned one, and damage is one
sentence."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from typing import get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from drawn import drawn_clip
from safetensors import SafetensorError
from tiny import same, stop_after, tiny_pipeline

from dreampose_core.errors import Cancelled, InputError, ModelError, StorageError
from dreampose_core.model.conditioning import encode_latents
from dreampose_core.model.texture import harvest
from dreampose_core.poses import PoseSequence, read_poses
from dreampose_core.settings import Recipe
from dreampose_core.subject import folder as subject_module
from dreampose_core.subject import tuning
from dreampose_core.subject.finetuning import finetune
from dreampose_core.subject.folder import (
    base_restored,
    fingerprint,
    read_subject,
    save_subject,
    subject_key,
    subject_loaded,
)
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe
from dreampose_core.subject.tuning import tune_subject
from dreampose_core.subject.views import Source, crop_labels, crop_pixels, random_boxes, same_part
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.training.distributed import random
from dreampose_core.training.losses import picture_loss

SIZE = (40, 32)
SHORT = SubjectRecipe(unet_steps=3, decoder_steps=3, batch_size=2, views=4)


@pytest.fixture(scope="module")
def pipe():
    pipe = tiny_pipeline()
    with torch.no_grad():  # residual branches that are not zero, so that tuned weights show in the frames
        for name, parameter in pipe.vae.named_parameters():
            if "conv2.weight" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    return pipe


@pytest.fixture(scope="module")
def clip():
    return drawn_clip(HELD_OUT, "walk", 3, SIZE, fps=4.0)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setitem(RECIPES, "fast", SHORT)


def weights(pipe):
    return {
        f"{part}.{key}": value.clone()
        for part in ("unet", "vae", "adapter", "image_encoder")
        for key, value in getattr(pipe, part).state_dict().items()
    }


def frames(pipe, clip):
    return pipe(
        clip[0][0], clip[1], clip[1].select([0]), num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    ).frames


def tune(pipe, clip, recipe=SHORT):
    return tune_subject(pipe, pipe.fit_photos([clip[0][0]]), clip[1].select([0]), recipe)


def views_of(pipe, clip, views, known="maps"):
    """The source of views of the first photo, with all that is known of it, its parts, or nothing."""
    photos = pipe.fit_photos([clip[0][0]])
    parts = None if known == "nothing" else torch.from_numpy(clip[1].parts[:1].astype(int))
    uv = torch.from_numpy(clip[1].uv[:1].astype(np.float32)) if known == "maps" else None
    texture = None if parts is None else harvest(photos, parts, uv)
    return Source(pipe, photos, parts, uv, texture, replace(SHORT, views=views), 0)


@pytest.fixture(scope="module")
def saved(pipe, clip, tmp_path_factory):
    """A subject folder and the frames that the model made right after tuning."""
    folder = tmp_path_factory.mktemp("subjects") / "anna"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "fast", SHORT)
        subject = finetune(pipe, [clip[0][0]], clip[1].select([0]), "fast", 0, folder)
    with base_restored(pipe):
        tune(pipe, clip)
        made = frames(pipe, clip)
    return folder, subject, made


def test_tuning_lowers_the_loss(clip, monkeypatch):
    """Every step sees the same crops, timesteps and noise."""
    pipe = tiny_pipeline()
    monkeypatch.setattr("dreampose_core.subject.views.random", lambda seed, step, purpose: random(seed, 0, purpose))
    with base_restored(pipe):
        losses = tune(pipe, clip, recipe=SubjectRecipe(unet_steps=25, decoder_steps=20, batch_size=4, views=None))
        pixels = pipe.fit_photos([clip[0][0]])
        crops = crop_pixels(pixels.expand(4, -1, -1, -1), random_boxes(4, SIZE, 0.7, random(9, 9, 9)))

        def error():
            with torch.no_grad():
                return picture_loss(pipe.vae.decode(pipe.vae.encode(crops).latent_dist.mode()).sample, crops).item()

        after = error()
    assert after < 0.9 * error()  # the base again
    assert losses["tuning"][-1] < 0.95 * losses["tuning"][0] and losses["decoder"][-1] < 0.9 * losses["decoder"][0]
    assert {key: len(value) for key, value in losses.items()} == {"tuning": 25, "decoder": 20}


def test_tuning_is_undone_without_a_trace(pipe, clip):
    before, base, modes = weights(pipe), frames(pipe, clip), [pipe.unet.training, pipe.vae.training]
    with base_restored(pipe):
        tune(pipe, clip)
        assert not same(before, weights(pipe)) and not np.array_equal(base, frames(pipe, clip))
    assert same(before, weights(pipe)) and np.array_equal(base, frames(pipe, clip))
    assert modes == [pipe.unet.training, pipe.vae.training]
    assert not any(parameter.requires_grad for parameter in pipe.unet.parameters())


def test_the_order_in_which_numbers_lie_is_restored_too(clip):
    """An optimizer may change it, and on a GPU the model would be slower for all who come after."""
    pipe = tiny_pipeline()
    pipe.unet.to(memory_format=torch.channels_last)
    strides, before = [parameter.stride() for parameter in pipe.unet.parameters()], weights(pipe)
    with base_restored(pipe, whole=True):
        for parameter in pipe.unet.parameters():
            parameter.data = parameter.data.contiguous() + 1
        assert strides != [parameter.stride() for parameter in pipe.unet.parameters()]
    assert strides == [parameter.stride() for parameter in pipe.unet.parameters()] and same(before, weights(pipe))


def test_a_saved_subject_is_the_tuned_one(pipe, clip, saved):
    folder, subject, tuned = saved
    before, base = weights(pipe), frames(pipe, clip)
    with subject_loaded(pipe, folder):
        assert read_subject(folder) == subject and np.array_equal(frames(pipe, clip), tuned)
    assert same(before, weights(pipe)) and np.array_equal(frames(pipe, clip), base) and not np.array_equal(base, tuned)


def test_a_subject_folder_holds_what_changed_and_what_it_was_tuned_to(clip, saved):
    folder, subject, _ = saved
    weights = {f"{name}.safetensors" for name in ("unet_lora", "adapter", "vae_decoder")}
    assert {path.name for path in folder.iterdir()} == weights | {"subject.json", "photo_000.png", "photo_poses.npz"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert subject.knows_poses and subject.recipe == "fast" and len(subject.losses["tuning"]) == 3
    assert np.array_equal(read_poses(folder / "photo_poses.npz").parts, clip[1].parts[:1])


def test_only_the_decoder_of_the_vae_is_tuned(pipe, clip):
    before = weights(pipe)
    with base_restored(pipe):
        tune(pipe, clip, recipe=replace(SHORT, views=None))
        after = weights(pipe)
    changed = {key for key in after if key not in before or not torch.equal(before[key], after[key])}
    unchanged = {key for key in after if ".base_layer." in key}
    assert all(torch.equal(after[key], before[key.replace(".base_layer", "")]) for key in unchanged) and unchanged
    assert any(key.startswith("vae.decoder") for key in changed) and any(key.startswith("adapter") for key in changed)
    frozen = ("vae.encoder", "vae.quant_conv", "vae.post_quant_conv", "image_encoder")
    assert not any(key.startswith(frozen) for key in changed)


def test_without_densepose_the_pose_is_null_and_tuning_works(pipe, clip, tmp_path):
    given = []
    handle = pipe.unet.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().clone()))
    subject = finetune(pipe, [clip[0][0]], None, "fast", 0, tmp_path / "anna")
    handle.remove()
    assert len(given) > 3 and all((x[:, 8:] == 0).all() and (x[:, :8] != 0).any() for x in given)
    assert not subject.knows_poses and not (tmp_path / "anna" / "photo_poses.npz").exists()
    with subject_loaded(pipe, tmp_path / "anna"):
        frames(pipe, clip)


def test_parts_only_and_u_v_only_maps_work(pipe, clip):
    own = clip[1].select([0])
    for poses in (replace(own, uv=None, charts="none"), replace(own, parts=None)):
        with base_restored(pipe):
            losses = tune_subject(pipe, pipe.fit_photos([clip[0][0]]), poses, SHORT)
        assert np.isfinite(losses["tuning"]).all()


@pytest.mark.parametrize("views", [None, 24])
def test_tuning_hides_the_texture_or_the_photo_would_be_copied(pipe, clip, views):
    given = []
    handle = pipe.unet.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().clone()))
    with base_restored(pipe):
        tune(pipe, clip, recipe=replace(SHORT, unet_steps=12, decoder_steps=0, views=views))
    handle.remove()
    given = given if views is None else given[:12]  # every view once, to see what is held back
    planes = torch.cat([torch.nn.functional.pixel_shuffle(x[:, 148:], 4) for x in given])
    hidden = (planes == 0).flatten(1).all(1)
    assert 4 <= hidden.sum() <= 20  # half of 24
    source = planes[~hidden][:, 4]
    texels, means = (source == 1).flatten(1).sum(1).float(), (source == 0.5).flatten(1).sum(1).float()
    assert (texels / (texels + means)).mean() < 0.8 and texels.max() > 0


@pytest.mark.parametrize("known", ["maps", "parts", "nothing"])
def test_what_is_held_back_is_never_seen_as_texture(pipe, clip, known):
    source, again = (views_of(pipe, clip, 24, known) for _ in range(2))
    held, views, parts = source.held[0] > 0, source.kept, source.parts
    assert 0.02 < held.float().mean() < 0.4 and len(views.which) == 24 and 0 < views.held.mean() < 0.4
    if known == "maps":
        # at the borders of what is hidden its neighbours' places are read on
        shown = views.seen.flatten(1).any(1)[:, None, None, None]
        assert (views.seen * views.held).sum() < 0.5 * (shown * views.held).sum()
        assert 0.05 < held[parts[0] > 0].float().mean() < 0.3 and not held[parts[0] == 0].any()
    assert all(map(torch.equal, views, again.kept))


def test_what_is_held_back_is_part_of_no_loss(pipe, clip, monkeypatch):
    """Both stages: something else wanted there changes the error that says when to stop, and no loss."""
    asked = []
    monkeypatch.setattr(
        tuning, "train", lambda parameters, loss_at, *_, held, **__: asked.append((loss_at, held)) or ([], True)
    )
    with base_restored(pipe):
        source = views_of(pipe, clip, 8)
        source.kept.held.zero_()[:, :, :20] = 1
        tuning._tune_unet(source)
        tuning._tune_decoder(source)
        with torch.no_grad():
            before = [([float(loss_at(step)) for step in range(4)], held()) for loss_at, held in asked]
            source.kept.pixels[:, :, :19] += 0.5  # the last row counts in its neighbour's edge
            predicted = source.prediction

            def other(views, draw, noisiest=False, only=slice(None)):
                prediction, wanted, *rest = predicted(views, draw, noisiest, only)
                return prediction, wanted + torch.nn.functional.avg_pool2d(views.held, pipe.factor)[only], *rest

            monkeypatch.setattr(source, "prediction", other)
            after = [([float(loss_at(step)) for step in range(4)], held()) for loss_at, held in asked]
    for (losses, error), (other_losses, other_error) in zip(before, after):
        assert losses == pytest.approx(other_losses, abs=1e-6) and abs(error - other_error) > 1e-3


def test_some_views_are_turned_and_want_what_the_model_said_before(pipe, clip):
    """Of six batches one: the same outline, other parts, and the model's own answer as what is wanted."""
    source = views_of(pipe, clip, 12)
    turned, straight = source.kept.select(torch.tensor([6, 7])), source.kept.select(torch.tensor([4, 5]))
    own = [encode_latents(pipe.vae, views.pixels).float() for views in (turned, straight)]
    assert torch.allclose(own[1], straight.latents, atol=1e-5) and not torch.allclose(own[0], turned.latents, atol=1e-2)
    assert turned.held.sum() == 0 < straight.held.sum() and turned.person.sum() > 0
    with torch.no_grad():
        assert torch.allclose(turned.pixels, source.decoded(turned.latents, turned.planes), atol=1e-5)
    for views, more, less in ((turned, 0, 1), (straight, 1, 0)):  # the cover of the torso's back, and of its front
        assert views.poses[:, more].sum() > 5 * views.poses[:, less].sum()


def test_where_the_texture_is_hidden_the_decoder_keeps_what_it_says(pipe, clip):
    source = views_of(pipe, clip, 24)
    made, own = source.predicted(), source.kept
    shown = own.select(own.seen.flatten(1).any(1).nonzero()[:, 0])
    assert 0 < len(made.which) < 24 and torch.equal(made.seen, shown.seen)
    seen = (made.seen > 0).expand_as(made.pixels)
    assert torch.equal(made.pixels[seen], shown.pixels[seen])
    with torch.no_grad():
        assert torch.allclose(made.pixels[~seen], source.decoded(made.latents, made.planes)[~seen], atol=1e-5)
    assert not torch.allclose(made.latents, shown.latents)


def test_paper_tunes_whole_weights_and_is_saved_and_undone(pipe, clip, tmp_path, monkeypatch):
    short = replace(RECIPES["paper"], unet_steps=3, decoder_steps=3, unet_lr=1e-3)
    monkeypatch.setitem(RECIPES, "paper", short)
    before, base = weights(pipe), frames(pipe, clip)
    poses = clip[1].select([0])
    finetune(pipe, [clip[0][0]], poses, "paper", 0, tmp_path / "ada")
    assert same(before, weights(pipe))
    assert sorted(path.stem for path in (tmp_path / "ada").glob("*.safetensors")) == ["adapter", "unet", "vae_decoder"]
    with base_restored(pipe, whole=True):
        tune_subject(pipe, pipe.fit_photos([clip[0][0]], poses), poses, short)
        tuned, made = weights(pipe), frames(pipe, clip)
    changed = {key for key in tuned if not torch.equal(before[key], tuned[key])}
    assert {key for key in changed if key.startswith("unet")} == {key for key in before if key.startswith("unet")}
    with subject_loaded(pipe, tmp_path / "ada"):
        assert same(tuned, weights(pipe)) and np.array_equal(frames(pipe, clip), made)
    assert same(before, weights(pipe)) and np.array_equal(frames(pipe, clip), base) and not np.array_equal(made, base)


def test_the_same_again_is_found_and_something_else_is_tuned(pipe, clip, tmp_path):
    photo, folder, steps = [clip[0][0]], tmp_path / "ada", []
    first = finetune(pipe, photo, None, "fast", 0, folder, on_progress=steps.append)
    assert steps and finetune(pipe, photo, None, "fast", 0, folder, on_progress=lambda _: 1 / 0) == first
    other = finetune(pipe, photo, None, "fast", 0, folder, steps=2)
    assert other.key != first.key and len(other.losses["tuning"]) == 2 and read_subject(folder) == other


def test_what_is_gone_on_with_is_the_same_tuning(pipe, clip, tmp_path):
    def run(photo=clip[0][0], seed=0, **more):
        finetune(pipe, [photo], None, "fast", seed, tmp_path / "ada", checkpoints=tmp_path / "kept", **more)

    with pytest.raises(Cancelled):
        run(should_stop=stop_after(2))
    with pytest.raises(InputError, match="another steps and another seed; use the same"):
        run(seed=1, steps=9)
    with pytest.raises(InputError, match="another photos"):
        run(clip[0][1])
    run()
    assert [path.name for path in tmp_path.iterdir()] == ["ada"]


def test_crops_of_photo_and_map_stay_aligned(clip):
    parts = torch.from_numpy(clip[1].parts[:1]).long().expand(8, -1, -1)
    picture = (parts[:, None] > 0).float().expand(-1, 3, -1, -1)
    boxes = random_boxes(8, SIZE, 0.5, random(0, 0, 0))
    pixels, labels = crop_pixels(picture, boxes), crop_labels(parts, boxes)
    assert pixels.shape == (8, 3, *SIZE) and labels.shape == (8, *SIZE)
    assert ((pixels[:, 0] > 0.5) == (labels > 0)).float().mean() > 0.99
    assert set(labels.unique().tolist()) <= set(parts.unique().tolist())  # no new labels
    uv = torch.rand(8, 2, *SIZE)
    assert torch.equal(crop_labels(uv, boxes)[:, 1], crop_labels(uv[:, 1], boxes))
    whole = torch.tensor([[0.0, 0.0, 40.0, 32.0]])
    assert torch.allclose(crop_pixels(picture[:1], whole), picture[:1], atol=1e-5)
    assert torch.equal(crop_labels(parts[:1], whole), parts[:1]) and (boxes >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= 40).all() and (boxes[:, 1] + boxes[:, 3] <= 32).all()
    assert torch.allclose(boxes[:, 2] / boxes[:, 3], torch.tensor(40 / 32))


def test_the_decoder_learns_from_parts_that_stay_aligned():
    latents = torch.arange(2 * 8 * 6).view(2, 1, 8, 6).float()
    pixels = latents.repeat_interleave(4, 2).repeat_interleave(4, 3)
    places = set()
    for seed in range(200):
        some, cut = same_part(0.5, random(seed, 0, 0), latents, pixels)
        assert some.shape == (2, 1, 4, 3) and torch.equal(cut, some.repeat_interleave(4, 2).repeat_interleave(4, 3))
        places.update(some[:, 0, 0, 0].tolist())
    assert {0.0, 4 * 6 + 3.0, 48.0, 48 + 4 * 6 + 3.0} <= places  # the first and the last that fit, of either sample
    whole, _ = same_part(1, random(0, 0, 0), latents, pixels)
    assert torch.equal(whole, latents)


def test_maps_without_a_person_or_that_are_too_few_are_refused(pipe, clip, tmp_path):
    """A tuning to a map without a person would learn the background."""
    with pytest.raises(InputError, match="2 photos and 1 DensePose maps"):
        finetune(pipe, list(clip[0][:2]), clip[1].select([0]), "fast", 0, tmp_path / "a")
    own = clip[1].select([0, 1])
    empty = PoseSequence(own.parts * np.array([1, 0], np.uint8)[:, None, None], None, "none")
    with pytest.raises(InputError, match="The DensePose of photo 2 shows no person"):
        finetune(pipe, list(clip[0][:2]), empty, "fast", 0, tmp_path / "a")
    with pytest.raises(InputError, match="The photo's DensePose shows no person"):
        finetune(pipe, [clip[0][1]], empty.select([1]), "fast", 0, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_key_is_the_contents(clip):
    photo, own = clip[0][0], clip[1].select([0])
    darker = photo // 2
    parts_only = PoseSequence(own.parts, None, "none")
    poses = (own, None, parts_only, replace(own, charts="densepose"), clip[1].select([1]))
    keys = [subject_key([photo], maps, "fast", 0, "base") for maps in poses]
    keys += [subject_key(photos, own, "fast", 0, "base") for photos in ([darker], [photo, photo])]
    keys += [subject_key([photo], own, *how) for how in (("paper", 0, "base"), ("fast", 1, "base"), ("fast", 0, "b"))]
    assert len(set(keys)) == len(keys) == 10
    assert keys[0] == subject_key([photo.copy()], replace(own, fps=7.0), "fast", 0, "base")


def test_the_fingerprint_is_the_models_in_any_precision(pipe):
    def stored(dtype):  # a model folder holds fp16
        return copy.deepcopy(pipe).to(dtype=torch.float16).to(dtype=dtype)

    assert len({fingerprint(stored(dtype)) for dtype in (torch.float16, torch.bfloat16, torch.float32)}) == 1
    first, other = fingerprint(pipe), copy.deepcopy(pipe)
    assert fingerprint(other) == first
    with torch.no_grad():
        other.unet.conv_in.bias[0] += 1
    assert fingerprint(other) != first


@pytest.mark.parametrize("damage", ["unet_lora.safetensors", "adapter.safetensors", "vae_decoder.safetensors"])
def test_damaged_files_are_one_sentence(saved, tmp_path, damage):
    folder = shutil.copytree(saved[0], tmp_path / "anna")
    content = bytearray((folder / damage).read_bytes())
    content[-1] ^= 1
    (folder / damage).write_bytes(content)
    with pytest.raises(ModelError, match=f"is damaged .{damage}.; tune it again"):
        read_subject(folder)
    (folder / damage).unlink()
    with pytest.raises(ModelError, match="not a subject folder, or it is incomplete"):
        read_subject(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": {}}', "null", "\x00\xff"])
def test_what_is_no_subject_folder_is_one_sentence(tmp_path, content):
    (tmp_path / "subject.json").write_text(content)
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "subject.json"):
        with pytest.raises(ModelError, match="not a subject folder") as error:
            read_subject(folder)
        assert "\n" not in str(error.value)


def test_a_subject_of_another_base_is_refused(saved, tmp_path):
    with pytest.raises(ModelError, match="was tuned from another model"):
        read_subject(saved[0], fingerprint(tiny_pipeline(reference_warp="none")))
    read_subject(saved[0])


def test_a_subject_never_replaces_other_files(pipe, clip, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="already exists and is not a subject"):
        finetune(pipe, [clip[0][0]], None, "fast", 0, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    finetune(pipe, [clip[0][0]], None, "fast", 0, tmp_path / "empty")
    finetune(pipe, [clip[0][0]], None, "fast", 1, tmp_path / "empty")  # a subject may be tuned anew
    assert json.loads((tmp_path / "empty" / "subject.json").read_text())["seed"] == 1


def test_a_full_disk_leaves_nothing_half_written(pipe, clip, saved, tmp_path, monkeypatch):
    message = "No space left on device"
    for error in (OSError(28, message), SafetensorError(f"I/O error: {message} (os error 28)")):
        monkeypatch.setattr(subject_module, "save_file", Mock(side_effect=error))
        with base_restored(pipe), pytest.raises(StorageError, match="anna could not be written: the disk is full"):
            tune(pipe, clip)
            save_subject(pipe, tmp_path / "anna", saved[1], [clip[0][0]], None)
        assert list(tmp_path.iterdir()) == []


def test_recipes_are_what_the_options_offer():
    assert set(RECIPES) | {"none"} == set(get_args(Recipe))
