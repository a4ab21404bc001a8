"""Stable Diffusion's safety checker over frames: what it takes for unfit to be shown is made black."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers.models.clip import CLIPImageProcessorPil

from .stable_diffusion import load


class SafetyChecker:
    """Compares CLIP's picture of a frame with that of things that are not to be shown (arXiv 2210.04610 describes
    how)."""

    def __init__(self, model: StableDiffusionSafetyChecker, processor: CLIPImageProcessorPil):
        self.model, self.processor = model, processor

    @classmethod
    def from_stable_diffusion(cls, base: str | Path, device: str = "cpu") -> SafetyChecker:
        """That of Stable Diffusion 1.x, in its folders safety_checker and feature_extractor. base: a folder or hub id.
        Raises ModelError."""
        model = load(StableDiffusionSafetyChecker, base, "safety_checker").to(device)
        return cls(model, load(CLIPImageProcessorPil, base, "feature_extractor"))

    @torch.no_grad()
    def hide(self, frames: np.ndarray) -> list[int]:
        """Makes the frames black, in place, that are unfit; returns which. frames: (T, H, W, 3), uint8, or float in [0,
        1]."""
        seen = frames if frames.dtype == np.uint8 else (frames * 255).round().astype(np.uint8)
        given = self.processor(list(seen), return_tensors="pt").pixel_values.to(self.model.device)
        # it would blacken its own copies of the pictures; what it says is enough
        _, unfit = self.model(clip_input=given, images=np.zeros((len(frames), 1)))
        hidden = [index for index, found in enumerate(unfit) if found]
        frames[hidden] = 0
        return hidden
