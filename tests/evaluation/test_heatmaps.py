"""Measures of heat maps against their definitions, on maps whose answer is known and on
a network; from a run to the table."""

import re

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import samples
from fgbook import papers
from fgbook.data.dataset import Split
from fgbook.errors import InputError
from fgbook.evaluation import heatmaps
from fgbook.evidence import records, runs, verdicts
from fgbook.figures import heatmaps as drawn
from fgbook.images import augment
from fgbook.methods import build
from fgbook.recipe import Recipe

RECIPE = Recipe(
    image_size=28,
    store_size=32,
    low_side=10,
    resolution="low",
    backbone="small",
    weights="none",
)


def network(classes: int = 3):
    torch.manual_seed(0)
    model = build("plain", classes, RECIPE, {}).eval()
    torch.nn.init.normal_(model.image_head.weight)
    return model


def split(count: int = 5) -> Split:
    images = torch.randint(
        0,
        256,
        (count, 3, 32, 32),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
    return Split(images, torch.arange(count) % 3, [f"{i}.png" for i in range(count)])


def test_maps_whose_measures_are_known():
    even, point, corner = (
        torch.full((10, 20), 3.0),
        torch.zeros(10, 20),
        torch.zeros(10, 20),
    )
    point[4, 7] = 8.0
    corner[:5, :10] = 6.0
    found = heatmaps.measures(
        torch.stack([even, point, corner]), torch.tensor([[1.0, -1.0]] * 3)
    )
    torch.testing.assert_close(found["area"], torch.tensor([1, 1 / 200, 1 / 4]))
    torch.testing.assert_close(found["half"], torch.tensor([1, 1 / 200, 1 / 4]))
    torch.testing.assert_close(
        found["strength"], torch.tensor([3, 8 / 200, 6 / 4]).log2()
    )
    torch.testing.assert_close(
        found["relative"], (torch.tensor([3, 8 / 200, 6 / 4]) / 2).log2()
    )


def test_a_louder_network_is_stronger_but_not_larger_and_not_stronger_for_its_logits():
    """Logits times 2 make all squared distances times 4; a number added to all logits
    changes no probability."""
    maps, logits = torch.rand(4, 9, 9), torch.randn(4, 5)
    quiet, loud = (
        heatmaps.measures(maps, logits),
        heatmaps.measures(4 * maps, 2 * logits + 7),
    )
    for name, more in (("area", 0), ("half", 0), ("strength", 2), ("relative", 0)):
        torch.testing.assert_close(loud[name], quiet[name] + more, rtol=1e-4, atol=1e-5)


def test_a_dead_network_has_finite_measures():
    found = heatmaps.measures(torch.zeros(2, 4, 4), torch.zeros(2, 3))
    assert all(values.isfinite().all() for values in found.values())


def test_agreement_with_exact_maps():
    exact, noise = torch.rand(3, 8, 9), torch.rand(3, 8, 9)
    found = heatmaps.agreement(exact + 0.5 * noise, exact)
    for i in range(3):
        a, b = (exact + 0.5 * noise)[i].flatten().numpy(), exact[i].flatten().numpy()
        assert found["rank"][i].item() == pytest.approx(
            spearmanr(a, b).statistic, abs=1e-6
        )
        assert found["error"][i].item() == pytest.approx(
            np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-5
        )
    same = heatmaps.agreement(exact, exact)
    assert (same["error"] == 0).all()
    assert torch.allclose(same["rank"], torch.ones(3, dtype=torch.float64))


def test_samples_are_fixed_nested_and_spread():
    small, large = heatmaps.sample(1000, 50), heatmaps.sample(1000, 200)
    assert len(set(small.tolist())) == 50
    assert set(small.tolist()) < set(large.tolist())
    assert small.equal(small.sort().values)
    # not the first ones, which are all of one class
    assert 350 < small.double().mean() < 650
    assert heatmaps.sample(3, 50).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("side", "wanted"), ((0.5, 1), (1.9, 1), (2, 3), (12, 13), (13.9, 13), (26.67, 27))
)
def test_patches_have_a_pixel_in_their_middle(side, wanted):
    assert heatmaps.odd(side) == wanted


