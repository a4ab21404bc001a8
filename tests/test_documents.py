"""Documents: every command parses, the Python example runs, every link inside the repository leads to a file and a
heading, every setting is described, the front matter suits a Space, and README and docs stay short."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

import app
from dreampose_core import poses
from dreampose_core.cli.main import build_parser
from dreampose_core.settings import REPOSITORY, Settings

DOCUMENTS = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "assets").rglob("*.md")]
)
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
API = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
SERVER = (REPOSITORY / "docs" / "server.md").read_text(encoding="utf-8")
# Words as `wc -w` counts them, code and front matter included.
README_WORDS, DOCS_WORDS = 1200, 6500
NOT_COUNTED = ("experiments.md",)  # a log
# Programs of others: that their line can be read is all that is known of it here.
FOREIGN = ("ray", "curl", "docker", "sudo", "git", "accelerate", "pip", "python3")


def commands(text: str) -> list[str]:
    """The lines of shell blocks, continued ones joined, comments left out; and what stands in `...` and begins like one
    of ours."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = [line.split("  #")[0].strip() for line in re.sub(r"\\\n\s*", " ", blocks).splitlines()]
    inline = [
        " ".join(found.split())
        for found in re.findall(r"`((?:[A-Z_]+=\S+ )?(?:python -m [^`]+|python app\.py[^`]*|scripts/[^`]+))`", text)
    ]
    return [line for line in (*lines, *inline) if line and not line.startswith("#")]


ALL = [(path.name, command) for path in DOCUMENTS for command in commands(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("document", "command"), ALL, ids=[f"{name}: {command[:60]}" for name, command in ALL])
def test_every_command_can_be_typed(document, command, clean_environment, monkeypatch):
    words = [
        word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word) and word not in ("[...]", "...")
    ]
    if words[0] == "accelerate":
        words = ["python", *words[words.index("-m") :]]
    if words[0].startswith(("scripts/", "examples/", ".ci/")):
        script = REPOSITORY / words[0]
        assert script.is_file() and script.stat().st_mode & 0o100, f"{words[0]} is not there, or is no program"
        if words[0] == "scripts/test":
            assert all((REPOSITORY / word).exists() for word in words[1:] if word.startswith("tests/"))
    elif words[0].endswith("python") and words[1:3] == ["-m", "dreampose_core"]:
        if _whole(words[3:]):
            build_parser().parse_args(words[3:])
    elif words[0].endswith("python") and words[1] == "app.py":
        assert isinstance(app._settings([word for word in words[2:] if word != "--help"]), Settings)
    elif words[0].endswith("python") and words[1] == "-m":
        module = REPOSITORY / Path(*words[2].split("."))
        assert module.with_suffix(".py").is_file() or module.is_dir() or words[2] in ("venv", "pip")
    else:
        assert words[0].startswith(FOREIGN) or words[0].endswith(("pip", ".py")) or (REPOSITORY / words[0]).exists(), (
            command
        )


