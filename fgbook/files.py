"""Writing a file whole or not at all."""

import os
from pathlib import Path

from .errors import InputError


def write(
    path: Path,
    content: bytes,
    instead: str = "name another file with -o",
    temporary: Path | None = None,
) -> None:
    """Write a file under a temporary name in the same folder, which is made if needed,
    and rename it to `path`.

    instead: what a person can do if it fails, other than to free some space.
    temporary: that name (None: one of this process, so that two that write the same
    file at once are not in each other's way). Raises InputError naming `path` where it
    cannot be written; what stood there before is then intact.
    """
    beside = temporary or path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flush(beside, content)
        try:
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); free some space, or"
            f" {instead}."
        ) from error


def refuse_unwritable(folder: Path, asked: str) -> None:
    """Raises InputError, beginning with what was `asked` for, where nothing can be
    written into a folder, or the nearest one above it that is there: to be told before
    the work and not after it.
    """
    places = (folder.absolute(), *folder.absolute().parents)
    there = next(place for place in places if place.exists())
    if not there.is_dir():
        raise InputError(
            f"{asked}: {there} is a file, not a folder; name another place."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{asked}: {there} cannot be written; make it writable, or name another"
            " place."
        )


def flush(path: Path, content: bytes) -> None:
    """Write a file to the disk itself: it is there after a power cut, and so is what a
    rename says from then on. Raises OSError, and leaves nothing, then or interrupted.
    """
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # Ctrl-C as well
        path.unlink(missing_ok=True)
        raise
