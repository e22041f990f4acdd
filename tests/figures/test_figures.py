"""Tables and figures: what they say, and that changing a test-time setting changes
nothing else.
"""

import html
import re
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from fgbook import figures, methods, papers, paths
from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.figures import (
    base,
    curves,
    gautam,
    pages,
    photos,
    pretraining,
    regions,
    vector,
)
from fgbook.recipe import Recipe

RECIPE = Recipe(image_size=48, store_size=52, backbone="small", weights="none")


@pytest.fixture(scope="module")
def focus():
    torch.manual_seed(0)
    return methods.build("focus", 5, RECIPE, {}).eval()


def some(count: int) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, 52, 52)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 5
    boxes = torch.tensor([[5.0, 6.0, 40.0, 41.0]]).repeat(count, 1)
    split = Split(images, labels, [f"{i}.png" for i in range(count)], boxes)
    classes = [f"class <{k}>" for k in range(5)]
    return DataSet("some", classes, 52, "0", split, split, split)


# ---- other settings of a trained model


def test_reading_fewer_regions_equals_features_of_zero(focus):
    images = torch.rand(3, 3, 48, 48)
    fewer = figures.variant(focus, l=2).predict(images)
    silenced = figures.variant(focus)
    with torch.no_grad():
        # image, region 1, region 2 | regions 3 and 4
        silenced.hybrid_head.weight[:, 3 * focus.backbone.channels :] = 0
    assert torch.allclose(fewer, silenced.predict(images), atol=1e-5)
    assert not torch.allclose(fewer, focus.predict(images), atol=1e-5)


def test_a_variant_leaves_the_trained_model_alone(focus):
    before = {name: value.clone() for name, value in focus.state_dict().items()}
    other = figures.variant(focus, l=1, m=9, threshold=0.9, attention="predicted")
    assert other.regions(torch.rand(2, 3, 48, 48)).shape == (2, 9, 4)
    assert (focus.m, focus.l, focus.threshold, focus.attention) == (6, 4, 0.25, "max")
    for name, value in focus.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_variant_refuses_what_was_not_trained(focus):
    with pytest.raises(InputError, match="trained with 4"):
        figures.variant(focus, l=5)


def test_a_variant_refuses_a_setting_that_does_not_exist(focus):
    with pytest.raises(InputError, match="threshold"):
        figures.variant(focus, treshold=0.5)


def test_a_network_without_a_hybrid_head_reads_no_fewer_regions():
    model = methods.build("focus", 5, RECIPE, {"heads": "image"})
    with pytest.raises(InputError, match="hybrid head"):
        figures.variant(model, l=2)
    assert figures.variant(model, m=9).m == 9


# ---- pictures


@pytest.mark.parametrize(
    ("count", "length"), [(1, 1), (3, 10), (10, 10), (20, 7), (4, 500)]
)
def test_images_are_spread_over_the_split_and_never_beyond(count, length):
    split = some(1).test.subset(torch.zeros(length, dtype=torch.long))
    index = figures.spread(split, count)
    assert len(index) == min(count, length)
    assert len(set(index.tolist())) == len(index)
    assert index.min() >= 0
    assert index.max() < length
    gaps = index.diff().tolist()
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


LOOKS = SimpleNamespace(first=0.5, stride=4)  # cells at pixels 0 and 4


def test_light_follows_the_map():
    attention = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    lit = photos.lit(torch.ones(3, 8, 8), attention, LOOKS)
    assert lit[0, 0, 0] == 0.125
    assert lit[0, 0, 2] == pytest.approx(0.5625)  # half way to full light
    assert (lit[0, :, 4:] == 1).all()
    assert (lit[0].diff(dim=1) >= 0).all()


def test_light_of_an_even_map_is_a_number():
    even = torch.full((2, 2), 3.0)
    assert photos.lit(torch.ones(3, 8, 8), even, LOOKS).isfinite().all()


def test_a_true_box_is_drawn_where_evaluation_sees_it():
    data = some(3)  # the box (5, 6, 40, 41) of 52 pixels; 2 are cut off on each side
    assert photos.seen_box(data, 1, RECIPE).tolist() == [3, 4, 38, 39]
    data.test.boxes = None
    assert photos.seen_box(data, 1, RECIPE) is None


