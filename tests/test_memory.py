"""Precision, devices and full memory: chosen with a reason, said, and never the end of a job that smaller batches can
finish."""

from __future__ import annotations

import json
import logging
import signal
import weakref

import numpy as np
import pytest
import torch
from drawn import drawn_clip
from tiny import same, tiny_pipeline, weights
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreampose_core.animate.engine import LocalEngine
from dreampose_core.animate.run import animate
from dreampose_core.errors import ModelError
from dreampose_core.jobs import store as store_module
from dreampose_core.jobs.records import JobFolder, JobRequest
from dreampose_core.jobs.store import Store
from dreampose_core.jobs.tasks import DeviceTasks
from dreampose_core.jobs.worker import Worker
from dreampose_core.media import read_image, write_png
from dreampose_core.model import memory
from dreampose_core.model.denoising import reusing
from dreampose_core.model.full_size import full_size
from dreampose_core.model.stable_diffusion import SIZE as SIZE_OF_SD
from dreampose_core.poses import write_poses
from dreampose_core.settings import AnimateOptions, Settings
from dreampose_core.subject.recipe import RECIPES, SubjectRecipe
from dreampose_core.synthetic import HELD_OUT

SIZE, FRAMES = (40, 32), 6


@pytest.fixture(scope="module")
def clip():
    rgb, poses = drawn_clip(HELD_OUT, "walk", FRAMES, SIZE, fps=4.0)
    return rgb[0], poses


def run(pipe, clip, folder, maps=True, **options):
    """The result and the frames of a whole run."""
    photo, poses = clip
    options = AnimateOptions(**{"recipe": "none", "steps": 1, "align": "none", "fit": "pad"} | options)
    image_poses = poses.select([0]) if maps else None
    given = {"image": photo, "poses": poses, "image_poses": image_poses, "options": options, "folder": folder}
    result = animate(LocalEngine(pipe), **given)
    return result, np.stack([read_image(path) for path in sorted((folder / "frames").glob("*.png"))])


@pytest.fixture
def card(monkeypatch):
    """A GPU that is only said to be there."""

    def say(capability=(9, 0), bf16=True, archs=("sm_75", "sm_80", "sm_90a", "compute_90")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test Card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(archs))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)

    return say


def test_the_device_that_is_there_and_one_that_is_too_old(card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory.chosen_device("auto") == memory.chosen_device("cpu") == "cpu"
    with pytest.raises(ModelError, match="No CUDA device"):
        memory.chosen_device("cuda")
    card()
    assert [memory.chosen_device(asked) for asked in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    card(capability=(6, 1))
    words = r"Test Card, compute capability 6.1\) is older than this PyTorch supports \(7.5 and above\)"
    with pytest.raises(ModelError, match=words):
        memory.chosen_device("auto")


def test_precision_is_chosen_with_its_reason_in_the_log(card, caplog):
    caplog.set_level(logging.INFO, "dreampose.device")
    assert memory.chosen_precision("cpu") == (torch.float32, "fp32, because the model runs on the CPU")
    card()
    assert memory.chosen_precision("cuda") == (torch.bfloat16, "bf16, which Test Card computes in")
    card(bf16=False)
    assert memory.chosen_precision("cuda") == (torch.float16, "fp16, because Test Card does not compute in bf16")
    assert memory.chosen_precision("cuda", "fp32") == (torch.float32, "fp32, as requested")
    assert caplog.records[0].message == "The model computes in fp32, because the model runs on the CPU."
    assert len(caplog.records) == 4


class Full:
    """A UNet's forward that has no room for more than `most` samples."""

    def __init__(self, unet, most: int, error: Exception):
        self.forward, self.most, self.error, self.given = unet.forward, most, error, []

    def __call__(self, sample, *args, **kwargs):
        self.given.append(len(sample))
        if len(sample) > self.most:
            raise self.error
        return self.forward(sample, *args, **kwargs)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"
    ),
]


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "python", "cpu"])
def test_where_memory_is_full_smaller_batches_finish_and_it_is_said(clip, tmp_path, monkeypatch, error, caplog):
    pipe, (photo, poses) = tiny_pipeline(), clip
    whole = pipe(photo, poses, poses.select([0]), 2, generator=torch.Generator().manual_seed(0), batch_size=1).frames
    full = Full(pipe.unet, 2, error)
    monkeypatch.setattr(pipe.unet, "forward", full)
    result, made = run(pipe, clip, tmp_path, steps=2, batch_size=8)
    # two steps each; the first of them is counted among the first three
    assert full.given[:3] == [6, 3, 1] and full.given[3:] == [1] * (2 * FRAMES - 1)
    said = [notice for notice in result["notices"] if "memory" in notice]
    assert said == [
        "Larger batches did not fit in memory, so frames are made 3 at a time.",
        "Larger batches did not fit in memory, so frames are made one by one.",
    ]
    assert said[0] in caplog.text and json.loads((tmp_path / "result.json").read_text())["notices"] == result["notices"]
    assert np.abs(made.astype(int) - whole).max() <= 1


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (ERRORS[0], ModelError, "not enough memory for a single frame of 40x32.*--low-memory"),
        (RuntimeError("shapes do not match"), RuntimeError, "shapes do not match"),
    ],
)
def test_too_little_for_a_single_frame_and_other_errors(clip, monkeypatch, error, raised, words):
    pipe, (photo, poses) = tiny_pipeline(), clip
    full = Full(pipe.unet, 0, error)
    monkeypatch.setattr(pipe.unet, "forward", full)
    with pytest.raises(raised, match=words):
        list(pipe.stream(photo, poses, None, 1, batch_size=1))
    assert len(full.given) == 1


