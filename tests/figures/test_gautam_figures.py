"""Tables and figures of the chapter on paper C, from records made by hand."""

import re

import numpy as np
import pytest

from fgbook import papers
from fgbook.evidence import records, verdicts
from fgbook.figures import gautam as drawing
from fgbook.images import corruptions
from fgbook.papers import gautam

PAPER = papers.get("gautam")


def of_row(found, row):
    return [record for record in found if record["row"] == row]


def seeds(found):
    return [record["seed"] for record in found]


def title(row):
    return PAPER.row(row).title


# ---- ablation


@pytest.fixture
def two_rows(make):
    """Two seeds of plain (0.5) and all (0.8)."""
    found = [make("plain", seed, 0.5) for seed in (0, 1)]
    return found + [make("all", seed, 0.8) for seed in (0, 1)]


def test_the_whole_ablation_is_listed_run_or_not(two_rows, lines):
    table = lines(drawing.scores_table(PAPER, two_rows))
    assert list(table) == [title(name) for name in gautam.MAIN]
    assert table["mixup"]["accuracy, measured %"] == "not run"


@pytest.mark.parametrize(("row", "quality"), [("plain", 0.5), ("all", 0.8)])
def test_scores_are_those_of_the_records(two_rows, lines, values, row, quality):
    line = lines(drawing.scores_table(PAPER, two_rows))[title(row)]
    accuracy = 100 * values(two_rows, row, "top1").mean()
    assert line["accuracy, measured %"] == f"{accuracy:.1f}"
    assert line["seeds"] == "2"
    for name, part in (
        ("precision", 2),
        ("recall", 3),
        ("F1", 4),
        ("calibration error", 5),
    ):
        assert line[f"{name}, measured %"] == f"{100 * quality / part:.1f}"
    loss = -values(two_rows, row, "nll").mean()
    assert line["cross-entropy, measured nats"] == f"{loss:.2f}"


def test_of_quick_runs_only_what_was_run_is_shown(make, lines):
    shown = drawing.scores_table(PAPER, [make("plain", 0, 0.5, profile="quick")])
    assert list(lines(shown)) == ["plain backbone"]
    assert "illustration" in shown.html


def test_an_ablation_that_was_not_run_says_so():
    assert "not run" in drawing.scores_table(PAPER, []).html


@pytest.fixture
def components(make):
    """Three seeds of rows that tell what mixup adds, alone and last."""
    found = []
    for row, quality in (
        ("plain", 0.4),
        ("mixup", 0.6),
        ("all", 0.9),
        ("no-mixup", 0.7),
        ("attention", 0.5),
    ):
        found += [make(row, seed, quality) for seed in (0, 1, 2)]
    return found


def test_each_component_has_a_line(components, lines):
    assert list(lines(drawing.components_table(components))) == [
        "attention",
        "mixup",
        "cutmix",
        "smoothing",
        "rotation",
        "triplet",
    ]


@pytest.mark.parametrize(
    ("cell", "better", "worse"),
    [
        ("alone, measured", "mixup", "plain"),
        ("added to all others, measured", "all", "no-mixup"),
    ],
)
def test_components_alone_and_last(components, lines, values, cell, better, worse):
    gain = values(components, better, "top1") - values(components, worse, "top1")
    table = lines(drawing.components_table(components))
    assert table["mixup"][cell] == f"{100 * gain.mean():+.1f}"


def test_a_component_without_its_rows_is_not_run(components, lines):
    table = lines(drawing.components_table(components))
    assert table["attention"]["added to all others, measured"] == "not run"
    assert table["cutmix"]["alone, measured"] == "not run"


def test_intervals_of_components_are_those_of_the_comparison(components, lines):
    rows = of_row(components, "attention"), of_row(components, "plain")
    alone = verdicts.compare(*rows, among=components)
    interval = f"{alone.low:+.1f} to {alone.high:+.1f}"
    table = lines(drawing.components_table(components))
    assert table["attention"]["95 % interval"] == interval
    said = f"attention, alone: {alone.effect:+.1f} ({interval})"
    assert said in drawing.components_figure(components).html


