"""Methods: one readable file each. ``METHODS`` names them, ``build`` makes one."""

import inspect

from torch import Tensor

from .. import backbones
from ..errors import unknown
from ..recipe import Recipe
from .attention import Attention
from .flrdf import Flrdf
from .focus import Focus
from .levels import Levels
from .method import Method
from .plain import Plain
from .semantic import Semantic
from .simple import Simple
from .simsiam import SimSiam
from .superres import SuperResolution
from .transfer import Transfer

METHODS: dict[str, type[Method]] = {
    "plain": Plain,
    "focus": Focus,
    "superres": SuperResolution,
    "simple": Simple,
    "transfer": Transfer,
    "levels": Levels,
    "attention": Attention,
    "flrdf": Flrdf,
    "semantic": Semantic,
    "simsiam": SimSiam,
}


def options_of(method: str) -> dict:
    """The options of a method with their defaults; raises InputError for an unknown
    method."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    parameters = inspect.signature(METHODS[method]).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def build(
    method: str,
    num_classes: int,
    recipe: Recipe,
    options: dict,
    class_attributes: Tensor | None = None,
) -> Method:
    """The method's model on the recipe's backbone and weights, BatchNorm treated as the
    recipe says; heads come from torch's generator.

    class_attributes: what the data set says of its classes, (C, A); only the method
    "semantic" looks at it. Raises InputError for an unknown method, option or backbone,
    an option out of range, and weights that cannot be had or do not fit.
    """
    valid = options_of(method)
    for name in options:
        if name not in valid:
            raise unknown(f"option of {method}", name, valid or ["none"])
    for name in ("image_size", "views"):  # a method that has to know what it will see
        if name in valid:
            options = {name: getattr(recipe, name), **options}
    # it brings its own network
    backbone = (
        None
        if METHODS[method] is Simple
        else backbones.create(recipe.backbone, recipe.weights)
    )
    known = (class_attributes,) if METHODS[method] is Semantic else ()
    model = METHODS[method](backbone, num_classes, *known, **options)
    if recipe.batchnorm == "frozen":
        backbones.freeze_statistics(model)
    return model
