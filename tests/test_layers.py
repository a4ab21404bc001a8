"""Imports run one way: every import in the sources, also those inside functions, against the order of the rooms.

A room is a folder or a module of dreampose_core's first level, app.py included; a floor is one more than the highest it
imports from.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dreampose_core"

# A room may use those of lower rows, and those of its own row that stand before it.
ROWS = (
    ("errors", "settings", "progress", "files"),
    ("media", "poses"),
    ("body", "densepose", "model", "synthetic"),
    ("inputs", "training", "subject"),
    ("animate", "cluster", "evaluation"),
    ("doctor", "jobs"),
    ("web",),
    ("app", "cli", "__main__"),
)
PLACE = {name: (row, column) for row, names in enumerate(ROWS) for column, name in enumerate(names)}
MAX_ROOMS, MAX_FLOORS, MAX_ROOT_MODULES = 24, 14, 12

# What these rooms may import from outside the standard library. The web process is made of them, and never loads torch.
NARROW = {
    "errors": set(),
    "settings": {"pydantic"},
    "progress": set(),
    "files": set(),
    "media": {"numpy", "PIL", "pi_heif", "imageio_ffmpeg"},
    "poses": {"numpy", "scipy", "PIL"},
    "jobs": {"pydantic", "numpy"},
    "web": {
        "gradio",
        "gradio_client",
        "fastapi",
        "starlette",
        "python_multipart",
        "uvicorn",
        "pydantic",
        "numpy",
        "itsdangerous",
        "zipstream",
    },
}
# The half of jobs that runs in worker processes, and in the children that decode for them.
WORKER_SIDE = {"jobs.decoding", "jobs.pose_cache", "jobs.sandbox", "jobs.tasks", "jobs.worker"}
PAGE_SEES = {"jobs.service", "jobs.records", "jobs.logs"}  # the half of jobs that web may see
SERVING = {"gradio", "gradio_client", "fastapi", "starlette", "python_multipart", "uvicorn"}
DANGEROUS = {"pickle", "marshal", "shelve", "dill", "joblib"}
NO_TORCH = (
    *ROWS[0],
    *ROWS[1],
    "inputs.framing",
    "inputs.photo_checks",
    "jobs.records",
    "jobs.store",
    "jobs.service",
    "jobs.tasks",
    "web",
    "web.server",
    "cli.main",
)


def dotted(path: Path) -> str:
    """The module's name below the package, for example "jobs.store"; "" for the package itself."""
    if path == ROOT / "app.py":
        return "app"
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool) -> set[str]:
    """Full names of all that `source` imports, for example "torch.nn", "dreampose_core.jobs.store"."""
    here = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = []
            if node.level:
                base = here[: len(here) - node.level + is_package]
            base += node.module.split(".") if node.module else []
            # "from .. import jobs" names a module, "from ..errors import InputError" one inside; a name too much does
            # no harm.
            found.update(".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            assert node.args and isinstance(node.args[0], ast.Constant), (
                f"{module}: a computed import cannot be checked"
            )
            found.add(node.args[0].value)
    return found


def sources() -> dict[str, set[str]]:
    paths = [ROOT / "app.py", *sorted((ROOT / PACKAGE).rglob("*.py"))]
    return {dotted(path): imports(path.read_text(), dotted(path), path.name == "__init__.py") for path in paths}


