"""The command line. Heavy imports stand inside the commands, so that ``--help`` and
wrong names answer at once."""

import errno
import json
import os
import platform
import shutil
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from .. import __version__, paths
from ..errors import InputError, unknown

# What the system says when a place cannot be written: the person can do something about
# these, a traceback would only hide it.
UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
)


class Refused(click.ClickException):
    """Printed as "Error: ..." on stderr, without a traceback."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Commands(click.Group):
    """A group whose commands end in one sentence: 2 for wrong input, 1 for a failure,
    130 after Ctrl-C."""

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise Refused(str(unknown("command", args[0], self.list_commands(ctx))), 2)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise Refused(str(error), 2) from error
        except KeyboardInterrupt:
            click.echo("\nstopped; run the same command again to continue.", err=True)
            ctx.exit(130)
        except BrokenPipeError:  # the reader of our output has gone, as with `| head`
            # else Python complains once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            place = error.filename or "a file"
            raise Refused(
                f"cannot use {place} ({error.strerror}); free some space, or choose"
                " another folder (FGBOOK_RUNS).",
                2,
            ) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
\b
Examples:
  fgbook reproduce                              all notebooks at the quick profile, then the book
  fgbook run feng --row hybrid                  one row of a paper, on generated birds, no download
  fgbook run feng --profile photo --seeds 3     all rows on real photographs
  fgbook results feng --verdicts                what came out
  fgbook predict bird.jpg --run 3f2a            name the bird in a photograph
  fgbook doctor                                 what is installed and found on this machine
""",
)
@click.version_option(__version__, prog_name="fgbook")
def cli():
    """Fine-grained image classification: papers, their methods, runs and verdicts."""


# ---- notebooks and book


@cli.command(
    epilog="""
\b
Examples:
  fgbook reproduce
  fgbook reproduce feng_accuracy -p profile photo -p seeds 3
  fgbook reproduce --jobs 1 --force
"""
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
    type=click.FloatRange(0, min_open=True),
    help="Time limit of one cell.  [default: 30; with -p a day]",
)
@click.option("--force", is_flag=True, help="Execute again what is up to date.")
@click.option("--no-book", is_flag=True, help="Execute the notebooks only.")
def reproduce(names, given, jobs, minutes, force, no_book):
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
        dict(given),
        jobs=jobs,
        minutes=minutes,
        force=force,
    )
    failed = [result.name for result in results if result.state == "failed"]
    if failed:
        raise Refused(
            f"{len(failed)} of {len(results)} notebooks failed: {', '.join(failed)};"
            " the book was not built.",
            1,
        )
    if given:
        click.echo(f"executed copies: {where / '_build' / 'batch'}")
    if not (names or given or no_book):
        _book(batch, where, force)


@cli.command(
    epilog="""
\b
Example:
  fgbook book && open _build/html/index.html
"""
)
@click.option("--force", is_flag=True, help="Build even if nothing has changed.")
def book(force):
    """Build the book from executed notebooks.

    Executes none; `fgbook reproduce` does.
    """
    from .. import reproduce as batch

    _book(batch, batch.clone(), force)


def _book(batch, where: Path, force: bool) -> None:
    try:
        page = batch.build_book(where, force=force)
    except batch.Failure as failure:
        raise Refused(str(failure), 1) from failure
    click.echo(f"the book: {page}")


# ---- running rows


def training_options(command):
    """The options that `run` and `tune` share."""
    for option in reversed(
        [
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
                help=(
                    "quick (generated birds, minutes), photo (photographs, an hour) or"
                    " paper (as printed, GPU)."
                ),
            ),
            click.option(
                "--dataset",
                help=(
                    "A data set, or folder:PATH for your own images.  [default: the"
                    " profile's first]"
                ),
            ),
            click.option(
                "--device", help="cpu, cuda, cuda:1.  [default: a GPU if there is one]"
            ),
        ]
    ):
        command = option(command)
    return command


