"""Animate: tune or load a subject, generate frames with an engine, and write chunks and the MP4."""

from .engine import LocalEngine
from .run import animate

__all__ = ["LocalEngine", "animate"]
