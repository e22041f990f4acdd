"""Oxford Flowers-102 (Nilsback and Zisserman 2008), with the authors' three parts."""

import numpy as np

from ..errors import InputError
from .photos import Photos, locate, read_mat

HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
OFFICIAL = {"classes": 102, "train": 1020, "val": 1020, "test": 6149}


def photos() -> Photos:
    """The official split: small training and validation parts, a large test part. The
    lists number the classes without naming them."""
    advice = (
        "run `fgbook data get flowers`, or put setid.mat, imagelabels.mat and the"
        f" unpacked 102flowers.tgz from {HOME} there"
    )
    root = locate("flowers", ["flowers", "flowers-102"], "setid.mat", advice)
    [numbers] = read_mat(root / "imagelabels.mat", "labels")
    parts = dict(
        zip(
            ("train", "val", "test"),
            read_mat(root / "setid.mat", "trnid", "valid", "tstid"),
            strict=True,
        )
    )
    ids = np.concatenate(list(parts.values())).astype(np.int64)
    if len(ids) == 0 or ids.min() < 1 or ids.max() > len(numbers):
        raise InputError(
            f"{root / 'setid.mat'} lists picture {ids.max(initial=0)};"
            f" {root / 'imagelabels.mat'} has {len(numbers)} labels."
        )
    splits = np.repeat(list(parts), [len(part) for part in parts.values()])
    classes = [f"{number:03}" for number in range(1, int(numbers.max()) + 1)]
    return Photos(
        "flowers",
        root / "jpg",
        classes,
        [f"image_{i:05}.jpg" for i in ids],
        numbers.astype(np.int64)[ids - 1] - 1,
        splits,
        official=OFFICIAL,
    )
