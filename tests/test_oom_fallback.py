"""The memory ladder: tuning goes on a rung lower from its last checkpoint, what comes out is the same, and every rung
is said."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch
from drawn import drawn_clip
from safetensors.torch import load_file
from tiny import same, stop_after, tiny_pipeline, weights

from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.run import animate
from dreampose_core.errors import Cancelled, InputError, ModelError
from dreampose_core.settings import AnimateOptions
from dreampose_core.subject import tuning
from dreampose_core.subject.finetuning import finetune
from dreampose_core.subject.folder import read_subject
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe, ladder, recipe_named
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.training.optimizers import is_available, make_optimizer, optimizer_state

STEPS = 4
RUNGS = {  # of each recipe: a stage's optimizer, losses a step, and whether its activations are computed twice
    "fast": [("adamw", 1, False), ("adamw", 1, True), ("adamw", 2, True)],
    "paper": [("adamw", 1, False), ("adamw", 1, True), ("adamw8bit", 1, True), ("adamw", 2, True)],
}


@pytest.fixture(scope="module", autouse=True)
def short():
    fast = SubjectRecipe(unet_steps=STEPS, decoder_steps=STEPS, batch_size=2, decoder_batch_size=2, views=4, rank=2)
    paper = replace(RECIPES["paper"], unet_steps=STEPS, decoder_steps=STEPS, unet_lr=1e-4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "fast", fast)
        patch.setitem(RECIPES, "paper", paper)
        yield


@pytest.fixture(scope="module")
def clip():
    return drawn_clip(HELD_OUT, "walk", 2, (40, 32), fps=4.0)


@pytest.fixture(scope="module")
def whole(clip, tmp_path_factory):
    """For each recipe the subject and its weights where memory is never full."""
    found = {}
    for recipe in RUNGS:
        folder = tmp_path_factory.mktemp(recipe) / "a"
        found[recipe] = tune(tiny_pipeline(), clip, folder, recipe), saved(folder)
    return found


class Full:
    """Memory that is full at a step of a stage, `times` times; tries: the stages as they were tried."""

    def __init__(self, monkeypatch, pipe, stage, step, times, error=None):
        self.tries, self.left, train = [], times, tuning.train
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        def watched(parameters, loss_at, options, name, **kwargs):
            network = pipe.unet if name == "tuning" else pipe.vae
            twice = any(getattr(module, "gradient_checkpointing", False) for module in network.modules())
            self.tries.append((name, options.optimizer, options.accumulate, twice))

            def loss(number):
                if name == stage and number == step * options.accumulate and self.left:
                    self.left -= 1
                    raise self.error
                return loss_at(number)

            return train(parameters, loss, options, name, **kwargs)

        monkeypatch.setattr(tuning, "train", watched)

    def of(self, stage):
        return [how for name, *how in self.tries if name == stage]


def tune(pipe, clip, folder, recipe, **kwargs):
    how = {"checkpoints": folder.with_name("kept"), **kwargs}
    return finetune(pipe, [clip[0][0]], clip[1].select([0]), recipe, 0, folder, **how)


def saved(folder):
    return {
        f"{path.name} {key}": value
        for path in sorted(folder.glob("*.safetensors"))
        for key, value in load_file(path).items()
    }


def close(a, b, tolerance):
    return a.keys() == b.keys() and all(torch.allclose(a[key].float(), b[key].float(), atol=tolerance) for key in a)


@pytest.mark.parametrize(
    ("recipe", "stage", "times"),
    [
        *(("fast", stage, times) for stage in ("tuning", "decoder") for times in (1, 2)),
        *(("paper", stage, times) for stage in ("tuning", "decoder") for times in (1, 2, 3)),
    ],
)
def test_one_rung_lower_from_the_last_checkpoint(clip, whole, tmp_path, monkeypatch, caplog, recipe, stage, times):
    pipe, step, seen, (first, expected) = tiny_pipeline(), 2, [], whole[recipe]
    before = weights(pipe.unet, pipe.vae, pipe.adapter)
    full = Full(monkeypatch, pipe, stage, step, times)
    subject = tune(pipe, clip, tmp_path / "a", recipe, on_progress=seen.append)
    assert full.of(stage) == [list(rung) for rung in RUNGS[recipe]][: times + 1] and full.left == 0
    assert same(before, weights(pipe.unet, pipe.vae, pipe.adapter))
    modules = [*pipe.unet.modules(), *pipe.vae.modules()]
    assert not any(getattr(module, "gradient_checkpointing", False) for module in modules)
    assert not (tmp_path / "kept").exists()

    rungs = ladder(recipe)
    assert subject == read_subject(tmp_path / "a") and subject.key == first.key and first.notices == []
    assert subject.notices == [rungs[times].notice] and subject.notices[0].startswith("Tuning did not fit in memory")
    said = [message for name, level, message in caplog.record_tuples if name == "dreampose.finetuning"]
    assert said == [rung.notice for rung in rungs[1 : times + 1]]
    assert len(subject.losses["tuning"]) == len(subject.losses["decoder"]) == STEPS

    steps = [progress.step for progress in seen if progress.stage == stage]
    # neither an optimizer in 8 bits nor a LoRA can go on from what is there
    begun_again = max(0, times - 1) if recipe == "paper" else 0
    assert steps == [1, 2] * begun_again + list(range(1, STEPS + 1))
    if rungs[times].name == "fast":
        assert subject.recipe == "fast" and not (tmp_path / "a" / "unet.safetensors").exists()
        assert close(whole["fast"][1], saved(tmp_path / "a"), 2e-3)
        return
    assert subject.recipe == recipe
    found = saved(tmp_path / "a")
    if times == 1:  # the same numbers
        assert close(expected, found, 1e-6)
        assert subject.losses["tuning"] == pytest.approx(first.losses["tuning"], rel=1e-6)
    else:  # up to the order of sums, or to what the optimizer forgets
        assert close(expected, found, 2e-3) and subject.losses[stage] == pytest.approx(first.losses[stage], rel=1e-2)
        assert not same(expected, found)


@pytest.mark.parametrize(("recipe", "rungs"), [("fast", 3), ("paper", 4)])
@pytest.mark.parametrize("stage", ["tuning", "decoder"])
def test_below_the_lowest_rung_is_one_sentence(clip, tmp_path, monkeypatch, recipe, rungs, stage):
    pipe = tiny_pipeline()
    before = weights(pipe.unet, pipe.vae, pipe.adapter)
    full = Full(monkeypatch, pipe, stage, 1, rungs)
    with pytest.raises(ModelError, match="not enough memory to tune the model.*--low-memory"):
        tune(pipe, clip, tmp_path / "a", recipe)
    assert len(full.of(stage)) == rungs and not (tmp_path / "a").exists()
    assert same(before, weights(pipe.unet, pipe.vae, pipe.adapter))


def test_other_errors_are_raised_as_they_are(clip, tmp_path, monkeypatch):
    pipe, error = tiny_pipeline(), torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    full = Full(monkeypatch, pipe, "tuning", 1, 1, error)
    with pytest.raises(RuntimeError) as raised:
        tune(pipe, clip, tmp_path / "a", "fast")
    assert raised.value is error and len(full.tries) == 1


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_a_step_that_was_half_done_is_forgotten(clip, whole, tmp_path, monkeypatch, recipe):
    """The optimizer makes its averages in the first step: where memory ends there, some weights have moved and no
    checkpoint is there."""
    pipe, left = tiny_pipeline(), [1]
    step = torch.optim.AdamW.step

    def half(optimizer, *args, **kwargs):
        if left:
            left.pop()
            for group in optimizer.param_groups:
                torch._foreach_add_([parameter.data for parameter in group["params"]], 1)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    before = weights(pipe.unet, pipe.vae, pipe.adapter)
    assert tune(pipe, clip, tmp_path / "a", recipe).notices == [ladder(recipe)[1].notice]
    assert close(whole[recipe][1], saved(tmp_path / "a"), 1e-6)
    assert same(before, weights(pipe.unet, pipe.vae, pipe.adapter))


@pytest.mark.parametrize(("recipe", "times"), [("fast", 2), ("paper", 2), ("paper", 3)])
def test_what_is_interrupted_on_a_lower_rung_goes_on_there(clip, tmp_path, monkeypatch, recipe, times):
    pipe = tiny_pipeline()
    with monkeypatch.context() as patch:
        Full(patch, pipe, "tuning", 1, times)
        tune(pipe, clip, tmp_path / "whole" / "a", recipe)
    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        Full(patch, pipe, "tuning", 1, times)
        asked = 2 * times + (4 if times < 3 else 5)  # somewhere on the last of these rungs
        tune(pipe, clip, tmp_path / "a", recipe, should_stop=stop_after(asked))
    full, seen = Full(monkeypatch, pipe, "tuning", 1, 0), []
    subject = tune(pipe, clip, tmp_path / "a", recipe, on_progress=seen.append)
    assert full.of("tuning") == [list(RUNGS[recipe][times])] and seen[0].step != 1
    assert subject == read_subject(tmp_path / "whole" / "a")
    assert same(saved(tmp_path / "whole" / "a"), saved(tmp_path / "a"))


def test_a_process_that_dies_between_two_rungs_loses_nothing_it_needs(clip, tmp_path, monkeypatch):
    """The checkpoints of whole weights are gone, the rung of the LoRA is not told yet."""
    pipe = tiny_pipeline()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        Full(patch, pipe, "decoder", 1, 3)
        write = tuning.Path.write_text
        patch.setattr(tuning.Path, "write_text", lambda path, text: 1 / 0 if '"fast"' in text else write(path, text))
        tune(pipe, clip, tmp_path / "a", "paper")
    assert json.loads((tmp_path / "kept" / "tuning.json").read_text())["rung"] == "8 bits"
    full = Full(monkeypatch, pipe, "tuning", 1, 1)
    assert tune(pipe, clip, tmp_path / "a", "paper").recipe == "fast"
    assert full.of("tuning") == [list(rung) for rung in RUNGS["paper"][2:]]


def test_without_bitsandbytes_its_rung_is_left_out(clip, tmp_path, monkeypatch):
    pipe = tiny_pipeline()
    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        Full(patch, pipe, "tuning", 1, 2)
        tune(pipe, clip, tmp_path / "a", "paper", should_stop=stop_after(6))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert is_available("adamw") and not is_available("adamw8bit")
    with pytest.raises(InputError, match="needs bitsandbytes"):  # what was begun with it
        tune(pipe, clip, tmp_path / "a", "paper")
    full = Full(monkeypatch, pipe, "tuning", 1, 2)
    assert tune(pipe, clip, tmp_path / "b", "paper", checkpoints=tmp_path / "other").recipe == "fast"
    assert full.of("tuning") == [list(RUNGS["paper"][index]) for index in (0, 1, 3)]


def test_the_result_says_it_and_the_next_job_is_on_the_highest_rung(clip, tmp_path, monkeypatch):
    pipe, options = tiny_pipeline(), AnimateOptions(recipe="paper", steps=1, align="none", fit="pad")
    full = Full(monkeypatch, pipe, "tuning", 1, 3)

    def run(name, photo=0):
        given = {"image": clip[0][photo], "poses": clip[1], "image_poses": clip[1].select([photo])}
        folders = {"folder": tmp_path / name, "subjects": tmp_path / "subjects"}
        result = animate(LocalEngine(pipe), **given, options=options, **folders)
        assert json.loads((tmp_path / name / "result.json").read_text()) == result
        return result, [notice for notice in result["notices"] if "memory" in notice]

    first, said = run("first")
    assert said == [ladder("paper")[-1].notice] and first["options"]["recipe"] == "paper"
    told = json.loads((tmp_path / "subjects" / first["subject"] / "subject.json").read_text())
    assert told["recipe"] == "fast" and told["notices"] == said
    tries = len(full.tries)
    again, again_said = run("again")
    assert again["subject"] == first["subject"] and again_said == said and len(full.tries) == tries
    other, said = run("other", photo=1)
    assert said == [] and other["subject"] != first["subject"]
    assert full.tries[tries:] == [(stage, *RUNGS["paper"][0]) for stage in ("tuning", "decoder")]


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_rungs_are_known_by_the_recipe_that_was_asked_for(recipe):
    """What saves memory is no part of a subject's name, which subjects from before the ladder have too."""
    rungs = ladder(recipe, 9)
    assert rungs[0].how == recipe_named(recipe, 9) and rungs[0].notice == ""
    assert {repr(rung.how) for rung in rungs if rung.name != "fast"} == {repr(recipe_named(recipe, 9))}
    assert len({rung.name for rung in rungs}) == len(rungs) and "checkpointing" not in repr(rungs[0].how)


