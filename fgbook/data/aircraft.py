"""FGVC-Aircraft (Maji et al. 2013): 100 variants, with the authors' train, val and test
parts and boxes.
"""

from pathlib import Path

import numpy as np

from ..errors import InputError
from .dataset import SPLITS
from .photos import Photos, locate

HOME = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
OFFICIAL = {"classes": 100, "train": 3334, "val": 3333, "test": 3333}

BANNER = 20
"""Rows of copyright notice at the bottom of every picture, which its authors ask to
remove before training.
"""


def folder(name: str = "aircraft") -> Path:
    """Where the data set lies. Raises InputError that says how to get it."""
    places = [
        "aircraft/fgvc-aircraft-2013b/data",
        "fgvc-aircraft-2013b/data",
        "aircraft/data",
        "aircraft",
    ]
    advice = (
        "run `fgbook data get aircraft`, or unpack fgvc-aircraft-2013b.tar.gz from"
        f" {HOME} there"
    )
    return locate(name, places, "variants.txt", advice)


def photos(name: str = "aircraft") -> Photos:
    """The variant level, in its official layout.

    Raises InputError for missing or contradictory lists.
    """
    root = folder(name)
    classes = _lines(root / "variants.txt")
    boxes = dict(_pairs(root / "images_box.txt"))

    pictures, labels, splits = [], [], []
    for part in SPLITS:
        listed = root / f"images_variant_{part}.txt"
        for picture, variant in _pairs(listed):
            if variant not in classes:
                raise InputError(
                    f"{listed} names the variant {variant!r}, which variants.txt lacks."
                )
            pictures.append(picture)
            labels.append(classes.index(variant))
            splits.append(part)

    corners = np.zeros((len(pictures), 4))
    for i, picture in enumerate(pictures):
        try:
            corners[i] = [float(number) for number in boxes[picture].split()]
        except (KeyError, ValueError) as error:
            raise InputError(
                f"aircraft: the lists in {root} say nothing usable of the box of"
                f" {picture}.jpg ({error})."
            ) from error
    corners[:, :2] -= 1  # counted from 1, both ends included
    return Photos(
        name,
        root / "images",
        classes,
        [f"{picture}.jpg" for picture in pictures],
        np.array(labels, np.int64),
        np.array(splits),
        boxes=corners,
        official=OFFICIAL,
        trim=BANNER,
    )


def _lines(path: Path) -> list[str]:
    """The lines of an official list that are not empty."""
    if not path.is_file():
        raise InputError(f"{path} is missing; unpack the official archive again.")
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pairs(path: Path) -> list[tuple[str, str]]:
    """(picture, what is said of it) of each line."""
    pairs = []
    for line in _lines(path):
        picture, _, said = line.partition(" ")
        pairs.append((picture, said))
    return pairs
