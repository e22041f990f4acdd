"""Recipe: every choice of a training run, in one place, as data."""

import ast
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from .errors import InputError, unknown

# ---- what a field may be: its type and its range, checked by ``check``


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; with `above` greater than `low`, with `below` less
    than `high`.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range. NaN and infinity lie in none."""
        if self.above and value == self.low:
            return False
        if self.below and value == self.high:
            return False
        return self.low <= value <= self.high and value < math.inf

    def __str__(self) -> str:
        """In words: "at least 0", "above 0 and at most 1"."""
        lowest = f"{'above' if self.above else 'at least'} {self.low:g}"
        if self.high == math.inf:
            return lowest
        return f"{lowest} and {'below' if self.below else 'at most'} {self.high:g}"


# Nobody means more, and at far more PyTorch overflows.
MOST = 1e9
LARGEST = 1e38

Count = Annotated[int, Range(1, MOST)]
WholeNumber = Annotated[int, Range(0, MOST)]  # 0: off
Share = Annotated[float, Range(0, 1)]
Part = Annotated[float, Range(0, 1, above=True)]  # a share that is not nothing
Decay = Annotated[float, Range(0, 1, below=True)]  # what is kept from step to step
Positive = Annotated[float, Range(0, LARGEST, above=True)]
NotNegative = Annotated[float, Range(0, LARGEST)]  # 0: off
Degrees = Annotated[float, Range(0, 180)]
LossWeights = tuple[tuple[str, float], ...]  # see _check_weights

Optimiser = Annotated[str, ("sgd", "adam", "adamax", "adamw")]
Schedule = Annotated[str, ("constant", "step", "cosine", "cyclic", "onecycle")]
Statistics = Annotated[str, ("batch", "frozen")]
Precision = Annotated[str, ("auto", "fp32", "bf16", "fp16")]
Images = Annotated[str, ("train", "train+val")]
Resolution = Annotated[str, ("high", "low", "mixed")]
Filter = Annotated[str, ("bicubic", "bilinear")]
Epoch = Annotated[str, ("best", "last")]

# ---- which fields belong to a run's key

OTHER_WAY = ("compile", "recompute")
"""Other ways to the same numbers: not part of what a run is."""

LATER = (
    "erase",
    "mixup",
    "cutmix",
    "resolution",
    "low_side",
    "upsample",
    "fraction",
    "sync_batchnorm",
    "recompute",
    "per_class",
    "views",
    "keep",
    "frozen_stages",
    "recompute_statistics",
)
"""Fields that came after the first published records: while they are off, a run is what
it was without them."""


@dataclass(frozen=True)
class Recipe:
    """All that a training run is told, except the model's own options, the data and the
    seed.

    Every field is checked whenever a Recipe is made, whether its values come from
    Python, the command line, a notebook or a record: raises InputError for a value of
    another type or outside its range; ``Recipe.of(dict)`` and ``but`` also for an
    unknown field. Whole numbers become floats where floats are expected; numpy's
    numbers become Python's.
    """

    # -- images
    image_size: Count = 224  # side of the square that the network sees, pixels
    # Side of the square that is kept decoded: training crops image_size from it,
    # evaluation its centre.
    store_size: Count = 256
    # 0: random place, no zoom. s > 0: a random square of side s..1 of the stored one,
    # resized to image_size.
    crop_scale: Share = 0.0
    flip: bool = True  # mirror half of the images, left to right
    rotate: Degrees = 0.0  # uniform in [-rotate, rotate]
    jitter: Share = 0.0  # brightness and contrast factors, in [1 - jitter, 1 + jitter]
    erase: Share = 0.0  # share of images in which one random rectangle is blanked
    # a > 0: every image is blended with another of the training split, in shares from
    # Beta(a, a).
    mixup: NotNegative = 0.0
    # a > 0: a rectangle of another image is pasted in, with area shares from
    # Beta(a, a); with mixup, a coin decides by image.
    cutmix: NotNegative = 0.0
    # "low": reduced to low_side and enlarged again; "mixed": one of both, by a coin for
    # each image and epoch.
    resolution: Resolution = "high"
    low_side: WholeNumber = 0  # pixels; > 0: test images are measured reduced too
    upsample: Filter = "bicubic"  # how a reduced image is enlarged
    # Of each image in a batch, each augmented for itself: all images' first views, then
    # all second ones, ...
    views: Count = 1
    # Of each class's training images: the first of a fixed order, so that a smaller
    # part lies within a larger one.
    fraction: Part = 1.0

    # -- network
    backbone: str = "mobilenet_v2"
    weights: str = "pretrained"  # "pretrained", "none", or the path of a weights file
    # "frozen": pretrained statistics are kept, affine parameters still learn.
    batchnorm: Statistics = "batch"
    # The first so many stages of the backbone neither learn nor get a gradient.
    frozen_stages: WholeNumber = 0

    # -- optimisation
    epochs: Count = 10
    batch_size: Count = 16  # images a step, over all processes and accumulated parts
    # K > 1: K images of a class follow each other in a batch, so that a loss can
    # compare them; 0: any order.
    per_class: WholeNumber = 0
    # A step's batch is worked through in this many parts (memory), gradients added.
    accumulate: Count = 1
    optimiser: Optimiser = "sgd"
    lr: Positive = 0.01  # of the new layers (heads)
    backbone_lr_factor: Share = 0.1  # the backbone's rate is lr times this; 0: frozen
    momentum: Decay = 0.9
    weight_decay: NotNegative = 5e-4
    schedule: Schedule = "cosine"
    step_epochs: Count = 40  # "step": every so many epochs ..
    step_factor: Share = 0.1  # .. the rate is multiplied by this
    # "cyclic": length of one triangle, from a tenth of the rate to the rate and back.
    cycle_epochs: Positive = 2.0
    warmup_epochs: NotNegative = 0.0
    clip_norm: NotNegative = 0.0  # longest gradient; 0: gradients are not clipped
    label_smoothing: Share = 0.0
    loss_weights: LossWeights = ()  # (name of a model's loss, weight); not named: 1
    ema: Decay = 0.0  # decay of the averaged weights, a step; 0: off

    # -- selection
    # "train+val": train on both and keep the last epoch (settings were chosen before,
    # on validation).
    train_on: Images = "train"
    # The epoch that validation likes best, or the "last" one: of a stage whose
    # predictions mean nothing.
    keep: Epoch = "best"
    # Stop after so many epochs without a better validation accuracy; 0: never.
    patience: WholeNumber = 0
    # At the end, BatchNorm's running statistics are made anew from training images as
    # evaluation sees them, neither zoomed nor jittered nor mixed.
    recompute_statistics: bool = False

    # -- execution
    # "auto": bf16 on a GPU that has it, fp16 on an older one, fp32 on a CPU, where
    # frozen stages alone take bf16 if it has instructions for that.
    precision: Precision = "auto"
    compile: bool = False
    # Activations inside the backbone are computed again for the gradient: less memory,
    # more time.
    recompute: bool = False
    # Several processes: batch statistics of the whole batch, not of each one's slice.
    sync_batchnorm: bool = False

    def __post_init__(self):
        # each field by itself
        for name in FIELDS:
            object.__setattr__(self, name, check(name, getattr(self, name)))
        # and those that have to fit each other
        _check_sizes(self)
        _check_batches(self)
        _check_selection(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe from a dictionary, such as a record's; lists become tuples."""
        _check_names(values)
        return cls(**values)

    def but(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed; unknown names are refused."""
        _check_names(changes)
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return dict(vars(self))

    def determinants(self) -> dict[str, Any]:
        """What a run's results depend on, for keys: without other ways to the same
        numbers, and without later fields while they are off.
        """
        found = {}
        for name, value in self.as_dict().items():
            off = name in LATER and value == FIELDS[name].default
            if name not in OTHER_WAY and not off:
                found[name] = value
        return found


FIELDS = {field.name: field for field in fields(Recipe)}


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name not in FIELDS:
            raise unknown("recipe field", name, FIELDS)


def check(name: str, value: Any) -> Any:
    """A field's value in the field's own type; raises InputError for an unknown field,
    a value of another type, or one outside the field's range.

    ``check("epochs", numpy.int64(3))`` is 3, ``check("lr", 1)`` is 1.0;
    ``check("epochs", "3")`` and ``check("epochs", True)`` are refused.
    """
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    kind, valid = _rule(name)
    if kind is tuple:
        return _check_weights(value)

    value = _plain(value, kind)
    # not isinstance: True is an int to it
    if type(value) is not kind:
        raise _wrong_type(name, value)

    if isinstance(valid, Range) and not valid.holds(value):
        odd = type(value) is float and not math.isfinite(value)
        finite = "finite and " if odd else ""
        raise InputError(f"recipe: {name} is {value!r}; it must be {finite}{valid}.")
    if isinstance(valid, tuple) and value not in valid:
        raise unknown(name, value, valid)
    return value


def parse(name: str, text: str) -> Any:
    """A field's value from what a command line says; raises InputError as ``check``.

    ``parse("epochs", "12")`` is 12, ``parse("flip", "false")`` is False, and
    ``parse("loss_weights", "(('triplet', 0.1),)")`` is that tuple.
    """
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    kind, _ = _rule(name)
    if kind is str:
        return check(name, text)
    try:
        if kind is bool:
            value = {"true": True, "false": False}[text.lower()]
        elif kind is tuple:
            value = ast.literal_eval(text)
        else:
            value = kind(text)
    # literal_eval raises any of the last four
    except (KeyError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _wrong_type(name, text) from None
    return check(name, value)


def assignments(option: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Texts by name. A pair that is given twice counts once.

    Raises InputError where a name is given two values.
    """
    found: dict[str, str] = {}
    for name, text in pairs:
        if found.setdefault(name, text) != text:
            raise InputError(
                f"{option} gives {name} two values, {found[name]!r} and {text!r}; give"
                " it one."
            )
    return found


def equations(option: str, texts: Iterable[str], example: str) -> dict[str, str]:
    """``("epochs=12",)`` as {"epochs": "12"}.

    Raises InputError for a text without "=", and where a name is given two values.
    """
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(
                f"{option} {text!r} has no '='; write NAME=VALUE, as in"
                f" {option} {example}."
            )
        pairs.append((name.strip(), value))
    return assignments(option, pairs)


@cache  # asked for each field of each record
def _rule(name: str) -> tuple[type[Any], Range | tuple[str, ...] | None]:
    """The type of a field's values, and its range or choices (None: all values)."""
    annotation: Any = FIELDS[name].type
    if get_origin(annotation) is Annotated:
        kind, valid = get_args(annotation)
        return kind, valid
    return get_origin(annotation) or annotation, None


def _plain(value: Any, kind: type) -> Any:
    """One of numpy's numbers as Python's; a whole number as a float where that is the
    `kind`; anything else as it is.
    """
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if kind is float and type(value) is int and abs(value) < 1e300:
        return float(value)
    return value


def _wrong_type(name: str, value: object) -> InputError:
    kind, _ = _rule(name)
    expected = kind.__name__
    if kind is tuple:
        expected = "tuple, of pairs (name of a loss, weight of at least 0), each once"
    return InputError(
        f"recipe: {name} must be of type {expected} (default"
        f" {FIELDS[name].default!r}); got {value!r}."
    )


def _check_weights(value: Any) -> tuple[tuple[str, float], ...]:
    """The weights of losses, from pairs in a tuple or (a record's) list."""
    valid = Range(0, LARGEST)
    wrong = _wrong_type("loss_weights", value)
    if not isinstance(value, (tuple, list)):
        raise wrong
    found: dict[str, float] = {}
    for pair in value:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise wrong
        name, weight = _plain(pair[0], str), _plain(pair[1], float)
        if type(name) is not str or name in found:
            raise wrong
        if type(weight) is not float or not valid.holds(weight):
            raise wrong
        found[name] = weight
    return tuple(found.items())


# ---- fields that have to fit each other


def _check_sizes(recipe: Recipe) -> None:
    if recipe.store_size < recipe.image_size:
        raise InputError(
            f"recipe: store_size {recipe.store_size} is smaller than image_size"
            f" {recipe.image_size}; make it at least as large."
        )
    off = recipe.low_side == 0 and recipe.resolution == "high"
    if not off and not 0 < recipe.low_side < recipe.image_size:
        or_off = "0 or " if recipe.resolution == "high" else ""
        raise InputError(
            f"recipe: low_side is {recipe.low_side}; resolution {recipe.resolution!r}"
            f" at image_size {recipe.image_size} needs it to be {or_off}between 1 and"
            f" {recipe.image_size - 1} pixels."
        )


def _check_batches(recipe: Recipe) -> None:
    if recipe.batch_size % recipe.accumulate:
        raise InputError(
            f"recipe: batch_size {recipe.batch_size} is not a multiple of accumulate"
            f" {recipe.accumulate}."
        )
    if recipe.per_class == 0:
        return
    at_once = recipe.batch_size // recipe.accumulate
    if recipe.per_class == 1 or at_once % recipe.per_class:
        raise InputError(
            f"recipe: per_class is {recipe.per_class}; it must be 0, or more than 1"
            f" and a divisor of the {at_once} images that are worked through at once."
        )


def _check_selection(recipe: Recipe) -> None:
    if recipe.patience and recipe.keep == "last":
        raise InputError(
            "recipe: patience waits for a better epoch, but keep='last' keeps the"
            " last one; set patience=0."
        )
    if recipe.patience and recipe.train_on == "train+val":
        raise InputError(
            "recipe: patience needs a validation split, but train_on='train+val'"
            " trains on it; set patience=0."
        )
