"""Tables and figures of the chapter on paper C, from records made by hand, and costs
against counts by another way."""

import html
import re

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from fgbook import papers
from fgbook.errors import InputError
from fgbook.evaluation import cost, robustness
from fgbook.evaluation.cost import Cost
from fgbook.evidence import records, verdicts
from fgbook.figures import gautam as drawing
from fgbook.images import corruptions

PAPER = papers.get("gautam")
LABELS = np.arange(60) % 3
SEEN = robustness.sample(60, 20).numpy()  # the images that are damaged


@pytest.fixture
def make(tmp_path):
    """make(row, seed, quality, damage=, margin=, profile=) -> a record; `quality` in
    [0, 1] is about its accuracy."""

    def one(row, seed, quality, damage=True, margin=0.0, profile="photo"):
        random = np.random.default_rng([seed, int(1000 * quality), len(row)])
        prediction = np.where(
            random.random(60) < quality, LABELS, (LABELS + 1) % 3
        ).astype(np.uint16)
        kept = {
            "prediction": prediction,
            "label": LABELS.astype(np.uint16),
            "confidence": np.full(60, 0.5, np.float16),
            "nll": random.gamma(2, 1 - quality, 60).astype(np.float32),
        }
        metrics = {
            "val": None,
            "test": {
                "precision": quality / 2,
                "recall": quality / 3,
                "f1": quality / 4,
                "ece": quality / 5,
            },
        }
        if damage:
            right = random.random((61, 20)) < quality
            right[1:6] &= random.random((5, 20)) < 0.5
            right[1::5, 0] = False  # every kind costs something
            kinds = dict(
                zip(
                    corruptions.NAMES, right[1:].reshape(12, 5, 20).mean(1), strict=True
                )
            )
            values = {
                "robust": np.mean(list(kinds.values()), 0),
                **{f"robust_{kind}": share for kind, share in kinds.items()},
            }
            values |= {
                f"robust_{group}": np.mean([kinds[kind] for kind in of], 0)
                for group, of in robustness.GROUPS.items()
            }
            values["robust_change"] = values["robust"] - right[0]
            for name, value in values.items():
                kept[name] = np.full(60, np.nan, np.float32)
                kept[name][SEEN] = value
            kept["damaged"] = right
        if margin:
            kept["margin"] = (margin + random.normal(0, 0.1, 60)).astype(np.float32)
            metrics["classes"] = {"inter": margin, "intra": 1.0, "ratio": margin}
        line = PAPER.row(row)
        record = {
            "key": records.key({"row": row, "seed": seed}),
            "purpose": "result",
            "paper": "gautam",
            "row": row,
            "method": line.method,
            "options": line.options,
            "profile": profile,
            "dataset": "cub50",
            "seed": seed,
            "recipe": line.recipes[profile].as_dict(),
            "weights": "w",
            "data_fingerprint": "d",
            "num_classes": 3,
            "images": {"train": 9, "val": 3, "test": 60},
            "metrics": metrics,
            "parameters": 1,
            "flops": 10**9,
            "printed": None,
            "overrides": {},
            "train": {"epochs": 6, "seconds": 3.0},
            "hardware": {"cpu": "chip", "cores": 2, "threads": 1},
            "command": f"fgbook run gautam --row {row}",
        }
        return records.save(record, kept, tmp_path / f"{row}-{profile}-{seed}.json")

    return one


def lines(shown) -> dict[str, dict[str, str]]:
    """The first cell of each line of a table -> its cells by heading, as text."""
    plain = lambda cell: html.unescape(re.sub("<.*?>", "", cell)).strip()
    heads = [plain(head) for head in re.findall(r"<th>(.*?)</th>", shown.html, re.S)]
    found = [
        [plain(cell) for cell in re.findall(r"<td>(.*?)</td>", line, re.S)]
        for line in re.findall(r"<tr>\s*<td>.*?</tr>", shown.html, re.S)
    ]
    return {cells[0]: dict(zip(heads, cells, strict=True)) for cells in found}


def values(found, row, metric):
    return np.stack(
        [verdicts.per_image(r, metric) for r in found if r["row"] == row]
    ).astype(float)


