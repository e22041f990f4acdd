"""Writing a checked export, whole or not at all."""

import os
from pathlib import Path

from ..errors import InputError


def write(
    path: Path, content: bytes, instead: str = "name another file with -o"
) -> None:
    """Write a file under a temporary name and rename it. Raises InputError where it
    cannot be written; what stood there before is then intact. instead: what else a
    person can do than to free some space.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); free some space, or"
            f" {instead}."
        ) from error
