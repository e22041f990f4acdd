"""Picture files with labels, before any is decoded: what the loader of each real data
set makes, and how it becomes a DataSet."""

import hashlib
import json
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from .. import paths
from ..errors import InputError
from . import store
from .dataset import DataSet, Split

SPLITS = ("train", "val", "test")


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
    # (N, A) in [0, 1]; what :class:`DataSet` calls class_attributes are their means by
    # class
    attributes: np.ndarray | None = None
    attribute_names: list[str] = field(default_factory=list)  # A
    genus: list[int] = field(default_factory=list)  # of each class
    # what its authors count: "classes", "train" (with our val), "val", "test"
    official: dict[str, int] = field(default_factory=dict)
    trim: int = 0  # rows to cut at the bottom
    crop: bool = False  # cut to the box before the squash; see cropped()

    def __post_init__(self):
        order = np.argsort([SPLITS.index(s) for s in self.splits], kind="stable")
        pick = lambda value: None if value is None else np.asarray(value)[order]
        self.files = [self.files[i] for i in order]
        self.labels, self.splits = (
            np.asarray(self.labels, np.int64)[order],
            np.asarray(self.splits)[order],
        )
        self.boxes, self.parts, self.attributes = (
            pick(self.boxes),
            pick(self.parts),
            pick(self.attributes),
        )
        self._refuse()

    def _refuse(self):
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
        lacking = sorted(
            set(range(len(self.classes)))
            - set(self.labels[self.splits == "train"].tolist())
        )
        if lacking:
            names = ", ".join(repr(self.classes[c]) for c in lacking[:5]) + (
                " ..." if len(lacking) > 5 else ""
            )
            raise InputError(
                f"{self.name}: no training picture of {len(lacking)} class(es):"
                f" {names}; add some or take the class away."
            )
        for file in self.files:  # names from lists that others wrote
            if (
                not readable(file)
                or PurePosixPath(file).is_absolute()
                or ".." in PurePosixPath(file).parts
            ):
                raise InputError(
                    f"{self.name}: {file!r} is no name of a picture inside {self.root};"
                    " unpack the official archive again."
                )
        twice = [
            file
            for file, count in Counter(
                unicodedata.normalize("NFC", file) for file in self.files
            ).items()
            if count > 1
        ]
        if twice:
            raise InputError(
                f"{self.name}: {twice[0]} is there or listed twice (names that differ"
                " only in Unicode form count as one)."
            )

    def count(self, split: str) -> int:
        return int((self.splits == split).sum())

    def paths(self) -> list[Path]:
        return [self.root / file for file in self.files]

    def hashes(self) -> list[str]:
        """sha256 of each file's content. Raises InputError for one that is missing or
        cannot be read."""
        return list(store.in_order(store.digest, self.paths()))


def readable(name: str) -> bool:
    """Whether a file's name can be hashed, stored and printed: no control characters,
    no bytes that are not UTF-8."""
    return not any(
        unicodedata.category(character) in ("Cc", "Cs") for character in name
    )


def cropped(photos: Photos) -> Photos:
    """The same pictures cut to their objects' boxes, as ``NAME-cropped``. Raises
    InputError where there are no boxes."""
    if photos.boxes is None:
        raise InputError(
            f"data set {photos.name} has no boxes to cut its pictures to; put its"
            f" official lists with boxes in {photos.root}."
        )
    return replace(photos, name=f"{photos.name}-cropped", crop=True)


def fingerprint(photos: Photos, hashes: list[str]) -> str:
    """A hash of everything that determines pixels, labels, splits and ground truth; the
    same on every machine and for every size."""
    rows = [
        [unicodedata.normalize("NFC", file), int(label), str(split), content]
        for file, label, split, content in zip(
            photos.files, photos.labels, photos.splits, hashes, strict=True
        )
    ]
    digest = hashlib.sha256(
        json.dumps([store.VERSION, photos.trim, photos.classes, rows]).encode()
    )
    if photos.crop:
        digest.update(b"crop")
    for truth in (photos.boxes, photos.parts, photos.attributes):
        digest.update(
            b"none" if truth is None else np.ascontiguousarray(truth, "<f4").tobytes()
        )
    return digest.hexdigest()


