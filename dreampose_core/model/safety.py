"""Stable Diffusion's safety checker: blackens frames that it classifies as unsafe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers.models.clip import CLIPImageProcessorPil

from .stable_diffusion import load


class SafetyChecker:
    """Compares the CLIP embedding of a frame with those of unsafe concepts (described in arXiv 2210.04610)."""

    def __init__(self, model: StableDiffusionSafetyChecker, processor: CLIPImageProcessorPil):
        self.model, self.processor = model, processor

    @classmethod
    def from_stable_diffusion(cls, base: str | Path, device: str = "cpu") -> SafetyChecker:
        """Load the checker of Stable Diffusion 1.x from its folders safety_checker and feature_extractor.

        base: a folder or hub id. Raises ModelError.
        """
        model = load(StableDiffusionSafetyChecker, base, "safety_checker").to(device)
        return cls(model, load(CLIPImageProcessorPil, base, "feature_extractor"))

    @torch.no_grad()
    def hide(self, frames: np.ndarray) -> list[int]:
        """Blacken unsafe frames in place and return their indices. frames: (T, H, W, 3), uint8, or float in [0, 1]."""
        seen = frames if frames.dtype == np.uint8 else (frames * 255).round().astype(np.uint8)
        pixels = self.processor(list(seen), return_tensors="pt").pixel_values.to(self.model.device)
        # the model blackens its input images, which are not needed; only its verdicts are
        _, unfit = self.model(clip_input=pixels, images=np.zeros((len(frames), 1)))
        hidden = [index for index, unsafe in enumerate(unfit) if unsafe]
        frames[hidden] = 0
        return hidden
