"""DreamPose: one photo of a person and a DensePose sequence become a video of that person moving."""

import logging

__version__ = "0.1.0"

__all__ = ["DreamPosePipeline", "__version__"]

# diffusers loads bitsandbytes where it is installed, which then warns of kernels for 4 bits that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str):
    # Lazy, so that `import dreampose_core` (the web process, --help) never loads torch.
    if name == "DreamPosePipeline":
        from .model.pipeline import DreamPosePipeline

        return DreamPosePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