def test_scores_are_those_of_the_records(make):
    found = [
        make(row, seed, quality)
        for row, quality in (("plain", 0.5), ("all", 0.8))
        for seed in (0, 1)
    ]
    table = lines(drawing.scores_table(PAPER, found))
    # the whole ablation, run or not
    assert list(table) == [PAPER.row(name).title for name in drawing.gautam.MAIN]
    for row, quality in (("plain", 0.5), ("all", 0.8)):
        line = table[PAPER.row(row).title]
        assert (
            line["accuracy, measured %"]
            == f"{100 * values(found, row, 'top1').mean():.1f}"
            and line["seeds"] == "2"
        )
        assert [
            line[f"{title}, measured %"]
            for title in ("precision", "recall", "F1", "calibration error")
        ] == [f"{100 * quality / k:.1f}" for k in (2, 3, 4, 5)]
        assert (
            line["cross-entropy, measured nats"]
            == f"{-values(found, row, 'nll').mean():.2f}"
        )
    assert table["mixup"]["accuracy, measured %"] == "not run"
    quick = drawing.scores_table(PAPER, [make("plain", 0, 0.5, profile="quick")])
    assert list(lines(quick)) == ["plain backbone"] and "illustration" in quick.html
    assert "not run" in drawing.scores_table(PAPER, []).html


def test_components_alone_and_last(make):
    rows = {"plain": 0.4, "mixup": 0.6, "all": 0.9, "no-mixup": 0.7, "attention": 0.5}
    found = [
        make(row, seed, quality) for row, quality in rows.items() for seed in (0, 1, 2)
    ]
    table = lines(drawing.components_table(found))
    assert list(table) == [
        "attention",
        "mixup",
        "cutmix",
        "smoothing",
        "rotation",
        "triplet",
    ]
    for cell, better, worse in (
        ("alone, measured", "mixup", "plain"),
        ("added to all others, measured", "all", "no-mixup"),
    ):
        assert (
            table["mixup"][cell]
            == f"{100 * (values(found, better, 'top1') - values(found, worse, 'top1')).mean():+.1f}"
        )
    assert (
        table["attention"]["added to all others, measured"]
        == table["cutmix"]["alone, measured"]
        == "not run"
    )
    alone = verdicts.compare(
        [r for r in found if r["row"] == "attention"],
        [r for r in found if r["row"] == "plain"],
    )
    assert (
        table["attention"]["95 % interval"] == f"{alone.low:+.1f} to {alone.high:+.1f}"
    )
    assert (
        f"attention, alone: {alone.effect:+.1f} ({alone.low:+.1f} to {alone.high:+.1f})"
        in drawing.components_figure(found).html
    )
    assert drawing.components_figure(found[:3]) is drawing.NOT_YET


def test_seeds_that_only_one_row_has_are_left_out(make):
    found = [make("plain", seed, 0.4) for seed in (0, 1)] + [
        make("mixup", seed, 0.7) for seed in (1, 2)
    ]
    effect, better, worse = drawing._effect(found, "mixup", "plain")
    assert [r["seed"] for r in (*better, *worse)] == [1, 1] and effect.seeds == 1
    assert drawing._effect(found, "mixup", "plain", "margin") is None
    error, ours, theirs = drawing.corruption_error(found, "mixup")
    assert [r["seed"] for r in (*ours, *theirs)] == [1, 1] and error == pytest.approx(
        slow_error(found, "mixup", {1})
    )


def slow_error(found, row, seeds):
    """Mean corruption error by loops over kinds, severities, seeds and images."""

    def wrong(name, kind, severity):
        place = 1 + 5 * list(corruptions.NAMES).index(kind) + severity
        kept = [
            records.load_predictions(r)["damaged"][place]
            for r in found
            if r["row"] == name and r["seed"] in seeds
        ]
        return sum(1 for answers in kept for right in answers if not right)

    ratios = [
        sum(wrong(row, kind, s) for s in range(5))
        / sum(wrong("plain", kind, s) for s in range(5))
        for kind in corruptions.NAMES
    ]
    return 100 * sum(ratios) / len(ratios)


