"""The path of a number: row + data set + profile + seed -> data, model, fit, evaluate, record. Nothing else trains anything.

    record = runs.execute(runs.resolve("feng", "hybrid", profile="photo", dataset="cub50", seed=0))

A run's key is a hash of everything that determines its result. A run whose key has a record is not repeated; one that was stopped goes on from
its checkpoint; two processes on one key take turns, and the second finds the first one's record.
"""

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from . import data, models, papers, paths, records, training
from .data.dataset import DataSet
from .errors import InputError, unknown
from .evaluation import classification, localisation
from .models import backbones
from .papers.spec import PROFILES
from .recipe import Recipe

TUNING_SEED = 1000  # tuning never uses a seed that is reported


@lru_cache(maxsize=2)
def _load(dataset: str, size: int) -> DataSet:
    return data.load(dataset, size)


@dataclass(frozen=True)
class Run:
    """One row, one data set, one seed: all that has to be known to train and measure it."""

    paper: str
    row: str
    profile: str
    dataset: str
    seed: int
    method: str
    options: dict
    recipe: Recipe
    purpose: str = "result"  # "tuning": trained on the training split, measured on validation only
    overrides: dict = field(default_factory=dict)  # what differs from the paper's file

    def data(self) -> DataSet:
        """The data set at the recipe's stored size (kept in memory between runs)."""
        return _load(self.dataset, self.recipe.store_size)

    @cached_property
    def weights(self) -> str:
        """Which pretrained weights the backbone starts from, with their checksum."""
        return backbones.weights_id(self.recipe.backbone, self.recipe.weights)

    @cached_property
    def key(self) -> str:
        """Equal key, equal result (on equal hardware and library versions, which the record names but the key leaves out)."""
        recipe = self.recipe.as_dict()
        recipe.pop("compile")  # another way to the same numbers
        return records.key({
            "method": self.method, "options": self.options, "recipe": recipe, "weights": self.weights, "data": self.data().fingerprint,
            "seed": self.seed, "purpose": self.purpose, "versions": [models.METHODS[self.method].VERSION, training.VERSION],
        })  # fmt: skip

    @property
    def folder(self) -> Path:
        return paths.runs() / self.key

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        words = ["fgbook", "tune" if self.purpose == "tuning" else "run", self.paper, "--row", self.row, "--profile", self.profile]
        words += ["--dataset", self.dataset]
        if self.purpose == "result":
            words += ["--seed", str(self.seed)] + [word for k, v in sorted(self.overrides.items()) for word in ("--set", f"{k}={v}")]
        return " ".join(words)


def resolve(paper: str, row: str, profile: str = "quick", dataset: str | None = None, seed: int = 0, overrides: dict | None = None) -> Run:
    """Look a run up in its paper's file. `overrides` changes fields of the recipe. Raises InputError for unknown names."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    about = papers.get(paper)
    line = about.row(row)
    base = line.recipes[profile]
    recipe = base.but(**(overrides or {}))
    changed = {name: value for name, value in (overrides or {}).items() if value != getattr(base, name)}
    return Run(paper, row, profile, dataset or about.datasets[profile][0], seed, line.method, line.options, recipe, overrides=changed)


def of(record: dict) -> Run:
    """The run that a record came from, by the record's own settings, whatever the paper's file says today."""
    names = ("paper", "row", "profile", "dataset", "seed", "method", "options", "purpose", "overrides")
    return Run(recipe=Recipe.of(record["recipe"]), **{name: record[name] for name in names})


def execute(run: Run, *, device: str | None = None, budget_minutes: float | None = None, progress: bool = True) -> dict | None:
    """The record of a run: found, or made now. None when the time budget ended before the run did; call again to go on."""
    return records.find(run.key) or _execute(run, device, budget_minutes, progress)


def rows(paper: str, rows: list[str] | None = None, profile: str = "quick", dataset: str | None = None, seeds: int | list[int] = 1, *,
         overrides: dict | None = None, device: str | None = None, budget_minutes: float | None = None, progress: bool = True) -> list[dict]:  # fmt: skip
    """Records of several rows (None: all) over seeds (a count, or a list), seed by seed, so that a cut-off series is still comparable.

    When the time budget ends first, the records that are there.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    names = rows or [row.name for row in papers.get(paper).rows]
    todo = [resolve(paper, name, profile, dataset, seed, overrides) for seed in numbers for name in names]  # refuse wrong names before training
    end = time.monotonic() + 60 * budget_minutes if budget_minutes else None
    found = []
    for run in todo:
        left = (end - time.monotonic()) / 60 if end else None
        over = left is not None and left <= 0
        record = records.find(run.key) if over else execute(run, device=device, budget_minutes=left, progress=progress)
        if record is not None:
            found.append(record)
    return found


