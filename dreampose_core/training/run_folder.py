"""The run folder: run.json stores a run's options, and only the same run may resume there."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import InputError
from ..files import appearing
from ..settings import Options

_FREE = {"tensorboard"}  # options that do not affect the weights


def claim(run: Options, folder: Path, resume: bool, model: str) -> None:
    """Claim `folder` for the run by writing its run.json. Raises InputError if there is a run already, or, with
    `resume`, another one.

    run: options that all have defaults. model: subfolder with the run's weights.
    """
    path = folder / "run.json"
    if path.is_file():
        if not resume:
            raise InputError(f"{folder} holds a training run; give --resume to continue it, or another folder.")
        _check_same(run, path, folder / model)
    folder.mkdir(parents=True, exist_ok=True)
    with appearing(path) as temporary:
        temporary.write_text(run.model_dump_json(indent=1))


def _check_same(run: Options, path: Path, model: Path) -> None:
    """Raise InputError unless the run in `path` has the same options, except those that do not affect the weights; the
    number of steps does, through the learning rate. Options that an older version did not write had their defaults."""
    try:
        before = json.loads(path.read_text())
        now, defaults = (one.model_dump(mode="json") for one in (run, type(run)()))
        before = defaults | before
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged; choose another folder.") from error
    changed = [_as_option(name, before[name]) for name in sorted(now.keys() - _FREE) if before[name] != now[name]]
    if changed:
        raise InputError(
            f"The run in {path.parent} was started {', '.join(changed)}; use the same options, or start from its "
            f"weights in another folder (--init {model})."
        )


def _as_option(name: str, value) -> str:
    """Format a value of run.json as a command-line option."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"without {option}"
    if isinstance(value, list):
        value = ("x" if name == "size" else ",").join(map(str, value))
    return f"with {option}" if value is True else f"with {option} {value}"
