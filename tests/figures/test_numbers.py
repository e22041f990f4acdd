"""The page of all numbers: what a line says of a record, from records made by hand."""

import csv
import io
import re

import pytest

from fgbook import papers
from fgbook.evidence import sortable
from fgbook.figures import numbers

PAPER = papers.get("gautam")
ABOUT = {"created": "2026-11-20T10:00:00Z", "commit": "c" * 40}


@pytest.fixture
def found(make):
    """A row as it is now, one of an earlier recipe, and a try."""
    recipe = PAPER.row("mixup").recipes["photo"].but(epochs=99).as_dict()
    now = make("plain", 0, 0.5, **ABOUT)
    then = make("mixup", 0, 0.5, recipe=recipe, **ABOUT)
    found = [now, then]
    for record in found:
        record["metrics"] = {"val": None, "test": {"top1": 0.5000000119}}
    metrics = {"val": {"top1": 0.25}, "test": None}
    tried = make("attention", 1000, 0.5, **ABOUT)
    return [*found, {**tried, "purpose": "tuning", "metrics": metrics}]


def test_a_line_says_whether_a_record_counts(found):
    kinds = {values["row"]: values["kind"] for _, values in numbers.ordered(found)}
    assert kinds == {"plain": "counts", "mixup": "left out", "attention": "tuning"}


def test_accuracies_are_of_whole_images(found):
    for record in found[:2]:
        assert numbers.line(record, True)["accuracy, %"] == "50.0"
        record["metrics"]["test"]["top1"] = 0.0166666  # one of 60
        assert numbers.line(record, True)["accuracy, %"] == "1.7"
    assert numbers.line(found[2], True)["accuracy, %"] == "25.0"


def test_page_and_csv_have_the_same_values(found):
    table = numbers.numbers_table(found).html
    lines = list(csv.DictReader(io.StringIO(numbers.numbers_csv(found))))
    rows = re.findall(r"<tr id=.*?</tr>", table, re.S)
    assert len(rows) == len(lines) == len(found)
    for row, line in zip(rows, lines, strict=True):
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)
        shown = [re.sub("<.*?>", "", cell) for cell in cells[:-1]]
        assert shown == [line[name] or "–" for name in numbers.COLUMNS]
        assert line["key"] in cells[-1] and line["command"] in cells[-1]
    assert {line["commit"] for line in lines} == {ABOUT["commit"]}


def test_the_page_brings_what_sorts_and_filters_its_table(found):
    """The columns to choose from are there; a number's cells hold numbers only."""
    table = numbers.numbers_table(found).html
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
    (selects,) = re.findall(r'data-selects="([^"]*)"', table)
    assert set(selects.split()) < set(heads)
    assert sortable.script() in table
    for _, values in numbers.ordered(found):
        for name in numbers.NUMBERS:
            if values[name] is not None:
                float(values[name])
