"""Methods: one readable file each. ``METHODS`` names them, ``build`` makes one.

A method is added with a file (see :mod:`fgbook.methods.method` for what it holds), its
import and its line in METHODS; the tests of all methods then apply to it.
"""

import inspect
from typing import Any, get_type_hints

import torch
from torch import Tensor

from .. import backbones
from ..errors import InputError, unknown
from ..recipe import Recipe
from . import options as values
from .apinet import APINet
from .attention import Attention
from .bilinear import Bilinear
from .boosted import Boosted
from .cal import CAL
from .crossx import CrossX
from .dcl import DCL
from .dflcnn import DFLCNN
from .flrdf import Flrdf
from .focus import Focus
from .levels import Levels
from .macnn import MACNN
from .mcloss import MCLoss
from .method import Method
from .mmal import MMAL
from .ntsnet import NTSNet
from .partnet import PartNet
from .plain import Plain
from .pmg import PMG
from .probe import Probe
from .racnn import RACNN
from .semantic import Semantic
from .simple import Simple
from .simsiam import SimSiam
from .superres import SuperResolution
from .transfer import Transfer
from .transfg import TransFG
from .wsdl import WSDL

METHODS: dict[str, type[Method]] = {
    "plain": Plain,
    "focus": Focus,
    "superres": SuperResolution,
    "simple": Simple,
    "transfer": Transfer,
    "probe": Probe,
    "levels": Levels,
    "attention": Attention,
    "flrdf": Flrdf,
    "semantic": Semantic,
    "simsiam": SimSiam,
    "ntsnet": NTSNet,
    "dcl": DCL,
    "mmal": MMAL,
    "pmg": PMG,
    "apinet": APINet,
    "mcloss": MCLoss,
    "bilinear": Bilinear,
    "dflcnn": DFLCNN,
    "crossx": CrossX,
    "boosted": Boosted,
    "racnn": RACNN,
    "macnn": MACNN,
    "partnet": PartNet,
    "cal": CAL,
    "transfg": TransFG,
    "wsdl": WSDL,
}


def options_of(method: str) -> dict[str, Any]:
    """The options of a method with their defaults: the keywords of its constructor, but
    for those that the recipe sets. Raises InputError for an unknown method.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    found = METHODS[method]
    return {
        name: parameter.default
        for name, parameter in inspect.signature(found).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in found.from_recipe
    }


def parse_option(method: str, name: str, text: str) -> Any:
    """The value of a method's option from the text of a command line, by the annotation
    of the option: ``parse_option("focus", "m", "4")`` is 4.

    Numbers are written as in Python, True and False also small, None as none, several
    values with commas between. Raises InputError for an unknown method or
    option (with the nearest ones), and for text that is no such value.
    """
    kind = _kind(method, name)
    try:
        return values.parse(text, kind)
    except ValueError:
        raise _wrong_type(method, name, text) from None


def check_options(
    method: str, options: dict[str, Any], recipe: Recipe | None = None
) -> dict[str, Any]:
    """The options with each value as its annotation has it (1 for a float becomes 1.0,
    a record's list a tuple); what no option could be is refused before any training.

    Names and types are compared with the signature. Ranges are the constructor's to
    judge: a model of two classes is made, without memory for weights, on the recipe's
    backbone (None: `small`) and image size. That takes some hundredths of a second and
    leaves torch's generator as it was. Raises InputError.
    """
    fitting = _fitting(method, options)
    recipe = recipe or Recipe(backbone="small")
    class_attributes = torch.eye(2)
    untrained = recipe.but(weights="none")
    try:
        with torch.device("meta"):  # tensors without values
            build(method, 2, untrained, fitting, class_attributes)
    except RuntimeError:
        # a constructor that looks at values needs some
        with torch.random.fork_rng(devices=[]):
            build(method, 2, untrained, fitting, class_attributes)
    return fitting


def build(
    method: str,
    num_classes: int,
    recipe: Recipe,
    options: dict[str, Any],
    class_attributes: Tensor | None = None,
) -> Method:
    """The method's model on the recipe's backbone and weights, BatchNorm treated as the
    recipe says; heads come from torch's generator.

    class_attributes: what the data set says of its classes, (C, A), for methods that
    need it. Raises InputError for an unknown method, option or backbone, an option of a
    wrong type or out of range, and weights that cannot be had or do not fit.
    """
    keywords = _fitting(method, options)
    made = METHODS[method]
    for name in made.from_recipe:
        keywords[name] = getattr(recipe, name)

    backbone = None
    if not made.own_network:
        backbone = backbones.create(recipe.backbone, recipe.weights)
    positional: list[Any] = [backbone, num_classes]
    if made.needs_class_attributes:
        positional.append(class_attributes)

    model = made(*positional, **keywords)
    if recipe.batchnorm == "frozen":
        backbones.freeze_statistics(model)
    return model


def _fitting(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options, each as its annotation has it; names and types are checked."""
    options_of(method)  # the method's own name, also where there are no options
    fitting = {}
    for name, value in options.items():
        kind = _kind(method, name)
        try:
            fitting[name] = values.fitted(value, kind)
        except ValueError:
            raise _wrong_type(method, name, value) from None
    return fitting


def _kind(method: str, name: str) -> Any:
    """The annotation of a method's option."""
    valid = options_of(method)
    made = METHODS[method]
    if name in made.from_recipe:
        raise InputError(
            f"{method} takes {name} from the recipe; set the recipe's {name} instead."
        )
    if name not in valid:
        raise unknown(f"option of {method}", name, valid or ["none"])
    return get_type_hints(made.__init__)[name]


def _wrong_type(method: str, name: str, value: object) -> InputError:
    expected = values.describe(_kind(method, name))
    default = options_of(method)[name]
    return InputError(
        f"{method}: {name} must be {expected} (default {default!r}); got {value!r}."
    )
