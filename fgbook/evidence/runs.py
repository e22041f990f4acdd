"""The path of a number: row + data set + profile + seed -> data, model, fit, evaluate,
    record. Nothing else trains anything.

    record = runs.execute(runs.resolve("feng", "hybrid", profile="photo",
    dataset="cub50", seed=0))

A run's key is a hash of everything that determines its result. A run whose key has a
record is not repeated; one that was stopped goes on from its checkpoint; two jobs on
one key take turns, and the second finds the first one's record. Where a job has several
processes (torchrun, accelerate launch) all of them call the same functions and get the
same records; the first looks, decides and writes.
"""

import json
import shlex
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

from .. import backbones, data, methods, papers, paths
from ..data.dataset import DataSet
from ..errors import InputError, unknown
from ..evaluation import (
    classification,
    cost,
    explanation,
    heatmaps,
    localisation,
    restoration,
    robustness,
)
from ..papers.spec import PROFILES
from ..recipe import Recipe
from ..training import devices, features, loop
from . import records

TUNING_SEED = 1000  # tuning never uses a seed that is reported


@lru_cache(maxsize=2)
def _load(dataset: str, size: int) -> DataSet:
    return data.load(dataset, size)


@dataclass(frozen=True)
class Run:
    """One row, one data set, one seed: all that has to be known to train and measure
    it."""

    paper: str
    row: str
    profile: str
    dataset: str
    seed: int
    method: str
    options: dict
    recipe: Recipe
    # "tuning": trained on the training split, measured on validation only
    purpose: str = "result"
    overrides: dict = field(default_factory=dict)  # what differs from the paper's file
    # the stage before this one, whose trained weights this one starts from
    after: "Run | None" = None

    def data(self) -> DataSet:
        """The data set at the recipe's stored size (kept in memory between runs), with
        the recipe's part of the training images."""
        found = _load(self.dataset, self.recipe.store_size)
        if found.fingerprint != self.fingerprint:  # dropped from memory and read again
            raise InputError(
                f"data set {self.dataset} has changed since run {self.key} was looked"
                " up; run the same command again."
            )
        return found.part(self.recipe.fraction)

    @cached_property
    def fingerprint(self) -> str:
        """What the data set held when this run was looked up."""
        return _load(self.dataset, self.recipe.store_size).fingerprint

    @cached_property
    def weights(self) -> str:
        """Which pretrained weights the backbone starts from, with their checksum."""
        return backbones.weights_id(self.recipe.backbone, self.recipe.weights)

    @cached_property
    def key(self) -> str:
        """Equal key, equal result (on equal hardware and library versions, which the
        record names but the key leaves out)."""
        determinants = {
            "method": self.method,
            "options": self.options,
            "recipe": self.recipe.determinants(),
            "weights": self.weights,
            "data": self.fingerprint,
            "seed": self.seed,
            "purpose": self.purpose,
            "versions": [methods.METHODS[self.method].VERSION, loop.VERSION],
        }
        return records.key(
            determinants | ({"after": self.after.key} if self.after else {})
        )

    @property
    def folder(self) -> Path:
        return paths.runs() / self.key

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        words = [
            "fgbook",
            "tune" if self.purpose == "tuning" else "run",
            self.paper,
            "--row",
            self.row,
            "--profile",
            self.profile,
        ]
        words += ["--dataset", self.dataset]
        if self.purpose == "result":
            words += ["--seed", str(self.seed)] + [
                word
                for k, v in sorted(self.overrides.items())
                for word in ("--set", f"{k}={v}")
            ]
        return shlex.join(words)


def resolve(
    paper: str,
    row: str,
    profile: str = "quick",
    dataset: str | None = None,
    seed: int = 0,
    overrides: dict | None = None,
) -> Run:
    """Look a run up in its paper's file. `overrides` changes fields of the recipe.
    Raises InputError for unknown names."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    about = papers.get(paper)
    line = about.row(row)
    if profile not in line.recipes:
        raise InputError(
            f"row {row!r} of {paper} does not exist at profile {profile!r}; it does at:"
            f" {', '.join(line.recipes)}."
        )
    base = line.recipes[profile]
    recipe = base.but(**(overrides or {}))
    changed = {
        name: value
        for name, value in (overrides or {}).items()
        if value != getattr(base, name)
    }
    before = (
        resolve(paper, line.after, profile, dataset, seed, overrides)
        if line.after
        else None
    )
    return Run(
        paper,
        row,
        profile,
        dataset or about.datasets[profile][0],
        seed,
        line.method,
        line.options,
        recipe,
        overrides=changed,
        after=before,
    )


def of(record: dict) -> Run:
    """The run that a record came from, by the record's own settings, whatever the
    paper's file says today."""
    names = (
        "paper",
        "row",
        "profile",
        "dataset",
        "seed",
        "method",
        "options",
        "purpose",
        "overrides",
    )
    before = None
    if record.get("after"):
        found = records.find(record["after"])
        if found is None:
            raise InputError(
                f"record {record['key']} started from run {record['after']}, whose"
                " record is not here; run its row again."
            )
        before = of(found)
    return Run(
        recipe=Recipe.of(record["recipe"]),
        after=before,
        **{name: record[name] for name in names},
    )


