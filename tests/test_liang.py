"""Paper D from its file to records and verdicts: rows run on pictures with boxes."""

from functools import partial

import numpy as np
import pytest
import torch

from fgbook import figures, models, papers, records, runs, training, verdicts
from fgbook.data.dataset import DataSet, Split
from fgbook.papers.liang import QUESTIONS

PAPER = papers.get("liang")
TINY = {"image_size": 40, "store_size": 44, "epochs": 2, "weights": "none", "backbone": "small", "batch_size": 8}
ROWS = ("plain", "foreground", "shuffle", "flrdf", "n1", "cam")


def spots(count, seed):
    """A split of noise with a bright square in each image, whose colour is its class; the last object lies where the centre crop cuts it off."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 3, 44, 44), generator=generator, dtype=torch.uint8)
    corners, labels = torch.randint(2, 24, (count, 2), generator=generator), torch.arange(count) % 2
    for image, (x, y), label in zip(images, corners.tolist(), labels.tolist(), strict=True):
        image[label, y : y + 16, x : x + 16] += 150
    boxes = torch.cat([corners, corners + 16], 1).float()
    boxes[-1] = torch.tensor([0.0, 0.0, 2.0, 2.0])
    return Split(images, labels, [f"{seed}-{i}" for i in range(count)], boxes)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Records of several rows at the photo profile (shrunk), two seeds. The runs' folder stays set."""
    data = DataSet("spots", ["red", "green"], 44, "0123456789abcdef", spots(24, 0), spots(6, 1), spots(30, 2))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("runs", "results"):
            patch.setenv(f"FGBOOK_{name.upper()}", str(tmp_path_factory.mktemp(name)))
        patch.setattr(runs, "_load", lambda name, size: data)
        yield runs.rows("liang", list(ROWS), "photo", "spots", 2, overrides=TINY, device="cpu", progress=False)


def of(found, row):
    return [record for record in found if record["row"] == row]


# ---- the paper's file ------------------------------------------------------------------------------------------------


def test_rows_say_what_the_paper_says():
    assert [PAPER.printed("flrdf", name) for name in ("cub", "cars", "aircraft")] == [88.1, 94.9, 93.8]
    assert [PAPER.printed("n1", name) for name in ("cub", "cars", "aircraft")] == [87.63, 94.37, 92.93]
    assert PAPER.printed("plain", "cub") is None  # cannot be read
    rows = {row.name: row for row in PAPER.rows}
    assert {label for table in PAPER.tables for label in table.rows.values()} <= rows.keys()
    for table in PAPER.tables:
        assert all(len(values) == len(table.columns) for values in table.cells.values()) and table.rows.keys() <= table.cells.keys()
    claims = {claim.key: claim for claim in PAPER.claims}
    printed = {label: values[0] for label, values in PAPER.tables[0].cells.items()}  # CUB
    for key, worse in (("D6 DCL", printed["DCL"]), ("D6 NTS-Net", printed["NTS-Net"]), ("D5", PAPER.printed("n1", "cub"))):
        assert claims[key].printed_effect == pytest.approx(printed["FLRDF"] - worse, abs=0.05)
    assert all({question.better, question.worse} <= rows.keys() for question in QUESTIONS)
    assert all(claim.better in rows and claim.worse in {*rows, "dcl", "nts-net"} for claim in PAPER.claims)


def test_rows_differ_by_one_thing_and_share_the_plain_run_with_paper_b():
    options = {row.name: models.options_of("flrdf") | row.options for row in PAPER.rows if row.method == "flrdf"}
    for name, changed in options.items():
        assert len({key for key in changed if changed[key] != options["flrdf"][key]}) == (name != "flrdf"), name
    assert {name: changed["n"] for name, changed in options.items() if changed["n"] != options["flrdf"]["n"]} == {"n1": 1, "n2": 2, "n8": 8}
    assert PAPER.row("plain") == papers.get("feng").row("plain")
    for profile in ("quick", "photo", "paper"):
        recipes = [row.recipes[profile] for row in PAPER.rows if row.method == "flrdf"]
        assert len(set(recipes)) == 1 and recipes[0].image_size % 8 == 0  # nothing is left over for n = 2, 4, 8
    weighed = PAPER.tuning["photo"].tries["flrdf"]
    assert len(weighed) == len(papers.get("feng").tuning["photo"].tries["plain"])  # the same tuning budget
    for change in weighed:
        recipe = PAPER.tuning["photo"].base.but(**{k: v for k, v in change.items() if k != "options"})
        model = models.build("flrdf", 3, recipe.but(backbone="small", weights="none"), change.get("options", {}))
        assert set(dict(recipe.loss_weights)) <= set(model(torch.rand(2, 3, 40, 40)))


