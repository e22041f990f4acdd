"""``fgbook predict``: name the class of new pictures with a trained model."""

from pathlib import Path

import click

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
    "--run",
    "key",
    required=True,
    help="Key of the run whose model is to be used, or the folder of a model.",
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
    model_of = key_or_folder(key)

    import torch

    from ..data import store
    from ..evidence import runs
    from ..images import augment
    from ..recipe import Recipe

    model, about = runs.load_model(model_of, device)
    recipe = Recipe.of(about["recipe"])
    place = next(model.parameters()).device
    # as the training images were
    resolution = "low" if recipe.resolution == "low" else "high"
    for image in dict.fromkeys(images):
        pixels, _ = store.decode(image, recipe.store_size)
        square = torch.from_numpy(pixels)[None].to(place)  # (1, 3, S, S) uint8
        first = torch.zeros(1, dtype=torch.int64, device=place)  # its place in a split
        seen = augment.evaluation_view(square, first, recipe, resolution)
        with torch.inference_mode():
            shares = model.predict(seen).softmax(1)[0]  # (C,)
        click.echo(f"{image}")
        for index in shares.argsort(descending=True)[:top].tolist():
            click.echo(f"  {100 * shares[index]:5.1f} %  {about['classes'][index]}")


def key_or_folder(given: str) -> str | Path:
    """What names a trained model: its folder, or the whole key of which only the first
    letters are given.

    Raises InputError for letters with which no run's key begins, or several.
    """
    # a run of before model.json has its record beside the weights
    for name in ("model.json", "model.safetensors"):
        if (Path(given) / name).is_file():
            return Path(given)
    known = {record["key"]: record for record in known_records()}
    matching = [key for key in known if key.startswith(given)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise InputError(
            f"{len(matching)} runs begin with {given!r}; give more letters:"
            f" {', '.join(matching[:5])}."
        )
    if not known:
        raise InputError(
            f"unknown run {given!r}: nothing has been run here yet; start with"
            " `fgbook run feng`."
        )
    raise unknown("run", given, known)
