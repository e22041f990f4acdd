"""``fgbook data``: which data sets there are, where they are, and whether they are
whole.
"""

import click

from .. import paths
from ..errors import InputError
from .common import Commands, Failed, examples


@click.group(
    cls=Commands,
    epilog=examples(
        "fgbook data list",
        "fgbook data get cub",
        "fgbook data check cub50",
        "fgbook data path cub",
    ),
)
def data() -> None:
    """Which data sets there are, and where."""


@data.command("list", epilog=examples("fgbook data list"))
def data_list() -> None:
    """Every data set, and whether it is on this machine."""
    from .. import data as sets

    width = 2 + max(map(len, sets.names()))
    for name in sets.names():
        click.echo(f"{name:<{width}}{where(name)}")
    click.echo(f"data sets are looked for in {paths.data()} (FGBOOK_DATA).")


def where(name: str) -> str:
    """Where a data set comes from, or how to get it."""
    from .. import data as sets

    if name in sets.DRAWN:
        return "generated, no download"
    if name not in sets.PHOTOGRAPHED:
        return "your own images, a folder for each class"
    try:
        return str(sets.path(name))
    except InputError:
        return f"missing; `fgbook data check {name}` says how to get it"


@data.command(
    "check",
    epilog=examples("fgbook data check cub50", "fgbook data check folder:~/my-birds"),
)
@click.argument("name")
def data_check(name: str) -> None:
    """Examine data set NAME: what is in it, what is wrong with it.

    Exits with 1 when there are problems.
    """
    from .. import data as sets

    report = sets.check(sets.absolute(name))
    for title, value in report.items():
        said = as_text(value)
        if said:
            click.echo(f"{title}: {said}")
    if report["problems"]:
        click.get_current_context().exit(1)


def as_text(value: object) -> str:
    """An entry of a report: counts on one line, a list on a line each."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list):
        lines = []
        for line in value:
            if isinstance(line, tuple):  # a pair of duplicates
                line = f"{line[0]}, which is learned from, is also {line[1]}"
            lines.append(f"\n  {line}")
        return "".join(lines)
    return "" if value is None else str(value)


@data.command("get", epilog=examples("fgbook data get cub", "fgbook data get aircraft"))
@click.argument("name")
def data_get(name: str) -> None:
    """Download data set NAME from its authors, and print the folder of its pictures.

    Resumes where it broke off, verifies checksums, and unpacks into the data folder
    (FGBOOK_DATA). What is there already, under any name that it is looked for by, is
    not fetched again. Says what to do where the authors' link is dead. A selection of
    this project (cars98, imagewoof10) is made from the official set.
    """
    from ..data import fetch, selections

    get = selections.make if name in selections.SELECTIONS else fetch.get
    try:
        click.echo(get(name))
    except fetch.NotDelivered as error:
        raise Failed(str(error)) from error


@data.command("path", epilog=examples('ls "$(fgbook data path cub)"'))
@click.argument("name", required=False)
def data_path(name: str | None) -> None:
    """The folder of data set NAME, or the folder of all of them."""
    if name is None:
        click.echo(paths.data())
        return
    from .. import data as sets

    click.echo(sets.path(sets.absolute(name)))
