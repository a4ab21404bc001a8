"""Run a network in the format of scripts/convert_blazepose.py: a list of steps (JSON) and weights (safetensors)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from ..errors import ModelError

_ACTIVATIONS = {None: lambda x: x, "relu": F.relu, "relu6": F.relu6}


class Graph(nn.Module):
    """The network NAME.json with the weights NAME.safetensors. side: of its square input, in pixels."""

    def __init__(self, folder: Path, name: str):
        super().__init__()
        try:
            plan = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            weights = load_file(folder / f"{name}.safetensors")
        except (OSError, ValueError) as error:
            raise ModelError(
                f"The body tracker's {name} cannot be read from {folder}; fetch the project again."
            ) from error
        self.input, self.side, self.outputs, self.steps = plan["input"], plan["side"], plan["outputs"], plan["steps"]
        for key, value in weights.items():
            self.register_buffer(key.replace(".", "_"), value.float())
        # the last step that needs each value, after which `forward` frees it
        self._last = {i: number for number, step in enumerate(self.steps) for i in step["inputs"]}

    @torch.inference_mode()
    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run pictures (B, 3, side, side); returns its outputs by name, those with four dimensions as (B, C, H, W)."""
        values, kept = {self.input: pictures}, set(self.outputs.values())
        for number, step in enumerate(self.steps):
            values[step["out"]] = self._do(step, [values[i] for i in step["inputs"]])
            for i in step["inputs"]:
                if self._last[i] == number and i not in kept:
                    values.pop(i, None)
        return {name: values[i] for name, i in self.outputs.items()}

    def _do(self, step: dict, given: list[torch.Tensor]) -> torch.Tensor:
        x = given[0]
        match step["do"]:
            case "conv":
                weight, bias = (getattr(self, f"{step['out']}_{name}") for name in ("weight", "bias"))
                x = F.pad(x, step["pad"]) if any(step["pad"]) else x
                return _ACTIVATIONS[step["activation"]](
                    F.conv2d(x, weight, bias, step["stride"], groups=step["groups"])
                )
            case "add":
                return _ACTIVATIONS[step["activation"]](x + given[1])
            case "pad":
                return F.pad(x, step["pad"])
            case "resize":
                return F.interpolate(x, size=step["size"], mode="bilinear", align_corners=False)
            case "max_pool":
                return F.max_pool2d(F.pad(x, step["pad"], value=-torch.inf), step["kernel"], step["stride"])
            case "logistic":
                return x.sigmoid()
            case "reshape":  # the shape refers to the order (B, H, W, C)
                x = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
                return x.reshape(len(x), *step["shape"])
            case "concatenate":
                return torch.cat(given, step["axis"])
            case "depth_to_space":  # (B, k k C, H, W) -> (B, C, k H, k W)
                k, (batch, channels, height, width) = step["block"], x.shape
                x = x.reshape(batch, k, k, channels // k**2, height, width).permute(0, 3, 4, 1, 5, 2)
                return x.reshape(batch, channels // k**2, k * height, k * width)
        raise ValueError(f"there is no step {step['do']}")
