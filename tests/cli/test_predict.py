"""`fgbook predict`: the class of new pictures, from a model alone."""

import shutil

import pytest

from commandline import fgbook, refused
from fgbook.evidence import records


@pytest.fixture
def images(pictures, tmp_path) -> list[str]:
    """A red and a blue picture, outside the folder of the training."""
    found = []
    for name in ("red", "blue"):
        path = tmp_path / f"new {name}.png"
        shutil.copy(pictures / name / "0.png", path)
        found.append(str(path))
    return found


def test_the_class_is_named(with_run, images):
    result = fgbook("predict", *images, "--run", with_run["key"][:6], "--top", "1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0::2] == images
    assert [line.split()[-1] for line in lines[1::2]] == ["red", "blue"]


def test_shares_of_the_classes_add_up(with_run, images):
    result = fgbook("predict", images[0], "--run", with_run["key"])
    _, *lines = result.stdout.splitlines()
    shares = [float(line.split()[0]) for line in lines]
    assert len(shares) == 2
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.11)


def test_a_picture_that_is_given_twice_counts_once(with_run, images):
    result = fgbook("predict", images[0], images[0], "--run", with_run["key"])
    assert result.stdout.count(images[0]) == 1


def test_a_model_needs_neither_its_pictures_nor_its_place(
    trained, images, monkeypatch, tmp_path
):
    """Copied to another machine, in another working directory, without the folder of
    pictures that it was trained on."""
    runs, record = trained
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(runs / record["key"], elsewhere / "model")
    about = (elsewhere / "model" / "model.json").read_text()
    assert "folder:" in about, "this test is about a folder of pictures"
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("FGBOOK_RUNS", str(elsewhere / "runs"))
    monkeypatch.setattr("fgbook.data.load", lambda *_: pytest.fail("looked for data"))
    result = fgbook("predict", images[0], "--run", "model", "--top", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].split()[-1] == "red"


def test_the_folder_of_a_model_of_before_is_described_by_its_record(
    trained, images, tmp_path
):
    runs, record = trained
    shutil.copytree(runs / record["key"], tmp_path / "model")
    (tmp_path / "model" / "model.json").unlink()
    result = fgbook("predict", images[0], "--run", str(tmp_path / "model"))
    assert result.exit_code == 0, result.output


def test_a_folder_that_holds_no_model_is_no_run(with_run, images, tmp_path):
    refused(fgbook("predict", images[0], "--run", str(tmp_path)), "unknown run")


def test_a_key_that_nothing_has_is_refused(with_run, images):
    refused(fgbook("predict", images[0], "--run", "zz"), "unknown run 'zz'")


def test_without_any_run_the_first_step_is_said(images):
    refused(fgbook("predict", images[0], "--run", "3f"), "nothing has been run here")


def test_a_file_that_is_no_picture_is_named(with_run, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    result = fgbook("predict", str(broken), "--run", with_run["key"])
    refused(result, "broken.jpg")


def test_a_published_record_has_no_weights(trained, images, tmp_path):
    """What it advises is tried in test_advice.py."""
    _, record = trained
    publish(record, tmp_path)
    refused(
        fgbook("predict", images[0], "--run", record["key"]),
        f"weights of run {record['key']}",
        f"{record['command']} --train",
    )


def test_letters_that_begin_two_keys_are_not_enough(trained, images, tmp_path):
    _, record = trained
    publish(record, tmp_path)
    publish(record | {"key": record["key"][:4] + "0" * 12}, tmp_path)
    result = fgbook("predict", images[0], "--run", record["key"][:4])
    refused(result, "2 runs begin with")


def publish(record: dict, top) -> None:
    """Put a record, without weights and predictions, where published ones are."""
    path = top / "results" / f"plain-{record['key']}.json"
    records.save({**record, "predictions": None}, None, path)
