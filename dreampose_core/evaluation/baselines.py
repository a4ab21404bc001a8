"""Baselines without a generating network: each makes frames from one photo, its pose map and the target pose maps."""

from __future__ import annotations

import numpy as np
import torch

from ..inputs.preview import moved_frames
from ..model.conditioning import decode_latents, encode_latents, to_pixels, to_uint8
from ..model.inpainting import fill_background
from ..model.textured_vae import TexturedVAE
from ..poses import PoseSequence

BASELINES = ("repeat_photo", "grey_silhouette", "part_colours", "moved_texture", "vae_only")


def baseline_frames(
    photo: np.ndarray, image_poses: PoseSequence, poses: PoseSequence, truth: np.ndarray, vae, device=None
) -> dict[str, np.ndarray]:
    """Make the frames of every baseline that these pose maps allow: a dict of name to uint8 (T, H, W, 3).

    "part_colours" needs parts; "moved_texture" needs U, V in the photo's charts as well. "vae_only" encodes the truth
    with the VAE and decodes it, the upper limit for a model with this VAE; not for a decoder that sees the moved
    texture, which draws little without. No other baseline uses the truth.

    photo: uint8 (H, W, 3). image_poses: the photo's pose map (one frame). poses: T target pose maps. truth: uint8
    (T, H, W, 3). device: where the VAE computes; None leaves it where it is.
    """
    # (T, 1, H, W) and (1, 1, H, W)
    person, photo_person = (torch.from_numpy(maps.mask)[:, None] for maps in (poses, image_poses))
    background, _ = fill_background(to_pixels(torch.from_numpy(photo))[None], photo_person.float())
    silhouette = torch.where(person, torch.zeros(()), background)
    made = {"repeat_photo": np.repeat(photo[None], len(poses), 0), "grey_silhouette": to_uint8(silhouette).numpy()}
    if not isinstance(vae, TexturedVAE):
        with torch.no_grad():
            batches = to_pixels(torch.from_numpy(truth)).to(device or vae.device).split(8)
            decoded = torch.cat([decode_latents(vae, encode_latents(vae, pixels), None) for pixels in batches])
        made["vae_only"] = to_uint8(decoded).cpu().numpy()
    if poses.parts is not None and image_poses.parts is not None:
        made["part_colours"] = np.stack(list(moved_frames(photo, image_poses, poses, use_uv=False)))
        if poses.uv is not None and poses.charts == image_poses.charts:
            made["moved_texture"] = np.stack(list(moved_frames(photo, image_poses, poses)))
    return made
