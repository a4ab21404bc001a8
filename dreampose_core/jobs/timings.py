"""How long learning and frames take on this machine, and what memory: kept from finished jobs, told before the next one
is begun."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from statistics import median

from ..files import appearing
from .records import Timing

LAST = 5  # of which the median counts: one that was resumed, or ran beside others, spoils nothing


class Timings:
    """The figures in a file of the data folder."""

    def __init__(self, home: Path):
        self.path = home / "timings.json"

    def of(self, recipe: str, quality: str) -> Timing:
        """The medians of what was measured for a recipe and a quality."""
        told = self._read()

        def middle(name: str) -> float | None:
            return median(told[name]) if told.get(name) else None

        return Timing(
            middle(f"learning {recipe}"), middle(f"frame {quality}"), middle(f"memory {recipe}"), told.get("device")
        )

    def add(self, result: dict, device: str | None) -> None:
        """Takes the figures of a finished run from what stands in its result.json. Raises StorageError.

        What was measured on another device, or with another model, is forgotten.
        """
        told, where = self._read(), [result["model"], device]
        if told.get("where") != where:
            told = {"where": where, "device": device}
        options, seconds, peaks = result["options"], result["seconds"], result["peak_memory"]
        steps = options["steps"] is None  # else it is no quality's
        measured = {
            f"learning {options['recipe']}": seconds.get("tuning"),
            f"frame {options['quality']}": result["seconds_per_frame"] if steps else None,
            f"memory {options['recipe']}": peaks.get("gpu_mb", peaks.get("host_mb")),
        }
        for name, value in measured.items():
            if value is not None:
                told[name] = [*told.get(name, ()), value][-LAST:]
        with appearing(self.path) as temporary:
            temporary.write_text(json.dumps(told, indent=1))

    def _read(self) -> dict:
        with suppress(OSError, ValueError):
            told = json.loads(self.path.read_text())
            if isinstance(told, dict):
                return told
        return {}