def tune(paper: str, row: str, profile: str, dataset: str | None = None, *, device: str | None = None, progress: bool = True) -> list[dict]:
    """Try the changes that the paper's file lists for a row, on validation; records of the tries, best first. The test split is not touched."""
    about = papers.get(paper)
    line, tuning = about.row(row), about.tuning.get(profile)
    if tuning is None or row not in tuning.tries:
        raise InputError(f"{paper} lists no tuning for row {row!r} at profile {profile!r}; add it to fgbook/papers/{paper}.py.")
    found = []
    for change in tuning.tries[row]:
        recipe = tuning.base.but(train_on="train", **{name: value for name, value in change.items() if name != "options"})
        options = {**line.options, **change.get("options", {})}
        run = Run(paper, row, profile, dataset or about.datasets[profile][0], TUNING_SEED, line.method, options, recipe, "tuning", change)
        found.append(execute(run, device=device, progress=progress))
    return sorted(found, key=lambda record: -record["metrics"]["val"]["top1"])


def model(run: Run, *, device: str | None = None, progress: bool = True) -> tuple[nn.Module, DataSet]:
    """The trained model of a run, in evaluation mode, and its data. Trains it when only its record is here (weights are not published)."""
    if not (run.folder / "model.safetensors").is_file():
        _execute(run, device, None, progress)
    dataset = run.data()
    network = models.build(run.method, dataset.num_classes, run.recipe.but(weights="none"), run.options)
    network.load_state_dict(load_file(run.folder / "model.safetensors"))
    return network.eval().to(device or training.default_device()), dataset


def _execute(run: Run, device: str | None, budget_minutes: float | None, progress: bool) -> dict | None:
    with _turn(run.key):
        kept = run.folder / "record.json"
        if kept.is_file() and (run.folder / "model.safetensors").is_file():
            return records.load(kept)
        dataset, commit = run.data(), records.commit()  # now: the clone may change while the run goes on
        torch.manual_seed(run.seed)  # initial heads, dropout
        network = models.build(run.method, dataset.num_classes, run.recipe, run.options)
        outcome = training.fit(network, dataset, run.recipe, run.folder, seed=run.seed, device=device, budget_minutes=budget_minutes, progress=progress)
        return _measure(run, network, outcome, device, commit) if outcome.finished else None


@contextmanager
def _turn(key: str):
    """Held while a run is trained and measured. A second process on the same key says so, and waits."""
    folder = paths.runs() / "locks"
    lock = FileLock(folder / f"{key}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"run {key} is being made by another process; waiting for it.", flush=True)
        lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write in {paths.runs()}: {error.strerror}; set FGBOOK_RUNS to a folder that can be written.") from error
    try:
        yield
    finally:
        lock.release()


def _measure(run: Run, network: nn.Module, outcome: training.Outcome, device: str | None, commit: dict) -> dict:
    """Evaluate a trained model and save its record."""
    dataset, recipe = run.data(), run.recipe
    metrics: dict = {"val": None, "test": None}
    where, predictions = None, None
    if recipe.train_on == "train":
        metrics["val"] = classification.metrics(training.predict(network, dataset.val, recipe, device=device), dataset.val.labels, dataset.num_classes)
    if run.purpose == "result":
        probabilities = training.predict(network, dataset.test, recipe, device=device)
        metrics["test"] = classification.metrics(probabilities, dataset.test.labels, dataset.num_classes)
        confidence, prediction = probabilities.max(1)
        predictions = {
            "prediction": prediction.numpy().astype(np.uint16),
            "confidence": confidence.numpy().astype(np.float16),
            "label": dataset.test.labels.numpy().astype(np.uint16),
        }
        if hasattr(network, "regions") and dataset.test.boxes is not None:
            where = localisation.measure(network, dataset.test, recipe)
    parameters, flops = size(network, recipe.image_size)
    record = {
        "key": run.key, "purpose": run.purpose, "paper": run.paper, "row": run.row, "method": run.method, "options": run.options,
        "profile": run.profile, "dataset": run.dataset, "seed": run.seed, "recipe": recipe.as_dict(), "overrides": run.overrides,
        "weights": run.weights, "data_fingerprint": dataset.fingerprint, "num_classes": dataset.num_classes,
        "images": {"train": len(dataset.train) + (len(dataset.val) if recipe.train_on == "train+val" else 0), "val": len(dataset.val), "test": len(dataset.test)},
        "metrics": metrics, "localisation": where, "parameters": parameters, "flops": flops,
        "train": {"epochs": outcome.epochs, "best_epoch": outcome.best_epoch, "steps": outcome.steps, "seconds": round(outcome.seconds, 1)},
        "hardware": records.hardware(device or training.default_device()), "versions": records.versions(), **commit,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": run.command,
        "printed": papers.get(run.paper).printed(run.row, run.dataset),
    }  # fmt: skip
    return records.save(record, predictions, run.folder / "record.json")


def size(network: nn.Module, image_size: int) -> tuple[int, int]:
    """Trainable and fixed parameters, and floating-point operations (2 a multiply-add) of predicting one square image of that side."""
    network = network.eval()
    image = torch.rand(1, 3, image_size, image_size, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.predict(image)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops()
