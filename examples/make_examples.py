"""Draws people with their DensePose and makes motions for this folder.

    python -m examples.make_examples

The motions in the folder are older: the same ones, done by other bodies, each with a pace of its own.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

import torch

from dreampose_core.densepose import load_estimator
from dreampose_core.media import write_png
from dreampose_core.poses import write_poses
from dreampose_core.settings import MotionOptions
from dreampose_core.synthetic.acting import acted
from dreampose_core.synthetic.people import Person, draw_people

HERE = Path(__file__).resolve().parent
PEOPLE = {  # name: (seed held out from training, second in which they look at the camera)
    "ada": (10_014, 7.0),
    "bela": (10_005, 2.0),
    "chidi": (10_006, 0.0),
    "dana": (10_021, 2.0),
    "emil": (10_002, 4.0),
    "fumi": (10_018, 2.0),
}
MOTIONS = {  # name: seconds
    "walk": 3,
    "turn": 4,
    "wave": 3,
    "catwalk": 5,
    "dance": 4,
    "disco": 4,
    "fashion": 5,
    "show_dress": 4,
    "arms": 3,
    "side_step": 3,
    "boxing": 3,
    "jump": 3,
}
MAPS = (80, 64)  # of motions, which are drawn again from their joints


def main() -> None:
    """Writes people/NAME.png with people/NAME.poses.npz, and motions/NAME.npz."""
    for folder in ("people", "motions"):
        (HERE / folder).mkdir(exist_ok=True)
    tracker = load_estimator("body")
    for name, (seed, second) in PEOPLE.items():
        person = Person.from_seed(seed)
        photo = draw_people(person, person.moments("idle", torch.tensor([second])), (640, 512))[0][0].numpy()
        write_png(photo, HERE / "people" / f"{name}.png")
        poses = tracker.estimate([photo])
        uv = (np.round(poses.uv.astype(np.float32) * 255) / 255).astype(np.float16)  # a third of the bytes
        write_poses(replace(poses, uv=uv), HERE / "people" / f"{name}.poses.npz")
    for name, seconds in MOTIONS.items():
        write_poses(acted(MotionOptions(motion=name, seconds=seconds), MAPS), HERE / "motions" / f"{name}.npz")


if __name__ == "__main__":
    main()
