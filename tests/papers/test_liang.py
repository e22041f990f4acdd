"""Paper D from its file to records and verdicts: rows run on pictures with boxes."""

import html
import json
import re
from functools import partial

import numpy as np
import pytest
import torch

import samples
from fgbook import figures, methods, papers, paths
from fgbook.evidence import families, records, runs, verdicts
from fgbook.figures import liang as drawn
from fgbook.papers.liang import BOXES, PATCHES, QUESTIONS
from fgbook.training import loop

PAPER = papers.get("liang")
TINY = {
    "image_size": 40,
    "store_size": 44,
    "epochs": 2,
    "weights": "none",
    "backbone": "small",
    "batch_size": 8,
}
ROWS = ("plain", "foreground", "shuffle", "flrdf", "n1", "cam", "middle")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Records of several rows at the photo profile (shrunk), two seeds. The runs'
    folder stays set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("runs", "results"):
            patch.setenv(f"FGBOOK_{name.upper()}", str(tmp_path_factory.mktemp(name)))
        samples.stand_in(patch, samples.spots(24, 6, 30))
        yield runs.rows(
            "liang",
            list(ROWS),
            "photo",
            "spots",
            2,
            overrides=TINY,
            device="cpu",
            progress=False,
        )


def of(found, row):
    return [record for record in found if record["row"] == row]


# ---- the paper's file


def test_rows_say_what_the_paper_says():
    assert [PAPER.printed("flrdf", name) for name in ("cub", "cars", "aircraft")] == [
        88.1,
        94.9,
        93.8,
    ]
    assert [PAPER.printed("n1", name) for name in ("cub", "cars", "aircraft")] == [
        87.63,
        94.37,
        92.93,
    ]
    assert PAPER.printed("plain", "cub") is None  # cannot be read
    rows = {row.name: row for row in PAPER.rows}
    assert {
        label for table in PAPER.tables for label in table.rows.values()
    } <= rows.keys()
    for table in PAPER.tables:
        assert all(len(values) == len(table.columns) for values in table.cells.values())
        assert table.rows.keys() <= table.cells.keys()
    claims = {claim.key: claim for claim in PAPER.claims}
    # CUB
    printed = {label: values[0] for label, values in PAPER.tables[0].cells.items()}
    for key, worse in (
        ("D6 DCL", printed["DCL"]),
        ("D6 NTS-Net", printed["NTS-Net"]),
        ("D5", PAPER.printed("n1", "cub")),
    ):
        assert claims[key].printed_effect == pytest.approx(
            printed["FLRDF"] - worse, abs=0.05
        )
    assert all(
        {question.better, question.worse} <= rows.keys()
        for question in (*QUESTIONS, *BOXES, *PATCHES)
    )
    assert len(
        {claim.key for claim in (*PAPER.claims, *QUESTIONS, *BOXES, *PATCHES)}
    ) == len((*PAPER.claims, *QUESTIONS, *BOXES, *PATCHES))
    assert all(
        claim.better in rows and claim.worse in {*rows, "dcl", "nts-net"}
        for claim in PAPER.claims
    )


def test_rows_differ_by_one_thing_and_share_the_plain_run_of_another_paper():
    options = {
        row.name: methods.options_of("flrdf") | row.options
        for row in PAPER.rows
        if row.method == "flrdf"
    }
    for name, changed in options.items():
        # the control: alone, no suppression
        like = {
            "flrdf": changed,
            "middle": changed | {"shuffle": True, "controller": "learnable"},
        }.get(name, changed)
        assert len({key for key in like if like[key] != options["flrdf"][key]}) == (
            name != "flrdf"
        ), name
    assert {
        name: changed["n"]
        for name, changed in options.items()
        if changed["n"] != options["flrdf"]["n"]
    } == {"n1": 1, "n2": 2, "n8": 8}
    plain = PAPER.row("plain").recipes
    assert plain["quick"] == papers.get("feng").row("plain").recipes["quick"]
    for profile in ("quick", "photo", "paper"):
        recipes = [row.recipes[profile] for row in PAPER.rows if row.method == "flrdf"]
        assert len(set(recipes)) == 1
        # no more than a frame of one pixel is left over for n = 2, 4, 8
        assert recipes[0].image_size % 8 <= 1
    for change in PAPER.tuning["photo"].tries["flrdf"]:
        recipe = PAPER.tuning["photo"].base.but(
            **{k: v for k, v in change.items() if k != "options"}
        )
        model = methods.build(
            "flrdf",
            3,
            recipe.but(backbone="small", weights="none"),
            change.get("options", {}),
        )
        assert set(dict(recipe.loss_weights)) <= set(model(torch.rand(2, 3, 40, 40)))


