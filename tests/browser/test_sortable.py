"""Tables in a real browser: sorted by their headings, filtered by words."""

import json
import os
import re
import shutil
import subprocess

import pytest

from fgbook.figures import base

LINES = [
    {
        "method": f"method {name}",
        "family": family,
        "measured, %": measured,
        "training": f'<span data-sort="{seconds}">{base.duration(seconds)}</span>',
    }
    for name, family, measured, seconds in (
        ("a", "parts", "9.5", 30),
        ("b", "jigsaw", "80.1", 600),
        ("c", "parts", "not run", 90),
        ("d", "regions", "-7.0", 45),
    )
]

# What a reader does, one after the other, and what is then on the page.
ASKED = """<script>
const said = [];
const rows = () => [...document.querySelectorAll("tbody tr")];
const look = () =>
  said.push(rows().filter((row) => !row.hidden).map((row) => row.cells[0].textContent));
const press = (name) => {
  const buttons = [...document.querySelectorAll("th button")];
  buttons.find((button) => button.textContent === name).click();
  look();
};
const ask = (words) => {
  const input = document.querySelector("input[type=search]");
  input.value = words;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  look();
};
press("measured, %");
press("measured, %");
press("training");
press("method");
ask("family=parts|regions");
ask("method b");
ask("nothing has this");
ask("");
document.body.replaceChildren(JSON.stringify(said));
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path:
        pytest.skip("no Chromium")
    return path


def test_a_table_sorts_by_its_headings_and_finds_what_is_asked(chromium, tmp_path):
    shown = base.table(LINES, "Methods.", find="parts, or family=parts").html
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><meta charset="utf-8"/>{shown}{ASKED}')
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [chromium, *words, f"--user-data-dir={tmp_path / 'own'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (said,) = re.findall(r"<body>(.*?)</body>", done.stdout, re.S)
    found = ["".join(row[-1] for row in rows) for rows in json.loads(said)]
    assert found == [
        "dabc",  # numbers as numbers, what is none last
        "badc",  # also the other way round
        "adcb",  # seconds and minutes
        "abcd",
        "acd",
        "b",
        "",
        "abcd",
    ]