@cli.command(
    epilog="""
\b
Examples:
  fgbook run feng --row plain --row hybrid --seeds 3
  fgbook run feng --profile photo --dataset cub50 --budget-minutes 30
  fgbook run feng --row hybrid --profile photo --dataset folder:~/my-birds
  fgbook run feng --row plain --set epochs=12 --set lr=0.02
  fgbook run feng --profile photo --seeds 3 --dry-run
On several GPUs: torchrun --nproc-per-node 4 -m fgbook run feng --profile paper --set sync_batchnorm=true
"""
)
@training_options
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="Train with seeds 0 .. N-1.  [default: 1]",
    metavar="N",
)
@click.option(
    "--seed",
    "chosen",
    type=click.IntRange(0),
    multiple=True,
    help="Train with this seed; repeatable.",
    metavar="SEED",
)
@click.option(
    "--budget-minutes",
    type=click.FloatRange(0, min_open=True),
    help="Stop cleanly after N minutes; run again to go on.",
    metavar="N",
)
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
    help=(
        "Also write losses, rates and validation for TensorBoard, into each run's"
        " folder."
    ),
)
@click.option(
    "--publish",
    is_flag=True,
    help="Copy the records to the published ones, which the book prints.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what it would take: settings, memory, time. Keeps nothing.",
)
def run(
    paper,
    rows,
    profile,
    dataset,
    device,
    seeds,
    chosen,
    budget_minutes,
    changes,
    tensorboard,
    publish,
    dry_run,
):
    """Train and measure rows of a PAPER.

    Each run leaves a record. A row that has been run with the same settings is not run
    again; a run that was stopped goes on where it was.
    """
    from .. import papers

    if seeds and chosen:
        raise InputError(
            "--seeds N and --seed SEED exclude each other; use one of them."
        )
    about = papers.get(paper)
    # checked before torch is imported
    names = [about.row(name).name for name in rows] or None
    overrides = _changes(changes)
    _device(device)
    from ..evidence import runs
    from ..training import devices

    wanted = (
        paper,
        names,
        profile,
        _expanded(dataset),
        list(chosen) or list(range(seeds or 1)),
    )
    planned = runs.planned(*wanted, overrides)
    if dry_run:
        from ..evidence import estimate

        for line in estimate.report(planned, device):
            click.echo(line)
        return
    with _quiet_disk():
        found = runs.rows(
            *wanted,
            overrides=overrides,
            device=device,
            budget_minutes=budget_minutes,
            tensorboard=tensorboard,
        )
    devices.leave()
    if not devices.first():
        return
    click.echo(_table(found))
    if publish:
        _publish(found)
    if len(found) < len(planned):
        click.echo(
            f"the time budget ended after {len(found)} of {len(planned)} runs; run the"
            " same command again to go on.",
            err=True,
        )


@cli.command(
    epilog="""
\b
Example:
  fgbook tune feng --row plain --profile photo
"""
)
@training_options
@click.option(
    "--publish",
    is_flag=True,
    help="Copy the records to the published ones, which the book prints.",
)
def tune(paper, rows, profile, dataset, device, publish):
    """Try settings on the validation split.

    Those that the PAPER's file lists; without --row for all rows that it lists some
    for. The test split is not touched.
    """
    from .. import papers

    about = papers.get(paper)
    tuned = about.tuning[profile].tries if profile in about.tuning else {}
    lines = [about.row(name) for name in rows or tuned]
    if not lines:
        raise InputError(
            f"{paper} lists no tuning for profile {profile!r}; it does for:"
            f" {', '.join(about.tuning) or 'none'}."
        )
    _device(device)
    from ..evidence import runs
    from ..training import devices

    for line in lines:
        with _quiet_disk():
            found = runs.tune(
                paper, line.name, profile, _expanded(dataset), device=device
            )
        if not devices.first():
            continue
        click.echo(f"{line.name}: {len(found)} settings, best first")
        for record in found:
            change = (
                ", ".join(
                    f"{name}={value}" for name, value in record["overrides"].items()
                )
                or "as it is"
            )
            click.echo(
                f"  {100 * record['metrics']['val']['top1']:5.1f} % top-1 on validation"
                f"   {change}"
            )
        if publish:
            _publish(found)
    devices.leave()


