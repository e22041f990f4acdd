"""``fgbook export``: a trained model as a file that other programs run."""

from pathlib import Path

import click

from ..errors import InputError
from .common import Failed, examples
from .predict import key_or_folder

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


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
    type=click.Choice(list(SUFFIXES)),
    help="onnx, for ONNX Runtime; torch, for PyTorch without this package.  [default:"
    " by the name of the file]",
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
def export(key: str, kind: str | None, path: Path) -> None:
    """Write a trained model as one file, and check it.

    The file takes any number of images at once and holds the names of the classes, how
    a picture is brought to its size, and which training made it.
    """
    kind = check_output(kind, path)
    model_of = key_or_folder(key)

    from ..evidence import runs
    from ..export import check, description, files, opened, to_onnx, to_torch, traced

    if kind == "onnx":
        to_onnx.check_installed()
    model, about = runs.load_model(model_of, "cpu")
    size = about["recipe"]["image_size"]
    module = traced.predicting(model, about)
    program = traced.program(module, size)
    described = description.describe(about)

    made: opened.Opened
    if kind == "onnx":
        content = to_onnx.convert(program, described)
        made = opened.OpenedOnnx(content, threads=1)
    else:
        content = to_torch.convert(program, described)
        made = opened.OpenedProgram(content)
    largest = check.difference(module, made.logits, size)
    if not largest <= check.LIMIT:
        raise Failed(
            f"nothing was written: the exported model differs from PyTorch by up to"
            f" {largest:.1e}, more than {check.LIMIT:g}."
        )
    files.write(path, content)
    sizes = ", ".join(map(str, check.BATCHES))
    click.echo(
        f"{path}: {len(content) / 1e6:.1f} MB; differs from PyTorch by at most"
        f" {largest:.1e} (batches of {sizes})"
    )


def check_output(kind: str | None, path: Path) -> str:
    """The format that is meant. Raises InputError where the name of the file does not
    say it, or another one, or where it cannot stand.
    """
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    of_name = by_suffix.get(path.suffix)
    if of_name is None or kind not in (None, of_name):
        wanted = SUFFIXES[kind] if kind else " or ".join(by_suffix)
        raise InputError(f"-o {path}: the name of the file should end in {wanted}.")
    if path.is_dir():
        raise InputError(f"-o {path} is a folder; name a file.")
    if not path.parent.is_dir():
        raise InputError(f"-o {path}: there is no folder {path.parent}.")
    return of_name
