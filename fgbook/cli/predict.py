"""``fgbook predict``: name the class of new pictures with a trained model."""

import csv
import io
import json
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import WRONG_INPUT, InputError, listed
from ..export import ENDINGS
from ..files import refuse_unwritable
from .common import check_device, examples, known_records, on_device

if TYPE_CHECKING:
    import numpy as np

    from ..methods import Method
    from ..recipe import Recipe
    from .explained import Explainer

BATCH = 32
"""Pictures that are looked at together, while the next ones are decoded."""

WRITTEN = (".csv", ".jsonl")
"""How the names of files with predictions end."""


@dataclass(frozen=True)
class Namer:
    """A trained model, wherever it comes from."""

    classes: list[str]
    size: int  # pixels, of the squares that pictures are decoded to
    # pictures (B, 3, size, size) uint8 -> probabilities (B, C)
    shares: "Callable[[np.ndarray], np.ndarray]"
    explainer: "Explainer | None" = None


@dataclass(frozen=True)
class Named:
    """What is said of one picture: the most probable classes first."""

    path: Path
    top: list[tuple[str, float]]  # class, probability in 0 .. 1


@click.command(
    epilog=examples(
        "fgbook predict bird.jpg --run 3f2a",
        "fgbook predict photos/*.jpg --run 3f2a --top 3",
        "fgbook predict photos --run model.onnx -o birds.csv",
        note='The key of a run is in the column "first run" of `fgbook results`; its'
        " first letters will do.",
    )
)
@click.argument(
    "pictures",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, readable=False),
    metavar="IMAGE...",
)
@click.option(
    "--run",
    "given",
    required=True,
    help="Key of the run whose model is to be used, the folder of a model, or a file"
    " that `fgbook export` wrote.",
)
@click.option(
    "--top",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Classes to name for each image.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a table (.csv) or a JSON object a line (.jsonl) in place of printing.",
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also save each picture in this folder, lit where the model looks, with its"
    " regions or boxes.",
)
@click.option(
    "--workers",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Processes that decode pictures. Without it threads do, which is faster where"
    " there are few cores.",
)
@on_device
@click.pass_context
def predict(
    ctx: click.Context,
    pictures: tuple[Path, ...],
    given: str,
    top: int,
    output: Path | None,
    explain: Path | None,
    workers: int,
    device: str | None,
) -> None:
    """Name the class of IMAGEs, and of all pictures in folders, with a trained model.

    A file that cannot be read is named, and the others go on; the exit status is then
    2.
    """
    check_output(output, WRITTEN)
    files, left_out = walked(pictures)
    namer = load(given, device, explain)
    for said in left_out:
        click.echo(said, err=True)

    found = []
    unreadable = False
    for answer in answers(namer, files, top, workers, quiet=output is None):
        if isinstance(answer, InputError):
            unreadable = True
            click.echo(f"Error: {answer}", err=True)
        elif output is None:
            show(answer)
        else:
            found.append(answer)

    if output is not None:
        write(output, found, min(top, len(namer.classes)))
        click.echo(f"{output}: {len(found)} of {len(files)} images")
    if namer.explainer is not None:
        click.echo(namer.explainer.said())
    if unreadable:
        ctx.exit(WRONG_INPUT)


# ---- which pictures


