"""The fixed rule that divides pictures where a data set's authors did not: by a hash of
the file's name, class by class.
"""

import hashlib
import unicodedata
from collections.abc import Iterator

import numpy as np

from ..errors import InputError

SHARE = 0.2
"""A fifth of each class is for validation, and for test where nobody chose one."""


def rank(file: str) -> str:
    """What pictures are ordered by: sha256 of the name (Unicode NFC, "/" between
    folders). It depends on nothing but the name.
    """
    return hashlib.sha256(unicodedata.normalize("NFC", file).encode()).hexdigest()


def validation(files: list[str], labels: np.ndarray) -> np.ndarray:
    """Which training pictures (N names, N labels) become the validation part: (N,)
    bool.

    Of each class's n pictures the round(SHARE * n) with the smallest :func:`rank`, at
    least one, but never the only one.
    """
    chosen = np.zeros(len(files), bool)
    for members in _by_class(files, labels):
        count = min(_count(len(members), SHARE), len(members) - 1)
        chosen[members[:count]] = True
    return chosen


def cut_validation(
    files: list[str], labels: np.ndarray, splits: np.ndarray
) -> np.ndarray:
    """`splits` (N,) of "train" and "test", with the validation part cut from the
    training pictures by :func:`validation`.
    """
    splits = splits.astype("<U5")  # a copy
    training = np.flatnonzero(splits == "train")
    chosen = validation([files[i] for i in training], labels[training])
    splits[training[chosen]] = "val"
    return splits


def three_parts(files: list[str], labels: np.ndarray) -> np.ndarray:
    """Test, validation and training parts for pictures without any split: (N,) of
    "train", "val", "test".

    Of each class's n pictures the round(SHARE * n) with the smallest :func:`rank` are
    the test part, as many that follow are the validation part, at least one each.
    Raises InputError for a class of fewer than three pictures.
    """
    parts = np.full(len(files), "train", dtype="<U5")
    for members in _by_class(files, labels):
        if len(members) < 3:
            raise InputError(
                f"the class of {files[members[0]]} has too few pictures,"
                f" {len(members)} of the three that are needed for train, val and test;"
                " add some, or take the class away."
            )
        count = min(_count(len(members), SHARE), (len(members) - 1) // 2)
        parts[members[:count]] = "test"
        parts[members[count : 2 * count]] = "val"
    return parts


def part(files: list[str], labels: np.ndarray, share: float) -> np.ndarray:
    """Places (K,) of the first round(share * n) of each class's n pictures, at least
    one, in the order of :func:`rank`: a smaller part lies within a larger one. In the
    order of `files`.
    """
    kept = []
    for members in _by_class(files, labels):
        kept.append(members[: _count(len(members), share)])
    return np.sort(np.concatenate(kept))


def _count(n: int, share: float) -> int:
    # not round(), which rounds half a picture to the even number
    return max(1, int(n * share + 0.5))


def _by_class(files: list[str], labels: np.ndarray) -> Iterator[np.ndarray]:
    """The places of each class's pictures, in the order of :func:`rank`."""
    ranks = np.array([rank(file) for file in files])
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        yield members[np.argsort(ranks[members], kind="stable")]
