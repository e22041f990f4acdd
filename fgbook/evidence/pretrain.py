"""How the shipped weights of the `small` backbone were made: trained to tell apart the
species of fieldguide's `source` pool.

    fgbook pretrain            # or: python -m fgbook.pretrain

writes ``weights/small.safetensors`` (the backbone only) and ``weights/small.json``
(what made it, and how good it is) into the package.
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

from .. import paths
from ..backbones.weights import SHIPPED
from ..data import fieldguide
from ..evaluation.classification import metrics
from ..methods import build
from ..recipe import Recipe
from ..training.devices import default_device
from ..training.loop import fit, predict

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
DATA = {
    "size": RECIPE.store_size,
    "pool": "source",
    "species": 100,
    "per_class": (40, 5, 10),
    "seed": 0,
}
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
    data = fieldguide.load(**DATA)
    torch.manual_seed(SEED)
    model = build("plain", data.num_classes, recipe, {})
    run_dir = paths.runs() / f"pretrain-{data.fingerprint}-{epochs}"
    outcome = fit(
        model, data, recipe, run_dir, seed=SEED, device=device, progress=progress
    )

    network = model.backbone.network.cpu()
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        save_file(
            {name: value.contiguous() for name, value in weights.items()},
            Path(scratch) / "small.safetensors",
        )
        network.load_state_dict(load_file(Path(scratch) / "small.safetensors"))
        accuracy = {}
        for split in ("val", "test"):
            found = metrics(
                predict(model, data.split(split), recipe, device=device),
                data.split(split).labels,
                data.num_classes,
            )
            accuracy[split] = {
                name: found[name] for name in ("top1", "top1_low", "top1_high", "n")
            }
        content = (Path(scratch) / "small.safetensors").read_bytes()
        record = {
            "command": "fgbook pretrain",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "parameters": sum(p.numel() for p in network.parameters()),
            "recipe": recipe.as_dict(),
            "seed": SEED,
            "data": {
                **DATA,
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
                "device": device or default_device(),
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
        (Path(scratch) / "small.json").write_text(json.dumps(record, indent=1) + "\n")
        for name in ("small.safetensors", "small.json"):
            # safetensors' files are for their owner only
            os.chmod(Path(scratch) / name, 0o644)
            os.replace(Path(scratch) / name, folder / name)
    return record


if __name__ == "__main__":
    print(json.dumps(pretrain()["accuracy"], indent=1))
