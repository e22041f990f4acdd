"""Picture files with labels, before any is decoded: what the loader of each real data
set makes, and how it becomes a DataSet.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from .. import paths
from ..errors import InputError
from . import files as listings
from . import store
from .dataset import SPLITS, DataSet, Split

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Photos:
    """N labelled picture files in three splits. Coordinates are pixels of the picture
    as seen, x to the right, y down.

    Made in any order and kept in the order train, val, test, so that each split is one
    slice of the stored images. Raises InputError for a data set that cannot be learned
    from: one class, an empty split, a class without training pictures, a name twice.
    """

    name: str
    root: Path  # the files' folder
    classes: list[str]
    files: list[str]  # relative to root, "/" between folders
    labels: np.ndarray  # (N,) int64
    splits: np.ndarray  # (N,) of "train", "val", "test"
    boxes: np.ndarray | None = None  # (N, 4) xyxy
    parts: np.ndarray | None = None  # (N, 15, 3) x, y, visible
    # (N, A) in [0, 1]; their means by class are DataSet.class_attributes
    attributes: np.ndarray | None = None
    attribute_names: list[str] = field(default_factory=list)  # A
    # what its authors count: "classes", "train" (with our val), "val", "test"
    official: dict[str, int] = field(default_factory=dict)
    trim: int = 0  # rows to cut at the bottom
    crop: bool = False  # cut to the box before the squash; see cropped()
    # what else lies in root, by the reason why it is not among the files
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = np.argsort([SPLITS.index(s) for s in self.splits], kind="stable")
        self.files = [self.files[i] for i in order]
        self.labels = np.asarray(self.labels, np.int64)[order]
        self.splits = np.asarray(self.splits)[order]
        self.boxes = _picked(self.boxes, order)
        self.parts = _picked(self.parts, order)
        self.attributes = _picked(self.attributes, order)

        self._refuse_few()
        self._refuse_names()

    def _refuse_few(self) -> None:
        if len(self.classes) < 2:
            raise InputError(
                f"{self.name}: {len(self.classes)} class in {self.root}; at least two"
                " are needed to classify."
            )
        for split in SPLITS:
            if split not in self.splits:
                raise InputError(
                    f"{self.name}: the {split} split of {self.root} is empty."
                )
        trained = set(self.labels[self.splits == "train"].tolist())
        lacking = sorted(set(range(len(self.classes))) - trained)
        if lacking:
            names = ", ".join(repr(self.classes[c]) for c in lacking[:5])
            more = " ..." if len(lacking) > 5 else ""
            raise InputError(
                f"{self.name}: no training picture of {len(lacking)} class(es):"
                f" {names}{more}; add some or take the class away."
            )

    def _refuse_names(self) -> None:
        for file in self.files:  # names from lists that others wrote
            path = PurePosixPath(file)
            inside = not path.is_absolute() and ".." not in path.parts
            if not inside or not listings.readable(file):
                raise InputError(
                    f"{self.name}: {file!r} is no name of a picture inside {self.root};"
                    " unpack the official archive again."
                )
        times = Counter(unicodedata.normalize("NFC", file) for file in self.files)
        name, count = times.most_common(1)[0]
        if count > 1:
            raise InputError(
                f"{self.name}: {name} is there or listed twice (names that differ only"
                " in Unicode form count as one)."
            )

    def count(self, split: str) -> int:
        """How many pictures a split has."""
        return int((self.splits == split).sum())

    def paths(self) -> list[Path]:
        """Where the files are."""
        return [self.root / file for file in self.files]

    def hashes(self) -> list[str]:
        """A digest of each file's content (:func:`store.digest`). Raises InputError for
        one that is missing or cannot be read.
        """
        return list(store.in_order(store.digest, self.paths()))


def _picked(values: np.ndarray | None, order: np.ndarray) -> np.ndarray | None:
    return None if values is None else np.asarray(values)[order]


def cropped(photos: Photos) -> Photos:
    """The same pictures cut to their objects' boxes, as ``NAME-cropped``. Raises
    InputError where there are no boxes.
    """
    if photos.boxes is None:
        raise InputError(
            f"data set {photos.name} has no boxes to cut its pictures to; put its"
            f" official lists with boxes in {photos.root}."
        )
    return replace(photos, name=f"{photos.name}-cropped", crop=True)


def fingerprint(photos: Photos, hashes: list[str]) -> str:
    """A hash of everything that determines pixels, labels, splits and ground truth; the
    same on every machine and for every size.
    """
    rows = []
    for file, label, split, content in zip(
        photos.files, photos.labels, photos.splits, hashes, strict=True
    ):
        rows.append(
            [unicodedata.normalize("NFC", file), int(label), str(split), content]
        )
    listed = json.dumps([store.VERSION, photos.trim, photos.classes, rows])

    digest = hashlib.sha256(listed.encode())
    if photos.crop:
        digest.update(b"crop")
    for truth in (photos.boxes, photos.parts, photos.attributes):
        if truth is None:
            digest.update(b"none")
        else:
            digest.update(np.ascontiguousarray(truth, "<f4").tobytes())
    return digest.hexdigest()


def load(photos: Photos, size: int) -> DataSet:
    """The data set at S = `size`: pictures squashed to S x S (decoded on the first
    call, mapped later), coordinates scaled with them. What was left out is said in a
    line, once a process.
    """
    if size < 1:
        raise InputError(f"the stored size is {size!r}; it must be at least 1 pixel.")
    _mention_left_out(photos)
    digests = photos.hashes()
    mark = fingerprint(photos, digests)
    cut = _cut(photos)
    images, sizes = store.squares(
        photos.paths(),
        size,
        mark,
        name=photos.name,
        trim=photos.trim,
        boxes=cut,
        digests=digests,
    )

    import torch

    # From pixels of the picture as seen to pixels of the square: (N, 2) for x and y.
    origin = torch.zeros(len(photos.files), 2, dtype=torch.float64)
    if cut is not None:
        origin = torch.from_numpy(cut[:, :2]).double()
    scale = size / sizes.double()
    labels = torch.from_numpy(photos.labels)
    boxes = _scaled_boxes(photos.boxes, origin, scale, size)
    parts = _scaled_parts(photos.parts, origin, scale)

    splits = {}
    start = 0
    for name in SPLITS:
        end = start + photos.count(name)
        splits[name] = Split(
            images=images[start:end],
            labels=labels[start:end],
            files=photos.files[start:end],
            boxes=None if boxes is None else boxes[start:end],
            parts=None if parts is None else parts[start:end],
        )
        start = end
    return DataSet(
        name=photos.name,
        classes=photos.classes,
        size=size,
        fingerprint=mark,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        class_attributes=_class_attributes(photos),
        attribute_names=photos.attribute_names,
    )


def _cut(photos: Photos) -> np.ndarray | None:
    """(N, 4) int64 xyxy: the pixels of each picture that are kept; None: all."""
    if not photos.crop or photos.boxes is None:
        return None
    return store.whole_pixels(photos.boxes)


def _scaled_boxes(
    boxes: np.ndarray | None, origin: Tensor, scale: Tensor, size: int
) -> Tensor | None:
    """(N, 4) float32 in pixels of the squares, cut off at their borders."""
    if boxes is None:
        return None
    import torch

    corners = torch.from_numpy(boxes.astype(np.float64)) - origin.repeat(1, 2)
    return (corners * scale.repeat(1, 2)).clamp(0, size).float()


def _scaled_parts(
    parts: np.ndarray | None, origin: Tensor, scale: Tensor
) -> Tensor | None:
    """(N, 15, 3) float32: x and y in pixels of the squares, and visible."""
    if parts is None:
        return None
    import torch

    scaled = torch.from_numpy(parts.astype(np.float32))
    scaled[..., :2] -= origin.float()[:, None]
    scaled[..., :2] *= scale.float()[:, None]
    return scaled


def _class_attributes(photos: Photos) -> Tensor | None:
    """(C, A) float32: the mean of each class's training pictures; where a class's
    pictures all have the same, that.
    """
    if photos.attributes is None:
        return None
    import torch

    train = photos.splits == "train"
    means = []
    for label in range(len(photos.classes)):
        seen = photos.attributes[train & (photos.labels == label)]
        means.append(torch.from_numpy(seen.astype(np.float64)).mean(0))
    return torch.stack(means).float()


# What is left out


def counted(left_out: dict[str, list[str]]) -> str:
    """How many files each reason has: "2: suffix .heic is not read; 1: no suffix"."""
    return "; ".join(f"{len(files)}: {reason}" for reason, files in left_out.items())


_mentioned: set[str] = set()


def _mention_left_out(photos: Photos) -> None:
    """Say on stderr what may be missed: a line, and the same line only once."""
    # nobody misses .DS_Store
    missed = dict(photos.left_out)
    missed.pop(listings.HIDDEN, None)
    count = sum(len(files) for files in missed.values())
    if not count:
        return
    line = (
        f"data set {photos.name}: {count} left out ({counted(missed)});"
        f" `fgbook data check {shlex.quote(photos.name)}` lists them."
    )
    if line not in _mentioned:
        _mentioned.add(line)
        print(line, file=sys.stderr, flush=True)


def _left_out_lines(left_out: dict[str, list[str]]) -> list[str]:
    """What was left out, in lines: how many for each reason, then each file."""
    lines = [f"{len(files)}: {reason}" for reason, files in left_out.items()]
    for reason, files in left_out.items():
        for file in files:
            name = file if listings.readable(file) else repr(file)
            lines.append(f"{name} ({reason})")
    return lines


# Examination


def check(photos: Photos) -> dict:
    """Everything about the files: counts against the authors', every picture decoded,
    the same file in two splits.

    Returns name, path, classes, images (by split), official, left_out (lines: how many
    for each reason, then each file with its reason), problems (a list of sentences;
    empty: all is well), duplicates (pairs of file names whose content is the same in
    train or val and in test) and fingerprint (None when a file cannot be read).
    """

    def examine(path: Path) -> tuple[str | None, str | None]:
        """(digest of the content, None), or (None, what is wrong)."""
        try:
            content = store.digest(path)
            store.decode(path, None, photos.trim)
        except InputError as error:
            return None, str(error)
        return content, None

    problems = _miscounts(photos)
    hashes = []
    for content, problem in store.in_order(examine, photos.paths()):
        hashes.append(content)
        if problem:
            problems.append(problem)
    return {
        "name": photos.name,
        "path": str(photos.root),
        "classes": len(photos.classes),
        "images": {split: photos.count(split) for split in SPLITS},
        "official": photos.official,
        "left_out": _left_out_lines(photos.left_out),
        "problems": problems,
        "duplicates": _duplicates(photos, hashes),
        "fingerprint": None if None in hashes else fingerprint(photos, hashes),
    }


def _miscounts(photos: Photos) -> list[str]:
    """Sentences about numbers that are not the authors'."""
    ours = {"classes": len(photos.classes)}
    for split in SPLITS:
        ours[split] = photos.count(split)
    # the validation part is ours, cut from the authors' training part
    if "val" not in photos.official:
        ours["train"] += ours["val"]
    sentences = []
    for what, expected in photos.official.items():
        if ours[what] != expected:
            sentences.append(f"{what}: {ours[what]}, but its authors count {expected}.")
    return sentences


