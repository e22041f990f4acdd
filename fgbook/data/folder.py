"""Any folder of class folders of pictures, with or without train, val and test folders
above them.
"""

import csv
import os
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import files, split, store
from .dataset import SPLITS, DataSet
from .photos import Photos, counted

ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

PREVIEWS = ("thumbs", "thumbnails")
"""Folders of small copies, below a class. (A class itself may be called so.)"""

# Why something is left out (besides files.HIDDEN).
LOOSE = "not in a class folder"
BESIDE = "a folder beside train and test"
EMPTY = "a class folder without a picture"
LINKED = "a link to a folder, below a class"
NOTHING = "a link to nothing, or no file"


def photos(
    root: Path | str,
    name: str | None = None,
    official: dict[str, int] | None = None,
    known: tuple[str, ...] = (),
) -> Photos:
    """The pictures under `root`; the name of a class is that of its folder. What else
    is there is left out, and listed in the result's ``left_out`` (but for `known`,
    files directly in `root` that are what they should be).

    ``train/CLASS/..`` and ``test/CLASS/..``, with or without ``val``: the given split;
    without ``val``, validation is cut from training by split.validation; with ``val``
    but no ``test``, ``val`` is the test part (as in ImageNet's layout) and validation
    is cut from training. ``CLASS/..`` alone: 60 % train, 20 % val, 20 % test of each
    class, by split.three_parts. Raises InputError for a folder that cannot be read, no
    pictures, one class, an empty split, a class that training lacks.
    """
    root = files.absolute(str(root)).resolve()
    name = name or f"folder:{root}"
    if not os.path.isdir(root):
        raise InputError(
            f"{name}: {root} is not a folder; give one that holds a folder of pictures"
            " for each class."
        )
    found = _Found(root, known)
    parts = _parts(found, name)
    for part, place in parts.items():
        found.add_classes(place, part)
    _refuse(found, parts, name)

    pictures = sorted(found.pictures, key=_normal_name)
    names = [picture.file for picture in pictures]
    classes = sorted({picture.label for picture in pictures})
    if len(classes) < 2:
        raise InputError(
            f"{name}: only one class, {classes[0]!r}, in {root}; at least two are"
            f" needed to classify.{found.reminder()}"
        )
    labels = np.array([classes.index(picture.label) for picture in pictures])

    if "train" not in parts:
        splits = split.three_parts(names, labels)
    else:
        splits = np.array([picture.part for picture in pictures], dtype="<U5")
        if "val" not in parts:
            splits = split.cut_validation(names, labels, splits)
    return Photos(
        name,
        root,
        classes,
        names,
        labels,
        splits,
        official=official or {},
        left_out=found.left_out,
    )


def division(root: Path) -> str:
    """How :func:`photos` divides the pictures below `root`, in words."""
    parts = _parts(_Found(root, ()), f"folder:{root}")
    if "train" not in parts:
        return (
            "by a hash of the files' names: of each class 60 % train, 20 % val, 20 %"
            " test"
        )
    test = parts["test"].name
    if "val" in parts:
        return f"as its folders say: {parts['train'].name}, {parts['val'].name}, {test}"
    return (
        f"as its folders say, {test} being test; val is a fifth of each class of"
        f" {parts['train'].name}, by a hash of the files' names"
    )


def listed(root: Path, name: str) -> Photos:
    """:func:`photos` of a folder whose ``split.csv`` (class, file, split) must name
    exactly the pictures that are there.
    """
    found = photos(root, name, known=("split.csv",))
    table = root / "split.csv"
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = [
                (row["split"], row["class"], row["file"])
                for row in csv.DictReader(file)
            ]
        wanted = {unicodedata.normalize("NFC", "/".join(row)) for row in rows}
    # a line that is too short has None in its last columns
    except (OSError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{name}: {table} cannot be read ({error}); it must have the columns class,"
            " file and split."
        ) from error

    there = {unicodedata.normalize("NFC", file) for file in found.files}
    for what, which in (
        ("is not there", wanted - there),
        ("is not listed", there - wanted),
    ):
        if which:
            raise InputError(
                f"{name}: {min(which)} {what}, going by {table} ({len(which)} such)."
            )

    found.official = {"classes": len({label for _, label, _ in rows})}
    parts = Counter(part for part, _, _ in rows)
    for part in SPLITS:
        if part in parts:
            found.official[part] = parts[part]
    return found


def write(data: DataSet, place: Path) -> Path:
    """Write all pictures of a data set as PNG files, ``place/CLASS/SPLIT-NUMBER.png``,
    and return `place`: what :func:`photos` reads. A folder that is there already stays
    as it is. Raises InputError where it cannot be written.
    """
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # under another name until it is whole
        with tempfile.TemporaryDirectory(dir=place.parent) as unfinished:
            made = Path(unfinished) / place.name
            for part in SPLITS:
                _write_part(data, part, made)
            made.rename(place)
    except OSError as error:
        if place.is_dir():  # another process was faster
            return place
        raise InputError(
            f"cannot write pictures to {place} ({error.strerror or error}); name"
            " another folder."
        ) from error
    return place


def _write_part(data: DataSet, part: str, folder: Path) -> None:
    from PIL import Image

    split = data.split(part)
    pixels = split.images.permute(0, 2, 3, 1).numpy()
    for number, label in enumerate(split.labels.tolist()):
        inside = folder / data.classes[label]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(inside / f"{part}-{number:05d}.png")


@dataclass(frozen=True)
class _Picture:
    file: str  # relative to the root, "/" between folders
    label: str  # its class
    part: str  # "train", "val", "test"; "" where there are no parts


def _normal_name(picture: _Picture) -> str:
    return unicodedata.normalize("NFC", picture.file)


