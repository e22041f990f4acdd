"""``fgbook batch``: rows x data sets x seeds in one go."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from ..errors import AGAIN, InputError, count, unfinished
from .common import (
    Failed,
    check_device,
    examples,
    key_line,
    known_records,
    numbers_of,
    on_device,
    over_seeds,
    publishes,
    several_at_once,
    with_keys,
    within_budget,
)
from .results import aligned

if TYPE_CHECKING:
    from ..evidence.batch.grid import Entry
    from ..evidence.batch.pace import Kind, Pace
    from ..evidence.batch.pool import Way
    from ..evidence.batch.telling import Teller


@click.command(
    epilog=examples(
        "fgbook batch feng liang --plan",
        "fgbook batch feng --profile photo --dataset cub50 --budget-minutes 60",
        "fgbook batch peng --profile photo --seeds 5 --jobs 2 --publish",
        note="Report, manifest and logs go to a folder below runs/batches, which is"
        " named at the end. Ends with 0 when all runs are finished, 75 when the same"
        " command is to be called again, 1 when some failed, 130 after Ctrl-C.",
    )
)
@click.argument("names", metavar="PAPER...", nargs=-1, required=True)
@click.option(
    "--row",
    "rows",
    multiple=True,
    help="A row of their tables; repeatable.  [default: all]",
)
@click.option("--profile", default="quick", show_default=True, help="As of `run`.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    help="A data set; repeatable.  [default: all that a paper names for the profile]",
)
@over_seeds("those that a paper's file fixes, else 1")
@several_at_once
@on_device
@within_budget
@click.option("--plan", "only_plan", is_flag=True, help="Only say what there is to do.")
@with_keys("--plan")
@publishes
def batch(
    names: tuple[str, ...],
    rows: tuple[str, ...],
    profile: str,
    datasets: tuple[str, ...],
    seeds: int | None,
    chosen: tuple[int, ...],
    jobs: int,
    device: str | None,
    budget_minutes: float | None,
    only_plan: bool,
    keys: bool,
    publish: bool,
) -> None:
    """Make many runs: rows x data sets x seeds of PAPERs.

    Says first what there is and what it will take. A run that fails does not stop the
    others; what is finished is not run again, and what was stopped goes on. With
    --publish a row's records are published when all of its seeds are finished.
    """
    from .. import papers

    numbers = numbers_of(seeds, chosen)
    if keys and not only_plan:
        raise InputError("--keys only says something with --plan; give both.")
    about = [papers.get(name) for name in dict.fromkeys(names)]
    began = time.monotonic()
    check_device(device)

    from ..evidence.batch import grid, pace, pool, report, telling

    entries = grid.grid(about, profile, rows, datasets, numbers)
    if keys:
        for entry in entries:
            click.echo(key_line(entry.run, entry.state, entry.command))
        return
    begun = {entry.run.paper for entry in entries}
    for paper in about:
        if paper.key not in begun:
            none = f"{paper.key} has none of these rows at profile {profile}"
            click.echo(f"{none}: left out.")
    threads = threads_each(jobs)
    paces = pace.expect(entries, known_records(), device, threads, click.echo)
    hardware = pace.hardware(device, threads)
    for line in plan(entries, paces, jobs, pace.in_words(hardware)):
        click.echo(line)
    if only_plan:
        return

    end = None if budget_minutes is None else began + 60 * budget_minutes
    story = report.Story(typed(), report.now(), hardware, jobs)
    logs = report.folder(entries) / "logs"
    teller = telling.Teller(entries, story, publish)
    carry_out(entries, pool.Way(logs, jobs, threads, device, end), teller)
    finish(entries)


def carry_out(entries: list["Entry"], way: "Way", teller: "Teller") -> None:
    """Make all runs that are left, and tell of it."""
    from ..evidence.batch import pool

    try:
        pool.make(entries, way, teller.ended, teller.look)
    except KeyboardInterrupt:
        teller.over("interrupted")
        raise
    teller.over(state(entries))


def state(entries: list["Entry"]) -> str:
    """What became of a batch that was not interrupted."""
    states = {entry.state for entry in entries}
    if states - {"done", "finished", "failed"}:
        return "stopped"
    return "failed" if "failed" in states else "finished"


def finish(entries: list["Entry"]) -> None:
    """Say what failed, and end with the status of the whole."""
    failed = [entry for entry in entries if entry.state == "failed"]
    for entry in failed:
        click.echo(f"failed: {entry.title}: {entry.why}\n    log: {entry.log}")
    if state(entries) == "stopped":
        done = sum(entry.record is not None for entry in entries)
        click.echo(unfinished(done, len(entries)), err=True)
        raise Exit(AGAIN)
    if failed:
        raise Failed(f"{len(failed)} of {len(entries)} runs failed; see above.")


def typed() -> str:
    """The command that is being run, as a person would type it."""
    return shlex.join(["fgbook", *sys.argv[1:]])


def threads_each(jobs: int) -> int:
    """Of as many runs at a time: what the person set, else a share of the cores."""
    from ..evidence import records

    told = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(told) if told.isdigit() else records.cores() // jobs)


# ---- the plan

COLUMNS = (
    "paper",
    "row",
    "data set",
    "seeds done",
    "seeds to do",
    "each",
    "in all",
    "from",
)


def plan(
    entries: list["Entry"],
    paces: dict["Kind", "Pace"],
    jobs: int,
    where: str,
) -> Iterator[str]:
    """A line for each row and data set, with its seeds; and a total."""
    from ..evidence.batch.budget import START_SECONDS
    from ..evidence.batch.grid import kinds
    from ..evidence.estimate import duration

    lines = []
    for (paper, row, dataset), same in kinds(entries).items():
        left = [entry for entry in same if entry.left]
        done = " ".join(str(entry.run.seed) for entry in same if not entry.left)
        to_do = " ".join(seed_to_do(entry) for entry in left)
        times = ("", "", "")
        if left:
            pace = paces[paper, row, dataset]
            each = duration(pace.seconds(left[0].run.recipe.epochs))
            times = each, duration(sum(entry.expected for entry in left)), pace.source
        lines.append((paper, row_in_words(row, same[0]), dataset, done, to_do, *times))
    yield aligned([COLUMNS, *lines])

    left = [entry for entry in entries if entry.left]
    # each is a process, which starts first
    total = sum(START_SECONDS + entry.expected for entry in left)
    said = f"{count(len(entries), 'run')}: {len(entries) - len(left)} done"
    said += f", {len(left)} to do"
    if left:
        said += f", about {duration(total / min(jobs, len(left)))}"
        said += f" with {jobs} at a time on {where}"
    yield f"{said}."


def row_in_words(row: str, entry: "Entry") -> str:
    """A row, with the others that share its runs; a stage that no one asked for is
    marked.
    """
    if not entry.names:
        return f"{row} (a stage)"
    others = [f"{one.paper} {one.row}" for one in entry.names[1:]]
    return f"{row} (= {', '.join(others)})" if others else row


def seed_to_do(entry: "Entry") -> str:
    """Its number, and what is there of it."""
    if entry.state == "begun":
        return f"{entry.run.seed} (epoch {entry.epochs} of {entry.run.recipe.epochs})"
    if entry.state == "needed":
        return f"{entry.run.seed} (for its weights)"
    return str(entry.run.seed)
