"""Pieces to play with, in a browser: moved by keyboard, and standing still without
scripts.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from fgbook import paths, widgets

SCRIPT = paths.REPOSITORY / "book" / "_static" / "play.js"


@pytest.fixture(scope="module")
def browser():
    """A Chromium to open windows of; where it or what drives it is missing, `make
    check-book` says so.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path or not find_spec("playwright"):
        pytest.skip("no Chromium, or the extra `check` is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page on disk with the piece on verdicts, and the script before it, as in the
    book.
    """
    piece = widgets.page("verdict", widgets.verdicts.piece()).html
    where = tmp_path_factory.mktemp("page")
    shutil.copy(SCRIPT, where)
    path = where / "page.html"
    path.write_text(
        '<!DOCTYPE html><html lang="en"><head><title>A page</title>'
        f'<script src="{SCRIPT.name}"></script></head><body>{piece}</body></html>'
    )
    return path


def frame(settings):
    return widgets.verdicts.piece().frame(**settings)


def test_controls_are_moved_by_keyboard_and_the_frame_follows(browser, page):
    tab = browser.new_page()
    faults = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto(page.as_uri())
    told = tab.locator(".fgbook-told")
    settings = widgets.verdicts.piece().start()
    assert told.inner_text() == frame(settings).says

    tab.keyboard.press("Tab")
    slider = tab.get_by_label("spread of trainings")
    assert slider.evaluate("one => one === document.activeElement")
    tab.keyboard.press("Home")
    settings["spread"] = widgets.verdicts.SPREADS[0]
    assert told.inner_text() == frame(settings).says
    assert slider.get_attribute("aria-valuetext") == "0.3"

    tab.get_by_label("seeds of each row").focus()
    for _ in range(2):
        tab.keyboard.press("ArrowRight")
    tab.get_by_label("effect, points").focus()
    tab.keyboard.press("End")
    settings |= {"seeds": 5, "effect": widgets.verdicts.EFFECTS[-1]}
    assert told.inner_text() == frame(settings).says
    name = tab.locator(".fgbook-stage svg").get_attribute("aria-label")
    assert f'aria-label="{name}"' in frame(settings).shown
    assert faults == []
    tab.close()


def test_without_scripts_the_first_frame_stands_and_no_control(browser, page):
    window = browser.new_context(java_script_enabled=False)
    tab = window.new_page()
    tab.goto(page.as_uri())
    first = frame(widgets.verdicts.piece().start())
    assert tab.locator(".fgbook-told").inner_text() == first.says
    drawn = tab.locator(".fgbook-stage svg")
    assert drawn.is_visible()
    assert drawn.bounding_box()["height"] > 20
    assert not tab.locator(".fgbook-controls").is_visible()
    window.close()


def test_menus_and_boxes_choose_too(browser, tmp_path):
    """And pictures that several frames share are drawn in all of them."""
    import torch

    from fgbook.widgets.piece import Choice, Frame, Piece
    from fgbook.widgets.tiles import Picture, Tile, tiles

    picture = Picture(torch.rand(3, 16, 16))

    def draw(name, bold):
        return Frame(tiles([Tile(picture, f"the {name}")], 1), f"{name} {bold}")

    names = Choice("name", "which", ("one", "two"), "one")
    bold = Choice("bold", "in bold", (False, True), False)
    piece = widgets.page("toy", Piece("toy", "A toy.", (names, bold), draw)).html
    path = tmp_path / "page.html"
    path.write_text(f"<body>{piece}<script>{SCRIPT.read_text()}</script></body>")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.get_by_label("in bold").focus()
    tab.keyboard.press("Space")
    assert tab.locator(".fgbook-told").inner_text() == "one True"
    tab.get_by_label("which").select_option("two")
    assert tab.locator(".fgbook-told").inner_text() == "two True"
    drawn = tab.locator(".fgbook-stage use")
    assert drawn.bounding_box()["height"] > 100
    tab.close()
