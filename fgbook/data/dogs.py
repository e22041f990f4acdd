"""Stanford Dogs (Khosla et al. 2011): 120 breeds of ImageNet's photographs; and 21 of
them, after Golodov et al. (2018).
"""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..errors import InputError
from . import split
from .photos import Photos, locate, read_mat

HOME = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
OFFICIAL = {"classes": 120, "train": 12000, "test": 8580}

# Golodov et al., section IV.A
BREEDS = 21
TEST = 210
VALIDATION = 850
TRAIN = 4260


def folder(name: str = "dogs") -> Path:
    """Where the data set lies. Raises InputError that says how to get it."""
    places = ["dogs", "stanford_dogs", "StanfordDogs"]
    advice = (
        "run `fgbook data get dogs`, or unpack images.tar, annotation.tar and"
        f" lists.tar from {HOME} there"
    )
    return locate(name, places, "train_list.mat", advice)


def photos(name: str = "dogs") -> Photos:
    """dogs: 120 breeds in the official split; validation is cut from training by
    split.validation. dogs21: see :func:`twenty_one`.

    Box: the smallest that holds all annotated dogs of a picture; None where the
    annotations are not unpacked. Raises InputError for missing or contradictory lists.
    """
    return twenty_one() if name == "dogs21" else _all_breeds(name)


def _all_breeds(name: str) -> Photos:
    root = folder(name)
    files, parts = [], []
    for part in ("train", "test"):
        [listed] = read_mat(root / f"{part}_list.mat", "file_list")
        files += [str(file) for file in listed]
        parts += [part] * len(listed)
    breeds = [file.split("/")[0] for file in files]
    classes = sorted(set(breeds))
    place = {breed: i for i, breed in enumerate(classes)}
    labels = np.array([place[breed] for breed in breeds], np.int64)

    boxes = None
    notes = root / "Annotation"
    if notes.is_dir():
        boxes = np.array([_box(notes / file.rsplit(".", 1)[0]) for file in files])
    return Photos(
        name,
        root / "Images",
        classes,
        files,
        labels,
        split.cut_validation(files, labels, np.array(parts)),
        boxes,
        official=OFFICIAL,
    )


def twenty_one() -> Photos:
    """dogs21: a stand-in for the 21 breeds of Golodov et al., who name neither breeds
    nor pictures, and added some of two breed clubs.

    The rule: the 21 breeds with the most pictures in Stanford Dogs (equal numbers: by
    name), whatever their official part. In each, the pictures are ordered by
    split.rank; the first 10 are for test (210 as printed), the next 40, or 41 in the
    first ten breeds by name, for validation (850 as printed), the others, at most 203
    in the first 18 breeds and 202 in the rest, for training (at most 4260 as printed;
    without the clubs' pictures there are fewer). Raises InputError for fewer breeds.
    """
    whole = _all_breeds("dogs21")
    counts = Counter(whole.labels.tolist())

    def by_count(label: int) -> tuple[int, int]:
        return -counts[label], label  # classes are in the order of their names

    def by_rank(row: int) -> str:
        return split.rank(whole.files[row])

    breeds = sorted(sorted(counts, key=by_count)[:BREEDS])
    if len(breeds) < BREEDS:
        raise InputError(
            f"dogs21 needs {BREEDS} breeds; {whole.root} has {len(breeds)}."
        )

    rows: list[int] = []
    labels: list[int] = []
    parts: list[str] = []
    for i, breed in enumerate(breeds):
        members = sorted(np.flatnonzero(whole.labels == breed).tolist(), key=by_rank)
        wanted = []
        for part, total in (("test", TEST), ("val", VALIDATION), ("train", TRAIN)):
            # as evenly as it goes: the first breeds by name get one more
            share = total // BREEDS + (i < total % BREEDS)
            wanted += [part] * share
        members = members[: len(wanted)]
        rows += members
        labels += [i] * len(members)
        parts += wanted[: len(members)]
    return Photos(
        "dogs21",
        whole.root,
        [whole.classes[breed] for breed in breeds],
        [whole.files[row] for row in rows],
        np.array(labels),
        np.array(parts),
        None if whole.boxes is None else whole.boxes[rows],
        official={"classes": BREEDS, "val": VALIDATION, "test": TEST},
    )


def _box(path: Path) -> list[float]:
    """The box round all dogs of an annotation file, xyxy."""
    dogs = []
    try:
        for box in ElementTree.parse(path).iter("bndbox"):
            sides = [
                box.findtext(side, "") for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            dogs.append([float(side) for side in sides])
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(
            f"{path} is not an annotation of Stanford Dogs ({error}); unpack"
            " annotation.tar again."
        ) from error
    if not dogs:
        raise InputError(f"{path} has no box; unpack annotation.tar again.")
    corners = np.array(dogs)
    return [*corners[:, :2].min(0), *corners[:, 2:].max(0)]
