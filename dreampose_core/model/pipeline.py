"""DreamPosePipeline: generates frames from a photo and a pose sequence, as a clip or one after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import diffusers
import numpy as np
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image

from ..errors import InputError
from ..media import check_aspect, fit_image, from_pil
from ..poses import WINDOW, PoseSequence, fitted, window_indices
from ..progress import ShouldStop, never_stop
from ..settings import Solver

# diffusers resolves a saved model's own classes by import path, only in modules that are already imported
from . import adapter as _adapter  # noqa: F401
from . import memory, stable_diffusion
from . import textured_vae as _textured_vae  # noqa: F401
from .conditioning import (
    blank_tokens,
    condition_latents,
    decode_both,
    encode_latents,
    encode_maps,
    pose_tensors,
    reference_tokens,
    to_pixels,
    to_uint8,
    vae_factor,
    warp_channels,
    window_channels,
)
from .config import POSE_WINDOWS, ModelConfig
from .denoising import Reference, denoise, guidance_branches
from .safety import SafetyChecker
from .texture import WARP_PLANES, Texture, harvest, move

for _library in (diffusers, transformers):  # silence progress bars and notes while models load and save
    _library.utils.logging.set_verbosity_error()
    _library.utils.logging.disable_progress_bar()

ImageLike = Image.Image | np.ndarray
OutputType = Literal["uint8", "np"]


@dataclass
class DreamPoseOutput(BaseOutput):
    """frames: (T, H, W, 3), one for each pose: uint8, or float32 in [0, 1] for output_type "np"."""

    frames: np.ndarray


class DreamPosePipeline(DiffusionPipeline):
    """The DreamPose model (arXiv 2304.06025) with all its components.

    model_config: how the model must be conditioned; stored in the model folder's model_index.json.
    """

    model_cpu_offload_seq = "image_encoder->adapter->unet->vae"
    precision: str | None = None  # chosen by `load_pipeline`, with the reason
    safety_checker: SafetyChecker | None = None  # blackens unsafe frames

    def __init__(
        self,
        vae,
        unet,
        adapter,
        scheduler,
        image_encoder,
        image_processor,
        model_config: ModelConfig | dict | None = None,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            adapter=adapter,
            scheduler=scheduler,
            image_encoder=image_encoder,
            image_processor=image_processor,
        )
        if not isinstance(model_config, ModelConfig):
            model_config = ModelConfig(**(model_config or {}))
        self.register_to_config(model_config=asdict(model_config))

    @classmethod
    def from_stable_diffusion(
        cls,
        base: str | Path,
        image_encoder: str | Path = stable_diffusion.CLIP,
        *,
        pose_encoding: str = "iuv",
        reference_warp: str = "texture",
        size: tuple[int, int] = stable_diffusion.SIZE,
        vae: str | Path | None = None,
    ) -> DreamPosePipeline:
        """Build a new model of full size for training: Stable Diffusion's weights, plus input channels for poses and
        texture with zero weight.

        Until trained it predicts what Stable Diffusion predicts for CLIP's tokens of the photo, for any poses (paper,
        section 4.2). base: Stable Diffusion 1.x, such as "CompVis/stable-diffusion-v1-4"; image_encoder: CLIP; vae:
        another VAE, such as "stabilityai/sd-vae-ft-mse"; each a folder or a hub id. pose_encoding: "iuv", or "uv" as in
        the paper; reference_warp: "none" as in the paper, or "texture". size: (height, width), multiples of 64.
        Raises InputError, and ModelError if a part cannot be loaded or does not fit.
        """
        config = stable_diffusion.config(pose_encoding, reference_warp, size)
        pipe = cls(**stable_diffusion.components(config, base, image_encoder, vae), model_config=config)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def model_config(self) -> ModelConfig:
        """How this model must be conditioned."""
        return ModelConfig(**self.config["model_config"])

    def change_config(self, **changes) -> None:
        """Change fields of `model_config`."""
        self.register_to_config(model_config=asdict(replace(self.model_config, **changes)))

    @property
    def factor(self) -> int:
        """The side of a latent cell in pixels."""
        return vae_factor(self.vae)

    def __call__(self, *args, **options) -> DreamPoseOutput:
        """Generate all frames of a clip; arguments and errors as in `stream`."""
        return DreamPoseOutput(frames=np.stack(list(self.stream(*args, **options))))

    @torch.no_grad()
    def stream(
        self,
        image: ImageLike | list[ImageLike],
        poses: PoseSequence,
        image_poses: PoseSequence | None = None,
        num_inference_steps: int | None = None,
        image_guidance: float | None = None,
        pose_guidance: float | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 8,
        *,
        batches: Sequence[range] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        reuse_steps: int | None = None,
        solver: Solver | None = None,
        noise: torch.Tensor | None = None,
        init_leak: bool | None = None,
        output_type: OutputType = "uint8",
        should_stop: ShouldStop = never_stop,
        on_step: Callable[[int, int], None] | None = None,
        on_smaller: Callable[[int], None] | None = None,
        on_hidden: Callable[[int], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """Yield frames in order, as they are finished: (H, W, 3) in the model's size, uint8, or float32 in [0, 1] for
        output_type "np".

        image: the photo, or several photos of the person. poses: one map for each frame; maps of other sizes are
        fitted without distortion. image_poses: the photos' pose maps, one each; without them there is no moved texture.
        num_inference_steps, guidance_interval, reuse_steps, solver: see `Sampling`; None for the model's settings of
        standard quality. image_guidance, pose_guidance: the paper's s_I and s_P (section 4.3), >= 0; None for the
        model's.
        generator: a CPU generator for the start noise, which all frames share. batch_size: frames per batch at most.
        batches: the frames to generate, in this order, each range as one batch; None for all. noise: the start noise
        itself, (1, C, h, w). init_leak: add the start noise to the photo's latents, see `ModelConfig`; None for the
        model's.
        on_step(frame, step): called after each denoising step of the batch that starts with `frame`.
        on_smaller(batch_size): called when a batch did not fit in memory and the rest runs in smaller ones.
        on_hidden(frame): called before a frame that the safety checker blackened.
        Raises InputError for wrong input, Cancelled when should_stop() returns true, checked at every step, and
        ModelError if memory is too small for a single frame.
        """
        # 1. check the options; None means the model's default
        config = self.model_config
        changes = {"num_inference_steps": num_inference_steps, "guidance_interval": guidance_interval}
        sampling = config.sampling("standard", **changes, reuse_steps=reuse_steps, solver=solver)
        s_image = config.image_guidance if image_guidance is None else image_guidance
        s_pose = config.pose_guidance if pose_guidance is None else pose_guidance
        if batch_size < 1 or not all(math.isfinite(s) and s >= 0 for s in (s_image, s_pose)):
            raise InputError("The batch size must be at least 1, and both guidance weights finite and at least 0.")
        if output_type not in get_args(OutputType):
            raise InputError(f"The output type is {output_type!r}; it must be {' or '.join(get_args(OutputType))}.")
        if batches is None:
            batches = [range(i, min(i + batch_size, len(poses))) for i in range(0, len(poses), batch_size)]
        if not all(0 <= index < len(poses) for batch in batches for index in batch):
            raise InputError(f"The batches must name frames of the sequence, 0 to {len(poses) - 1}.")
        # 2. encode the photo: tokens, latents, texture
        with memory.enough_for("to look at the photo"):
            reference = self.encode_reference(image, image_poses)
        if not config.knows_charts(poses):
            reference.texture = None
        if noise is None:
            noise = torch.randn(reference.latents.shape, generator=generator)
        elif noise.shape != reference.latents.shape:
            raise InputError(
                f"The noise is {tuple(noise.shape)}; this model starts from {tuple(reference.latents.shape)}."
            )
        noise = noise.to(self._execution_device, torch.float32)
        beneath = reference.latents if (config.init_leak if init_leak is None else init_leak) else None

        # 3. make each batch: encode the maps, move the texture, denoise, decode
        def made(indices: range) -> np.ndarray:
            def watch(step: int) -> None:
                if on_step is not None:
                    on_step(indices.start, step)

            pose, warp, planes = self._encode_batch(poses, indices, reference)
            given = reference, noise.expand(len(indices), -1, -1, -1), beneath, pose, warp, watch, should_stop
            latents = denoise(self, sampling, guidance_branches(s_image, s_pose), *given)
            pixels, _ = decode_both(self.vae, latents, planes)
            if output_type == "uint8":
                return to_uint8(pixels).cpu().numpy()
            return (pixels.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1).cpu().numpy()

        # 4. hide what is unsafe, and hand over frame by frame
        try:
            for indices, frames in memory.halving(batches, batch_size, made, reference.size, on_smaller):
                hidden = [] if self.safety_checker is None else self.safety_checker.hide(frames)
                for number, (index, frame) in enumerate(zip(indices, frames)):
                    if on_hidden is not None and number in hidden:
                        on_hidden(index)
                    yield frame
        finally:
            self.maybe_free_model_hooks()

    @torch.no_grad()
    def encode_reference(
        self, image: ImageLike | list[ImageLike], image_poses: PoseSequence | None = None
    ) -> Reference:
        """Encode the photo or photos to tokens, latents and texture; tokens and latents are the first photo's."""
        photos = image if isinstance(image, list) else [image]
        pixels = self.fit_photos(photos, image_poses)
        config, device, size = self.model_config, self._execution_device, tuple(pixels.shape[2:])
        first = pixels[:1].to(device)
        latents = encode_latents(self.vae, first).to(self.unet.dtype)
        same = config.photo_encoding == "own" and config.condition_size == size
        seen = latents if same else condition_latents(config, self.vae, first)
        tokens = reference_tokens(self, first, seen).to(self.unet.dtype)
        blank, texture = blank_tokens(self, tokens), None
        if image_poses is not None and config.knows_charts(image_poses):
            texture = self.photo_maps(pixels.to(device), image_poses)[2]
        return Reference(tokens, blank, latents, texture, size)

    def photo_maps(
        self, pixels: torch.Tensor, image_poses: PoseSequence | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, Texture | None]:
        """Return parts and U, V of photos (N, 3, H, W) of one person, and the photos' texture; None for what is
        unknown."""
        config = self.model_config
        parts, uv = (None, None) if image_poses is None else self._maps(image_poses, tuple(pixels.shape[2:]))
        known = parts is not None and config.knows_charts(image_poses) and bool((parts > 0).any())
        harvested = config.reference_warp != "none" and known
        return parts, uv, harvest(pixels, parts, uv, same_person=True) if harvested else None

    def fit_photos(self, photos: list[ImageLike], image_poses: PoseSequence | None = None) -> torch.Tensor:
        """Return photos as pixels (N, 3, H, W) in [-1, 1], in the frame size for the first one, without distortion.

        Raises InputError for anything but photos, and if `image_poses`, their maps, have another number or aspect.
        """
        if not photos:
            raise InputError("There is no photo; give at least one.")
        if image_poses is not None and len(image_poses) != len(photos):
            raise InputError(
                f"There are {len(photos)} photos and {len(image_poses)} DensePose maps for them; give one map for each."
            )
        arrays = [from_pil(photo) if isinstance(photo, Image.Image) else photo for photo in photos]
        for array in arrays:
            picture = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 3 and array.size > 0
            if not picture or array.shape[2] != 3:
                given = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise InputError(f"A photo must be a PIL image or a uint8 array (H, W, 3); got {given}.")
            if image_poses is not None:
                check_aspect(array.shape[:2], image_poses.size)
        size = self.model_config.shaped_like(arrays[0].shape[:2])
        return to_pixels(torch.from_numpy(np.stack([fit_image(array, size) for array in arrays])))

    def _maps(self, poses: PoseSequence, size: tuple[int, int]) -> list[torch.Tensor | None]:
        """Return parts and U, V of pose maps, fitted to `size`, on the device; None for what they lack."""
        fit = fitted(poses, size, bilinear=self.model_config.bilinear)
        return [
            None if x is None else x.to(self._execution_device) for x in pose_tensors(fit, self.model_config.charts)
        ]

    def _encode_batch(self, poses: PoseSequence, indices: range, reference: Reference):
        """Return pose channels, moved texture channels and moved texture of the frames `indices`."""
        config = self.model_config
        windows = np.array([window_indices(i, len(poses), POSE_WINDOWS[config.pose_window]) for i in indices])
        needed, places = np.unique(windows, return_inverse=True)
        near = self._maps(poses.select(needed), reference.size)
        order = torch.from_numpy(places.reshape(windows.shape)).to(self._execution_device)
        pose = window_channels(encode_maps(*near, self.factor, config.pose_encoding), order)
        if config.reference_warp == "none":
            return pose, pose[:, :0], None
        if reference.texture is None or near[0] is None:
            # a model trained with moved textures still needs their channels
            planes = pose.new_zeros(len(indices), WARP_PLANES, *reference.size)
        else:
            middle = [None if x is None else x[order[:, WINDOW.index(0)]] for x in near]
            planes = move(reference.texture.expand(len(indices)), *middle, background=config.reference_background)
        return pose, warp_channels(config, planes, self.vae), planes
