"""Paper C: which component a row switches on or leaves out; a few rows run on real
pictures in a folder."""

import json

import numpy as np
import pytest

import samples
from fgbook import papers
from fgbook.evidence import measures, records, runs, verdicts
from fgbook.methods import options_of
from fgbook.papers import feng, gautam
from fgbook.papers.spec import PROFILES
from fgbook.recipe import Recipe

PAPER = papers.get("gautam")
TINY = {
    "backbone": "small",
    "weights": "none",
    "image_size": 32,
    "store_size": 36,
    "epochs": 1,
    "batch_size": 8,
    "precision": "fp32",
}
OFF = {
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "rotate": 0.0,
    "crop_scale": 0.0,
    "per_class": 0,
    "fraction": 1.0,
}
ON = {
    "mixup": {"mixup"},
    "cutmix": {"cutmix"},
    "smoothing": {"label_smoothing"},
    "rotation": {"rotate", "crop_scale"},
    "triplet": {"per_class"},
}


def on(recipe):
    """The fields of a recipe that are switched on."""
    return {name for name, value in OFF.items() if getattr(recipe, name) != value}


def options(name):
    row = PAPER.row(name)
    return (
        options_of("attention") | row.options
        if row.method == "attention"
        else {"channel": False, "spatial": False, "triplet": False}
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_a_row_is_its_component_and_all_but_one_is_all_without_it(profile):
    recipes = {row.name: row.recipes[profile] for row in PAPER.rows_at(profile)}
    assert on(recipes["plain"]) == set()
    assert not any(options("plain").values())
    for name, fields in ON.items():
        assert on(recipes[name]) == fields
        assert on(recipes[f"no-{name}"]) == set.union(*ON.values()) - fields
    assert on(recipes["all"]) == on(recipes["no-attention"]) == set.union(*ON.values())
    assert on(recipes["grouped"]) == {"per_class"}
    for part, share in (("tenth", 0.1), ("quarter", 0.25), ("half", 0.5)):
        assert on(recipes[f"plain-{part}"]) == {"fraction"}
        assert on(recipes[f"all-{part}"]) == on(recipes["all"]) | {"fraction"}
        assert (
            recipes[f"plain-{part}"].fraction
            == recipes[f"all-{part}"].fraction
            == share
        )
    for name in (
        "attention",
        "channel",
        "spatial",
        "attention-usual",
        "attention-blocks",
    ):
        assert on(recipes[name]) == set()
    plain = recipes["plain"]
    # nothing else differs, but for the rows that say so; the whole system, with or
    # without a part, has a rate and a length of its own
    whole = plain.but(lr=recipes["all"].lr, epochs=recipes["all"].epochs)
    for name, recipe in recipes.items():
        if name not in (
            "adam",
            "efficientnet",
            "vit",
            "plain-long",
        ) and not name.startswith(("semantic", "scratch", "simsiam")):
            is_whole = name.startswith(("all", "no-"))
            assert recipe.but(**OFF) == (whole if is_whole else plain), name


def test_the_controls_first_stage_differs_in_its_statistics_alone():
    for profile in ("quick", "photo"):
        recipe = {row.name: row.recipes[profile] for row in PAPER.rows_at(profile)}
        control = recipe["simsiam-recomputed-first"]
        assert control.recompute_statistics
        assert control.but(recompute_statistics=False) == recipe["simsiam-first"]
        assert recipe["simsiam-recomputed"] == recipe["simsiam"]
    # the question is about statistics that the second stage keeps
    assert recipe["simsiam"].batchnorm == "frozen"
    first, second = (PAPER.row(f"simsiam-recomputed{end}") for end in ("-first", ""))
    assert second.after == first.name
    assert first.options == PAPER.row("simsiam-first").options
    assert second.options == PAPER.row("simsiam").options


def test_options_switch_gates_and_loss():
    gates = {
        row.name: tuple(
            options(row.name)[name] for name in ("channel", "spatial", "triplet")
        )
        for row in PAPER.rows
        if row.method == "attention"
    }
    assert gates == {
        "channel": (True, False, False),
        "spatial": (False, True, False),
        "attention": (True, True, False),
        "attention-usual": (True, True, False),
        "attention-blocks": (True, True, False),
        "triplet": (False, False, True),
        "no-attention": (False, False, True),
        "no-triplet": (True, True, False),
        **dict.fromkeys(
            (
                "all",
                "no-mixup",
                "no-cutmix",
                "no-smoothing",
                "no-rotation",
                "all-tenth",
                "all-quarter",
                "all-half",
                "efficientnet",
            ),
            (True, True, True),
        ),
    }
    assert [row.name for row in PAPER.rows if row.options.get("start") == "usual"] == [
        "attention-usual"
    ]
    assert [row.name for row in PAPER.rows if row.options.get("where") == "blocks"] == [
        "attention-blocks"
    ]


def test_recipes_say_what_the_paper_says():
    for row in PAPER.rows_at("paper"):
        recipe = row.recipes["paper"]
        # a first stage, and controls that must not stop early
        if row.options.get("part") == "pretrain" or row.name.endswith("-long"):
            assert not recipe.patience
            continue
        assert (
            recipe.optimiser,
            recipe.schedule,
            recipe.image_size,
            recipe.train_on,
        ) == ("adam", "cyclic", 448, "train")
        assert recipe.patience
        assert recipe.backbone == {
            "efficientnet": "efficientnet_b0",
            "vit": "vit_b_16",
        }.get(row.name, "resnet50")
    quick = feng.PAPER.row("plain").recipes["quick"]
    assert PAPER.row("plain").recipes["quick"] == quick
    for profile in ("quick", "photo"):
        plain, adam = (PAPER.row(name).recipes[profile] for name in ("plain", "adam"))
        assert (adam.optimiser, adam.schedule, adam.epochs) == (
            "adam",
            "cyclic",
            plain.epochs,
        )
        # at photo nothing is held out that could say when to stop
        watched = adam.train_on == "train"
        assert (0 < adam.patience < plain.epochs) == watched == (profile == "quick")


def test_claims_and_questions_name_rows_that_measure_what_they_judge():
    assert PAPER.tables == ()
    assert all(claim.printed_effect is None for claim in PAPER.claims)
    for claim in (*PAPER.claims, *gautam.QUESTIONS, *gautam.LOOKS):
        rows = [PAPER.row(name) for name in (claim.better, claim.worse)]
        assert all("photo" in row.recipes for row in rows)
        kind = claim.metric.split("_")[0]
        assert all(kind == "top1" or kind in row.measures for row in rows), claim.key
    assert len({claim.key for claim in (*PAPER.claims, *gautam.QUESTIONS)}) == len(
        PAPER.claims
    ) + len(gautam.QUESTIONS)


def test_a_run_that_chapters_share_is_measured_for_all_of_them():
    plain = runs.resolve("gautam", "plain")
    assert (
        plain.key
        == runs.resolve("feng", "plain").key
        == runs.resolve("liang", "plain").key
    )
    for overrides in ({}, {"epochs": 1}):
        wanted = [
            measures.wanted(runs.resolve(paper, "plain", overrides=overrides))
            for paper in ("gautam", "feng", "liang")
        ]
        assert wanted[0] == wanted[1] == wanted[2] >= {"robust", "margin"}
    assert (
        measures.wanted(runs.resolve("gautam", "no-mixup"))
        == measures.wanted(runs.resolve("feng", "hybrid"))
        == set()
    )
    assert set(gautam.MAIN) < {row.name for row in PAPER.rows}


def test_each_component_has_three_tries_and_the_row_is_one_of_them():
    tuning = PAPER.tuning["photo"]
    for name, tries in tuning.tries.items():
        # whole methods have the same four, which are about rates and lengths
        assert len(tries) == (4 if name in ("plain", "all") else 3)
        tried = []
        for _, recipe, options in tuning.of(PAPER.row(name)):
            if dict(recipe.loss_weights) == {"triplet": 1.0}:  # 1 is the default
                recipe = recipe.but(loss_weights=())
            tried.append((recipe, options))
        assert all(tried.count(one) == 1 for one in tried)
        row = PAPER.row(name)
        chosen = [row.options, row.options | {"start": "identity"}]  # the default
        recipe = row.recipes["photo"].but(train_on="train")
        assert any((recipe, options) in tried for options in chosen), name


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Records of three rows at the photo profile (shrunk), two seeds."""
    with samples.trained(
        tmp_path_factory.mktemp("gautam"),
        "gautam",
        ("plain", "attention", "all"),
        {"train": 9, "val": 3, "test": 5},
        TINY,
    ) as found:
        yield found


def test_rows_train_and_their_claims_are_judged(found):
    by_row = {
        name: [record for record in found if record["row"] == name]
        for name in ("plain", "attention", "all")
    }
    assert [len(rows) for rows in by_row.values()] == [2, 2, 2]
    for record in by_row["all"]:
        log = (runs.paths.runs() / record["key"] / "log.jsonl").read_text().splitlines()
        assert set(json.loads(log[-1])["losses"]) == {"image", "triplet"}
    about = {claim.key: claim for claim in PAPER.claims}
    verdict = verdicts.verdict(about["C1"], by_row["attention"], by_row["plain"])
    assert verdict.outcome != "not run"
    assert (
        verdict.effect.seeds,
        verdict.effect.images,
    ) == (2, 15)
    gates = by_row["attention"][0]["parameters"] - by_row["plain"][0]["parameters"]
    # a perceptron of 192, 12 and 192 units, a 7 x 7 convolution of two maps, BatchNorm
    assert gates == 2 * 192 * 12 + 2 * 49 + 2


def test_damage_and_margins_are_kept_beside_the_records(found):
    first = {
        name: next(record for record in found if record["row"] == name)
        for name in ("plain", "attention", "all")
    }
    for name, record in first.items():
        kept = records.load_predictions(record)
        for metric in (
            "robust_noise",
            "robust_occlusion",
            "robust_distortion",
            "robust_change",
        ):
            assert kept[metric].shape == (15,)
            assert np.isfinite(kept[metric]).all()
        assert kept["robust"].mean() == pytest.approx(
            kept["damaged"][1:].mean(), abs=1e-6
        )
        measured = "margin" in PAPER.row(name).measures
        assert ("margin" in kept) == ("classes" in record["metrics"]) == measured
    network, data = runs.model(runs.of(first["all"]), device="cpu")
    from fgbook.evaluation import robustness

    recipe = Recipe.of(first["all"]["recipe"])
    embeddings = robustness.embeddings(network, data.test, recipe)
    margins = robustness.margins(embeddings, data.test.labels)
    assert first["all"]["metrics"]["classes"] == pytest.approx(
        robustness.class_ratio(embeddings, data.test.labels), rel=1e-3
    )
    np.testing.assert_allclose(
        records.load_predictions(first["all"])["margin"], margins, atol=1e-3
    )
    found_again = robustness.measure(
        network, data.test, recipe, robustness.IMAGES["photo"]
    )
    np.testing.assert_array_equal(
        records.load_predictions(first["all"])["robust"], found_again["robust"]
    )