@cli.command(
    epilog="""
\b
Example:
  fgbook pretrain --out my-weights
"""
)
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
@click.option("--device", help="cpu, cuda, cuda:1.  [default: a GPU if there is one]")
def pretrain(epochs, out, device):
    """Train the small backbone of the package.

    On the source pool of generated birds, whose species no run is tested on.
    """
    _device(device)
    from ..evidence.pretrain import pretrain as train

    with _quiet_disk():
        record = train(
            **{
                name: value
                for name, value in (
                    ("epochs", epochs),
                    ("out", out),
                    ("device", device),
                )
                if value is not None
            }
        )
    click.echo(
        "top-1 on the source pool's test split:"
        f" {100 * record['accuracy']['test']['top1']:.1f} %; sha256 {record['sha256']}"
    )


def _publish(found: list[dict]) -> None:
    from ..evidence import records

    for record in found:
        click.echo(f"published: {records.publish(record)}")


def _changes(pairs: tuple[str, ...]) -> dict:
    """Recipe fields from FIELD=VALUE, in the types of their defaults."""
    from ..recipe import Recipe
    from ..reproduce import convert

    defaults, changes = Recipe().as_dict(), {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(
                f"--set {pair!r} has no '='; write FIELD=VALUE, as in --set epochs=12."
            )
        if name not in defaults:
            raise unknown("recipe field", name, defaults)
        kind = type(defaults[name]).__name__
        try:
            changes[name] = convert(text, kind)
        except ValueError:
            raise InputError(
                f"recipe: {name} must be of type {kind} (default {defaults[name]!r});"
                f" got {text!r}."
            ) from None
    return changes


def _expanded(dataset: str | None) -> str | None:
    """``folder:~/birds`` with the home folder written out; the shell does that only at
    the beginning of a word."""
    return (
        f"folder:{Path(dataset[7:]).expanduser()}"
        if dataset and dataset.startswith("folder:")
        else dataset
    )


def _device(name: str | None) -> None:
    """Refuse a device that this machine does not have, before any data are read."""
    if name is None:
        return
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); there"
            f" is: {', '.join(there)}."
        ) from error


@contextmanager
def _quiet_disk():
    """Torch and safetensors report a full disk as errors of their own: say it as for
    any other file."""
    try:
        yield
    except Exception as error:
        signs = ("No space left", "PytorchStreamWriter", "File too large")
        if isinstance(error, (OSError, InputError)) or not any(
            sign in str(error) for sign in signs
        ):
            raise
        said = str(error).splitlines()[0]
        raise InputError(
            f"cannot write in {paths.runs()} ({said}); free some space, or choose"
            " another folder (FGBOOK_RUNS)."
        ) from error


# ---- results


@cli.command(
    epilog="""
\b
Examples:
  fgbook results
  fgbook results feng --verdicts
  fgbook results feng --json > feng.json
"""
)
@click.argument("paper", required=False)
@click.option("--verdicts", is_flag=True, help="Which claims hold.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The records themselves (with --verdicts: the verdicts), as JSON.",
)
def results(paper, verdicts, as_json):
    """What has been measured.

    The published records, and those made on this machine.
    """
    from .. import papers
    from ..evidence import records

    about = [papers.get(name) for name in ([paper] if paper else papers.names())]
    # rows may share a run
    everything = {
        (r["paper"], r["row"], r["key"]): r
        for r in records.published(purpose=None) + records.fresh()
    }
    chosen = [
        r
        for p in about
        for r in records.select(
            list(everything.values()), paper=p.key, purpose="result"
        )
    ]
    if verdicts:
        _verdicts(about, chosen, as_json)
    elif as_json:
        click.echo(
            json.dumps(
                [
                    {name: value for name, value in r.items() if name != records.FOLDER}
                    for r in chosen
                ],
                indent=1,
            )
        )
    else:
        click.echo(_table(chosen))


