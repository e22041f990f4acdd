"""Commands that train: ``fgbook run``, ``fgbook tune`` and ``fgbook pretrain``."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from ..errors import AGAIN, InputError
from ..files import refuse_unwritable
from .common import (
    Command,
    check_device,
    examples,
    key_line,
    numbers_of,
    on_device,
    one_dataset,
    over_seeds,
    publishes,
    quiet_disk,
    with_keys,
    within_budget,
)
from .results import table

if TYPE_CHECKING:
    from ..evidence.plan import Run


def choosing_rows(command: Command) -> Command:
    """The options by which `run` and `tune` choose what to train, and on what."""
    options = [
        click.argument("paper"),
        click.option(
            "--row",
            "rows",
            multiple=True,
            help="A row of its tables; repeatable.  [default: all]",
        ),
        click.option(
            "--profile",
            default="quick",
            show_default=True,
            help="quick (generated birds, minutes), photo (photographs, an hour) or"
            " paper (as printed, GPU).",
        ),
        click.option(
            "--dataset",
            "datasets",
            multiple=True,
            help="A data set, or folder:PATH for your own images.  [default: the"
            " profile's first]",
        ),
        click.option(
            "--option",
            "options",
            multiple=True,
            metavar="NAME=VALUE",
            help="Change an option of the rows' method; repeatable.",
        ),
        on_device,
        click.option(
            "--train",
            is_flag=True,
            help="Train also where a published record is all there is: for its"
            " weights.",
        ),
    ]
    for option in reversed(options):  # the last one applied is the first one shown
        command = option(command)
    return command


@click.command(
    epilog=examples(
        "fgbook run feng --row plain --row hybrid --seeds 3",
        "fgbook run feng --profile photo --dataset cub50 --budget-minutes 30",
        "fgbook run feng --row hybrid --profile photo --dataset folder:~/my-birds",
        "fgbook run feng --row plain --set epochs=12 --set lr=0.02",
        "fgbook run feng --row hybrid --option m=4 --option box=0.3",
        "fgbook run feng --profile photo --seeds 3 --dry-run",
        "fgbook run feng --row plain --seed 0 --record plain-0.json",
        note="On several GPUs, `torchrun --nproc-per-node 4 -m fgbook run feng"
        " --profile paper --set sync_batchnorm=true` shares the work of each run.",
    )
)
@choosing_rows
@over_seeds("1")
@within_budget
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of the recipe; repeatable.",
)
@click.option(
    "--tensorboard",
    is_flag=True,
    help="Also write losses, rates and validation for TensorBoard, into each run's"
    " folder.",
)
@publishes
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what it would take: settings, memory, time. Keeps nothing but"
    " decoded pictures.",
)
@with_keys("--dry-run")
@click.option(
    "--record",
    "copy",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the record of the one run that is asked for to this file (.json),"
    " and its predictions beside it (.npz).",
)
def run(
    paper: str,
    rows: tuple[str, ...],
    profile: str,
    datasets: tuple[str, ...],
    options: tuple[str, ...],
    device: str | None,
    train: bool,
    seeds: int | None,
    chosen: tuple[int, ...],
    budget_minutes: float | None,
    changes: tuple[str, ...],
    tensorboard: bool,
    publish: bool,
    dry_run: bool,
    keys: bool,
    copy: Path | None,
) -> None:
    """Train and measure rows of a PAPER.

    Each run leaves a record. A row that has been run with the same settings is not run
    again; a run that was stopped goes on where it was.
    """
    from .. import papers, recipe

    numbers = numbers_of(seeds, chosen) or [0]
    if keys and not dry_run:
        raise InputError("--keys only says something with --dry-run; give both.")
    # all that is wrong in what was typed is said before torch is imported
    about = papers.get(paper)
    lines = [about.row(name) for name in dict.fromkeys(rows)]
    overrides = {
        name: recipe.parse(name, text)
        for name, text in recipe.equations("--set", changes, "epochs=12").items()
    }
    dataset = one_dataset(datasets)
    check_device(device)

    from ..evidence import plan, runs
    from ..training import devices

    names = [line.name for line in lines] or None
    changed = plan.typed_options(lines or about.rows_at(profile), options, "--option")
    wanted = (paper, names, profile, dataset, numbers)
    planned = runs.planned(*wanted, overrides, changed)
    if copy is not None:
        check_copy(copy, len(planned))
    if dry_run:
        foresee(planned, keys, device)
        return

    with quiet_disk():
        found = runs.rows(
            *wanted,
            overrides=overrides,
            options=changed,
            device=device,
            budget_minutes=budget_minutes,
            tensorboard=tensorboard,
            train=train,
        )
    devices.leave()
    if not devices.first():
        return
    if found:  # else runs.rows has said why not
        click.echo(table(found))
    if publish:
        publish_all(found)
    if copy is not None and found:
        write_copy(found[0], copy)
    if len(found) < len(planned):
        raise Exit(AGAIN)  # runs.rows has said why


def foresee(planned: list["Run"], keys: bool, device: str | None) -> None:
    """Say what runs would take, or only their keys."""
    from ..evidence import estimate, records

    if not keys:
        for said in estimate.report(planned, device):
            click.echo(said)
        return
    for one in planned:
        state = "done"
        if records.find(one.key) is None:
            state = "to do" if estimate.epochs_done(one) is None else "begun"
        click.echo(key_line(one, state, one.command))


def check_copy(path: Path, runs: int) -> None:
    """Refuse a --record that cannot be, before anything is trained."""
    if runs != 1:
        raise InputError(
            f"--record writes the record of one run, and {runs} are asked for; choose"
            " one --row and one --seed."
        )
    if path.suffix != ".json":
        raise InputError(f"--record {path}: the name of the file must end in .json.")
    refuse_unwritable(path.parent, f"--record {path}")
    with suppress(FileNotFoundError):
        # raises OSError for a name that is too long
        path.with_name(f"{path.name}.tmp").lstat()


def write_copy(record: dict, path: Path) -> None:
    """The record, with its predictions, in a place that the person has named."""
    from ..evidence import records

    predictions = records.load_predictions(record) if record["predictions"] else None
    records.save(record, predictions, path)


@click.command(epilog=examples("fgbook tune feng --row plain --profile photo"))
@choosing_rows
@publishes
def tune(
    paper: str,
    rows: tuple[str, ...],
    profile: str,
    datasets: tuple[str, ...],
    options: tuple[str, ...],
    device: str | None,
    train: bool,
    publish: bool,
) -> None:
    """Try settings on the validation split.

    Those that the PAPER's file lists; without --row for all rows that it lists some
    for. The test split is not touched.
    """
    from .. import papers

    about = papers.get(paper)
    tuned = about.tuning[profile].tries if profile in about.tuning else {}
    lines = [about.row(name) for name in dict.fromkeys(rows) or tuned]
    if not tuned:
        raise InputError(
            f"{paper} lists no tuning for profile {profile!r}; it does for:"
            f" {', '.join(about.tuning) or 'none'}."
        )
    for line in lines:  # before hours of the first one
        if line.name not in tuned:
            raise InputError(
                f"{paper} lists no tuning for row {line.name!r} at profile {profile!r};"
                f" it does for: {', '.join(tuned)}."
            )
    dataset = one_dataset(datasets)
    check_device(device)

    from ..evidence import plan, tuning
    from ..training import devices

    changed = plan.typed_options(lines, options, "--option")
    for line in lines:
        with quiet_disk():
            found = tuning.tune(
                paper,
                line.name,
                profile,
                dataset,
                options=changed,
                device=device,
                train=train,
            )
        if not devices.first():
            continue
        click.echo(f"{line.name}: {len(found)} settings, best first")
        for record in found:
            click.echo(attempt(record))
        if publish:
            publish_all(found)
    devices.leave()


def attempt(record: dict) -> str:
    """A line about a try of the tuning: what came out, what was changed, and whether
    it was long enough.
    """
    from ..evidence.records import changes
    from ..evidence.tuning import last_quarter

    said = ", ".join(f"{name}={value}" for name, value in changes(record).items())
    top1 = record["metrics"]["val"]["top1"]
    line = f"  {100 * top1:5.1f} % top-1 on validation   {said or 'as it is'}"
    rise = last_quarter(record)
    return line if rise is None else f"{line}   (last quarter of epochs: {rise:+.1f})"


def publish_all(found: list[dict]) -> None:
    """Copy records to the published ones, and say where each went."""
    from ..evidence import records

    for record in found:
        click.echo(f"published: {records.publish(record)}")


@click.command(epilog=examples("fgbook pretrain --out my-weights"))
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Length of the training.  [default: that of the shipped weights]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the weights.  [default: where the package keeps them]",
)
@on_device
def pretrain(epochs: int | None, out: Path | None, device: str | None) -> None:
    """Train the small backbone of the package.

    On the source pool of generated birds, whose species no run is tested on.
    """
    check_device(device)
    from ..evidence import pretrain as weights

    with quiet_disk():
        record = weights.pretrain(
            epochs=epochs or weights.RECIPE.epochs,
            out=out or weights.SHIPPED.parent,
            device=device,
        )
    click.echo(
        "top-1 on the source pool's test split:"
        f" {100 * record['accuracy']['test']['top1']:.1f} %; sha256 {record['sha256']}"
    )
