"""What `python -m build` makes, and what an installed package does without a clone."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest
from environments import Environment, distributions

from fgbook import paths

pytestmark = pytest.mark.slow


def test_nothing_is_warned_of_while_it_is_built(built):
    assert "Successfully built" in built.said
    lines = built.said.lower().splitlines()
    assert not [line for line in lines if "warning" in line or "deprecat" in line]


def files(folder) -> set[str]:
    """The names of all files below a folder of the clone."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix() for path in found}
    # what is run there leaves compiled files behind
    return {name for name in names if "__pycache__" not in name}


def test_the_wheel_is_the_package_with_its_weights_and_the_published_records(built):
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {f"fgbook/{name}" for name in files(built.clone / "fgbook")}
    records = {f"fgbook/published/{name}" for name in files(built.clone / "results")}
    assert names == package | records
    assert "fgbook/backbones/shipped/small.safetensors" in names
    assert any(name.endswith(".npz") for name in records)


def test_the_wheel_is_about_as_large_as_the_readme_says(built):
    text = (paths.REPOSITORY / "README.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"-py3-none-any\.whl, (\d+) MB", text)
    assert 0.6 < built.wheel.stat().st_size / (1e6 * int(stated)) < 1.6


def test_the_source_distribution_makes_the_wheel_and_has_no_half_of_the_tests(built):
    with tarfile.open(built.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    tops = {name.split("/")[0] for name in names}
    assert {"fgbook", "results", "setup.py", "pyproject.toml", "LICENSE"} <= tops
    assert not tops & {"tests", "notebooks", "book", "benchmarks", "workflow"}


# ---- installed, where there is no clone


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Environment:
    """An environment with the wheel, and with all packages from here but ours."""
    lent = distributions().keys() - {"fgbook"}
    made = Environment(tmp_path_factory.mktemp("installed") / "there", lent)
    made.install("--no-deps", built.wheel)
    return made


def test_it_judges_claims_by_the_records_that_came_with_it(installed, tmp_path):
    there = installed.call("fgbook", "results", "--verdicts", "--json")
    here = subprocess.run(
        [sys.executable, "-m", "fgbook", "results", "--verdicts", "--json"],
        env={
            **os.environ,
            "PYTHONPATH": str(paths.REPOSITORY),
            "FGBOOK_RUNS": str(tmp_path),
            "FGBOOK_RESULTS": str(paths.REPOSITORY / "results"),
        },
        capture_output=True,
        text=True,
    )
    assert there.returncode == 0, there.stderr
    said = json.loads(there.stdout)
    assert said == json.loads(here.stdout)
    assert {verdict["outcome"] for verdict in said} - {"not run"}


def test_it_trains_into_the_home_folder(installed):
    words = (
        "run feng --row plain --set epochs=1 --set image_size=32 --set store_size=32"
    )
    done = installed.call("fgbook", *words.split())
    assert done.returncode == 0, done.stderr
    (file,) = installed.home.glob(".cache/fgbook/runs/*/record.json")
    record = json.loads(file.read_text())
    assert record["key"] in done.stdout
    assert record["weights"] != "none"  # those that came with it
    assert record["commit"] is None


def refused(done: subprocess.CompletedProcess, part: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert part in done.stderr


def test_what_needs_a_clone_says_where_to_get_one(installed):
    sentence = f"go into a clone of {paths.address()} and run the command there"
    refused(installed.call("fgbook", "reproduce"), sentence)
    refused(installed.call("fgbook", "reproduce", "feng_accuracy"), sentence)


@pytest.mark.parametrize(
    "words",
    [
        "run feng --row plain --set epochs=2 --publish",
        "batch feng --row plain --publish",
        "tune feng --row plain --profile photo --publish",
        "causal --table",
    ],
)
def test_it_publishes_into_a_folder_of_ones_own_only(installed, words):
    refused(installed.call("fgbook", *words.split()), "(FGBOOK_RESULTS)")


def test_a_home_that_cannot_be_written_is_told(installed):
    words = "run feng --row plain --set epochs=1 --seed 7".split()
    refused(installed.call("fgbook", *words, HOME="/dev/null"), "FGBOOK_RUNS")


def test_pip_installs_a_clone_whose_path_has_spaces(built, tmp_path):
    lent = {"pip", "setuptools", "packaging", "click"}
    made = Environment(tmp_path / "there", lent)
    made.install("--no-deps", "--no-build-isolation", ".", cwd=built.clone)
    assert made.own() == {"fgbook"}
    done = made.call("fgbook", "--version")
    assert done.returncode == 0, done.stderr
    version = distributions()["fgbook"].version
    assert version in done.stdout