@pytest.mark.parametrize(
    ("error", "full"),
    [
        *((error, True) for error in ERRORS),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors"), False),
        (torch.AcceleratorError("CUDA error: unspecified launch failure\nframe #3: where one is out of memory"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_is_full(error, full):
    assert memory.is_out_of_memory(error) == full


@pytest.mark.parametrize("stage", ["tuning", "frames"])
@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (ERRORS[0], False),
    ],
)
def test_after_a_cuda_error_the_worker_ends_and_after_full_memory_it_does_not(
    clip, tmp_path, monkeypatch, stage, error, ends
):
    """Such an error stays in its process, which would fail every job from then on; another one takes over."""
    monkeypatch.setitem(RECIPES, "fast", SubjectRecipe(unet_steps=2, decoder_steps=2, batch_size=2, views=4))
    pipe, (photo, poses), calls = tiny_pipeline(), clip, []
    settings = Settings(home=tmp_path, device="cpu")
    options = AnimateOptions(recipe="fast" if stage == "tuning" else "none", steps=1, align="none", fit="pad")
    folder = JobFolder(tmp_path / "jobs" / "a")
    folder.path.mkdir(parents=True)
    folder.image.parent.mkdir(exist_ok=True)
    write_png(photo, folder.image)
    write_poses(poses, folder.poses)
    store = Store(tmp_path / "jobs.sqlite3")
    request = JobRequest(image="a.png", poses="m.npz", options=options)
    store.add("a", "anna", request.model_dump_json(), settings)
    store.advance(store.claim("light", "light-1"))
    queue = DeviceTasks(settings)
    queue._engine = LocalEngine(pipe)

    def forward(*args, **kwargs):
        calls.append(1)
        raise error

    monkeypatch.setattr(pipe.unet, "forward", forward)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(Worker, "_beat", lambda _: None)
    worker = Worker("device", settings, lambda work: queue(work), "device-1")
    if not ends:
        monkeypatch.setattr(
            store_module.Store, "fail", lambda *given, fail=Store.fail: (fail(*given), worker._ask_to_leave())
        )
    assert worker.run() == (1 if ends else 0)
    if ends:  # the job is as a killed worker leaves it: another takes it over, three times at most
        assert store.recover(dead=["device-1"]) == ["device-1"] and store.get("anna", "a").state == "interrupted"
    else:
        job = store.get("anna", "a")
        assert job.state == "failed" and "There is not enough memory" in job.error
    store.close()
    worker.store.close()
    assert not ends or len(calls) == 1, "nothing is tried again"


def test_components_that_take_turns_on_the_device_tune_and_make_the_same_frames(clip, tmp_path, monkeypatch):
    """Low memory, with the CPU as the device: the components' hooks are those that a GPU would have."""
    monkeypatch.setitem(RECIPES, "fast", SubjectRecipe(unet_steps=2, decoder_steps=2, batch_size=2, views=4))
    made = {}
    for name in ("whole", "in turns"):
        pipe = tiny_pipeline()
        before = weights(pipe.unet, pipe.vae, pipe.adapter)
        if name == "in turns":
            pipe.enable_model_cpu_offload(device=torch.device("cpu"))
        _, made[name] = run(pipe, clip, tmp_path / name, recipe="fast", steps=2, batch_size=3)
        assert len(getattr(pipe, "_all_hooks", [])) == (4 if name == "in turns" else 0)
        assert same(before, weights(pipe.unet, pipe.vae, pipe.adapter))
    assert np.array_equal(made["whole"], made["in turns"])


def test_too_little_memory_for_the_photo_or_for_tuning_is_one_sentence(clip, tmp_path, monkeypatch):
    pipe, (photo, poses) = tiny_pipeline(), clip
    monkeypatch.setattr(pipe.vae.encoder, "forward", Full(pipe.vae.encoder, 0, ERRORS[0]))
    with pytest.raises(ModelError, match="not enough memory to look at the photo"):
        list(pipe.stream(photo, poses, None, 1))
    with pytest.raises(ModelError, match="not enough memory to tune the model"):
        run(pipe, clip, tmp_path, maps=False, recipe="fast")


def test_the_result_says_device_precision_and_peaks(clip, tmp_path):
    pipe = tiny_pipeline()
    pipe.precision = "fp32, because the model runs on the CPU"
    result, _ = run(pipe, clip, tmp_path, maps=False)
    assert result["device"] == "cpu" and result["precision"] == pipe.precision
    assert result["peak_memory"]["host_mb"] > 100


class Held(TorchDispatchMode):
    """The most bytes of tensors, beside those of the given modules, that were alive at a time while this mode was
    on."""

    def __init__(self, *modules: torch.nn.Module):
        super().__init__()
        self.alive = self.most = 0
        self._known = {parameter.untyped_storage()._cdata for module in modules for parameter in module.parameters()}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and (key := storage._cdata) not in self._known:
                self._known.add(key)
                self.alive += storage.nbytes()
                self.most = max(self.most, self.alive)
                weakref.finalize(storage, self._let_go, key, storage.nbytes())
        return made

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def test_a_full_size_model_stays_within_its_memory_as_far_as_shapes_can_say():
    """Stable Diffusion's shapes at 640 x 512 in bfloat16, eight frames at a time, frames decoded one by one; no numbers
    are computed. What a GPU takes beside its tensors (its own context, workspaces of convolutions, gaps) is not in it:
    1 GB is left for that."""
    gb = 1e9
    torch.set_default_dtype(torch.bfloat16)
    try:
        with FakeTensorMode(), torch.no_grad():
            pipe = full_size(SIZE_OF_SD, False, "cpu")
            unet, vae = pipe.unet, pipe.vae
            sizes = [sum(one.nbytes for one in part.parameters()) / gb for part in (unet, vae, pipe.image_encoder)]
            vae.enable_slicing()
            with Held(unet) as denoising, reusing(unet, 2) as unet_at:
                given = torch.empty(8, unet.config.in_channels, 80, 64), torch.tensor(500), torch.empty(8, 50, 768)
                unet_at(0, None)(*given)
            with Held(vae) as decoding:
                vae.decode(torch.empty(8, 4, 80, 64))
    finally:
        torch.set_default_dtype(torch.float32)
    whole = sum(sizes) + max(denoising.most, decoding.most) / gb
    in_turns = max(sizes[0] + denoising.most / gb, sizes[1] + decoding.most / gb)
    # something was counted
    assert 1.9 < sum(sizes) < 2.2 and denoising.most > 0.2 * gb and decoding.most > 0.3 * gb
    assert whole < 8 - 1 and in_turns < 5 - 1
