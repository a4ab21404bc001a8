"""Draws docs/bodies.jpg: drawn people in another's motion, tracked as photo and clip, on their own bodies.

python -m examples.draw_bodies
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dreampose_core.densepose import load_estimator
from dreampose_core.inputs.framing import make_scene
from dreampose_core.inputs.preview import moved_frames
from dreampose_core.poses import render_colours
from dreampose_core.settings import SceneOptions
from dreampose_core.synthetic import HELD_OUT
from dreampose_core.synthetic.people import Person, draw_people

PEOPLE = (11_001, 11_048, 11_005, 11_007, 11_028, 11_042)
DANCER, MOTION, FRAMES, FPS = HELD_OUT + 61, "dance", (0, 6, 13, 20, 27), 8.0
SIZE = (400, 320)


def drawn(seed: int, motion: str, count: int) -> list[np.ndarray]:
    """Frames of a person in a motion."""
    person = Person.from_seed(seed)
    return list(draw_people(person, person.moments(motion, torch.arange(count) / FPS), SIZE)[0].numpy())


def main() -> None:
    """The dancer above; below each person: the photo, the map on it, and what of the photo is seen in the motion."""
    tracker = load_estimator("body")
    clip = drawn(DANCER, MOTION, FRAMES[-1] + 1)
    motion = replace(tracker.estimate(clip), fps=FPS)
    blank = np.full((*SIZE, 3), 24, np.uint8)
    rows = [[blank, blank, *(clip[index] for index in FRAMES)]]
    for seed in PEOPLE:
        (photo,) = drawn(seed, "idle", 1)
        scene = make_scene(photo, motion, tracker.estimate([photo]), SIZE, SceneOptions())
        shown = moved_frames(scene.photo, scene.image_poses, scene.poses.select(list(FRAMES)))
        rows.append([scene.photo, render_colours(scene.image_poses)[0], *shown])
    sheet = Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))
    sheet = sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS)
    sheet.save(Path(__file__).resolve().parent.parent / "docs" / "bodies.jpg", quality=82)


if __name__ == "__main__":
    main()
