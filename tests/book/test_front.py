"""What book/front.py writes is in step with the published records, and the pictures
with the birds.
"""

import csv
import importlib.util
import io
import json
import re

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from fgbook import cli, papers, paths
from fgbook.evidence import records
from fgbook.figures import board, hero, numbers

TOP = paths.REPOSITORY


@pytest.fixture(scope="module")
def front():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("front", TOP / "book" / "front.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published():
    """Of the repository, whatever other tests have set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RESULTS", str(TOP / "results"))
        yield records.published(purpose=None)


@pytest.fixture(scope="module")
def results(published):
    return records.select(published, purpose="result")


ADVICE = "write it anew: python book/front.py"


def test_the_readme_has_the_verdicts_of_the_records(front, results):
    text = (TOP / "README.md").read_text(encoding="utf-8")
    assert front.readme(text, results) == text, ADVICE
    assert front.BEGIN in text and front.END in text


def test_the_model_index_is_that_of_the_records(front, results):
    text = (TOP / "model-index.yml").read_text(encoding="utf-8")
    assert front.index_text(results) == text, ADVICE


def test_the_model_index_has_the_form_that_is_read(results):
    listed = yaml.safe_load((TOP / "model-index.yml").read_text(encoding="utf-8"))
    collections = {one["Name"] for one in listed["Collections"]}
    by_key = {record["key"]: record for record in results}
    assert listed["Models"]
    for model in listed["Models"]:
        assert model["In Collection"] in collections
        rows = [by_key[key] for key in model["Records"]]
        (found,) = model["Results"]
        assert found["Task"] == "Image Classification"
        top1 = np.mean([row["metrics"]["test"]["top1"] for row in rows])
        assert found["Metrics"]["Top 1 Accuracy"] == pytest.approx(
            100 * top1, abs=0.051
        )
        assert found["Metrics"]["Seeds"] == len({row["seed"] for row in rows})
        assert {row["profile"] for row in rows} <= {"photo", "paper"}
        assert model["Metadata"]["FLOPs"] == rows[0]["flops"]


def test_the_board_counts_what_the_command_lists(results, monkeypatch, tmp_path):
    monkeypatch.setenv("FGBOOK_RESULTS", str(TOP / "results"))
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path))  # nothing fresh
    listed: dict[str, int] = {}
    for name in papers.names():
        if name != "compare":
            words = ["results", name, "--verdicts", "--json"]
            for one in json.loads(CliRunner().invoke(cli.cli, words).stdout):
                listed[one["outcome"]] = listed.get(one["outcome"], 0) + 1
    grouped = board.judged_papers(results)
    counted = board.outcomes(one for each in grouped.values() for one in each)
    assert counted == listed


# ---- numbers


def test_every_published_record_is_a_line_of_the_numbers(published):
    lines = list(csv.DictReader(io.StringIO(numbers.numbers_csv(published))))
    assert len(lines) == len(published)
    by_key = {(r["paper"], r["row"], r["key"]): r for r in published}
    for line in lines:
        record = by_key[line["paper"], line["row"], line["key"]]
        split = "val" if line["kind"] == "tuning" else "test"
        assert (record["purpose"] == "tuning") == (line["kind"] == "tuning")
        accuracy = 100 * record["metrics"][split]["top1"]
        assert float(line["accuracy, %"]) == pytest.approx(accuracy, abs=0.051)
        minutes = record["train"]["seconds"] / 60
        assert float(line["minutes"]) == pytest.approx(minutes, abs=0.051)
        assert line["command"] == record["command"]
    made = numbers.numbers_table(published).html
    assert made.count("<tr id=") == len(published)


# ---- pictures


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_of_the_readme_is_the_one_that_is_drawn(theme):
    """Up to the bytes of the pictures in it, which vary with the encoder."""
    name = {"light": "hero.svg", "dark": "hero-dark.svg"}[theme]
    kept = (TOP / "book" / "_static" / name).read_text(encoding="utf-8")
    drawn = hero.hero_svg(theme)
    pictures = re.compile(r'href="[^"]*"')
    assert pictures.sub("", kept) == pictures.sub("", drawn), ADVICE
    for one in hero.portraits():
        assert one.name in kept and one.detail in kept
