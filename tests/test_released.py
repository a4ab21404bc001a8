"""The authors' checkpoints, made up with their true names: imported, accounted for, and run as the original was, read
straightforwardly."""

from __future__ import annotations

import errno
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from drawn import drawn_clip
from PIL import Image
from tiny import make_tiny_stable_diffusion
from transformers import CLIPVisionModel
from transformers.models.clip import CLIPImageProcessorPil

from dreampose_core.__main__ import main
from dreampose_core.errors import Cancelled, InputError, ModelError, StorageError
from dreampose_core.media import read_image
from dreampose_core.model import released
from dreampose_core.model.config import Sampling
from dreampose_core.model.loading import load_pipeline
from dreampose_core.model.released import import_released
from dreampose_core.poses import read_any
from dreampose_core.synthetic import HELD_OUT

HEIGHT, WIDTH, FRAMES = 640, 512, 4
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def states(base):
    """Made-up contents of the three files, under their true names."""
    draw = torch.Generator().manual_seed(5)
    unet = dict(UNet2DConditionModel.from_pretrained(base / "unet").state_dict())
    unet["conv_in.weight"] = torch.randn(unet["conv_in.weight"].shape[0], 14, 3, 3, generator=draw) * 0.1
    width = unet["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    adapter = {
        "vae2clip.weight": torch.randn(width, 1280, generator=draw) * 0.02,
        "vae2clip.bias": torch.randn(width, generator=draw) * 0.1,
        "linear1.weight": torch.eye(50, 54) + torch.randn(50, 54, generator=draw) * 0.1,
        "linear1.bias": torch.randn(50, generator=draw) * 0.1,
    }
    vae = {
        key: value + 0.01 * torch.randn(value.shape, generator=draw)
        for key, value in AutoencoderKL.from_pretrained(base / "vae").state_dict().items()
    }
    return {"unet": unet, "adapter": adapter, "vae": vae}


def old_names(vae):
    named = {}
    for key, value in vae.items():
        for new, old in OLD.items():
            if ".mid_block.attentions.0." in key:
                key = key.replace(f".{new}.", f".{old}.")
        named[key] = value
    return named


def saved(folder, states, *, prefix="", vae=None):
    paths = {}
    for name, file in (("unet", "unet_epoch_20.pth"), ("adapter", "adapter_20.pth"), ("vae", "vae_1499.pth")):
        state = {f"{prefix}{key}": value for key, value in (vae if vae and name == "vae" else states[name]).items()}
        paths[name] = folder / file
        torch.save(state, paths[name])
    return paths


