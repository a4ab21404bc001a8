"""A benchmark as one HTML page that needs nothing beside it: no scripts, pictures and video inside."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from ..files import appearing
from ..media import read_image
from .report import BLOCKS, MEASURES, MODELS, UNDISTURBED, Report, written

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c20; --soft: #5b5b66; --paper: #fbfaf8; --line: #dcd9d3; --mark: #fdeee4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --soft: #a5a5b0; --paper: #18181c; --line: #3a3a42; --mark: #3a2418; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 2rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p, dd, figcaption, small, td[colspan] { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .42rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { vertical-align: bottom; line-height: 1.25; }
td:first-child { text-align: left; white-space: nowrap; } td[colspan] { padding-top: 1.2rem; }
small { display: block; font-weight: 400; }
tr.model { background: var(--mark); font-weight: 600; }
td.best { text-decoration: underline; text-underline-offset: .2em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; }
figure { margin: 0 0 1.5rem; } img, video { max-width: 100%; height: auto; border-radius: 6px; }
img.plot { background: white; padding: .4rem; }
"""
_RATED = (
    *MODELS,
    "repeat_photo",
    "grey_silhouette",
    "part_colours",
    "moved_texture",
)  # the VAE alone has seen the truth


def write_page(
    report: Report, facts: dict, pictures: dict[str, Path], plots: dict[str, Path], video: Path, path: Path
) -> None:
    """Writes the page. facts: what was run, by name. pictures, plots: PNG files by caption, shown in this order."""
    what = "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_said(value))}</dd>" for name, value in facts.items()
    )
    words = "".join(f"<dt>{escape(figure.title)}</dt><dd>{escape(figure.meaning)}</dd>" for figure in MEASURES.values())
    figures = "".join(_figure(_png(file), caption, "plot") for caption, file in plots.items())
    figures += "".join(_figure(_jpeg(file), caption, "photo") for caption, file in pictures.items())
    moving = (
        '<video controls loop muted playsinline preload="metadata" '
        f'src="data:video/mp4;base64,{_base64(video.read_bytes())}"></video>'
    )
    page = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DreamPose benchmark</title>
<style>{_STYLE}</style>
<h1>DreamPose benchmark</h1>
<p>A model beside what can be had without one. Rows of the model are marked; the best of a column is underlined,
the VAE alone aside, which has seen the truth.</p>
<div class="wide">{_table(report, facts["robustness"])}</div>
<h2>Side by side</h2>
<figure>{moving}</figure>
<h2>Pictures</h2>
{figures}
<h2>What the figures mean</h2>
<dl>{words}</dl>
<h2>What was run</h2>
<dl>{what}</dl>
</html>
"""
    with appearing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def best_blocks(report: Report, key: str) -> set[str]:
    """The blocks that are best at a figure, as it is written, among those that have not seen the truth."""
    known = {name: report[name][key] for name in _RATED if name in report and report[name][key] is not None}
    how_bad = {"high": lambda value: -value, "low": lambda value: value, "one": lambda value: abs(value - 1)}[
        MEASURES[key].best
    ]
    if not known:
        return set()
    least = written(key, min(known.values(), key=how_bad))
    return {name for name, value in known.items() if written(key, value) == least}


def _table(report: Report, robustness: dict[str, int] | None) -> str:
    keys = [key for key in next(iter(report.values())) if any(block[key] is not None for block in report.values())]
    best = {key: best_blocks(report, key) for key in keys}
    rows = ["<tr><th></th>" + "".join(f"<th>{escape(MEASURES[key].title)}</th>" for key in keys) + "</tr>"]
    for name, block in report.items():
        if robustness and name == UNDISTURBED:
            fewer = f"{robustness['people']} people, {robustness['frames']} frames each"
            rows.append(
                f'<tr><td colspan="{len(keys) + 1}">The model given a disturbed map of the photo ({fewer})</td></tr>'
            )
        cells = "".join(f"<td{' class=best' * (name in best[key])}>{written(key, block[key])}</td>" for key in keys)
        marked = " class=model" * (name in MODELS)
        rows.append(f"<tr{marked}><td>{escape(name)}<small>{escape(BLOCKS[name])}</small></td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _said(value) -> str:
    """A fact of about.json in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items()) or "nothing"
    return " x ".join(map(str, value)) if isinstance(value, list) else "no" if value is None else str(value)


def _figure(source: str, caption: str, kind: str) -> str:
    return (
        f'<figure><img class="{kind}" alt="{escape(caption)}" '
        f'src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _png(path: Path) -> str:
    return f"data:image/png;base64,{_base64(path.read_bytes())}"


def _jpeg(path: Path) -> str:
    """Photographs are many times smaller as JPEG."""
    out = io.BytesIO()
    Image.fromarray(read_image(path)).save(out, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{_base64(out.getvalue())}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
