"""`fgbook predict`: the class of new pictures, from a model alone."""

import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commandline import fgbook, refused
from fgbook.cli import explained, predict
from fgbook.errors import WRONG_INPUT
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


def test_processes_decode_what_threads_do(with_run, images, tmp_path):
    """In the order given, and a broken file between does not stop them."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not much of a picture")
    files = [images[1], str(broken), images[0]]
    found = []
    for workers in ("0", "2"):
        command = ["predict", *files, "--run", with_run["key"], "--workers", workers]
        found.append(fgbook(*command))
    for result in found:
        assert result.exit_code == WRONG_INPUT
        assert "broken.png" in result.stderr
    assert found[0].stdout == found[1].stdout
    assert found[0].stdout.splitlines()[0] == images[1]


def test_a_process_that_is_ended_is_one_sentence(with_run, images, monkeypatch):
    """As the system does it that runs out of memory."""
    monkeypatch.setattr(predict, "decoded", end_of_process)
    command = ["predict", *images, "--run", with_run["key"], "--workers", "1"]
    refused(fgbook(*command), "the system ended a process", "fewer --workers")


def end_of_process(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


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
    refused(fgbook("predict", images[0], "--run", str(tmp_path)), "holds no model")


def test_the_folder_of_a_run_that_is_not_finished_says_how_to_finish(
    trained, images, tmp_path
):
    runs, record = trained
    shutil.copytree(runs / record["key"], tmp_path / "begun")
    (tmp_path / "begun" / "model.safetensors").unlink()
    result = fgbook("predict", images[0], "--run", str(tmp_path / "begun"))
    refused(result, record["command"])


def test_a_key_that_nothing_has_is_refused(with_run, images):
    result = fgbook("predict", images[0], "--run", "zz")
    refused(result, "unknown run 'zz'", "`fgbook results` lists the keys")
    assert len(result.stderr) < 200, "the keys of hundreds of runs help nobody"
    header, *lines = fgbook("results").stdout.splitlines()
    place = header.index("first run")
    assert with_run["key"] in [line[place : place + 16] for line in lines]
    refused(fgbook("predict", images[0], "--run", ""), "--run names no run")


def test_a_table_that_cannot_be_written_is_refused_before_any_picture_is_read(
    with_run, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(predict, "answers", lambda *_, **__: pytest.fail("too late"))
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    words = ["predict", images[0], "--run", with_run["key"]]
    result = fgbook(*words, "-o", str(tmp_path / "table.csv"))
    refused(result, f"{tmp_path} cannot be written")


def test_without_any_run_the_first_step_is_said(images):
    refused(fgbook("predict", images[0], "--run", "3f"), "nothing has been run here")


def test_a_file_that_is_no_picture_is_named(with_run, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    result = fgbook("predict", str(broken), "--run", with_run["key"])
    refused(result, "broken.jpg")


def test_a_folder_is_walked_past_what_tools_keep_there(with_run, images, tmp_path):
    folder = tmp_path / "mine"
    for name in ("bird.png", "._bird.png", "@eaDir/bird.png/thumb.png", "b/two.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images[0], folder / name)
    result = fgbook("predict", str(folder), "--run", with_run["key"], "--top", "1")
    assert result.exit_code == 0, result.output
    named = result.stdout.splitlines()[0::2]
    assert named == [str(folder / "b/two.png"), str(folder / "bird.png")]


def test_linked_folders_are_walked_once_and_what_is_left_out_is_said(
    with_run, images, tmp_path
):
    away, folder = tmp_path / "away", tmp_path / "mine"
    (away / "b").mkdir(parents=True)
    folder.mkdir()
    shutil.copy(images[0], away / "b" / "two.png")
    (away / "b" / "back").symlink_to(away)
    (folder / "a").symlink_to(away)
    for name in ("new.heic", "notes"):
        (folder / name).write_text("")
    result = fgbook("predict", str(folder), "--run", with_run["key"], "--top", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0::2] == [str(folder / "a/b/two.png")]
    assert f"{folder}: 2 left out (1: suffix .heic is not read; 1: no suffix)." in (
        result.stderr
    )


def test_a_folder_of_nothing_but_phone_pictures_says_why_there_is_none(
    with_run, tmp_path
):
    (tmp_path / "new.heic").write_text("")
    result = fgbook("predict", str(tmp_path), "--run", with_run["key"])
    refused(result, "no picture in this folder", "suffix .heic is not read")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_not_utf_8_is_written_as_it_is(with_run, images, tmp_path):
    file = os.fsencode(tmp_path) + b"/b\xe9l\xe9.png"
    shutil.copy(images[0], file)
    for name in ("out.csv", "out.jsonl"):
        out = tmp_path / name
        words = ["predict", os.fsdecode(file), "--run", with_run["key"]]
        result = fgbook(*words, "-o", str(out))
        assert result.exit_code == 0, result.output
    assert file in (tmp_path / "out.csv").read_bytes()
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert os.fsencode(line["path"]) == file
    # a terminal may refuse to print such bytes
    shown = fgbook("predict", os.fsdecode(file), "--run", with_run["key"]).stdout
    assert "b\\udce9l\\udce9.png'\n" in shown


@pytest.mark.parametrize(("letter", "number"), [("ä", 60), ("\N{OWL}", 50)])
def test_a_long_name_is_cut_for_the_picture_of_it(
    letter, number, with_run, images, tmp_path
):
    """The longest that there can be, with what a temporary file adds."""
    longest = (255 - len(".png")) // len(letter.encode())
    long = tmp_path / f"{letter * longest}.png"
    shutil.copy(images[0], long)
    looks = tmp_path / "looks"
    words = ["predict", str(long), "--run", with_run["key"], "--explain", str(looks)]
    result = fgbook(*words)
    assert result.exit_code == 0, result.output
    (saved,) = looks.iterdir()
    assert saved.name == f"00001-{letter * number}.png"


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


# ---- what the model looks at


def test_pictures_of_what_the_model_looks_at(with_run, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    folder = tmp_path / "looks" / "deep"
    words = ["predict", images[0], str(broken), images[1], "--run", with_run["key"]]
    result = fgbook(*words, "--explain", str(folder))
    assert result.exit_code == 2  # for the broken one
    assert result.stdout.splitlines()[-1] == f"{folder}: 2 pictures, lit by CAM"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00001-new red.png", "00002-new blue.png"]
    pixels = np.asarray(Image.open(folder / names[0])).astype(float)
    size = with_run["recipe"]["image_size"]
    assert pixels.shape == (size, size, 3)
    assert pixels[..., 0].mean() > 1.5 * pixels[..., 2].mean()  # still the red one


def test_light_follows_the_map_and_boxes_stand_where_they_are():
    light = torch.zeros(4, 4)
    light[0, 3] = 1.0
    boxes = [[2.0, 20.0, 12.0, 30.0]]
    content = explained.drawn(torch.full((3, 40, 40), 0.8), light, boxes)
    pixels = np.asarray(Image.open(io.BytesIO(content))).astype(float)[..., 0]
    assert pixels[0, 39] == 204  # 0.8: undimmed
    assert pixels[0, 0] == pixels[39, 39] == 26  # an eighth of it
    assert (pixels[20, 2:12] == 255).all()
    assert (pixels[29, 2:12] == 255).all()
    assert (pixels[21, 3:11] == 0).all()
    assert (pixels[22:28, 4:10] == 26).all()
    assert (pixels[:19] != 255).all()


def test_what_speaks_against_a_class_lights_nothing():
    light = torch.tensor([[-4.0, 0.0], [-4.0, 1.0]])
    content = explained.drawn(torch.full((3, 40, 40), 0.8), light, [])
    pixels = np.asarray(Image.open(io.BytesIO(content))).astype(float)[..., 0]
    assert pixels[39, 39] == 204
    assert pixels[0, 0] == pixels[39, 0] == pixels[0, 39] == 26


def test_a_folder_that_cannot_be_is_named(with_run, images, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    words = ["predict", images[0], "--run", with_run["key"], "--explain", str(taken)]
    refused(fgbook(*words), f"--explain {taken}: File exists")


def test_an_exported_model_shows_no_maps(images, tmp_path):
    words = ["predict", images[0], "--run", "model.onnx", "--explain", str(tmp_path)]
    refused(fgbook(*words), "gives classes and no maps")
