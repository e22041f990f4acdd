"""``fgbook causal``: judge what explains a trained model, by experiment."""

import click

from ..errors import InputError
from .common import check_device, examples, on_device
from .predict import key_or_folder


@click.command(
    epilog=examples(
        "fgbook causal --run 3f2a",
        "fgbook causal --run 3f2a --scenes 200",
        note='The key of a run is in the column "first run" of `fgbook results`; its'
        " first letters will do. The chapter on causes says what the columns mean.",
    )
)
@click.option(
    "--run",
    "key",
    required=True,
    help="Key of a run on drawn birds, or the folder of its model.",
)
@click.option(
    "--scenes",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Drawn birds to experiment with; each takes 16 pictures.",
)
@on_device
def causal(key: str, scenes: int, device: str | None) -> None:
    """Change one attribute of a drawn bird, and see who notices.

    Prints what moves the model's prediction, and how well each of its explanations
    points at the cause.
    """
    check_device(device)
    model_of = key_or_folder(key)

    from ..evaluation import causal as experiment
    from ..evidence import runs
    from ..figures import causal as drawn
    from ..recipe import Recipe

    model, about = runs.load_model(model_of, device)
    dataset = about.get("dataset", "unknown data")
    if not dataset.startswith("fieldguide"):
        raise InputError(
            f"run {about['key']} was trained on {dataset}; the experiment needs drawn"
            " birds: name a run whose data set is fieldguide."
        )
    recipe = Recipe.of(about["recipe"])
    scores = experiment.judge(model, experiment.of(recipe, scenes))
    found = {about.get("row", about["method"]): [scores]}
    for shown in (drawn.network_table(found), drawn.maps_table(found)):
        click.echo(f"{shown.text}\n")
    for name, why in scores.refused.items():
        click.echo(f"no {name}: {why}")
