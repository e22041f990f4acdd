"""Which runs a batch is made of: papers x rows x data sets x seeds, each key once, with
the stages that rows start from before them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import InputError, unknown
from ...papers.spec import PROFILES, Paper
from .. import models, plan, records, runs
from ..estimate import epochs_done, stages
from ..plan import Run

# What an entry of a batch can be. "needed": it has a record, but a run that is to do
# starts from its weights, which are not here.
TO_DO = ("to do", "needed", "begun")
ENDED = ("finished", "failed", "stopped")


@dataclass
class Entry:
    """One key of a batch: a run, by every name under which it was asked for."""

    run: Run
    # the same run in the files of several papers, or as several rows
    names: list[Run] = field(default_factory=list)
    record: dict | None = None
    # "done" (there was a record before), one of TO_DO, "running", or one of ENDED
    state: str = "to do"
    epochs: int = 0  # that were done before this batch
    seconds: float = 0.0  # that this batch spent on it
    expected: float = 0.0  # seconds, of what is left of it
    why: str = ""  # of a failure: one sentence
    log: str = ""  # of its process: a file

    @property
    def title(self) -> str:
        """Its rows, data set and seed, in words."""
        rows = ", ".join(dict.fromkeys(f"{one.paper} {one.row}" for one in self.names))
        return f"{rows or self.stage_title}, {self.run.dataset}, seed {self.run.seed}"

    @property
    def stage_title(self) -> str:
        """What it is called where no one asked for it but a later stage."""
        return f"{self.run.paper} {self.run.row} (a stage)"

    @property
    def command(self) -> str:
        """The command that makes what is left of it."""
        train = " --train" if self.state == "needed" else ""
        return f"{self.run.command}{train}"

    @property
    def left(self) -> bool:
        """Whether it is to be run, or to be gone on with."""
        return self.state in TO_DO

    def found(self) -> list[dict]:
        """Its record under each name that it was asked for by."""
        if self.record is None:
            return []
        return [runs.under_its_name(run, self.record) for run in self.names]


# ---- from words to entries


def grid(
    about: Sequence[Paper],
    profile: str,
    rows: Sequence[str] = (),
    datasets: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Entry]:
    """The runs of papers, in the order in which they are to be made: seed by seed, so
    that a batch that is cut off is still comparable, and a stage before what starts
    from it.

    Empty `rows`: all that there are at the profile; `datasets`: all that the paper
    names for it; `seeds`: those that the paper's file fixes, else 0. Raises InputError
    for a row that none of the papers has, and whatever planning a run can raise.
    """
    _check_rows(about, profile, rows)
    wanted: list[Run] = []
    for paper in about:
        numbers = {}
        for row in paper.rows_at(profile):
            if not rows or row.name in rows:
                fixed = range(paper.seeds_of(row.name, profile) or 1)
                numbers[row.name] = list(seeds or fixed)
        for dataset in datasets or paper.datasets[profile]:
            wanted += _planned(paper, profile, dataset, numbers)
    # by seed; all else stays in its order
    entries = _entries(sorted(wanted, key=lambda run: run.seed))
    _look(entries)
    return list(entries.values())


def _planned(
    paper: Paper, profile: str, dataset: str, numbers: dict[str, list[int]]
) -> list[Run]:
    """The runs of rows with seeds (`numbers`, by row)."""
    if not numbers:  # a paper without the rows that are asked for
        return []
    seeds = sorted({seed for some in numbers.values() for seed in some})
    found = plan.planned(paper.key, list(numbers), profile, dataset, seeds)
    return [run for run in found if run.seed in numbers[run.row]]


def _check_rows(about: Sequence[Paper], profile: str, rows: Iterable[str]) -> None:
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    there = [row.name for paper in about for row in paper.rows_at(profile)]
    if not there:
        keys = ", ".join(paper.key for paper in about)
        raise InputError(f"no row of {keys} exists at profile {profile!r}.")
    for name in rows:
        if name not in there:
            keys = ", ".join(paper.key for paper in about)
            raise unknown(f"row of {keys} at profile {profile!r}", name, there)


def _entries(wanted: Iterable[Run]) -> dict[str, Entry]:
    """By key; stages before the runs that start from them."""
    entries: dict[str, Entry] = {}
    for run in wanted:
        for stage in reversed(list(stages(run))):
            entries.setdefault(stage.key, Entry(stage))
        entries[run.key].names.append(run)
    return entries


def _look(entries: dict[str, Entry]) -> None:
    """What is there of each."""
    for entry in entries.values():
        entry.record = records.find(entry.run.key)
        epochs = epochs_done(entry.run)
        if entry.record is not None:
            entry.state = "done"
        elif epochs is not None:
            entry.state, entry.epochs = "begun", epochs
    for entry in reversed(entries.values()):  # what comes later asks what is before
        before = entry.run.after
        if before is None or not entry.left:
            continue
        stage = entries[before.key]
        if stage.state == "done" and not models.has_weights(before.folder):
            stage.state = "needed"


def kinds(entries: Iterable[Entry]) -> dict[tuple[str, str, str], list[Entry]]:
    """Entries by paper, row and data set: those differ by seed only. An entry of
    several names stands under the first.
    """
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        run = entry.names[0] if entry.names else entry.run
        found.setdefault((run.paper, run.row, run.dataset), []).append(entry)
    return found


def complete_rows(entries: Sequence[Entry]) -> Iterator[list[dict]]:
    """The records of each row and data set of which all seeds are finished."""
    rows: dict[tuple[str, str, str], list[tuple[Entry, Run]]] = {}
    for entry in entries:
        for run in entry.names:
            kind = run.paper, run.row, run.dataset
            rows.setdefault(kind, []).append((entry, run))
    for asked in rows.values():
        if all(entry.record is not None for entry, _ in asked):
            yield [runs.under_its_name(run, entry.record or {}) for entry, run in asked]
