"""Records: keys, atomic files, what is refused."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from fgbook import paths
from fgbook.errors import InputError
from fgbook.evidence import records
from fgbook.papers.spec import same_options

PREDICTIONS = {
    "prediction": np.array([1, 0, 3], np.uint16),
    "confidence": np.array([0.5, 0.25, 1], np.float16),
    "label": np.array([1, 1, 3], np.uint16),
}


def record(**fields) -> dict:
    return {
        "key": "0123456789abcdef",
        "purpose": "result",
        "paper": "feng",
        "row": "plain",
        "dataset": "cub50",
        "profile": "photo",
        "seed": 0,
        "metrics": {"val": None, "test": {"top1": 0.5}},
        **fields,
    }


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FGBOOK_RESULTS", str(tmp_path / "results"))


def test_key_ignores_the_order_of_fields_and_sees_every_value():
    assert records.key({"a": 1, "b": [1, 2]}) == records.key({"b": [1, 2], "a": 1})
    assert records.key({"a": 1}) != records.key({"a": 2}) != records.key({"a": "2"})
    with pytest.raises(ValueError):
        records.key({"a": float("nan")})


def test_round_trip_and_publish(tmp_path):
    made = records.save(
        record(), PREDICTIONS, paths.runs() / "0123456789abcdef" / "record.json"
    )
    assert records.find("0123456789abcdef")["metrics"] == made["metrics"]
    path = records.publish(made)
    assert path.parent == tmp_path / "results" / "feng"
    [published] = records.published("feng", "photo")
    for name, array in records.load_predictions(published).items():
        assert array.dtype == PREDICTIONS[name].dtype
        assert (array == PREDICTIONS[name]).all()
    assert records.FOLDER not in json.loads(path.read_text())
    assert records.published("feng", "quick") == []
    assert records.published("feng", purpose="tuning") == []
    (paths.runs() / "0123456789abcdef" / "record.json").unlink()
    assert records.find("0123456789abcdef")["row"] == "plain"  # the published one


def test_a_file_that_is_no_record_is_named(tmp_path):
    bad = tmp_path / "runs" / "k" / "record.json"
    bad.parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"key": 1}'):
        bad.write_text(text)
        with pytest.raises(InputError, match="record.json is not a record"):
            records.load(bad)


def test_predictions_outside_the_folder_or_pickled_are_refused(tmp_path):
    made = records.save(record(), PREDICTIONS, tmp_path / "a" / "record.json")
    with pytest.raises(InputError, match="outside its folder"):
        records.load_predictions({**made, "predictions": "../elsewhere.npz"})
    np.savez(
        tmp_path / "a" / "record.npz",
        **{**PREDICTIONS, "label": np.array([{"code": "runs"}], object)},
    )
    with pytest.raises(InputError, match="run its row again"):
        records.load_predictions(made)


def test_a_full_disk_keeps_the_earlier_record(tmp_path):
    """A real process whose files may not grow past 20 kB stands for a full disk."""
    path = tmp_path / "r" / "record.json"
    records.save(record(), None, path)
    before = path.read_bytes()
    code = (
        "import sys, signal; from pathlib import Path; from fgbook.evidence import"
        " records\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nrecord ="
        f" records.load(Path({str(path)!r}))\ntry: records.save({{**record, 'long': 'x'"
        " * 1_000_000}, None, Path(sys.argv[1]))\nexcept records.InputError as error:"
        " print(error); sys.exit(2)\n"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 2, done.stderr
    assert f"cannot write {path}" in done.stdout
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_hardware_and_versions_name_no_machine():
    import platform

    text = json.dumps({**records.hardware(), **records.versions()})
    assert platform.node() not in text or len(platform.node()) < 4
    assert "torch" in records.versions()
    assert records.hardware()["cores"] >= 1


PUBLISHED = sorted((paths.REPOSITORY / "results").rglob("*.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_record_agrees_with_its_predictions_and_with_the_papers_file(path):
    from fgbook import papers
    from fgbook.recipe import Recipe

    record = records.load(path)
    assert record["dirty"] is False
    assert record["commit"]
    assert record["profile"] != "quick"
    assert path.stem.endswith(record["key"])
    line = papers.get(record["paper"]).row(record["row"])
    if record["purpose"] == "result":
        predictions = records.load_predictions(record)
        right = predictions["prediction"] == predictions["label"]
        assert right.mean() == pytest.approx(
            record["metrics"]["test"]["top1"], abs=1e-12
        )
        assert len(right) == record["metrics"]["test"]["n"]
        assert Recipe.of(record["recipe"]) == line.recipes[record["profile"]].but(
            **record["overrides"]
        )
        assert same_options(record["options"], line.options)
    else:  # a try: no test number, and one of those that the paper's file lists
        assert record["metrics"]["test"] is None
        assert record["predictions"] is None
        tuning = papers.get(record["paper"]).tuning[record["profile"]]
        assert any(
            Recipe.of(record["recipe"]) == recipe
            and same_options(record["options"], options)
            for _, recipe, options in tuning.of(line)
        )


def test_tuned_rows_of_a_paper_had_equally_many_tries_and_the_plain_backbone_no_fewer():
    tries: dict[tuple, dict[str, int]] = {}
    for r in (records.load(path) for path in PUBLISHED if "tuning" in path.parts):
        if "options" in r["overrides"]:  # of the method's own options, beside these
            continue
        rows = tries.setdefault((r["paper"], r["profile"], r["dataset"]), {})
        rows[r["row"]] = rows.get(r["row"], 0) + 1
    assert {"golodov", "peng"} <= {paper for paper, *_ in tries}
    for rows in tries.values():
        plain, others = (
            rows.get("plain"),
            {count for row, count in rows.items() if row != "plain"},
        )
        # whole methods as many as the plain backbone; parts of one may have fewer
        assert len(others - {plain}) <= 1, tries
        assert plain is None or plain >= max(others, default=0), tries


MANIFESTS = """
import sys, time
from pathlib import Path
from fgbook.evidence import records

records.commit = records.hardware = dict  # what takes long
path, mine, other = map(Path, sys.argv[1:])
mine.touch()
while not other.exists():
    time.sleep(0.001)
for _ in range(300):
    records.write_manifest(path, {"seeds": 1}, [])
"""


def test_two_notebooks_may_end_at_once(tmp_path):
    """Each writes its manifest in its last cell, and none waits for the other."""
    path = tmp_path / "manifests" / "feng_accuracy.json"
    marks = [str(tmp_path / name) for name in "ab"]
    both = []
    for own, other in (marks, reversed(marks)):
        words = [sys.executable, "-c", MANIFESTS, str(path), own, other]
        both.append(subprocess.Popen(words, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert json.loads(path.read_text())["parameters"] == {"seeds": 1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]
