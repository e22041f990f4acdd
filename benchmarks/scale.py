"""What the whole paper profile would take: every row of every paper on every data set
that its paper names, with 5 seeds.

    python benchmarks/scale.py [--gpu-tflops 100] [--seeds 5]

Operations are counted: those of predicting one image (fgbook.evaluation.cost), three
times that for learning from it (forward, and twice as much backward), once for each
training image and epoch, and once for each test image. Rows that share a run count
once; images mixed, viewed several times or kept as maps of a frozen backbone count as
images. What a processor does a second is measured: the same operations over the seconds
of training, the median of the published records of networks that learn as a whole.
(With a part frozen, more is counted than done.) These networks are small: larger ones
do more a second. What a GPU does a second is an assumption, given by --gpu-tflops (an
H100 does about 1000 in bf16 at best; networks like these reach a tenth of that).
"""

import argparse
import json
import statistics
from functools import lru_cache

import common
import torch

from fgbook import methods, papers
from fgbook.data import aircraft, cars, cub, dogs
from fgbook.errors import InputError
from fgbook.evaluation import cost
from fgbook.evidence import records
from fgbook.papers.spec import Paper, Row

LEARNING = 3  # times a prediction
WHOLE = ("plain", "simple")  # methods of one pass, without anything beside the network
ATTRIBUTES = 312  # of a class of CUB, for methods that use them
HOUR = 3600.0
COUNTED: dict[str, int] = {}


@lru_cache(maxsize=1)
def official() -> dict[str, tuple[int, int, int]]:
    """Training images (with those for validation), test images and classes of the sets
    of the paper profile, which need not be here.
    """
    sets = {"cub": cub.OFFICIAL["cub"], "cars": cars.OFFICIAL}
    sets["aircraft"] = aircraft.OFFICIAL
    found: dict[str, tuple[int, int, int]] = {}
    for name, about in sets.items():
        train = about["train"] + about.get("val", 0)
        found[name] = train, about["test"], about["classes"]
        found[f"{name}-cropped"] = found[name]
    found["dogs21"] = dogs.TRAIN + dogs.VALIDATION, dogs.TEST, dogs.BREEDS
    return found


def operations(row: Row, dataset: str) -> float:
    """Floating-point operations of a run of a row at the paper profile."""
    recipe = row.recipes["paper"]
    train, test, classes = official()[dataset]
    learnt = LEARNING * train * recipe.fraction * recipe.epochs
    return of_an_image(row, classes) * (learnt + test)


def of_an_image(row: Row, classes: int) -> int:
    """Floating-point operations of predicting one, counted once for all rows alike."""
    recipe = row.recipes["paper"]
    settings = [row.method, row.options, recipe.backbone, recipe.image_size, classes]
    key = json.dumps(settings, sort_keys=True)
    if key not in COUNTED:
        attributes = torch.rand(classes, ATTRIBUTES)
        untrained = recipe.but(weights="none")
        network = methods.build(row.method, classes, untrained, row.options, attributes)
        _, COUNTED[key] = cost.size(network, recipe.image_size)
    return COUNTED[key]


def grid(paper: Paper, known: set[str]) -> tuple[int, float]:
    """Runs of a paper with one seed that are not `known` yet, and their operations;
    rows whose settings are equal share a run.
    """
    runs, total = 0, 0.0
    for row in paper.rows_at("paper"):
        for dataset in paper.datasets["paper"]:
            determinants = row.recipes["paper"].determinants()
            settings = [row.method, row.options, row.after, dataset]
            key = records.key({"recipe": determinants, "settings": settings})
            if key in known:
                continue
            known.add(key)
            runs += 1
            total += operations(row, dataset)
    return runs, total


def measured() -> tuple[float, int]:
    """Operations a second of training: the median of the published records that tell,
    and their number.
    """
    speeds = []
    for record in records.published():
        if tells(record):
            seconds = record["train"]["seconds"]
            images = record["train"]["steps"] * record["recipe"]["batch_size"]
            speeds.append(LEARNING * record["flops"] * images / seconds)
    if not speeds:
        raise InputError(
            "there is no published record of a network that was trained as a whole on"
            " one thread of a processor."
        )
    return statistics.median(speeds), len(speeds)


def tells(record: dict) -> bool:
    """Whether all operations that are counted were done: on one thread of a processor,
    with no part frozen.
    """
    hardware, recipe = record["hardware"], record["recipe"]
    alone = hardware["device"] == "cpu" and hardware["threads"] == 1
    frozen = recipe.get("frozen_stages", 0) or not recipe["backbone_lr_factor"]
    whole = record["method"] in WHOLE and not frozen
    return bool(alone and whole and record["train"]["seconds"])


def main() -> None:
    """Count, print, save."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--papers", nargs="+", default=papers.names(), choices=papers.names()
    )
    parser.add_argument("--gpu-tflops", type=float, default=100.0)
    chosen = parser.parse_args()
    speed, count = measured()
    report = common.Report(
        "scale",
        f"The whole paper profile with {chosen.seeds} seeds",
        "cpu",
        ["paper", "runs", "EFLOP", "hours of one GPU", "years of one thread"],
        layout="counted",
        seeds=chosen.seeds,
        gpu_tflops=chosen.gpu_tflops,
        thread_gflops=round(speed / 1e9, 1),
        records=count,
    )
    known: set[str] = set()
    all_runs, everything = 0, 0.0
    for name in chosen.papers:
        runs, total = grid(papers.get(name), known)
        all_runs, everything = all_runs + runs, everything + total
        line(report, name, chosen, runs, total, speed)
    line(report, "all", chosen, all_runs, everything, speed)
    report.ratio(
        "threads of this processor that such a GPU replaces",
        chosen.gpu_tflops * 1e12 / speed,
    )
    report.finish(chosen.save)


def line(
    report: common.Report,
    name: str,
    chosen: argparse.Namespace,
    runs: int,
    total: float,
    speed: float,
) -> None:
    """A row of the table, of runs with one seed."""
    total *= chosen.seeds
    on_gpu = total / (chosen.gpu_tflops * 1e12) / HOUR
    years = total / speed / HOUR / 24 / 365.25
    report.row(name, runs * chosen.seeds, total / 1e18, on_gpu, years)


if __name__ == "__main__":
    main()
