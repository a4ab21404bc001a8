"""What this server is: its model, what that is for, what it runs on, how long things are kept; for visitors, so without
paths."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import StorageError
from ..jobs.service import JobService
from ..settings import MODELS, Settings
from .render import length_words

_ESTIMATORS = {
    "body": "found by the body tracker that comes with the program",
    "torchscript": "estimated by DensePose itself",
    "none": "not estimated here; bring your own",
}


def about_server(settings: Settings, service: JobService, words: str) -> str:
    """Markdown: `words`, a page text, with what it leaves open filled in."""
    shipped = next((name for name, folder in MODELS.items() if Path(settings.model).absolute() == folder), None)
    drawn = "people drawn by this program; of a photograph clothes and motion come out, in small, and faces do not"
    return words.format(
        model=shipped or _name(settings.model),
        purpose=drawn
        if shipped
        else "what it was trained on; for one made from Stable Diffusion, photographs of people",
        device=_device(service),
        storage=_storage(settings),
        estimator=_ESTIMATORS[settings.estimator],
        keep_results=length_words(settings.keep_results_h),
        keep_subjects=length_words(24 * settings.keep_subjects_days),
    )


def _name(model: str) -> str:
    """The hub id, or a folder's own name."""
    return Path(model).name if Path(model).is_dir() else model


def _storage(settings: Settings) -> str:
    if settings.bucket is not None:
        return "videos and people are also on attached storage, and are there after a restart"
    return "on this machine's disk" + (
        "; no storage is attached, so a restart loses them" if os.environ.get("SPACE_ID") else ""
    )


def _device(service: JobService) -> str:
    try:
        devices = service.health()["devices"]
    except (StorageError, OSError):
        devices = []
    return " and ".join(sorted(set(devices))) or "being loaded; open this page again in a moment"