def _duplicates(photos: Photos, hashes: list[str | None]) -> list[tuple[str, str]]:
    """Pairs of names: a picture for training or validation, and the same one for
    test.
    """
    learned = {}
    for file, split, content in zip(photos.files, photos.splits, hashes, strict=True):
        if content and split != "test":
            learned[content] = file
    pairs = []
    for file, split, content in zip(photos.files, photos.splits, hashes, strict=True):
        if split == "test" and content in learned:
            pairs.append((learned[content], file))
    return pairs


# Official files


def locate(name: str, places: list[str], marker: str, advice: str) -> Path:
    """The first of `places` in the data folder that holds `marker`; an InputError with
    the advice where none does.
    """
    for place in places:
        if (paths.data() / place / marker).exists():
            return paths.data() / place
    raise InputError(
        f"data set {name} is not in {paths.data()}: {advice}, so that"
        f" {paths.data() / places[0] / marker} exists (FGBOOK_DATA chooses another"
        " folder)."
    )


def read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Variables of a MATLAB file, each with at least one dimension. Raises InputError
    where it is missing, no such file, or lacks one.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"{path} is missing; unpack the official archive again.")
    try:
        found = loadmat(path, squeeze_me=True, appendmat=False)
        return [np.atleast_1d(found[name]) for name in names]
    except KeyError as error:
        raise InputError(
            f"{path} has no variable {error}; is it the official file?"
        ) from error
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise InputError(
            f"{path} cannot be read as a MATLAB file ({error}); download it again."
        ) from error
