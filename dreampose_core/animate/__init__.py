"""One run: inputs to subject to frames to chunks to MP4, by an engine that has the model."""

from .engine import LocalEngine
from .run import animate

__all__ = ["LocalEngine", "animate"]
