"""Build a full-size model from Stable Diffusion 1.x and CLIP: load the parts, check them, add input channels."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError
from transformers import CLIPVisionModel
from transformers.models.clip import CLIPImageProcessorPil

from ..errors import InputError, ModelError
from .adapter import ImageAdapter
from .conditioning import unet_in_channels, vae_factor
from .config import POSE_CHANNELS, ModelConfig

CLIP = "openai/clip-vit-base-patch32"
SIZE = (640, 512)
_MULTIPLE = 64  # of the sides: the VAE's factor of 8, and the UNet's of 8


def config(pose_encoding: str, reference_warp: str, size: tuple[int, int]) -> ModelConfig:
    """Return the config of a full-size model in DensePose's charts. Raises InputError for unsupported names and
    sizes."""
    given = {"pose_encoding": pose_encoding, "reference_warp": reference_warp}
    for (name, value), known in zip(given.items(), (POSE_CHANNELS, ("none", "texture"))):
        if value not in known:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")
    if any(side < _MULTIPLE or side % _MULTIPLE for side in size):
        raise InputError(f"The size is {size[0]}x{size[1]}; both sides must be multiples of {_MULTIPLE}.")
    given |= {"charts": "densepose", "height": size[0], "width": size[1], "image_guidance": 8.0, "pose_guidance": 3.0}
    short = {"guidance_from": 0.1, "guidance_to": 0.8, "reuse_steps": 2}
    return ModelConfig(**given, **short, draft_steps=10, standard_steps=25, best_steps=50)


def components(
    config: ModelConfig, base: str | Path, image_encoder: str | Path = CLIP, vae: str | Path | None = None
) -> dict:
    """Return the components of a new model of this config in float32, by name; arguments and errors as in
    `DreamPosePipeline.from_stable_diffusion`."""
    parts = {**clip_parts(image_encoder), "vae": load_vae(base, vae)}
    unet = load(UNet2DConditionModel, base, "unet")
    parts["adapter"] = new_adapter(config, parts["image_encoder"], parts["vae"], unet.config, base)
    solver, kind = {"algorithm_type": "dpmsolver++", "solver_order": 2}, DPMSolverMultistepScheduler
    parts["scheduler"] = kind.from_config(load(kind, base, "scheduler").config, **solver)
    channels = unet_in_channels(config, parts["vae"].config.latent_channels, vae_factor(parts["vae"]))
    parts["unet"] = widened(unet, channels)
    return parts


def widened(unet: UNet2DConditionModel, in_channels: int) -> UNet2DConditionModel:
    """Add input channels with zero weight to the UNet's first convolution, in place; existing weights and bias stay."""
    old = unet.conv_in
    new = torch.nn.Conv2d(
        in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, dtype=old.weight.dtype
    )
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=in_channels)  # the saved config must match the weights
    return unet


def clip_parts(image_encoder: str | Path) -> dict:
    """Load CLIP's vision tower and its processor, as "image_encoder" and "image_processor"."""
    kinds = {"image_encoder": CLIPVisionModel, "image_processor": CLIPImageProcessorPil}
    return {name: load(kind, image_encoder) for name, kind in kinds.items()}


def load_vae(base: str | Path, vae: str | Path | None = None) -> AutoencoderKL:
    """Load the VAE of `base`, or `vae`: a folder or hub id of a VAE alone, such as stabilityai/sd-vae-ft-mse."""
    return load(AutoencoderKL, base, "vae") if vae is None else load(AutoencoderKL, vae)


def new_adapter(
    config: ModelConfig, image_encoder: CLIPVisionModel, vae: AutoencoderKL, unet: dict, base: str | Path
) -> ImageAdapter:
    """Build the paper's adapter, which starts as the identity on CLIP's tokens.

    unet: the UNet's config. Raises ModelError if the parts do not fit together.
    """
    clip, latent_channels = image_encoder.config, vae.config.latent_channels
    if unet["cross_attention_dim"] != clip.hidden_size:
        raise ModelError(
            f"The UNet of {base} takes tokens of {unet['cross_attention_dim']} numbers and this image encoder gives "
            f"{clip.hidden_size}; Stable Diffusion 1.x and {CLIP} fit."
        )
    if unet["out_channels"] != latent_channels:
        raise ModelError(
            f"The UNet of {base} makes latents of {unet['out_channels']} channels and the VAE takes "
            f"{latent_channels}; use Stable Diffusion 1.x for both."
        )
    factor = vae_factor(vae)
    tokens = (clip.image_size // clip.patch_size) ** 2 + 1
    return ImageAdapter(tokens, clip.hidden_size, latent_channels, config.height // factor, config.width // factor)


def load(kind: type, source: str | Path, subfolder: str | None = None, how: str = "from_pretrained"):
    """Load an object of the diffusers or transformers class `kind` from a folder or hub id with the class's method
    `how`, networks in float32. Raises ModelError."""
    what = f"{subfolder or kind.__name__} of {source}"
    args = {} if subfolder is None else {"subfolder": subfolder}
    if issubclass(kind, torch.nn.Module):
        args["dtype"] = torch.float32
    if not Path(source).is_dir() and not is_hub_id(source):
        raise ModelError(f"There is no folder {source}; give a folder, or a hub id such as owner/name.")
    if subfolder is not None and Path(source).is_dir() and not (Path(source) / subfolder).is_dir():
        raise ModelError(f"{source} has no folder {subfolder}; give Stable Diffusion 1.x in diffusers' layout.")
    try:
        return getattr(kind, how)(source, **args)
    except Exception as error:  # diffusers, transformers, safetensors and the hub raise many kinds
        raise ModelError(why_not_loaded(error, what, source)) from error


def is_hub_id(source: str | Path) -> bool:
    """Whether `source` has the form owner/name and no such path exists on this machine."""
    return not Path(source).exists() and str(source).count("/") == 1 and not str(source).startswith((".", "/", "~"))


def why_not_loaded(error: Exception, what: str, source: str | Path) -> str:
    """Return one sentence about an error of `from_pretrained` and how to fix it."""
    chain: list[BaseException] = [] if Path(source).is_dir() else [error]
    while chain and (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any(isinstance(one, RepositoryNotFoundError) for one in chain):
        return (
            f"There is no {source} on the Hugging Face hub, or it is private or gated; check the name, or log "
            "in with: hf auth login"
        )
    if any(isinstance(one, (LocalEntryNotFoundError, OfflineModeIsEnabled)) for one in chain):
        return (
            f"{source} is not on this machine and the Hugging Face hub cannot be reached; connect it, or give "
            "a folder with a copy."
        )
    message = " ".join(str(error).split())[:160] or type(error).__name__
    return f"The {what} cannot be loaded: it is incomplete, damaged or of another kind ({message})."
