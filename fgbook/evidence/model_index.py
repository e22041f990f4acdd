"""The published rows in the form of `model-index.yml`, which sites that collect results
read (OpenMMLab's and Papers with Code's): a collection a paper, a model a row and data
set, its mean accuracy over seeds. What that form has no place for (interval, seeds,
keys of records, command) stands beside it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from .. import papers, paths
from . import records
from .current import counted
from .verdicts import accuracy


def model_index(found: Sequence[dict]) -> dict[str, Any]:
    """From published records: those that count, and of no quick run."""
    kept = []
    for record in counted(found).records:
        is_result = record["purpose"] == "result" and record["profile"] != "quick"
        if is_result and records.own(record):
            kept.append(record)
    named = [name for name in papers.names() if _of(kept, paper=name)]
    collections, models = [], []
    for name in named:
        about = papers.get(name)
        collections.append(
            {"Name": name, "Paper": {"Title": about.title, "Authors": about.authors}}
        )
        mine = _of(kept, paper=name)
        for row in about.rows:
            of_row = _of(mine, row=row.name)
            for profile, dataset in _places(of_row):
                place = {"profile": profile, "dataset": dataset}
                models.append(_model(_of(of_row, **place), _of(mine, **place)))
    return {"Collections": collections, "Models": models}


def _of(found: Iterable[dict], **wanted: str) -> list[dict]:
    return [r for r in found if all(r[name] == v for name, v in wanted.items())]


def _places(found: Sequence[dict]) -> list[tuple[str, str]]:
    return sorted({(record["profile"], record["dataset"]) for record in found})


def _model(rows: list[dict], among: list[dict]) -> dict[str, Any]:
    """One entry: the records of a row at one profile and data set, one a seed."""
    rows = sorted(rows, key=lambda record: record["seed"])
    first = rows[0]
    mean, low, high = accuracy(rows, "top1", among)
    seconds = [record["train"]["seconds"] for record in rows]
    name = "-".join(first[part] for part in ("paper", "row", "dataset", "profile"))
    return {
        "Name": name,
        "In Collection": first["paper"],
        "Metadata": {
            "Method": first["method"],
            "Backbone": first["recipe"]["backbone"],
            "Training Data": first["dataset"],
            "Training Images": first["images"]["train"],
            "Epochs": first["train"]["epochs"],
            "Image Size": first["recipe"]["image_size"],
            "Parameters": first["parameters"],
            "FLOPs": first["flops"],
            "Training Minutes": round(sum(seconds) / len(seconds) / 60, 2),
        },
        "Results": [
            {
                "Task": "Image Classification",
                "Dataset": first["dataset"],
                "Metrics": {
                    "Top 1 Accuracy": round(mean, 1),
                    "95 % Interval": [round(low, 1), round(high, 1)],
                    "Test Images": first["images"]["test"],
                    "Seeds": len(rows),
                },
            }
        ],
        "Records": [record["key"] for record in rows],
        "Command": first["command"],
        "Code": f"{paths.address()}/tree/main/fgbook/methods",
    }
