"""Base training: a textured VAE on drawn clips; UNet, adapter and image encoder on pairs of frames (paper, section
4.4)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ..model.conditioning import blank_tokens, clean_latents, decode_both, predict, reference_tokens
from ..model.texture import SOURCE_TEXEL
from .conditions import Conditioned, Dropout, autocast, conditioned
from .drawn import WRONG
from .loop import LoopOptions, train
from .losses import PatchDiscriminator, adversarial_losses, denoising_loss, picture_loss
from .optimizers import gradient_checkpointing

_DROPOUT = Dropout()
_DRAWN, _RIGHT = 0.5, 0.1  # weight of the picture that a textured decoder draws; of its pixels where the texture fits
_PERSON = 4.0  # weight of the person's pixels; 1 elsewhere


def prefetched(make: Callable[[int], object]) -> Callable[[int], object]:
    """Return a function that gives `make(step)` and calls it one step ahead in a thread, while the networks compute; a
    run stays a pure function of its steps."""
    # one thread: more would compete with the networks' own for the cores
    pool = ThreadPoolExecutor(max_workers=1, initializer=torch.set_num_threads, initargs=(1,))
    ahead: dict[int, Future] = {}

    def at(step: int) -> object:
        made = ahead.pop(step, None) or pool.submit(make, step)
        ahead[step + 1] = pool.submit(make, step + 1)
        return made.result()

    return at


def train_vae(
    pipe, samples, options: LoopOptions, *, precision: torch.dtype = torch.float32, checkpointing: bool = False, **run
) -> bool:
    """Train a `TexturedVAE` on crops of drawn clips and set its scaling factor; True when all steps are done.

    precision: dtype of autocast; checkpointing: use gradient checkpointing; run: folder, sample, on_progress,
    should_stop as in `loop.train`; also below.
    """
    vae, batch_at = pipe.vae.train(), prefetched(samples.batch)

    def loss_at(step: int) -> torch.Tensor:
        batch = batch_at(step)
        weight = _evenly(1 + (_PERSON - 1) * (batch.parts[:, 2:3] > 0))
        with autocast(vae.device, precision):
            # inference uses only the mode, so training does too; sampling would lose colour first. The latents are the
            # moved texture's: a decoder that finds the truth in them does not learn to mend
            latents = vae.encode(batch.planes[:, :3]).latent_dist.mean
            decoded = decode_both(vae, latents * vae.config.scaling_factor, batch.planes)
        return frame_loss(*decoded, batch.target, batch.planes, weight) + 1e-4 * latents.float().square().mean()

    with gradient_checkpointing(checkpointing, vae):
        _, done = train(vae.parameters(), loss_at, options, "vae", **run)
    vae.eval()
    with torch.no_grad():
        latents = vae.encode(samples.batch(10**6).target).latent_dist.mode()
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    return done


def train_base(pipe, samples, options: LoopOptions, seed: int = 0, *, dropout: Dropout = _DROPOUT, **how) -> bool:
    """Train UNet, adapter and image encoder against the frozen VAE; True when all steps are done.

    how: see `_train_on_predictions`.
    """
    modules = [pipe.unet, pipe.adapter, pipe.image_encoder]

    def loss_of(inputs: Conditioned, prediction: torch.Tensor) -> torch.Tensor:
        return denoising_loss(prediction, inputs.wanted, 1 + (_PERSON - 1) * inputs.person)

    return _train_on_predictions(pipe, samples, options, seed, "base", modules, dropout, loss_of, **how)


def train_end_to_end(
    pipe,
    samples,
    options: LoopOptions,
    seed: int = 0,
    *,
    adversarial: float = 0.05,
    precision: torch.dtype = torch.float32,
    **how,
) -> bool:
    """Train UNet, adapter, image encoder and the VAE's decoder together on the pixels of predicted frames; True when
    all steps are done.

    Alone, the UNet learns to blur latents that it cannot predict, and the decoder never meets the UNet's errors; a loss
    on pixels teaches both. Frames are single predictions from noisy latents, as noisy as in `train_base`. Pose and
    photo are never dropped, but the moved texture is, because the decoder must learn to do without it. adversarial:
    weight of the loss from a discriminator that is trained alongside; without it the model blurs uncertain detail.
    0: no discriminator. precision, how: see `_train_on_predictions`.
    """
    modules = [pipe.unet, pipe.adapter, pipe.image_encoder, pipe.vae.post_quant_conv, pipe.vae.decoder]
    if adversarial:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            discriminator = PatchDiscriminator().to(pipe.device)
        modules.append(discriminator)

    def loss_of(inputs: Conditioned, prediction: torch.Tensor) -> torch.Tensor:
        latents = clean_latents(pipe.scheduler, inputs.noisy, prediction.float(), inputs.timesteps)
        with autocast(latents.device, precision):
            decoded, drawn = decode_both(pipe.vae, latents, inputs.planes)
            weight = _evenly(1 + (_PERSON - 1) * inputs.mask)
            realism, discriminator_loss = (
                adversarial_losses(discriminator, decoded, inputs.target, weight) if adversarial else (0, 0)
            )
        loss = frame_loss(decoded, drawn, inputs.target, inputs.planes, weight)
        return loss + adversarial * realism + discriminator_loss

    stage = "end_to_end", modules, Dropout(pose=0, image=0, both=0), loss_of
    return _train_on_predictions(pipe, samples, options, seed, *stage, precision=precision, **how)


def _train_on_predictions(
    pipe,
    samples,
    options: LoopOptions,
    seed: int,
    stage: str,
    modules: list[torch.nn.Module],
    dropout: Dropout,
    loss_of: Callable[[Conditioned, torch.Tensor], torch.Tensor],
    *,
    precision: torch.dtype = torch.float32,
    checkpointing: bool = False,
    **run,
) -> bool:
    """Train `modules` on the loss of the samples and the UNet's prediction for them."""
    pipe.vae.eval().requires_grad_(False)
    for module in modules:
        module.train().requires_grad_(True)
    batch_at = prefetched(samples.batch)

    def loss_at(step: int) -> torch.Tensor:
        inputs = conditioned(pipe, batch_at(step), dropout, precision, seed, step)
        with autocast(pipe.unet.device, precision):
            tokens = reference_tokens(pipe, inputs.photo, inputs.photo_latents)
            keep = inputs.has["image"][:, None, None]
            if not keep.all():
                tokens = torch.where(keep > 0, tokens, blank_tokens(pipe, tokens))
            prediction = predict(pipe, inputs.noisy, inputs.timesteps, inputs.poses, inputs.warp, tokens)
        return loss_of(inputs, prediction)

    with gradient_checkpointing(checkpointing, pipe.unet, pipe.image_encoder, pipe.vae):
        parameters = (parameter for module in modules for parameter in module.parameters())
        _, done = train(parameters, loss_at, options, stage, **run)
    for module in (*modules, pipe.vae):
        module.eval()
    return done


def frame_loss(decoded, drawn, target, planes, weight: torch.Tensor) -> torch.Tensor:
    """Return the picture loss of decoded frames (B, 3, H, W) and, for a textured decoder, of what it draws below the
    texture where that is needed: what is kept everywhere would else be the last thing it learns."""
    loss = picture_loss(decoded, target, weight)
    if drawn is decoded:
        return loss
    return loss + _DRAWN * picture_loss(drawn, target, _evenly(weight * needs_drawing(planes, target)))


def needs_drawing(planes: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Weight the pixels, (B, 1, H, W), that a decoder must draw itself: 1 where the moved texture (B, 5, H, W) is not a
    texel of the photo or is far from the target (B, 3, H, W), else 0.1."""
    wrong = ((planes[:, :3] - target).abs().mean(1, keepdim=True) > WRONG) | (planes[:, 4:] != SOURCE_TEXEL)
    return torch.where(wrong, 1.0, _RIGHT)


def _evenly(weight: torch.Tensor) -> torch.Tensor:
    """Scale weights (B, 1, H, W) to mean 1 in each sample."""
    return weight / weight.mean((1, 2, 3), keepdim=True)
