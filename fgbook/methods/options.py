"""The values of a method's options: text and records turned into what the annotation of
the constructor's keyword says, or a sentence that says what is expected.

An annotation is int, float, bool, str, None, a union of these (``int | None``), or a
tuple of one of these, of any length (``tuple[int, ...]``).
"""

import math
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from ..errors import unknown

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "none",
}
TRUTH = {"true": True, "false": False}


def parse(text: str, kind: Any) -> Any:
    """The value that `text` is, of annotation `kind`; ValueError where it is none.

    "none" is None where the annotation has it. The values of a tuple stand between
    commas, with or without the brackets.
    """
    for one in _alternatives(kind):
        try:
            return _parse(text.strip(), one)
        except ValueError:
            continue  # the next alternative may take it
    raise ValueError(f"{text!r} is not {describe(kind)}")


def fitted(value: Any, kind: Any) -> Any:
    """`value` as annotation `kind` has it; ValueError where it does not fit.

    A whole number is a number, a list (as records keep them) is a tuple, and NumPy's
    numbers are numbers; nothing else is converted: True is no number, and 3.0 is no
    whole number.
    """
    if getattr(value, "ndim", None) == 0:  # one of NumPy's numbers
        value = value.item()
    for one in _alternatives(kind):
        try:
            return _fitted(value, one)
        except ValueError:
            continue
    raise ValueError(f"{value!r} is not {describe(kind)}")


def check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise InputError, with the nearest ones, unless an option's value is valid."""
    if value not in valid:
        raise unknown(name, value, valid)


def describe(kind: Any) -> str:
    """An annotation in words: "a whole number or none"."""
    words = []
    for one in _alternatives(kind):
        if get_origin(one) is tuple:
            words.append(f"{WORDS[get_args(one)[0]]}, or several between commas")
        else:
            words.append(WORDS[one])
    return " or ".join(words)


def _alternatives(kind: Any) -> list[Any]:
    """The members of a union, None and then numbers before text, which takes
    everything; of what is no union, itself.
    """
    if get_origin(kind) not in (Union, UnionType):
        return [kind]
    order: list[Any] = [NoneType, bool, int, float, tuple, str]
    return sorted(get_args(kind), key=lambda one: order.index(get_origin(one) or one))


def _parse(text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        each = get_args(kind)[0]
        parts = text.strip("()[]").rstrip(", ").split(",")
        return tuple(_parse(part.strip(), each) for part in parts)
    if kind is bool:
        if text.lower() not in TRUTH:
            raise ValueError
        return TRUTH[text.lower()]
    if kind is NoneType:
        if text.lower() != "none":
            raise ValueError
        return None
    return _fitted(kind(text), kind)


def _fitted(value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError
        return tuple(_fitted(each, get_args(kind)[0]) for each in value)
    if kind is float and type(value) is int and abs(value) < 1e300:
        value = float(value)
    # not isinstance: True is an int to it
    if type(value) is not kind:
        raise ValueError
    if kind is float and not math.isfinite(value):
        raise ValueError
    return value
