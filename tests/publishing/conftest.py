"""What is built once for all tests of what is handed out."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from environments import build

from fgbook import paths


class Built(NamedTuple):
    """Wheel and source distribution, made of a clone in a path with spaces."""

    clone: Path
    wheel: Path
    sdist: Path
    said: str


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    clone = folder / "a clone with spaces"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=paths.REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("needs git, to know which files are the repository's")
    for name in filter(None, listed.stdout.split("\0")):
        source = paths.REPOSITORY / name
        if source.is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, clone / name)
    said = build(clone, folder / "dist")
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return Built(clone, wheel, sdist, said)
