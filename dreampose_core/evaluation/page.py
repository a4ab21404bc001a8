"""The pictures of a benchmark: contact sheet, side-by-side video and plots, and a self-contained HTML page with all of
them, without scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from html import escape
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import appearing
from ..media import write_png, write_video
from .clips import Clip
from .report import BLOCKS, MEASURES, MODELS, UNDISTURBED, Report, written

SHOWN = 8  # clips in the contact sheet and the video
CONTACT, VIDEO = "contact.png", "side_by_side.mp4"
PLOTS = {
    "blocks.png": "Main scores of every row",
    "frames.png": "PSNR of each frame, averaged over the clips",
    "people.png": "PSNR of each clip",
}
_MOMENTS = (0.1, 0.35, 0.6, 0.9)  # of a clip's length: the frames in the contact sheet
_PANEL = 320  # pixels; smaller pictures in the video are enlarged by a whole factor to about this height
_STRIP, _INK, _PAPER = 20, (225, 225, 230), (24, 24, 28)
_LEGEND = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False, "fontsize": 9}
_PSNR = "PSNR inside the person, dB"
_BARS = "psnr_mask psnr_unseen ssim sharpness identity_seen identity_unseen pose_accuracy temporal_error".split()

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c20; --soft: #5b5b66; --paper: #fbfaf8; --line: #dcd9d3; --mark: #fdeee4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --soft: #a5a5b0; --paper: #18181c; --line: #3a3a42; --mark: #3a2418; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 2rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
dt { font-weight: 600; } dd { margin: 0; }
p, dd, figcaption, small, td[colspan] { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .42rem; border-bottom: 1px solid var(--line); text-align: right; }
td:first-child { text-align: left; white-space: nowrap; } td[colspan] { padding-top: 1.2rem; }
small { display: block; font-weight: 400; }
tr.model { background: var(--mark); font-weight: 600; }
td.best { text-decoration: underline; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
figure { margin: 0 0 1.5rem; } img, video { max-width: 100%; height: auto; }
"""
# Blocks that compete for the best score. "vae_only" does not: it uses the truth.
_RATED = (*MODELS, "repeat_photo", "grey_silhouette", "part_colours", "moved_texture")

Shown = tuple[str, dict[str, np.ndarray]]
"""A clip's name, and its frames uint8 (T, H, W, 3) by caption; "photo" has one frame."""


def shown(clip: Clip, made: dict[str, np.ndarray]) -> Shown:
    """Select what is shown of a clip: photo, truth, and of the frames `made` (by block) moved texture and models."""
    names = {"moved_texture": "moved texture", "none": "model", "fast": "model, tuned", "paper": "model, tuned"}
    frames = {names[name]: made[name] for name in names if name in made}
    return clip.name, {"photo": clip.photo[None], "truth": clip.truth, **frames}


def write_contact(clips: list[Shown], folder: Path) -> None:
    """Write contact.png: for each clip the photo, then truth, moved texture and model at four moments each."""
    rows = []
    for name, frames in clips:
        at = [int(moment * (len(frames["truth"]) - 1)) for moment in _MOMENTS]
        groups = {what: some if what == "photo" else some[at] for what, some in frames.items()}
        names = [name if what == "photo" else what for what in groups]
        strips = [_strip(name, len(group) * group.shape[2], left=True) for name, group in zip(names, groups.values())]
        rows += [np.hstack(strips), np.hstack([picture for group in groups.values() for picture in group])]
    width = max(row.shape[1] for row in rows)
    write_png(np.concatenate([_widened(row, width) for row in rows]), folder / CONTACT)


def write_side_by_side(clips: list[Shown], fps: float, folder: Path) -> None:
    """Write side_by_side.mp4, the clips one after another: photo, truth, moved texture and model."""

    def row(frames: dict[str, np.ndarray], index: int) -> np.ndarray:
        return np.hstack([_panel(some[min(index, len(some) - 1)], name) for name, some in frames.items()])

    height, width = (max(row(frames, 0).shape[axis] for _, frames in clips) for axis in (0, 1))
    rows = (row(frames, index) for _, frames in clips for index in range(len(frames["truth"])))
    # clips may have different shapes
    write_video((_widened(one, width, height) for one in rows), folder / VIDEO, fps)


