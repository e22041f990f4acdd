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
  *) echo "$@" >> {folder}/asked ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    stand_in = tmp_path / "stand-in"
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
    return done, (
        (clone / "asked").read_text().splitlines() if (clone / "asked").exists() else []
    )


def test_set_up_happens_once_and_again_when_the_project_file_changes(clone):
    done, asked = make(clone, "test")
    assert done.returncode == 0, done.stderr
    assert asked[0] == "-m pip install -e .[book,test]" and asked[1].startswith(
        "-m pytest"
    )
    assert [
        line.split()[1] for line in make(clone, "reproduce", "ARGS=--force")[1]
    ] == ["fgbook"]
    assert make(clone, "reproduce", "ARGS=--force")[1] == [
        "-m fgbook reproduce --force"
    ]
    newer = (clone / ".venv" / "ready").stat().st_mtime + 10
    os.utime(clone / "pyproject.toml", (newer, newer))
    assert make(clone, "test")[1][0].startswith("-m pip install")


def test_lab_brings_its_own_packages_once(clone):
    first, second = make(clone, "lab")[1], make(clone, "lab")[1]
    assert [line for line in first if "install" in line] == [
        "-m pip install -e .[book,test]",
        "-m pip install -e .[lab]",
    ]
    assert second == ["-m jupyterlab notebooks"]


@pytest.mark.parametrize("target", ["test", "lab"])
def test_a_set_up_that_was_broken_off_is_made_anew(clone, target):
    make(clone, "test")
    (clone / ".venv" / "half-installed").touch()
    later = (clone / ".venv" / "ready").stat().st_mtime + 10
    if target == "test":
        os.utime(clone / "pyproject.toml", (later, later))
    (clone / "offline").touch()
    done, asked = make(clone, target)
    # nothing is run in a half-made environment
    assert done.returncode != 0 and len(asked) == 1
    (clone / "offline").unlink()
    done, asked = make(clone, "test")
    assert done.returncode == 0 and "broken off" in done.stdout and len(asked) == 2
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
        "-m pip install -e .[book,test]",
    ]


def test_an_old_python_gets_a_sentence(clone):
    (clone / "old").touch()
    done, asked = make(clone, "reproduce")
    assert done.returncode != 0 and not asked and not (clone / ".venv").exists()
    assert (
        "3.11 or newer" in done.stderr
        and "is Python 3.9.18." in done.stderr
        and "make reproduce PYTHON=" in done.stderr
    )