@pytest.mark.parametrize("poses", [True, False])
@pytest.mark.parametrize("number", [0, 1])
def test_one_by_one_gives_the_same_gradients(clip, monkeypatch, poses, number):
    """Also where what is held back, and so what counts, differs from sample to sample."""
    found = []
    for one_by_one in (False, True):
        pipe = tiny_pipeline()
        with torch.no_grad():  # of weights that are not zero, so that there are gradients everywhere
            for parameter in pipe.unet.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.02)

        def gradients(parameters, loss_at, options, stage, **kwargs):
            trained, count = list(parameters), options.accumulate
            loss = sum(loss_at(number * count + part) / count for part in range(count))
            found.append((count, [loss.item()], torch.autograd.grad(loss, trained, allow_unused=True)))
            return [], True

        monkeypatch.setattr(tuning, "train", gradients)
        how = replace(RECIPES["fast"], batch_size=4, decoder_batch_size=4, views=8, one_by_one=one_by_one)
        tuning.tune_subject(pipe, pipe.fit_photos([clip[0][0]]), clip[1].select([0]) if poses else None, how)
    for whole, parts in zip(found[:2], found[2:]):
        assert (whole[0], parts[0]) == (1, 4) and whole[1] == pytest.approx(parts[1], rel=1e-5)
        pairs = [(a, b) for a, b in zip(whole[2], parts[2]) if a is not None]
        assert len(pairs) > 10 and any(a.abs().max() > 1e-4 for a, _ in pairs)
        assert all(torch.allclose(a, b, atol=1e-6, rtol=1e-3) for a, b in pairs)


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_every_rung_keeps_less(clip, monkeypatch, recipe):
    """Bytes that the way back of a loss needs, counted where autograd saves them, and what the optimizer remembers."""
    kept: dict[str, list[int]] = {}

    def counted(parameters, loss_at, options, stage, **kwargs):
        seen, trained = {}, list(parameters)

        def pack(tensor):
            seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_at(0)
        loss.backward()
        optimizer = make_optimizer(options.optimizer, trained, 1e-4)
        optimizer.step()
        state = optimizer_state(optimizer, trained)
        remembered = sum(x.nbytes for key, x in state.items() if "qmap" not in key)
        kept.setdefault(stage, []).append(sum(seen.values()) + remembered)
        return [], True

    monkeypatch.setattr(tuning, "train", counted)
    for rung in ladder(recipe):
        pipe = tiny_pipeline()
        tuning.tune_subject(pipe, pipe.fit_photos([clip[0][0]]), clip[1].select([0]), rung.how)
    assert kept["tuning"] == sorted(set(kept["tuning"]), reverse=True) and len(kept["tuning"]) == len(RUNGS[recipe])
    assert kept["decoder"][0] > 1.2 * kept["decoder"][1] > 1.2 * kept["decoder"][-1]
