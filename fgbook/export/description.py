"""What travels inside an exported file, as JSON under one name: the classes, how a
picture becomes the model's input, and which training made the weights.
"""

import json

from .. import __version__
from ..errors import InputError

NAME = "fgbook"
"""Under this name it stands in the metadata of ONNX, and as a file in a `.pt2`."""

VERSION = 1

LARGEST = 8192
"""Side of a picture, in pixels, above which a description is taken for wrong: many of
them would fill the memory."""

INPUT, OUTPUT = "images", "logits"
"""The names of the one input and the one output."""

# Of model.json; the rest of it is about training.
KEPT = (
    "key",
    "paper",
    "row",
    "profile",
    "dataset",
    "data_fingerprint",
    "seed",
    "method",
    "options",
    "weights",
    "classes",
    "command",
)

# What using the model needs, and the type of each.
NEEDED = {"classes": list, "preprocessing": dict, "key": str, "command": str}


def describe(about: dict) -> dict:
    """The description of a model, from what its model.json says."""
    recipe = about["recipe"]
    kept = {name: about[name] for name in KEPT if name in about}
    return {
        "version": VERSION,
        "fgbook": __version__,
        **kept,
        "preprocessing": {
            "channels": "RGB",
            # the whole picture, squeezed to a square by a bilinear filter that
            # antialiases
            "resize_to": recipe["store_size"],
            # of that, the middle
            "crop_to": recipe["image_size"],
            "range": [0, 1],  # mean and deviation are subtracted inside
            "layout": "NCHW",
        },
    }


def dumps(description: dict) -> str:
    """The description as text."""
    return json.dumps(description, ensure_ascii=False, allow_nan=False)


def loads(text: str | None, path: object) -> dict:
    """The description that a file holds. Raises InputError where there is none, or one
    that cannot be used.
    """
    try:
        if text is None:
            raise ValueError("it has no description of classes and sizes")
        found = json.loads(text)
        for name, kind in NEEDED.items():
            if not isinstance(found.get(name), kind):
                raise ValueError(f"{name} is {found.get(name)!r}")
        _check_classes(found["classes"])
        _check_sizes(found["preprocessing"])
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{path} was not written by `fgbook export` ({error})."
        ) from error
    return found


def _check_classes(classes: list) -> None:
    """Raises ValueError for anything but the names of two classes or more."""
    if not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes should be names, not {classes[:5]!r}")
    if len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise ValueError(
            f"classes should be two different names or more, not {classes[:5]!r}"
        )


def _check_sizes(preprocessing: dict) -> None:
    """Raises ValueError for sides of which no picture can be made."""
    for name in ("resize_to", "crop_to"):
        side = preprocessing.get(name)
        # True is an int as well
        if type(side) is not int or not 0 < side <= LARGEST:
            raise ValueError(
                f"{name} should be a number of pixels from 1 to {LARGEST}, not {side!r}"
            )
    if preprocessing["crop_to"] > preprocessing["resize_to"]:
        raise ValueError(
            f"crop_to, {preprocessing['crop_to']}, is larger than resize_to,"
            f" {preprocessing['resize_to']}"
        )
