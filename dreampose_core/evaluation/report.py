"""A report in words: what its figures mean, and as a Markdown table."""

from __future__ import annotations

from dataclasses import dataclass

Report = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Measure:
    """A figure of a report. best: "high", "low" or "one". short: it has a column in the small table."""

    title: str
    decimals: int
    best: str
    meaning: str
    short: bool = True


MEASURES = {
    "psnr": Measure("PSNR", 1, "high", "peak signal-to-noise ratio of whole frames, dB"),
    "psnr_mask": Measure("PSNR person", 1, "high", "the same inside the person, dB"),
    "psnr_seen": Measure(
        "PSNR seen", 1, "high", "on surfaces of the body that the photo shows, all their pixels together, dB"
    ),
    "psnr_unseen": Measure("PSNR unseen", 1, "high", "on surfaces that the photo does not show, dB"),
    "l1": Measure("L1", 4, "low", "mean absolute error of whole frames, 0..1", short=False),
    "l1_mask": Measure("L1 person", 4, "low", "the same inside the person", short=False),
    "ssim": Measure("SSIM", 3, "high", "structural similarity of whole frames, at most 1"),
    "ssim_mask": Measure("SSIM person", 3, "high", "the same around the pixels of the person", short=False),
    "lpips": Measure("LPIPS", 3, "low", "learned perceptual distance of whole frames", short=False),
    "lpips_mask": Measure("LPIPS person", 3, "low", "the same with the true background", short=False),
    "sharpness": Measure(
        "sharpness", 2, "one", "gradient inside the person over the truth's: 1 is right, blur is below"
    ),
    "psnr_head": Measure("PSNR head", 1, "high", "inside the head, dB"),
    "ssim_head": Measure("SSIM head", 3, "high", "around the pixels of the head", short=False),
    "sharpness_head": Measure("sharpness head", 2, "one", "the same as sharpness, inside the head"),
    "identity_seen": Measure(
        "identity seen", 3, "low", "error of the mean colour of every point of the body that the photo shows, 0..1"
    ),
    "identity_unseen": Measure("identity unseen", 3, "low", "the same for points that the photo does not show"),
    "pose_accuracy": Measure(
        "pose", 2, "high", "body parts that an estimator finds right, as a share of what it finds in the true frames"
    ),
    "temporal_error": Measure(
        "temporal", 4, "low", "change of colour of a point of the body from frame to frame less the truth's, 0..1"
    ),
}
MODELS, UNDISTURBED = ("none", "fast", "paper"), "undisturbed"
BLOCKS = {
    "none": "the model, not tuned",
    "fast": "the model, tuned to the photo",
    "paper": "the same with the paper's recipe",
    "repeat_photo": "the photo, over and over",
    "grey_silhouette": "grey on the photo's background",
    "part_colours": "one mean colour for each part of the body",
    "moved_texture": "the photo's texture moved by DensePose",
    "vae_only": "the truth through the model's VAE",
    UNDISTURBED: "the exact map, to compare with",
    "displaced_1": "displaced by 1 % of the height",
    "displaced_2": "displaced by 2 %",
    "uv_noise": "U, V noisy",
    "holes": "with holes",
    "parts_only": "parts without U, V",
    "absent": "no map at all",
}


def table(report: Report) -> str:
    """A report as a Markdown table, a row for each block; a benchmark's without the figures that say much the same as
    their neighbours."""
    keys = list(next(iter(report.values())))
    if set(keys) <= set(MEASURES):
        keys = [key for key in keys if MEASURES[key].short]
    titles = [MEASURES[key].title if key in MEASURES else key for key in keys]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(keys) + 1) + "|"]
    rows = [f"| {name} | " + " | ".join(written(key, row[key]) for key in keys) + " |" for name, row in report.items()]
    return "\n".join(lines + rows)


def written(key: str, value: float | None) -> str:
    """A figure as it stands in tables: with its decimals, "–" where it is not known."""
    return "–" if value is None else f"{value:.{MEASURES[key].decimals if key in MEASURES else 2}f}"
