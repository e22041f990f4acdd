"""Imagewoof: ten dog breeds of ImageNet, as fast.ai publishes them; and imagewoof10, a
selection from it.
"""

from pathlib import Path

from . import folder as folders
from .photos import Photos, locate

OFFICIAL = {"classes": 10, "train": 9025, "test": 3929}
ADVICE = (
    "run `fgbook data get imagewoof`, or unpack imagewoof2-320.tgz from"
    " https://github.com/fastai/imagenette there"
)
ADVICE_10 = (
    "run `fgbook data get imagewoof10`, which makes it from Imagewoof (data set"
    " imagewoof)"
)


def folder(name: str = "imagewoof") -> Path:
    """Where the data set lies. Raises InputError that says how to get it."""
    if name == "imagewoof10":
        return locate(name, ["imagewoof10"], "split.csv", ADVICE_10)
    places = ["imagewoof/imagewoof2-320", "imagewoof2-320", "imagewoof2", "imagewoof"]
    return locate(name, places, "train", ADVICE)


def photos(name: str = "imagewoof") -> Photos:
    """imagewoof: the version of 320 px or the full one. Its val part is for test;
    validation is cut from training.

    imagewoof10: 150 training, 30 validation and 30 test pictures of each breed, as
    ``split.csv`` lists.
    """
    root = folder(name)
    if name == "imagewoof10":
        return folders.listed(root, name)
    # labels with errors put in on purpose, for studies of such
    return folders.photos(root, name, OFFICIAL, known=("noisy_imagewoof.csv",))
