"""What records say of a row: which of them count, mean accuracy and its interval, and
the conditions under which they were made.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..evaluation import classification
from ..evaluation.cost import Cost
from ..evaluation.latency import Latency
from ..evidence import verdicts
from .base import between, count, distinct, measured


def unchanged(found: Iterable[dict]) -> list[dict]:
    """The records whose method has the options of the paper's file: one with others
    illustrates a question of its own, and stands for no row of the paper.
    """
    # Older records do not know the field: nothing could be changed then.
    return [record for record in found if not record.get("option_changes")]


def of_row(found: Iterable[dict], name: str | None) -> list[dict]:
    """The records of one row, one a seed."""
    return [record for record in unchanged(found) if record["row"] == name]


def by_row(found: Iterable[dict], names: Iterable[str]) -> dict[str, list[dict]]:
    """Name -> records, for those of the rows `names` that have any, in their order."""
    kept = unchanged(found)
    rows = {name: of_row(kept, name) for name in names}
    return {name: records for name, records in rows.items() if records}


def is_quick(found: Iterable[dict]) -> bool:
    """Whether a table of these records illustrates and must not decide."""
    return any(record["profile"] == "quick" for record in found)


def shared_seeds(first: Iterable[dict], second: Iterable[dict]) -> set[int]:
    """The seeds that both rows were run with: only these can be compared."""
    return {record["seed"] for record in first} & {record["seed"] for record in second}


def with_seeds(found: Iterable[dict], seeds: set[int]) -> list[dict]:
    """The records of those seeds."""
    return [record for record in found if record["seed"] in seeds]


# ---- conditions


def setting(found: Sequence[dict]) -> str:
    """Under what conditions records were made, in one sentence: data set, network,
    image size, length, seeds, hardware. Differing values stand side by side.
    """
    if not found:
        return "Not run yet."
    parts = (
        distinct(_data(record) for record in found),
        distinct(_network(record) for record in found),
        distinct(count(record["train"]["epochs"], "epoch") for record in found),
        count(len({record["seed"] for record in found}), "seed"),
        distinct(hardware(record) for record in found),
    )
    return ", ".join(parts) + "."


def _data(record: dict) -> str:
    images = record["images"]
    return (
        f"{record['dataset']}: {record['num_classes']} classes,"
        f" {images['train']} training and {images['test']} test images"
    )


def _network(record: dict) -> str:
    recipe = record["recipe"]
    name = recipe["backbone"].replace("none", "own network")
    return f"{name} at {recipe['image_size']} px"


def hardware(record: dict) -> str:
    """The accelerator, or the processor with the number of cores used."""
    about = record["hardware"]
    if about.get("gpu"):
        return about["gpu"]
    return f"{about['cpu']} ({about['threads']} of {count(about['cores'], 'core')})"


def measured_where(timed: Iterable[Cost | Latency], machine: dict) -> str:
    """Where times come from, as a part of a sentence. `machine`: from
    ``records.hardware``.
    """
    threads = distinct(one.threads for one in timed)
    return (
        f"measured by the notebook that drew this: {hardware({'hardware': machine})},"
        f" torch with {threads} thread{'' if threads == '1' else 's'}"
    )


# ---- accuracy


def accuracy(found: Sequence[dict], metric: str = "top1") -> tuple[float, float, float]:
    """Mean accuracy of the records of one row (one a seed) in percent, and its 95 %
    interval; `metric`: "top1", or "low_top1" at low resolution.

    The interval covers seeds and test images, as verdicts do; with one seed it is the
    Wilson interval, which covers test images only.
    """
    return share(np.stack([verdicts.per_image(record, metric) for record in found]))


def share(right: NDArray) -> tuple[float, float, float]:
    """:func:`accuracy` from answers (S, N) bool of S seeds on N images."""
    if len(right) == 1:
        low, high = classification.wilson(int(right.sum()), right.size)
        return 100 * float(right.mean()), 100 * low, 100 * high
    mean, half = verdicts.interval(100.0 * right, 100)
    return float(mean), max(0.0, float(mean - half)), min(100.0, float(mean + half))


def accuracy_cells(found: Sequence[dict], metric: str = "top1") -> tuple[str, str]:
    """:func:`accuracy` of the records of one row, and its interval, as HTML."""
    mean, low, high = accuracy(found, metric)
    return (
        measured(f"{mean:.1f}", metric, found),
        measured(between(low, high), f"{metric} interval", found),
    )


def image_mean(found: Sequence[dict], metric: str) -> float:
    """Mean of a metric over the records and the images for which it is known."""
    values = [verdicts.per_image(record, metric).astype(float) for record in found]
    return float(np.nanmean(values))
