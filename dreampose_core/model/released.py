"""Import the original authors' checkpoints (.pth) as a model folder that reproduces how they ran them."""

from __future__ import annotations

import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from diffusers import PNDMScheduler, UNet2DConditionModel

from ..errors import InputError, ModelError, shown
from ..files import appearing_folder, check_new_folder, storage_error
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from .conditioning import unet_in_channels, vae_factor
from .config import ModelConfig
from .pipeline import DreamPosePipeline
from .stable_diffusion import CLIP, SIZE, clip_parts, load, load_vae, new_adapter, why_not_loaded

FORM = ModelConfig(
    pose_encoding="uv",
    pose_window="centred",
    charts="densepose",
    reference_warp="none",
    reference_background=False,
    photo_encoding="released",
    init_leak=True,
    height=SIZE[0],
    width=SIZE[1],
    image_guidance=8.0,
    pose_guidance=3.0,
    draft_steps=25,
    standard_steps=100,
    best_steps=100,
)
"""How the authors ran the released weights: U, V of five maps in [-1, 1], background -1 and a null pose of 0; the
photo's bytes in the VAE; some of the photo under the start noise; PNDM with 100 steps; guidance 8 and 3."""

_MEMBERS = {"unet": r"unet_epoch_(\d+)\.pth", "adapter": r"adapter_(\d+)\.pth", "vae": r"vae_(\d+)\.pth"}
# names of the VAE's attention weights in diffusers of 2023 -> today's
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

    tick(0)
    parts = {**clip_parts(image_encoder), "vae": load_vae(base), "scheduler": load(PNDMScheduler, base, "scheduler")}
    config = _unet_config(base)
    factor = vae_factor(parts["vae"])
    parts["adapter"] = new_adapter(FORM, parts["image_encoder"], parts["vae"], config, base)
    channels = unet_in_channels(FORM, parts["vae"].config.latent_channels, factor)
    with torch.device("meta"):
        parts["unet"] = UNet2DConditionModel.from_config({**config, "in_channels": channels})
    given = ((name, path, shown(path.name)) for name, path in files.items() if path is not None)
    with closing(given if archive is None else _unpacked(archive)) as opened:
        for number, (name, path, called) in enumerate(opened, 1):
            state = _state(path, called)
            if name == "vae":
                state = {_renamed(key): value for key, value in state.items()}
            _fill(parts[name], state, called)
            tick(number)
    pipe = DreamPosePipeline(**parts, model_config=FORM).to(torch.float32)
    with appearing_folder(out) as folder:
        pipe.save_pretrained(folder, max_shard_size="5GB")
    clock.tick(4)
    return out


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    # RuntimeError: the zip is encrypted
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{shown(archive.name)} is damaged, encrypted or no zip; please download it again.") from error


def _members(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """Return the newest file of each component in the archive."""
    found = {}
    for component, pattern in _MEMBERS.items():
        named = ((re.fullmatch(pattern, info.filename.rpartition("/")[2]), info) for info in archive.infolist())
        if numbered := [(int(match[1]), info) for match, info in named if match]:
            found[component] = max(numbered, key=lambda pair: pair[0])[1]
    if missing := [component for component in ("unet", "adapter") if component not in found]:
        raise InputError(
            f"{shown(name)} holds no {' and no '.join(f'{part}_..._<number>.pth' for part in missing)}; "
            "give the authors' custom-chkpts.zip."
        )
    return found


def _unpacked(archive: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield (component, file, name for messages) of the newest files in the archive; each file exists until the next
    one is requested."""
    with _readable(archive):
        opened = zipfile.ZipFile(archive)
    with opened, tempfile.TemporaryDirectory(prefix="dreampose-") as folder:
        for name, info in _members(opened, archive.name).items():
            path = Path(folder) / f"{name}.pth"
            try:
                with _readable(archive), opened.open(info) as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 22)  # at most as much as the zip announces
            except OSError as error:
                raise storage_error(error, path) from error
            yield name, path, shown(info.filename.rpartition("/")[2])
            path.unlink()


def _state(path: Path, called: str) -> dict[str, torch.Tensor]:
    """Load the tensors of a .pth file by name, without the prefix of multi-GPU training. Raises ModelError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch and its unpickler raise many kinds
        raise ModelError(
            f"{called} cannot be read: it is damaged, or holds other objects than tensors, which are never loaded."
        ) from error
    if (
        not isinstance(state, dict)
        or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items())
        or not state
    ):
        raise ModelError(f"{called} does not hold named tensors, as the released checkpoints do.")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _renamed(key: str) -> str:
    old = re.fullmatch(r"((?:en|de)coder\.mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", key)
    return f"{old[1]}.{_RENAMED[old[2]]}.{old[3]}" if old else key


def _fill(module: torch.nn.Module, state: dict[str, torch.Tensor], called: str) -> None:
    """Give `module` exactly the tensors of `state`, in float32. Raises ModelError that lists those that do not fit."""
    try:
        module.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    except RuntimeError as error:
        problems = " ".join(str(error).split())[:_LONGEST]
        raise ModelError(f"{called} does not fit this model: {problems}; give the authors' file.") from error


def _unet_config(base: str | Path) -> dict:
    try:
        config = UNet2DConditionModel.load_config(base, subfolder="unet")
    except Exception as error:  # diffusers and the hub raise many kinds
        raise ModelError(why_not_loaded(error, f"unet of {base}", base)) from error
    return {key: value for key, value in config.items() if key != "_name_or_path"}