def _whole(words: list[str]) -> bool:
    """Whether this is a command that somebody may type, and not the name of one, or of some, in a sentence."""
    return words == ["doctor"] or len(words) > 1 and words[0] != "COMMAND" and words[-1] not in ("train", "start")


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(REPOSITORY)) for path in DOCUMENTS])
def test_every_link_leads_somewhere(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, heading = target.partition("#")
            place = document.parent / unquote(path) if path else document
            assert place.resolve().is_relative_to(REPOSITORY) and place.exists(), f"{document.name} links to {target}"
            if heading:
                assert heading in headings(place.read_text(encoding="utf-8")), f"{document.name} links to {target}"
    if document.name not in ("CHANGELOG.md", "experiments.md"):  # their files may be gone
        for name in re.findall(r"`([\w/]+\.py)`", text):
            there = [next(REPOSITORY.glob(f"{folder}{name}"), None) for folder in ("", "dreampose_core/**/", "tests/")]
            assert any(there), f"{document.name} names {name}"


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_python_example_runs(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    [code] = [
        one
        for one in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
        if "DreamPosePipeline" in one
    ]
    read = poses.read_poses
    monkeypatch.setattr(poses, "read_poses", lambda path: read(path).clip(0, 4))
    given: dict = {}
    exec(compile(code, "README.md", "exec"), given)
    assert given["out"].frames.shape == (4, 640, 512, 3) and given["out"].frames.dtype.name == "uint8"


def test_what_the_api_examples_send_says_that_the_person_agreed():
    """A photo of one's own is refused without."""
    sent = [one for one in commands(API) if "-F photo=@" in one]
    sent += [
        " ".join(call.split()) for call in re.findall(r"client\.predict\((.*?)\)\n", API, re.DOTALL) if "photo=" in call
    ]
    assert len(sent) == 2 and all("consent=true" in one or "consent=True" in one for one in sent)


def test_the_readme_stays_short():
    assert len(README.split()) <= README_WORDS, "README.md is too long: move details to docs/"


def test_the_docs_stay_short():
    pages = [path for path in (REPOSITORY / "docs").glob("*.md") if path.name not in NOT_COUNTED]
    words = {path.name: len(path.read_text(encoding="utf-8").split()) for path in (REPOSITORY / "README.md", *pages)}
    assert sum(words.values()) <= DOCS_WORDS, f"README.md and docs/ are too long: {words}"


def test_the_log_has_a_table_of_contents():
    log = (REPOSITORY / "docs" / "experiments.md").read_text(encoding="utf-8")
    contents, *entries = log.split("\n## ")
    titles = [entry.partition("\n")[0] for entry in entries]
    linked = re.findall(r"^  - \[(.*)\]", contents, re.MULTILINE)
    assert linked == [re.sub(r"^[\d-]+ · ", "", title) for title in titles]


def test_every_setting_is_described():
    table = re.search(r"^## Settings\n(.*?)^## ", SERVER, re.MULTILINE | re.DOTALL)[1]
    rows = [row.split(" | ")[:2] for row in table.splitlines() if row.startswith("| `")]
    named = {name: default for names, text in rows for name, default in _settings_of(names, text)}
    assert set(named) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, (int, float)):
            assert float({"false": 0}.get(named[name], named[name])) == field.default, name
        elif field.default is None:
            assert named[name] in ("none", "made at first start"), name


def _settings_of(names: str, defaults: str) -> list[tuple[str, str]]:
    """The settings of one row and their defaults, one each, or one for all of them."""
    fields = [name.lower() for name in re.findall(r"`(\w+)`", names)]
    values = defaults.strip("` ").split(", ")
    return list(zip(fields, values, strict=True))


def test_the_head_is_what_a_space_needs():
    head = dict(re.findall(r"^(\w+): *(.*)$", README.split("---")[1], re.MULTILINE))
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE))
    assert README.startswith("---\n") and head["sdk"] == "gradio" and head["sdk_version"] == pins["gradio"]
    assert head["python_version"] == '"3.12"' and (REPOSITORY / head["app_file"]).is_file() and head["license"] == "mit"
    assert len(head["short_description"]) <= 60, "the hub cuts off what is longer"


def test_no_file_is_too_large_for_the_hub():
    large = [
        path
        for folder in ("assets", "examples", "docs", "dreampose_core")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and path.stat().st_size > 9 << 20
    ]
    assert large == []


def test_settings_on_a_space(clean_environment, capsys, tmp_path, monkeypatch):
    clean_environment.setenv("SPACE_ID", "somebody/dreampose")
    monkeypatch.setattr(app.os, "access", lambda path, mode: False)
    settings = app._settings([])
    assert settings.host == "0.0.0.0" and settings.bucket is None and "lost at a restart" in capsys.readouterr().out
    monkeypatch.setattr(app.os, "access", lambda path, mode: path == "/data")
    settings = app._settings([])
    assert settings.bucket == Path("/data") and capsys.readouterr().out == ""
    for name in ("DREAMPOSE_HOST", "DREAMPOSE_BUCKET"):
        del os.environ[name]  # set by the app, so nothing brings it back
