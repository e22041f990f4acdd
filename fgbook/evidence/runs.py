"""The path of a number: row + data set + profile + seed -> data, model, fit, evaluate,
record. Nothing else trains anything.

    run = runs.resolve("feng", "hybrid", profile="photo", dataset="cub50", seed=0)
    record = runs.execute(run)

A run whose key has a record is not repeated; one that was stopped goes on from its
checkpoint; two jobs on one key take turns, and the second finds the first one's record.
A file of a run that was damaged is noticed when it is read, and made again. Where a job
has several processes (torchrun, accelerate launch) all of them call the same functions
and get the same records; the first looks, decides and writes.

How a row becomes a run stands in :mod:`fgbook.evidence.plan`, what is measured in
:mod:`fgbook.evidence.measures`, and what a model needs to be used elsewhere in
:mod:`fgbook.evidence.models`.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from .. import methods, papers, paths
from ..data.dataset import DataSet
from ..errors import InputError, unfinished
from ..methods import Method
from ..training import devices, features, loop
from . import measures, models, records
from .plan import Run, _load, of, planned, resolve

__all__ = [
    "Run",
    "Way",
    "_load",  # tests clear its memory
    "execute",
    "load_model",
    "model",
    "of",
    "planned",
    "resolve",
    "rows",
    "under_its_name",
]


# ---- from runs to records


@dataclass(frozen=True)
class Way:
    """How runs are made; nothing here changes a result."""

    device: str | None = None
    end: float | None = None  # of the time budget, on time.monotonic's clock
    progress: bool = True
    tensorboard: bool = False

    def minutes_left(self) -> float | None:
        """Of the time budget; None without one."""
        return None if self.end is None else (self.end - time.monotonic()) / 60


def _end(budget_minutes: float | None) -> float | None:
    return None if budget_minutes is None else time.monotonic() + 60 * budget_minutes


def execute(
    run: Run,
    *,
    device: str | None = None,
    budget_minutes: float | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    train: bool = False,
) -> dict | None:
    """The record of a run: found, or made now. None when the time budget ended before
    the run did; call again to go on.

    `train`: a record alone does not do (weights are not published): the model is
    trained where its weights are not here.
    """
    way = Way(device, _end(budget_minutes), progress, tensorboard)
    return _find_or_make(run, way, train)


def rows(
    paper: str,
    rows: list[str] | None = None,
    profile: str = "quick",
    dataset: str | None = None,
    seeds: int | list[int] = 1,
    *,
    overrides: dict | None = None,
    options: dict | str | None = None,
    device: str | None = None,
    budget_minutes: float | None = None,
    progress: bool = True,
    tensorboard: bool = False,
    train: bool = False,
) -> list[dict]:
    """Records of several rows (None: all) over seeds (a count, or a list), seed by
    seed, so that a cut-off series is still comparable.

    When the time budget ends first, the records that are there, with a warning.
    `options` of the
    method by name, or as a person types them: "m=4 box=0.3". All else as for
    :func:`resolve` and :func:`execute`.
    """
    todo = planned(paper, rows, profile, dataset, seeds, overrides, options)
    way = Way(device, _end(budget_minutes), progress, tensorboard)
    found = []
    for run in todo:
        left = devices.agree(way.minutes_left, device)
        if left is not None and left <= 0:
            record = _find(run, device, train)
        else:
            record = _find_or_make(run, way, train)
        if record is not None:
            found.append(record)
    if len(found) < len(todo) and devices.first():
        records.warn(unfinished(len(found), len(todo)))
    return found


def _find(run: Run, device: str | None, train: bool) -> dict | None:
    """A record that is there; with `train`, of a run whose model is too."""
    record = devices.agree(lambda: records.find(run.key), device)
    if record is None or (train and not _is_usable(run, device)):
        return None
    return under_its_name(run, record)


def _find_or_make(run: Run, way: Way, train: bool) -> dict | None:
    record = _find(run, way.device, train)
    if record is not None and way.tensorboard and devices.first():
        records.warn(
            f"run {run.key} is done: nothing is written for TensorBoard, which follows"
            " a run that trains."
        )
    if record is None:
        record = _make(run, way)
    return None if record is None else under_its_name(run, record)


def under_its_name(run: Run, record: dict) -> dict:
    """A record as it was asked for: rows, also of several papers, share a run when
    their keys are equal.
    """
    name = {
        "paper": run.paper,
        "row": run.row,
        "profile": run.profile,
        "dataset": run.dataset,
        "overrides": run.overrides,
        "option_changes": run.option_changes,
    }
    if all(record.get(each, {}) == value for each, value in name.items()):
        return record
    printed = papers.get(run.paper).printed(run.row, run.dataset)
    return {**record, **name, "command": run.command, "printed": printed}


def _has_weights(run: Run, device: str | None) -> bool:
    return devices.agree(lambda: models.has_weights(run.folder), device)


def _is_usable(run: Run, device: str | None) -> bool:
    """Whether its model is here, and can be used without its data."""
    described = devices.agree(lambda: models.is_described(run.folder), device)
    return described and _has_weights(run, device)


def _make(run: Run, way: Way) -> dict | None:
    """The record of a run whose weights are here too, made where they are not; the
    stages before come first. None when the time budget ended.
    """
    before = run.after
    if before and not _has_weights(before, way.device) and not _make(before, way):
        return None

    with _turn(run.key, way) as mine:
        if not mine:
            return None
        if not devices.agree(lambda: models.is_described(run.folder), way.device):
            about = models.describe(run, run.data())
            devices.agree(lambda: models.write(run.folder, about), way.device)
        # another process may have been faster
        record = devices.agree(lambda: _finished(run), way.device)
        if record is None:
            record = _train_and_measure(run, way)
        return record


def _finished(run: Run) -> dict | None:
    """The record of a run of which all files are here and whole. Weights that are not,
    or whose log is not, are removed, so that training begins anew.
    """
    weights = run.folder / models.WEIGHTS
    if not models.has_weights(run.folder):
        weights.unlink(missing_ok=True)
        return None
    record = records.find_fresh(run.key)
    if record is None:
        try:
            _log(run)
        except InputError as error:
            records.warn(f"{error} It is trained again.")
            weights.unlink()
    return record


def _train_and_measure(run: Run, way: Way) -> dict | None:
    commit = records.commit()  # now: the clone may change while the run goes on
    dataset = run.data()
    torch.manual_seed(run.seed)  # initial heads, dropout
    network = methods.build(
        run.method,
        dataset.num_classes,
        run.recipe,
        run.options,
        dataset.class_attributes,
    )
    part = models.trained_part(network)
    if run.after:
        models.put(part, run.after.folder / models.WEIGHTS)
    seen = _seen(run, network, dataset, way.device)

    outcome = loop.fit(
        part,
        seen,
        run.recipe,
        run.folder,
        seed=run.seed,
        device=way.device,
        budget_minutes=way.minutes_left(),
        progress=way.progress,
        tensorboard=way.tensorboard,
    )
    if not outcome.finished:
        return None

    trained = measures.Trained(run, network, part, dataset, seen, way.device)
    found = measures.measure(trained)
    record = _record(trained, outcome, found) | commit
    path = run.folder / "record.json"
    return devices.agree(
        lambda: records.save(record, found.arrays or None, path), way.device
    )


def _seen(run: Run, network: Method, dataset: DataSet, device: str | None) -> DataSet:
    """What the trained part sees: the images, or the feature maps that a frozen
    backbone makes of them, once.
    """
    if not network.frozen_backbone:
        return dataset
    whole = run.look.load(run.dataset, run.recipe.store_size)
    maps = features.cached(network.backbone, whole, run.recipe, run.weights, device)
    return maps.part(run.recipe.fraction)


@contextmanager
def _turn(key: str, way: Way) -> Iterator[bool]:
    """Held while a run is trained and measured. A second job on the same key says so,
    and waits; False where its time budget ends meanwhile. Of several processes the
    first holds it.
    """
    device = way.device
    folder = paths.runs() / "locks"
    lock = FileLock(folder / f"{key}.lock")

    def acquire(seconds: float) -> bool:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=seconds)
            return True
        except Timeout:
            return False
        except OSError as error:
            raise InputError(
                f"cannot write in {paths.runs()}: {error.strerror}; set FGBOOK_RUNS to"
                " a folder that can be written."
            ) from error

    if not devices.agree(lambda: acquire(0), device):
        if devices.first():
            print(
                f"run {key} is being made by another process; waiting for it.",
                flush=True,
            )
        # a message now and then: processes that hear nothing for long give up
        while True:
            left = devices.agree(way.minutes_left, device)
            seconds = 60 if left is None else min(60, 60 * left)
            if seconds <= 0:
                yield False
                return
            if devices.agree(partial(acquire, seconds), device):
                break
    try:
        yield True
    finally:
        lock.release()


# ---- what a record says


def _record(
    trained: measures.Trained, outcome: loop.Outcome, found: measures.Found
) -> dict:
    """All fields of a record but those of its files and of the clone."""
    from ..evaluation import cost

    run, dataset = trained.run, trained.dataset
    device = trained.device or devices.default_device()
    log = _log(run)
    learnt_from = len(dataset.train)
    if run.recipe.train_on == "train+val":
        learnt_from += len(dataset.val)
    parameters, flops = cost.size(trained.network, run.recipe.image_size)
    return {
        "key": run.key,
        "purpose": run.purpose,
        "paper": run.paper,
        "row": run.row,
        "method": run.method,
        "method_version": methods.METHODS[run.method].VERSION,
        "loop_version": loop.VERSION,
        "measures_version": measures.VERSION,
        "options": run.options,
        "profile": run.profile,
        "dataset": run.dataset,
        "seed": run.seed,
        "recipe": run.recipe.as_dict(),
        "overrides": run.overrides,
        "option_changes": run.option_changes,
        "weights": run.weights,
        "data_fingerprint": dataset.fingerprint,
        "num_classes": dataset.num_classes,
        "images": {
            "train": learnt_from,
            "val": len(dataset.val),
            "test": len(dataset.test),
        },
        "after": run.after.key if run.after else None,
        "metrics": found.metrics,
        "localisation": found.localisation,
        "parameters": parameters,
        "flops": flops,
        "train": {
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 1),
            "losses": [_rounded(line["losses"]) for line in log],
            # of each epoch; None where nothing was held out
            "val_top1": [line.get("val_top1") for line in log],
            "clipped": outcome.clipped,
            "clip_coefficient": outcome.clip_coefficient,
        },
        "hardware": records.hardware(device)
        | {
            "frozen_precision": devices.frozen_precision(
                run.recipe, torch.device(device)
            )
        },
        "versions": records.versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": run.command,
        "printed": papers.get(run.paper).printed(run.row, run.dataset),
    }


def _log(run: Run) -> list[dict]:
    """The training's log, a line an epoch. Raises InputError where it is damaged or an
    epoch is not there.
    """
    path = run.folder / "log.jsonl"
    found = []
    try:
        for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
            line = json.loads(text)
            if line["epoch"] != number:
                raise ValueError(f"epoch {number} is missing")
            _rounded(line["losses"])
            found.append(line)
        if not found:
            raise ValueError("it is empty")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}).") from error
    return found


def _rounded(losses: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in losses.items()}


# ---- trained models


def model(
    run: Run, *, device: str | None = None, progress: bool = True
) -> tuple[Method, DataSet]:
    """The trained model of a run, in evaluation mode, and its data. Trains it when only
    its record is here (weights are not published).
    """
    if not _has_weights(run, device):
        _make(run, Way(device, progress=progress))
    dataset = run.data()
    return models.build(models.describe(run, dataset), run.folder, device), dataset


def load_model(
    folder_or_key: str | Path, device: str | None = None
) -> tuple[Method, dict]:
    """A trained model, in evaluation mode, from a run's folder (also a copy of it,
    anywhere) or key; and what its model.json says: ``classes``, their names in the
    order of the logits; ``recipe``, which has the sizes and the resolution of its
    images; and more, see :func:`fgbook.evidence.models.describe`.

    Neither the training images nor the paper's file are needed. Raises InputError where
    the weights are not here or damaged, with the command that trains them.
    """
    folder = models.folder_of(folder_or_key)
    try:
        about = models.read(folder)
    except InputError as error:
        about = _described_by_record(folder, error)
    models.check_weights(folder, about)
    return models.build(about, folder, device), about


def _described_by_record(folder: Path, reason: InputError) -> dict:
    """What model.json would say of a run that was made before there was one, or whose
    own is damaged. The class names are the data set's, if it still is what it was.
    """
    record = _record_of(folder)
    if record is None:
        raise InputError(f"{reason} Run its row again.") from reason
    models.check_weights(folder, record)
    try:
        made = of(record)
        if made.key != record["key"]:
            raise InputError("Its data set, or this package, has changed since.")
        about = models.describe(made, made.data())
    except InputError as error:
        raise InputError(
            f"{reason} {error} Make the run again with"
            f" `{models.train_command(record)}`."
        ) from error
    models.write(folder, about)
    return about


def _record_of(folder: Path) -> dict | None:
    """The record of the run whose folder, or a copy of it, this is."""
    path = folder / "record.json"
    if path.is_file():
        return records.load(path)
    return records.find(folder.name) if models.is_key(folder.name) else None
