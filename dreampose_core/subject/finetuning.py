"""Fine-tune the model to a person, into a subject folder or temporarily; resumed after an interruption, with less where
memory is too small."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError, ModelError
from ..files import appearing
from ..model import memory
from ..model.pipeline import DreamPosePipeline
from ..poses import PoseSequence
from ..progress import OnProgress, ShouldStop, ignore_progress, never_stop
from ..training.optimizers import is_available
from .folder import Subject, base_restored, check_subject_folder, fingerprint, read_subject, save_subject, subject_key
from .recipe import Rung, ladder, recipe_named
from .tuning import tune_subject

log = logging.getLogger("dreampose.finetuning")


def finetune(
    pipe: DreamPosePipeline,
    photos: list[np.ndarray],
    image_poses: PoseSequence | None,
    recipe: str,
    seed: int,
    folder: Path,
    *,
    steps: int | None = None,
    checkpoints: Path | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Subject:
    """Fine-tune the model to the person in `photos`, uint8 (H, W, 3) each, and write the subject folder; afterwards the
    model is as before.

    An existing subject of the same tuning is returned as it is. image_poses: the photos' pose maps, one each, or None
    to drop the pose in tuning. steps: of the UNet, see `recipe_named`. checkpoints: a folder from which an interrupted
    call resumes, removed when the subject is written; None for one next to `folder`. If memory is too small, tuning
    falls back to less, see `recipe.ladder`, and the subject's notices name the changes. Raises InputError for wrong
    input or checkpoints of another tuning, and ModelError if memory is too small for the last fallback.
    """
    check_subject_folder(folder)
    base, how = fingerprint(pipe), recipe_named(recipe, steps)
    key = subject_key(photos, image_poses, repr(how), seed, base)
    with suppress(ModelError):  # no subject yet, one of another model, or a damaged one
        if (existing := read_subject(folder, base)).key == key:
            return existing
    pixels = pipe.fit_photos(photos, image_poses)
    if image_poses is not None and not (seen := image_poses.mask.any((1, 2))).all():
        which = "The photo's DensePose" if len(photos) == 1 else f"The DensePose of photo {int(np.argmin(seen)) + 1}"
        raise InputError(f"{which} shows no person; give the map that was made from that photo, or none for any photo.")

    # resume an interrupted call on its rung
    checkpoints = checkpoints or folder.with_name(f".{folder.name}.checkpoints")
    record, content = checkpoints / "tuning.json", subject_key(photos, image_poses, "", 0, "")
    tuning = {"recipe": recipe, "steps": how.unet_steps, "seed": seed, "model": base, "photos": content}
    before = json.loads(record.read_text()) if record.is_file() else tuning
    if changed := [name for name in tuning if before.get(name) != tuning[name]]:
        raise InputError(
            f"The interrupted tuning has another {' and another '.join(changed)}; use the same, or start over."
        )
    rungs = ladder(recipe, steps)
    at = [rung.name for rung in rungs].index(before.get("rung", "full"))

    # tune, one rung lower whenever memory is too small
    def tuned(rung: Rung) -> Subject:
        watch = {"on_progress": on_progress, "should_stop": should_stop}
        losses = tune_subject(pipe, pixels, image_poses, rung.how, seed, folder=checkpoints, **watch)
        notices = [rung.notice] if rung.notice else []
        subject = Subject(key, base, rung.recipe, seed, image_poses is not None, losses, notices)
        save_subject(pipe, folder, subject, photos, image_poses)
        return subject

    with memory.enough_for("to tune the model"), memory.all_there(pipe):
        while True:
            rung = rungs[at]
            checkpoints.mkdir(parents=True, exist_ok=True)
            with appearing(record) as temporary:
                temporary.write_text(json.dumps(tuning | {"rung": rung.name}, indent=1))
            with base_restored(pipe, whole=rung.how.rank is None):
                subject = memory.unless_full(partial(tuned, rung), last=rung is rungs[-1])
            if subject is not None:
                break
            at = next(i for i in range(at + 1, len(rungs)) if is_available(rungs[i].how.optimizer))
            log.warning("%s", rungs[at].notice)
            if (rungs[at].recipe, rungs[at].how.optimizer) != (rung.recipe, rung.how.optimizer):
                # the checkpoints are of other weights, or of another optimizer's state
                for stage in ("tuning", "decoder"):  # before tuning.json names the new rung
                    shutil.rmtree(checkpoints / stage, ignore_errors=True)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return subject


@contextmanager
def tuned_to(
    pipe: DreamPosePipeline,
    photo: np.ndarray,
    image_poses: PoseSequence | None,
    recipe: str,
    should_stop: ShouldStop = never_stop,
    steps: int | None = None,
) -> Iterator[None]:
    """Tune the model to `photo` for the duration of the context; steps: see `recipe_named`."""
    how = recipe_named(recipe, steps)
    with memory.all_there(pipe), base_restored(pipe, whole=how.rank is None):
        tune_subject(pipe, pipe.fit_photos([photo]), image_poses, how, should_stop=should_stop)
        yield
