"""FGVC-Aircraft (Maji et al. 2013): 100 variants, with the authors' train, val and test
parts and boxes."""

from pathlib import Path

import numpy as np

from ..errors import InputError
from .photos import SPLITS, Photos, locate

HOME = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
OFFICIAL = {"classes": 100, "train": 3334, "val": 3333, "test": 3333}
# rows of copyright notice at the bottom of every picture, which its authors ask to
# remove before training
BANNER = 20


def photos() -> Photos:
    """The variant level, in its official layout; genus is the family of each variant.

    Raises InputError for missing or contradictory lists.
    """
    places = [
        "aircraft/fgvc-aircraft-2013b/data",
        "fgvc-aircraft-2013b/data",
        "aircraft/data",
        "aircraft",
    ]
    root = locate(
        "aircraft",
        places,
        "variants.txt",
        "run `fgbook data get aircraft`, or unpack fgvc-aircraft-2013b.tar.gz from"
        f" {HOME} there",
    )
    classes, families = _lines(root / "variants.txt"), _lines(root / "families.txt")
    files, labels, splits, family = [], [], [], {}
    for part in SPLITS:
        for picture, variant in _pairs(root / f"images_variant_{part}.txt"):
            if variant not in classes:
                raise InputError(
                    f"{root / f'images_variant_{part}.txt'} names the variant"
                    f" {variant!r}, which variants.txt lacks."
                )
            files.append(f"{picture}.jpg")
            labels.append(classes.index(variant))
            splits.append(part)
        family.update(_pairs(root / f"images_family_{part}.txt"))
    boxes, box = np.zeros((len(files), 4)), dict(_pairs(root / "images_box.txt"))
    genus = [0] * len(classes)
    for i, file in enumerate(files):
        try:
            boxes[i] = [float(v) for v in box[file[:-4]].split()]
            genus[labels[i]] = families.index(family[file[:-4]])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"aircraft: the lists in {root} say nothing usable of the box or family"
                f" of {file} ({error})."
            ) from error
    boxes[:, :2] -= 1  # counted from 1, both ends included
    rows, parts = np.array(labels, np.int64), np.array(splits)
    return Photos(
        "aircraft",
        root / "images",
        classes,
        files,
        rows,
        parts,
        boxes,
        genus=genus,
        official=OFFICIAL,
        trim=BANNER,
    )


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} is missing; unpack the official archive again.")
    return [
        line.strip()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]


def _pairs(path: Path) -> list[tuple[str, str]]:
    pairs = [line.partition(" ") for line in _lines(path)]
    return [(first, rest) for first, _, rest in pairs]
