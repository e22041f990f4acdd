"""Other ways to an environment, conda's and Binder's, and another index for PyTorch: in
step with pyproject.toml and the Makefile, and tried as far as can be without conda."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from environments import Environment, distributions, normal, repacked
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fgbook import paths

ROOT = paths.REPOSITORY
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def conda(name: str) -> tuple[dict[str, str], list[str]]:
    """Packages with their bounds, and the lines for pip, of an environment file."""
    about = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert about["channels"] == ["conda-forge"]
    bounds, lines = {}, []
    for entry in about["dependencies"]:
        if isinstance(entry, dict):
            lines += entry["pip"]
        else:
            package, bound = re.fullmatch(r"([\w-]+)(.*)", entry).groups()
            bounds[package] = bound
    return bounds, lines


def extras(text: str) -> set[str]:
    """The extras of every installation of the clone that a text names."""
    lists = re.findall(r'-e "?\.\[([\w,]+)\]', text)
    return {name for each in lists for name in each.split(",")}


@pytest.mark.parametrize("name", ["environment.yml", ".binder/environment.yml"])
def test_conda_brings_a_python_that_the_package_accepts(name):
    bounds, _ = conda(name)
    version = bounds["python"].removeprefix("=")
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version)


def test_conda_gets_what_the_makefile_installs():
    bounds, (line,) = conda("environment.yml")
    assert set(bounds) == {"python", "pip"}  # all else is pip's, in one place
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    # what looks at the book in a browser is for those who change it
    assert extras(line) == extras(makefile) - {"check"}
    assert extras(line) <= set(EXTRAS)


def pip(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", *words]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True)


@pytest.mark.slow
def test_pip_finds_versions_that_agree(built, tmp_path):
    """Of all that environment.yml asks for, with what is installed here already."""
    once = ("--quiet", "--retries", "0", "--timeout", "15")
    if pip(*once, "--no-deps", "--ignore-installed", "click", cwd=tmp_path).returncode:
        pytest.skip("no package index can be reached")
    _, (line,) = conda("environment.yml")
    report = tmp_path / "report.json"
    words = [*line.split(), "--no-build-isolation", "--report", str(report)]
    done = pip("--quiet", *words, cwd=built.clone)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())["install"]
    names = {normal(each["metadata"]["name"]) for each in found}
    assert "fgbook" in names
    assert "torch" not in names  # what is here agrees with all the rest


# ---- Binder


def bounds_of_pip() -> dict[str, str]:
    lines = [*PROJECT["project"]["dependencies"], *EXTRAS["lab"], *EXTRAS["book"]]
    wanted = [Requirement(line) for line in lines]
    return {each.name: str(each.specifier) for each in wanted}


def test_binder_asks_for_the_versions_of_the_project():
    bounds, lines = conda(".binder/environment.yml")
    assert not lines  # the package comes by postBuild, whose folder is the clone
    expected = bounds_of_pip()
    expected["pytorch-cpu"] = expected["torch"]
    chosen = {name: bounds[name] for name in bounds.keys() - {"python", "pip"}}
    assert chosen == {name: expected[name] for name in chosen}
    assert {"pytorch-cpu", "torchvision", "jupyterlab"} <= chosen.keys()


@pytest.mark.slow
def test_binder_uses_the_package_of_the_clone(built, tmp_path):
    lent = distributions().keys() - {"fgbook"}
    made = Environment(tmp_path / "there", lent)
    done = subprocess.run(
        [".binder/postBuild"],
        cwd=built.clone,
        env=made.variables(PIP_NO_BUILD_ISOLATION="false"),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    where = made.call("python", "-c", "from fgbook import paths; print(paths.PACKAGE)")
    assert where.stdout.strip() == str((built.clone / "fgbook").resolve())
    settings = made.folder / "etc" / "jupyter" / "jupyter_lab_config.json"
    page = json.loads(settings.read_text())["LabApp"]["default_url"]
    assert (built.clone / page.removeprefix("/lab/tree/")).is_dir()


# ---- TORCH_INDEX

# A project that needs of all packages only those that the index has.
SMALL_PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "fgbook"
version = "0"
dependencies = ["torch>=2.6", "torchvision>=0.21"]
optional-dependencies = {book = [], lint = [], test = []}
[tool.setuptools]
packages = []
"""


def offer(index: Path, name: str, version: str) -> None:
    """An empty package on an index in a folder, as package indexes are laid out."""
    stem = f"{name}-{version}"
    place = index / name
    place.mkdir(parents=True)
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(place / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", about)
        wheel.writestr(f"{stem}.dist-info/WHEEL", tag)
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    link = f"{stem}-py3-none-any.whl".replace("+", "%2B")
    (place / "index.html").write_text(f'<a href="{link}">{stem}</a>')


@pytest.mark.slow
def test_make_takes_torch_from_the_index_that_is_named(tmp_path):
    """By a real make, venv and pip. The rest comes from elsewhere: here setuptools,
    from a folder, and the usual index is empty."""
    clone, index, rest = (tmp_path / name for name in ("clone", "index", "rest"))
    for folder in (clone, rest):
        folder.mkdir()
    shutil.copy(ROOT / "Makefile", clone)
    (clone / "pyproject.toml").write_text(SMALL_PROJECT)
    offer(index, "torch", "2.7.0+small")
    offer(index, "torchvision", "0.22.0+small")
    repacked("setuptools", rest)
    told = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "MAKE", "MFLAGS", "PYTHON"))
    }
    told |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(rest)}
    told |= {"PIP_INDEX_URL": (tmp_path / "empty").as_uri()}
    command = ["make", ".venv/ready", f"PYTHON={sys.executable}"]
    done = subprocess.run(
        [*command, f"TORCH_INDEX={index.as_uri()}"],
        cwd=clone,
        env=told,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    installed = {path.name for path in clone.glob(".venv/lib/*/site-packages/*")}
    assert {"torch-2.7.0+small.dist-info", "torchvision-0.22.0+small.dist-info"} <= (
        installed
    )