def load(photos: Photos, size: int) -> DataSet:
    """The data set at S = `size`: pictures squashed to S x S (decoded on the first
    call, mapped later), coordinates scaled with them."""
    if size < 1:
        raise InputError(f"the stored size is {size!r}; it must be at least 1 pixel.")
    digests = photos.hashes()
    mark = fingerprint(photos, digests)
    # (N, 4): the pixels that are kept
    cut = store.whole_pixels(photos.boxes) if photos.crop else None
    images, sizes = store.squares(
        photos.paths(),
        size,
        mark,
        name=photos.name,
        trim=photos.trim,
        boxes=cut,
        digests=digests,
    )
    origin = np.zeros((len(photos.files), 2)) if cut is None else cut[:, :2]
    scale = size / sizes.double().repeat(1, 2)  # (N, 4) for x, y, x, y
    boxes = parts = attributes = None
    if photos.boxes is not None:
        boxes = (
            (
                torch.from_numpy(photos.boxes.astype(np.float64) - np.tile(origin, 2))
                * scale
            )
            .clamp(0, size)
            .float()
        )
    if photos.parts is not None:
        parts = torch.from_numpy(photos.parts.astype(np.float32))
        parts[..., :2] -= torch.from_numpy(origin).float()[:, None]
        parts[..., :2] *= scale[:, None, :2].float()
    if photos.attributes is not None:
        attributes = torch.from_numpy(photos.attributes.astype(np.float32))
    labels, splits, start = torch.from_numpy(photos.labels), {}, 0
    for name in SPLITS:
        part = slice(start, start + photos.count(name))
        pick = lambda value: None if value is None else value[part]
        splits[name] = Split(
            images[part],
            labels[part],
            photos.files[part],
            pick(boxes),
            pick(parts),
            attributes=pick(attributes),
        )
        start = part.stop
    return DataSet(
        photos.name,
        photos.classes,
        size,
        mark,
        splits["train"],
        splits["val"],
        splits["test"],
        photos.genus,
        _class_attributes(photos),
        photos.attribute_names,
    )


def _class_attributes(photos: Photos) -> torch.Tensor | None:
    """(C, A) float32: the mean of each class's training pictures; where a class's
    pictures all have the same, that."""
    if photos.attributes is None:
        return None
    train = photos.splits == "train"
    return torch.stack(
        [
            torch.from_numpy(
                photos.attributes[train & (photos.labels == label)].astype(np.float64)
            ).mean(0)
            for label in range(len(photos.classes))
        ]
    ).float()


def check(photos: Photos) -> dict:
    """Everything about the files: counts against the authors', every picture decoded,
        the same file in two splits.

    Returns name, path, classes, images (by split), official, problems (a list of
    sentences; empty: all is well), duplicates (pairs of file names whose content is the
    same in train or val and in test) and fingerprint (None when a file cannot be read).
    """
    problems = []
    counts = {split: photos.count(split) for split in SPLITS}
    ours = {"classes": len(photos.classes), **counts}
    # the validation part is ours, cut from the authors' training part
    if "val" not in photos.official:
        ours["train"] += ours["val"]
    for what, expected in photos.official.items():
        if ours[what] != expected:
            problems.append(f"{what}: {ours[what]}, but its authors count {expected}.")

    def examine(path: Path) -> tuple[str | None, str | None]:
        try:
            content = store.digest(path)
            store.decode(path, None, photos.trim)
        except InputError as error:
            return None, str(error)
        return content, None

    hashes, unreadable = zip(*store.in_order(examine, photos.paths()), strict=True)
    problems += [sentence for sentence in unreadable if sentence]
    seen = {
        content: file
        for file, split, content in zip(
            photos.files, photos.splits, hashes, strict=True
        )
        if content and split != "test"
    }
    duplicates = [
        (seen[content], file)
        for file, split, content in zip(
            photos.files, photos.splits, hashes, strict=True
        )
        if split == "test" and content in seen
    ]
    return {
        "name": photos.name,
        "path": str(photos.root),
        "classes": len(photos.classes),
        "images": counts,
        "official": photos.official,
        "problems": problems,
        "duplicates": duplicates,
        "fingerprint": None if any(unreadable) else fingerprint(photos, list(hashes)),
    }


def locate(name: str, places: list[str], marker: str, advice: str) -> Path:
    """The first of `places` in the data folder that holds `marker`; an InputError with
    the advice where none does."""
    for place in places:
        if (paths.data() / place / marker).exists():
            return paths.data() / place
    raise InputError(
        f"data set {name} is not in {paths.data()}: {advice}, so that"
        f" {paths.data() / places[0] / marker} exists (FGBOOK_DATA chooses another"
        " folder)."
    )


def read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Variables of a MATLAB file. Raises InputError where it is missing, no such file,
    or lacks one."""
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