def test_one_row_alone_is_no_forest_plot(components):
    plain = of_row(components, "plain")
    assert drawing.components_figure(plain) is drawing.NOT_YET


@pytest.fixture
def overlapping(make):
    """Seeds 0 and 1 of plain, 1 and 2 of mixup."""
    found = [make("plain", seed, 0.4) for seed in (0, 1)]
    return found + [make("mixup", seed, 0.7) for seed in (1, 2)]


def test_rows_are_compared_whatever_their_seeds(overlapping):
    about = drawing.difference(overlapping, "mixup", "plain")
    assert seeds(about.better) == [1, 2]
    assert seeds(about.worse) == [0, 1]
    assert about.effect.seeds == 2


def test_rows_that_were_not_measured_are_not_compared(overlapping):
    assert drawing.difference(overlapping, "mixup", "plain", "margin") is None


def test_the_corruption_error_is_over_all_seeds(make, overlapping):
    """Which seeds a row shares with the plain backbone means nothing."""
    found = [*overlapping, make("mixup", 4, 0.6)]
    about = drawing.corruption_error(found, "mixup")
    assert seeds(about.ours) == [1, 2, 4]
    assert seeds(about.plain) == [0, 1]
    assert about.error == pytest.approx(slow_error(found, "mixup"))


# ---- damage


def slow_error(found, row):
    """Mean corruption error by loops over kinds, severities, seeds and images."""

    def wrong(name, kind):
        first = 1 + 5 * list(corruptions.NAMES).index(kind)
        errors = 0
        for record in of_row(found, name):
            damaged = records.load_predictions(record)["damaged"]
            for severity in range(5):
                for right in damaged[first + severity]:
                    errors += not right
        return errors / len(of_row(found, name))

    ratios = [wrong(row, kind) / wrong("plain", kind) for kind in corruptions.NAMES]
    return 100 * sum(ratios) / len(ratios)


@pytest.fixture
def damaged(make, two_rows):
    """The same, and mixup, which was not shown damaged images."""
    return [*two_rows, make("mixup", 0, 0.6, damage=False)]


def test_rows_without_damaged_images_are_left_out(damaged, lines):
    table = lines(drawing.damage_table(PAPER, damaged))
    assert list(table) == ["plain backbone", "all of these"]


@pytest.mark.parametrize("row", ["plain", "all"])
def test_damage_is_that_of_the_records(damaged, lines, values, row):
    line = lines(drawing.damage_table(PAPER, damaged))[title(row)]
    error = slow_error(damaged, row)
    assert line["mean corruption error, measured % of plain"] == f"{error:.1f}"
    for field, name in (
        ("robust", "all damage"),
        ("robust_noise", "noise"),
        ("robust_change", "change by damage"),
    ):
        mean = np.nanmean(values(damaged, row, field))
        assert line[f"{name}, measured"] == f"{mean:.3f}"


def test_answers_have_an_axis_for_seeds(damaged):
    answers = drawing.damaged(damaged, "all")
    assert answers["clean"].shape == (2, 20)
    assert answers["jpeg"].shape == (5, 2, 20)


def test_the_error_by_severity_is_said(damaged):
    answers = drawing.damaged(damaged, "all")
    right = [answers["clean"].mean(), *answers["jpeg"].mean((1, 2))]
    errors = ", ".join(f"{100 - 100 * share:.0f}" for share in right)
    assert f"jpeg, all: {errors}" in drawing.severity_figure(damaged).html


def test_the_effect_on_each_kind_of_damage_is_said(damaged):
    shown = drawing.kinds_figure(damaged).html
    rows = of_row(damaged, "all"), of_row(damaged, "plain")
    one = verdicts.compare(*rows, "robust_contrast", among=damaged)
    effect, low, high = 100 * one.effect, 100 * one.low, 100 * one.high
    assert f"all, contrast: {effect:+.1f} ({low:+.1f} to {high:+.1f})" in shown
    assert "mixup" not in shown


