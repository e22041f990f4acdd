"""``fgbook causal``: judge what explains trained models, by experiment."""

import time

import click
from click.core import ParameterSource
from click.exceptions import Exit

from ..errors import AGAIN, InputError, unfinished
from .common import check_device, examples, on_device, publishes, within_budget
from .predict import key_or_folder

# Parameter -> option that only one of the two ways has.
OF_RUN = {"scenes": "--scenes", "publish": "--publish"}
OF_TABLE = {
    "networks": "--network",
    "shares": "--share",
    "seeds": "--seeds",
    "budget_minutes": "--budget-minutes",
}


@click.command(
    epilog=examples(
        "fgbook causal --run 3f2a",
        "fgbook causal --run 3f2a --scenes 200",
        "fgbook causal --run 3f2a --scenes 48 --publish",
        "fgbook causal --table --budget-minutes 60",
        "fgbook causal --table --network plain --share 0 --share 100",
        note='The key of a run is in the column "first run" of `fgbook results`; its'
        " first letters will do. The chapter on causes says what the columns mean.",
    )
)
@click.option(
    "--run",
    "key",
    help="Key of a run on drawn birds, or the folder of its model.",
)
@click.option(
    "--scenes",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Of one run: drawn birds to experiment with, each takes 16 pictures; or"
    " photographs whose parts are edited.",
)
@click.option(
    "--table",
    is_flag=True,
    help="Make what is missing of the book's table, all methods with and without"
    " planted shortcuts, and publish its numbers in results/causal. Hours on a core.",
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    help="Of the table: only this network; repeatable.  [default: all]",
)
@click.option(
    "--share",
    "shares",
    multiple=True,
    type=int,
    help="Of the table: only this per cent of training images with a planted"
    " background; repeatable.  [default: 0, and 50, 90 and 100 for the networks"
    " that are asked about shortcuts]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="Of the table: trainings of each network.  [default: 5]",
)
@within_budget
@publishes
@on_device
@click.pass_context
def causal(
    ctx: click.Context,
    key: str | None,
    scenes: int,
    table: bool,
    networks: tuple[str, ...],
    shares: tuple[int, ...],
    seeds: int | None,
    budget_minutes: float | None,
    publish: bool,
    device: str | None,
) -> None:
    """Change one attribute of a drawn bird, and see who notices.

    Prints what moves a model's prediction, and how well each of its explanations points
    at the cause: of one trained model (--run), or of all of the table's. Of a model of
    photographs whose parts are marked, such as cub50: how well its explanations know
    which parts matter.
    """
    if (key is None) != table:
        raise InputError(
            "choose one: --run KEY judges a trained model, --table makes the book's"
            " table."
        )
    kind, others = ("--table", OF_RUN) if table else ("--run", OF_TABLE)
    for name, option in others.items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(f"{option} says nothing beside {kind}; leave it out.")
    check_device(device)
    if key is not None:
        _one(key, scenes, publish, device)
        return
    end = None if budget_minutes is None else time.monotonic() + 60 * budget_minutes
    _table(networks, shares, seeds, end, device)


def _table(
    networks: tuple[str, ...],
    shares: tuple[int, ...],
    seeds: int | None,
    end: float | None,
    device: str | None,
) -> None:
    """Make the lines that are missing, until the time ends."""
    from ..evidence import causes, records

    records.publishing_folder()  # refuses before hours of training
    wanted = causes.planned(networks, shares, seeds or causes.SEEDS)
    todo = causes.missing(wanted)
    click.echo(f"{len(wanted) - len(todo)} of {len(wanted)} networks are there.")
    for place, one in enumerate(todo):
        left = None if end is None else (end - time.monotonic()) / 60
        if (left is not None and left <= 0) or not causes.make(one, device, left):
            done = len(wanted) - len(todo) + place
            click.echo(unfinished(done, len(wanted)), err=True)
            raise Exit(AGAIN)
        shown = f"{one.network}, shortcut {one.share} %, seed {one.seed}"
        click.echo(f"{time.strftime('%H:%M:%S')} {shown}: published")


def _one(key: str, count: int, publish: bool, device: str | None) -> None:
    """Judge the explanations of one trained model."""
    model_of = key_or_folder(key)

    from ..evaluation import causal as experiment
    from ..evidence import causes, runs
    from ..figures import causal as drawn
    from ..recipe import Recipe

    model, about = runs.load_model(model_of, device)
    dataset = about.get("dataset", "unknown data")
    if dataset.startswith("cub"):
        edited = causes.edit_parts(model, about, count, publish)
        click.echo(drawn.parts_table(edited).text)
        return
    # the birds of the source pool are of other species than those of the experiment
    if not dataset.startswith("fieldguide") or dataset == "fieldguide-source":
        raise InputError(
            f"run {about['key']} was trained on {dataset}; the experiment needs drawn"
            " birds: name a run whose data set is fieldguide (or one of cub's, whose"
            " parts are marked)."
        )
    if publish:
        raise InputError(
            "numbers of drawn birds are published by --table, of all networks alike."
        )
    recipe = Recipe.of(about["recipe"])
    scores = experiment.judge(model, experiment.of(recipe, count))
    found = {about.get("row", about["method"]): [scores]}
    for shown in (drawn.network_table(found), drawn.maps_table(found)):
        click.echo(f"{shown.text}\n")
    for name, why in scores.refused.items():
        click.echo(f"no {name}: {why}")
