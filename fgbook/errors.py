"""What a person is told when the input is wrong: one sentence that names the thing,
what was expected and what to do. And the words for numbers and lists that sentences
are made of.
"""

from collections.abc import Iterable
from difflib import get_close_matches

# How a command ends; 0: all is done.
FAILED = 1  # the input was right
WRONG_INPUT = 2
# Not finished, by the time budget or because the system asked to end (SIGTERM): the
# same command goes on. The number is EX_TEMPFAIL of sysexits.h, as engines know it.
AGAIN = 75
INTERRUPTED = 130  # by Ctrl-C: the same command goes on
BUDGET_ENDED = "the time budget ended after"
"""How the sentence begins that says so, also in the output of a notebook."""


class InputError(ValueError):
    """Wrong input from outside (a name, a file, a setting).

    The command line prints its message and exits with 2.
    """


def unfinished(done: int, wanted: int) -> str:
    """The sentence when the time budget ended before all runs did."""
    return (
        f"{BUDGET_ENDED} {done} of {wanted} runs; run the same command again to go on."
    )


def listed(names: Iterable[object], limit: int) -> str:
    """Names with commas between, and how many more there are beyond `limit`."""
    texts = [str(name) for name in names]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"


def enumerated(texts: Iterable[str]) -> str:
    """As "a, b and c"."""
    every = list(texts)
    if len(every) < 2:
        return "".join(every)
    return f"{', '.join(every[:-1])} and {every[-1]}"


def count(number: int, noun: str) -> str:
    """As "1 seed", "3 seeds"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def unknown(kind: str, name: object, valid: Iterable[str]) -> InputError:
    """The error for a name that does not exist, with the nearest valid ones first.

    ``raise unknown("row", "hybird", ["plain", "hybrid"])`` says: unknown row 'hybird';
    did you mean 'hybrid'? Valid: hybrid, plain.
    """
    valid = sorted(valid)
    near = get_close_matches(str(name), valid, n=3, cutoff=0.5)
    hint = "."
    if near:
        hint = f"; did you mean {' or '.join(map(repr, near))}?"
    # fields of a recipe are listed whole, the keys of hundreds of runs are not
    return InputError(f"unknown {kind} {str(name)!r}{hint} Valid: {listed(valid, 60)}.")