def test_damage_is_that_of_the_records(make):
    found = [
        make(row, seed, quality)
        for row, quality in (("plain", 0.5), ("all", 0.8))
        for seed in (0, 1)
    ] + [make("mixup", 0, 0.6, damage=False)]
    table = lines(drawing.damage_table(PAPER, found))
    assert list(table) == ["plain backbone", "all of these"]  # mixup was not measured
    for row in ("plain", "all"):
        line = table[PAPER.row(row).title]
        assert (
            line["mean corruption error, measured % of plain"]
            == f"{slow_error(found, row, {0, 1}):.1f}"
        )
        for field, title in (
            ("robust", "all damage"),
            ("robust_noise", "noise"),
            ("robust_change", "change by damage"),
        ):
            assert (
                line[f"{title}, measured"]
                == f"{np.nanmean(values(found, row, field)):.3f}"
            )
    answers = drawing.damaged(found, "all")
    assert answers["clean"].shape == (2, 20) and answers["jpeg"].shape == (5, 2, 20)
    text = drawing.severity_figure(found).html
    jpeg = 100 - 100 * answers["jpeg"].mean((1, 2))
    assert (
        "jpeg, all: "
        + ", ".join(f"{v:.0f}" for v in (100 - 100 * answers["clean"].mean(), *jpeg))
        in text
    )
    kinds = drawing.kinds_figure(found).html
    effect = verdicts.compare(
        [r for r in found if r["row"] == "all"],
        [r for r in found if r["row"] == "plain"],
        "robust_contrast",
    )
    assert (
        f"all, contrast: {100 * effect.effect:+.1f} ({100 * effect.low:+.1f} to"
        f" {100 * effect.high:+.1f})"
        in kinds
        and "mixup" not in kinds
    )
    hidden = [
        f"{100 * right.mean():.1f}"
        for right in (answers["clean"], *answers["occlusion"])
    ]
    occlusion = drawing.occlusion_figure(found).html
    for share, value in zip((0, 10, 20, 30, 40, 50), hidden, strict=True):
        assert re.search(rf"all: .*{share} %: {re.escape(value)} \(", occlusion)
    assert {
        drawing.severity_figure([]),
        drawing.kinds_figure(found[:2]),
        drawing.occlusion_figure([]),
    } == {drawing.NOT_YET}
    assert "not run" in drawing.damage_table(PAPER, []).html


def test_a_plain_backbone_without_errors_has_no_relative_error(make, tmp_path):
    perfect = make("plain", 0, 0.5)
    kept = records.load_predictions(perfect)
    kept["damaged"][6:11] = True
    assert (
        drawing.corruption_error(
            [records.save(perfect, kept, tmp_path / "perfect.json")], "plain"
        )
        is None
    )


def test_fractions(make):
    found = [
        make(row, seed, quality)
        for row, quality in (
            ("plain", 0.6),
            ("plain-quarter", 0.3),
            ("all", 0.9),
            ("all-quarter", 0.6),
            ("all-half", 0.8),
        )
        for seed in (0, 1)
    ]
    table = lines(drawing.fractions_table(found))
    assert list(table) == ["0.1", "0.25", "0.5", "1"]
    for size, part in (("0.25", "-quarter"), ("1", "")):
        plain, all_ = (values(found, row + part, "top1") for row in ("plain", "all"))
        assert table[size]["plain, measured %"] == f"{100 * plain.mean():.1f}"
        assert (
            table[size]["all minus plain, measured"]
            == f"{100 * (all_ - plain).mean():+.1f}"
        )
    assert (
        table["0.5"]["plain, measured %"]
        == table["0.5"]["all minus plain, measured"]
        == table["0.1"]["all, measured %"]
        == "not run"
    )
    text = drawing.fractions_figure(found).html
    assert (
        re.search(r"plain: 25 %: .*, 100 %: ", text)
        and re.search(r"all: 25 %: .*, 50 %: .*, 100 %: ", text)
        and "10 %:" not in text
    )
    assert drawing.fractions_figure([]) is drawing.NOT_YET


def test_margins(make):
    found = [
        make(row, seed, 0.5, margin=margin)
        for row, margin in (("plain", 0.4), ("triplet", 0.9))
        for seed in (0, 1)
    ] + [make("mixup", 0, 0.5)]
    table = lines(drawing.margins_table(PAPER, found))
    assert list(table) == ["plain backbone", "triplet loss"]
    assert (
        table["triplet loss"]["between over within, measured"] == "0.900"
        and table["plain backbone"]["margin minus plain's, measured"] == "–"
    )
    assert (
        table["triplet loss"]["margin, measured"]
        == f"{values(found, 'triplet', 'margin').mean():.3f}"
    )
    assert (
        table["triplet loss"]["margin minus plain's, measured"]
        == f"{(values(found, 'triplet', 'margin') - values(found, 'plain', 'margin')).mean():+.3f}"
    )


