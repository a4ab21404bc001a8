"""DreamPose: turns one photo of a person and a DensePose sequence into a video of that person moving."""

import logging

__version__ = "0.1.0"

__all__ = ["DreamPosePipeline", "__version__"]

# diffusers loads bitsandbytes if it is installed, which then warns about 4-bit kernels that this project does not use
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str):
    # lazy, so that the web process and --help never load torch
    if name == "DreamPosePipeline":
        from .model.pipeline import DreamPosePipeline

        return DreamPosePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
