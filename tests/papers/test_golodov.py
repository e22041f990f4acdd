"""Paper A from its file to its tables: rows run on real pictures in a folder, and what
is drawn from their records."""

import numpy as np
import pytest
import torch

import samples
from fgbook import methods, papers
from fgbook.evidence import records, runs
from fgbook.figures import golodov as figures
from fgbook.papers.golodov import PRINTED_LOSS, QUESTIONS
from fgbook.training import features, loop

PAPER = papers.get("golodov")
TINY = {
    "backbone": "small",
    "weights": "none",
    "image_size": 32,
    "store_size": 36,
    "epochs": 2,
    "batch_size": 8,
}
ROWS = ("gap", "adam", "adamax", "linear", "linear-birds", "plain")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Records of several rows at the photo profile (shrunk), two seeds."""
    with samples.trained(
        tmp_path_factory.mktemp("golodov"),
        "golodov",
        ROWS,
        {"train": 10, "val": 4, "test": 6},
        TINY,
    ) as found:
        yield found


def test_rows_say_what_the_paper_says():
    assert [
        PAPER.printed(row, "dogs21")
        for row in ("fc", "gap", "adam", "adamax", "vgg16", "linear")
    ] == [22, 52, 90, 93, 67, None]
    for profile in ("photo", "paper"):
        adam, adamax, slow = (
            PAPER.row(name).recipes[profile] for name in ("adam", "adamax", "adam-slow")
        )
        assert (adam.optimiser, adam.lr, adamax.optimiser, adamax.lr) == (
            "adam",
            1e-3,
            "adamax",
            1e-4,
        )
        # one thing at a time
        assert adam.but(optimiser="adamax", lr=1e-4) == adamax
        assert adamax.but(optimiser="adam") == slow
        assert PAPER.row("fc").recipes[profile].but(lr=1.0, flip=False) == PAPER.row(
            "gap"
        ).recipes[profile].but(lr=1.0, flip=False)
    paper = {row.name: row.recipes["paper"] for row in PAPER.rows_at("paper")}
    assert (
        paper["adam"].backbone,
        paper["adam"].image_size,
        paper["vgg16"].backbone,
        paper["fc"].epochs,
    ) == ("inception_v3", 299, "vgg16", 90)
    claims = {claim.key: claim for claim in PAPER.claims}
    for key, better, worse in (
        ("A1", "gap", "fc"),
        ("A2", "adam", "gap"),
        ("A3", "adam", "vgg16"),
        ("A4", "adamax", "adam"),
    ):
        assert (claims[key].better, claims[key].worse) == (better, worse)
        assert claims[key].printed_effect == PAPER.printed(
            better, "dogs21"
        ) - PAPER.printed(worse, "dogs21")
    assert claims["A4 loss"].printed_effect == pytest.approx(
        PRINTED_LOSS["adam"] - PRINTED_LOSS["adamax"]
    )
    names = {row.name for row in PAPER.rows}
    assert all({question.better, question.worse} <= names for question in QUESTIONS)


def test_every_network_of_the_paper_builds_and_predicts():
    """Each backbone once, and on the small one each set of options."""
    every = [
        (row, recipe)
        for row in PAPER.rows
        if row.method in ("simple", "transfer")
        for recipe in row.recipes.values()
    ]
    networks = {recipe.backbone: (row, recipe) for row, recipe in every} | {
        str(row.options): (row, recipe)
        for row, recipe in every
        if recipe.backbone in ("none", "small")
    }
    assert {"none", "small", "mobilenet_v2", "inception_v3", "vgg16"} < networks.keys()
    for row, recipe in networks.values():
        network = methods.build(
            row.method,
            21,
            recipe.but(weights="none", image_size=96, store_size=96),
            row.options,
        ).eval()
        with torch.no_grad():
            assert network.predict(torch.rand(1, 3, 96, 96)).shape == (1, 21), row.name


def test_a_frozen_row_goes_from_pictures_to_a_record_and_back(found):
    record = next(r for r in found if r["row"] == "adam")
    assert record["metrics"]["test"]["n"] == 18
    assert record["metrics"]["val"] is None  # these images were trained on too
    assert record["flops"] > 1e6
    run = runs.of(record)
    assert run.key == record["key"]
    network, data = runs.model(run, device="cpu")
    # from the pictures
    probabilities = loop.predict(network, data.test, run.recipe, device="cpu")
    kept = records.load_predictions(record)
    true = probabilities.gather(1, data.test.labels[:, None])[:, 0]
    # measured from features that were kept in float16
    np.testing.assert_allclose(true, np.exp(-kept["nll"]), atol=0.01)


def test_another_row_on_the_same_backbone_does_not_run_it_again(found, monkeypatch):
    def forbidden(*arguments):
        raise AssertionError("the backbone was run again")

    monkeypatch.setattr(features, "compute", forbidden)
    run = runs.of(next(r for r in found if r["row"] == "adam" and r["seed"] == 1))
    other = runs.resolve("golodov", "gap-features", "photo", run.dataset, 1, TINY)
    assert (
        runs.execute(other, device="cpu", progress=False)["metrics"]["test"]["n"] == 18
    )


def test_losses_are_printed_and_measured_side_by_side(found):
    shown = figures.loss_table(PAPER, found)
    assert "<td>0.92</td>" in shown.html
    assert "<td>0.62</td>" in shown.html
    of_row = [r for r in found if r["row"] == "adam"]
    expected = np.mean(
        [records.load_predictions(r)["nll"].mean(dtype=np.float64) for r in of_row]
    )
    assert f">{expected:.2f}</span>" in shown.html
    assert (
        "printed loss"
        not in figures.loss_table(PAPER, [r | {"profile": "quick"} for r in found]).html
    )
    assert "not run" in figures.loss_table(PAPER, []).html


def test_what_pretraining_is_worth_is_set_against_scratch_on_the_same_data(found):
    both = [r | {"dataset": name} for r in found for name in ("imagewoof10", "cub50")]
    shown = figures.pretraining_table(both)
    for row in ("gap", "linear", "linear-birds", "plain"):
        right = np.concatenate(
            [
                (p := records.load_predictions(r))["prediction"] == p["label"]
                for r in found
                if r["row"] == row
            ]
        )
        base = np.concatenate(
            [
                (p := records.load_predictions(r))["prediction"] == p["label"]
                for r in found
                if r["row"] == "gap"
            ]
        )
        assert shown.html.count(f">{100 * right.mean():.1f}</span>") >= 2
        if row != "gap":
            assert f">{100 * (right.mean() - base.mean()):+.1f}</span>" in shown.html
    alt = figures.pretraining_figure(both).html
    assert "imagewoof10, from scratch:" in alt
    assert "cub50, frozen, iNaturalist birds:" in alt
    assert "not run" in figures.pretraining_table([]).html
    assert "No published runs" in figures.pretraining_figure([]).html