@dataclass
class _Found:
    """What lies under `root`: pictures, and the rest by the reason why it is left
    out.
    """

    root: Path
    known: tuple[str, ...] = ()  # not worth a word
    pictures: list[_Picture] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, entry: os.DirEntry, reason: str) -> None:
        name = Path(entry.path).relative_to(self.root).as_posix()
        if name in self.known:
            return
        if files.is_folder(entry):
            name += "/"
        self.left_out.setdefault(reason, []).append(name)

    def reminder(self) -> str:
        """A sentence for messages that pictures are lacking; empty where nothing was
        left out.
        """
        return f" Left out: {counted(self.left_out)}." if self.left_out else ""

    def class_folders(self, place: Path) -> list[os.DirEntry]:
        """The folders in `place` that stand for classes (or parts)."""
        folders = []
        for entry in files.listing(place):
            if files.is_folder(entry) and not files.is_tools(entry.name):
                folders.append(entry)
        return folders

    def add_classes(self, place: Path, part: str) -> None:
        """Add the pictures of all class folders in `place`."""
        for entry in files.listing(place):
            if files.is_tools(entry.name):
                self.leave_out(entry, files.HIDDEN)
            elif not files.is_folder(entry):
                self.leave_out(entry, LOOSE)
            else:
                before = len(self.pictures)
                label = unicodedata.normalize("NFC", entry.name)
                self.add_pictures(Path(entry.path), label, part)
                if len(self.pictures) == before:
                    self.leave_out(entry, EMPTY)

    def add_pictures(self, folder: Path, label: str, part: str) -> None:
        """Add the pictures in a class folder and in the folders below it."""
        for entry in files.listing(folder):
            if entry.is_dir(follow_symlinks=False):
                if files.is_tools(entry.name) or entry.name.lower() in PREVIEWS:
                    self.leave_out(entry, files.HIDDEN)
                else:
                    self.add_pictures(Path(entry.path), label, part)
                continue
            reason = _reason(entry)
            if reason:
                self.leave_out(entry, reason)
            else:
                file = Path(entry.path).relative_to(self.root).as_posix()
                self.pictures.append(_Picture(file, label, part))


def pictures_below(top: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """All pictures below a folder, by name, whatever their class; and what is left out,
    by the reason. Linked folders are entered too, each folder once; what is hidden or a
    tool's is passed over. Raises InputError for a folder that cannot be read.
    """
    pictures: list[Path] = []
    left_out: dict[str, list[str]] = {}
    entered = set()

    def enter(place: Path) -> None:
        real = os.path.realpath(place)
        if real in entered:  # a link back, or a second one
            return
        entered.add(real)
        for entry in files.listing(place):
            if files.is_tools(entry.name):
                continue
            if files.is_folder(entry):
                enter(Path(entry.path))
            elif reason := _reason(entry):
                left_out.setdefault(reason, []).append(entry.path)
            else:
                pictures.append(Path(entry.path))

    enter(top)
    return pictures, left_out


def _reason(entry: os.DirEntry) -> str | None:
    """Why a file, or a link, below a class is left out; None for a picture."""
    if files.is_tools(entry.name):
        return files.HIDDEN
    if files.is_folder(entry):
        return LINKED  # not followed: it may lead to another class, or back
    if not files.is_file(entry):
        return NOTHING
    suffix = Path(entry.name).suffix.lower()
    if suffix in store.SUFFIXES:
        return None
    return f"suffix {suffix} is not read" if suffix else "no suffix"


def _parts(found: _Found, name: str) -> dict[str, Path]:
    """The folders that hold class folders: "train" and "test", perhaps "val"; or only
    "", the root.
    """
    root = found.root
    named = [f for f in found.class_folders(root) if f.name.lower() in ALIASES]
    given = {ALIASES[folder.name.lower()]: Path(folder.path) for folder in named}
    # without class folders in it, "train" is a class: pictures of railways
    if "train" not in given or not found.class_folders(given["train"]):
        return {"": root}

    if len(given) < len(named):
        raise InputError(
            f"{name}: two folders of {root} are the same part"
            f" ({', '.join(folder.name for folder in named)}); take one away."
        )
    if "test" not in given:
        if "val" not in given:
            raise InputError(
                f"{name}: {root} has a training folder but no test folder; add one, or"
                " take away the level of the training folder."
            )
        given["test"] = given.pop("val")

    parts = {folder.name for folder in named}
    for entry in files.listing(root):
        if files.is_tools(entry.name):
            found.leave_out(entry, files.HIDDEN)
        elif not files.is_folder(entry):
            found.leave_out(entry, LOOSE)
        elif entry.name not in parts:
            found.leave_out(entry, BESIDE)
    return given


def _refuse(found: _Found, parts: dict[str, Path], name: str) -> None:
    """Raises InputError where nothing can be learned from what was found."""
    root = found.root
    if not found.pictures:
        raise InputError(
            f"{name}: no pictures in class folders under {root}; expected such as"
            f" {root / 'CLASS' / 'picture.jpg'}.{found.reminder()}"
        )
    if "test" in parts:
        labels: dict[str, set[str]] = {part: set() for part in SPLITS}
        for picture in found.pictures:
            labels[picture.part].add(picture.label)
        if not labels["test"]:
            raise InputError(
                f"{name}: the test split, {parts['test']}, has no pictures."
                f"{found.reminder()}"
            )
        lacking = sorted((labels["test"] | labels["val"]) - labels["train"])
        if lacking and labels["train"]:
            raise InputError(
                f"{name}: class(es) {', '.join(map(repr, lacking[:5]))} of {root} have"
                f" no training pictures.{found.reminder()}"
            )
    files.refuse_unreadable(str(root))
    for picture in found.pictures:
        files.refuse_unreadable(picture.file)