@pytest.fixture(scope="module")
def model(base, clip_model, states, tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    return import_released(
        base, folder / "model", image_encoder=clip_model, **saved(folder, states, vae=old_names(states["vae"]))
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A photo, and a folder of maps in the original's form and size, a little beyond 0..1 here and there."""
    folder = tmp_path_factory.mktemp("maps")
    rgb, poses = drawn_clip(HELD_OUT, "walk", FRAMES, (HEIGHT, WIDTH))
    uv = poses.uv.astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 0.03, uv.shape) * (uv > 0)
    for number, map_ in enumerate(uv + noise, start=50):
        np.save(folder / f"frame_{number}_densepose.npy", map_)
    Image.fromarray(rgb[0]).save(folder / "photo.png")
    return folder


class TheOriginal:
    """A straightforward reading of how the original makes frames, with its own preprocessing; modes where it
    sampled."""

    def __init__(self, base: Path, clip_model: Path, states: dict):
        config = UNet2DConditionModel.load_config(base / "unet")
        self.unet = UNet2DConditionModel.from_config({**config, "in_channels": 14}).eval()
        self.unet.load_state_dict(states["unet"])
        self.vae = AutoencoderKL.from_pretrained(base / "vae")
        self.vae.load_state_dict(states["vae"])
        self.clip = CLIPVisionModel.from_pretrained(clip_model)
        self.processor = CLIPImageProcessorPil.from_pretrained(clip_model)
        self.scheduler = PNDMScheduler.from_pretrained(base / "scheduler")
        self.adapter = states["adapter"]

    def embed(self, for_clip, for_vae: torch.Tensor) -> torch.Tensor:
        seen = self.processor(images=for_clip, return_tensors="pt")["pixel_values"]
        tokens = self.clip(pixel_values=seen).last_hidden_state
        latents = self.vae.encode(for_vae).latent_dist.mode() * 0.18215
        pooled, adapter = F.max_pool2d(latents, 2).flatten(2), self.adapter
        mixed = torch.cat([tokens, F.linear(pooled, adapter["vae2clip.weight"], adapter["vae2clip.bias"])], 1)
        return F.linear(mixed.mT, adapter["linear1.weight"], adapter["linear1.bias"]).mT

    def tokens(self, photo: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        given = self.embed([photo], torch.from_numpy(photo).permute(2, 0, 1)[None].float())  # bytes, 0 to 255
        null = self.embed([np.zeros((WIDTH, HEIGHT, 3), np.uint8)], torch.zeros(1, 3, WIDTH, HEIGHT))  # sides exchanged
        return given, null

    def pose(self, maps: list[np.ndarray], index: int) -> torch.Tensor:
        window = [index + offset if 0 <= index + offset < len(maps) else index for offset in (-2, -1, 0, 1, 2)]
        stacked = torch.cat([torch.from_numpy(maps[near]).float() * 2 - 1 for near in window])[None]
        return F.interpolate(stacked, (HEIGHT // 8, WIDTH // 8))  # nearest

    @torch.no_grad()
    def frame(self, photo: np.ndarray, maps: list[np.ndarray], index: int, noise: torch.Tensor, steps: int, s1, s2):
        given, null = self.tokens(photo)
        pose = self.pose(maps, index)
        self.scheduler.set_timesteps(steps)
        first = self.scheduler.timesteps[:1]
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents = self.scheduler.add_noise(self.vae.encode(image).latent_dist.mode() * 0.18215, noise, first)
        for t in self.scheduler.timesteps:
            poses = torch.cat([torch.zeros_like(pose), torch.zeros_like(pose), pose])
            said = self.unet(torch.cat([torch.cat([latents] * 3), poses], 1), t, torch.cat([null, given, given])).sample
            none, by_image, by_both = said.chunk(3)
            total = none + s1 * (by_image - none) + s2 * (by_both - by_image)
            latents = self.scheduler.step(total, t, latents).prev_sample
        decoded = self.vae.decode(latents / 0.18215).sample
        return (decoded / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()


def test_it_is_fed_as_the_original_was(model, base, clip_model, states, scene):
    pipe, original = load_pipeline(model, "cpu"), TheOriginal(base, clip_model, states)
    photo, poses = read_image(scene / "photo.png"), read_any(scene).poses
    maps = [np.load(scene / f"frame_{number}_densepose.npy") for number in range(50, 50 + FRAMES)]
    assert min(m.min() for m in maps) < 0 or max(m.max() for m in maps) > 1  # the original's are not clamped
    config = pipe.model_config
    assert config == released.FORM and config.init_leak and (config.image_guidance, config.pose_guidance) == (8.0, 3.0)
    assert (config.size, config.pose_encoding, config.reference_warp) == ((640, 512), "uv", "none")
    assert config.sampling("best") == config.sampling("standard") == Sampling(100)
    assert len(pipe.scheduler.alphas_cumprod) == 1000
    with torch.no_grad():
        reference = pipe.encode_reference(photo)
        given, null = original.tokens(photo)
    assert torch.allclose(reference.tokens, given, atol=1e-4) and torch.allclose(reference.blank, null, atol=1e-4)
    assert (given - null).abs().max() > 0.1
    noise = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(1))
    ends = [0, FRAMES - 1]  # whose windows lie differently; the original takes its time
    given = {"noise": noise, "output_type": "np", "batches": [range(index, index + 1) for index in ends]}
    for guidance, leak in (((8.0, 3.0), None), ((1.0, 1.0), True)):
        made = pipe(photo, poses, None, 3, *guidance, init_leak=leak, **given).frames
        wanted = np.stack([original.frame(photo, maps, index, noise, 3, *guidance) for index in ends])
        assert made.shape == (2, HEIGHT, WIDTH, 3) and made.dtype == np.float32
        assert np.abs(made - wanted).max() < 1e-3 and wanted.std() > 0.01
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3  # poses count
    without = pipe(photo, poses, None, 3, 1.0, 1.0, init_leak=False, **given | {"batches": [range(1)]}).frames
    assert np.abs(without - wanted[:1]).max() > 1e-3


def test_names_of_every_age_give_the_same_weights(base, clip_model, states, tmp_path, model):
    """With and without the prefix of several GPUs, old and new names of the VAE's attention; a zip; no VAE of their
    own."""
    wanted = load_pipeline(model, "cpu")
    for number, form in enumerate(({"prefix": "module."}, {"vae": old_names(states["vae"])})):
        given = saved(tmp_path, states, **form)
        pipe = load_pipeline(import_released(base, tmp_path / f"m{number}", image_encoder=clip_model, **given), "cpu")
        for name in ("unet", "adapter", "vae"):
            one, two = (getattr(some, name).state_dict() for some in (pipe, wanted))
            assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    del given["vae"]
    pipe = load_pipeline(import_released(base, tmp_path / "own", image_encoder=clip_model, **given), "cpu")
    bases = AutoencoderKL.from_pretrained(base / "vae")
    assert torch.equal(pipe.vae.decoder.conv_in.weight, bases.decoder.conv_in.weight)


def test_the_zip_as_it_was_downloaded(base, clip_model, states, tmp_path, model, capsys):
    files = saved(tmp_path, states)
    archive = tmp_path / "custom-chkpts.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("demo/custom-chkpts/checkpoint-499/unet/diffusion_pytorch_model.bin", b"not looked at")
        packed.writestr("demo/custom-chkpts/unet_epoch_3.pth", b"an older one")
        for name, inside in (("unet", "unet_epoch_499.pth"), ("adapter", "adapter_499.pth"), ("vae", "vae_1499.pth")):
            packed.write(files[name], f"demo/custom-chkpts/{inside}")
    given = ["import-released", "--zip", str(archive), "--base", str(base), "--image-encoder", str(clip_model)]
    assert main([*given, "--out", str(tmp_path / "m")]) == 0, capsys.readouterr().err
    one, two = (load_pipeline(folder, "cpu").unet.state_dict() for folder in (tmp_path / "m", model))
    assert all(torch.equal(one[key], two[key]) for key in two)


class Malicious:
    def __reduce__(self):
        return (print, ("malicious code ran",))


def test_what_does_not_fit_is_listed_and_nothing_is_left_behind(base, clip_model, states, tmp_path, capsys):
    def refused(words, changes=None, kind=ModelError, **files):
        given = saved(tmp_path, {**states, **(changes or {})}) | files
        with pytest.raises(kind, match=words) as error:
            import_released(base, tmp_path / "out", image_encoder=clip_model, **given)
        assert not (tmp_path / "out").exists() and "\n" not in str(error.value)

    unet, adapter = states["unet"], states["adapter"]
    some = {key: value for key, value in adapter.items() if key != "vae2clip.bias"}
    refused('adapter_20.pth does not fit .*Missing key.* "vae2clip.bias"', {"adapter": some})
    refused('Unexpected key.* "surprise"', {"adapter": {**adapter, "surprise": torch.zeros(1)}})
    narrow = {**unet, "conv_in.weight": unet["conv_in.weight"][:, :4]}
    refused(r"size mismatch for conv_in.weight: .*4, 3, 3\].* 14, 3, 3\]", {"unet": narrow})
    refused("unet_epoch_20.pth does not fit .*Missing key", {"unet": {"conv_in.bias": unet["conv_in.bias"]}})
    bad = tmp_path / "bad.pth"
    bad.write_bytes(pickle.dumps({"conv_in.weight": Malicious()}))
    refused("other objects than tensors", unet=bad)
    torch.save({"conv_in.weight": Malicious()}, bad)
    refused("other objects than tensors", unet=bad)
    torch.save([1, 2], bad)
    refused("does not hold named tensors", unet=bad)
    bad.write_bytes(b"garbage")
    refused("damaged", adapter=bad)
    refused("There is no file", kind=InputError, vae=tmp_path / "nowhere.pth")
    assert "malicious code ran" not in capsys.readouterr().out


def half_written(pipe, folder, **_):
    (folder / "model_index.json").write_text("{}")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_zips_that_are_none_and_calls_that_say_too_little(base, clip_model, states, tmp_path, monkeypatch):
    def refused(words, kind=InputError, **given):
        with pytest.raises(kind, match=words):
            import_released(base, tmp_path / "out", image_encoder=clip_model, **given)
        assert not (tmp_path / "out").exists()

    path = tmp_path / "a.zip"
    refused("There is no file", archive=path)
    path.write_bytes(b"PK nothing")
    refused("is damaged, encrypted or no zip", archive=path)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("adapter_1.pth", b"x")
    refused("holds no unet", archive=path)
    files = saved(tmp_path, states)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as packed:
            packed.write(files["unet"], "unet_epoch_1.pth")
            packed.writestr("adapter_1.pth", b"x")
        whole = path.read_bytes()
        path.write_bytes(whole[:2000] + bytes(255 - byte for byte in whole[2000:2100]) + whole[2100:])
        refused("is damaged, encrypted or no zip", archive=path)
    refused("There is no file", archive=tmp_path)
    refused("Give either", unet=files["unet"])
    refused("Give either", archive=path, **files)
    refused("Give either")
    monkeypatch.setattr(released.DreamPosePipeline, "save_pretrained", half_written)
    with pytest.raises(StorageError, match="disk is full"):
        import_released(base, tmp_path / "out", image_encoder=clip_model, **files)
    assert not [left for left in tmp_path.iterdir() if left.name.startswith((".", "out"))]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        import_released(base, tmp_path / "full", image_encoder=clip_model, **files)
    asked = iter(range(10))
    refused(None, Cancelled, should_stop=lambda: next(asked) == 2, **files)
    other = make_tiny_stable_diffusion(tmp_path / "wide", cross_attention_dim=48)
    with pytest.raises(ModelError, match="48 numbers"):
        import_released(other, tmp_path / "out", image_encoder=clip_model, **files)
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["mine.txt"]
