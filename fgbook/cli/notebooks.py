"""``fgbook reproduce`` and ``fgbook book``: notebooks in batches, and the book."""

from pathlib import Path

import click
from click.exceptions import Exit

from ..errors import AGAIN
from ..recipe import assignments
from .common import Amount, Failed, examples


@click.command(
    epilog=examples(
        "fgbook reproduce",
        "fgbook reproduce feng_accuracy -p profile photo -p seeds 3",
        "fgbook reproduce --jobs 1 --force",
    )
)
@click.argument("names", metavar="[NOTEBOOK]...", nargs=-1)
@click.option(
    "-p",
    "--parameter",
    "given",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter of the notebooks; repeatable. The book is then not built.",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Notebooks at a time.  [default: one a core]"
)
@click.option(
    "--timeout-minutes",
    "minutes",
    type=Amount(),
    help="Time limit of one cell.  [default: 30; with -p a day]",
)
@click.option("--force", is_flag=True, help="Execute again what is up to date.")
@click.option("--no-book", is_flag=True, help="Execute the notebooks only.")
def reproduce(
    names: tuple[str, ...],
    given: tuple[tuple[str, str], ...],
    jobs: int | None,
    minutes: float | None,
    force: bool,
    no_book: bool,
) -> None:
    """Execute the notebooks, then build the book.

    Papermill runs them, several at a time, at the quick profile. What is up to date is
    skipped; a notebook that fails does not stop the others. Executed copies go to
    _build/executed, the book to _build/html. With NOTEBOOKs or parameters only those
    notebooks are executed; copies with other parameters go to _build/batch.
    """
    from .. import reproduce as batch

    where = batch.clone()
    results = batch.execute(
        where,
        batch.notebooks(where, names),
        assignments("-p", given),
        jobs=jobs,
        minutes=minutes,
        force=force,
    )
    failed = [result.name for result in results if result.state == "failed"]
    if failed:
        raise Failed(
            f"{len(failed)} of {len(results)} notebooks failed: {', '.join(failed)};"
            " the book was not built."
        )
    if given:
        click.echo(f"executed copies: {where / '_build' / 'batch'}")
    if any(result.state == "stopped" for result in results):
        raise Exit(AGAIN)
    if not (names or given or no_book):
        build(where, force)


@click.command(epilog=examples("fgbook book && open _build/html/index.html"))
@click.option("--force", is_flag=True, help="Build even if nothing has changed.")
def book(force: bool) -> None:
    """Build the book from executed notebooks.

    Executes none; `fgbook reproduce` does.
    """
    from .. import reproduce as batch

    build(batch.clone(), force)


def build(where: Path, force: bool) -> None:
    """Build the book of a clone, and say where it is."""
    from .. import reproduce as batch

    try:
        page = batch.build_book(where, force=force)
    except batch.Failure as failure:
        raise Failed(str(failure)) from failure
    click.echo(f"the book: {page}")