# ---- cost --------------------------------------------------------------------------------------------------------------


def costs(name, flops, seconds):
    return Cost(
        name, 224, 10**6, flops, 2**20, np.array([seconds, seconds, 9.0]), 1, "cpu"
    )


@pytest.mark.parametrize(
    ("ours", "outcome"),
    [
        ((1, 1), "holds"),
        ((5, 5), "depends"),
        ((50, 50), "does not hold"),
        ((1, 50), "does not hold"),
    ],
)
def test_less_than_transformers_is_less_in_operations_and_in_time(ours, outcome):
    found = [
        costs(cost.GATED, ours[0], ours[1]),
        costs("vit_ti_16", 2, 2.0),
        costs("vit_b_16", 10, 10.0),
        costs("mobilenet_v2", 1, 0.5),
    ]
    less, edge = drawing.judge_cost(found)
    assert (
        less.outcome == outcome
        and edge.outcome == "no limit given"
        and f"{ours[0] / 1:.2g} times the operations" in edge.why
    )
    assert (
        outcome
        in lines(drawing.cost_verdict_table(found))[
            "C5 less computation than transformers"
        ]["verdict"]
    )
    assert (
        [one.outcome for one in drawing.judge_cost(found[1:])]
        == [one.outcome for one in drawing.judge_cost(found[:1])]
        == ["not run", "not run"]
    )
    table = lines(
        drawing.cost_table(
            found,
            {"cpu": "chip", "cores": 2, "threads": 1},
            {one.name: 4 * 10**9 for one in found},
        )
    )
    assert (
        table["vit b 16"]["milliseconds, median"] == "10000"
        and table["vit b 16"]["GFLOP at 448 px"] == "4.0"
    )


def test_costs_are_those_counted_in_another_way():
    made = dict(cost.networks(7, ("mobilenet_v2", "resnet50", cost.GATED, "vit_ti_16")))
    mobile = made["mobilenet_v2"]
    count = lambda network: sum(p.numel() for p in network.parameters())
    assert count(mobile) == count(torchvision.models.mobilenet_v2(num_classes=7))
    # a perceptron, a convolution, BatchNorm
    assert (
        count(made[cost.GATED]) - count(made["resnet50"]) == 2 * 2048 * 128 + 2 * 49 + 2
    )
    # Touvron et al. 2021: 5 million
    assert (
        count(made["vit_ti_16"])
        == 12 * (12 * 192**2 + 13 * 192)
        + (3 * 256 + 1) * 192
        + 198 * 192
        + 2 * 192
        + 193 * 7
    )
    found = cost.measure("mobilenet_v2", mobile, 64, repeats=2, warm_up=0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torchvision.models.mobilenet_v2(num_classes=7).eval()(torch.rand(1, 3, 64, 64))
    assert (
        found.flops == counter.get_total_flops()
        and found.parameters == count(mobile)
        and not mobile.training
    )
    assert (
        found.seconds.shape == (2,)
        and (found.seconds > 0).all()
        and 3 * 4 * 64**2 < found.activations < 2**25
    )
    assert (
        cost.measure("mobilenet_v2", mobile, 128, repeats=1).activations
        > 3 * found.activations
    )
    with pytest.raises(InputError, match="resnet51"):
        list(cost.networks(7, ("resnet51",)))


def test_operations_of_a_transformer_count_its_attention_and_nothing_is_left_behind():
    base = dict(cost.networks(7, ("vit_b_16",)))["vit_b_16"]
    tokens, width, heads = 197, 768, 12
    attention = (
        3 * width * width * tokens
        + 2 * heads * tokens * tokens * (width // heads)
        + width * width * tokens
    )
    expected = 2 * (
        12 * (attention + 2 * 4 * width * width * tokens)
        + 196 * width * 3 * 16 * 16
        + 7 * width
    )
    fast = torch.backends.mha.get_fastpath_enabled()
    assert (
        cost.size(base, 224) == (sum(p.numel() for p in base.parameters()), expected)
        and torch.backends.mha.get_fastpath_enabled() == fast
    )
    with torch.no_grad():
        assert base.predict(torch.rand(1, 3, 64, 64)).isfinite().all()
