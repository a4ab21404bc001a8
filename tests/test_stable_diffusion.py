"""A full-size model from Stable Diffusion: widened exactly, saved and loaded, and what cannot be used said in one
sentence."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from drawn import drawn_clip
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from tiny import make_tiny_clips, make_tiny_stable_diffusion

from dreampose_core import DreamPosePipeline
from dreampose_core.__main__ import main
from dreampose_core.errors import InputError, ModelError
from dreampose_core.model import stable_diffusion
from dreampose_core.model.loading import load_pipeline
from dreampose_core.poses import PoseSequence
from dreampose_core.synthetic import HELD_OUT

SIZE = (128, 64)


@pytest.fixture(scope="module")
def scene():
    rgb, poses = drawn_clip(HELD_OUT, "walk", 4, SIZE)
    return rgb[0], PoseSequence(poses.parts, poses.uv, "densepose", poses.fps)


@pytest.mark.parametrize("encoding", ["uv", "iuv"])
@pytest.mark.parametrize("warp", ["none", "texture"])
def test_at_the_start_it_says_what_stable_diffusion_says_whatever_the_poses(base, clip_model, encoding, warp):
    pipe = DreamPosePipeline.from_stable_diffusion(
        base, clip_model, pose_encoding=encoding, reference_warp=warp, size=SIZE
    )
    original = UNet2DConditionModel.from_pretrained(base / "unet")
    channels = {"uv": 10, "iuv": 140}[encoding] + {"none": 0, "texture": 5 * 64}[warp]
    assert pipe.unet.config.in_channels == 4 + channels == pipe.unet.conv_in.weight.shape[1]
    draw = torch.Generator().manual_seed(0)
    noisy, tokens = torch.randn(2, 4, 16, 8, generator=draw), torch.randn(2, 50, 32, generator=draw)
    given = torch.randn(2, channels, 16, 8, generator=draw)
    with torch.no_grad():
        said = original(noisy, torch.tensor([700, 3]), tokens).sample
        widened = pipe.unet(torch.cat([noisy, given], 1), torch.tensor([700, 3]), tokens).sample
        assert torch.allclose(widened, said, atol=1e-5)  # kernels add in another order for more channels
    assert torch.equal(pipe.unet.conv_in.bias, original.conv_in.bias)
    assert torch.equal(pipe.unet.conv_in.weight[:, :4], original.conv_in.weight)
    assert not pipe.unet.conv_in.weight[:, 4:].any()


def run(words: str, **options) -> int:
    """Run a command with options by name."""
    named = [x for name, value in options.items() for x in (f"--{name.replace('_', '-')}", str(value))]
    return main([*words.split(), *named])


def test_another_vae_and_the_command(base, clip_model, tmp_path, capsys):
    vae = AutoencoderKL.from_pretrained(base / "vae")
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(0.25)
    vae.save_pretrained(tmp_path / "vae")
    given = {"base": base, "image_encoder": clip_model, "vae": tmp_path / "vae", "size": "128x64"}
    assert run("train start", **given, out=tmp_path / "model") == 0, capsys.readouterr().err
    pipe = load_pipeline(tmp_path / "model", "cpu")
    assert (pipe.vae.decoder.conv_out.bias == 0.25).all()
    assert (pipe.model_config.reference_warp, pipe.model_config.pose_encoding) == ("texture", "iuv")
    assert run("train start", **given, out=tmp_path / "model") == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_it_is_trained_further(base, clip_model, tmp_path, capsys):
    """The commands one after the other: start, train, animate."""
    start, out = tmp_path / "start", tmp_path / "out.mp4"
    clip = make_tiny_clips(tmp_path / "clips", (128, 64)) / "clip0"
    assert run("train start --size 128x64", base=base, image_encoder=clip_model, out=start) == 0
    few = "--steps 1 --end-to-end-steps 1 --batch-size 2 --device cpu"
    done = run(f"train {few}", data=clip.parent, init=start, out=tmp_path / "run")
    assert done == 0, capsys.readouterr().err
    given = {"model": tmp_path / "run" / "model", "image": clip / "frame_00000.png", "poses": clip, "out": out}
    assert run("animate --device cpu --recipe none --steps 1", **given) == 0, capsys.readouterr().err
    assert out.is_file()
    assert load_pipeline(tmp_path / "run" / "model", "cpu").model_config.charts == "body"  # whose U, V it knows now


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": (100, 64)}, "100x64"),
        ({"size": (0, 64)}, "multiples of 64"),
        ({"reference_warp": "encoded"}, "none, texture"),
        ({"pose_encoding": "xyz"}, "iuv, uv"),
    ],
)
def test_what_a_model_cannot_have(base, clip_model, given, words):
    with pytest.raises(InputError, match=words):
        DreamPosePipeline.from_stable_diffusion(base, clip_model, **{"size": SIZE} | given)


def test_what_cannot_be_loaded_is_one_sentence(base, clip_model, tmp_path):
    def refused(words, first=base, second=clip_model):
        with pytest.raises(ModelError, match=words) as error:
            DreamPosePipeline.from_stable_diffusion(first, second, size=SIZE)
        assert "\n" not in str(error.value)

    refused("There is no folder", tmp_path / "nowhere")
    refused("There is no folder", "a/b/c")
    for missing in ("unet", "vae", "scheduler"):
        shutil.copytree(base, tmp_path / missing)
        shutil.rmtree(tmp_path / missing / missing)
        refused(f"no folder {missing}", tmp_path / missing)
    shutil.copytree(base, tmp_path / "broken")
    next((tmp_path / "broken" / "unet").glob("*.safetensors")).write_bytes(b"nothing")
    refused("unet of .* cannot be loaded", tmp_path / "broken")
    (tmp_path / "broken" / "unet" / "config.json").write_text("{}")
    refused("unet of .* cannot be loaded|tokens", tmp_path / "broken")
    wide = make_tiny_stable_diffusion(tmp_path / "wide", cross_attention_dim=48)
    refused("tokens of 48 numbers and this image encoder gives 32", wide)
    refused("CLIPVisionModel of .* cannot be loaded|fit", second=base / "unet")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (LocalEntryNotFoundError("offline"), "cannot be reached"),
        (RepositoryNotFoundError.__new__(RepositoryNotFoundError), "There is no owner/name on the Hugging Face hub"),
    ],
)
def test_a_hub_id_that_does_not_exist_or_cannot_be_reached(monkeypatch, cause, words):
    def fail(*args, **kwargs):
        raise OSError("owner/name does not appear to have a file named config.json") from cause

    monkeypatch.setattr(stable_diffusion.CLIPVisionModel, "from_pretrained", fail)
    with pytest.raises(ModelError, match=words):
        DreamPosePipeline.from_stable_diffusion("owner/name", "owner/name", size=SIZE)
    monkeypatch.setattr(DreamPosePipeline, "from_pretrained", fail)
    with pytest.raises(ModelError, match=words):
        load_pipeline("owner/name", "cpu")
