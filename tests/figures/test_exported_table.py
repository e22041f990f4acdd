"""The table of exported models."""

import re

import pytest

from fgbook.export import measured
from fgbook.figures import exported

MACHINE = {"cpu": "a processor", "threads": 1, "cores": 2}
LINES = [
    ["focus <1>", "PyTorch", 8.0, 30.0, 20.0, 60, 80, 0],
    ["focus <1>", "ONNX", 8.1, 10.0, 8.0, 60, 80, 0],
    ["focus <1>", "ONNX, 8 bits", 2.0, 5.0, 5.0, 58, 80, 4],
    ["plain", "PyTorch", 4.0, 8.0, None, 50, 80, 0],
]


def cells(shown):
    rows = re.findall(r"<tr>(.*?)</tr>", shown.html, flags=re.S)
    return [re.findall(r"<td>(.*?)</td>", row) for row in rows if "<td>" in row]


def test_times_are_compared_with_pytorch_of_the_same_model():
    first, second, third, other = cells(exported.exported_table(LINES, MACHINE))
    assert first[0] == "focus &lt;1&gt;"
    assert first[3:5] == ["30.0 (1.0×)", "20.0 (1.0×)"]
    assert second[3:5] == ["10.0 (3.0×)", "8.0 (2.5×)"]
    assert third[5:] == ["72.5", "61.9 to 81.1", "80", "4"]
    assert other[3:5] == ["8.0 (1.0×)", "–"]


def test_lines_have_the_columns_that_are_drawn():
    assert len(measured.COLUMNS) == len(LINES[0])


def test_the_machine_and_its_load_are_named():
    shown = exported.exported_table(LINES, MACHINE, load=3.5)
    assert "a processor (1 of 2 cores), load 3.5." in shown.html


@pytest.mark.parametrize("published", [None, {"rows": [], "hardware": {}, "load": 1}])
def test_without_measurements_a_sentence_stands_there(monkeypatch, published):
    monkeypatch.setattr(measured, "published", lambda: published)
    assert exported.published_table().html.startswith("<p>")
