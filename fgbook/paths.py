"""Where data, weights, runs and published results live.

Each place has an environment variable and a default: inside a clone of the repository
the folders of that name at its top, elsewhere ``~/.cache/fgbook`` (and for published
results those that came with the package). The variables are read at every call, so that
a notebook can set them. Raises InputError for one that names no place.
"""

import hashlib
import os
import re
import tomllib
from importlib import metadata
from pathlib import Path

from .errors import InputError

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
"""The top of the clone that this package is imported from (an editable install);
without meaning for a plain install.
"""


SHIPPED_RESULTS = PACKAGE / "published"
"""The published records as a plain install has them: a copy of the clone's ``results``
(made by ``setup.py``).
"""


def in_clone() -> bool:
    """Whether the package is imported from a clone of the repository."""
    has_project = (REPOSITORY / "pyproject.toml").is_file()
    return has_project and (REPOSITORY / "notebooks").is_dir()


def _home() -> Path:
    return REPOSITORY if in_clone() else Path.home() / ".cache" / "fgbook"


def _place(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    if chosen:
        try:
            return Path(chosen).expanduser().resolve()
        except RuntimeError as error:  # nobody's home; links that lead in a circle
            raise InputError(
                f"{variable} is {chosen} ({error}); name another folder."
            ) from error
    return _home() / default


def data() -> Path:
    """Folder with one folder a data set (``FGBOOK_DATA``, default ``data``). Only read,
    except by ``fgbook data get``.
    """
    return _place("FGBOOK_DATA", "data")


def weights() -> Path:
    """Folder with pretrained backbones (``FGBOOK_WEIGHTS``, default ``weights``). Only
    read.
    """
    return _place("FGBOOK_WEIGHTS", "weights")


def runs() -> Path:
    """Folder with one folder a run key, and the image store (``FGBOOK_RUNS``, default
    ``runs``). Everything in it can be made again.
    """
    return _place("FGBOOK_RUNS", "runs")


def store() -> Path:
    """Folder with decoded images (``store`` inside :func:`runs`)."""
    return runs() / "store"


def results() -> Path:
    """Folder with the published records that the book prints (``FGBOOK_RESULTS``,
    default ``results``; of a plain install those that came with it, which are only
    read).
    """
    if not in_clone() and not os.environ.get("FGBOOK_RESULTS"):
        return SHIPPED_RESULTS
    return _place("FGBOOK_RESULTS", "results")


def address() -> str:
    """Where the repository lies on the web: the one setting, ``[project.urls]`` of
    pyproject.toml, or what an installed package remembers of it.
    """
    if in_clone():
        text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
        return tomllib.loads(text)["project"]["urls"]["Repository"]
    links = metadata.metadata("fgbook").get_all("Project-URL") or []
    named = dict(link.split(", ", 1) for link in links)
    return named["Repository"]


def file_name(name: str) -> str:
    """`name` where a file may be called that; else its last readable part and a hash of
    the whole.
    """
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", name)[-60:].strip("-.")
    if readable == name:
        return name
    # two names may share their readable part
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{readable}-{mark}"
