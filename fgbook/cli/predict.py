"""``fgbook predict``: name the class of new pictures with a trained model."""

from pathlib import Path

import click

from .. import paths
from ..errors import InputError, unknown
from .common import check_device, examples, known_records, on_device


@click.command(
    epilog=examples(
        "fgbook predict bird.jpg --run 3f2a",
        "fgbook predict photos/*.jpg --run 3f2a --top 3",
        note='The key of a run is in the column "first run" of `fgbook results`; its'
        " first letters will do.",
    )
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
@on_device
def predict(images: tuple[Path, ...], key: str, top: int, device: str | None) -> None:
    """Name the class of IMAGEs with a trained model."""
    for image in images:
        if not image.is_file():
            raise InputError(f"{image}: there is no such file.")
    check_device(device)
    record = record_of(key)
    if not (paths.runs() / record["key"] / "model.safetensors").is_file():
        raise InputError(
            f"the weights of run {record['key']} are not on this machine (weights are"
            f" not published); train it: {record['command']} --train"
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
    place = next(model.parameters()).device
    shown = min(top, dataset.num_classes)
    # as the training images were
    resolution = "low" if made.recipe.resolution == "low" else "high"
    for image in dict.fromkeys(images):
        pixels, _ = store.decode(image, made.recipe.store_size)
        square = torch.from_numpy(pixels)[None].to(place)
        whole = torch.zeros(1, device=place).long()
        seen = augment.evaluation_view(square, whole, made.recipe, resolution)
        with torch.inference_mode():
            best = model.predict(seen).softmax(1)[0].topk(shown)
        click.echo(f"{image}")
        for share, index in zip(
            best.values.tolist(), best.indices.tolist(), strict=True
        ):
            click.echo(f"  {100 * share:5.1f} %  {dataset.classes[index]}")


def record_of(key: str) -> dict:
    """The record of the run whose key begins so. Raises InputError for none, and for
    several.
    """
    known = {record["key"]: record for record in known_records()}
    matching = [name for name in known if name.startswith(key)]
    if len(matching) > 1:
        raise InputError(
            f"{len(matching)} runs begin with {key!r}; give more letters:"
            f" {', '.join(matching[:5])}."
        )
    if matching:
        return known[matching[0]]
    if not known:
        raise InputError(
            f"unknown run {key!r}: nothing has been run here yet; start with"
            " `fgbook run feng`."
        )
    raise unknown("run", key, known)
