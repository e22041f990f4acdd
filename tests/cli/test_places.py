"""`fgbook doctor` and `fgbook data`: what is here, and where."""

from importlib import metadata

import pytest

from commandline import fgbook, refused
from fgbook import files
from fgbook.cli import doctor
from fgbook.data import fetch


def test_doctor_names_versions_places_and_space(tmp_path):
    (tmp_path / "data" / "cub").mkdir(parents=True)
    text = fgbook("doctor").stdout
    assert f"torch {metadata.version('torch')}" in text
    assert "papermill" in text
    assert str(tmp_path / "runs") in text
    assert f"data: {tmp_path / 'data'} (FGBOOK_DATA), 1 entries: cub" in text
    assert "GiB free" in text


def test_doctor_asks_pytorch_only_when_told():
    assert "PyTorch can use" not in fgbook("doctor").stdout
    assert "PyTorch can use" in fgbook("doctor", "--torch").stdout


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A stand-in for the driver's program; what it says is written by the test."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    def says(script: str) -> None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return says


def test_doctor_lists_what_the_driver_sees(nvidia_smi):
    nvidia_smi("echo 'Big One, 80 GiB'; echo 'Big Two, 80 GiB'")
    assert doctor.gpus().startswith("Big One, 80 GiB; Big Two, 80 GiB (")


def test_doctor_survives_a_driver_that_fails(nvidia_smi):
    nvidia_smi("echo 'no driver'; exit 9")
    assert doctor.gpus() == "none found (by nvidia-smi)"


def test_doctor_says_that_runs_cannot_go_into_a_file(tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "taken"))
    text = fgbook("doctor").stdout
    assert "which is a FILE" in text
    assert "CANNOT be written" in text


def test_data_list_says_what_is_missing_and_where_it_is_looked_for(tmp_path):
    lines = fgbook("data", "list").stdout.splitlines()
    said = {line.split()[0]: line for line in lines}
    assert "generated" in said["fieldguide"]
    assert "missing" in said["cub50"]
    assert str(tmp_path / "data") in lines[-1]


def test_data_path_of_all_sets(tmp_path):
    assert fgbook("data", "path").stdout.strip() == str(tmp_path / "data")


def test_data_path_of_a_folder_is_meant_from_here(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    result = fgbook("data", "path", f"folder:{pictures.name}")
    assert result.stdout.strip() == str(pictures)


def test_data_check_counts(pictures):
    checked = fgbook("data", "check", f"folder:{pictures}")
    assert checked.exit_code == 0
    assert "classes: 2" in checked.stdout


def test_data_get_says_where_to_put_what_cannot_be_fetched(tmp_path):
    result = fgbook("data", "get", "cars")  # the authors' link is dead
    downloads = tmp_path / "data" / "downloads" / "cars"
    refused(result, "cars_train.tgz (sha256:", str(downloads))


def test_data_get_without_a_network_is_a_failure_and_no_wrong_input(monkeypatch):
    checksum = "sha256:" + 64 * "0"
    archive = fetch.Archive("a.tgz", checksum, ("http://127.0.0.1:9/a.tgz",))
    monkeypatch.setitem(fetch.SOURCES, "imagewoof", (archive,))
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    result = fgbook("data", "get", "imagewoof")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: a.tgz could not be downloaded")


# ---- names and places that there cannot be

LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("predict", f"{LONG}.jpg", "--run", "3f2a"),
        ("predict", "README.md", "--run", LONG),
        ("export", "--run", "3f2a", "-o", f"{LONG}.onnx"),
        ("compare", f"folder:/tmp/{LONG}"),
        ("run", "feng", "--row", "plain", "--set", f"weights={LONG}"),
        ("run", "feng", "--row", "plain", "--seed", "0", "--record", f"{LONG}.json"),
    ],
)
def test_a_name_that_no_file_can_have_is_told_before_any_work(words):
    result = fgbook(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize("variable", ["FGBOOK_RUNS", "FGBOOK_RESULTS", "FGBOOK_DATA"])
def test_a_variable_that_names_no_place_is_told(variable, tmp_path, monkeypatch):
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    for value in ("~nobody-of-this-name/x", str(circle)):
        monkeypatch.setenv(variable, value)
        words = ("data", "list") if variable == "FGBOOK_DATA" else ("results", "feng")
        result = fgbook(*words)
        assert result.exit_code == 2, result.output
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"Error: {variable} is {value}")


def test_weights_in_the_home_of_nobody_are_told():
    weights = "weights=~nobody-of-this-name/w.pth"
    refused(fgbook("run", "feng", "--row", "plain", "--set", weights), "~nobody")


def test_a_device_without_numbers_is_told():
    refused(fgbook("run", "feng", "--device", "meta"), "device 'meta' cannot be used")


def test_where_weights_cannot_be_written_is_told_before_training(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    result = fgbook("pretrain", "--epochs", "1", "--out", str(taken / "weights"))
    refused(result, f"--out {taken / 'weights'}: {taken} is a file")


def test_results_of_a_paper_without_any_name_that_paper():
    assert "`fgbook run peng`" in fgbook("results", "peng").stdout


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []
