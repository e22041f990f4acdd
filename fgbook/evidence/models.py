"""A trained model that can be used anywhere: ``model.json`` beside its weights says all
that predicting needs, so that neither the training images nor the paper's file do.

A run's folder holds ``model.safetensors`` (the weights) and ``model.json`` (the method,
its options, the recipe with sizes and resolution, the names of the classes, which data
made it, and the command that makes it again). Such a folder can be copied elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from .. import backbones, methods, paths
from ..data.dataset import DataSet
from ..errors import InputError
from ..methods import Method
from ..recipe import Recipe
from ..training import checkpoints, devices
from . import records

if TYPE_CHECKING:
    from .plan import Run

WEIGHTS = "model.safetensors"
ABOUT = "model.json"

# What building needs, and the type of each.
FIELDS = {
    "key": str,
    "method": str,
    "options": dict,
    "recipe": dict,
    "seed": int,
    "weights": str,
    "classes": list,
    "command": str,
}


def describe(run: Run, dataset: DataSet) -> dict:
    """All that a model of this run needs besides its weights."""
    attributes = dataset.class_attributes
    return {
        "key": run.key,
        "purpose": run.purpose,
        "paper": run.paper,
        "row": run.row,
        "profile": run.profile,
        "dataset": run.dataset,
        "data_fingerprint": dataset.fingerprint,
        "seed": run.seed,
        "method": run.method,
        "options": run.options,
        "recipe": run.recipe.as_dict(),
        "weights": run.weights,
        "classes": dataset.classes,
        "num_classes": dataset.num_classes,
        # how many; what they say of the classes is part of the weights
        "class_attributes": None if attributes is None else attributes.shape[1],
        "command": run.command,
    }


def write(folder: Path, about: dict) -> None:
    """Write model.json."""
    records.write_json(folder / ABOUT, about)


def read(folder: Path) -> dict:
    """What model.json says. Raises InputError where it is missing, damaged or of
    another kind.
    """
    path = folder / ABOUT
    try:
        about = records.read_json(path)
        for name, kind in FIELDS.items():
            if not isinstance(about.get(name), kind):
                raise ValueError(f"{name} is {about.get(name)!r}")
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise InputError(f"{path} does not describe a model ({said}).") from error
    return about


def is_described(folder: Path) -> bool:
    """Whether there is a whole model.json."""
    try:
        read(folder)
    except InputError:
        return False
    return True


def is_key(text: str) -> bool:
    """Whether a text has the form of a run's key."""
    return re.fullmatch("[0-9a-f]{16}", text) is not None


def folder_of(folder_or_key: str | Path) -> Path:
    """Where a model is: the folder that is named, or that of the run with this key."""
    given = Path(folder_or_key).expanduser()
    if (given / WEIGHTS).is_file():
        return given
    if is_key(str(folder_or_key)):
        return paths.runs() / folder_or_key
    if (given / ABOUT).is_file():  # a run that is not finished
        check_weights(given, read(given))
    raise InputError(
        f"{folder_or_key} is neither the key of a run nor a folder with {WEIGHTS} and"
        f" {ABOUT}."
    )


# ---- weights


def has_weights(folder: Path) -> bool:
    """Whether trained weights are there, as they were written; damaged ones are warned
    of.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        return False
    try:
        checkpoints.load_model(path)
    except checkpoints.Damaged:
        records.warn(f"{path} is damaged; it is trained again.")
        return False
    return True


def check_weights(folder: Path, about: dict) -> None:
    """Raises InputError, with the command that trains them, where the weights of a
    model or record are not there or damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(
            f"the weights of run {about['key']} are not on this machine (there is no"
            f" {path}, and weights are not published); train it with"
            f" `{train_command(about)}`."
        )
    try:
        checkpoints.load_model(path)
    except checkpoints.Damaged as error:
        raise InputError(
            f"{path} is damaged; train it again with `{train_command(about)}`."
        ) from error


def train_command(about: dict) -> str:
    """The command of a model or record, so that it trains also where a record is
    there.
    """
    return f"{about['command']} --train"


def build(about: dict, folder: Path, device: str | None = None) -> Method:
    """The trained model that `about` describes, with the weights in `folder`, in
    evaluation mode. Raises InputError where they are damaged, or do not fit.
    """
    made = methods.METHODS.get(about["method"])
    if made is None:
        raise InputError(
            f"{folder} holds a model of the method {about['method']!r}, which this"
            " version of fgbook does not have."
        )
    recipe = Recipe.of(about["recipe"])
    if made.frozen_backbone:
        _check_backbone(about, recipe)
    else:  # all that was pretrained has been trained on, and kept
        recipe = recipe.but(weights="none")

    number = about.get("class_attributes")
    attributes = None  # of the right shape; the weights hold the values
    if number is not None:
        attributes = torch.zeros(len(about["classes"]), number)

    # of a frozen backbone with random weights only the head was kept
    torch.manual_seed(about["seed"])
    with torch.no_grad():  # nothing is to learn
        network = methods.build(
            about["method"], len(about["classes"]), recipe, about["options"], attributes
        )
    put(trained_part(network), folder / WEIGHTS)
    return network.eval().to(device or devices.default_device())


def _check_backbone(about: dict, recipe: Recipe) -> None:
    """Of a frozen backbone only its name was kept: refuse another one's maps."""
    here = backbones.weights_id(recipe.backbone, recipe.weights)
    if here != about["weights"]:
        raise InputError(
            f"run {about['key']} reads the maps of a backbone with the weights"
            f" {about['weights']}, but here they are {here}; put those into the folder"
            " of weights (FGBOOK_WEIGHTS)."
        )


def put(part: Method, path: Path) -> None:
    """Put the weights in a file into the part of a network that they were kept of."""
    try:
        part.load_state_dict(checkpoints.load_model(path))
    except RuntimeError as error:  # torch lists all names, over many lines
        raise InputError(
            f"{path} holds the weights of another model than {type(part).__name__};"
            " delete it and run its row again."
        ) from error


def trained_part(network: Method) -> Method:
    """The part of a method's model that is trained and kept: all of it, but only the
    head where the backbone is a frozen feature extractor.
    """
    return cast(Method, network.head) if network.frozen_backbone else network
