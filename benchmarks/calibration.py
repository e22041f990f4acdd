"""Is fieldguide hard enough for methods to differ? The plain backbone at the quick
profile, three times:

fine-tuned from the shipped weights (wanted: 55 to 85 % on test), trained from scratch
(at least 10 points lower), and fine-tuned on images that were reduced to a quarter of
their side and enlarged again (at least 15 points lower: what tells species apart is
small). Test accuracies with Wilson intervals.

    python benchmarks/calibration.py [--seeds 1] [--weights pretrained]
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from fgbook.data import fieldguide
from fgbook.data.dataset import DataSet, Split
from fgbook.evaluation.classification import wilson
from fgbook.methods import build
from fgbook.papers.feng import PAPER
from fgbook.recipe import Recipe
from fgbook.training.loop import fit, predict

# Everything is new, so everything learns fast; the rate with which the shipped weights
# were trained.
SCRATCH = {
    "weights": "none",
    "optimiser": "adamw",
    "lr": 4e-3,
    "backbone_lr_factor": 1.0,
    "weight_decay": 0.05,
}

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--seeds", type=int, default=1)
parser.add_argument(
    "--weights",
    default="pretrained",
    help="weights to start from: pretrained, or a file",
)


def coarse(split: Split) -> Split:
    """Images averaged over 4 x 4 pixels and enlarged bilinearly."""
    images = split.images.float()
    small = F.avg_pool2d(images, 4)
    return replace(
        split,
        images=F.interpolate(small, images.shape[-1], mode="bilinear")
        .round()
        .to(torch.uint8),
    )


def correct(data: DataSet, recipe: Recipe, seed: int) -> int:
    """How many test images a newly trained model gets right."""
    torch.manual_seed(seed)
    model = build("plain", data.num_classes, recipe, {})
    with tempfile.TemporaryDirectory() as folder:
        outcome = fit(model, data, recipe, Path(folder), seed=seed, progress=False)
    right = int((predict(model, data.test, recipe).argmax(1) == data.test.labels).sum())
    print(
        f"  seed {seed}: validation {100 * outcome.val_top1:.1f} %,"
        f" {outcome.seconds:.1f} s",
        flush=True,
    )
    return right


def main() -> None:
    options = parser.parse_args()
    recipe = PAPER.row("plain").recipes["quick"].but(weights=options.weights)
    data = fieldguide.load(recipe.store_size)
    blurred = replace(
        data, train=coarse(data.train), val=coarse(data.val), test=coarse(data.test)
    )
    n = options.seeds * len(data.test)
    rates = {}
    for name, images, changes in (
        ("fine-tuned", data, {}),
        ("from scratch", data, SCRATCH),
        ("a quarter of the side", blurred, {}),
    ):
        right = sum(
            correct(images, recipe.but(**changes), seed)
            for seed in range(options.seeds)
        )
        low, high = wilson(right, n)
        rates[name] = right / n
        print(
            f"{name:22s} {100 * right / n:5.1f} % test top-1, 95 % interval"
            f" {100 * low:.1f} to {100 * high:.1f}, n = {n}",
            flush=True,
        )
    base = rates["fine-tuned"]
    wanted = {
        "fine-tuned within 55 to 85 %": 0.55 <= base <= 0.85,
        "from scratch at least 10 points lower": base - rates["from scratch"] >= 0.10,
        "a quarter of the side at least 15 points lower": (
            base - rates["a quarter of the side"] >= 0.15
        ),
    }
    for text, held in wanted.items():
        print(f"{'yes' if held else 'NO '} {text}")


if __name__ == "__main__":
    main()
