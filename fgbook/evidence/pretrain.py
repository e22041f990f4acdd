"""How the shipped weights of the `small` backbone were made: trained to tell apart the
species of fieldguide's `source` pool.

    fgbook pretrain

writes ``small.safetensors`` (the backbone only) and ``small.json`` (what made it, and
how good it is) into the package.
"""

import hashlib
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import files, methods, paths
from ..backbones.weights import SHIPPED
from ..data import fieldguide
from ..data.dataset import DataSet
from ..evaluation import classification
from ..methods import Method
from ..recipe import Recipe
from ..training import devices, loop

RECIPE = Recipe(
    image_size=72,
    store_size=80,
    backbone="small",
    weights="none",
    epochs=20,
    batch_size=64,
    optimiser="adamw",
    lr=4e-3,
    backbone_lr_factor=1.0,
    weight_decay=0.05,
    schedule="onecycle",
    label_smoothing=0.1,
    precision="fp32",
)
SIZE = RECIPE.store_size  # pixels
POOL = "source"  # the runs' own species are of the other one
SPECIES = 100
PER_CLASS = (40, 5, 10)  # images in train, val, test
SEED = 0


def pretrain(
    epochs: int = RECIPE.epochs,
    out: Path = SHIPPED.parent,
    *,
    device: str | None = None,
    progress: bool = True,
) -> dict:
    """Train `small` on the source pool, write its weights and their record into `out`,
    and return the record.

    The weights are stored as float16, and the accuracies in the record are those of the
    stored numbers. Interrupted, it goes on at the next call.
    """
    recipe, folder = RECIPE.but(epochs=epochs), Path(out)
    files.refuse_unwritable(folder, f"--out {folder}")
    data = fieldguide.load(
        SIZE, pool=POOL, species=SPECIES, per_class=PER_CLASS, seed=SEED
    )
    torch.manual_seed(SEED)
    model = methods.build("plain", data.num_classes, recipe, {})
    outcome = loop.fit(
        model,
        data,
        recipe,
        paths.runs() / f"pretrain-{data.fingerprint}-{epochs}",
        seed=SEED,
        device=device,
        progress=progress,
    )

    network = model.backbone.network.cpu()
    folder.mkdir(parents=True, exist_ok=True)
    # both files are complete before either takes its place
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        weights = Path(scratch) / "small.safetensors"
        save_file(_halved(network), weights)
        network.load_state_dict(load_file(weights))
        accuracy = _accuracy(model, data, recipe, device)
        about = _about(weights, network, recipe, data, outcome, accuracy, device)
        record = weights.with_suffix(".json")
        record.write_text(json.dumps(about, indent=1) + "\n")
        for path in (weights, record):
            # safetensors' files are for their owner only
            os.chmod(path, 0o644)
            os.replace(path, folder / path.name)
    return about


def _halved(network: nn.Module) -> dict[str, Tensor]:
    """The weights as float16; counters stay whole numbers."""
    halved = {}
    for name, value in network.state_dict().items():
        stored = value.half() if value.is_floating_point() else value
        halved[name] = stored.contiguous()
    return halved


def _accuracy(
    model: Method, data: DataSet, recipe: Recipe, device: str | None
) -> dict[str, dict]:
    """Top-1 with its interval, and the number of images, on validation and test."""
    found = {}
    for name in ("val", "test"):
        split = data.split(name)
        probabilities = loop.predict(model, split, recipe, device=device)
        all_of = classification.metrics(probabilities, split.labels, data.num_classes)
        found[name] = {
            measure: all_of[measure]
            for measure in ("top1", "top1_low", "top1_high", "n")
        }
    return found


def _about(
    weights: Path,
    network: nn.Module,
    recipe: Recipe,
    data: DataSet,
    outcome: loop.Outcome,
    accuracy: dict[str, dict],
    device: str | None,
) -> dict:
    """The record of a file of weights."""
    content = weights.read_bytes()
    return {
        "command": "fgbook pretrain",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "parameters": sum(p.numel() for p in network.parameters()),
        "recipe": recipe.as_dict(),
        "seed": SEED,
        "data": {
            "size": SIZE,
            "pool": POOL,
            "species": SPECIES,
            "per_class": PER_CLASS,
            "seed": SEED,
            "fingerprint": data.fingerprint,
            "fieldguide_version": fieldguide.VERSION,
        },
        "accuracy": accuracy,
        "train": {
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 1),
        },
        "hardware": {
            "device": device or devices.default_device(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
