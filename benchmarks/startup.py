"""How long people wait before anything happens: processor time of imports, of commands
that compute nothing, and of naming one picture.

    python benchmarks/startup.py

Each is a process of its own, on files that were read before. Wanted: what a notebook
imports takes at most 1.3 times what `import torch` takes, a command that only looks
something up at most a second, and `fgbook predict` with one picture at most 3. The
models are plain ones with random weights: of the small network and of timm's
EfficientNet-Lite0, as a run leaves them and exported.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from fgbook.evidence import models
from fgbook.methods import build
from fgbook.recipe import Recipe

TORCH = "import torch"
IMPORTS = (TORCH, "import fgbook.evidence.runs", "import fgbook.figures")
WANTED_RATIO = 1.3  # of the first of ours
COMMANDS = ("--help", "results", "results --verdicts", "doctor", "data list")
WANTED_SECONDS = 1.0
BACKBONES = {"small": "small", "Lite0": "timm:tf_efficientnet_lite0"}
WANTED_ANSWER = 3.0


def run_of(backbone: str, folder: Path) -> Path:
    """A folder as a run leaves it, of a model that has learnt nothing."""
    recipe = Recipe(backbone=backbone, weights="none", image_size=97, store_size=113)
    classes = [f"class {place}" for place in range(50)]
    torch.manual_seed(0)
    folder.mkdir()
    weights = build("plain", len(classes), recipe, {}).state_dict()
    save_file(weights, folder / models.WEIGHTS)
    about = {
        "key": "0" * 16,
        "method": "plain",
        "options": {},
        "recipe": recipe.as_dict(),
        "seed": 0,
        "weights": "none",
        "classes": classes,
        "num_classes": len(classes),
        "class_attributes": None,
        "command": "none",
    }
    models.write(folder, about)
    return folder


def answers(folder: Path, told: dict[str, str]) -> dict[str, Callable[[], None]]:
    """Model -> a call that names one picture with it."""
    picture = folder / "noise.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    found = {}
    for name, backbone in BACKBONES.items():
        run = run_of(backbone, folder / name)
        given = {f"{name}, a run": run}
        for suffix in (".onnx", ".pt2"):
            file = folder / f"{name}{suffix}"
            export = ["export", "--run", str(run), "-o", str(file)]
            starter(["-m", "fgbook", *export], told)()
            given[f"{name}, {suffix}"] = file
        for title, model in given.items():
            words = ["predict", str(picture), "--run", str(model)]
            found[title] = starter(["-m", "fgbook", *words], told)
    return found


def starter(words: list[str], environment: dict[str, str]) -> Callable[[], None]:
    """A function that runs Python with these words, quietly."""

    def start() -> None:
        subprocess.run(
            [sys.executable, *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    return start


def main() -> None:
    """Measure, print, save."""
    parser = common.on_device(__doc__, seconds=60.0)
    chosen, device = common.options(parser)
    report = common.Report(
        "startup",
        "Start-up: processor time before anything is computed, and of one answer",
        chosen.device,
        ["process", "seconds", "ratio"],
        layout="processes",
        now=common.children,
    )
    names = [*IMPORTS, *(f"fgbook {words}" for words in COMMANDS)]
    with tempfile.TemporaryDirectory() as runs:
        # no records of this machine's own: the published ones are the same everywhere
        told = dict(os.environ, FGBOOK_RUNS=runs, OMP_NUM_THREADS="1")
        told["PYTHONPATH"] = str(common.CLONE)
        functions = [starter(["-c", statement], told) for statement in IMPORTS]
        for words in COMMANDS:
            functions.append(starter(["-m", "fgbook", *words.split()], told))
        naming = answers(Path(runs), told)
        answered = [f"predict: {model}" for model in naming]
        names += answered
        functions += naming.values()
        times = common.turns(functions, device, chosen.seconds, now=common.children)
    taken = dict(zip(names, times, strict=True))

    for name, seconds in taken.items():
        ratio, _, _ = common.ratio(seconds, taken[TORCH])
        report.row(name, common.median(seconds), ratio)
    for name in IMPORTS[1:]:
        report.ratio(
            f"{name}, over {TORCH}",
            *common.ratio(taken[name], taken[TORCH]),
            wanted=f"<= {WANTED_RATIO}" if name == IMPORTS[1] else "",
        )
    for words in COMMANDS:
        seconds = taken[f"fgbook {words}"]
        report.ratio(
            f"seconds of fgbook {words}",
            *common.ratio(seconds, [1.0] * len(seconds)),
            wanted=f"<= {WANTED_SECONDS:g}",
        )
    for name in answered:
        report.ratio(
            f"seconds of {name}",
            *common.ratio(taken[name], [1.0] * len(taken[name])),
            wanted=f"<= {WANTED_ANSWER:g}",
        )
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