def _table(found: list[dict]) -> str:
    """Records as a table, a line for each row, recipe and data set: mean over seeds and
    its 95 % interval."""
    from ..evidence.verdicts import summary
    from ..recipe import Recipe

    if not found:
        return "no results yet; make some with `fgbook run feng`."
    groups: dict[str, list[dict]] = {}
    for r in found:
        same = {
            name: r[name]
            for name in (
                "paper",
                "row",
                "profile",
                "dataset",
                "options",
                "weights",
                "data_fingerprint",
            )
        }
        # older records lack the fields that came later
        same["recipe"] = Recipe.of(r["recipe"]).determinants()
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(r)
    lines = [
        (
            "paper",
            "row",
            "profile",
            "data set",
            "px",
            "seeds",
            "top-1 %",
            "95 % over seeds",
            "low-res %",
            "printed",
            "first run",
            "changes",
        )
    ]
    for group in groups.values():
        r = min(group, key=lambda r: r["seed"])
        top1 = summary([100 * r["metrics"]["test"]["top1"] for r in group])
        interval = f"{top1['low']:.1f} to {top1['high']:.1f}" if len(group) > 1 else ""
        low = [
            100 * r["metrics"]["test_low"]["top1"]
            for r in group
            if "test_low" in r["metrics"]
        ]
        # only like beside like
        printed = (
            f"{r['printed']:.1f}"
            if r["printed"] is not None and r["profile"] == "paper"
            else ""
        )
        changes = ", ".join(f"{name}={value}" for name, value in r["overrides"].items())
        lines.append(
            (
                r["paper"],
                r["row"],
                r["profile"],
                r["dataset"],
                str(r["recipe"]["image_size"]),
                str(len(group)),
                f"{top1['mean']:.1f}",
                interval,
                f"{sum(low) / len(low):.1f}" if low else "",
                printed,
                r["key"],
                changes,
            )
        )
    # none that is empty but for its title
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    lines = list(zip(*columns, strict=True))
    widths = [max(map(len, column)) for column in columns]
    text = "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )
    quick = any(r["profile"] == "quick" for r in found)
    return text + (
        "\nquick runs are illustrations; they are not comparable with printed numbers."
        if quick
        else ""
    )


def _verdicts(about: list, found: list[dict], as_json: bool) -> None:
    """One verdict for each claim, profile and data set; "not run" where there are no
    records to decide."""
    from ..evidence import records
    from ..evidence.verdicts import verdict

    said = []
    for paper in about:
        mine = [r for r in found if r["paper"] == paper.key and not r["overrides"]]
        for profile, dataset in sorted(
            {(r["profile"], r["dataset"]) for r in mine if r["profile"] != "quick"}
        ) or [(None, None)]:
            for claim in paper.claims:
                better, worse = (
                    records.select(mine, row=row, profile=profile, dataset=dataset)
                    for row in (claim.better, claim.worse)
                )
                said.append(
                    (paper.key, profile, dataset, verdict(claim, better, worse))
                )
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "paper": paper,
                        "claim": v.claim.key,
                        "text": v.claim.text,
                        "profile": profile,
                        "dataset": dataset,
                        "outcome": v.outcome,
                        "effect": asdict(v.effect) if v.effect else None,
                        "why": v.why,
                    }
                    for paper, profile, dataset, v in said
                ],
                indent=1,
            )
        )
        return
    for paper, profile, dataset, v in said:
        where = f" on {dataset} ({profile})" if dataset else ""
        click.echo(
            f"{paper} {v.claim.key}{where}: {v.outcome}\n    claim: {v.claim.text}\n   "
            f" {v.why}"
        )


