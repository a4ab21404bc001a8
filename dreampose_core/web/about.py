"""What this server is, for visitors: its model, device, and how long things are kept; no paths."""

from __future__ import annotations

from pathlib import Path

from ..errors import StorageError
from ..jobs.service import JobService
from ..settings import Settings

_ESTIMATORS = {"body": "the body tracker", "torchscript": "DensePose itself", "none": "none; bring your own DensePose"}


def about_server(settings: Settings, service: JobService, words: str) -> str:
    """Markdown: `words`, a page text, with what it leaves open filled in."""
    model = Path(settings.model)
    return words.format(
        model="mini" if settings.is_mini else model.name if model.is_dir() else settings.model,
        device=_device(service),
        estimator=_ESTIMATORS[settings.estimator],
        keep_results=length_words(settings.keep_results_h),
        keep_subjects=length_words(24 * settings.keep_subjects_days),
    )


def _device(service: JobService) -> str:
    try:
        devices = service.health()["devices"]
    except (StorageError, OSError):
        devices = []
    return " and ".join(sorted(set(devices))) or "the model is being loaded"


def length_words(hours: float) -> str:
    """ "6 hours" or "3 days"."""
    number, unit = (hours, "hour") if hours < 48 else (hours / 24, "day")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
