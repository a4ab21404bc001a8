"""Converts BlazePose to what densepose.blazepose loads, with LiteRT's answers for the tests; for development only.

    npm pack @mediapipe/pose@0.5.1675469404 && tar xzf mediapipe-pose-*.tgz
    pip install ai-edge-litert==2.3.0 safetensors==0.8.0 pillow==12.3.0
    python scripts/convert_blazepose.py package assets/body tests

Writes detector and landmarks as NAME.safetensors (float16) and NAME.json (the steps of the network, in order), and
tests/blazepose.npz.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image
from safetensors.numpy import save_file

FILES = {"detector": "pose_solution_packed_assets.data", "landmarks": "pose_landmark_full.tflite"}
OUTPUTS = {
    "detector": {"Identity": "boxes", "Identity_1": "scores"},
    "landmarks": {
        "Identity": "landmarks",
        "Identity_1": "presence",
        "Identity_2": "mask",
        "Identity_3": "heatmaps",
        "Identity_4": "world",
    },
}
PICTURES = ("examples/people/ada.png", "examples/people/emil.png")
SCALE = {"detector": 2, "landmarks": 1}  # pixels in -1..1 or 0..1
OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
ACTIVATIONS = {0: None, 1: "relu", 3: "relu6"}
TO_NCHW = {0: 0, 1: 2, 2: 3, 3: 1, -1: 1}


def converted(content: bytes, outputs: dict[str, str]) -> tuple[dict, dict[str, np.ndarray]]:
    """The network's steps, and its weights by name, all in torch's order (N, C, H, W)."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph = model.subgraphs[0]
    # Without a delegate, which would keep to itself the weights that are stored as sparse or 16-bit numbers.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    constant = interpreter.get_tensor
    codes = [OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    steps, weights = [], {}

    def shape(i: int) -> list[int]:
        return [int(x) for x in graph.tensors[i].shape]

    def same(size: list[int], kernel, stride, padding: int) -> list[int]:
        """Left, right, top, bottom: TensorFlow's SAME padding puts the odd pixel behind."""
        if padding == schema.Padding.VALID:
            return [0, 0, 0, 0]
        more = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, stride)]
        return [more[1] // 2, more[1] - more[1] // 2, more[0] // 2, more[0] - more[0] // 2]

    for operator in graph.operators:
        name, options = codes[operator.opcodeIndex], operator.builtinOptions
        inputs, out = [int(i) for i in operator.inputs], int(operator.outputs[0])
        if name in ("DEQUANTIZE", "DENSIFY"):  # of weights
            continue
        step = {"do": name.lower(), "inputs": inputs[:1], "out": out}
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weight = constant(inputs[1]).transpose((0, 3, 1, 2) if name == "CONV_2D" else (3, 0, 1, 2))
            weights[f"{out}.weight"] = np.ascontiguousarray(weight, np.float16)
            weights[f"{out}.bias"] = np.ascontiguousarray(constant(inputs[2]), np.float16)
            stride = [options.strideH, options.strideW]
            pad = same(shape(inputs[0])[1:3], weight.shape[2:], stride, options.padding)
            groups = 1 if name == "CONV_2D" else len(weight)
            step |= {"do": "conv", "stride": stride, "pad": pad, "groups": groups}
            step["activation"] = ACTIVATIONS[options.fusedActivationFunction]
        elif name == "ADD":
            step |= {"inputs": inputs, "activation": ACTIVATIONS[options.fusedActivationFunction]}
        elif name == "PAD":
            rows, columns, channels = constant(inputs[1]).tolist()[1:]
            step["pad"] = [*columns, *rows, *channels]
        elif name == "RESIZE_BILINEAR":
            assert options.halfPixelCenters and not options.alignCorners
            step |= {"do": "resize", "size": constant(inputs[1]).tolist()}
        elif name == "MAX_POOL_2D":
            kernel, stride = [options.filterHeight, options.filterWidth], [options.strideH, options.strideW]
            pad = same(shape(inputs[0])[1:3], kernel, stride, options.padding)
            step |= {"do": "max_pool", "kernel": kernel, "stride": stride, "pad": pad}
        elif name == "RESHAPE":
            step["shape"] = shape(out)[1:]
        elif name == "CONCATENATION":
            axis = options.axis if len(shape(out)) != 4 else TO_NCHW[options.axis]
            step |= {"do": "concatenate", "inputs": inputs, "axis": axis}
        elif name == "DEPTH_TO_SPACE":
            step["block"] = options.blockSize
        else:
            assert name == "LOGISTIC", name
        steps.append(step)
    names = {outputs[graph.tensors[i].name.decode()]: int(i) for i in graph.outputs}
    side = shape(graph.inputs[0])[1]
    return {"input": int(graph.inputs[0]), "side": side, "outputs": names, "steps": steps}, weights


def main(package: Path, folder: Path, tests: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, file in FILES.items():
        content = (package / file).read_bytes()
        plan, weights = converted(content, OUTPUTS[name])
        lines = ",\n".join(json.dumps(step) for step in plan.pop("steps"))
        head = json.dumps(plan)[:-1]
        (folder / f"{name}.json").write_text(f'{head}, "steps": [\n{lines}\n]}}\n', encoding="utf-8")
        save_file(weights, folder / f"{name}.safetensors")
        expected |= {f"{name}.{key}": value for key, value in answers(content, plan["side"], name).items()}
        print(name, f"{sum(value.size for value in weights.values()) / 1e6:.2f} M weights")
    np.savez_compressed(tests / "blazepose.npz", **expected)


def answers(content: bytes, side: int, name: str) -> dict[str, np.ndarray]:
    """What LiteRT makes of two drawn people, (2, ...): every output, the large ones thinned out."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    found: dict[str, list[np.ndarray]] = {}
    for picture in PICTURES:
        with Image.open(picture) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255
        interpreter.set_tensor(
            interpreter.get_input_details()[0]["index"], (pixels * SCALE[name] - (SCALE[name] - 1))[None]
        )
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            value = interpreter.get_tensor(detail["index"])[0]
            found.setdefault(OUTPUTS[name][detail["name"]], []).append(
                value[::8, ::8] if value.ndim == 3 else value[::7]
            )
    return {key: np.stack(values) for key, values in found.items()}


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
