"""Methods: one readable file each. ``METHODS`` names them, ``build`` makes one."""

import inspect

from torch import nn

from ..errors import unknown
from ..recipe import Recipe
from . import backbones
from .attention import Attention
from .flrdf import Flrdf
from .focus import Focus
from .levels import Levels
from .plain import Plain
from .simple import Simple
from .superres import SuperResolution
from .transfer import Transfer

METHODS = {"plain": Plain, "focus": Focus, "superres": SuperResolution, "simple": Simple, "transfer": Transfer, "levels": Levels, "attention": Attention,
           "flrdf": Flrdf}  # fmt: skip


def options_of(method: str) -> dict:
    """The options of a method with their defaults; raises InputError for an unknown method."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    parameters = list(inspect.signature(METHODS[method]).parameters.values())[2:]  # after backbone and num_classes
    return {parameter.name: parameter.default for parameter in parameters}


def build(method: str, num_classes: int, recipe: Recipe, options: dict) -> nn.Module:
    """The method's model on the recipe's backbone and weights, BatchNorm treated as the recipe says; heads come from torch's generator.

    Raises InputError for an unknown method, option or backbone, an option out of range, and weights that cannot be had or do not fit.
    """
    valid = options_of(method)
    for name in options:
        if name not in valid:
            raise unknown(f"option of {method}", name, valid or ["none"])
    if "image_size" in valid:  # a method that has to know the size of what it sees
        options = {"image_size": recipe.image_size, **options}
    backbone = None if METHODS[method] is Simple else backbones.create(recipe.backbone, recipe.weights)  # it brings its own network
    model = METHODS[method](backbone, num_classes, **options)
    if recipe.batchnorm == "frozen":
        backbones.freeze_statistics(model)
    return model
