"""`fgbook export`, and `fgbook predict` with the files that it writes."""

import csv
import json
import shutil
import subprocess
import sys

import pytest

from commandline import environment, fgbook, refused
from fgbook import paths
from fgbook.evidence import records
from fgbook.export import check, measured, to_onnx


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The model of the trained run in each format, and what was said of it."""
    runs, record = trained
    folder = tmp_path_factory.mktemp("exported")
    said = {}
    for name in ("model.onnx", "model.pt2", "small.onnx"):
        words = ["export", "--run", str(runs / record["key"]), "-o", str(folder / name)]
        said[name] = fgbook(*words, *(["--int8"] if name == "small.onnx" else []))
        assert said[name].exit_code == 0, said[name].output
    return folder, said


@pytest.fixture
def birds(pictures, tmp_path):
    """A folder with a red and a blue picture, a text, and a folder inside."""
    folder = tmp_path / "birds"
    (folder / "more").mkdir(parents=True)
    shutil.copy(pictures / "red" / "0.png", folder / "b.png")
    shutil.copy(pictures / "blue" / "0.png", folder / "more" / "=a.PNG")
    (folder / "notes.txt").write_text("no picture")
    return folder


# ---- writing


def test_what_was_checked_is_said(exported):
    folder, said = exported
    for name in ("model.onnx", "model.pt2"):
        assert f"{name}: " in said[name].stdout
        difference = said[name].stdout.split("at most ")[1].split()[0]
        assert float(difference) < 1e-4
    assert {path.name for path in folder.iterdir()} == set(said)


def test_eight_bits_say_what_they_cost(exported):
    folder, said = exported
    size = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert size["small.onnx"] < 0.5 * size["model.onnx"]
    last = said["small.onnx"].stdout.splitlines()[-1]
    assert "validation images: " in last
    assert "% in eight bits, " in last


def test_without_its_pictures_there_are_no_eight_bits(trained, tmp_path):
    """The folder of pictures that the model was trained on is gone."""
    runs, record = trained
    model = tmp_path / "model"
    shutil.copytree(runs / record["key"], model)
    text = (model / "model.json").read_text()
    about = json.loads(text)
    about.pop(records.DIGEST)
    about["dataset"] = f"folder:{tmp_path / 'gone'}"
    (model / "model.json").write_text(json.dumps(about))
    out = tmp_path / "small.onnx"
    result = fgbook("export", "--run", str(model), "--int8", "-o", str(out))
    refused(result, "eight bits are measured on training pictures", "gone")
    assert not out.exists()


def test_other_pictures_are_no_training_pictures(trained, pictures, tmp_path):
    runs, record = trained
    shutil.copytree(pictures, tmp_path / "birds")
    (tmp_path / "birds" / "red" / "0.png").unlink()
    model = tmp_path / "model"
    shutil.copytree(runs / record["key"], model)
    about = json.loads((model / "model.json").read_text())
    about.pop(records.DIGEST)
    about["dataset"] = f"folder:{tmp_path / 'birds'}"
    (model / "model.json").write_text(json.dumps(about))
    out = tmp_path / "small.onnx"
    result = fgbook("export", "--run", str(model), "--int8", "-o", str(out))
    refused(result, "are others than those")
    assert not out.exists()


def test_a_file_that_says_something_else_is_not_written(trained, tmp_path, monkeypatch):
    runs, record = trained
    monkeypatch.setattr(check, "LIMIT", -1.0)
    out = tmp_path / "model.pt2"
    result = fgbook("export", "--run", str(runs / record["key"]), "-o", str(out))
    assert result.exit_code == 1
    assert "nothing was written" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (["-o", "model.bin"], "should end in .onnx or .pt2"),
        (["-o", "model.pt2", "--format", "onnx"], "should end in .onnx"),
        (["-o", "model.pt2", "--int8"], "name the file -o something.onnx"),
        (["-o", "nowhere/model.onnx"], "there is no folder nowhere"),
        (["-o", "folder.onnx"], "is a folder"),
    ],
    ids=lambda asked: " ".join(asked) if isinstance(asked, list) else "",
)
def test_what_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch, asked, part):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    refused(fgbook("export", "--run", "3f2a", *asked), part)


def test_what_writes_onnx_may_be_missing(trained, tmp_path, monkeypatch):
    runs, record = trained
    monkeypatch.setattr(to_onnx, "PACKAGES", ("onnx", "no_such_package"))
    out = tmp_path / "model.onnx"
    result = fgbook("export", "--run", str(runs / record["key"]), "-o", str(out))
    refused(result, "no_such_package", "pip install 'fgbook[export]'")


# ---- predicting


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "small.onnx"])
def test_an_exported_file_predicts_as_its_run(exported, with_run, birds, name):
    folder, _ = exported
    words = ["predict", str(birds), "--run"]
    of_run = fgbook(*words, with_run["key"])
    of_file = fgbook(*words, str(folder / name))
    assert of_file.exit_code == 0, of_file.output
    if name == "small.onnx":
        wanted, found = (
            [line for line in one.stdout.splitlines() if "birds" in line]
            for one in (of_run, of_file)
        )
        assert found == wanted
    else:
        assert of_file.stdout == of_run.stdout


def test_onnx_needs_neither_pytorch_nor_the_methods(exported, birds, tmp_path):
    folder, _ = exported
    code = (
        "import sys; from fgbook import cli\n"
        "try: cli.main()\n"
        "finally: print(sorted(n for n in sys.modules if n in"
        " ('torch', 'fgbook.methods', 'pandas')), file=sys.stderr)"
    )
    out = tmp_path / "found.csv"
    words = ["predict", str(birds), "--run", str(folder / "model.onnx"), "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    assert out.exists()


def test_a_table_has_a_line_for_each_picture(exported, birds, tmp_path):
    """In the order asked for; names that a spreadsheet would compute are text."""
    folder, _ = exported
    out = tmp_path / "found.csv"
    asked = [str(birds / "more"), str(birds)]
    words = ["predict", *asked, "--run", str(folder / "model.onnx"), "--top", "7"]
    result = fgbook(*words, "-o", str(out))
    assert result.exit_code == 0, result.output
    assert "2 of 2 images" in result.stdout
    header, *rows = csv.reader(out.read_text().splitlines())
    assert header[:3] == ["path", "class 1", "probability 1"]
    assert [row[0] for row in rows] == [
        str(birds / "more" / "=a.PNG"),
        str(birds / "b.png"),
    ]
    assert [row[1] for row in rows] == ["blue", "red"]
    for row in rows:
        assert len(row) == len(header) == 5
        assert float(row[2]) + float(row[4]) == pytest.approx(1, abs=1e-5)


def test_no_cell_is_a_formula(exported, birds, tmp_path, monkeypatch):
    folder, _ = exported
    monkeypatch.chdir(birds / "more")
    out = tmp_path / "found.csv"
    words = ["=a.PNG", "--run", str(folder / "model.onnx"), "-o", str(out)]
    assert fgbook("predict", *words).exit_code == 0
    assert out.read_text().splitlines()[1].startswith("'=a.PNG,")


def test_lines_of_json_say_the_same(exported, birds, tmp_path):
    folder, _ = exported
    out = tmp_path / "found.jsonl"
    words = ["predict", str(birds), "--run", str(folder / "model.onnx"), "--top", "1"]
    assert fgbook(*words, "-o", str(out)).exit_code == 0
    first, _ = map(json.loads, out.read_text().splitlines())
    assert first["path"] == str(birds / "b.png")
    (best,) = first["top"]
    assert best["class"] == "red"
    assert 0.5 < best["probability"] <= 1


def test_what_cannot_be_read_is_named_and_the_others_go_on(exported, birds, tmp_path):
    folder, _ = exported
    (birds / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    out = tmp_path / "found.csv"
    words = ["predict", str(birds), "--run", str(folder / "model.onnx")]
    result = fgbook(*words, "-o", str(out))
    assert result.exit_code == 2
    left_out, line = result.stderr.splitlines()
    assert left_out == f"{birds}: 1 left out (1: suffix .txt is not read)."
    assert line.startswith("Error: ")
    assert "a.jpg" in line
    assert "2 of 3 images" in result.stdout
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_truncated_export_is_refused(exported, birds, tmp_path, name):
    folder, _ = exported
    broken = tmp_path / name
    broken.write_bytes((folder / name).read_bytes()[:-500])
    out = tmp_path / "found.csv"
    words = ["predict", str(birds), "--run", str(broken), "-o", str(out)]
    refused(fgbook(*words), f"{broken} cannot be read", "export the model again")
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (["--run", "gone.onnx"], "gone.onnx: there is no such file"),
        (["--run", "model.onnx", "--device", "cuda"], "leave out --device"),
        (["--run", "model.onnx", "-o", "found.xlsx"], "should end in .csv or .jsonl"),
        (["--run", "model.onnx", "-o", "gone/found.csv"], "there is no folder gone"),
    ],
    ids=lambda asked: " ".join(asked) if isinstance(asked, list) else "",
)
def test_what_makes_no_sense_is_refused(exported, birds, monkeypatch, asked, part):
    folder, _ = exported
    monkeypatch.chdir(folder)
    refused(fgbook("predict", str(birds), *asked), part)


def test_a_folder_without_pictures_is_refused(exported, tmp_path):
    folder, _ = exported
    (tmp_path / "empty").mkdir()
    words = ["predict", str(tmp_path / "empty"), "--run", str(folder / "model.onnx")]
    refused(fgbook(*words), "there is no picture in this folder")


# ---- measured


def test_the_benchmark_measures_all_forms_on_the_same_images(trained, tmp_path):
    """And says nothing of where they are."""
    runs, record = trained
    done = subprocess.run(
        [
            sys.executable,
            paths.REPOSITORY / "benchmarks" / "export.py",
            record["key"],
            *"--images 5 --repeats 2 --save saved".split(),
        ],
        env=environment(FGBOOK_RUNS=runs),
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "saved").iterdir()
    content = json.loads(file.read_text())
    assert content["columns"] == list(measured.COLUMNS)
    assert [row[1] for row in content["rows"]] == list(measured.FORMS)
    pytorch, floating, small = content["rows"]
    assert small[2] < 0.5 * floating[2]
    assert pytorch[5] == floating[5] == 5  # all are right: red is not blue
    assert pytorch[7] == floating[7] == 0
    assert min(row[column] for row in content["rows"] for column in (3, 4)) > 0
    assert str(runs) not in done.stdout + file.read_text()
