"""A report: a row of scores for each way to make frames; the meaning of both, and the report as a Markdown table."""

from __future__ import annotations

from typing import NamedTuple

Report = dict[str, dict[str, float | None]]


class Measure(NamedTuple):
    """A score in a report. best: the best value is "high", "low" or "one". short: has a column in the short table."""

    title: str
    decimals: int
    best: str
    meaning: str
    short: bool = True


MEASURES = {
    "psnr": Measure("PSNR", 1, "high", "peak signal-to-noise ratio of whole frames, dB"),
    "psnr_mask": Measure("PSNR person", 1, "high", "PSNR inside the person, dB"),
    "psnr_seen": Measure("PSNR seen", 1, "high", "PSNR of all pixels whose surface the photo shows, dB"),
    "psnr_unseen": Measure("PSNR unseen", 1, "high", "PSNR of all pixels whose surface the photo does not show, dB"),
    "l1": Measure("L1", 4, "low", "mean absolute error of whole frames, 0..1", short=False),
    "l1_mask": Measure("L1 person", 4, "low", "mean absolute error inside the person, 0..1", short=False),
    "ssim": Measure("SSIM", 3, "high", "structural similarity of whole frames, at most 1"),
    "ssim_mask": Measure("SSIM person", 3, "high", "SSIM around the person's pixels", short=False),
    "lpips": Measure("LPIPS", 3, "low", "learned perceptual distance of whole frames", short=False),
    "lpips_mask": Measure("LPIPS person", 3, "low", "LPIPS with the true background", short=False),
    "sharpness": Measure("sharpness", 2, "one", "gradient inside the person / the truth's; blur is below 1"),
    "psnr_head": Measure("PSNR head", 1, "high", "PSNR inside the head, dB"),
    "ssim_head": Measure("SSIM head", 3, "high", "SSIM around the head's pixels", short=False),
    "sharpness_head": Measure("sharpness head", 2, "one", "sharpness inside the head"),
    "identity_seen": Measure("identity seen", 3, "low", "error of the mean colour of points the photo shows, 0..1"),
    "identity_unseen": Measure("identity unseen", 3, "low", "the same error for points the photo does not show, 0..1"),
    "pose_accuracy": Measure("pose", 2, "high", "share of parts an estimator gets right / that in the true frames"),
    "temporal_error": Measure("temporal", 4, "low", "error of points' colour changes between frames (flicker), 0..1"),
}


class Block(NamedTuple):
    """A row of a report: its meaning, and its colour in plots."""

    meaning: str
    colour: str = "#d6a27e"


MODELS, UNDISTURBED = ("none", "fast", "paper"), "undisturbed"
BLOCKS = {
    "none": Block("the model, not fine-tuned", "#c2410c"),
    "fast": Block("the model, fine-tuned to the photo", "#9f1239"),
    "paper": Block("fine-tuned with the paper's recipe", "#a16207"),
    "repeat_photo": Block("the photo repeated", "#6b7280"),
    "grey_silhouette": Block("grey on the photo's background", "#a8a29e"),
    "part_colours": Block("one mean colour for each part of the body", "#6d28d9"),
    "moved_texture": Block("the photo's texture moved by DensePose", "#1d4ed8"),
    "vae_only": Block("the truth encoded and decoded by the VAE", "#047857"),
    UNDISTURBED: Block("the exact map, for comparison"),
    "displaced_1": Block("map moved by 1 % of the height"),
    "displaced_2": Block("map moved by 2 % of the height"),
    "uv_noise": Block("map with noise on U, V"),
    "holes": Block("map with holes"),
    "parts_only": Block("map without U, V"),
    "absent": Block("no map"),
}


def table(report: Report) -> str:
    """Format a report as a Markdown table, a row for each block; of a benchmark's scores, only the `short` ones."""
    keys = list(next(iter(report.values())))
    if set(keys) <= set(MEASURES):
        keys = [key for key in keys if MEASURES[key].short]
    titles = [MEASURES[key].title if key in MEASURES else key for key in keys]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(keys) + 1) + "|"]
    rows = [f"| {name} | " + " | ".join(written(key, row[key]) for key in keys) + " |" for name, row in report.items()]
    return "\n".join(lines + rows)


def written(key: str, value: float | None) -> str:
    """Format a score for tables: rounded to its decimals, "–" for None."""
    return "–" if value is None else f"{value:.{MEASURES[key].decimals if key in MEASURES else 2}f}"