# ---- from rows to records


def test_a_record_holds_the_box_of_every_image(found):
    for row, names in (
        ("flrdf", ["foreground", "cam"]),
        ("cam", ["foreground"]),
        ("shuffle", ["foreground"]),
    ):
        for record in of(found, row):
            kept = records.load_predictions(record)
            assert [name for name in kept if name.startswith("iou_")] == [
                *(
                    f"iou_{name}{end}"
                    for name in names
                    for end in ("", "_max", "_mean")
                ),
                "iou_centre",
                "iou_whole",
            ]
            assert kept["iou_foreground"].shape == (30,)
            assert np.isnan(kept["iou_foreground"][-1])
            assert record["localisation"]["foreground_iou"] == pytest.approx(
                np.nanmean(kept["iou_foreground"].astype(float))
            )
    assert all(record["localisation"] is None for record in of(found, "plain"))


def test_a_record_holds_the_score_of_the_maps_and_the_losses_of_every_epoch(found):
    for record in of(found, "flrdf"):
        kept = records.load_predictions(record)
        for name in ("foreground", "cam"):
            assert kept[f"maxbox_{name}"].shape == (30,)
            assert np.isnan(kept[f"maxbox_{name}"][-1])
            assert kept[f"boxacc_{name}"].shape == (3, 100)
            score = record["localisation"][f"{name}_maxboxaccv2"]
            assert (
                score
                == pytest.approx(np.nanmean(kept[f"maxbox_{name}"].astype(float)))
                == pytest.approx(kept[f"boxacc_{name}"].max(1).mean(), abs=1e-6)
            )
        log = (paths.runs() / record["key"] / "log.jsonl").read_text().splitlines()
        assert (
            len(record["train"]["losses"]) == record["train"]["epochs"] == len(log) == 2
        )
        for kept, line in zip(record["train"]["losses"], log, strict=True):
            assert kept.keys() == {
                "image",
                "foreground",
                "shuffled",
            }
            assert kept == pytest.approx(json.loads(line)["losses"], abs=1e-4)


def test_the_trained_network_comes_back_and_sees_what_was_measured(found):
    record = of(found, "flrdf")[0]
    model, data = runs.model(runs.of(record), device="cpu")
    kept = records.load_predictions(record)
    probabilities = loop.predict(model, data.test, runs.of(record).recipe, device="cpu")
    true = probabilities.gather(1, data.test.labels[:, None])[:, 0]
    np.testing.assert_allclose(true, np.exp(-kept["nll"]), atol=1e-3)
    assert sum(p.numel() for p in model.parameters()) == record["parameters"]
    plain, once = (of(found, row)[0]["flops"] for row in ("plain", "shuffle"))
    # (c) costs nothing at test time, (b) a second look
    assert plain == once < record["flops"] < 2.2 * plain


def test_a_stopped_run_ends_with_the_same_weights(found, tmp_path, monkeypatch):
    """Shuffles are drawn again as they were: torch's generator is seeded at every
    step."""
    record = of(found, "flrdf")[0]
    run = runs.of(record)
    torch.manual_seed(run.seed)
    model = methods.build(run.method, 2, run.recipe, run.options)
    fit = partial(
        loop.fit,
        data=run.data(),
        recipe=run.recipe,
        run_dir=tmp_path / "run",
        seed=run.seed,
        device="cpu",
        progress=False,
    )
    stops = 0
    while not fit(model, budget_minutes=0).finished:  # one step a call
        stops += 1
        torch.rand(5)
        model = methods.build(run.method, 2, run.recipe, run.options)
    whole = runs.model(run, device="cpu")[0].state_dict()
    assert stops >= 3
    assert all(
        torch.equal(value, whole[name]) for name, value in model.state_dict().items()
    )


