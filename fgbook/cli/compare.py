"""``fgbook compare``: the methods of the field on a person's own pictures."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from .batch import carry_out, finish, plan, threads_each, typed
from .common import (
    Amount,
    check_device,
    examples,
    numbers_of,
    on_device,
    over_seeds,
    several_at_once,
    within_budget,
)
from .results import aligned

if TYPE_CHECKING:
    from ..evidence.batch.budget import Choice
    from ..evidence.batch.compared import Comparison
    from ..evidence.batch.grid import Entry
    from ..evidence.plan import Run

PAPER = "compare"


@click.command(
    epilog=examples(
        "fgbook compare ~/my-birds --plan",
        "fgbook compare ~/my-birds --budget-minutes 60",
        "fgbook compare ~/my-birds --row pmg --row cal --seeds 5",
        "fgbook compare cub50 --budget-minutes 600",
        note="Report, manifest and logs go to a folder below runs/comparisons, which"
        " is named at the end. Ends with 0 when all runs are finished, 75 when the"
        " same command is to be called again, 1 when some failed, 130 after Ctrl-C.",
    )
)
@click.argument("pictures", metavar="FOLDER")
@click.option(
    "--row",
    "rows",
    multiple=True,
    help="A method; repeatable. The plain backbone is always there.  [default: all]",
)
@click.option(
    "--profile",
    default="photo",
    show_default=True,
    help="photo (an everyday network, minutes a run), quick (a tiny one, to see that it"
    " works) or paper (large pictures and networks, for a GPU).",
)
@over_seeds("3, at quick 1")
@click.option(
    "--margin",
    type=Amount(),
    default=2.0,
    show_default=True,
    help="A difference in accuracy that would not matter to you, in points; the report"
    " says so where it was given after runs were made.",
)
@several_at_once
@on_device
@within_budget
@click.option("--plan", "only_plan", is_flag=True, help="Only say what there is to do.")
def compare(
    pictures: str,
    rows: tuple[str, ...],
    profile: str,
    seeds: int | None,
    chosen: tuple[int, ...],
    margin: float,
    jobs: int,
    device: str | None,
    budget_minutes: float | None,
    only_plan: bool,
) -> None:
    """Compare methods on your own pictures, and say which one to use.

    FOLDER holds a folder of pictures for each class (or train and test folders of
    them); the name of a data set does too. Says first what there is and what it will
    take. With a budget, only methods that fit into it are run: the linear probe, the
    plain backbone, then the cheapest of each family. What was stopped goes on when the
    same command is run again.
    """
    from .. import papers

    numbers = numbers_of(seeds, chosen)
    about = papers.get(PAPER)
    began = time.monotonic()
    check_device(device)
    dataset = named(pictures)

    from ..evidence import advice
    from ..evidence.batch import budget, compared, grid, pace, pool, report, telling

    wanted = rows if not rows else tuple(dict.fromkeys((advice.BASELINE, *rows)))
    everything = grid.grid([about], profile, wanted, [dataset], numbers)
    threads = threads_each(jobs)
    place = folder(everything, budget_minutes, jobs, device)
    hardware = pace.hardware(device, threads)
    said = pictures_in_words(everything[0].run)
    for line in said:
        click.echo(line)
    # measured here: what another machine took decides badly what fits
    paces = pace.expect(everything, [], device, threads, click.echo)

    seconds = budget.costs(everything)
    choice = budget.remembered(place, list(seconds))
    if choice is None:
        free = None
        if budget_minutes is not None:
            free = 60 * budget_minutes * (1 - budget.KEPT_BACK)
            free = jobs * (free - (time.monotonic() - began))
        choice = budget.choose(seconds, free)
    made = any(entry.record is not None for entry in everything)
    choice = budget.with_margin(choice, margin, made)
    if not only_plan:
        budget.remember(place, choice)
    entries = budget.in_order(everything, choice)
    for line in plan(entries, paces, jobs, pace.in_words(hardware)):
        click.echo(line)
    fit = choice_in_words(choice, seconds, jobs, budget_minutes)
    for line in fit:
        click.echo(line)
    if only_plan:
        return

    end = None if budget_minutes is None else began + 60 * budget_minutes
    about_it = compared.Comparison(
        about,
        entries,
        margin,
        dataset,
        said + fit,
        choice.left_out,
        place,
        device,
        choice.margin,
    )
    story = report.Story(typed(), report.now(), hardware, jobs, place=place)
    teller = telling.Teller(entries, story, extra=about_it.extra)
    carry_out(entries, pool.Way(place / "logs", jobs, threads, device, end), teller)
    tell(about_it)
    finish(entries)


def named(pictures: str) -> str:
    """The data set that is meant: a name, "folder:PATH", or the path of a folder."""
    from .. import data
    from ..errors import unknown

    if pictures in data.names() or pictures.startswith("folder:"):
        return data.absolute(pictures)
    found = data.absolute(f"folder:{pictures}")
    if not data.is_folder(found):
        if not any(sign in pictures for sign in "/\\."):
            raise unknown("data set or folder", pictures, data.names())
        raise InputError(
            f"{pictures} is not a folder; give one that holds a folder of pictures for"
            " each class."
        )
    return found


def folder(
    entries: list["Entry"], budget_minutes: float | None, jobs: int, device: str | None
) -> Path:
    """Where report, choice and logs are: the same words on the same pictures, the same
    folder.
    """
    from .. import paths
    from ..evidence import records

    keys = sorted(entry.run.key for entry in entries)
    asked = {
        "runs": keys,
        "minutes": budget_minutes,
        "jobs": jobs,
        "device": device,
    }
    return paths.runs() / "comparisons" / records.key(asked)


# ---- in words


def pictures_in_words(run: "Run") -> list[str]:
    """The pictures, how they are divided, and what each part is for. Raises InputError
    for fewer test pictures than tell two methods apart.
    """
    from .. import data

    recipe = run.recipe
    found = run.look.load(run.dataset, recipe.store_size)
    if len(found.test) < 2:
        raise InputError(
            f"{run.dataset}: its test part holds 1 picture, and a comparison needs at"
            " least 2; add pictures, or put more of them into a folder test."
        )
    parts = [f"{len(found.split(name))} {name}" for name in ("train", "val", "test")]
    learn = "train and val" if recipe.train_on == "train+val" else "train"
    if recipe.fraction < 1:
        learn = f"{100 * recipe.fraction:g} % of {learn}"
    return [
        f"{run.dataset}: {found.num_classes} classes, {', '.join(parts)} pictures.",
        f"divided {data.division(run.dataset)}.",
        f"every method learns from {learn}, with the settings of its row that were"
        " fixed on other pictures; test is looked at once, after the last epoch.",
    ]


def choice_in_words(
    choice: "Choice",
    seconds: dict[str, float],
    jobs: int,
    budget_minutes: float | None,
) -> list[str]:
    """Which rows are run, in which order, and which are not."""
    from ..evidence.estimate import duration

    said = [f"order, seed by seed: {', '.join(choice.rows)}."]
    if budget_minutes is None:
        return said
    if choice.left_out:
        more = sum(seconds[row] for row in choice.left_out) / jobs
        said.append(
            f"left out, because {budget_minutes:g} minutes are too short for them:"
            f" {', '.join(choice.left_out)} (about {duration(more)} more)."
        )
    needed = sum(seconds[row] for row in choice.rows) / jobs
    if needed > 60 * budget_minutes:
        said.append(
            f"even these take longer than {budget_minutes:g} minutes: the command will"
            " stop in time, and go on when it is run again."
        )
    return said


def tell(comparison: "Comparison") -> None:
    """The table and the advice."""
    from ..evidence.batch import compared

    lines = compared.told(comparison)
    if not lines:
        return
    click.echo(aligned(lines))
    click.echo(compared.caption(comparison))
    click.echo(f"{compared.standing(comparison)}{comparison.advice().sentence}")
    click.echo(comparison.rule())
