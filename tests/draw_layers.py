"""Draws docs/architecture.svg from the rules that test_layers.py enforces: python tests/draw_layers.py"""

from __future__ import annotations

import ast
import sys
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_layers import NARROW, PACKAGE, ROOT, ROWS, counts

WIDTH, BOX, GAP, LEFT = 1060, 34, 10, 20
WORDS = (
    "what every room may use",
    "pixels and pose sequences",
    "a body, DensePose from pictures, the model, people that are drawn",
    "a photo and a motion brought together; training; fine-tuning to a subject",
    "whole runs: a video, on a cluster, a report",
    "jobs that lose nothing; the doctor",
    "the page and the HTTP API",
    "the server and the command line",
)


def first_sentence(name: str) -> str:
    path = ROOT if name == "app" else ROOT / PACKAGE
    path = path / name
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")


def drawn() -> str:
    """The picture: a band for each row, the lowest at the bottom, since modules use only what is below them or left of
    them."""
    parts, top = [], 10
    for row, words in reversed(list(zip(ROWS, WORDS, strict=True))):
        boxes, x, y = [], LEFT, top + 30
        for name in row:
            width = 16 + 9 * len(name)
            if x + width > WIDTH - LEFT:
                x, y = LEFT, y + BOX + GAP
            narrow = (
                ""
                if name not in NARROW
                else f" Imports nothing from outside but {', '.join(sorted(NARROW[name])) or 'Python'}."
            )
            boxes.append(
                f"<g><title>{escape(first_sentence(name) + narrow)}</title>"
                f'<rect x="{x}" y="{y}" width="{width}" height="{BOX}" rx="6" fill="{"#eef2ff" if narrow else "#fff"}" '
                'stroke="#6366f1"/>'
                f'<text x="{x + width / 2}" y="{y + 22}" text-anchor="middle">{escape(name)}</text></g>'
            )
            x += width + GAP
        height = y + BOX + 12 - top
        parts.append(
            f'<rect x="6" y="{top}" width="{WIDTH - 12}" height="{height}" rx="8" fill="#f8fafc" stroke="#cbd5e1"/>'
        )
        parts.append(f'<text x="{LEFT}" y="{top + 20}" fill="#475569" font-size="13">{words}</text>')
        parts += boxes
        top += height + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        'font-family="monospace" '
        'font-size="14" role="img" aria-label="The rooms of DreamPose; each uses what is below it, or '
        'left of it in its layer">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top}" fill="#fff"/>', *parts, "</svg>", ""])


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(drawn(), encoding="utf-8")
    print(counts())