def write_plots(report: Report, people: list[dict], course: dict[str, list[np.ndarray]], folder: Path) -> None:
    """Write the plots in PLOTS: the main scores of every block as bars, and PSNR inside the person by frame and clip.

    people: for each clip its "name" and "scores" (scores by block). course: for each block an array per clip, dB (T,),
    NaN for frames without the person.
    """
    blocks, frames, clips = (folder / name for name in PLOTS)
    with _plot(blocks, (13, 0.9 + 0.52 * len(report)), 2, 4) as axes:
        for index, (axis, key) in enumerate(zip(axes, _BARS)):
            values = [row[key] for row in report.values()]
            axis.barh(list(report), [value or 0 for value in values], color=[BLOCKS[name].colour for name in report])
            axis.invert_yaxis()
            axis.set_title(MEASURES[key].title, fontsize=10)
            if MEASURES[key].best == "one":
                axis.axvline(1, color="#111827", linewidth=1, linestyle=":")
            axis.margins(x=0.16)  # room for the values next to the bars
            for place, value in enumerate(values):
                at = {"textcoords": "offset points", "va": "center", "fontsize": 7.5}
                axis.annotate(written(key, value), (value or 0, place), (3, 0), **at)
            axis.tick_params(axis="y", labelleft=index % 4 == 0, labelsize=9)

    with _plot(frames, (8.4, 3.6)) as (axis,):
        for name, clip_values in course.items():
            values = np.array(list(zip_longest(*clip_values, fillvalue=np.nan)))  # (T, clips)
            known = ~np.isnan(values)
            mean = np.where(known, values, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)
            axis.plot(mean, color=BLOCKS[name].colour, linewidth=2.4 if name in MODELS else 1.3, label=name)
        axis.set(xlabel="scored frame", ylabel=_PSNR)
        axis.legend(**_LEGEND)

    with _plot(clips, (8.4, 1.1 + 0.24 * len(people))) as (axis,):
        for name in ("part_colours", "moved_texture", *MODELS):
            values = [one["scores"].get(name, {}).get("psnr_mask") for one in people]
            points = [(value, place) for place, value in enumerate(values) if value is not None]
            if points:
                look = {"s": 42 if name in MODELS else 22, "zorder": 3}
                axis.scatter(*zip(*points), color=BLOCKS[name].colour, label=name, **look)
        axis.set_yticks(range(len(people)), [one["name"].replace("$", r"\$") for one in people], fontsize=8)
        axis.set(xlabel=_PSNR, ylim=(len(people) - 0.5, -0.5))
        axis.grid(axis="y", color="#e5e7eb")
        axis.legend(**_LEGEND)


