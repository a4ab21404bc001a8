"""A benchmark in pictures: contact sheet, plots, and a video of photo, truth, moved texture and model side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import appearing
from ..media import write_png, write_video
from .clips import Clip
from .report import MEASURES, MODELS, Report, written

SHOWN = 8  # clips in contact sheet and video
_MOMENTS = (0.1, 0.35, 0.6, 0.9)  # of a clip, in the contact sheet
_PANEL = 320  # pixels a video's panel is high at least
_STRIP, _INK, _PAPER = 20, (225, 225, 230), (24, 24, 28)
_NAMES = {"moved_texture": "moved texture", "none": "model", "fast": "model, tuned"}
_COLOURS = {
    "none": "#c2410c",
    "fast": "#9f1239",
    "paper": "#a16207",
    "moved_texture": "#1d4ed8",
    "vae_only": "#047857",
    "part_colours": "#6d28d9",
    "repeat_photo": "#6b7280",
    "grey_silhouette": "#a8a29e",
}
_BARS = (
    "psnr_mask",
    "psnr_unseen",
    "ssim",
    "sharpness",
    "identity_seen",
    "identity_unseen",
    "pose_accuracy",
    "temporal_error",
)


@dataclass(frozen=True)
class Shown:
    """A clip with what was made of it: frames uint8 (T, H, W, 3) by block."""

    clip: Clip
    frames: dict[str, np.ndarray]

    @classmethod
    def of(cls, clip: Clip, made: dict[str, np.ndarray]) -> Shown:
        """The clip with those of the frames that are shown: the moved texture's and the model's."""
        return cls(clip, {name: made[name] for name in ("moved_texture", *MODELS) if name in made})

    @property
    def photo(self) -> np.ndarray:
        return self.clip.photo


def write_contact(shown: list[Shown], path: Path) -> None:
    """Writes a PNG with a row for each clip: the photo, then truth, moved texture and model at four moments each."""
    rows = []
    for one in shown:
        at = [int(moment * (len(one.clip) - 1)) for moment in _MOMENTS]
        groups = {
            "photo": one.photo[None],
            "truth": one.clip.truth[at],
            **{_NAMES[k]: x[at] for k, x in one.frames.items()},
        }
        names = [one.clip.name if name == "photo" else name for name in groups]
        strips = [_strip(name, len(group) * group.shape[2], left=True) for name, group in zip(names, groups.values())]
        pictures = [frame for group in groups.values() for frame in group]
        rows += [np.concatenate(strips, 1), np.concatenate(pictures, 1)]
    width = max(row.shape[1] for row in rows)
    write_png(np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]), path)


def write_side_by_side(shown: list[Shown], path: Path) -> None:
    """Writes an MP4 of the clips one after another: photo, truth, moved texture and model side by side."""

    def row(one: Shown, index: int) -> np.ndarray:
        panels = {
            "photo": one.photo,
            "truth": one.clip.truth[index],
            **{_NAMES[k]: x[index] for k, x in one.frames.items()},
        }
        return np.concatenate([panel(picture, name) for name, picture in panels.items()], 1)

    width = max(row(one, 0).shape[1] for one in shown)  # clips may have different shapes

    def frames() -> Iterator[np.ndarray]:
        for one in shown:
            for index in range(len(one.clip)):
                made = row(one, index)
                yield np.pad(made, ((0, 0), (0, width - made.shape[1]), (0, 0)))

    write_video(frames(), path, shown[0].clip.poses.fps)


def write_course(course: dict[str, np.ndarray], path: Path) -> None:
    """Writes a PNG plot: PSNR inside the person, frame by frame, the mean over the clips.

    course: by block, dB (clips, T), NaN where nobody is in the frame or the clip is shorter.
    """
    figure, axes = _canvas(1, (8.4, 3.6))
    axes = axes[0]
    for name, values in course.items():
        known = ~np.isnan(values)
        mean = np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        axes.plot(mean, color=_COLOURS[name], linewidth=2.4 if name in MODELS else 1.3, label=name)
    axes.set_xlabel("scored frame")
    axes.set_ylabel("PSNR inside the person, dB")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    _save(figure, path)


def write_bars(report: Report, path: Path) -> None:
    """Writes a PNG plot: the main figures of every block as bars."""
    figure, axes = _canvas(len(_BARS), (13, 0.9 + 0.52 * len(report)))
    names = list(report)
    for axis, key in zip(axes, _BARS):
        values = [report[name][key] for name in names]
        colours = [_COLOURS.get(name, "#d6a27e") for name in names]
        axis.barh(names, [value or 0 for value in values], color=colours)
        axis.invert_yaxis()
        axis.set_title(MEASURES[key].title, fontsize=10)
        if MEASURES[key].best == "one":
            axis.axvline(1, color="#111827", linewidth=1, linestyle=":")
        axis.margins(x=0.16)  # room for what is written beside the bars
        for place, value in enumerate(values):
            axis.annotate(
                written(key, value), (value or 0, place), (3, 0), textcoords="offset points", va="center", fontsize=7.5
            )
        axis.tick_params(axis="y", labelleft=axis is axes[0] or axis is axes[len(_BARS) // 2], labelsize=9)
    _save(figure, path)


def write_people(people: list[dict], path: Path) -> None:
    """Writes a PNG plot: PSNR inside the person for each clip, the model's beside those of two baselines.

    people: for each clip its "name" and "scores", blocks of figures.
    """
    figure, axes = _canvas(1, (8.4, 1.1 + 0.24 * len(people)))
    axes = axes[0]
    for name in ("part_colours", "moved_texture", *MODELS):
        points = [
            (one["scores"][name]["psnr_mask"], place) for place, one in enumerate(people) if name in one["scores"]
        ]
        points = [point for point in points if point[0] is not None]
        if points:
            axes.scatter(*zip(*points), color=_COLOURS[name], label=name, s=42 if name in MODELS else 22, zorder=3)
    axes.set_yticks(range(len(people)), [one["name"].replace("$", r"\$") for one in people], fontsize=8)
    axes.set_ylim(len(people) - 0.5, -0.5)
    axes.grid(axis="y", color="#e5e7eb")
    axes.set_xlabel("PSNR inside the person, dB")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    _save(figure, path)


def _canvas(number: int, size: tuple[float, float]):
    """A matplotlib figure of (width, height) inches and its axes; nothing of pyplot's global state is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    rows = 1 if number < 5 else 2
    axes = figure.subplots(rows, -(-number // rows), squeeze=False).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path: Path) -> None:
    with appearing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def panel(picture: np.ndarray, name: str) -> np.ndarray:
    """A picture, enlarged where it is small, under a strip that says what it is."""
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
