"""Selections that this project made from public data sets: which pictures they have,
and how to make them from the official ones.

Published is the list of pictures, not the pictures. Those that our own runs saw had
been cut, made smaller and saved as JPEG before. Sizes and quality here are what these
files tell; which filter made them smaller they do not tell, so a set made here may
differ from ours in single pixel values. A run then has another key, and its accuracy
differs by chance.
"""

import csv
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm.auto import tqdm

from .. import paths
from ..errors import InputError
from . import cars, fetch, imagewoof, store
from .photos import Photos

LISTS = Path(__file__).with_name("lists")


class Selection(NamedTuple):
    """What a selection is made from, and how."""

    whole: str  # data set
    under: str  # its folders that pictures are taken from begin with this
    quality: int  # of the JPEG files, as PIL counts


SELECTIONS = {
    # each cut to its box
    "cars98": Selection("cars", "cars_train/", quality=85),
    "imagewoof10": Selection("imagewoof", "", quality=82),
}
LONG_SIDE = 240  # px at most, of a car
SHORT_SIDE = 224  # px, of a dog


class Picture(NamedTuple):
    """A line of a list."""

    label: str
    file: str
    part: str


def make(name: str) -> Path:
    """The folder of a selection, made where it is not there from the official pictures,
    which are downloaded where they are not there.

    Raises InputError where the official set cannot be had, or lacks a picture or has a
    damaged one, where a folder of that name holds something else, and where nothing can
    be written; then no folder is left.
    """
    final = paths.data() / name
    if (final / "split.csv").is_file():
        return final
    if final.exists():
        raise InputError(
            f"{final} is there, but not all of data set {name} in it (its split.csv is"
            " missing); move it away and give the same command again."
        )
    found = _whole(SELECTIONS[name])
    listed = read(name)
    sources = _sources(name, found, listed)
    try:
        # under another name until it is whole
        with tempfile.TemporaryDirectory(dir=paths.data()) as unfinished:
            made = Path(unfinished) / name
            for picture, number in zip(
                tqdm(listed, desc=f"making {name}", unit="picture", leave=False),
                sources,
                strict=True,
            ):
                target = made / picture.part / picture.label / picture.file
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(found, number, target, SELECTIONS[name].quality)
            shutil.copyfile(LISTS / f"{name}.csv", made / "split.csv")
            made.rename(final)
    except OSError as error:
        if (final / "split.csv").is_file():  # another process was faster
            return final
        raise InputError(
            f"cannot write in {paths.data()} ({error.strerror or error}); make room, or"
            " set FGBOOK_DATA to a folder that can be written."
        ) from error
    return final


def read(name: str) -> list[Picture]:
    """The list of a selection."""
    with open(LISTS / f"{name}.csv", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [Picture(row["class"], row["file"], row["split"]) for row in rows]


def _whole(selection: Selection) -> Photos:
    """The official pictures, downloaded where they are not there."""
    reader = {"cars": cars, "imagewoof": imagewoof}[selection.whole]
    try:
        reader.folder(selection.whole)
    except InputError:
        fetch.get(selection.whole)
    found = reader.photos(selection.whole)
    if selection.whole == "cars" and found.boxes is None:
        raise InputError(
            f"{found.root} holds cars without their boxes, to which cars98 is cut; put"
            " the official cars_train/ and devkit/ there."
        )
    return found


def _sources(name: str, found: Photos, listed: Iterable[Picture]) -> list[int]:
    """The places in `found` of the pictures that a list names: by name without folder
    and ending, which is one picture's in the whole set.
    """
    under = SELECTIONS[name].under
    places = {}
    for place, file in enumerate(found.files):
        if file.startswith(under):
            places[Path(file).stem] = place
    wanted = [Path(picture.file).stem for picture in listed]
    if missing := sorted(set(wanted) - places.keys()):
        raise InputError(
            f"{found.root} lacks {len(missing)} pictures of {name}, such as"
            f" {missing[0]}; unpack the official archive again."
        )
    return [places[stem] for stem in wanted]


def _write(found: Photos, place: int, target: Path, quality: int) -> None:
    """One picture as JPEG, made smaller; of a car, what its box holds."""
    source = found.paths()[place]
    try:
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
    except (OSError, SyntaxError) as error:  # PIL's for files that are damaged
        raise InputError(
            f"{source} cannot be read ({error}); unpack the official archive again."
        ) from error
    width, height = picture.size
    if found.boxes is not None:
        [box] = store.whole_pixels(found.boxes[place : place + 1]).tolist()
        # some official boxes reach beyond their picture
        right, bottom = min(box[2], width), min(box[3], height)
        picture = picture.crop((box[0], box[1], right, bottom))
        picture.thumbnail((LONG_SIDE, LONG_SIDE))
    else:
        scale = SHORT_SIDE / min(width, height)
        picture = picture.resize((round(scale * width), round(scale * height)))
    picture.save(target, format="JPEG", quality=quality)
