"""Draws everything in this folder anew: people with their DensePose, and motions with their thumbnails, all held out
from training.

    python -m examples.make_examples
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from dreampose_core.body.build import Build, Stances
from dreampose_core.body.worn import fitted_body
from dreampose_core.media import write_gif, write_png
from dreampose_core.poses import PoseSequence, converted, render_colours, write_poses
from dreampose_core.synthetic import Figure, render_clip

HERE = Path(__file__).resolve().parent
PEOPLE = {"ada": 11_048, "bela": 11_001, "chidi": 11_007, "dana": 11_034, "emil": 11_042, "fumi": 11_052}
MOTIONS = {  # name: (motion, figure, frames, first second)
    "walk": ("walk", 11_016, 60, 0.0),
    "turn": ("turn", 11_017, 80, 0.0),
    "wave": ("wave", 11_023, 60, 0.0),
    "catwalk": ("catwalk", 11_036, 100, 0.4),
    "dance": ("dance", 11_043, 80, 0.0),
    "disco": ("disco", 11_045, 80, 0.0),
    "fashion": ("fashion", 11_046, 100, 0.0),
    "show_dress": ("show_dress", 11_009, 80, 0.0),
    "arms": ("arms", 11_030, 60, 0.0),
    "side_step": ("side_step", 11_033, 60, 0.0),
    "boxing": ("boxing", 11_003, 60, 0.0),
    "jump": ("jump", 11_035, 60, 0.0),
}
FPS = 20.0
MAPS = (80, 64)  # of motions, which are drawn anew from their joints


def compact(poses: PoseSequence) -> PoseSequence:
    """In the charts that agree with DensePose, U, V in 255 steps as in DensePose's own image files: a third of the
    bytes."""
    poses = converted(poses, "body")
    return replace(poses, uv=(np.round(poses.uv.astype(np.float32) * 255) / 255).astype(np.float16))


def with_body(poses: PoseSequence) -> PoseSequence:
    """One map with the body that its mask shows, hair and clothes included, in its joints."""
    joints = poses.joints
    body = fitted_body(Stances.of(joints, poses.size), Build.of(joints.body), poses.mask[0].astype(np.uint8) * 255)
    return replace(poses, joints=replace(joints, body=body.numbers()))


def main() -> None:
    """Writes people/NAME.png with people/NAME.poses.npz, and motions/NAME.npz with motions/NAME.gif."""
    for folder in ("people", "motions"):
        (HERE / folder).mkdir(exist_ok=True)
    for name, seed in PEOPLE.items():
        rgb, poses = render_clip(Figure.from_seed(seed), "idle", 1, (480, 384))
        write_png(rgb[0].numpy(), HERE / "people" / f"{name}.png")
        write_poses(with_body(compact(poses)), HERE / "people" / f"{name}.poses.npz")
    for name, (motion, seed, frames, start_s) in MOTIONS.items():
        figure = Figure.from_seed(seed)
        # the person moves, not who looks
        figure = replace(figure, camera=replace(figure.camera, sway=0.0, breathe=0.0))
        _, poses = render_clip(figure, motion, frames, (160, 128), fps=FPS, start_s=start_s)
        _, small = render_clip(figure, motion, frames, MAPS, fps=FPS, start_s=start_s)
        write_poses(compact(small), HERE / "motions" / f"{name}.npz")
        write_gif(render_colours(poses.select(slice(None, None, 2))), HERE / "motions" / f"{name}.gif", FPS / 2)


if __name__ == "__main__":
    main()
