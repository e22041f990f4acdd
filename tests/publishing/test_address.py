"""Where the repository lies is one setting, in pyproject.toml: all links are made from
it, and no other file knows it by itself."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fgbook import paths

ROOT = paths.REPOSITORY
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADDRESS = PROJECT["project"]["urls"]["Repository"]
OWNER_AND_NAME = ADDRESS.removeprefix("https://github.com/")
# By book/address.py, and by book/front.py, which looks it up.
FILLED = ["_config.yml", "CITATION.cff", "notebooks", "model-index.yml"]


def texts() -> Iterator[tuple[str, str]]:
    """Every text file of the repository and its content, without the records."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("needs git, to know which files are the repository's")
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name.startswith("results/") or not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            yield name, content.decode()


def test_no_other_file_knows_the_address():
    mentioned = [name for name, text in texts() if f"/{OWNER_AND_NAME}" in text]
    outside = [name for name in mentioned if name.split("/")[0] not in FILLED]
    assert outside == ["pyproject.toml"]


def test_the_package_knows_it():
    assert paths.address() == ADDRESS


@pytest.fixture
def clone(tmp_path):
    """What the address stands in, in another place."""
    for name in ("pyproject.toml", "_config.yml", "CITATION.cff", "book/address.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def fill(clone: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, clone / "book" / "address.py"]
    return subprocess.run(command, capture_output=True, text=True)


def contents(clone: Path) -> dict[Path, str]:
    files = [path for path in clone.rglob("*") if path.is_file()]
    return {path: path.read_text(encoding="utf-8") for path in files}


def test_the_files_that_name_it_are_in_step(clone):
    before = contents(clone)
    assert fill(clone).returncode == 0
    assert contents(clone) == before


def test_a_new_address_is_written_wherever_the_old_one_stood(clone):
    before = contents(clone)
    project = clone / "pyproject.toml"
    moved = "https://github.com/elsewhere/a-book"
    project.write_text(before[project].replace(ADDRESS, moved))
    assert fill(clone).returncode == 0
    for path, text in contents(clone).items():
        assert text == before[path].replace(ADDRESS, moved), path


@pytest.mark.parametrize("wrong", ["", f"{ADDRESS}/", "https://example.org/a/book"])
def test_an_address_that_no_link_can_be_made_from_is_refused(clone, wrong):
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace(ADDRESS, wrong))
    before = contents(clone)
    done = fill(clone)
    assert done.returncode == 1
    assert done.stderr.endswith(f"/OWNER/NAME, not {wrong!r}.\n")
    assert contents(clone) == before


def test_a_file_without_its_place_is_named_and_nothing_is_written(clone):
    (clone / "CITATION.cff").write_text("title: none\n")
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace(ADDRESS, "https://github.com/a/b"))
    before = contents(clone)
    done = fill(clone)
    assert done.returncode == 1
    assert "CITATION.cff has 0 places for the address instead of one." in done.stderr
    assert contents(clone) == before


def test_links_of_pages_lead_to_files():
    """Those with the scheme of book/_ext/source_links.py."""
    found = 0
    for page in sorted((ROOT / "book").glob("*.md")):
        for name in re.findall(r"\]\(source:([^)\s]+)\)", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
            found += 1
    assert found
