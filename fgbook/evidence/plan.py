"""From a row of a paper's file to runs: what is to be trained and measured, looked up
and checked before anything is.

A run's key is a hash of everything that determines its result: method, options,
recipe, weights, data, seed, the stage before, and the versions of method, loop and
measures.
"""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from .. import backbones, data, methods, papers, paths
from ..data.dataset import DataSet
from ..errors import InputError, unknown
from ..papers.spec import PROFILES, Row
from ..recipe import Recipe, equations
from ..training import loop
from . import measures, records

# ---- data sets, as they are when runs are looked up


@lru_cache(maxsize=2)
def _load(dataset: str, size: int, stamp: str) -> DataSet:
    """A data set whose files are as `stamp` says, kept in memory between runs."""
    return data.load(dataset, size)


class Look:
    """One look at the files of data sets. Runs that are planned together share it, and
    so see the same pictures, whatever changes while they train; the next look sees what
    was added.
    """

    def __init__(self) -> None:
        self.stamps: dict[str, str] = {}

    def load(self, dataset: str, size: int) -> DataSet:
        """A data set as this look found it, at a stored size in pixels."""
        if dataset not in self.stamps:
            self.stamps[dataset] = data.stamp(dataset)
        return _load(dataset, size, self.stamps[dataset])


# ---- a run


@dataclass(frozen=True)
class Run:
    """One row, one data set, one seed: all that has to be known to train and measure
    it.
    """

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
    # What differs from the paper's file: recipe fields, and options of the method.
    overrides: dict = field(default_factory=dict)
    option_changes: dict = field(default_factory=dict)
    # the stage before this one, whose trained weights this one starts from
    after: "Run | None" = None
    look: Look = field(default_factory=Look, compare=False, repr=False)

    def data(self) -> DataSet:
        """The data set at the recipe's stored size, with the recipe's part of the
        training images. Raises InputError where it is no longer what it was.
        """
        found = self.look.load(self.dataset, self.recipe.store_size)
        if found.fingerprint != self.fingerprint:  # dropped from memory and read again
            raise InputError(
                f"data set {self.dataset} has changed since run {self.key} was looked"
                " up; run the same command again."
            )
        return found.part(self.recipe.fraction)

    @cached_property
    def fingerprint(self) -> str:
        """What the data set held when this run was looked up."""
        return self.look.load(self.dataset, self.recipe.store_size).fingerprint

    @cached_property
    def weights(self) -> str:
        """Which pretrained weights the backbone starts from, with their checksum."""
        return backbones.weights_id(self.recipe.backbone, self.recipe.weights)

    @cached_property
    def key(self) -> str:
        """Equal key, equal result (on equal hardware and library versions, which the
        record names but the key leaves out).
        """
        determinants: dict[str, Any] = {
            "method": self.method,
            "options": self.options,
            "recipe": self.recipe.determinants(),
            "weights": self.weights,
            "data": self.fingerprint,
            "seed": self.seed,
            "purpose": self.purpose,
            "versions": [methods.METHODS[self.method].VERSION, loop.VERSION],
        }
        if self.after:
            determinants["after"] = self.after.key
        # the first version is left out: it came after the first published records
        if measures.VERSION > 1:
            determinants["measures"] = measures.VERSION
        return records.key(determinants)

    @property
    def folder(self) -> Path:
        """Where its record, weights and log are."""
        return paths.runs() / self.key

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        tuning = self.purpose == "tuning"
        words = ["fgbook", "tune" if tuning else "run", self.paper, "--row", self.row]
        words += ["--profile", self.profile, "--dataset", self.dataset]
        if not tuning:
            words += ["--seed", str(self.seed)]
            for name, value in sorted(self.overrides.items()):
                words += ["--set", f"{name}={value}"]
        for name, value in sorted(self.option_changes.items()):
            words += ["--option", f"{name}={_text(value)}"]
        return shlex.join(words)