# ---- data and use


@cli.group(
    cls=Commands,
    epilog="""
\b
Examples:
  fgbook data list
  fgbook data get cub
  fgbook data check cub50
  fgbook data path cub
""",
)
def data():
    """Which data sets there are, and where."""


@data.command(
    "list",
    epilog="""
\b
Example:
  fgbook data list
""",
)
def data_list():
    """Every data set, and whether it is on this machine."""
    from .. import data as sets

    for name in sets.names():
        if name in sets.DRAWN:
            found = "generated, no download"
        elif name in sets.PHOTOGRAPHED:
            try:
                found = str(sets.path(name))
            except InputError:
                found = f"missing; `fgbook data check {name}` says how to get it"
        else:
            found = "your own images, a folder for each class"
        click.echo(f"{name:<20}{found}")
    click.echo(f"data sets are looked for in {paths.data()} (FGBOOK_DATA).")


@data.command(
    "check",
    epilog="""
\b
Examples:
  fgbook data check cub50
  fgbook data check folder:~/my-birds
""",
)
@click.argument("name")
def data_check(name):
    """Examine data set NAME: what is in it, what is wrong with it.

    Exits with 1 when there are problems.
    """
    from .. import data as sets

    report = sets.check(_expanded(name))
    for title, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        if isinstance(value, list):
            value = "".join(f"\n  {line}" for line in value[:50]) + (
                f"\n  and {len(value) - 50} more" if len(value) > 50 else ""
            )
        if value not in ("", None):
            click.echo(f"{title}: {value}")
    if report["problems"]:
        click.get_current_context().exit(1)


@data.command(
    "get",
    epilog="""
\b
Examples:
  fgbook data get cub
  fgbook data get aircraft
""",
)
@click.argument("name")
def data_get(name):
    """Download data set NAME from its authors.

    Resumes where it broke off, verifies checksums, and unpacks into the data folder
    (FGBOOK_DATA). Says what to do where the authors' link is dead.
    """
    from ..data import fetch

    click.echo(fetch.get(name))


@data.command(
    "path",
    epilog="""
\b
Example:
  ls "$(fgbook data path cub)"
""",
)
@click.argument("name", required=False)
def data_path(name):
    """The folder of data set NAME, or the folder of all of them."""
    from .. import data as sets

    click.echo(sets.path(_expanded(name)) if name else paths.data())


@cli.command(
    epilog="""
\b
Examples:
  fgbook predict bird.jpg --run 3f2a
  fgbook predict photos/*.jpg --run 3f2a --top 3
The key of a run is in the column "first run" of `fgbook results`; its first letters will do.
"""
)
@click.argument(
    "images",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="IMAGE...",
)
@click.option(
    "--run", "key", required=True, help="Key of the run whose model is to be used."
)
@click.option(
    "--top",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Classes to name for each image.",
)
@click.option("--device", help="cpu, cuda, cuda:1.  [default: a GPU if there is one]")
def predict(images, key, top, device):
    """Name the class of IMAGEs with a trained model."""
    for image in images:
        if not image.is_file():
            raise InputError(f"{image}: there is no such file.")
    _device(device)
    from ..evidence import records

    known = {
        record["key"]: record
        for record in records.published(purpose=None) + records.fresh()
    }
    matching = [name for name in known if name.startswith(key)]
    if len(matching) > 1:
        raise InputError(
            f"{len(matching)} runs begin with {key!r}; give more letters:"
            f" {', '.join(matching[:5])}."
        )
    if not matching:
        if not known:
            raise InputError(
                f"unknown run {key!r}: nothing has been run here yet; start with"
                " `fgbook run feng`."
            )
        raise unknown("run", key, known)
    record = known[matching[0]]
    if not (paths.runs() / record["key"] / "model.safetensors").is_file():
        raise InputError(
            f"the weights of run {record['key']} are not on this machine (weights are"
            f" not published); train it: {record['command']}"
        )
    import torch

    from ..data import store
    from ..evidence import runs
    from ..images import augment

    made = runs.of(record)
    if made.key != record["key"]:
        raise InputError(
            f"run {record['key']} was made by an earlier version of fgbook or with"
            f" other data; make it again: {record['command']}"
        )
    model, dataset = runs.model(made, device=device)
    shown = min(top, dataset.num_classes)
    with torch.inference_mode():
        for image in images:
            square = torch.from_numpy(store.decode(image, made.recipe.store_size)[0])[
                None
            ].to(next(model.parameters()).device)
            # as the training images were
            resolution = "low" if made.recipe.resolution == "low" else "high"
            logits = model.predict(
                augment.evaluation_view(
                    square,
                    torch.zeros(1, device=square.device).long(),
                    made.recipe,
                    resolution,
                )
            )
            best = logits.softmax(1)[0].topk(shown)
            click.echo(f"{image}")
            for share, index in zip(
                best.values.tolist(), best.indices.tolist(), strict=True
            ):
                click.echo(f"  {100 * share:5.1f} %  {dataset.classes[index]}")


