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
from fgbook.recipe import Recipe

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
        "method": "plain",
        "options": {},
        "recipe": Recipe().as_dict(),
        "overrides": {},
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


@pytest.mark.parametrize("changed", [{"overrides": None}, {"recipe": {"zzz": 1}}])
def test_a_record_whose_content_readers_cannot_use_is_named(changed, tmp_path):
    """For instance one of a newer version, with a field of the recipe that we lack."""
    path = tmp_path / "record.json"
    records.save(record(**changed), None, path)
    with pytest.raises(InputError, match=f"{path} is not a record .*(overrides|zzz)"):
        records.load(path)


def test_a_damaged_fresh_run_stops_no_table(tmp_path):
    for key in ("0" * 16, "1" * 16):
        path = tmp_path / "runs" / key / "record.json"
        records.save(record(key=key), PREDICTIONS, path)
    (tmp_path / "runs" / ("1" * 16) / "record.npz").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="does not hold the predictions"):
        [whole] = records.fresh()
    assert whole["key"] == "0" * 16


@pytest.mark.parametrize("variable", ["FGBOOK_RUNS", "FGBOOK_RESULTS"])
def test_a_place_that_cannot_be_looked_into_is_not_an_empty_one(
    variable, tmp_path, monkeypatch
):
    read = records.fresh if variable == "FGBOOK_RUNS" else records.published
    assert read() == []  # not there at all
    monkeypatch.setenv(variable, str(tmp_path / "a-file"))
    (tmp_path / "a-file").touch()
    with pytest.raises(InputError, match=f"a-file cannot be read .*{variable}"):
        read()


def publisher(runs, code: str) -> subprocess.Popen:
    """A process with a folder of runs of its own, that publishes where this one does:
    `publish(n)` the n-th of many records.
    """
    about = record()
    begin = f"""
import numpy as np
from pathlib import Path
from fgbook import paths
from fgbook.evidence import records
array = np.array([0, 1], np.uint16)
arrays = dict(prediction=array, label=array, confidence=array.astype(np.float16))
def publish(n, seed):
    made = {about!r} | dict(key=f"{{n:016x}}", seed=seed)
    records.publish(records.save(made, arrays, paths.runs() / "made/record.json"))
"""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", begin + code],
        env={**os.environ, "FGBOOK_RUNS": str(runs)},
    )


def test_two_that_publish_in_one_place_take_nothing_from_each_other(tmp_path):
    working = []
    for number in range(2):
        code = f"for n in range(25): publish({number} * 100 + n, {number} * 100 + n)"
        working.append(publisher(tmp_path / f"runs-{number}", code))
    assert [process.wait() for process in working] == [0, 0]
    found = records.published()
    assert len(found) == 50
    for one in found:
        records.load_predictions(one)


def test_a_reader_meets_whole_records_while_newer_ones_take_their_place(tmp_path):
    writer = publisher(tmp_path / "runs-w", "for n in range(150): publish(n, n % 3)")
    seen = 0
    while writer.poll() is None:
        seen += len(records.published())
    assert writer.wait() == 0
    assert seen > 3
    assert len(records.published()) == 3


def test_a_record_that_has_gone_since_it_was_read_says_so(tmp_path):
    path = tmp_path / "results" / "feng" / "a.json"
    made = records.save(record(), PREDICTIONS, path)
    path.unlink()
    path.with_suffix(".npz").unlink()
    with pytest.raises(InputError, match="no longer there .*run the same command"):
        records.load_predictions(made)
    # the same command, which reads records first
    assert records.published() == []


def test_publishing_says_what_gives_way_and_leaves_what_is_not_ours(tmp_path):
    fresh = tmp_path / "runs" / "made" / "record.json"

    def publish(key: str):
        return records.publish(records.save(record(key=key), PREDICTIONS, fresh))

    older = publish("0" * 16)
    own = older.with_name("mine.npz")
    own.write_bytes(b"a person's")
    with pytest.warns(RuntimeWarning, match=f"place of {older.name}"):
        newer = publish("1" * 16)
    names = {path.name for path in newer.parent.iterdir()}
    assert names == {newer.name, newer.with_suffix(".npz").name, own.name}
    # beside one that is damaged nothing is written, and nothing goes
    newer.with_name("other.json").write_text("{")
    before = {path: path.read_bytes() for path in newer.parent.iterdir()}
    with pytest.raises(InputError, match="other.json is not a record"):
        publish("2" * 16)
    assert {path: path.read_bytes() for path in newer.parent.iterdir()} == before


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
