"""Makes the finished videos that the page shows, with the shipped model: ready/MOTION-PERSON.mp4 and a poster of each.

    python -m examples.make_ready
"""

import hashlib
from pathlib import Path

from PIL import Image

from dreampose_core.cli.main import main as dreampose
from dreampose_core.media import read_video
from dreampose_core.settings import MINI

HERE = Path(__file__).resolve().parent
READY = HERE / "ready"
PAIRS = {
    "arms": "ada",
    "boxing": "emil",
    "catwalk": "dana",
    "dance": "bela",
    "disco": "chidi",
    "fashion": "fumi",
    "jump": "fumi",
    "show_dress": "bela",
    "side_step": "chidi",
    "turn": "dana",
    "walk": "emil",
    "wave": "ada",
}  # motion: person


def weights() -> str:
    """A digest of the shipped weights, which the videos were made with."""
    digest = hashlib.sha256()
    for path in sorted(MINI.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Writes the videos, their posters, and the digest of the weights."""
    READY.mkdir(exist_ok=True)
    for motion, person in PAIRS.items():
        photo, video = HERE / "people" / f"{person}.png", READY / f"{motion}-{person}.mp4"
        video.unlink(missing_ok=True)
        given = ["--image", str(photo), "--image-poses", str(photo.with_suffix(".poses.npz"))]
        given += ["--poses", str(HERE / "motions" / f"{motion}.npz"), "--recipe", "none", "--out", str(video)]
        if dreampose(["animate", *given]):
            raise SystemExit(1)
        video.with_suffix(".json").unlink()
        frames = list(read_video(video))
        Image.fromarray(frames[len(frames) // 3]).save(video.with_suffix(".webp"), quality=85)
    (READY / "weights.txt").write_text(weights() + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