def walked(given: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The files that are asked for, each once, in the order given; of a folder, all
    pictures below it, by name, but for what is hidden or belongs to a tool. And a line
    for each folder of which something else is left out. Raises InputError for what is
    not there.
    """
    from ..data.folder import pictures_below
    from ..data.photos import counted

    found: dict[Path, None] = {}
    lines = []
    for path in given:
        if path.is_dir():
            inside, left_out = pictures_below(path)
            said = f"left out ({counted(left_out)})" if left_out else ""
            if not inside:
                also = f"; {said}" if said else ""
                raise InputError(f"{path}: there is no picture in this folder{also}.")
            if said:
                number = sum(map(len, left_out.values()))
                lines.append(f"{path}: {number} {said}.")
            found.update(dict.fromkeys(inside))
        elif path.is_file():
            found[path] = None
        else:
            raise InputError(f"{path}: there is no such file.")
    return list(found), lines


# ---- with which model


def load(given: str, device: str | None, explain: Path | None = None) -> Namer:
    """The model that is asked for: an exported file, a folder, or a key; `explain`: the
    folder for pictures of what it looks at.
    """
    if Path(given).suffix in ENDINGS.values():
        if explain is not None:
            raise InputError(
                f"{given} is an exported model, which gives classes and no maps; for"
                " --explain, give --run the key or the folder of the run."
            )
        return of_file(Path(given), device)
    check_device(device)
    return of_run(key_or_folder(given), device, explain)


def of_file(path: Path, device: str | None) -> Namer:
    """The model in an exported file."""
    if device not in (None, "cpu"):
        raise InputError(
            f"{path} is an exported model, which runs on the CPU; leave out --device."
        )
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    from ..export import opened

    model = opened.load(path)
    return Namer(
        model.about["classes"],
        model.about["preprocessing"]["resize_to"],
        lambda pixels: opened.shares(model.logits(opened.views(pixels, model.about))),
    )


def of_run(
    model_of: str | Path, device: str | None, explain: Path | None = None
) -> Namer:
    """The model of a run, in PyTorch."""
    from ..evidence import runs
    from ..recipe import Recipe

    model, about = runs.load_model(model_of, device)
    return of_model(model, Recipe.of(about["recipe"]), about["classes"], explain)


def of_model(
    model: "Method", recipe: "Recipe", classes: list[str], explain: Path | None = None
) -> Namer:
    """A model in PyTorch, in evaluation mode, that was trained by `recipe`."""
    import torch

    from ..images import augment
    from ..training import devices

    place = next(model.parameters()).device
    if place.type == "cpu":
        devices.keep_memory()
    model.to(memory_format=torch.channels_last)
    # as the training images were
    resolution = "low" if recipe.resolution == "low" else "high"

    def views(pixels: "np.ndarray") -> torch.Tensor:
        squares = torch.from_numpy(pixels).to(place)
        first = torch.zeros(len(squares), dtype=torch.int64, device=place)
        view = augment.evaluation_view(squares, first, recipe, resolution)
        return view.contiguous(memory_format=torch.channels_last)

    def shares(pixels: "np.ndarray") -> "np.ndarray":
        with torch.inference_mode():
            return model.predict(views(pixels)).float().softmax(1).cpu().numpy()

    if explain is None:
        return Namer(classes, recipe.store_size, shares)

    from .explained import Explainer

    return Namer(classes, recipe.store_size, shares, Explainer(model, views, explain))


def key_or_folder(given: str) -> str | Path:
    """What names a trained model: its folder, or the whole key of which only the first
    letters are given.

    Raises InputError for letters with which no run's key begins, or several, and for
    what is none of both.
    """
    # a run of before model.json has its record beside the weights
    for name in ("model.json", "model.safetensors"):
        if (Path(given) / name).is_file():
            return Path(given)
    if not given:  # not the current folder: a variable of the shell that was empty
        raise InputError("--run names no run; give a run's key or the folder of a run.")
    if Path(given).suffix in ENDINGS.values():
        raise InputError(
            f"{given} is an exported model, which only predict takes; give the key or"
            " the folder of the run."
        )
    if Path(given).exists():
        raise InputError(
            f"{given} holds no model; --run takes a run's key, or the folder of a run,"
            " with model.json and model.safetensors."
        )
    known = {record["key"]: record for record in known_records()}
    matching = [key for key in known if key.startswith(given)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise InputError(
            f"{len(matching)} runs begin with {given!r}; give more letters:"
            f" {listed(matching, 5)}."
        )
    if not known:
        raise InputError(
            f"unknown run {given!r}: nothing has been run here yet; start with"
            " `fgbook run feng`."
        )
    raise InputError(
        f"unknown run {given!r}: there is no such folder, and no key begins so;"
        " `fgbook results` lists the keys in the column 'first run'."
    )


# ---- what it says


def decoded(size: int, file: Path) -> "np.ndarray | InputError":
    """A picture, (3, size, size) uint8, or why it cannot be read."""
    from ..data import store

    try:
        return store.decode(file, size)[0]
    except InputError as error:
        return error


def decoders(workers: int) -> Executor:
    """What decodes: processes, or, with 0, threads. Pillow decodes outside the
    interpreter's lock, and threads have nothing to send.
    """
    if not workers:
        from ..data import store

        return ThreadPoolExecutor(store.workers())
    # Ctrl-C is for this process, which then ends the others.
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(workers, get_context("spawn"), ignore)


def answers(
    namer: Namer, files: list[Path], top: int, workers: int = 0, *, quiet: bool
) -> Iterator[Named | InputError]:
    """For each file, in order, what the model says, or why it cannot be read. A bar
    shows how far it is, unless `quiet`. workers: see `decoders`.

    Raises InputError where the system ends a process that decodes.
    """
    import numpy as np
    from tqdm.auto import tqdm

    read_one = partial(decoded, namer.size)
    at_once = -(-BATCH // (2 * workers)) if workers else 1  # files that are sent
    batches = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
    with (
        decoders(workers) as pool,
        tqdm(
            total=len(files), unit=" images", disable=quiet or None, leave=False
        ) as bar,
    ):
        ahead = pool.map(read_one, batches[0], chunksize=at_once)
        for these, following in pairwise([*batches, []]):
            try:
                read = list(ahead)
                # decoded while the model looks at these
                ahead = pool.map(read_one, following, chunksize=at_once)
            except BrokenExecutor as error:
                raise InputError(
                    "the system ended a process that decodes pictures, perhaps for"
                    " want of memory; give fewer --workers, or none."
                ) from error
            whole = [one for one in read if not isinstance(one, InputError)]
            shares = iter(namer.shares(np.stack(whole)) if whole else ())
            if whole and namer.explainer is not None:
                pairs = zip(these, read, strict=True)
                kept = [file for file, one in pairs if not isinstance(one, InputError)]
                namer.explainer.save(kept, np.stack(whole))
            for file, one in zip(these, read, strict=True):
                if isinstance(one, InputError):
                    yield one
                else:
                    yield _named(file, next(shares), namer.classes, top)
            bar.update(len(these))


def _named(file: Path, shares: "np.ndarray", classes: list[str], top: int) -> Named:
    best = (-shares).argsort(kind="stable")[:top]
    return Named(file, [(classes[i], float(shares[i])) for i in best])


def show(answer: Named) -> None:
    """Print what is said of a picture."""
    from ..data.files import readable

    path = str(answer.path)
    click.echo(path if readable(path) else repr(path))
    for name, share in answer.top:
        click.echo(f"  {100 * share:5.1f} %  {name}")


# ---- a file of it


def check_output(path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Raises InputError for a file that cannot be written under this name."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise InputError(
            f"-o {path}: the name of the file should end in {' or '.join(suffixes)}."
        )
    if path.is_dir():
        raise InputError(f"-o {path} is a folder; name a file.")
    if not path.parent.is_dir():
        raise InputError(f"-o {path}: there is no folder {path.parent}.")
    refuse_unwritable(path.parent, f"-o {path}")


def write(path: Path, found: list[Named], top: int) -> None:
    """Write all that was found, as the name of the file says."""
    from .. import files

    text = as_lines(found) if path.suffix == ".jsonl" else as_table(found, top)
    # names of files are bytes, which need not be UTF-8: they are written as they are
    files.write(path, text.encode(errors="surrogateescape"))


def as_lines(found: list[Named]) -> str:
    """A JSON object a line."""
    lines = []
    for one in found:
        top = [{"class": name, "probability": share} for name, share in one.top]
        lines.append(json.dumps({"path": str(one.path), "top": top}))
    return "".join(f"{line}\n" for line in lines)


def as_table(found: list[Named], top: int) -> str:
    """A CSV table: a line for each picture."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    header = ["path"]
    for place in range(1, top + 1):
        header += [f"class {place}", f"probability {place}"]
    table.writerow(header)
    for one in found:
        cells = [as_text(str(one.path))]
        for name, share in one.top:
            cells += [as_text(name), f"{share:.6f}"]
        table.writerow(cells)
    return text.getvalue()


def as_text(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
