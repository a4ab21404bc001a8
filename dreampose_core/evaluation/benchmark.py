"""The benchmark: compare a model with baselines on clips with ground truth; write scores and a contact sheet."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .. import __version__
from ..files import appearing
from ..inputs.preview import moved_frames
from ..model.conditioning import decode_both, encode_latents, to_pixels, to_uint8
from ..model.inpainting import fill_background
from ..model.textured_vae import TexturedVAE
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, StageClock, check_stop, ignore_progress, never_stop
from ..settings import Recipe
from ..subject.finetuning import tuned_to
from .clips import DISTURBED, Clip, DrawnPeople, VideoClips, disturbances
from .scores import Lpips, Report, Scorer, mean_scores, table

UNDISTURBED = "undisturbed"
# Each perturbed photo map costs another run of the model, so the robustness test uses fewer clips and frames.
ROBUST_PEOPLE, ROBUST_FRAMES = 8, 16
SHOWN, CONTACT_WIDTH = 8, 1600  # clips in the contact sheet; its width in pixels, at most
_MOMENTS = (0.1, 0.35, 0.6, 0.9)  # of a clip's length: the frames in the contact sheet
_STRIP, _INK, _PAPER = 16, (225, 225, 230), (24, 24, 28)

# Ways to make frames without a generating network.
BASELINES = ("repeat_photo", "grey_silhouette", "part_colours", "moved_texture", "vae_only")

Row = list[tuple[str, np.ndarray]]
"""A row of the contact sheet: pictures uint8 (N, H, W, 3) with their captions."""


def evaluate(
    pipe,
    clips: DrawnPeople | VideoClips,
    folder: Path,
    *,
    recipe: Recipe = "none",
    quality: str = "standard",
    seed: int = 0,
    robustness: bool = False,
    estimator=None,
    lpips: Lpips | None = None,
    about: dict | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Report:
    """Run the benchmark and return its report: for each block the scores in MEASURES, averaged over the clips.

    A block is one way to make frames: "none" is the model without fine-tuning; the name of `recipe`, unless that is
    "none", is the model fine-tuned to each photo; every baseline is a block. With `robustness` there are also
    UNDISTURBED (the model again, for comparison) and one block for each name in DISTURBED, where the photo's pose map
    is perturbed that way; these use the first ROBUST_PEOPLE clips and their first ROBUST_FRAMES frames. Scores that
    cannot be computed are None.

    estimator, lpips: as in `Scorer`. about: more entries for about.json.

    The same clips, model and seed give the same report on the same kind of machine. At the end, `folder` holds
    report.json (the report), table.md, about.json (the run's settings and the scores of each clip) and contact.jpg.
    Raises InputError for clips that cannot be used, StorageError, and Cancelled when should_stop() is true.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clock = StageClock("people", len(clips), on_progress)
    sampling = pipe.model_config.sampling(quality)
    people, rows, missing, seconds = [], [], {}, []  # seconds of each frame

    def generated(clip: Clip, count: int) -> np.ndarray:
        """Generate the first `count` frames of a clip, with the same noise and pose windows as for the whole clip."""
        started = time.monotonic()
        frames = clip.made_by(pipe, seed * 1_000_003 + number, count, should_stop=should_stop, **vars(sampling))
        seconds.extend([(time.monotonic() - started) / count] * count)
        return frames

    for number, clip in enumerate(clips):
        check_stop(should_stop)
        made = {"none": generated(clip, len(clip))}
        if recipe != "none":
            with tuned_to(pipe, clip.photo, clip.image_poses, recipe, should_stop):
                made[recipe] = generated(clip, len(clip))
        device = pipe._execution_device
        made |= baseline_frames(clip.photo, clip.image_poses, clip.poses, clip.truth, pipe.vae, device)

        scorer, scores = Scorer(clip, estimator, lpips), {}
        for name, frames in made.items():
            check_stop(should_stop)
            scores[name] = scorer.score(frames)

        if robustness and number < ROBUST_PEOPLE:
            count = min(ROBUST_FRAMES, len(clip))
            fewer = Scorer(clip.cut(slice(count)), estimator, lpips)
            scores[UNDISTURBED] = fewer.score(made["none"][:count])
            for name, image_poses in disturbances(clip.image_poses, seed * 1_000_003 + number).items():
                scores[name] = fewer.score(generated(replace(clip, image_poses=image_poses), count))

        people.append({"name": clip.name, "frames": len(clip), "fps": clip.poses.fps, "scores": scores})
        missing |= scorer.unmeasured()
        if number < SHOWN:
            rows.append(contact_row(clip, made))
        clock.tick(number + 1)

    models = ("none",) if recipe == "none" else ("none", recipe)
    blocks = (*models, *BASELINES, *((UNDISTURBED, *DISTURBED) if robustness else ()))
    report = {name: mean_scores([one["scores"][name] for one in people if name in one["scores"]]) for name in blocks}
    fewest = {"people": min(len(people), ROBUST_PEOPLE), "frames": min(ROBUST_FRAMES, *(x["frames"] for x in people))}
    facts = {
        **(about or {}),
        "clips": clips.kind,
        "people": len(clips),
        "size": list(clips.size),
        "recipe": recipe,
        "quality": quality,
        "steps": sampling.num_inference_steps,
        "seed": seed,
        "robustness": fewest if robustness else None,
        "not_measured": missing,
        "seconds_per_frame": round(float(np.mean(seconds)), 3),
        "versions": {"dreampose": __version__, "torch": torch.__version__},
        "each": people,
    }
    texts = {"report.json": json.dumps(report, indent=1), "table.md": table(report)}
    for name, text in (texts | {"about.json": json.dumps(facts, indent=1)}).items():
        with appearing(folder / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    with appearing(folder / "contact.jpg") as temporary:
        contact_sheet(rows).save(temporary, "JPEG", quality=85)
    return report


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
            decoded = torch.cat([decode_both(vae, encode_latents(vae, pixels), None)[0] for pixels in batches])
        made["vae_only"] = to_uint8(decoded).cpu().numpy()
    if poses.parts is not None and image_poses.parts is not None:
        made["part_colours"] = np.stack(list(moved_frames(photo, image_poses, poses, use_uv=False)))
        if poses.uv is not None and poses.charts == image_poses.charts:
            made["moved_texture"] = np.stack(list(moved_frames(photo, image_poses, poses)))
    return made


def contact_row(clip: Clip, made: dict[str, np.ndarray]) -> Row:
    """Select what the contact sheet shows of a clip: the photo, then truth, moved texture and models at four moments.

    made: the clip's frames by block.
    """
    at = [int(moment * (len(clip) - 1)) for moment in _MOMENTS]
    names = {"moved_texture": "moved texture", "none": "model", "fast": "model, tuned", "paper": "model, tuned"}
    frames = [(caption, made[block][at]) for block, caption in names.items() if block in made]
    return [(clip.name, clip.photo[None]), ("truth", clip.truth[at]), *frames]


def contact_sheet(rows: list[Row]) -> Image.Image:
    """Draw the rows below each other at one scale, with their captions in a strip above."""
    pictures = [np.hstack([one for _, group in row for one in group]) for row in rows]
    scale = min(1.0, CONTACT_WIDTH / max(picture.shape[1] for picture in pictures))
    sizes = [(round(scale * picture.shape[1]), round(scale * picture.shape[0])) for picture in pictures]
    sheet = Image.new("RGB", (max(width for width, _ in sizes), sum(height + _STRIP for _, height in sizes)), _PAPER)
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(11), 0
    for row, picture, size in zip(rows, pictures, sizes):
        left = 0
        for caption, group in row:
            draw.text((round(scale * left) + 4, top + _STRIP / 2), caption, fill=_INK, anchor="lm", font=font)
            left += len(group) * group.shape[2]
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (0, top + _STRIP))
        top += _STRIP + size[1]
    return sheet
