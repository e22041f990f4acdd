"""Oxford Flowers-102 (Nilsback and Zisserman 2008), with the authors' three parts."""

from pathlib import Path

import numpy as np

from ..errors import InputError
from .dataset import SPLITS
from .photos import Photos, locate, read_mat

HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
OFFICIAL = {"classes": 102, "train": 1020, "val": 1020, "test": 6149}


def folder(name: str = "flowers") -> Path:
    """Where the data set lies. Raises InputError that says how to get it."""
    advice = (
        "run `fgbook data get flowers`, or put setid.mat, imagelabels.mat and the"
        f" unpacked 102flowers.tgz from {HOME} there"
    )
    return locate(name, ["flowers", "flowers-102"], "setid.mat", advice)


def photos(name: str = "flowers") -> Photos:
    """The official split: small training and validation parts, a large test part. The
    lists number the classes without naming them.

    Raises InputError for missing or contradictory lists.
    """
    root = folder(name)
    [numbers] = read_mat(root / "imagelabels.mat", "labels")
    # the numbers, from 1, of the pictures of each part
    parts = read_mat(root / "setid.mat", "trnid", "valid", "tstid")
    ids = np.concatenate(parts).astype(np.int64)
    if len(ids) == 0 or ids.min() < 1 or ids.max() > len(numbers):
        raise InputError(
            f"{root / 'setid.mat'} lists picture {ids.max(initial=0)};"
            f" {root / 'imagelabels.mat'} has {len(numbers)} labels."
        )
    return Photos(
        name,
        root / "jpg",
        [f"{number:03}" for number in range(1, int(numbers.max()) + 1)],
        [f"image_{i:05}.jpg" for i in ids],
        numbers.astype(np.int64)[ids - 1] - 1,
        np.repeat(SPLITS, [len(part) for part in parts]),
        official=OFFICIAL,
    )