def rooms(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """Room -> the rooms that it imports from."""
    found: dict[str, set[str]] = {}
    for module, names in modules.items():
        room = module.split(".")[0]
        if room:
            inner = {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE}.")}
            found.setdefault(room, set()).update(inner & PLACE.keys() - {room})
    return found


def floors(modules: dict[str, set[str]]) -> dict[str, int]:
    """Room -> its floor, from 1. Raises ValueError for a circle."""
    below, found = rooms(modules), {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError(f"a circle: {' -> '.join([*above[above.index(room) :], room])}")
        if room not in found:
            found[room] = 1 + max((floor(name, (*above, room)) for name in below[room]), default=0)
        return found[room]

    return {room: floor(room) for room in below}


def complaints(modules: dict[str, set[str]]) -> list[str]:
    """One sentence for each import that the order does not allow."""
    found = []
    for module, names in modules.items():
        top = module.split(".")[0]
        if not module:
            names = names - {f"{PACKAGE}.model.pipeline.DreamPosePipeline"}  # the lazy public name
            found += [
                f"the package itself imports {name}"
                for name in names
                if name.split(".")[0] not in sys.stdlib_module_names
            ]
            continue
        if top not in PLACE:
            found.append(f"{module} stands in no row; add its room to the table here")
            continue
        for name in sorted(names):
            outer, *inner = name.split(".")
            if outer != PACKAGE:
                if outer in SERVING and top not in ("web", "app"):
                    found.append(f"{module} imports {outer}, which belongs in web and app.py only")
                elif outer == "ray" and top != "cluster":
                    found.append(f"{module} imports ray, which belongs in cluster only")
                elif outer in DANGEROUS:
                    found.append(f"{module} imports {outer}")
                elif (
                    top in NARROW
                    and module not in WORKER_SIDE
                    and outer not in NARROW[top]
                    and outer not in sys.stdlib_module_names
                ):
                    found.append(f"{module} imports {outer}, which its room may not use")
                continue
            if not inner or inner[0].startswith("__version"):
                continue
            target, target_path = inner[0], ".".join(inner[:2])
            if target not in PLACE:
                found.append(f"{module} imports {name}, which stands in no row")
            elif target == top:
                if target_path in WORKER_SIDE and module not in WORKER_SIDE:
                    found.append(f"{module} imports {target_path}, which belongs to the worker processes")
            elif top == "jobs" and module not in WORKER_SIDE and PLACE[target][0] > 1:
                found.append(f"{module} imports {target}, but the web process may use rows 0 and 1 only")
            elif top == "web" and not (PLACE[target][0] <= 1 or target_path in PAGE_SEES):
                found.append(f"{module} imports {name}; the page knows rows 0, 1 and the job service")
            elif PLACE[target] > PLACE[top]:
                found.append(f"{module} imports {target}, which stands above it")
    return found


def counts() -> str:
    """How many rooms, floors and root modules there are."""
    found = floors(sources())
    return f"{len(found)} rooms, {max(found.values())} floors, {len(root_modules())} root modules"


def root_modules() -> list[Path]:
    return [*(ROOT / PACKAGE).glob("*.py"), *ROOT.glob("*.py")]


def test_every_import_in_the_sources_is_allowed():
    modules = sources()
    assert {"app", "errors", "media.images", "poses.npz"} <= set(modules)
    assert complaints(modules) == []


def test_rooms_and_floors_are_few():
    found = floors(sources())
    assert found.keys() == PLACE.keys(), "a room of the table is gone"
    assert len(found) <= MAX_ROOMS and max(found.values()) <= MAX_FLOORS and len(root_modules()) <= MAX_ROOT_MODULES, (
        counts()
    )


def test_floors_are_counted_and_circles_are_found():
    modules = {
        "errors": set(),
        "files": {f"{PACKAGE}.errors.InputError"},
        "media.images": {f"{PACKAGE}.files.appearing", "numpy"},
        "media": {f"{PACKAGE}.media.images.Box"},
    }
    assert floors(modules) == {"errors": 1, "files": 2, "media": 3}
    with pytest.raises(ValueError, match="media -> files -> media|files -> media -> files"):
        floors(modules | {"files": {f"{PACKAGE}.media.Box"}})


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("poses.npz", "import torch", "poses.npz imports torch"),
        ("media.images", "def f():\n    import torch.nn as nn", "media.images imports torch"),
        ("errors", "from .settings import Options", "errors imports settings"),
        ("settings", "from .progress import Progress", "settings imports progress"),
        ("media.images", "from ..poses.edit import fitted", "media.images imports poses"),
        ("model.pipeline", "from ..training import loop", "model.pipeline imports training"),
        ("training.loop", "from .. import animate", "training.loop imports animate"),
        ("jobs.store", "from ..model.conditioning import Condition", "jobs.store imports model"),
        ("jobs.service", "def f():\n    from . import tasks", "jobs.service imports jobs.tasks"),
        ("jobs.service", "def f():\n    from .worker import main", "jobs.service imports jobs.worker"),
        ("jobs.tasks", "import gradio", "jobs.tasks imports gradio"),
        ("web.page", "from ..jobs.store import Store", "web.page imports dreampose_core.jobs.store"),
        (
            "web.page",
            "from ..model.pipeline import DreamPosePipeline",
            "web.page imports dreampose_core.model.pipeline",
        ),
        ("web.page", "from PIL import Image", "web.page imports PIL"),
        ("animate.run", "from fastapi import FastAPI", "animate.run imports fastapi"),
        ("subject.folder", "import pickle", "subject.folder imports pickle"),
        ("jobs.tasks", "import ray", "jobs.tasks imports ray"),
        ("helpers", "import math", "helpers stands in no row"),
        ("", "import torch", "the package itself imports torch"),
    ],
)
def test_the_check_notices(module, source, complaint):
    found = complaints({module: imports(source, module, is_package=not module)})
    assert len(found) == 1 and found[0].startswith(complaint)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "animate.run",
            "from ..model.pipeline import DreamPosePipeline\nfrom ..subject import recipe\nfrom ..media import "
            "write_video\nimport torch",
        ),
        ("jobs.tasks", "from ..animate import animate\nfrom .store import Store\nimport torch"),
        ("jobs.service", "from .store import Store\nfrom ..errors import InputError\nfrom ..poses import read_poses"),
        ("web.page", "import gradio as gr\nfrom ..jobs.service import JobService\nfrom .. import __version__"),
        (
            "training.loop",
            "from .checkpoints import Checkpoints\nfrom ..model.conditioning import "
            "Condition\nfrom ..synthetic import Person",
        ),
    ],
)
def test_what_the_table_allows_passes(module, source):
    assert complaints({module: imports(source, module, is_package=False)}) == []


@pytest.mark.parametrize("web", [False, True])
def test_importing_loads_no_torch(web):
    """In a fresh interpreter, so that what libraries import on their own counts too; web alone may load gradio."""
    modules = [PACKAGE, *(f"{PACKAGE}.{name}" for name in NO_TORCH if name.startswith("web") == web)]
    heavy = {"torch", "diffusers", "transformers", "ray"} | (set() if web else {"gradio", "fastapi"})
    check = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(module)\n"
        f"    if loaded := {heavy} & set(sys.modules):\n"
        "        sys.exit(f'{module} loads {sorted(loaded)}')"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_modules_stay_short():
    paths = [*(ROOT / PACKAGE).rglob("*.py"), *ROOT.glob("*.py")]
    long = {str(path.relative_to(ROOT)): n for path in paths if (n := len(path.read_text().splitlines())) > 350}
    assert len(long) <= 3 and max(long.values(), default=0) <= 400, long


def test_every_file_says_first_what_it_is_for():
    paths = [*(ROOT / PACKAGE).rglob("*.py"), *ROOT.glob("*.py"), *(ROOT / "tests").glob("*.py")]
    silent = [str(path.relative_to(ROOT)) for path in paths if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_the_picture_of_the_layers_is_up_to_date():
    from draw_layers import drawn

    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == drawn(), (
        "run python tests/draw_layers.py"
    )
