"""What records say of a row: which of them count, mean accuracy and its interval, and
the conditions under which they were made.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import count
from ..evaluation.cost import Cost
from ..evaluation.latency import Latency
from ..evidence import verdicts
from ..evidence.current import counted
from .base import between, distinct, measured


def unchanged(found: Iterable[dict]) -> list[dict]:
    """The records that stand for rows of their papers: made as the paper's file has the
    row now, with seeds fixed beforehand; other fields of the recipe are allowed (a
    reader's short runs), other options of the method are not, because these illustrate
    a question of their own.
    """
    # Older records do not know the field: nothing could be changed then.
    kept = [record for record in found if not record.get("option_changes")]
    return counted(kept).records


def left_out(found: Iterable[dict]) -> str:
    """What :func:`unchanged` leaves out, as the end of a caption."""
    said = counted(found).left_out()
    return f" {said}" if said else ""


def of_row(found: Iterable[dict], name: str | None) -> list[dict]:
    """The records of one row, one a seed."""
    # which of them count, all records tell together
    return [record for record in unchanged(found) if record["row"] == name]


def by_row(found: Iterable[dict], names: Iterable[str]) -> dict[str, list[dict]]:
    """Name -> records, for those of the rows `names` that have any, in their order."""
    kept = unchanged(found)
    rows = {name: of_row(kept, name) for name in names}
    return {name: records for name, records in rows.items() if records}


def is_quick(found: Iterable[dict]) -> bool:
    """Whether a table of these records illustrates and must not decide."""
    return any(record["profile"] == "quick" for record in found)


# ---- conditions


def setting(found: Sequence[dict]) -> str:
    """Under what conditions records were made, in one sentence: data set, network,
    image size, length, seeds, hardware. Differing values stand side by side.
    """
    if not found:
        return "Not run yet."
    parts = (
        distinct(_data(found)),
        distinct(_network(record) for record in found),
        distinct(count(record["train"]["epochs"], "epoch") for record in found),
        count(len({record["seed"] for record in found}), "seed"),
        distinct(hardware(record) for record in found),
    )
    return ", ".join(parts) + "."


def _data(found: Sequence[dict]) -> Iterator[str]:
    """Each data set with its numbers of classes and images; of rows that train on parts
    of the images, the smallest number and the largest.
    """
    training: dict[tuple[str, int, int], list[int]] = {}
    for record in found:
        name = record["dataset"]
        if name.startswith("folder:"):  # the whole path stands in the command
            name = f"folder {Path(name).name}"
        place = name, record["num_classes"], record["images"]["test"]
        training.setdefault(place, []).append(record["images"]["train"])
    for (name, classes, test), numbers in training.items():
        train = " to ".join(map(str, sorted({min(numbers), max(numbers)})))
        yield f"{name}: {classes} classes, {train} training and {test} test images"


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


def accuracy(
    found: Sequence[dict], among: Iterable[dict], metric: str = "top1"
) -> tuple[float, float, float]:
    """Mean accuracy of the records of one row (one a seed) in percent, and its 95 %
    interval; `metric`: "top1", or "low_top1" at low resolution; `among`: the records of
    all rows, which tell how much trainings differ.

    The interval covers seeds and test images, as verdicts do; with one seed it is the
    Wilson interval, which covers test images only.
    """
    return verdicts.accuracy(found, metric, among)


def accuracy_cells(
    found: Sequence[dict], among: Iterable[dict], metric: str = "top1"
) -> tuple[str, str]:
    """:func:`accuracy` of the records of one row, and its interval, as HTML."""
    mean, low, high = accuracy(found, among, metric)
    return (
        measured(f"{mean:.1f}", metric, found),
        measured(between(low, high), f"{metric} interval", found),
    )


def image_mean(found: Sequence[dict], metric: str) -> float:
    """Mean of a metric over the records and the images for which it is known."""
    values = [verdicts.per_image(record, metric).astype(float) for record in found]
    return float(np.nanmean(values))
