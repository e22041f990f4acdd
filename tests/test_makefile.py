"""The Makefile's set-up, with real make and a stand-in for Python that only notes what
it is asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = """#!/bin/sh
case "$1 $2" in
  "-c "*) [ ! -e {folder}/old ] ;;
  "--version "*) echo Python 3.9.18 ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") echo "$@" >> {folder}/asked; [ ! -e {folder}/offline ] ;;
  *) echo "$@" >> {folder}/asked; [ "$*" != "$(cat {folder}/complains)" ] ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    stand_in = tmp_path / "stand-in"
    (tmp_path / "complains").touch()
    stand_in.write_text(STAND_IN.format(folder=tmp_path))
    stand_in.chmod(0o755)
    return tmp_path


def make(clone: Path, *words: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """What make did, and what Python was asked for in this call."""
    (clone / "asked").unlink(missing_ok=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name != "MFLAGS"
    }
    done = subprocess.run(
        ["make", *words, f"PYTHON={clone / 'stand-in'}"],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
    )
    asked = clone / "asked"
    return done, asked.read_text().splitlines() if asked.exists() else []


INSTALL = "-m pip install -e .[book,lint,test]"


def test_the_first_target_installs_the_package_and_then_runs(clone):
    done, (first, second) = make(clone, "test")
    assert done.returncode == 0, done.stderr
    assert first == INSTALL
    assert second.startswith("-m pytest")


def test_set_up_happens_once(clone):
    make(clone, "test")
    assert make(clone, "reproduce", "ARGS=--force")[1] == [
        "-m fgbook reproduce --force"
    ]


def test_set_up_happens_again_when_the_project_file_changes(clone):
    make(clone, "test")
    newer = (clone / ".venv" / "ready").stat().st_mtime + 10
    os.utime(clone / "pyproject.toml", (newer, newer))
    assert make(clone, "test")[1][0] == INSTALL


LINT = [
    "-m ruff check",
    "-m ruff format --check",
    "-m mypy",
    "-m pytest tests/test_layout.py",
    "-m check_jsonschema --builtin-schema vendor.github-workflows"
    " .github/workflows/*.yml",
]


def test_lint_needs_no_installation_of_its_own(clone):
    make(clone, "test")
    assert make(clone, "lint")[1] == LINT


@pytest.mark.parametrize("complains", LINT)
def test_lint_asks_every_tool_and_fails_if_one_complains(clone, complains):
    make(clone, "test")
    (clone / "complains").write_text(complains)
    done, asked = make(clone, "lint")
    assert asked == LINT
    assert done.returncode != 0


def test_lab_brings_its_own_packages_once(clone):
    first = make(clone, "lab")[1]
    second = make(clone, "lab")[1]
    assert [line for line in first if "install" in line] == [
        INSTALL,
        "-m pip install -e .[lab]",
    ]
    assert second == ["-m jupyterlab notebooks"]


def test_the_book_is_checked_in_the_browser_that_is_named(clone):
    first = make(clone, "check-book")[1]
    second = make(clone, "check-book", "CHROMIUM=/a/browser", "ARGS=book/feng")[1]
    assert first[:2] == [INSTALL, "-m pip install -e .[check]"]
    command = "tests/browser/check_book.py _build/html --chromium"
    assert [first[2], *second] == [f"{command} ", f"{command} /a/browser book/feng"]


@pytest.mark.parametrize("target", ["test", "lab"])
def test_a_set_up_that_was_broken_off_is_made_anew(clone, target):
    make(clone, "test")
    (clone / ".venv" / "half-installed").touch()
    later = (clone / ".venv" / "ready").stat().st_mtime + 10
    if target == "test":
        os.utime(clone / "pyproject.toml", (later, later))
    (clone / "offline").touch()
    broken_off, asked = make(clone, target)
    assert broken_off.returncode != 0
    assert len(asked) == 1, "nothing is run in a half-made environment"
    (clone / "offline").unlink()
    done, asked = make(clone, "test")
    assert done.returncode == 0
    assert "broken off" in done.stdout
    assert len(asked) == 2
    assert not (clone / ".venv" / "half-installed").exists()


def test_a_foreign_environment_is_not_wiped(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "mine").touch()
    assert make(clone, "test")[0].returncode == 0
    assert (clone / ".venv" / "mine").exists()


def test_torch_comes_from_the_chosen_index_only_where_one_is_chosen(clone):
    assert not any("index-url" in line for line in make(clone, "test")[1])
    shutil.rmtree(clone / ".venv")
    asked = make(clone, "test", "TORCH_INDEX=file:///somewhere")[1]
    assert asked[:2] == [
        "-m pip install --index-url file:///somewhere torch torchvision",
        INSTALL,
    ]


def test_an_old_python_gets_a_sentence(clone):
    (clone / "old").touch()
    done, asked = make(clone, "reproduce")
    assert done.returncode != 0
    assert not asked
    assert not (clone / ".venv").exists()
    assert "3.11 or newer" in done.stderr
    assert "is Python 3.9.18." in done.stderr
    assert "make reproduce PYTHON=" in done.stderr
