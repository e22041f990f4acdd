"""Dog breeds: Stanford Dogs (Khosla et al. 2011), 21 of them after Golodov et al.
(2018), and Imagewoof. All are ImageNet's photographs."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..errors import InputError
from . import folder, split
from .photos import Photos, locate, read_mat

HOME = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
OFFICIAL = {"classes": 120, "train": 12000, "test": 8580}
BREEDS, TEST, VALIDATION, TRAIN = 21, 210, 850, 4260  # Golodov et al., section IV.A


def photos(name: str = "dogs") -> Photos:
    """Stanford Dogs: 120 breeds in the official split; validation is cut from training
        by split.validation.

    Box: the smallest that holds all annotated dogs of a picture; None where the
    annotations are not unpacked. Raises InputError for missing or contradictory lists.
    """
    root = locate(
        name,
        ["dogs", "stanford_dogs", "StanfordDogs"],
        "train_list.mat",
        "run `fgbook data get dogs`, or unpack images.tar, annotation.tar and"
        f" lists.tar from {HOME} there",
    )
    files, splits = [], []
    for part in ("train", "test"):
        listed = read_mat(root / f"{part}_list.mat", "file_list")[0]
        files += [str(file) for file in listed]
        splits += [part] * len(listed)
    classes = sorted({file.split("/")[0] for file in files})
    row = {name: i for i, name in enumerate(classes)}
    labels = np.array([row[file.split("/")[0]] for file in files], np.int64)
    splits = split.cut_validation(files, labels, np.array(splits))
    notes = root / "Annotation"
    boxes = (
        np.array([_box(notes / file.rsplit(".", 1)[0]) for file in files])
        if notes.is_dir()
        else None
    )
    return Photos(
        name, root / "Images", classes, files, labels, splits, boxes, official=OFFICIAL
    )


def twenty_one() -> Photos:
    """dogs21: a stand-in for the 21 breeds of Golodov et al., who name neither breeds
        nor pictures, and added some of two breed clubs.

    The rule: the 21 breeds with the most pictures in Stanford Dogs (equal numbers: by
    name), whatever their official part. In each, the pictures are ordered by
    split.rank; the first 10 are for test (210 as printed), the next 40, or 41 in the
    first ten breeds by name, for validation (850 as printed), the others, at most 203
    in the first 18 breeds and 202 in the rest, for training (at most 4260 as printed;
    without the clubs' pictures there are fewer).
    """
    whole = photos("dogs21")
    counts = Counter(whole.labels.tolist())
    breeds = sorted(
        sorted(counts, key=lambda label: (-counts[label], whole.classes[label]))[
            :BREEDS
        ]
    )
    if len(breeds) < BREEDS:
        raise InputError(
            f"dogs21 needs {BREEDS} breeds; {whole.root} has {len(breeds)}."
        )
    rows, labels, splits = [], [], []
    for i, breed in enumerate(breeds):
        members = sorted(
            np.flatnonzero(whole.labels == breed),
            key=lambda k: split.rank(whole.files[k]),
        )
        sizes = [
            total // BREEDS + (i < total % BREEDS)
            for total in (TEST, VALIDATION, TRAIN)
        ]
        parts = [
            part
            for part, size in zip(("test", "val", "train"), sizes, strict=True)
            for _ in range(size)
        ]
        for k, part in zip(members, parts, strict=False):
            rows.append(k)
            labels.append(i)
            splits.append(part)
    classes, files = (
        [whole.classes[breed] for breed in breeds],
        [whole.files[k] for k in rows],
    )
    boxes, official = (
        None if whole.boxes is None else whole.boxes[rows],
        {
            "classes": BREEDS,
            "val": VALIDATION,
            "test": TEST,
        },
    )
    return Photos(
        "dogs21",
        whole.root,
        classes,
        files,
        np.array(labels),
        np.array(splits),
        boxes,
        official=official,
    )


def imagewoof() -> Photos:
    """Imagewoof's ten breeds, the version of 320 px or the full one. Its val part is
    for test; validation is cut from training."""
    advice = (
        "run `fgbook data get imagewoof`, or unpack imagewoof2-320.tgz from"
        " https://github.com/fastai/imagenette there"
    )
    root = locate(
        "imagewoof",
        ["imagewoof/imagewoof2-320", "imagewoof2-320", "imagewoof2", "imagewoof"],
        "train",
        advice,
    )
    return folder.photos(
        root, "imagewoof", {"classes": 10, "train": 9025, "test": 3929}
    )


def imagewoof10() -> Photos:
    """imagewoof10: 150 training, 30 validation and 30 test pictures of each of
    Imagewoof's breeds; its ``split.csv`` lists them."""
    root = locate(
        "imagewoof10",
        ["imagewoof10"],
        "split.csv",
        "it is the project's own selection from Imagewoof and not published; use"
        " imagewoof instead, or put it there",
    )
    return folder.listed(root, "imagewoof10")


def _box(path: Path) -> list[float]:
    """The box round all dogs of an annotation file, xyxy."""
    try:
        found = [
            [float(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in ElementTree.parse(path).iter("bndbox")
        ]
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not an annotation of Stanford Dogs ({error}); unpack"
            " annotation.tar again."
        ) from error
    if not found:
        raise InputError(f"{path} has no box; unpack annotation.tar again.")
    corners = np.array(found)
    return [*corners[:, :2].min(0), *corners[:, 2:].max(0)]
