"""Any folder of class folders of pictures, with or without train, val and test folders
above them."""

import csv
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import split, store
from .photos import SPLITS, Photos, readable

ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def photos(
    root: Path, name: str | None = None, official: dict[str, int] | None = None
) -> Photos:
    """The pictures under `root`; the name of a class is that of its folder. Hidden
    files and files without a picture's suffix are passed over.

    ``train/CLASS/..`` and ``test/CLASS/..``, with or without ``val``: the given split;
    without ``val``, validation is cut from training by split.validation; with ``val``
    but no ``test``, ``val`` is the test part (as in ImageNet's layout) and validation
    is cut from training. ``CLASS/..`` alone: 60 % train, 20 % val, 20 % test of each
    class, by split.three_parts. Raises InputError for no pictures, one class, an empty
    split, a class that training lacks.
    """
    root = Path(root).expanduser().resolve()
    name = name or f"folder:{root}"
    if not root.is_dir():
        raise InputError(
            f"{name}: {root} is not a folder; give one that holds a folder of pictures"
            " for each class."
        )
    named = [f for f in _folders(root) if f.name.lower() in ALIASES]
    given = {ALIASES[f.name.lower()]: f for f in named}
    # else "train" is a class: a picture of a railway
    if "train" in given and _folders(given["train"]):
        if len(given) < len(named):
            raise InputError(
                f"{name}: two folders of {root} are the same part"
                f" ({', '.join(f.name for f in named)}); take one away."
            )
        if "test" not in given:
            if "val" not in given:
                raise InputError(
                    f"{name}: {root} has a training folder but no test folder; add one,"
                    " or take away the level of the training folder."
                )
            given["test"] = given.pop("val")
        found = [
            (file, label, part)
            for part, place in given.items()
            for file, label in _pictures(root, place)
        ]
        if not any(part == "test" for _, _, part in found):
            raise InputError(
                f"{name}: the test split, {given['test']}, has no pictures."
            )
        known = {label for _, label, part in found if part == "train"}
        lacking = sorted({label for _, label, _ in found} - known)
        if lacking and known:
            raise InputError(
                f"{name}: class(es) {', '.join(map(repr, lacking[:5]))} of {root} have"
                " no training pictures."
            )
    else:
        found = [(file, label, "") for file, label in _pictures(root, root)]
    if not found:
        raise InputError(
            f"{name}: no pictures in class folders under {root}; expected such as"
            f" {root / 'CLASS' / 'picture.jpg'}."
        )
    for text in (str(root), *(file for file, _, _ in found)):
        if not readable(text):
            raise InputError(
                f"the name {text!r} holds control characters or bytes that are not"
                " UTF-8; rename it."
            )

    found.sort(key=lambda row: unicodedata.normalize("NFC", row[0]))
    files, classes = (
        [file for file, _, _ in found],
        sorted({label for _, label, _ in found}),
    )
    labels, splits = (
        np.array([classes.index(label) for _, label, _ in found]),
        np.array([part for _, _, part in found], dtype="<U5"),
    )
    if len(classes) < 2:
        raise InputError(
            f"{name}: only one class, {classes[0]!r}, in {root}; at least two are"
            " needed to classify."
        )
    if not splits[0]:
        splits = split.three_parts(files, labels)
    elif "val" not in given:
        splits = split.cut_validation(files, labels, splits)
    return Photos(name, root, classes, files, labels, splits, official=official or {})


def listed(root: Path, name: str) -> Photos:
    """:func:`photos` of a folder whose ``split.csv`` (class, file, split) must name
    exactly the pictures that are there."""
    found = photos(root, name)
    try:
        with open(root / "split.csv", newline="", encoding="utf-8") as file:
            rows = [
                (row["split"], row["class"], row["file"])
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"{name}: {root / 'split.csv'} cannot be read ({error}); it must have the"
            " columns class, file and split."
        ) from error
    listed = {unicodedata.normalize("NFC", "/".join(row)) for row in rows}
    there = {unicodedata.normalize("NFC", file) for file in found.files}
    for what, which in (
        ("is not there", listed - there),
        ("is not listed", there - listed),
    ):
        if which:
            raise InputError(
                f"{name}: {min(which)} {what}, going by {root / 'split.csv'}"
                f" ({len(which)} such)."
            )
    parts = Counter(part for part, _, _ in rows)
    found.official = {
        "classes": len({label for _, label, _ in rows}),
        **{part: parts[part] for part in SPLITS if part in parts},
    }
    return found


def _folders(place: Path) -> list[Path]:
    return sorted(
        f for f in place.iterdir() if f.is_dir() and not f.name.startswith(".")
    )


def _pictures(root: Path, place: Path) -> list[tuple[str, str]]:
    """(name relative to root, class) of each picture in the class folders of
    `place`."""
    found = []
    for folder in _folders(place):
        label = unicodedata.normalize("NFC", folder.name)
        found += [
            (file.relative_to(root).as_posix(), label)
            for file in folder.rglob("*")
            if file.suffix.lower() in store.SUFFIXES
            and not file.name.startswith(".")
            and file.is_file()
        ]
    return found
