"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011) in its official layout: all 200
classes, or a part of them with their official numbers.
"""

from pathlib import Path

import numpy as np

from ..errors import InputError
from . import split
from .dataset import PART_NAMES
from .photos import Photos, locate

HOME = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
LISTS = (
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "bounding_boxes.txt",
    "classes.txt",
)
OFFICIAL = {
    "cub": {"classes": 200, "train": 5994, "test": 5794},
    "cub50": {"classes": 50, "train": 1500, "test": 1389},
}


def folder(name: str = "cub") -> Path:
    """Where the data set lies: ``cub`` or ``CUB_200_2011`` in the data folder; for
    cub50 also ``cub50``, which then comes first.

    Raises InputError that says what to download and where to put it.
    """
    places = ["cub", "CUB_200_2011", "cub/CUB_200_2011"]
    if name == "cub50":
        places = ["cub50", *places]
    advice = f"run `fgbook data get cub`, or unpack CUB_200_2011.tgz from {HOME} there"
    return locate(name, places, "images.txt", advice)


def photos(name: str = "cub") -> Photos:
    """cub: the whole set; cub50: classes 1 to 50, from its own folder of smaller
    pictures or from the whole set.

    Official split; validation is cut from training by split.validation. Boxes, 15
    parts, and the 312 attributes of each picture's class (the share of annotators who
    saw it, 0 to 1). Raises InputError for missing or contradictory lists.
    """
    root = folder(name)
    for file in LISTS:
        if not (root / file).is_file():
            raise InputError(
                f"data set {name}: {root / file} is missing; unpack the official"
                " archive again."
            )
    lists = _Lists(root, last_class=50 if name == "cub50" else None)
    lists.refuse_gaps()

    # Official numbers may skip; ours are places in the list of classes.
    place = {number: i for i, number in enumerate(lists.classes)}
    files = list(lists.images.values())
    labels = np.array([place[lists.label[image]] for image in lists.images], np.int64)
    official_split = np.array([lists.part[image] for image in lists.images])
    attributes = _attributes(root, list(lists.classes))
    names = []
    if attributes is not None:
        names = _attribute_names(root, attributes.shape[1])
        attributes = attributes[labels]
    return Photos(
        name,
        root / "images",
        list(lists.classes.values()),
        files,
        labels,
        split.cut_validation(files, labels, official_split),
        boxes=lists.boxes(),
        parts=_parts(root, list(lists.images)),
        attributes=attributes,
        attribute_names=names,
        official=OFFICIAL[name],
    )


class _Lists:
    """The official lists: dictionaries by the number of a class or picture, in the
    order of the files.
    """

    def __init__(self, root: Path, last_class: int | None):
        self.root = root
        self.classes: dict[int, str] = {}
        for number, text in _lines(root / "classes.txt", 2):
            if last_class is None or int(number) <= last_class:
                self.classes[int(number)] = text

        self.label: dict[int, int] = {}  # of each picture: the number of its class
        for image, number in _lines(root / "image_class_labels.txt", 2):
            if number.isdecimal():  # else refuse_gaps() will miss it
                self.label[int(image)] = int(number)

        self.images: dict[int, str] = {}  # of each picture: its file
        for image, file in _lines(root / "images.txt", 2):
            label = self.label.get(int(image), 0)
            if last_class is None or label <= last_class:
                self.images[int(image)] = file

        self.part: dict[int, str] = {}
        for image, flag in _lines(root / "train_test_split.txt", 2):
            self.part[int(image)] = "train" if flag == "1" else "test"

        self.box: dict[int, list[float]] = {}  # x, y, width, height
        for image, *numbers in _lines(root / "bounding_boxes.txt", 5):
            self.box[int(image)] = [float(number) for number in numbers]

    def refuse_gaps(self) -> None:
        """Raises InputError where a list says nothing about a picture."""
        for listed, file in (
            (self.label, "image_class_labels.txt"),
            (self.part, "train_test_split.txt"),
            (self.box, "bounding_boxes.txt"),
        ):
            lacking = [image for image in self.images if image not in listed]
            if lacking:
                raise InputError(
                    f"{self.root / file} says nothing about picture {lacking[0]}, which"
                    f" images.txt lists ({len(lacking)} such)."
                )
        for image in self.images:
            if self.label[image] not in self.classes:
                raise InputError(
                    f"{self.root / 'image_class_labels.txt'} puts picture {image} in"
                    f" class {self.label[image]}, which classes.txt lacks."
                )

    def boxes(self) -> np.ndarray:
        """(N, 4) xyxy. Raises InputError for a box without area."""
        xywh = np.array([self.box[image] for image in self.images], np.float64)
        xywh = xywh.reshape(-1, 4)
        for image, (_, _, width, height) in zip(self.images, xywh, strict=True):
            if width <= 0 or height <= 0:
                raise InputError(
                    f"{self.root / 'bounding_boxes.txt'} gives picture {image} a box"
                    " without area."
                )
        corners = xywh[:, :2]
        return np.concatenate([corners, corners + xywh[:, 2:]], 1)


def _parts(root: Path, ids: list[int]) -> np.ndarray | None:
    """(N, 15, 3) x, y, visible, of the pictures with these numbers; None where the file
    is not there.
    """
    path = root / "parts" / "part_locs.txt"
    if not path.is_file():
        return None
    row = {image: i for i, image in enumerate(ids)}
    parts = np.zeros((len(ids), len(PART_NAMES), 3))
    for image, part, *place in _lines(path, 5):
        if not 1 <= float(part) <= len(PART_NAMES):
            raise InputError(f"{path} names part {part}; there are {len(PART_NAMES)}.")
        if int(image) in row:
            parts[row[int(image)], int(part) - 1] = [float(number) for number in place]
    return parts


def _attributes(root: Path, numbers: list[int]) -> np.ndarray | None:
    """(C, A) in [0, 1], A = 312, a row for each of the classes with these official
    numbers; None where the file is not there.
    """
    path = root / "attributes" / "class_attribute_labels_continuous.txt"
    if not path.is_file():
        return None
    listed = [int(number) for number, _ in _lines(root / "classes.txt", 2)]
    try:
        table = np.loadtxt(path, ndmin=2) / 100
    except ValueError as error:
        raise InputError(f"{path} is not a table of numbers: {error}.") from error
    if len(table) != len(listed):
        raise InputError(
            f"{path} has {len(table)} rows for the {len(listed)} classes of"
            " classes.txt."
        )
    if not ((table >= 0) & (table <= 1)).all():
        raise InputError(
            f"{path} has numbers that are no percentages from 0 to 100; unpack the"
            " official archive again."
        )
    return table[[listed.index(number) for number in numbers]]


def _attribute_names(root: Path, count: int) -> list[str]:
    """The attributes in words, "bill shape: dagger", from their list, which the
    official archive has beside its folder; else their numbers.
    """
    places = [
        root / "attributes" / "attributes.txt",
        root / "attributes.txt",
        root.parent / "attributes.txt",
    ]
    found = [place for place in places if place.is_file()]
    numbers = [str(number) for number in range(1, count + 1)]
    if not found:
        return [f"attribute {number}" for number in numbers]
    rows = _lines(found[0], 2)
    if [number for number, _ in rows] != numbers:
        raise InputError(
            f"{found[0]} does not list the {count} attributes of"
            " class_attribute_labels_continuous.txt in their order; unpack the archive"
            " again."
        )
    names = []
    for _, text in rows:  # such as has_bill_shape::dagger
        text = text.removeprefix("has_")
        names.append(text.replace("::", ": ").replace("_", " "))
    return names


def _lines(path: Path, columns: int) -> list[list[str]]:
    """The lines of an official list, cut at spaces into `columns`: a whole number, then
    one text or several numbers.

    Raises InputError that names the line.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        row = line.split(maxsplit=columns - 1)
        if not _is_sound(row, columns):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not what the official layout"
                " has there."
            )
        rows.append(row)
    return rows


def _is_sound(row: list[str], columns: int) -> bool:
    if len(row) != columns:
        return False
    try:
        int(row[0])
        if columns == 2:
            return True
        return bool(np.isfinite([float(value) for value in row[1:]]).all())
    except ValueError:
        return False
