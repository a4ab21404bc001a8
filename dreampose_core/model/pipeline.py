"""DreamPosePipeline: one photo and a pose sequence in, frames out, as a clip or one after another."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image

from ..errors import InputError
from ..media import check_aspect, fit_image, from_pil
from ..poses import PoseSequence, fitted
from ..progress import ShouldStop, never_stop
from ..settings import Solver

# saved models name their own networks by import path, and diffusers only looks at modules that are already imported
from . import adapter as _adapter  # noqa: F401
from . import memory, stable_diffusion
from . import textured_vae as _textured_vae  # noqa: F401
from .conditioning import (
    blank_tokens,
    condition_latents,
    decode_latents,
    encode_latents,
    encode_maps,
    pose_tensors,
    reference_tokens,
    to_pixels,
    to_uint8,
    vae_factor,
    warp_channels,
    window_channels,
    window_of,
)
from .config import ModelConfig, check_config
from .denoising import OnStep, Reference, denoise, guidance_branches
from .latent_preview import colour_map, latent_preview
from .safety import SafetyChecker
from .texture import WARP_PLANES, harvest, move

ImageLike = Image.Image | np.ndarray
OutputType = Literal["uint8", "np"]
_NUM_LATENT_PREVIEWS = 5  # in the first batch


@dataclass
class DreamPoseOutput(BaseOutput):
    """frames: (T, H, W, 3), one for each pose: uint8, or float32 in [0, 1] for output_type "np"."""

    frames: np.ndarray


class DreamPosePipeline(DiffusionPipeline):
    """The DreamPose model (arXiv 2304.06025) with all its components.

    model_config: how the model is fed; stands in the model folder's model_index.json.
    """

    model_cpu_offload_seq = "image_encoder->adapter->unet->vae"
    precision: str | None = None  # what `load_pipeline` chose, and why
    safety_checker: SafetyChecker | None = None  # what it finds unfit is black

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
        charts: str = "densepose",
    ) -> DreamPosePipeline:
        """A new model of full size, to be trained: Stable Diffusion's weights, with channels for poses and texture that
        count nothing yet.

        Until it is trained it says what Stable Diffusion says for CLIP's tokens of the photo, whatever the poses
        (paper, section 4.2). base: Stable Diffusion 1.x, such as "CompVis/stable-diffusion-v1-4"; image_encoder: CLIP;
        vae: another VAE, such as "stabilityai/sd-vae-ft-mse"; each a folder or a hub id. pose_encoding: "iuv", or "uv"
        for the paper's; reference_warp: "none", the paper's, or "texture". size: (height, width), multiples of 64.
        charts: whose U, V it will be trained on.
        Raises InputError, and ModelError for what cannot be loaded or does not fit together.
        """
        quiet_libraries()
        config = ModelConfig(
            pose_encoding=pose_encoding,
            charts=charts,
            reference_warp=reference_warp,
            height=size[0],
            width=size[1],
            image_guidance=8.0,
            pose_guidance=3.0,
            draft_steps=10,
            standard_steps=25,
            best_steps=50,
            guidance_from=0.1,
            guidance_to=0.8,
            reuse_steps=2,
        )
        check_config(config)
        pipe = cls(**stable_diffusion.components(config, base, image_encoder, vae), model_config=config)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def model_config(self) -> ModelConfig:
        """How this model must be fed."""
        return ModelConfig(**self.config["model_config"])

    def change_config(self, **changes) -> None:
        """Changes fields of `model_config`."""
        self.register_to_config(model_config=asdict(replace(self.model_config, **changes)))

    @property
    def factor(self) -> int:
        """Pixels a latent cell's side."""
        return vae_factor(self.vae)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | list[ImageLike],
        poses: PoseSequence,
        image_poses: PoseSequence | None = None,
        num_inference_steps: int | None = None,
        image_guidance: float | None = None,
        pose_guidance: float | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 8,
        noise: torch.Tensor | None = None,
        init_leak: bool | None = None,
        output_type: OutputType = "uint8",
        guidance_interval: tuple[float, float] | None = None,
        reuse_steps: int | None = None,
        solver: Solver | None = None,
    ) -> DreamPoseOutput:
        """All frames of a clip; arguments and errors as in `stream`."""
        frames = self.stream(
            image,
            poses,
            image_poses,
            num_inference_steps,
            image_guidance,
            pose_guidance,
            generator,
            batch_size,
            noise=noise,
            init_leak=init_leak,
            output_type=output_type,
            guidance_interval=guidance_interval,
            reuse_steps=reuse_steps,
            solver=solver,
        )
        return DreamPoseOutput(frames=np.stack(list(frames)))

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
        first_frame: int = 0,
        on_step: Callable[[int, int], None] | None = None,
        should_stop: ShouldStop = never_stop,
        noise: torch.Tensor | None = None,
        init_leak: bool | None = None,
        output_type: OutputType = "uint8",
        on_smaller: Callable[[int], None] | None = None,
        on_latent_preview: Callable[[int, np.ndarray], None] | None = None,
        guidance_interval: tuple[float, float] | None = None,
        reuse_steps: int | None = None,
        solver: Solver | None = None,
        on_hidden: Callable[[int], None] | None = None,
        batches: Sequence[range] | None = None,
    ) -> Iterator[np.ndarray]:
        """Frames in order, as they are made: (H, W, 3) in the model's size, uint8, or float32 in [0, 1] for output_type
        "np".

        image: the photo, or several photos of the person. poses: one map for each frame; other sizes are fitted, never
        squashed. image_poses: the photos' own maps, one each; without them there is no moved texture.
        num_inference_steps, guidance_interval, reuse_steps, solver: see `Sampling`; None takes the model's own of
        standard quality. image_guidance, pose_guidance: the paper's s_I and s_P (section 4.3), >= 0; None takes the
        model's own.
        generator: a CPU generator for the start noise, which all frames share. batch_size: frames made together.
        first_frame: frames before it are not made again (a multiple of batch_size keeps a resumed clip bit-equal).
        batches: the frames that are made and come, in this order, each range's together; None for all from first_frame
        on.
        on_step(frame, step): called after each denoising step of the batch that starts with `frame`.
        noise: the start noise itself, (1, C, h, w). init_leak: whether the photo's latents lie under it, see
        `ModelConfig`; None takes the model's own. on_smaller(batch_size): called where memory did not hold a batch and
        smaller ones are made from there on. on_latent_preview(frame, pixels): called every few steps of the first batch
        with what its first frame is about to be, uint8 (H, W, 3), without detail. on_hidden(frame): called before a
        frame comes that the safety checker made black.
        Raises InputError for wrong input, Cancelled when should_stop() is true, asked at every step, and ModelError
        where memory does not hold a single frame.
        """
        # 1. check and fit the inputs
        s_image = self.model_config.image_guidance if image_guidance is None else image_guidance
        s_pose = self.model_config.pose_guidance if pose_guidance is None else pose_guidance
        given = {
            "num_inference_steps": num_inference_steps,
            "guidance_interval": guidance_interval,
            "reuse_steps": reuse_steps,
            "solver": solver,
        }
        sampling = replace(
            self.model_config.sampling("standard"),
            **{name: value for name, value in given.items() if value is not None},
        )
        if (
            sampling.num_inference_steps < 1
            or batch_size < 1
            or not all(math.isfinite(s) and s >= 0 for s in (s_image, s_pose))
        ):
            raise InputError(
                "Steps and batch size must be at least 1, and both guidance weights finite numbers of at least 0."
            )
        if sampling.reuse_steps < 1 or not 0 <= sampling.guidance_interval[0] <= sampling.guidance_interval[1] <= 1:
            raise InputError(
                "reuse_steps must be at least 1, and the guidance interval two shares of the noise schedule, from 0 "
                "to 1."
            )
        if sampling.solver not in (None, *get_args(Solver)):
            raise InputError(f"The solver is {sampling.solver!r}; there are {', '.join(get_args(Solver))}.")
        if not 0 <= first_frame <= len(poses):
            raise InputError(f"The first frame is {first_frame}; the sequence has frames 0:{len(poses)}.")
        if output_type not in get_args(OutputType):
            raise InputError(f"The output type is {output_type!r}; there are {' and '.join(get_args(OutputType))}.")
        device = self._execution_device
        # 2. what is constant for the clip
        with memory.enough_for("to look at the photo"):
            reference = self.encode_reference(image, image_poses)
        if not self.model_config.knows_charts(poses):
            reference.texture = None
        if noise is None:
            noise = torch.randn(reference.latents.shape, generator=generator)
        elif noise.shape != reference.latents.shape:
            raise InputError(
                f"The noise is {tuple(noise.shape)}; this model starts from {tuple(reference.latents.shape)}."
            )
        noise = noise.to(device, torch.float32)
        beneath = reference.latents if (self.model_config.init_leak if init_leak is None else init_leak) else None
        branches = guidance_branches(s_image, s_pose)
        # 3. frames, batch by batch; where memory does not hold a batch, halves of it
        if batches is None:
            start = first_frame - first_frame % batch_size
            batches = [range(i, min(i + batch_size, len(poses))) for i in range(start, len(poses), batch_size)]
        waiting = deque(batches)
        try:
            while waiting:
                batch = waiting.popleft()
                indices = batch[:batch_size]
                start = indices.start
                shown = on_latent_preview if start == batches[0].start else None
                frames = None
                try:
                    pose, warp, planes = self._encode_batch(poses, indices, reference, device)
                    latents = denoise(
                        self.unet,
                        self.scheduler,
                        self.model_config,
                        sampling,
                        branches,
                        reference,
                        noise.expand(len(indices), -1, -1, -1),
                        beneath,
                        pose,
                        warp,
                        self._step_watcher(start, reference, on_step, shown),
                        should_stop,
                    )
                    pixels = decode_latents(self.vae, latents, planes)
                    made = (
                        to_uint8(pixels)
                        if output_type == "uint8"
                        else (pixels.float() / 2 + 0.5).clamp(0, 1).movedim(1, -1)
                    )
                    frames = made.cpu().numpy()
                    hidden = self._hide(frames)
                except (RuntimeError, MemoryError) as error:
                    if not memory.is_out_of_memory(error):
                        raise
                    if len(indices) == 1:
                        raise memory.too_little(reference.size) from error
                pose = warp = planes = latents = pixels = made = None  # or they would be held beside the next batch's
                if frames is None:  # out here, where the error no longer holds on to what was made
                    memory.let_go()
                    batch_size = len(indices) // 2
                    if on_smaller is not None:
                        on_smaller(batch_size)
                    waiting.appendleft(batch)
                    continue
                for index, frame in zip(indices, frames):
                    if index >= first_frame:
                        if on_hidden is not None and index - start in hidden:
                            on_hidden(index)
                        yield frame
                if rest := batch[len(indices) :]:
                    waiting.appendleft(rest)
        finally:
            self.maybe_free_model_hooks()

    @torch.no_grad()
    def encode_reference(
        self, image: ImageLike | list[ImageLike], image_poses: PoseSequence | None = None
    ) -> Reference:
        """Tokens, latents and texture of the photo or photos; tokens and latents are the first photo's."""
        photos = image if isinstance(image, list) else [image]
        pixels = self.fit_photos(photos, image_poses)
        if image_poses is not None and len(image_poses) != len(photos):
            raise InputError(
                f"There are {len(photos)} photos and {len(image_poses)} DensePose maps for them; give one map for each."
            )
        device = self._execution_device
        first = pixels[:1].to(device)
        latents = encode_latents(self.vae, first).to(self.unet.dtype)
        encoders = self.image_encoder, self.image_processor, self.adapter
        same = self.model_config.photo_encoding == "own" and self.model_config.condition_size == pixels.shape[2:]
        seen = latents if same else condition_latents(self.model_config, self.vae, first)
        tokens = reference_tokens(self.model_config, first, seen, *encoders).to(self.unet.dtype)
        blank = blank_tokens(self.model_config, tokens, self.vae, *encoders)
        texture = parts = uv = None
        if image_poses is not None and self.model_config.knows_charts(image_poses):
            maps = pose_tensors(
                fitted(image_poses, tuple(pixels.shape[2:]), bilinear=self.model_config.bilinear),
                self.model_config.charts,
            )
            parts, uv = (None if x is None else x.to(device) for x in maps)
        if self.model_config.reference_warp != "none" and parts is not None and bool((parts > 0).any()):
            texture = harvest(pixels.to(device), parts, uv, same_person=True)
        return Reference(tokens, blank, latents, texture, colour_map(pixels[:1], latents), tuple(pixels.shape[2:]))

    def fit_photos(self, photos: list[ImageLike], image_poses: PoseSequence | None = None) -> torch.Tensor:
        """Photos as pixels (N, 3, H, W) in [-1, 1] in the size of frames for the first one, never squashed.

        Raises InputError for what is no photo, and when `image_poses`, their maps, are of another aspect than the
        photos.
        """
        if not photos:
            raise InputError("There is no photo; give at least one.")
        arrays = [from_pil(photo) if isinstance(photo, Image.Image) else photo for photo in photos]
        for array in arrays:
            if (
                not isinstance(array, np.ndarray)
                or array.dtype != np.uint8
                or array.ndim != 3
                or array.shape[2] != 3
                or 0 in array.shape
            ):
                given = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise InputError(f"A photo must be a PIL image or a uint8 array (H, W, 3); got {given}.")
            if image_poses is not None:
                check_aspect(array.shape[:2], image_poses.size)
        size = self.model_config.shaped_like(arrays[0].shape[:2])
        return to_pixels(torch.from_numpy(np.stack([fit_image(array, size) for array in arrays])))

    def _hide(self, frames: np.ndarray) -> list[int]:
        """Which of these frames the safety checker has just made black."""
        return [] if self.safety_checker is None else self.safety_checker.hide(frames)

    def _step_watcher(self, start: int, reference: Reference, on_step, on_latent_preview) -> OnStep:

        def watch(step: int, steps: int, clean: Callable[[], torch.Tensor]) -> None:
            if on_latent_preview is not None and step < steps and step % max(1, steps // _NUM_LATENT_PREVIEWS) == 0:
                cells = latent_preview(clean()[:1], reference.colours)
                pixels = F.interpolate(cells, reference.size, mode="bilinear", align_corners=False)
                shown = to_uint8(pixels).cpu().numpy()
                self._hide(shown)
                on_latent_preview(start, shown[0])
            if on_step is not None:
                on_step(start, step)

        return watch

    def _encode_batch(self, poses, indices, reference, device):
        """Pose channels, moved texture channels and moved texture of the frames `indices`."""
        windows = [window_of(self.model_config, index, len(poses)) for index in indices]
        needed = sorted({index for window in windows for index in window})
        place = {index: position for position, index in enumerate(needed)}
        around = fitted(poses.select(needed), reference.size, bilinear=self.model_config.bilinear)
        parts, uv = near = [None if x is None else x.to(device) for x in pose_tensors(around, self.model_config.charts)]
        order = torch.tensor([[place[index] for index in window] for window in windows], device=device)
        pose = window_channels(encode_maps(*near, self.factor, self.model_config.pose_encoding), order)
        if self.model_config.reference_warp == "none":
            return pose, None, None
        if reference.texture is None or parts is None:
            # a model that knows moved textures is given an empty one
            planes = pose.new_zeros(len(indices), WARP_PLANES, *reference.size)
        else:
            middle = [None if x is None else x[[place[index] for index in indices]] for x in near]
            planes = move(
                reference.texture.expand(len(indices)), *middle, background=self.model_config.reference_background
            )
        return pose, warp_channels(self.model_config, planes, self.vae), planes


def quiet_libraries() -> None:
    """Turns off the progress bars and notes that diffusers and transformers print while they load and save models."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
