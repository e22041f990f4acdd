"""The comparison's tables and figures from records made by hand, and boxes as drawn."""

import html
import re
from itertools import pairwise

import pytest
import torch

import samples
from fgbook import methods, papers
from fgbook.errors import InputError
from fgbook.evidence import verdicts
from fgbook.explain import boxes_of
from fgbook.figures import compare as drawing
from fgbook.papers import compare
from fgbook.recipe import Recipe

PAPER = papers.get("compare")


@pytest.fixture
def of(make):
    """of(row, seed, quality) -> a record of a row of the comparison."""

    def one(name, seed, quality, profile="photo"):
        row = PAPER.row(name)
        fields = {"damage": False, "profile": profile, "command": f"run {name}"}
        record = make("plain", seed, quality, **fields)
        about = {
            "paper": "compare",
            "row": name,
            "method": row.method,
            "options": row.options,
            "recipe": row.recipes[profile].as_dict(),
        }
        return record | about

    return one


def test_the_table_has_a_line_for_every_row_of_the_profile(of, lines):
    found = [of("plain", 0, 0.5), of("plain", 1, 0.5), of("pmg", 0, 0.7)]
    shown = drawing.field_table(PAPER, found, {"pmg": 12.34})
    table = lines(shown)
    assert "ms to predict" in shown.html
    assert table["PMG"]["ms to predict"] == "12.3"
    assert table["plain backbone"]["ms to predict"] == "–"  # not timed
    assert list(table) == [row.title for row in PAPER.rows_at("photo")]
    assert table["PMG"]["printed, %"] == "89.6 (ResNet-50)"
    assert table["PMG"]["family"] == "jigsaw"
    assert table["PMG"]["passes"] == f"{compare.PASSES['pmg']:g}"
    assert table["plain backbone"]["seeds"] == "2"
    assert table["DCL"]["measured, %"] == "not run"


def test_nothing_printed_stands_beside_drawn_birds(of):
    shown = drawing.field_table(PAPER, [of("plain", 0, 0.5, "quick")], {}).html
    assert "printed" not in shown
    assert "89.6" not in shown
    assert "fgbook-illustration" in shown


def test_without_records_every_method_is_not_run(lines):
    table = lines(drawing.field_table(PAPER, [], {}))
    assert {line["measured, %"] for line in table.values()} == {"not run"}
    assert drawing.field_figure(PAPER, []).text.endswith("not run yet.")


def test_in_short_are_the_plain_row_the_probe_and_the_range_of_the_others(of):
    qualities = {"probe": 0.4, "plain": 0.5, "pmg": 0.7, "dcl": 0.2, "cal": 0.6}
    found = [of(name, 0, quality, "quick") for name, quality in qualities.items()]
    shown = drawing.in_short(PAPER, found)
    reached = {
        record["row"]: f"{100 * verdicts.per_image(record, 'top1').mean():.1f}"
        for record in found
    }
    assert f"plain backbone {reached['plain']} %" in shown.text
    assert f"linear probe on frozen features {reached['probe']} %" in shown.text
    assert f"3 other rows lie between {reached['dcl']} and {reached['pmg']} %" in (
        shown.text
    )
    assert "fgbook-illustration" in shown.html
    photo = [of("plain", 0, 0.5)]
    assert "fgbook-illustration" not in drawing.in_short(PAPER, photo).html
    assert drawing.in_short(PAPER, []).text == "Not run yet."


def test_what_is_above_the_plain_row_is_said(of):
    def said(qualities):
        rows = [of(name, s, q) for name, q in qualities.items() for s in range(3)]
        return drawing.so_far(PAPER, rows).text

    rows = len(PAPER.rows_at("photo"))
    below = said({"plain": 0.9, "pmg": 0.5, "dcl": 0.4})
    assert f"PMG and DCL (3 of {rows} rows)" in below or (
        f"DCL and PMG (3 of {rows} rows)" in below
    )
    assert "None of them names more test images rightly" in below
    above = said({"plain": 0.2, "pmg": 0.95, "dcl": 0.1})
    assert "In the mean above it: PMG; of these beyond chance: PMG." in above
    assert "None of these methods" in said({"plain": 0.5})


def test_images_seen_are_those_of_all_epochs(of):
    record = of("plain", 0, 0.5)
    record["images"]["train"] = 10
    assert drawing.images_seen(record) == 60
    assert drawing.images_seen(record | {"method": "probe"}) == 10


def texts(shown):
    caption = re.findall(r"<figcaption>(.*?)</figcaption>", shown.html)[0]
    return samples.words(shown), html.unescape(caption)


def test_the_figure_says_what_is_highest_and_costliest(of):
    found = [of("plain", 0, 0.4), of("pmg", 0, 0.9), of("cal", 0, 0.5)]
    found[2]["flops"] = 3 * 10**9
    shown = drawing.field_figure(PAPER, found)
    alt, caption = texts(shown)
    assert "3 methods" in alt
    rows = len(PAPER.rows_at("photo"))
    assert f"of 3 methods over their cost; {rows - 3} of {rows} are not run" in caption
    assert "cub50: 3 classes" in caption and "1 seed" in caption
    assert "thousand million" in caption
    assert re.search(r"costliest: pmg, \d+\.\d % at 1 GFLOP; cal, .* 3 GFLOP", alt)
    assert len(alt) <= 300
    # what the shapes mean: of the families that are there, those alone
    names = set(re.findall(r"<text[^>]*>(\w+)</text>", shown.html))
    assert names & drawing.LOOKS.keys() == {"plain", "jigsaw", "attention"}


@pytest.mark.parametrize(
    "places", [[0.1, 0.11, 0.12], [0.9, 0.95, 0.99], [0.5] * 8, [0.0, 1.0], [0.3]]
)
def test_names_keep_their_order_and_their_distance(places):
    moved = drawing.spaced(places, 0.1)
    gaps = [b - a for a, b in pairwise(moved)]
    assert all(gap >= 0.1 - 1e-9 for gap in gaps)
    assert max(moved) <= 1
    assert min(moved) >= 0
    if len(places) == 1:
        assert moved == places


LOOKING = ("ra-cnn", "ma-cnn", "partnet", "nts-net", "mmal", "focus", "cal")


@pytest.mark.parametrize("name", LOOKING)
def test_boxes_of_every_method_that_looks_lie_inside_the_image(name):
    row = PAPER.row(name)
    torch.manual_seed(0)
    recipe = Recipe(backbone="small", weights="none", image_size=73)
    model = methods.build(row.method, 3, recipe, row.options).eval()
    with torch.no_grad():
        boxes = boxes_of(model, torch.rand(2, 3, 73, 73))
    assert boxes.shape[0] == 2
    assert boxes.shape[2] == 4
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert boxes.min() >= -1e-3
    assert boxes.max() <= 73 + 1e-3


def test_a_method_that_looks_at_no_regions_is_named():
    recipe = Recipe(backbone="small", weights="none", image_size=40)
    model = methods.build("plain", 3, recipe, {})
    assert boxes_of(model, torch.rand(2, 3, 40, 40)) is None
    with pytest.raises(InputError, match="plain cuts out no boxes"):
        drawing.looks_figure({"plain": model}, samples.spots(4, 2, 2), recipe, 1)
