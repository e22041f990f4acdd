"""Any piece, shown: all frames in a page without a kernel, recomputed where somebody
sits before one, and never live where a program executes the notebook.
"""

import json
import re
from html.parser import HTMLParser

import nbformat
import papermill
import pytest
import torch
from jupyter_client.manager import start_new_kernel

from fgbook import widgets
from fgbook.widgets.piece import Choice, Frame, Piece
from fgbook.widgets.tiles import Marks, Picture, Tile, tiles

PICTURES = [Picture(torch.full((3, 8, 8), k / 4)) for k in range(4)]


def frame(size, name, bold):
    """The first picture stands in every frame, another in one size only."""
    marks = [Marks(torch.tensor([[1.0, 1.0, 1.0 + size, 2.0]]), "#123456")]
    two = [
        Tile(PICTURES[0], "always the same picture", marks),
        Tile(PICTURES[size], f"the picture of size {size}", (), (f"<{name}>",)),
    ]
    return Frame(tiles(two, 2), f"size {size} of {name}{' & bold' if bold else ''}")


PIECE = Piece(
    "Something to play with",
    "What is to be seen <here>.",
    (
        Choice("size", "how large", (1, 2, 3), 2, "{} px".format),
        Choice(
            "name", "which one", ("one", "two", "three"), "two", in_page=("one", "two")
        ),
        Choice("bold", "in bold", (False, True), False),
    ),
    frame,
)


class Reader(HTMLParser):
    """Elements with their attributes, outside of templates; templates apart."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.templates, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "template":
            self.inside = True
            self.templates.append(dict(attributes))
        elif not self.inside:
            self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag == "template":
            self.inside = False

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page():
    return widgets.page("toy", PIECE).html


# ---- in a page


def test_a_page_holds_the_frame_of_every_choice_in_the_order_of_the_script(page):
    said = [template["data-says"] for template in Reader(page).templates]
    expected = []
    for size in (1, 2, 3):
        for name in ("one", "two"):  # not three, which is for kernels
            expected += [f"size {size} of {name}", f"size {size} of {name} & bold"]
    assert said == expected


def test_every_control_has_a_label_and_says_its_value(page):
    read = Reader(page)
    fields = read.named("input") + read.named("select")
    assert len(fields) == 3
    labels = {label["for"] for label in read.named("label")}
    assert (
        labels
        == {field["id"] for field in fields}
        == {
            "toy-size",
            "toy-name",
            "toy-bold",
        }
    )
    (slider,) = [field for field in fields if field.get("type") == "range"]
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert slider["aria-valuetext"] == "2 px"
    assert json.loads(slider["data-texts"]) == ["1 px", "2 px", "3 px"]
    assert "<option>one</option><option selected>two</option></select>" in page


def test_without_a_script_the_first_frame_stands_there_and_no_control(page):
    read = Reader(page)
    hidden = [a for _, a in read.elements if a.get("class") == "fgbook-controls"]
    assert "hidden" in hidden[0]
    stage = page.split('<div class="fgbook-stage">')[1].split("</div><p")[0]
    assert "&lt;two&gt;" in stage
    assert 'aria-label="the picture of size 2"' in stage
    assert 'aria-live="polite">size 2 of two</p>' in page
    assert "What is to be seen &lt;here&gt;." in page


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing_of_its_own(page):
    assert "<script" not in page
    assert not re.search(r"\son\w+=", page)
    for address in re.findall(r'(?:href|src)="([^"]*)"', page):
        assert address.startswith(("data:image/webp;", "#toy-")), address


def test_a_picture_of_several_frames_stands_once(page):
    for number, picture in enumerate(PICTURES):
        assert page.count(picture.svg.partition("href")[2]) == 1, number
    names = set(re.findall(r'<use href="#([^"]+)"', page))
    assert names == set(re.findall(r'<image id="([^"]+)"', page))
    assert len(names) == 4


def test_every_tile_has_its_text_and_short_names(page):
    tiles_of_page = re.findall(
        r'<svg viewBox[^>]*role="img" aria-label="([^"]*)"', page
    )
    assert len(tiles_of_page) == 2 * (12 + 1)
    assert all(8 < len(name) <= 300 for name in tiles_of_page)


def test_a_start_without_a_frame_is_refused():
    with pytest.raises(ValueError, match="'three' is not in"):
        Choice("name", "which", ("one", "three"), "three", in_page=("one",))


# ---- live


def test_a_change_of_any_control_makes_its_frame():
    made = []

    def counted(**settings):
        made.append(settings)
        return frame(**settings)

    live = widgets.live(Piece("title", "caption", PIECE.choices, counted))
    slider, menu, box, stage, _ = live.children
    assert made == [PIECE.start()]
    assert [label for label, _ in slider.options] == ["1 px", "2 px", "3 px"]
    for control, value in ((slider, 3), (menu, "three"), (box, True)):
        before = stage.value
        control.value = value
        assert stage.value != before
    assert made[-1] == {"size": 3, "name": "three", "bold": True}
    assert frame(3, "three", True).shown in stage.value
    assert "size 3 of three &amp; bold" in stage.value


def test_what_leaves_no_choice_has_no_control():
    one = Choice("size", "how large", (2,), 2)
    piece = Piece("t", "c", (one,), lambda size: frame(size, "one", False))
    assert len(widgets.live(piece).children) == 2
    assert "<div hidden><label" in widgets.page("one", piece).html


# ---- who is there

CODE = """
from fgbook import widgets
widgets.show("verdict", widgets.verdicts.piece())
"""
WIDGET = "application/vnd.jupyter.widget-view+json"


def test_a_kernel_with_somebody_before_it_shows_the_widget():
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for answers, is_live in ((True, True), (False, False)):
            shown = []

            def note(message, shown=shown):
                if message["msg_type"] == "display_data":
                    shown.append(message["content"]["data"])

            reply = client.execute_interactive(
                CODE, allow_stdin=answers, output_hook=note, timeout=120
            )
            assert reply["content"]["status"] == "ok", reply["content"]
            assert any(WIDGET in data for data in shown) == is_live
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_papermill_gets_the_frames_and_no_widget(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    papermill.execute_notebook(
        tmp_path / "in.ipynb",
        tmp_path / "out.ipynb",
        kernel_name="python3",
        progress_bar=False,
    )
    done = nbformat.read(tmp_path / "out.ipynb", 4)
    (output,) = done.cells[0].outputs
    kinds = {kind.rpartition("/")[2] for kind in output.data}
    assert not any("widget" in kind for kind in output.data), kinds
    shown = next(text for kind, text in output.data.items() if "text/html" in kind)
    assert "".join(shown).count("<template") > 100
