"""Import the original authors' checkpoints (.pth) as a model folder that reproduces how they ran them."""

from __future__ import annotations

import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from diffusers import PNDMScheduler, UNet2DConditionModel

from ..errors import InputError, ModelError, shown
from ..files import appearing_folder, check_new_folder, storage_error
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .conditioning import unet_in_channels, vae_factor
from .config import ModelConfig
from .pipeline import DreamPosePipeline
from .stable_diffusion import CLIP, SIZE, clip_parts, load, load_vae, new_adapter

_INPUTS = dict(pose_encoding="uv", pose_window="centred", charts="densepose", photo_encoding="released", init_leak=True)
_STEPS = dict(draft_steps=25, standard_steps=100, best_steps=100)
_FRAMES = dict(height=SIZE[0], width=SIZE[1], reference_warp="none", reference_background=False)
FORM = ModelConfig(**_INPUTS, **_FRAMES, **_STEPS, image_guidance=8.0, pose_guidance=3.0)
"""How the authors ran the released weights: U, V of five maps in [-1, 1], background -1 and a null pose of 0; the
photo's bytes in the VAE; some of the photo under the start noise; PNDM with 100 steps; guidance 8 and 3."""

_MEMBER = re.compile(r"(unet|adapter|vae)_(?:epoch_)?(\d+)\.pth")
# names of the VAE's attention weights in diffusers of 2023 -> today's
_OLD_NAME = re.compile(r"(?<=coder\.mid_block\.attentions\.0)\.(query|key|value|proj_attn)\.")
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LONGEST = 400  # characters of PyTorch's list of tensors that do not fit


def import_released(
    base: str | Path,
    out: Path,
    *,
    archive: Path | None = None,
    unet: Path | None = None,
    adapter: Path | None = None,
    vae: Path | None = None,
    image_encoder: str | Path = CLIP,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Path:
    """Write the model folder `out`, which must be new or empty, and return it.

    base: Stable Diffusion 1.4, for the UNet's architecture, the scheduler and, unless a tuned one is given, the VAE;
    image_encoder: CLIP; folders or hub ids. archive: the authors' custom-chkpts.zip, unpacked one file at a time; or
    unet, adapter and optionally vae: .pth files. Only tensors are unpickled. Raises InputError, ModelError if weights
    do not fit, StorageError, Cancelled.
    """
    files = {"unet": unet, "adapter": adapter, "vae": vae}
    if any(files.values()) if archive is not None else None in (unet, adapter):
        raise InputError("Give either the zip, or the UNet's and the adapter's file and optionally the VAE's.")
    for path in filter(None, (archive, *files.values())):
        if not path.is_file():
            raise InputError(f"There is no file {path}.")
    check_new_folder(out)
    clock = StageClock("import", 4, on_progress)

    def tick(done: int) -> None:
        clock.tick(done)
        check_stop(should_stop)

    # build the model from Stable Diffusion and CLIP, the UNet without weights
    tick(0)
    parts = {**clip_parts(image_encoder), "vae": load_vae(base), "scheduler": load(PNDMScheduler, base, "scheduler")}
    config = dict(load(UNet2DConditionModel, base, "unet", "load_config"))
    config.pop("_name_or_path", None)
    parts["adapter"] = new_adapter(FORM, parts["image_encoder"], parts["vae"], config, base)
    channels = unet_in_channels(FORM, parts["vae"].config.latent_channels, vae_factor(parts["vae"]))
    with torch.device("meta"):
        parts["unet"] = UNet2DConditionModel.from_config({**config, "in_channels": channels})
    # fill in the authors' weights
    given = ((name, path) for name, path in files.items() if path is not None)
    with closing(given if archive is None else _unpacked(archive)) as opened:
        for number, (name, path) in enumerate(opened, 1):
            _fill(parts[name], _state(path), shown(path.name))
            tick(number)
    pipe = DreamPosePipeline(**parts, model_config=FORM).to(torch.float32)
    with appearing_folder(out) as folder:
        pipe.save_pretrained(folder, max_shard_size="5GB")
    clock.tick(4)
    return out


def _unpacked(archive: Path) -> Iterator[tuple[str, Path]]:
    """Yield each component's name and newest file in the archive; a file exists until the next one is requested."""
    try:
        with zipfile.ZipFile(archive) as opened, tempfile.TemporaryDirectory(prefix="dreampose-") as folder:
            newest = {}
            for info in opened.infolist():
                if match := _MEMBER.fullmatch(info.filename.rpartition("/")[2]):
                    newest[match[1]] = max(newest.get(match[1], (-1, None)), (int(match[2]), info.filename))
            if missing := [part for part in ("unet", "adapter") if part not in newest]:
                names = " and no ".join(f"{part}_..._<number>.pth" for part in missing)
                raise InputError(f"{shown(archive.name)} holds no {names}; give the authors' custom-chkpts.zip.")
            for name, (_, member) in newest.items():
                path = Path(opened.extract(member, folder))
                yield name, path
                path.unlink()
    # RuntimeError: the zip is encrypted
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{shown(archive.name)} is damaged, encrypted or no zip; please download it again.") from error
    except OSError as error:
        raise storage_error(error, archive.name) from error


def _state(path: Path) -> dict[str, torch.Tensor]:
    """Load the tensors of a .pth file by today's names, without the prefix of multi-GPU training. Raises ModelError."""
    called = shown(path.name)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch and its unpickler raise many kinds
        raise ModelError(
            f"{called} cannot be read: it is damaged, or holds other objects than tensors, which are never loaded."
        ) from error
    named = isinstance(state, dict) and all(isinstance(x, torch.Tensor) for x in state.values())
    if not named or not state or not all(isinstance(key, str) for key in state):
        raise ModelError(f"{called} does not hold named tensors, as the released checkpoints do.")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return {_OLD_NAME.sub(lambda old: f".{_RENAMED[old[1]]}.", key): value for key, value in state.items()}


def _fill(module: torch.nn.Module, state: dict[str, torch.Tensor], called: str) -> None:
    """Give `module` exactly the tensors of `state`, in float32. Raises ModelError that lists those that do not fit."""
    try:
        module.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    except RuntimeError as error:
        problems = " ".join(str(error).split())[:_LONGEST]
        raise ModelError(f"{called} does not fit this model: {problems}; give the authors' file.") from error
