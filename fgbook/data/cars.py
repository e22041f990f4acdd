"""Stanford Cars (Krause et al. 2013): 196 models, in the layout of its kit or as class
folders; and cars98, half of its classes."""

import numpy as np

from ..errors import InputError
from . import folder, split
from .photos import Photos, locate, read_mat

OFFICIAL = {"classes": 196, "train": 8144, "test": 8041}
ADVICE = (
    "its official link is dead; put cars_train/, cars_test/, devkit/ and"
    " cars_test_annos_withlabels.mat there (`fgbook data get cars` names the archives"
    " and their checksums), or train/ and test/ with a folder of pictures for each"
    " model"
)


def photos() -> Photos:
    """Official split; validation is cut from training by split.validation. Boxes only
    in the kit's layout.

    Raises InputError for missing or contradictory lists.
    """
    try:
        root = locate("cars", ["cars", "stanford_cars"], "devkit/cars_meta.mat", ADVICE)
    except InputError as missing:
        try:
            place = locate(
                "cars",
                ["cars", "stanford_cars", "cars/car_data", "cars/car_data/car_data"],
                "train",
                ADVICE,
            )
        except InputError:
            raise missing from None
        return folder.photos(place, "cars", OFFICIAL)
    classes = [
        str(name)
        for name in read_mat(root / "devkit" / "cars_meta.mat", "class_names")[0]
    ]
    labelled = "cars_test_annos_withlabels.mat"
    lists = {
        "train": root / "devkit" / "cars_train_annos.mat",
        "test": (
            root / labelled
            if (root / labelled).is_file()
            else root / "devkit" / labelled
        ),
    }
    files, labels, splits, boxes = [], [], [], []
    for part, path in lists.items():
        [rows] = read_mat(path, "annotations")
        try:
            files += [f"cars_{part}/{name}" for name in rows["fname"]]
            labels += [int(number) - 1 for number in rows["class"]]
            boxes += [
                [float(row[f"bbox_{side}"]) for side in ("x1", "y1", "x2", "y2")]
                for row in rows
            ]
        except (ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"{path} lacks what Stanford Cars' lists have ({error}); is it the"
                " official file?"
            ) from error
        splits += [part] * len(rows)
    if not all(0 <= label < len(classes) for label in labels):
        raise InputError(
            f"the lists in {root} name a class that devkit/cars_meta.mat lacks."
        )
    corners, labels, splits = (
        np.array(boxes),
        np.array(labels, np.int64),
        np.array(splits),
    )
    corners[:, :2] -= 1  # counted from 1, both ends included
    return Photos(
        "cars",
        root,
        classes,
        files,
        labels,
        split.cut_validation(files, labels, splits),
        corners,
        official=OFFICIAL,
    )


def half() -> Photos:
    """cars98: the odd-numbered 98 classes, official training photographs cut to their
    boxes and divided in two, as ``split.csv`` lists."""
    advice = (
        "it is the project's own selection, made from Stanford Cars and not published;"
        " use cars instead, or put it there"
    )
    root = locate("cars98", ["cars98"], "split.csv", advice)
    return folder.listed(root, "cars98")
