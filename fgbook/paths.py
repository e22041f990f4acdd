"""Where data, weights, runs and published results live.

Each place has an environment variable and a default: inside a clone of the repository
the folders of that name at its top, elsewhere ``~/.cache/fgbook``. The variables are
read at every call, so that a notebook can set them.
"""

import hashlib
import os
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
"""The top of the clone that this package is imported from (an editable install);
without meaning for a plain install.
"""


def _home() -> Path:
    has_project = (REPOSITORY / "pyproject.toml").is_file()
    if has_project and (REPOSITORY / "notebooks").is_dir():
        return REPOSITORY
    return Path.home() / ".cache" / "fgbook"


def _place(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen).expanduser().resolve()
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
    default ``results``).
    """
    return _place("FGBOOK_RESULTS", "results")


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