@contextmanager
def _plot(path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1) -> Iterator[np.ndarray]:
    """Yield the axes of a matplotlib figure of (width, height) inches and write it to `path` as PNG afterwards.

    Uses no pyplot, which has global state.
    """
    from matplotlib.figure import Figure  # here, because the import takes seconds

    figure = Figure(size, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    yield axes
    with appearing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _widened(row: np.ndarray, width: int, height: int = 0) -> np.ndarray:
    """Pad a row of panels with black on the right, and below to `height`."""
    below = max(0, height - row.shape[0])
    return np.pad(row, ((0, below), (0, width - row.shape[1]), (0, 0)))


def _panel(picture: np.ndarray, name: str) -> np.ndarray:
    """Enlarge a small picture and put a strip with its name on top."""
    scale = max(1, round(_PANEL / picture.shape[0]))
    height, width = picture.shape[0] * scale, picture.shape[1] * scale
    scaled = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.concatenate([_strip(name, width), np.asarray(scaled)])


@cache
def _strip(name: str, width: int, left: bool = False) -> np.ndarray:
    strip = Image.new("RGB", (width, _STRIP), _PAPER)
    at, anchor = ((4, _STRIP / 2), "lm") if left else ((width / 2, _STRIP / 2), "mm")
    ImageDraw.Draw(strip).text(at, name, fill=_INK, anchor=anchor, font=ImageFont.load_default(12))
    return np.asarray(strip)


def write_page(report: Report, facts: dict, folder: Path) -> None:
    """Write report.html from the files that the functions above wrote to `folder`. facts: the run's settings by
    name."""
    settings = _list({name.replace("_", " "): _text(value) for name, value in facts.items()})
    meanings = _list({measure.title: measure.meaning for measure in MEASURES.values()})
    jpeg = io.BytesIO()  # JPEG is many times smaller than PNG for photographs
    Image.open(folder / CONTACT).convert("RGB").save(jpeg, "JPEG", quality=90, subsampling=0)
    figures = "".join(_figure((folder / name).read_bytes(), "png", caption) for name, caption in PLOTS.items())
    figures += _figure(jpeg.getvalue(), "jpeg", "Photo, truth, moved texture and model at four moments")
    video = _data((folder / VIDEO).read_bytes(), "video/mp4")
    page = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DreamPose benchmark</title>
<style>{_STYLE}</style>
<h1>DreamPose benchmark</h1>
<p>A model compared with baselines that use no generating network. The model's rows are highlighted. The best score of
each column is underlined; vae_only does not compete, because it uses the truth.</p>
<div class="wide">{_table(report, facts["robustness"])}</div>
<h2>Side by side</h2>
<figure><video controls loop muted playsinline preload="metadata" src="{video}"></video></figure>
<h2>Pictures</h2>
{figures}
<h2>Meaning of the scores</h2>
{meanings}
<h2>Settings of this run</h2>
{settings}
</html>
"""
    with appearing(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def best_blocks(report: Report, key: str) -> set[str]:
    """Return the blocks with the best value of score `key`, compared as rounded in the table; "vae_only", which uses
    the truth, does not compete."""
    known = {name: report[name][key] for name in _RATED if name in report and report[name][key] is not None}
    how_bad = {"high": lambda value: -value, "low": lambda value: value, "one": lambda value: abs(value - 1)}
    best = {written(key, value) for value in sorted(known.values(), key=how_bad[MEASURES[key].best])[:1]}
    return {name for name, value in known.items() if written(key, value) in best}


def _table(report: Report, robustness: dict[str, int] | None) -> str:
    keys = [key for key in next(iter(report.values())) if any(block[key] is not None for block in report.values())]
    best = {key: best_blocks(report, key) for key in keys}
    rows = ["<tr><th></th>" + "".join(f"<th>{escape(MEASURES[key].title)}</th>" for key in keys) + "</tr>"]
    for name, block in report.items():
        if robustness and name == UNDISTURBED:
            fewer = f"{robustness['people']} people, {robustness['frames']} frames each"
            words = f"The model with a perturbed pose map of the photo ({fewer})"
            rows.append(f'<tr><td colspan="{len(keys) + 1}">{words}</td></tr>')
        cells = "".join(f"<td{' class=best' * (name in best[key])}>{written(key, block[key])}</td>" for key in keys)
        marked = " class=model" * (name in MODELS)
        rows.append(f"<tr{marked}><td>{escape(name)}<small>{escape(BLOCKS[name].meaning)}</small></td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _text(value) -> str:
    """Format a value of about.json as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items()) or "nothing"
    return " x ".join(map(str, value)) if isinstance(value, list) else "no" if value is None else str(value)


def _list(words: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in words.items()) + "</dl>"


def _figure(data: bytes, form: str, caption: str) -> str:
    source = _data(data, f"image/{form}")
    return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def _data(data: bytes, form: str) -> str:
    return f"data:{form};base64,{base64.b64encode(data).decode('ascii')}"