@pytest.mark.parametrize("draw", [figures.attention_figure, figures.regions_figure])
def test_figures_of_a_model_are_pictures_with_text(focus, draw):
    shown = draw(focus, some(7), RECIPE)
    (name,) = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', shown.html)
    assert 40 < len(name) <= 300
    pictures = re.findall(r'"data:image/webp;base64,([^"]+)"', shown.html)
    assert sum(map(len, pictures)) > 5000
    assert "<figcaption>" in shown.html


def test_names_of_classes_are_text_never_markup(focus):
    shown = figures.attention_figure(focus, some(7), RECIPE, 2)
    assert "class &lt;" in shown.html
    assert "class <" not in shown.html


@pytest.mark.parametrize(
    ("alt", "caption"), [("", "what it means"), ("what is seen", " ")]
)
def test_a_figure_without_text_is_refused(alt, caption):
    with pytest.raises(ValueError, match="alternative text"):
        figures.figure(Figure(), alt, caption)


def drawn(*points: float) -> Figure:
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.plot(points, color=base.OKABE_ITO["ink"], marker="o", clip_on=True)
    axes.set_title("a title", fontsize=8)
    return figure


def test_a_figure_has_the_colours_of_its_page():
    with base.styled():
        shown = figures.figure(drawn(1, 2), "a line that rises", "It rises.").html
    assert "currentColor" in shown
    assert vector.INK not in shown
    assert "#ffffff" not in shown.lower()  # no ground of its own
    assert "<style" not in shown  # it would hold for the whole page
    assert re.search(r"<text[^>]*>a title</text>", shown)


def test_figures_of_one_page_share_no_names():
    with base.styled():
        one, other, again = (
            figures.figure(drawn(*points), "a line", "A line.").html
            for points in ((1, 2), (2, 1), (1, 2))
        )
    names = set(re.findall(r' id="([^"]+)"', one))
    assert names
    assert names == set(re.findall(r'(?:url\(|href=")#([^")]+)', one))
    assert not names & set(re.findall(r' id="([^"]+)"', other))
    assert one == again


def test_text_is_never_smaller_than_a_phone_can_show():
    """8 points of a figure as wide as its column: 11 px where it is 11/8 as wide."""
    with base.styled():
        wide = Figure(figsize=(5, 1))
        wide.text(0, 0, "left", fontsize=8)
        wide.text(1, 0, "right", fontsize=8, ha="right")
        shown = figures.figure(wide, "two words", "Two words.").html
    (box,) = re.findall(r'viewBox="0 0 ([\d.]+) ', shown)
    (least,) = re.findall(r"min-width:(\d+)px", shown)
    assert int(least) == pytest.approx(float(box) * 11 / 8, abs=1)


