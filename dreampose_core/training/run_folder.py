"""The run folder: run.json says what the run in it was asked to do, and it is gone on with only as that."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import InputError
from ..files import appearing
from ..settings import Options

_FREE = {"tensorboard"}  # fields that the weights do not depend on


def claim(run: Options, folder: Path, resume: bool, model: str) -> None:
    """Makes `folder` the run's, with its run.json. Raises InputError where there is a run already, or, with `resume`,
    another one.

    run: options that all have defaults. model: the folder in it where its weights are found.
    """
    path = folder / "run.json"
    if path.is_file():
        if not resume:
            raise InputError(f"There is a training run in {folder} already; give --resume to go on, or another folder.")
        _check_same(run, path, folder / model)
    folder.mkdir(parents=True, exist_ok=True)
    with appearing(path) as temporary:
        temporary.write_text(run.model_dump_json(indent=1))


def _check_same(run: Options, path: Path, model: Path) -> None:
    """Raises InputError unless the run that `path` describes is this one in all that its weights depend on; the rates
    of learning depend on the number of steps. What an older version did not write down had its default."""
    try:
        before = json.loads(path.read_text())
        now, defaults = (one.model_dump(mode="json") for one in (run, type(run)()))
        before = defaults | before
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged; choose another folder.") from error
    changed = [_as_option(name, before[name]) for name in sorted(now.keys() - _FREE) if before[name] != now[name]]
    if changed:
        raise InputError(
            f"The run in {path.parent} was started {', '.join(changed)}; go on so, or from its weights "
            f"in another folder (--init {model})."
        )


def _as_option(name: str, value) -> str:
    """A value of run.json, and how the command line takes it."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"without {option}"
    if isinstance(value, list):
        value = ("x" if name == "size" else ",").join(map(str, value))
    return f"with {option}" if value is True else f"with {option} {value}"