@torch.no_grad()
def test_measures_of_a_network_pixel_by_pixel():
    """Three of five images, seen at low resolution, with a grey square round every
    third pixel."""
    model, about, count = network(), split(), 3
    found = heatmaps.measure(model, about, RECIPE, count)
    known = heatmaps.sample(5, count).tolist()
    assert set(found) == {"heat_area", "heat_half", "heat_strength", "heat_relative"}
    for values in found.values():
        assert values.shape == (5,)
        assert values.dtype == np.float32
        assert np.flatnonzero(np.isfinite(values)).tolist() == known
    low = augment.degrade(augment.centre(about.images, 28), 10, "bicubic")
    for i in known:
        logits, values = model.predict(low[i : i + 1]), []
        # 28 / 14 = 2, of which the odd neighbour is 3 (a tie goes up)
        for y in range(1, 28, 3):
            for x in range(1, 28, 3):
                copy = low[i].clone()
                # 28 / 6 = 4.67, of which the odd neighbour is 5
                copy[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 128 / 255
                values.append(
                    (model.predict(copy[None]) - logits).square().sum().item()
                )
        values = np.array(values)
        assert found["heat_area"][i] == pytest.approx(
            values.sum() ** 2 / (len(values) * (values**2).sum()), rel=1e-4
        )
        assert found["heat_half"][i] == pytest.approx(
            (values > values.max() / 2).mean()
        )
        assert found["heat_strength"][i] == pytest.approx(
            np.log2(values.mean()), rel=1e-4, abs=1e-4
        )
        length = ((logits - logits.mean()) ** 2).sum().item()
        assert found["heat_relative"][i] == pytest.approx(
            np.log2(values.mean() / length), rel=1e-4, abs=1e-4
        )


def test_high_resolution_where_there_is_no_other():
    recipe, model, about = RECIPE.but(low_side=0, resolution="high"), network(), split()
    torch.testing.assert_close(
        heatmaps.views(about, torch.tensor([4, 2]), recipe, torch.device("cpu")),
        augment.centre(about.images[[4, 2]], 28),
    )
    assert (
        heatmaps.measure(model, about, recipe, 5)["heat_strength"]
        != heatmaps.measure(model, about, RECIPE, 5)["heat_strength"]
    ).all()


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="no images"):
        heatmaps.measure(network(), split(0), RECIPE, 3)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two classes of PNG files in train, val and test folders."""
    for name in ("RUNS", "RESULTS", "DATA"):
        monkeypatch.setenv(f"FGBOOK_{name}", str(tmp_path / name.lower()))
    runs._load.cache_clear()
    return samples.folder(tmp_path / "set", count={"train": 8, "val": 2, "test": 3})


def test_from_a_run_to_the_table(pictures):
    """The rows that the claims compare measure their maps, others do not; the table and
    the drawings say what the records hold."""
    small = {
        "image_size": 24,
        "store_size": 24,
        "low_side": 8,
        "epochs": 1,
        "batch_size": 8,
        "weights": "none",
        "fraction": 1.0,
    }
    found = [
        runs.execute(
            runs.resolve("peng", row, "quick", pictures, seed, small), progress=False
        )
        for seed in (0, 1)
        for row in ("low", "high-low")
    ]
    high = records.find(runs.resolve("peng", "high", "quick", pictures, 0, small).key)
    assert not [
        name for name in records.load_predictions(high) if name.startswith("heat")
    ]
    kept = {(r["row"], r["seed"]): records.load_predictions(r) for r in found}
    model, data = runs.model(runs.of(found[1]))
    again = heatmaps.measure(
        model, data.test, runs.of(found[1]).recipe, heatmaps.IMAGES["quick"]
    )
    for name, values in again.items():
        np.testing.assert_allclose(kept["high-low", 0][name], values, rtol=1e-4)
    staged, low = (
        np.stack([kept[row, seed]["heat_area"] for seed in (0, 1)])
        for row in ("high-low", "low")
    )
    effect = verdicts.compare(
        [r for r in found if r["row"] == "high-low"],
        [r for r in found if r["row"] == "low"],
        "heat_area",
    )
    assert effect.effect == pytest.approx((staged - low).mean())
    assert effect.low < effect.effect < effect.high
    assert (effect.seeds, effect.images) == (2, 6)

    spans = re.findall(
        r'data-field="([^"]+)"[^>]*>([^<]+)<', drawn.statistics_table(found).html
    )
    assert ("mean heat_area", f"{staged.mean():.3f}") in spans
    assert (
        "mean heat_area",
        f"{low.mean():.3f}",
    ) in spans
    assert (
        "effect heat_area",
        f"{effect.effect:+.3f}",
    ) in spans
    assert "illustration" in drawn.statistics_table(found).html
    assert "not run" in drawn.statistics_table([]).text
    recipe, models = (
        runs.of(found[1]).recipe,
        {
            "low only": runs.model(runs.of(found[0]))[0],
            "high, then low": model,
        },
    )
    shown = drawn.maps_figure(models, data, recipe, 2)
    assert shown.html.count("<svg") == 1
    assert "low only, area" in shown.html
    assert "high, then low, area" in shown.html
    strides = drawn.strides_table(models, data, recipe, [5], 1).text.splitlines()
    assert re.search(r"1 +576 +0\.00 +1\.00 +\+0\.000 +\+0\.00", strides[2])
    assert re.search(r"5 +25 +0\.[0-9]*[1-9]", strides[3])
    patches = drawn.patches_table(models, data, recipe, [1 / 6, 0.3], 64).text
    assert f"{np.mean(again['heat_area']):.3f}" in patches
    assert "5 of 24 px" in patches
    assert "7 of 24 px" in patches


def test_rows_and_claims_fit():
    """Every claim about heat maps is about rows that measure them, by a measure that
    there is."""
    paper = papers.get("peng")
    claims = [claim for claim in paper.claims if claim.metric.startswith("heat_")]
    assert {"E6a", "E6b"} <= {claim.key for claim in claims}
    for claim in claims:
        assert claim.metric.removeprefix("heat_") in heatmaps.MEASURES
        assert all(
            "heat" in paper.row(name).measures for name in (claim.better, claim.worse)
        )
