"""Stanford Cars (Krause et al. 2013): 196 models, in the layout of its kit or as class
folders; and cars98, half of its classes.
"""

from pathlib import Path

import numpy as np

from ..errors import InputError
from . import folder as folders
from . import split
from .photos import Photos, locate, read_mat

OFFICIAL = {"classes": 196, "train": 8144, "test": 8041}
ADVICE = (
    "its official link is dead; put cars_train/, cars_test/, devkit/ and"
    " cars_test_annos_withlabels.mat there (`fgbook data get cars` names the archives"
    " and their checksums), or train/ and test/ with a folder of pictures for each"
    " model"
)
ADVICE_98 = (
    "run `fgbook data get cars98`, which makes it from Stanford Cars' training pictures"
    " (data set cars)"
)
KIT = "devkit/cars_meta.mat"
LABELLED = "cars_test_annos_withlabels.mat"


def folder(name: str = "cars") -> Path:
    """Where the data set lies. Raises InputError that says how to get it."""
    if name == "cars98":
        return locate(name, ["cars98"], "split.csv", ADVICE_98)
    try:
        return locate(name, ["cars", "stanford_cars"], KIT, ADVICE)
    except InputError as missing:
        # perhaps as class folders, which others made of it; else ask for the kit
        places = ["cars", "stanford_cars", "cars/car_data", "cars/car_data/car_data"]
        try:
            return locate(name, places, "train", ADVICE)
        except InputError:
            raise missing from None


def photos(name: str = "cars") -> Photos:
    """cars: the whole set. Official split; validation is cut from training by
    split.validation. Boxes only in the kit's layout.

    cars98: the odd-numbered 98 classes, official training photographs cut to their
    boxes and divided in two, as ``split.csv`` lists.

    Raises InputError for missing or contradictory lists.
    """
    root = folder(name)
    if name == "cars98":
        return folders.listed(root, name)
    if not (root / KIT).is_file():
        return folders.photos(root, name, OFFICIAL)

    [names] = read_mat(root / KIT, "class_names")
    classes = [str(model) for model in names]
    # Beside the kit, as its authors publish it, or put into it.
    test_list = root / LABELLED
    if not test_list.is_file():
        test_list = root / "devkit" / LABELLED
    train, test = _List(root / "devkit/cars_train_annos.mat"), _List(test_list)

    labels = np.array(train.labels + test.labels, np.int64)
    if not all(0 <= label < len(classes) for label in labels):
        raise InputError(
            f"the lists in {root} name a class that devkit/cars_meta.mat lacks."
        )
    files = [f"cars_train/{file}" for file in train.files]
    files += [f"cars_test/{file}" for file in test.files]
    splits = np.array(["train"] * len(train.files) + ["test"] * len(test.files))
    return Photos(
        name,
        root,
        classes,
        files,
        labels,
        split.cut_validation(files, labels, splits),
        boxes=np.array(train.boxes + test.boxes),
        official=OFFICIAL,
    )


class _List:
    """A list of the kit: of each picture its file, its label from 0, its box xyxy."""

    def __init__(self, path: Path):
        self.files: list[str] = []
        self.labels: list[int] = []
        self.boxes: list[list[float]] = []
        [rows] = read_mat(path, "annotations")
        try:
            for row in rows:
                self.files.append(str(row["fname"]))
                self.labels.append(int(row["class"]) - 1)
                left, top = float(row["bbox_x1"]), float(row["bbox_y1"])
                right, bottom = float(row["bbox_x2"]), float(row["bbox_y2"])
                # counted from 1, both ends included
                self.boxes.append([left - 1, top - 1, right, bottom])
        except (ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"{path} lacks what Stanford Cars' lists have ({error}); is it the"
                " official file?"
            ) from error
