"""A photo and a motion to a video in Python: python -m examples.animate (from the repository's root)."""

from pathlib import Path

import torch

from dreampose_core import DreamPosePipeline
from dreampose_core.media import read_image
from dreampose_core.poses import read_image_poses, read_poses
from dreampose_core.media import write_video

EXAMPLES = Path(__file__).resolve().parent

if __name__ == "__main__":
    pipe = DreamPosePipeline.from_pretrained(EXAMPLES.parent / "assets" / "mini", dtype=torch.float32)
    poses = read_poses(EXAMPLES / "motions" / "walk.npz")
    frames = pipe.stream(
        image=read_image(EXAMPLES / "people" / "ada.png"),
        image_poses=read_image_poses(EXAMPLES / "people" / "ada.poses.npz"),
        poses=poses,
        generator=torch.Generator().manual_seed(0),
    )
    print(write_video(frames, "ada.mp4", poses.fps), "frames in ada.mp4")