# ---- from rows to records --------------------------------------------------------------------------------------------


def test_a_record_holds_the_box_of_every_image(found):
    for row, names in (("flrdf", ["foreground", "cam"]), ("cam", ["foreground"]), ("shuffle", ["foreground"])):
        for record in of(found, row):
            kept = records.load_predictions(record)
            assert [name for name in kept if name.startswith("iou_")] == [f"iou_{name}" for name in (*names, "centre", "whole")]
            assert kept["iou_foreground"].shape == (30,) and np.isnan(kept["iou_foreground"][-1])
            assert record["localisation"]["foreground_iou"] == pytest.approx(np.nanmean(kept["iou_foreground"].astype(float)))
    assert all(record["localisation"] is None for record in of(found, "plain"))


def test_the_trained_network_comes_back_and_sees_what_was_measured(found):
    record = of(found, "flrdf")[0]
    model, data = runs.model(runs.of(record), device="cpu")
    kept = records.load_predictions(record)
    probabilities = training.predict(model, data.test, runs.of(record).recipe, device="cpu")
    true = probabilities.gather(1, data.test.labels[:, None])[:, 0]
    np.testing.assert_allclose(true, np.exp(-kept["nll"]), atol=1e-3)
    assert sum(p.numel() for p in model.parameters()) == record["parameters"]
    plain, once = (of(found, row)[0]["flops"] for row in ("plain", "shuffle"))
    assert plain == once < record["flops"] < 2.2 * plain  # (c) costs nothing at test time, (b) a second look


def test_a_stopped_run_ends_with_the_same_weights(found, tmp_path, monkeypatch):
    """Shuffles are drawn again as they were: torch's generator is seeded at every step."""
    record = of(found, "flrdf")[0]
    run = runs.of(record)
    torch.manual_seed(run.seed)
    model = models.build(run.method, 2, run.recipe, run.options)
    fit = partial(training.fit, data=run.data(), recipe=run.recipe, run_dir=tmp_path / "run", seed=run.seed, device="cpu", progress=False)
    stops = 0
    while not fit(model, budget_minutes=0).finished:  # one step a call
        stops += 1
        torch.rand(5)
        model = models.build(run.method, 2, run.recipe, run.options)
    whole = runs.model(run, device="cpu")[0].state_dict()
    assert stops >= 3 and all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


def test_claims_are_judged(found):
    judged = {verdict.claim.key: verdict for verdict in figures.judge(PAPER, found)}
    assert judged["D6 DCL"].outcome == judged["D4 fixed"].outcome == "not run"
    for key, better, worse in (("D1", "foreground", "plain"), ("D2", "shuffle", "plain"), ("D5", "flrdf", "n1")):
        right = [np.mean([(p := records.load_predictions(r))["prediction"] == p["label"] for r in of(found, row)]) for row in (better, worse)]
        assert judged[key].effect.effect == pytest.approx(100 * (right[0] - right[1]))
    ious = [np.nanmean([records.load_predictions(r)["iou_foreground"] for r in of(found, row)], dtype=float) for row in ("flrdf", "cam")]
    assert judged["D4"].effect.effect == pytest.approx(ious[0] - ious[1], abs=1e-6) and judged["D4"].effect.images == 29
    for question in QUESTIONS:
        verdict = verdicts.verdict(question, of(found, question.better), of(found, question.worse))
        assert verdict.effect.seeds == 2
    shown = figures.verdict_table(PAPER, found).html
    assert all(claim.key in shown for claim in PAPER.claims)
    for table in PAPER.tables:
        assert "<table" in figures.printed_table(table, found).html