def execute(
    run: Run,
    *,
    device: str | None = None,
    budget_minutes: float | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> dict | None:
    """The record of a run: found, or made now. None when the time budget ended before
    the run did; call again to go on."""
    found = devices.agree(lambda: records.find(run.key), device)
    return _as(
        run, found or _execute(run, device, budget_minutes, progress, tensorboard)
    )


def _as(run: Run, record: dict | None) -> dict | None:
    """A record under the name by which it was asked for: rows, also of several papers,
    share a run when their keys are equal."""
    if record is None or (record["paper"], record["row"], record["profile"]) == (
        run.paper,
        run.row,
        run.profile,
    ):
        return record
    about = {
        "paper": run.paper,
        "row": run.row,
        "profile": run.profile,
        "overrides": run.overrides,
        "command": run.command,
    }
    return (
        record
        | about
        | {"printed": papers.get(run.paper).printed(run.row, run.dataset)}
    )


def rows(
    paper: str,
    rows: list[str] | None = None,
    profile: str = "quick",
    dataset: str | None = None,
    seeds: int | list[int] = 1,
    *,
    overrides: dict | None = None,
    device: str | None = None,
    budget_minutes: float | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> list[dict]:
    """Records of several rows (None: all) over seeds (a count, or a list), seed by
        seed, so that a cut-off series is still comparable.

    When the time budget ends first, the records that are there.
    """
    todo = planned(paper, rows, profile, dataset, seeds, overrides)
    end = time.monotonic() + 60 * budget_minutes if budget_minutes else None
    found = []
    for run in todo:
        left = devices.agree(
            lambda: (end - time.monotonic()) / 60 if end else None, device
        )
        if left is not None and left <= 0:
            record = _as(
                run, devices.agree(lambda run=run: records.find(run.key), device)
            )
        else:
            record = execute(
                run,
                device=device,
                budget_minutes=left,
                progress=progress,
                tensorboard=tensorboard,
            )
        if record is not None:
            found.append(record)
    return found


def planned(
    paper: str,
    rows: list[str] | None = None,
    profile: str = "quick",
    dataset: str | None = None,
    seeds: int | list[int] = 1,
    overrides: dict | None = None,
) -> list[Run]:
    """The runs that :func:`rows` finds or makes, in its order. Raises InputError for
    wrong names, so that nothing is trained before."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    names = rows or [row.name for row in papers.get(paper).rows_at(profile)]
    if not names:
        raise InputError(
            f"{paper} has no row at profile {profile!r}; choose another profile:"
            f" {', '.join(PROFILES)}."
        )
    return [
        resolve(paper, name, profile, dataset, seed, overrides)
        for seed in numbers
        for name in names
    ]


def tune(
    paper: str,
    row: str,
    profile: str,
    dataset: str | None = None,
    *,
    device: str | None = None,
    progress: bool = True,
) -> list[dict]:
    """Try the changes that the paper's file lists for a row, on validation; records of
    the tries, best first. The test split is not touched."""
    about = papers.get(paper)
    line, tuning = about.row(row), about.tuning.get(profile)
    if tuning is None or row not in tuning.tries:
        raise InputError(
            f"{paper} lists no tuning for row {row!r} at profile {profile!r}; add it to"
            f" fgbook/papers/{paper}.py."
        )
    dataset = dataset or about.datasets[profile][0]

    def before(name: str | None) -> Run | None:
        """The stages before, with their own settings but without the validation
        images."""
        if name is None:
            return None
        stage = about.row(name)
        recipe = stage.recipes[profile].but(train_on="train")
        return Run(
            paper,
            name,
            profile,
            dataset,
            TUNING_SEED,
            stage.method,
            stage.options,
            recipe,
            "tuning",
            after=before(stage.after),
        )

    found = []
    for change, recipe, options in tuning.of(line):
        run = Run(
            paper,
            row,
            profile,
            dataset,
            TUNING_SEED,
            line.method,
            options,
            recipe,
            "tuning",
            change,
            before(line.after),
        )
        found.append(execute(run, device=device, progress=progress))
    return sorted(found, key=lambda record: -record["metrics"]["val"]["top1"])


def model(
    run: Run, *, device: str | None = None, progress: bool = True
) -> tuple[nn.Module, DataSet]:
    """The trained model of a run, in evaluation mode, and its data. Trains it when only
    its record is here (weights are not published)."""
    if not devices.agree((run.folder / "model.safetensors").is_file, device):
        _execute(run, device, None, progress)
    dataset = run.data()
    # of a frozen backbone with random weights only the head was kept
    torch.manual_seed(run.seed)
    network = methods.build(
        run.method,
        dataset.num_classes,
        run.recipe if _frozen(run) else run.recipe.but(weights="none"),
        run.options,
        dataset.class_attributes,
    )
    trained(network).load_state_dict(load_file(run.folder / "model.safetensors"))
    return network.eval().to(device or devices.default_device()), dataset


def trained(network: nn.Module) -> nn.Module:
    """The part of a method's model that is trained and kept: all of it, but only the
    head where the backbone is a frozen feature extractor."""
    return network.head if isinstance(network, methods.Transfer) else network


def _frozen(run: Run) -> bool:
    return methods.METHODS[run.method] is methods.Transfer


def _seen(
    run: Run, network: nn.Module, dataset: DataSet, device: str | None
) -> DataSet:
    """What the trained part sees: the images, or the feature maps that a frozen
    backbone makes of them, once."""
    if not _frozen(run):
        return dataset
    whole = _load(run.dataset, run.recipe.store_size)
    return features.cached(
        network.backbone, whole, run.recipe, run.weights, device
    ).part(run.recipe.fraction)


def _execute(
    run: Run,
    device: str | None,
    budget_minutes: float | None,
    progress: bool,
    tensorboard: bool = False,
) -> dict | None:
    begin, before = time.monotonic(), None
    if run.after:  # its weights are needed, not only its record
        before = run.after.folder / "model.safetensors"
        if (
            not devices.agree(before.is_file, device)
            and _execute(run.after, device, budget_minutes, progress, tensorboard)
            is None
        ):
            return None
    with _turn(run.key, device):
        kept = run.folder / "record.json"
        if devices.agree(
            lambda: kept.is_file() and (run.folder / "model.safetensors").is_file(),
            device,
        ):
            return records.load(kept)
        # now: the clone may change while the run goes on
        dataset, commit = run.data(), records.commit()
        torch.manual_seed(run.seed)  # initial heads, dropout
        network = methods.build(
            run.method,
            dataset.num_classes,
            run.recipe,
            run.options,
            dataset.class_attributes,
        )
        if before:
            trained(network).load_state_dict(load_file(before))
        seen = _seen(run, network, dataset, device)
        left = (
            budget_minutes - (time.monotonic() - begin) / 60 if budget_minutes else None
        )
        outcome = loop.fit(
            trained(network),
            seen,
            run.recipe,
            run.folder,
            seed=run.seed,
            device=device,
            budget_minutes=left,
            progress=progress,
            tensorboard=tensorboard,
        )
        return (
            _measure(run, network, dataset, seen, outcome, device, commit)
            if outcome.finished
            else None
        )


@contextmanager
def _turn(key: str, device: str | None = None):
    """Held while a run is trained and measured. A second job on the same key says so,
    and waits. Of several processes the first holds it."""
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
        while not devices.agree(lambda: acquire(60), device):
            pass
    try:
        yield
    finally:
        lock.release()


def _measure(
    run: Run,
    network: nn.Module,
    dataset: DataSet,
    seen: DataSet,
    outcome: loop.Outcome,
    device: str | None,
    commit: dict,
) -> dict:
    """Evaluate a trained model and save its record."""
    recipe, metrics = run.recipe, {"val": None, "test": None}
    where, predictions = None, None
    # a frozen backbone whose features were there already has not been moved
    network.to(next(trained(network).parameters()).device)

    def measure(split: str, resolution: str) -> tuple[dict, dict]:
        """Metrics of a split, and what is kept of each image."""
        about = seen.split(split)
        probabilities = loop.predict(
            trained(network), about, recipe, device=device, resolution=resolution
        )
        confidence, prediction = probabilities.max(1)
        nll = (
            -probabilities.gather(1, about.labels[:, None])[:, 0]
            .clamp(min=classification.TINY)
            .log()
        )
        kept = {
            "prediction": prediction.numpy().astype(np.uint16),
            "confidence": confidence.numpy().astype(np.float16),
            "nll": nll.numpy(),
        }
        return (
            classification.metrics(probabilities, about.labels, dataset.num_classes),
            kept,
        )

    if recipe.train_on == "train":
        metrics["val"], _ = measure("val", recipe.resolution)
    if run.purpose == "result":
        metrics["test"], predictions = measure("test", "high")
        predictions["label"] = dataset.test.labels.numpy().astype(np.uint16)
        if recipe.low_side:
            metrics["test_low"], low = measure("test", "low")
            predictions |= {f"low_{name}": values for name, values in low.items()}
        if hasattr(network, "regions") and dataset.test.boxes is not None:
            where = localisation.measure(network, dataset.test, recipe)
        if hasattr(network, "locate") and dataset.test.boxes is not None:
            where, ious = localisation.boxes(network, dataset.test, recipe)
            predictions |= {name: values.numpy() for name, values in ious.items()}
        if hasattr(network, "restore"):
            predictions |= {
                name: values.numpy()
                for name, values in restoration.psnr(
                    network, dataset.test, recipe
                ).items()
            }
        wanted = _wanted(run)
        if "heat" in wanted:
            predictions |= heatmaps.measure(
                network, dataset.test, recipe, heatmaps.IMAGES[run.profile]
            )
        if "robust" in wanted:
            predictions |= robustness.measure(
                network, dataset.test, recipe, robustness.IMAGES[run.profile]
            )
        each = dataset.test.labels.bincount()
        # else there is nothing to compare
        if "margin" in wanted and each.max() > 1 and (each > 0).sum() > 1:
            embeddings = robustness.embeddings(network, dataset.test, recipe)
            predictions["margin"] = robustness.margins(
                embeddings, dataset.test.labels
            ).numpy()
            metrics["classes"] = robustness.class_ratio(embeddings, dataset.test.labels)
        if "focus" in wanted:
            images, curved = (
                explanation.IMAGES[run.profile],
                explanation.CURVED[run.profile],
            )
            predictions |= explanation.measure(
                network, dataset.test, recipe, images, curved
            )
    parameters, flops = cost.size(network, recipe.image_size)
    record = {
        "key": run.key,
        "purpose": run.purpose,
        "paper": run.paper,
        "row": run.row,
        "method": run.method,
        "options": run.options,
        "profile": run.profile,
        "dataset": run.dataset,
        "seed": run.seed,
        "recipe": recipe.as_dict(),
        "overrides": run.overrides,
        "weights": run.weights,
        "data_fingerprint": dataset.fingerprint,
        "num_classes": dataset.num_classes,
        "images": {
            "train": (
                len(dataset.train)
                + (len(dataset.val) if recipe.train_on == "train+val" else 0)
            ),
            "val": len(dataset.val),
            "test": len(dataset.test),
        },
        "after": run.after.key if run.after else None,
        "metrics": metrics,
        "localisation": where,
        "parameters": parameters,
        "flops": flops,
        "train": {
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 1),
            "losses": _losses(run),
        },
        "hardware": records.hardware(device or devices.default_device()),
        "versions": records.versions(),
        **commit,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": run.command,
        "printed": papers.get(run.paper).printed(run.row, run.dataset),
    }
    return devices.agree(
        lambda: records.save(record, predictions, run.folder / "record.json"), device
    )


def _wanted(run: Run) -> set[str]:
    """What is measured besides accuracy: all that any row asks for which is this run,
    in whatever chapter. Whoever comes first runs it for all."""
    told, wanted = run.recipe.as_dict(), set()
    for row in (
        row for name in papers.names() for row in papers.get(name).rows_at(run.profile)
    ):
        same = (row.method, row.options, row.after) == (
            run.method,
            run.options,
            run.after.row if run.after else None,
        )
        if same and row.recipes[run.profile].as_dict() | run.overrides == told:
            wanted |= set(row.measures)
    return wanted


def _losses(run: Run) -> list[dict[str, float]]:
    """The training losses by name, an entry for each epoch."""
    lines = (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {name: round(value, 4) for name, value in json.loads(line)["losses"].items()}
        for line in lines
    ]