def test_accuracy_under_occlusion_is_said(damaged):
    answers = drawing.damaged(damaged, "all")
    shown = drawing.occlusion_figure(damaged).html
    levels = [answers["clean"], *answers["occlusion"]]
    for covered, right in zip((0, 10, 20, 30, 40, 50), levels, strict=True):
        accuracy = re.escape(f"{100 * right.mean():.1f}")
        assert re.search(rf"all: .*{covered} %: {accuracy} \(", shown)


def test_figures_of_damage_without_records_say_so(damaged):
    assert drawing.severity_figure([]) is drawing.NOT_YET
    assert drawing.kinds_figure(of_row(damaged, "plain")) is drawing.NOT_YET
    assert drawing.occlusion_figure([]) is drawing.NOT_YET


def test_a_table_of_damage_without_records_says_so():
    assert "not run" in drawing.damage_table(PAPER, []).html


def test_a_plain_backbone_without_errors_has_no_relative_error(make, tmp_path):
    perfect = make("plain", 0, 0.5)
    kept = records.load_predictions(perfect)
    kept["damaged"] = kept["damaged"].copy()
    kept["damaged"][6:11] = True
    perfect = records.save(perfect, kept, tmp_path / "perfect.json")
    assert drawing.corruption_error([perfect], "plain") is None


# ---- few images


@pytest.fixture
def fractions(make):
    found = []
    for row, quality in (
        ("plain", 0.6),
        ("plain-quarter", 0.3),
        ("all", 0.9),
        ("all-quarter", 0.6),
        ("all-half", 0.8),
    ):
        found += [make(row, seed, quality) for seed in (0, 1)]
    return found


@pytest.mark.parametrize(("size", "part"), [("0.25", "-quarter"), ("1", "")])
def test_gains_with_fewer_images(fractions, lines, values, size, part):
    line = lines(drawing.fractions_table(fractions))[size]
    plain = values(fractions, f"plain{part}", "top1")
    whole = values(fractions, f"all{part}", "top1")
    assert line["plain, measured %"] == f"{100 * plain.mean():.1f}"
    assert line["all minus plain, measured"] == f"{100 * (whole - plain).mean():+.1f}"


def test_shares_that_were_not_run_say_so(fractions, lines):
    table = lines(drawing.fractions_table(fractions))
    assert list(table) == ["0.1", "0.25", "0.5", "1"]
    assert table["0.5"]["plain, measured %"] == "not run"
    assert table["0.5"]["all minus plain, measured"] == "not run"
    assert table["0.1"]["all, measured %"] == "not run"


def test_a_curve_goes_on_over_what_was_not_run(fractions):
    shown = drawing.fractions_figure(fractions).html
    assert re.search(r"plain: 25 %: .*, 100 %: ", shown)
    assert re.search(r"all: 25 %: .*, 50 %: .*, 100 %: ", shown)
    assert "10 %:" not in shown


def test_no_shares_are_no_curves():
    assert drawing.fractions_figure([]) is drawing.NOT_YET


# ---- margins


def test_margins(make, lines, values):
    found = [make("plain", seed, 0.5, margin=0.4) for seed in (0, 1)]
    found += [make("triplet", seed, 0.5, margin=0.9) for seed in (0, 1)]
    found += [make("mixup", 0, 0.5)]
    table = lines(drawing.margins_table(PAPER, found))
    assert list(table) == ["plain backbone", "triplet loss"]
    plain, triplet = table["plain backbone"], table["triplet loss"]
    assert triplet["between over within, measured"] == "0.900"
    mean = values(found, "triplet", "margin").mean()
    assert triplet["margin, measured"] == f"{mean:.3f}"
    gain = mean - values(found, "plain", "margin").mean()
    assert triplet["margin minus plain's, measured"] == f"{gain:+.3f}"
    assert plain["margin minus plain's, measured"] == "–"


def test_a_ratio_without_a_value_is_a_dash(make, lines):
    record = make("plain", 0, 0.5, margin=0.4)
    record["metrics"]["classes"]["ratio"] = None
    table = lines(drawing.margins_table(PAPER, [record]))
    assert table["plain backbone"]["between over within, measured"] == "–"
