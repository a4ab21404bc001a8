"""Mark results as AI-generated: always in the video's metadata, and in the picture if requested."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# The URL is the digital source type for such videos in the press standard IPTC.
COMMENT = "AI-generated video, made with DreamPose. Digital source type: http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
WORDS = "AI-generated"
_SHARE, _LEAST = 1 / 24, 11  # height of the letters: share of the picture's height, and minimum in pixels


def labelled(frame: np.ndarray) -> np.ndarray:
    """Copy a frame, uint8 (H, W, 3), and write WORDS in its lower left corner, legible on light and dark."""
    label = _label(frame.shape[0])
    height, width = (min(a, b) for a, b in zip(label.shape[:2], frame.shape[:2]))
    out = frame.copy()
    corner = out[-height:, :width]
    corner[:] = (corner // 3 + label[-height:, :width] * (2 / 3)).astype(np.uint8)  # semi-transparent
    return out


@cache
def _label(height: int) -> np.ndarray:
    font = ImageFont.load_default(max(_LEAST, round(height * _SHARE)))
    left, top, right, bottom = font.getbbox(WORDS)
    picture = Image.new("RGB", (round(right - left) + 8, round(bottom - top) + 6), (16, 16, 16))
    ImageDraw.Draw(picture).text((4 - left, 3 - top), WORDS, fill=(255, 255, 255), font=font)
    return np.asarray(picture)
