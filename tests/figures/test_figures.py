"""Tables and figures: what they say, and that changing a test-time setting changes
nothing else."""

import html
import re
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from fgbook import figures, methods, papers
from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.recipe import Recipe

RECIPE = Recipe(image_size=48, store_size=52, backbone="small", weights="none")


@pytest.fixture(scope="module")
def focus():
    torch.manual_seed(0)
    return methods.build("focus", 5, RECIPE, {}).eval()


def some(count: int) -> DataSet:
    images = torch.randint(
        0,
        256,
        (count, 3, 52, 52),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    boxes = torch.tensor([[5.0, 6.0, 40.0, 41.0]]).repeat(count, 1)
    split = Split(
        images, torch.arange(count) % 5, [f"{i}.png" for i in range(count)], boxes
    )
    return DataSet(
        "some", [f"class <{k}>" for k in range(5)], 52, "0", split, split, split
    )


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
    assert all(
        torch.equal(value, before[name]) for name, value in focus.state_dict().items()
    )


def test_a_variant_refuses_what_was_not_trained(focus):
    with pytest.raises(InputError, match="trained with 4"):
        figures.variant(focus, l=5)
    with pytest.raises(InputError, match="threshold"):
        figures.variant(focus, treshold=0.5)


def test_images_are_spread_over_the_split_and_never_beyond():
    for count, length in ((1, 1), (3, 10), (10, 10), (20, 7), (4, 500)):
        index = figures.spread(
            some(1).test.subset(torch.zeros(length, dtype=torch.long)), count
        )
        assert (
            len(index) == min(count, length) == len(set(index.tolist()))
            and 0 <= index.min()
            and index.max() < length
        )
        gaps = index.diff()
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_light_follows_the_map():
    looks = SimpleNamespace(first=0.5, stride=4)  # cells at pixels 0 and 4
    lit = figures._lit(
        torch.ones(3, 8, 8), torch.tensor([[0.0, 1.0], [0.0, 1.0]]), looks
    )
    assert (
        lit[0, 0, 0] == 0.125
        and lit[0, 0, 2] == pytest.approx(0.5625)
        and (lit[0, :, 4:] == 1).all()
        and (lit[0].diff(dim=1) >= 0).all()
    )
    # a flat map
    assert (
        figures._lit(torch.ones(3, 8, 8), torch.full((2, 2), 3.0), looks)
        .isfinite()
        .all()
    )


def test_figures_of_a_model_are_pictures_with_text(focus):
    data = some(7)
    for shown in (
        figures.attention_figure(focus, data, RECIPE, 2),
        figures.regions_figure(focus, data, RECIPE, 4),
    ):
        source, alt = re.search(
            r'<img src="(data:image/png;base64,[^"]+)" alt="([^"]+)"', shown.html
        ).groups()
        assert len(source) > 5000 and len(alt) > 40 and "<figcaption>" in shown.html
    # names of classes are text, never markup
    assert "class &lt;" in figures.attention_figure(focus, data, RECIPE, 2).html


def test_a_figure_without_text_is_refused():
    for alt, caption in (("", "what it means"), ("what is seen", " ")):
        with pytest.raises(ValueError, match="alternative text"):
            figures.figure(Figure(), alt, caption)


def test_names_from_records_are_text_never_markup():
    assert "<script>" not in figures.measured("1.0", "top1", [{"key": '"><script>'}])
    record = {"key": "k", "command": "fgbook run feng --dataset 'folder:<b>'"}
    shown = figures.table([{"a": "1"}], "<i>caption</i>", [record])
    assert (
        "<b>" not in shown.html
        and "<i>" not in shown.html
        and html.escape(record["command"]) in shown.html
    )


def test_nothing_run_yet_is_said_everywhere():
    paper = papers.get("feng")
    for shown in (
        figures.accuracy_table(paper, []),
        figures.verdict_table(paper, []),
        figures.hits_table([]),
        figures.tuning_table([]),
    ):
        assert "not run" in shown.html.lower() and "fgbook-measured" not in shown.html
    assert "not measured yet" in figures.effects_figure(paper, []).html
    assert "Not run here" in figures.printed_table(paper.tables[0], []).html


def test_printed_numbers_are_the_papers():
    paper = papers.get("feng")
    shown = re.sub(r"<[^>]+>", " ", figures.printed_table(paper.tables[0], []).html)
    for cells in paper.tables[0].cells.values():
        for value in cells:
            assert value is None or f"{value:.1f}" in shown
    cells = re.findall(r"<td>(\d\d\.\d)</td>", figures.accuracy_table(paper, []).html)
    assert cells == [f"{paper.printed(row.name, 'cub'):.1f}" for row in paper.rows]


def test_settings_are_the_recipes():
    paper = papers.get("feng")
    shown = figures.recipe_table(paper)
    line = next(
        line for line in shown.text.splitlines() if line.split()[:1] == ["image_size"]
    )
    assert line.split()[1:] == [
        str(paper.row("plain").recipes[profile].image_size)
        for profile in ("quick", "photo", "paper")
    ]


def test_curves_state_their_values():
    shown = figures.sweep_figure(
        [("m", "share", {"regions": {1: 0.25, 2: 0.5}}, 1)], "caption"
    )
    assert "share against m (regions): 1: 0.25, 2: 0.5." in html.unescape(shown.html)


def test_regions_can_be_told_apart_without_colour():
    assert (
        len({line for _, line in figures.REGION_STYLES})
        == len(figures.REGION_STYLES)
        == 4
    )


def test_the_verdict_table_has_a_column_for_the_metric_only_where_metrics_differ():
    heads = lambda key: re.findall(
        r"<th>([^<]*)</th>", figures.verdict_table(papers.get(key), []).html
    )
    common = ["printed", "measured", "95 % interval", "seeds", "verdict", "why"]
    assert heads("feng") == ["claim", *common] and heads("peng") == [
        "claim",
        "metric",
        *common,
    ]
