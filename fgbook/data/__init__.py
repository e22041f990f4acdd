"""Where images come from: data sets by name."""

from pathlib import Path
from typing import Protocol

from .. import paths
from ..errors import InputError, unknown
from . import aircraft, cars, cub, dogs, files, flowers, folder, imagewoof, photos
from .dataset import SPLITS, DataSet
from .photos import Photos

DRAWN: dict[str, dict] = {
    "fieldguide": {},
    "fieldguide-source": {"pool": "source"},
    "fieldguide-shortcut50": {"shortcut": 0.5},
    "fieldguide-shortcut90": {"shortcut": 0.9},
    "fieldguide-shortcut100": {"shortcut": 1.0},
}
"""Drawn data sets -> their settings of :func:`fgbook.data.fieldguide.load`."""


class Reader(Protocol):
    """What the module of a photographed data set offers. `name` is one of its sets."""

    def folder(self, name: str) -> Path:
        """The folder that all its files lie in; InputError that says how to get
        them.
        """

    def photos(self, name: str) -> Photos:
        """Its pictures, labels and splits; InputError for wrong or missing lists."""


PHOTOGRAPHED: dict[str, Reader] = {
    "cub": cub,
    "cub50": cub,
    "cub-cropped": cub,
    "cub50-cropped": cub,
    "aircraft": aircraft,
    "cars": cars,
    "cars-cropped": cars,
    "cars98": cars,
    "dogs": dogs,
    "dogs21": dogs,
    "flowers": flowers,
    "imagewoof": imagewoof,
    "imagewoof10": imagewoof,
}
"""Data sets of photographs -> the module that reads them. ``NAME-cropped`` is NAME, cut
to its boxes.
"""


def names() -> list[str]:
    """The data sets that :func:`load` knows. ``folder:PATH`` stands for any folder of
    class folders.
    """
    return [*DRAWN, *PHOTOGRAPHED, "folder:PATH"]


def load(name: str, size: int) -> DataSet:
    """A data set with images of `size` x `size` pixels. The first call draws or decodes
    them, later ones map what it kept.

    Raises InputError for an unknown name, for data that are missing (saying where to
    get them), damaged or contradictory.
    """
    if name in DRAWN:
        from . import fieldguide

        return fieldguide.load(size, **DRAWN[name])
    return photos.load(_photos(name), size)


def absolute(name: str) -> str:
    """A data set's name that means the same in every directory: "folder:birds" becomes
    "folder:/home/me/birds"; other names stay.

    Raises InputError for a folder without a path.
    """
    place = _place(name)
    return name if place is None else f"folder:{place}"


def path(name: str) -> Path:
    """The folder that a data set's pictures are read from; for a drawn one, where its
    images are kept.
    """
    return paths.store() if name in DRAWN else _photos(name).root


def is_folder(name: str) -> bool:
    """Whether "folder:PATH" names a folder that is there."""
    place = _place(name)
    return place is not None and place.is_dir()


def division(name: str) -> str:
    """How a data set's pictures come to be train, val and test, in words."""
    place = _place(name)
    if place is not None:
        return folder.division(place)
    if name in DRAWN:
        return "as they are drawn: each part by a generator of its own"
    return "as its authors do; where they name no val, it is cut from train"


def stamp(name: str) -> str:
    """A short string that becomes another when a file of the data set is changed, added
    or removed: a hash of names, sizes and modification times. No file is opened.

    It is for keeping a loaded data set in memory; what determines a result is
    :attr:`DataSet.fingerprint`. Raises InputError for an unknown name and for data that
    are missing or cannot be read.
    """
    if name in DRAWN:
        from . import fieldguide

        return f"{name} {fieldguide.VERSION}"
    place = _place(name)
    if place is None:
        place = _reader(name).folder(_whole(name))
    return files.stamp(place)


def check(name: str) -> dict:
    """Examine a data set thoroughly: see :func:`fgbook.data.photos.check`. A drawn one
    is drawn, at a small size.
    """
    if name not in DRAWN:
        return photos.check(_photos(name))
    drawn = load(name, 32)
    return {
        "name": name,
        "path": str(path(name)),
        "classes": drawn.num_classes,
        "images": {split: len(drawn.split(split)) for split in SPLITS},
        "official": {},
        "left_out": [],
        "problems": [],
        "duplicates": [],
        "fingerprint": drawn.fingerprint,
    }


def _photos(name: str) -> Photos:
    place = _place(name)
    if place is not None:
        return folder.photos(place)
    found = _reader(name).photos(_whole(name))
    return found if name == _whole(name) else photos.cropped(found)


def _place(name: str) -> Path | None:
    """The absolute path of "folder:PATH"; None for other names."""
    kind, _, place = name.partition(":")
    if kind != "folder":
        return None
    if not place or place == "PATH":
        raise InputError(
            "data set 'folder:' needs a path, such as folder:/home/me/birds."
        )
    return files.absolute(place)


def _reader(name: str) -> Reader:
    if name not in PHOTOGRAPHED:
        raise unknown("data set", name, names())
    return PHOTOGRAPHED[name]


def _whole(name: str) -> str:
    """The data set whose pictures these are, cut or not."""
    return name.removesuffix("-cropped")
