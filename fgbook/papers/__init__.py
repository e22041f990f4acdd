"""The papers, one file each: what is printed, which rows reproduce it, which claims it
makes.
"""

from importlib import import_module

from ..errors import unknown
from .spec import Paper

NAMES = ("feng", "peng", "golodov", "liang", "gautam", "compare")


def names() -> list[str]:
    """Keys of the papers whose rows can be run."""
    return list(NAMES)


def get(key: str) -> Paper:
    """The paper of that key; raises InputError with the nearest valid ones."""
    if key not in NAMES:
        raise unknown("paper", key, NAMES)
    return import_module(f"{__name__}.{key}").PAPER
