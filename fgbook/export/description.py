"""What travels inside an exported file, as JSON under one name: the classes, how a
picture becomes the model's input, and which training made the weights.
"""

import json

from .. import __version__
from ..errors import InputError

NAME = "fgbook"
"""Under this name it stands in the metadata of ONNX, and as a file in a `.pt2`."""

VERSION = 1

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
        for name in ("resize_to", "crop_to"):
            if not isinstance(found["preprocessing"].get(name), int):
                raise ValueError(f"{name} is missing")
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{path} was not written by `fgbook export` ({error})."
        ) from error
    return found
