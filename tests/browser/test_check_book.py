"""The check of the book, on a small one with one fault of each kind."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMMAND = [sys.executable, str(HERE / "check_book.py")]
DRIVEN = find_spec("playwright") and find_spec("axe_playwright_python")
PAGE = """<!DOCTYPE html><html lang="en" data-theme="light"><head><title>A page</title>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<style>html[data-theme="dark"] {{ background: black; color: #eee; }}
html[data-theme="dark"] .dim {{ color: #333; }}</style></head>
<body><main><article><section id="top"><h1>A page</h1><section id="part">
<h2>Part</h2>{}</section></section></article></main></body></html>"""
WIDE = "<td>{}</td>".format("x" * 400)
# what stands in the page, and how the fault is called
FAULTS = {
    "page error": "<script>throw Error('an error')</script>",
    "console error": "<script>console.error('said')</script>",
    "external request": "<script src='https://example.org/x.js'></script>",
    "table cut": f"<table><tr>{WIDE}</tr></table>",
    "code line cut": f"<pre style='overflow: auto'>{'y' * 400}</pre>",
    "code not wrapped": f"<pre style='overflow: auto' tabindex='0'>{'y' * 60}</pre>",
    "outcome not on the screen": (
        "<div style='overflow: auto' tabindex='0'><table><thead><tr><th>claim</th>"
        "<th>verdict</th></tr></thead><tbody><tr><td><div style='width: 600px'>c</div>"
        "</td><td>holds</td></tr></tbody></table></div>"
    ),
    "figure without alternative text": "<svg role='img'></svg>",
    "alternative text over 300 characters": (
        f"<svg role='img' aria-label='{'z' * 301}'></svg>"
    ),
    "text below 11 px in a figure": (
        "<svg role='img' aria-label='small' width='100' height='50' viewBox='0 0 200"
        " 100'><text y='50' style='font-size: 20px'>small</text></svg>"
    ),
    "method without a diagram": (
        "<section id='the-methods'><section><p><strong>A</strong> method.</p><p>"
        "<strong>B</strong>, another.</p><figure class='fgbook-diagram'></figure>"
        "</section></section>"
    ),
    "diagram cut": (
        "<figure class='fgbook-diagram'><div style='overflow: auto' tabindex='0'>"
        f"{WIDE.replace('td>', 'b>')}</div></figure>"
    ),
    "number not reachable by keyboard": "<span class='fgbook-measured'>1.0</span>",
    "link to a file that is not there": "<a href='nowhere.html'>nowhere</a>",
    "link to a place that is not there": "<a href='#nowhere'>nowhere</a>",
    "axe button-name (critical)": "<button></button>",
    "axe color-contrast (serious)": "<p class='dim'>Dark, where the page is.</p>",
}


@pytest.fixture(scope="module")
def chromium():
    """The browser's path; where it or what drives it is missing, `make check-book`
    says so.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path or not DRIVEN:
        pytest.skip("no Chromium, or the extra `check` is not installed")
    return path


def book(where: Path, pages: dict[str, str]) -> Path:
    (where / "book").mkdir(parents=True)
    (where / "index.html").write_text(PAGE.format("<p>The first page.</p>"))
    for name, body in pages.items():
        (where / "book" / f"{name}.html").write_text(PAGE.format(body))
    return where


def check(html: Path, *words: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [*COMMAND, str(html), *words], capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_each_fault_is_found_on_its_page_and_no_fault_elsewhere(tmp_path, chromium):
    html = book(tmp_path, {"faults": "\n".join(FAULTS.values())})
    status, lines, said = check(html, "--chromium", chromium)
    assert status == 1, said
    for what in FAULTS:
        assert [x for x in lines if f"| {what} |" in x and "book/faults" in x], (
            what,
            lines,
        )
    dim = [line for line in lines if "color-contrast" in line and "dim" in line]
    assert len(dim) == 2  # on both screens
    assert all(" dark |" in line for line in dim)
    assert not [line for line in lines if line.startswith("index |")]


def test_a_missing_browser_is_said_in_one_sentence(tmp_path):
    if not DRIVEN:
        pytest.skip("the extra `check` is not installed")
    html = book(tmp_path, {})
    status, lines, said = check(html, "--chromium", str(tmp_path / "none"))
    assert (status, lines) == (1, [])
    assert "none is not there; install it" in said
    assert len(said.strip().splitlines()) == 1


def test_a_missing_book_is_said_in_one_sentence(tmp_path):
    status, _, said = check(tmp_path / "html")
    assert status == 1
    assert said.strip().endswith("make it: make reproduce")