@pytest.mark.parametrize(
    ("alt", "name"),
    [
        ("Short.", "Short."),
        (
            f"A first sentence. {'B' * 90}. {'c' * 300}",
            f"A first sentence. {'B' * 90}.",
        ),
        (f"Values: {'1.0, ' * 80}", f"Values: {'1.0, ' * 57}1.0 …"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_a_long_description_is_a_name_and_a_fold(alt, name):
    shown = figures.figure(Figure(figsize=(1, 1)), alt, "What it means.").html
    assert f'aria-label="{name}"' in shown
    assert (f"<p>{alt}</p></details>" in shown) == (alt != name)


# ---- tables


def test_keys_from_records_are_text_never_markup():
    assert "<script>" not in figures.measured("1.0", "top1", [{"key": '"><script>'}])


def test_commands_from_records_are_text_never_markup():
    record = {"key": "k", "command": "fgbook run feng --dataset 'folder:<b>'"}
    shown = figures.table([{"a": "1"}], "<i>caption</i>", [record])
    assert "<b>" not in shown.html
    assert "<i>" not in shown.html
    assert html.escape(record["command"]) in shown.html


def test_a_table_reads_as_text_where_there_is_no_html():
    cell = figures.measured("1.0", "top1", [{"key": "k"}])
    shown = figures.table([{"a <b>": cell, "c": "1 &lt; 2"}], "caption")
    assert shown.text.splitlines()[0] == "caption"
    assert shown.text.splitlines()[-1].split() == ["1.0", "1", "<", "2"]


FENG = papers.get("feng")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.accuracy_table(FENG, []),
        lambda: figures.verdict_table(FENG, []),
        lambda: figures.hits_table([]),
        lambda: figures.tuning_table([]),
    ],
    ids=["accuracy", "verdict", "hits", "tuning"],
)
def test_tables_say_that_nothing_was_run(draw):
    shown = draw()
    assert "not run" in shown.html.lower()
    assert "fgbook-measured" not in shown.html


def test_a_forest_plot_without_runs_says_so():
    assert "not measured yet" in figures.effects_figure(FENG, []).html


def test_a_printed_table_without_runs_says_so():
    assert "Not run here" in figures.printed_table(FENG.tables[0], []).html


def test_a_printed_table_holds_the_papers_numbers():
    shown = figures.printed_table(FENG.tables[0], []).html
    shown = re.sub(r"<[^>]+>", " ", shown)
    for cells in FENG.tables[0].cells.values():
        for value in cells:
            assert value is None or f"{value:.1f}" in shown


def test_printed_numbers_stand_beside_their_rows():
    shown = figures.accuracy_table(FENG, []).html
    cells = re.findall(r"<td>(\d\d\.\d)</td>", shown)
    printed = [FENG.printed(row.name, "cub") for row in FENG.rows]
    assert printed.count(None) == 1  # the probe is ours
    assert cells == [f"{value:.1f}" for value in printed if value is not None]


def test_a_data_set_that_the_paper_does_not_have_has_no_printed_column():
    assert "printed" not in figures.accuracy_table(FENG, [], None).html


def test_settings_are_the_recipes():
    lines = [line.split() for line in figures.recipe_table(FENG).text.splitlines()]
    line = next(words for words in lines if words[:1] == ["image_size"])
    recipes = FENG.row("plain").recipes
    sizes = [str(recipes[p].image_size) for p in ("quick", "photo", "paper")]
    assert line[1:] == sizes


def heads(paper):
    return re.findall(r"<th>([^<]*)</th>", figures.verdict_table(paper, []).html)


@pytest.mark.parametrize(
    ("key", "first"), [("feng", ["claim"]), ("peng", ["claim", "metric"])]
)
def test_a_column_tells_the_metric_only_where_metrics_differ(key, first):
    common = ["verdict", "measured", "95 % interval", "printed", "seeds × images"]
    assert heads(papers.get(key)) == [*first, *common, "spread", "why"]


def test_a_column_for_printed_effects_stands_only_where_some_are():
    assert "printed" not in heads(papers.get("gautam"))


# ---- curves


def test_what_has_no_image_head_has_no_curve(monkeypatch):
    """Such as the first stage of SimSiam, which reads no labels."""
    line = {"epoch": 1, "val_top1": None, "losses": {"similarity": -0.2}}
    monkeypatch.setattr(curves, "unchanged", list)
    monkeypatch.setattr(curves, "read_log", lambda record: [line])
    record = {"row": "simsiam-first", "seed": 0}
    shown = curves.curves_figure([record])
    assert "image head or was validated" in shown.text


def test_curves_state_their_values():
    panel = ("m", "share", {"regions": {1: 0.25, 2: 0.5}}, 1)
    shown = figures.sweep_figure([panel], "caption")
    assert "share against m (regions): 1: 0.25, 2: 0.5." in html.unescape(shown.html)


def test_regions_can_be_told_apart_without_colour():
    lines = {line for _, line in figures.REGION_STYLES}
    assert len(lines) == len(figures.REGION_STYLES) == 4


# ---- records with other options of the method

GAUTAM = papers.get("gautam")


@pytest.mark.parametrize(
    "draw",
    [
        lambda found: figures.accuracy_table(GAUTAM, found),
        lambda found: figures.verdict_table(GAUTAM, found),
        lambda found: figures.effects_figure(GAUTAM, found),
        lambda found: gautam.scores_table(GAUTAM, found),
        lambda found: gautam.components_table(found),
        lambda found: gautam.components_figure(found),
        lambda found: gautam.damage_table(GAUTAM, found),
        lambda found: gautam.fractions_table(found),
        lambda found: gautam.margins_table(GAUTAM, found),
        lambda found: pretraining.scores_table(GAUTAM, ("plain",), found),
    ],
    ids=[
        "accuracy",
        "verdict",
        "effects",
        "scores",
        "components",
        "components-figure",
        "damage",
        "fractions",
        "margins",
        "pretraining",
    ],
)
def test_a_run_with_other_options_stands_for_no_row(make, draw):
    found = [make("plain", seed, 0.4, margin=0.3) for seed in (0, 1)]
    found += [make("attention", seed, 0.6, margin=0.5) for seed in (0, 1)]
    changed = make("attention", 0, 0.9, margin=0.9, option_changes={"start": 1.0})
    assert draw([*found, changed]).html == draw(found).html


def test_a_run_whose_options_are_the_papers_counts(make):
    older = make("plain", 0, 0.4)  # from before the field
    newer = make("plain", 1, 0.4, option_changes={})
    shown = figures.accuracy_table(GAUTAM, [older, newer])
    assert older["key"] in shown.html
    assert newer["key"] in shown.html


def test_a_try_tells_its_options(make):
    metrics = {"val": {"top1": 0.5}}
    changes = {"option_changes": {"start": 1.0}, "overrides": {"lr": 0.1}}
    tried = make("attention", 0, 0.5, metrics=metrics, **changes)
    assert "lr = 0.1, start = 1.0" in figures.tuning_table([tried]).html


def test_the_try_that_a_row_has_taken_is_marked(make, lines):
    """Whatever it trains on, and with a loss's usual weight written out or not."""
    recipe = GAUTAM.row("triplet").recipes["photo"].but(train_on="train")
    found = []
    for seed, weights in enumerate([(("triplet", 1.0),), (("triplet", 0.3),)]):
        tried = recipe.but(loss_weights=weights).as_dict()
        metrics = {"val": {"top1": 0.5 + 0.1 * seed}}
        changes = {"overrides": {"loss_weights": weights}, "metrics": metrics}
        found.append(make("triplet", seed, 0.5, recipe=tried, **changes))
    shown = figures.tuning_table(found)
    marks = re.findall(r"<tr>\s*<td>triplet.*?</tr>", shown.html, re.S)
    assert ["chosen" in mark for mark in marks] == [False, True]  # best first
    assert "Tries: triplet 2." in shown.text


RANKS = {
    "hit_object_by_rank": [0.9, 0.5],
    "hit_object_random_by_rank": [0.7, 0.6],
    "hit_part_by_rank": [0.8, 0.4],
    "hit_part_random_by_rank": [0.3, 0.2],
}


def test_where_each_region_lies_and_how_losses_fell(make, lines):
    found = [make("plain", seed, 0.5, localisation=RANKS) for seed in range(2)]
    losses = [{"image": 3.0}, {"image": 1.0}], [{"image": 5.0}, {"image": 2.0}]
    for record, of_epochs in zip(found, losses, strict=True):
        record["train"] = {**record["train"], "losses": of_epochs}
    table = lines(regions.ranks_table(found))
    assert list(table["2"].values()) == ["2", "0.50", "0.60", "0.40", "0.20"]
    table = lines(curves.losses_table(found))
    assert list(table["image"].values()) == ["image", "4.00", "1.50"]
    assert regions.ranks_table([]).text == curves.losses_table([]).text


def test_hits_say_what_can_be_compared(make):
    measures = {}
    for name in ("hit_object", "hit_object_random"):
        measures |= {name: 0.5, f"{name}_low": 0.4, f"{name}_high": 0.6}
    found = [make("plain", seed, 0.5, localisation=measures) for seed in range(2)]
    one, two = (figures.hits_table(found[:n]).text for n in (1, 2))
    assert "with 95 % intervals over these" in one
    assert "interval" not in two
    for said in (one, two):
        assert "Compare within a line" in said
        assert "any of CUB's fifteen parts" in said


def test_the_first_lines_of_the_book_name_the_repository():
    lines = pages.piece("clone").text.splitlines()
    assert lines[0] == f"git clone {paths.address()}"
    assert lines[2:] == ["make reproduce", "source .venv/bin/activate"]


def test_numbers_that_are_read_keep_their_digits():
    """What says where something is, in tags, is cut to 1/100 point; nothing else is."""
    drawn = Figure()
    drawn.subplots().set(xticks=[0.125], yticks=[], title="0.98765 of them")
    text = vector.svg(drawn, "a value of 0.02243")
    assert 'aria-label="a value of 0.02243"' in text
    read = re.sub(r"<[^>]+>", " ", text)
    assert "0.98765 of them" in read
    assert "0.125" in read
    _, _, behind = text.partition(">")  # the opening tag
    tags = "".join(re.findall(r"<[^>]+>", behind))
    assert re.search(r"\d\.\d\d", tags)
    assert not re.search(r"\d\.\d{3}", tags)
