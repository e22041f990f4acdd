"""``fgbook export``: a trained model as a file that other programs run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from ..export import ENDINGS
from .common import Failed, examples
from .predict import check_output, key_or_folder

if TYPE_CHECKING:
    from ..export.int8 import Pictures


@click.command(
    epilog=examples(
        "fgbook export --run 3f2a -o model.onnx",
        "fgbook export --run 3f2a --int8 -o small.onnx",
        "fgbook export --run 3f2a --format torch -o model.pt2",
        note='The key of a run is in the column "first run" of `fgbook results`; its'
        " first letters will do.",
    )
)
@click.option(
    "--run",
    "key",
    required=True,
    help="Key of the run whose model is to be exported, or the folder of a model.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(ENDINGS)),
    help="onnx, for ONNX Runtime; torch, for PyTorch without this package.  [default:"
    " by the name of the file]",
)
@click.option(
    "--int8",
    "small",
    is_flag=True,
    help="With onnx: in eight bits; their ranges are measured on training pictures,"
    " which must be here.",
)
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write, .onnx or .pt2.",
)
def export(key: str, kind: str | None, small: bool, path: Path) -> None:
    """Write a trained model as one file, and check it.

    The file takes any number of images at once and holds the names of the classes, how
    a picture is brought to its size, and which training made it. It is compared with
    PyTorch before it is written. With --int8, what it loses on validation images is
    told.
    """
    kind = format_of(kind, path)
    if small and kind != "onnx":
        raise InputError(
            "--int8 makes ONNX files only; name the file -o something.onnx."
        )
    model_of = key_or_folder(key)

    from .. import files
    from ..evidence import runs
    from ..export import check, int8, make

    make.check_installed(kind)
    model, about = runs.load_model(model_of, "cpu")
    pictures = int8.pictures(about) if small else None
    made = make.exported(model, about, kind)
    if not made.difference <= check.LIMIT:
        raise Failed(
            "nothing was written: the exported model differs from PyTorch by up to"
            f" {made.difference:.1e}, more than {check.LIMIT:g}."
        )
    content = made.content
    if pictures is not None:
        content = int8.quantise(content, pictures.train)
    files.write(path, content)

    megabytes = len(content) / 1e6
    tried = ", ".join(map(str, check.BATCHES))
    click.echo(
        f"{path}: {megabytes:.1f} MB; in floats it differs from PyTorch by at most"
        f" {made.difference:.1e} (batches of {tried})"
    )
    if pictures is not None:
        click.echo(loss(pictures, made.content, content))


def loss(pictures: "Pictures", floating: bytes, small: bytes) -> str:
    """What eight bits cost on validation images, as a sentence."""
    from ..export import int8

    if not len(pictures.labels):
        return "there are no validation images to say what eight bits cost"
    before, after = (int8.accuracy(made, pictures) for made in (floating, small))
    return (
        f"accuracy on {len(pictures.labels)} validation images: {100 * after:.1f} % in"
        f" eight bits, {100 * before:.1f} % in floats"
    )


def format_of(kind: str | None, path: Path) -> str:
    """The format that is meant. Raises InputError where the name of the file does not
    say it, or another one, or where the file cannot stand.
    """
    fitting = {end: name for name, end in ENDINGS.items() if kind in (None, name)}
    check_output(path, tuple(fitting))
    return fitting[path.suffix]