def _text(value: object) -> str:
    """An option's value as the command line takes it: several with commas between."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value)


# ---- from a row to runs


def resolve(
    paper: str,
    row: str,
    profile: str = "quick",
    dataset: str | None = None,
    seed: int = 0,
    overrides: dict | None = None,
    options: dict | None = None,
) -> Run:
    """Look a run up in its paper's file.

    `overrides` changes fields of the recipe, `options` those of the method; both also
    in the stages before, where these have the same. Raises InputError for unknown names
    and values that cannot be.
    """
    return _resolve(
        paper, row, profile, dataset, seed, overrides or {}, options or {}, Look()
    )


def _resolve(
    paper: str,
    row: str,
    profile: str,
    dataset: str | None,
    seed: int,
    overrides: dict,
    options: dict,
    look: Look,
) -> Run:
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    about = papers.get(paper)
    line = about.row(row)
    if profile not in line.recipes:
        raise InputError(
            f"row {row!r} of {paper} does not exist at profile {profile!r}; it does at:"
            f" {', '.join(line.recipes)}."
        )
    own = line.recipes[profile]
    recipe = own.but(**overrides)
    changed = {
        name: getattr(recipe, name)
        for name in overrides
        if getattr(recipe, name) != getattr(own, name)
    }
    option_changes = _option_changes(line, options, recipe)
    _refuse_low_resolution_of_maps(line, recipe)
    # means the same from any folder
    chosen = data.absolute(dataset or about.datasets[profile][0])

    before = None
    if line.after:
        shared = _shared_options(line, about.row(line.after), option_changes)
        before = _resolve(
            paper, line.after, profile, chosen, seed, overrides, shared, look
        )
    return Run(
        paper=paper,
        row=row,
        profile=profile,
        dataset=chosen,
        seed=seed,
        method=line.method,
        options=line.options | option_changes,
        recipe=recipe,
        overrides=changed,
        option_changes=option_changes,
        after=before,
        look=look,
    )


def _options(line: Row) -> dict:
    """All options of a row's method: the row's own, else the method's defaults."""
    return methods.options_of(line.method) | line.options


def _option_changes(line: Row, options: dict, recipe: Recipe) -> dict:
    """Those that differ from the row's, checked: an equal one makes no other run."""
    if not options:
        return {}
    fitting = methods.check_options(line.method, line.options | options, recipe)
    own = _options(line)
    return {name: fitting[name] for name in options if fitting[name] != own[name]}


def _shared_options(line: Row, before: Row, changes: dict) -> dict:
    """The changes that the stage before needs too, or its weights would not fit: those
    of options that both rows have alike.
    """
    if line.method != before.method:
        return {}
    now, then = _options(line), _options(before)
    return {name: value for name, value in changes.items() if now[name] == then[name]}


def _refuse_low_resolution_of_maps(line: Row, recipe: Recipe) -> None:
    """A frozen backbone's maps are kept of sharp images only: say so before training,
    not when the test split is to be measured.
    """
    frozen = methods.METHODS[line.method].frozen_backbone
    if frozen and (recipe.low_side or recipe.resolution != "high"):
        raise InputError(
            f"row {line.name!r} trains on kept maps of a frozen backbone, which are of"
            " images at high resolution; set low_side=0 and resolution=high."
        )


def planned(
    paper: str,
    rows: list[str] | None = None,
    profile: str = "quick",
    dataset: str | None = None,
    seeds: int | list[int] = 1,
    overrides: dict | None = None,
    options: dict | str | None = None,
) -> list[Run]:
    """The runs that :func:`fgbook.evidence.runs.rows` finds or makes, in its order;
    rows and seeds that are given twice count once. `options` by name, or as a person
    types them: "m=4 box=0.3". Raises InputError for wrong names and values, so that
    nothing is trained before.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    names = rows or [row.name for row in papers.get(paper).rows_at(profile)]
    if not names:
        raise InputError(
            f"{paper} has no row at profile {profile!r}; choose another profile:"
            f" {', '.join(PROFILES)}."
        )
    if isinstance(options, str):
        lines = [papers.get(paper).row(name) for name in names]
        options = typed_options(lines, options.split())
    numbers = list(range(seeds)) if isinstance(seeds, int) else seeds
    look = Look()
    changes = overrides or {}, options or {}
    found = []
    for seed in dict.fromkeys(numbers):
        for name in dict.fromkeys(names):
            found.append(_resolve(paper, name, profile, dataset, seed, *changes, look))
    return found


def typed_options(
    lines: Iterable[Row], texts: Iterable[str], word: str = "option"
) -> dict:
    """``["m=4"]`` as {"m": 4}, checked against the methods of all rows that are asked
    for; `word` is what a person typed before each. Raises InputError for a name or a
    value that one of them does not have.
    """
    given = equations(word, texts, "m=4")
    values = {}
    for method in dict.fromkeys(line.method for line in lines):
        for name, text in given.items():
            values[name] = methods.parse_option(method, name, text)
    return values


def of(record: dict) -> Run:
    """The run that a record came from, by the record's own settings, whatever the
    paper's file says today. Raises InputError where the record of the stage before is
    not here.
    """
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
        paper=record["paper"],
        row=record["row"],
        profile=record["profile"],
        dataset=record["dataset"],
        seed=record["seed"],
        method=record["method"],
        options=record["options"],
        recipe=Recipe.of(record["recipe"]),
        purpose=record["purpose"],
        overrides=record["overrides"],
        option_changes=record.get("option_changes", {}),
        after=before,
    )
