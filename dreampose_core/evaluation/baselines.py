"""What can be reached without a generating network: each baseline makes frames from one photo, its map and the target
maps."""

from __future__ import annotations

import numpy as np
import torch

from ..inputs.preview import moved_frames
from ..model.conditioning import decode_latents, encode_latents, to_pixels, to_uint8
from ..model.texture import fill_background
from ..poses import PoseSequence

BASELINES = ("repeat_photo", "grey_silhouette", "part_colours", "moved_texture", "vae_only")


def baseline_frames(
    photo: np.ndarray, image_poses: PoseSequence, poses: PoseSequence, truth: np.ndarray, vae, device=None
) -> dict[str, np.ndarray]:
    """Frames uint8 (T, H, W, 3) of every baseline that these maps allow, by name: "part_colours" needs parts,
    "moved_texture" U, V as well.

    photo: uint8 (H, W, 3) with its map `image_poses` (one frame); poses: T target maps; truth: uint8 (T, H, W, 3),
    which only "vae_only" looks at: the truth through the VAE and back, the most that a model with this VAE can reach.
    device: where the VAE computes, None for where it is.
    """
    person, own = (torch.from_numpy(maps.mask)[:, None] for maps in (poses, image_poses))  # (T, 1, H, W), (1, 1, H, W)
    background, _ = fill_background(to_pixels(torch.from_numpy(photo))[None], own.float())
    silhouette = torch.where(person, torch.zeros(()), background)
    with torch.no_grad():
        batches = to_pixels(torch.from_numpy(truth)).to(device or vae.device).split(8)
        through = torch.cat([decode_latents(vae, encode_latents(vae, pixels), None) for pixels in batches])
    made = {
        "repeat_photo": np.repeat(photo[None], len(poses), 0),
        "grey_silhouette": to_uint8(silhouette).numpy(),
        "vae_only": to_uint8(through).cpu().numpy(),
    }
    if poses.parts is not None and image_poses.parts is not None:
        made["part_colours"] = np.stack(list(moved_frames(photo, image_poses, poses, use_uv=False)))
        if poses.uv is not None and poses.charts == image_poses.charts:
            made["moved_texture"] = np.stack(list(moved_frames(photo, image_poses, poses)))
    return made