def test_claims_are_judged(found):
    judged = {verdict.claim.key: verdict for verdict in families.judge(PAPER, found)}
    assert judged["D6 DCL"].outcome == judged["D4 fixed"].outcome == "not run"
    for key, better, worse in (
        ("D1", "foreground", "plain"),
        ("D2", "shuffle", "plain"),
        ("D5", "flrdf", "n1"),
    ):
        right = [
            np.mean(
                [
                    (p := records.load_predictions(r))["prediction"] == p["label"]
                    for r in of(found, row)
                ]
            )
            for row in (better, worse)
        ]
        assert judged[key].effect.effect == pytest.approx(100 * (right[0] - right[1]))
    ious = [
        np.nanmean(
            [records.load_predictions(r)["iou_foreground"] for r in of(found, row)],
            dtype=float,
        )
        for row in ("flrdf", "cam")
    ]
    assert judged["D4"].effect.effect == pytest.approx(ious[0] - ious[1], abs=1e-6)
    assert judged["D4"].effect.images == 29
    for question in (*QUESTIONS, *BOXES):
        verdict = verdicts.verdict(
            question, of(found, question.better), of(found, question.worse)
        )
        assert verdict.effect.seeds == 2
    shown = figures.verdict_table(PAPER, found).html
    assert all(claim.key in shown for claim in PAPER.claims)
    for table in PAPER.tables:
        assert "<table" in figures.printed_table(table, found).html


# ---- figures and tables


def lines_of(shown):
    """The lines of a table as dictionaries of text."""
    heads = [text(head) for head in re.findall("<th>(.*?)</th>", shown.html)]
    lines = []
    for line in re.findall(r"<tr>\s*(<td>.*?)</tr>", shown.html, re.S):
        cells = [text(cell) for cell in re.findall("<td>(.*?)</td>", line, re.S)]
        lines.append(dict(zip(heads, cells, strict=True)))
    return lines


def text(cell):
    """What a cell of HTML says."""
    return html.unescape(re.sub("<.*?>", "", cell))


def test_what_cannot_be_read_is_shown_so(found):
    for table in PAPER.tables[1:3]:
        shown = figures.printed_table(table, []).html
        assert shown.count("<td>not legible</td>") == len(table.cells)
    shown = figures.printed_table(PAPER.tables[0], []).html
    assert shown.count("<td>not legible</td>") == 2
    assert "<td>–</td>" not in shown
    lines = {
        line["row"]: line["printed, %"]
        for line in lines_of(figures.accuracy_table(PAPER, found))
    }
    expected = {
        "probe": "–",
        "plain": "not legible",
        "foreground": "not legible",
        "shuffle": "not legible",
        "flrdf": "88.1",
        "n1": "87.6",
        "n2": "–",
        "n8": "–",
        "cam": "–",
        "fixed": "–",
        "middle": "–",
        "dcl": "87.8",
        "nts-net": "87.5",
    }
    assert {row.name: lines[row.title] for row in PAPER.rows} == expected
    feng = papers.get("feng")  # where None is a dash of the paper's
    assert "not legible" not in figures.printed_table(feng.tables[0], []).html


def test_boxes_are_tabled_beside_those_that_know_nothing(found):
    lines = {line["box"]: line for line in lines_of(drawn.boxes_table(found))}
    assert list(lines) == [
        "plain class activation map",
        "learnable suppression",
        "the same network's maps before suppression",
        "middle square, half the area",
        "whole image",
    ]
    kept = [records.load_predictions(r) for r in of(found, "flrdf")]
    for title, name in (
        ("learnable suppression", "foreground"),
        ("the same network's maps before suppression", "cam"),
    ):
        for rule, where in (("max", "0.2 of the maximum"), ("mean", "the mean")):
            ious = np.array([k[f"iou_{name}_{rule}"][:29] for k in kept], dtype=float)
            assert float(
                lines[title][f"measured IoU ≥ 0.5, cut at {where}"]
            ) == pytest.approx((ious >= 0.5).mean(), abs=0.0051)
            assert float(
                lines[title][f"measured mean IoU, cut at {where}"]
            ) == pytest.approx(ious.mean(), abs=0.0051)
        score = np.mean([k[f"boxacc_{name}"].max(1).mean() for k in kept])
        assert float(lines[title]["measured MaxBoxAccV2"]) == pytest.approx(
            score, abs=0.0051
        )
    whole = np.array(
        [
            np.mean([iou >= t for t in (0.3, 0.5, 0.7)])
            for iou in kept[0]["iou_whole"][:29]
        ]
    )
    assert float(
        lines["whole image"]["measured MaxBoxAccV2"].split()[0]
    ) == pytest.approx(whole.mean(), abs=0.0051)
    assert "not run" in drawn.boxes_table([]).html
    assert "not run" in drawn.boxes_table(of(found, "plain")).html


