"""Where images come from: data sets by name."""

from collections.abc import Callable
from pathlib import Path

from .. import paths
from ..errors import InputError, unknown
from . import aircraft, cars, cub, dogs, flowers, folder, photos
from .dataset import DataSet
from .photos import Photos

DRAWN = {"fieldguide": "target", "fieldguide-source": "source"}
"""Drawn data sets -> their pool of species."""

PHOTOGRAPHED: dict[str, Callable[[], Photos]] = {
    "cub": lambda: cub.photos("cub"),
    "cub50": lambda: cub.photos("cub50"),
    "cub-cropped": lambda: photos.cropped(cub.photos("cub")),
    "cub50-cropped": lambda: photos.cropped(cub.photos("cub50")),
    "aircraft": aircraft.photos,
    "cars": cars.photos,
    "cars-cropped": lambda: photos.cropped(cars.photos()),
    "cars98": cars.half,
    "dogs": dogs.photos,
    "dogs21": dogs.twenty_one,
    "flowers": flowers.photos,
    "imagewoof": dogs.imagewoof,
    "imagewoof10": dogs.imagewoof10,
}


def names() -> list[str]:
    """The data sets that :func:`load` knows. ``folder:PATH`` stands for any folder of
    class folders."""
    return [*DRAWN, *PHOTOGRAPHED, "folder:PATH"]


def load(name: str, size: int) -> DataSet:
    """A data set with images of `size` x `size` pixels. The first call draws or decodes
    them, later ones map what it kept.

    Raises InputError for an unknown name, for data that are missing (saying where to
    get them), damaged or contradictory.
    """
    if name in DRAWN:
        from . import fieldguide

        return fieldguide.load(size, pool=DRAWN[name])
    return photos.load(_photos(name), size)


def path(name: str) -> Path:
    """The folder that a data set's pictures are read from; for a drawn one, where its
    images are kept."""
    return paths.store() if name in DRAWN else _photos(name).root


def check(name: str) -> dict:
    """Examine a data set thoroughly: see :func:`fgbook.data.photos.check`. A drawn one
    is drawn, at a small size."""
    if name not in DRAWN:
        return photos.check(_photos(name))
    drawn = load(name, 32)
    images = {split: len(drawn.split(split)) for split in photos.SPLITS}
    return {
        "name": name,
        "path": str(path(name)),
        "classes": drawn.num_classes,
        "images": images,
        "official": {},
        "problems": [],
        "duplicates": [],
        "fingerprint": drawn.fingerprint,
    }


def _photos(name: str) -> Photos:
    kind, _, place = name.partition(":")
    if kind == "folder":
        if not place or place == "PATH":
            raise InputError(
                "data set 'folder:' needs a path, such as folder:/home/me/birds."
            )
        return folder.photos(Path(place))
    if name not in PHOTOGRAPHED:
        raise unknown("data set", name, names())
    return PHOTOGRAPHED[name]()
