"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011) in its official layout: all 200
classes, or a part of them with their official numbers."""

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


def folder(name: str) -> Path:
    """Where the data set lies: ``cub`` or ``CUB_200_2011`` in the data folder; for
        cub50 also ``cub50``, which then comes first.

    Raises InputError that says what to download and where to put it.
    """
    places = ["cub", "CUB_200_2011", "cub/CUB_200_2011"]
    return locate(
        name,
        ["cub50", *places] if name == "cub50" else places,
        "images.txt",
        f"run `fgbook data get cub`, or unpack CUB_200_2011.tgz from {HOME} there",
    )


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
    classes = {int(number): text for number, text in _lines(root / "classes.txt", 2)}
    if name == "cub50":
        classes = {number: text for number, text in classes.items() if number <= 50}
    label = {
        int(image): int(number)
        for image, number in _lines(root / "image_class_labels.txt", 2)
        if number.isdecimal()
    }
    ids = [
        (int(image), file)
        for image, file in _lines(root / "images.txt", 2)
        if name != "cub50" or label.get(int(image), 0) <= 50
    ]
    train = {
        int(image): flag == "1"
        for image, flag in _lines(root / "train_test_split.txt", 2)
    }
    box = {
        int(row[0]): [float(v) for v in row[1:]]
        for row in _lines(root / "bounding_boxes.txt", 5)
    }
    for listed, file in (
        (label, "image_class_labels.txt"),
        (train, "train_test_split.txt"),
        (box, "bounding_boxes.txt"),
    ):
        lacking = [image for image, _ in ids if image not in listed]
        if lacking:
            raise InputError(
                f"{root / file} says nothing about picture {lacking[0]}, which"
                f" images.txt lists ({len(lacking)} such)."
            )
    strange = [image for image, _ in ids if label[image] not in classes]
    if strange:
        raise InputError(
            f"{root / 'image_class_labels.txt'} puts picture {strange[0]} in class"
            f" {label[strange[0]]}, which classes.txt lacks."
        )

    files, row = (
        [file for _, file in ids],
        {number: i for i, number in enumerate(classes)},
    )
    labels = np.array([row[label[image]] for image, _ in ids], np.int64)
    splits = split.cut_validation(
        files,
        labels,
        np.array(["train" if train[image] else "test" for image, _ in ids]),
    )
    xywh = np.array([box[image] for image, _ in ids], np.float64).reshape(-1, 4)
    flat = np.flatnonzero((xywh[:, 2:] <= 0).any(1))
    if len(flat):
        raise InputError(
            f"{root / 'bounding_boxes.txt'} gives picture {ids[flat[0]][0]} a box"
            " without area."
        )
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
    attributes = _attributes(root, list(classes))
    return Photos(
        name,
        root / "images",
        list(classes.values()),
        files,
        labels,
        splits,
        boxes,
        _parts(root, [image for image, _ in ids]),
        *(
            (None, [])
            if attributes is None
            else (attributes[labels], _attribute_names(root, attributes.shape[1]))
        ),
        official=OFFICIAL[name],
    )


def _parts(root: Path, ids: list[int]) -> np.ndarray | None:
    path = root / "parts" / "part_locs.txt"
    if not path.is_file():
        return None
    row = {image: i for i, image in enumerate(ids)}
    parts = np.zeros((len(ids), len(PART_NAMES), 3))
    for image, part, *place in _lines(path, 5):
        if not 1 <= float(part) <= len(PART_NAMES):
            raise InputError(f"{path} names part {part}; there are {len(PART_NAMES)}.")
        if int(image) in row:
            parts[row[int(image)], int(part) - 1] = [float(v) for v in place]
    return parts


def _attributes(root: Path, numbers: list[int]) -> np.ndarray | None:
    """(C, A) in [0, 1], A = 312, a row for each of the classes with these official
    numbers; None where the file is not there."""
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
    official archive has beside its folder; else their numbers."""
    places = [
        root / "attributes" / "attributes.txt",
        root / "attributes.txt",
        root.parent / "attributes.txt",
    ]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return [f"attribute {number}" for number in range(1, count + 1)]
    rows = _lines(path, 2)
    if [row[0] for row in rows] != [str(number) for number in range(1, count + 1)]:
        raise InputError(
            f"{path} does not list the {count} attributes of"
            " class_attribute_labels_continuous.txt in their order; unpack the archive"
            " again."
        )
    return [
        text.removeprefix("has_").replace("::", ": ").replace("_", " ")
        for _, text in rows
    ]


def _lines(path: Path, columns: int) -> list[list[str]]:
    """The lines of an official list, cut at spaces into `columns`: a whole number, then
    one text or several numbers.

    Raises InputError that names the line.
    """
    rows = []
    for number, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
    ):
        row = line.split(maxsplit=columns - 1)
        try:
            int(row[0])
            if len(row) != columns or (
                columns > 2
                and not np.isfinite([float(value) for value in row[1:]]).all()
            ):
                raise ValueError
        except (ValueError, IndexError):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not what the official layout"
                " has there."
            ) from None
        rows.append(row)
    return rows