def test_curves_over_levels_are_those_of_the_records(found):
    said = samples.words(drawn.levels_figure(found))
    share = np.mean(
        [records.load_predictions(r)["boxacc_cam"][1, 65] for r in of(found, "flrdf")]
    )
    curve = re.search(r"\(its maps before\): ([^)]*?)\.( share|$)", said)[1]
    assert float(
        dict(pair.split(": ") for pair in curve.split(", "))["0.65"]
    ) == pytest.approx(share, rel=1e-3)
    # the row fixed was not run
    assert "learnable" in said
    assert "plain map" in said
    assert "pressed to" not in said
    assert "<svg" not in drawn.levels_figure(of(found, "plain")).html


def test_losses_are_drawn_as_means_over_seeds_with_their_weighted_sum():
    def record(seed, *epochs):
        losses = [
            dict(zip(("image", "foreground", "shuffled"), epoch, strict=True))
            for epoch in epochs
        ]
        return {
            "row": "flrdf",
            "dataset": "cub50",
            "seed": seed,
            "key": f"{seed:016x}",
            "recipe": {"loss_weights": [["shuffled", 0.5]]},
            "overrides": {"loss_weights": [["shuffled", 0.5]]},
            "train": {"losses": losses},
        }

    said = samples.words(
        drawn.losses_figure(
            [
                record(0, (1.0, 2.0, 4.0), (0.5, 1.0, 2.0)),
                record(1, (3.0, 2.0, 6.0), (1.5, 2.0, 4.0)),
            ]
        )
    )
    for name, first, second in (
        ("image", 2, 1),
        ("foreground", 2, 1.5),
        ("shuffled", 5, 3),
        ("sum", 6.5, 4),
    ):
        assert f"({name}): 1: {first:g}, 2: {second:g}." in said
    assert "<svg" not in drawn.losses_figure([]).html


def test_patches_are_compared_with_one_patch(found):
    said = samples.words(drawn.patches_figure(found))
    effects = {
        title: verdicts.compare(of(found, row), of(found, "n1"), among=found)
        for title, row in (("not looked at", "foreground"), ("4", "flrdf"))
    }
    for title, effect in effects.items():
        assert (
            f"{title}: {effect.effect:+.1f} ({effect.low:+.1f} to {effect.high:+.1f})"
            in said
        )
    assert " 8:" not in said
    assert "<svg" not in drawn.patches_figure(of(found, "flrdf")).html


@pytest.mark.parametrize("row", ["flrdf", "cam"])
def test_maps_boxes_and_patches_are_drawn_from_the_trained_network(found, row):
    run = runs.of(of(found, row)[0])
    model, data = runs.model(run, device="cpu")
    shown = drawn.maps_figure(model, data, run.recipe, 2)
    assert ("before suppression" in samples.words(shown)) == (row == "flrdf")
    assert "2 test images" in samples.words(shown)
    before = torch.get_rng_state()
    first = drawn.shuffles_figure(model, data, run.recipe, 2)
    # drawing changes no later training
    assert torch.equal(torch.get_rng_state(), before)
    assert first.html == drawn.shuffles_figure(model, data, run.recipe, 2).html


def test_the_page_tells_the_sizes_of_the_recipe():
    page = " ".join(
        (paths.REPOSITORY / "book" / "liang.md").read_text(encoding="utf-8").split()
    )
    recipe = PAPER.row("flrdf").recipes["photo"]
    cells = -(-recipe.image_size // 32)
    assert recipe.backbone == "timm:tf_efficientnet_lite0"
    assert f"have {recipe.image_size} pixels a side" in page
    assert f"has {cells} x {cells} cells" in page
    assert (
        f"with {recipe.image_size} pixels and $n = 8$ a patch has"
        f" {recipe.image_size // 8} pixels" in page
    )
    assert recipe.epochs == 12
    assert "* *Length.* Twelve epochs" in page
    # "frozen"; "the last"
    assert recipe.batchnorm == "frozen"
    assert recipe.train_on == "train+val"
