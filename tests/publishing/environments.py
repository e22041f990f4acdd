"""Virtual environments for tests, made in a second and without a network: packages that
are installed here are lent to them, chosen by name."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

SITE = Path(sysconfig.get_path("purelib"))


@cache
def distributions() -> dict[str, metadata.Distribution]:
    """What is installed here, by normalised name."""
    found = metadata.distributions(path=[str(SITE)])
    return {normal(each.metadata["Name"]): each for each in found}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names: Iterable[str]) -> set[str]:
    """These distributions and all that they require, as far as they are installed."""
    installed = distributions()
    asked: set[tuple[str, str]] = set()  # a name, and an extra of it or ""
    waiting = [(normal(name), "") for name in names]
    while waiting:
        name, extra = asking = waiting.pop()
        if asking in asked or name not in installed:
            continue
        asked.add(asking)
        for line in installed[name].requires or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting += [
                    (normal(wanted.name), more) for more in ("", *wanted.extras)
                ]
    return {name for name, _ in asked}


def top_level(name: str) -> set[str]:
    """The files and folders of a distribution that lie directly in site-packages."""
    files = distributions()[name].files or []
    first = {path.parts[0] for path in files if not path.is_absolute()}
    return first - {"..", "__pycache__"}


class Environment:
    """A virtual environment in `folder` that sees the distributions `lent` to it, but
    cannot write to them: they lie outside, as links."""

    def __init__(self, folder: Path, lent: Iterable[str]):
        self.folder = folder
        venv.create(folder)
        self.home = folder / "home"
        self.home.mkdir()
        links = folder / "lent"
        links.mkdir()
        for name in sorted({each for one in lent for each in top_level(one)}):
            (links / name).symlink_to(SITE / name)
        (self.site / "lent.pth").write_text(f"{links}\n")
        self.script("pip", 'exec "$(dirname "$0")/python" -m pip "$@"')

    @property
    def site(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def script(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def variables(self, **more: str | Path) -> dict[str, str]:
        """Its own programs first, a home of its own, nothing of the package's settings,
        and no network for pip."""
        told = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FGBOOK_", "PIP_", "PYTHON", "VIRTUAL_ENV"))
        }
        told |= {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        told |= {"HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        told |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        told |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return told | {name: str(value) for name, value in more.items()}

    def call(
        self, *words: str | Path, cwd: Path | None = None, **more: str | Path
    ) -> subprocess.CompletedProcess:
        """Run one of its programs."""
        return subprocess.run(
            [str(self.folder / "bin" / words[0]), *map(str, words[1:])],
            env=self.variables(**more),
            cwd=cwd or self.home,
            text=True,
            capture_output=True,
        )

    def install(self, *words: str | Path, **options) -> None:
        words = ("--quiet", "--no-compile", *words)
        done = self.call("pip", "install", *words, **options)
        assert done.returncode == 0, done.stderr

    def own(self) -> set[str]:
        """The distributions that were installed into it."""
        found = metadata.distributions(path=[str(self.site)])
        return {normal(each.metadata["Name"]) for each in found}


def repacked(name: str, folder: Path) -> None:
    """A wheel in `folder` of a distribution that is installed here."""
    about = distributions()[name]
    tag = re.search(r"^Tag: (\S+)", about.read_text("WHEEL") or "", flags=re.M)
    assert tag
    stem = f"{name.replace('-', '_')}-{about.version}-{tag[1]}"
    with zipfile.ZipFile(folder / f"{stem}.whl", "w") as wheel:
        for path in about.files or []:
            left_out = path.name in ("INSTALLER", "REQUESTED", "direct_url.json")
            if ".." not in path.parts and path.suffix != ".pyc" and not left_out:
                wheel.write(path.locate(), path.as_posix())


def build(clone: Path, out: Path) -> str:
    """Build wheel and source distribution of a clone; all that is said meanwhile."""
    told = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, clone],
        env=told,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
