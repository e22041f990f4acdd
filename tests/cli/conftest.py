"""Pictures and a trained run that the tests of the command line share."""

import json
from pathlib import Path

import pytest

import samples
from commandline import SMALL, process


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """No test looks into the clone's own runs, results and data."""
    for name in ("RUNS", "RESULTS", "DATA"):
        monkeypatch.setenv(f"FGBOOK_{name}", str(tmp_path / name.lower()))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Two classes of 15 pictures, one reddish, one bluish."""
    folder = tmp_path_factory.mktemp("pictures")
    samples.folder(folder, count=15)
    return folder


@pytest.fixture(scope="session")
def words(pictures) -> list[str]:
    """A command that trains one row on the pictures, for some epochs."""
    return f"run feng --row plain --dataset folder:{pictures}".split() + SMALL


@pytest.fixture(scope="session")
def trained(words, tmp_path_factory) -> tuple[Path, dict]:
    """A folder of runs with one run in it, made by the command line; and its record."""
    runs = tmp_path_factory.mktemp("runs")
    done = process(*words, "--set", "epochs=4", runs=runs)
    out, error = done.communicate(timeout=600)
    assert done.returncode == 0, error
    (record,) = (json.loads(path.read_text()) for path in runs.glob("*/record.json"))
    assert record["key"] in out
    return runs, record


@pytest.fixture
def with_run(trained, monkeypatch) -> dict:
    """The record of the trained run, whose folder is the one in use."""
    runs, record = trained
    monkeypatch.setenv("FGBOOK_RUNS", str(runs))
    return record
