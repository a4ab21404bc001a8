"""Draws the people with their DensePose and the motions in this folder again, all held out from training.

    python -m examples.make_examples
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

import torch

from dreampose_core.densepose import load_estimator
from dreampose_core.media import write_png
from dreampose_core.poses import PoseSequence, converted, write_poses
from dreampose_core.synthetic import Figure, render_clip
from dreampose_core.synthetic.people import Person, draw_people

HERE = Path(__file__).resolve().parent
PEOPLE = {  # name: (person, second in which they look at the camera)
    "ada": (10_014, 7.0),
    "bela": (10_005, 2.0),
    "chidi": (10_006, 0.0),
    "dana": (10_021, 2.0),
    "emil": (10_002, 4.0),
    "fumi": (10_018, 2.0),
}
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
MAPS = (80, 64)  # of motions, which are drawn again from their joints


def compact(poses: PoseSequence) -> PoseSequence:
    """In the charts that agree with DensePose, U, V in 255 steps as in DensePose's own image files: a third of the
    bytes."""
    poses = converted(poses, "body")
    return replace(poses, uv=(np.round(poses.uv.astype(np.float32) * 255) / 255).astype(np.float16))


def main() -> None:
    """Writes people/NAME.png with people/NAME.poses.npz, and motions/NAME.npz."""
    for folder in ("people", "motions"):
        (HERE / folder).mkdir(exist_ok=True)
    tracker = load_estimator("body")
    for name, (seed, second) in PEOPLE.items():
        person = Person.from_seed(seed)
        photo = draw_people(person, person.moments("idle", torch.tensor([second])), (640, 512))[0][0].numpy()
        write_png(photo, HERE / "people" / f"{name}.png")
        write_poses(compact(tracker.estimate([photo])), HERE / "people" / f"{name}.poses.npz")
    for name, (motion, seed, frames, start_s) in MOTIONS.items():
        figure = Figure.from_seed(seed)
        # the person moves, not who looks
        figure = replace(figure, camera=replace(figure.camera, sway=0.0, breathe=0.0))
        _, small = render_clip(figure, motion, frames, MAPS, fps=FPS, start_s=start_s)
        write_poses(compact(small), HERE / "motions" / f"{name}.npz")


if __name__ == "__main__":
    main()