@cli.command(
    epilog="""
\b
Example:
  fgbook doctor
"""
)
def doctor():
    """What is installed and found here.

    The first thing to send with a question.
    """
    from importlib import metadata

    import torch

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "-"

    click.echo(
        f"fgbook {__version__}, Python {platform.python_version()}, {platform.system()}"
        f" {platform.machine()}"
    )
    for title, packages in (
        (
            "packages",
            (
                "torch",
                "torchvision",
                "accelerate",
                "torchmetrics",
                "safetensors",
                "numpy",
                "pandas",
            ),
        ),
        (
            "notebooks and book",
            ("papermill", "ipykernel", "jupyter-book", "sphinx", "jupyterlab"),
        ),
        ("optional", ("timm", "tensorboard")),
    ):
        click.echo(
            f"{title}: " + ", ".join(f"{name} {version(name)}" for name in packages)
        )
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )
    found = ", ".join(gpus) or "cpu"
    click.echo(f"device: {found}; {cores} cores, {torch.get_num_threads()} threads")
    for title, folder, variable in (
        ("data", paths.data(), "FGBOOK_DATA"),
        ("weights", paths.weights(), "FGBOOK_WEIGHTS"),
        ("runs", paths.runs(), "FGBOOK_RUNS"),
        ("results", paths.results(), "FGBOOK_RESULTS"),
    ):
        inside = (
            sorted(
                path.name for path in folder.iterdir() if not path.name.startswith(".")
            )
            if folder.is_dir()
            else []
        )
        listed = (
            ""
            if title in ("runs", "results")
            else ": " + ", ".join(inside[:12])
            if inside
            else ""
        )
        click.echo(
            f"{title}: {folder} ({variable}),"
            f" {f'{len(inside)} entries{listed}' if folder.is_dir() else 'not there yet'}"
        )
    shipped = sorted(
        path.name
        for path in (paths.PACKAGE / "backbones" / "shipped").glob("*.safetensors")
    )
    click.echo(f"shipped weights: {', '.join(shipped) or 'none'}")
    existing = next(
        folder for folder in (paths.runs(), *paths.runs().parents) if folder.is_dir()
    )
    writable = "can be written" if os.access(existing, os.W_OK) else "CANNOT be written"
    click.echo(
        f"disk: {shutil.disk_usage(existing).free / 2**30:.1f} GiB free for runs,"
        f" {writable}"
    )


def main() -> None:
    """Entry point: a request to end (SIGTERM, a closed terminal) is treated as Ctrl-C,
    so that children stop and runs can go on later."""
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            # nohup keeps its meaning
            if (
                hasattr(signal, name)
                and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN
            ):
                signal.signal(getattr(signal, name), signal.default_int_handler)
    cli(prog_name="fgbook")
