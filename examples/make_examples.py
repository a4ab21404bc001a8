"""Draws everything in this folder anew: people with their DensePose, and motions with their thumbnails, all held out from training.

    python examples/make_examples.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from dreampose_core.images import write_png
from dreampose_core.mannequin import Figure, render_clip
from dreampose_core.poses import PoseSequence, render_colours, write_poses
from dreampose_core.video import write_gif

HERE = Path(__file__).resolve().parent
PEOPLE = {"ada": 10_106, "bela": 10_122, "chidi": 10_123, "dana": 10_107, "emil": 10_105, "fumi": 10_102}
MOTIONS = {  # name: (motion, figure, frames, first second)
    "walk": ("walk", 10_131, 60, 0.0), "turn": ("turn", 10_132, 80, 0.0), "wave": ("wave", 10_133, 60, 0.0),
    "catwalk": ("catwalk", 10_134, 80, 0.4), "arms": ("arms", 10_135, 60, 0.0), "side_step": ("side_step", 10_136, 60, 0.0),
    "twist": ("twist", 10_137, 60, 0.0), "dance": ("dance", 10_138, 60, 0.0),
}  # fmt: skip
FPS = 20.0


def compact(poses: PoseSequence) -> PoseSequence:
    """U, V in 255 steps, as DensePose's own image files have them: a third of the bytes."""
    return replace(poses, uv=(np.round(poses.uv.astype(np.float32) * 255) / 255).astype(np.float16))


def main() -> None:
    """Writes people/NAME.png with people/NAME.poses.npz, and motions/NAME.npz with motions/NAME.gif."""
    for folder in ("people", "motions"):
        (HERE / folder).mkdir(exist_ok=True)
    for name, seed in PEOPLE.items():
        rgb, poses = render_clip(Figure.from_seed(seed), "idle", 1, (480, 384))
        write_png(rgb[0].numpy(), HERE / "people" / f"{name}.png")
        write_poses(compact(poses), HERE / "people" / f"{name}.poses.npz")
    for name, (motion, seed, frames, start_s) in MOTIONS.items():
        _, poses = render_clip(Figure.from_seed(seed), motion, frames, (160, 128), fps=FPS, start_s=start_s)
        write_poses(compact(poses), HERE / "motions" / f"{name}.npz")
        write_gif(render_colours(poses.select(slice(None, None, 2))), HERE / "motions" / f"{name}.gif", FPS / 2)


if __name__ == "__main__":
    main()
