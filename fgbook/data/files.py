"""What lies in a folder: its entries, what of them is no data, and a stamp that tells
whether anything has changed.
"""

import hashlib
import os
import stat
import unicodedata
from pathlib import Path

from ..errors import InputError

# What systems and programs keep beside one's own files, in small letters. Jupyter's
# checkpoints, Git's folder and the like are hidden, and so need no name here.
TOOLS = {
    "$recycle.bin",
    "#recycle",
    "#snapshot",
    "@eadir",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
}

HIDDEN = "hidden, or a tool's own"
"""Why such things are left out of a data set."""


def absolute(place: str) -> Path:
    """The absolute path of `place`, which is relative to the current directory; "~" is
    the home folder. Raises InputError for a name that no folder can have.
    """
    refuse_unreadable(place)
    try:
        return Path(os.path.abspath(Path(place).expanduser()))
    except RuntimeError as error:  # the home of somebody who has none
        raise InputError(f"{place}: {error}; write the whole path.") from error


def readable(name: str) -> bool:
    """Whether a file's name can be hashed, stored and printed: no control characters,
    no bytes that are not UTF-8.
    """
    kinds = {unicodedata.category(character) for character in name}
    return kinds.isdisjoint(("Cc", "Cs"))


def refuse_unreadable(name: str) -> None:
    """Raises InputError for a name that is not :func:`readable`."""
    if not readable(name):
        raise InputError(
            f"the name {name!r} holds control characters or bytes that are not UTF-8;"
            " rename it."
        )


def is_tools(name: str) -> bool:
    """Whether a file or folder of this name is hidden or belongs to a tool."""
    return name.startswith(".") or name.lower() in TOOLS


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def is_file(entry: os.DirEntry) -> bool:
    """Whether an entry is a file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def listing(place: Path) -> list[os.DirEntry]:
    """What is in a folder, by name. Raises InputError for one that cannot be read: what
    is in it must not go unnoticed.
    """
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=_name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{place} is not a folder; name one.") from error
    except OSError as error:
        raise InputError(
            f"{place} cannot be read ({error.strerror}); make it readable, or take it"
            " away."
        ) from error


def _name(entry: os.DirEntry) -> str:
    return entry.name


def stamp(top: Path) -> str:
    """A hash of the names, sizes and modification times of all files under `top`; no
    file is opened. What :func:`is_tools` is passed over; links are followed.

    Raises InputError for a folder that cannot be read.
    """
    state = hashlib.sha256()
    waiting = [top]
    seen = set()
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:  # a link back to where we have been
            continue
        seen.add(real)
        for entry in listing(place):
            if is_tools(entry.name):
                continue
            told = _told(entry)
            if told == "folder":
                waiting.append(Path(entry.path))
            state.update(f"{entry.path}\0{told}\0".encode(errors="surrogateescape"))
    return state.hexdigest()[:16]


def _told(entry: os.DirEntry) -> str:
    """What a stamp says of an entry."""
    try:
        about = entry.stat()
    except OSError:
        return "a link to nothing"
    if stat.S_ISDIR(about.st_mode):
        # Not its time, which also changes with what is passed over.
        return "folder"
    return f"{about.st_size} {about.st_mtime_ns}"
