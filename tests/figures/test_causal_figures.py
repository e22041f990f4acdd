"""Tables and pictures of the causal evaluation: intervals that cover, and text that
says what is drawn.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fgbook.data import fieldguide
from fgbook.evaluation import causal
from fgbook.evaluation.causal import Scores
from fgbook.figures import causal as drawn

SIZE = 40
NAMES = fieldguide.species_names()


class Colours(nn.Module):
    """Names a picture by a random linear look at it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Linear(3 * SIZE * SIZE, 20)

    def predict(self, images):
        return self.look(images.flatten(1))


@pytest.fixture(scope="module")
def pairs():
    return causal.experiment(SIZE, 8)


@pytest.fixture(scope="module")
def scores(pairs):
    maps = {"brightness": lambda images, _: images.mean(1)}
    found = causal.score(Colours(), pairs, maps)
    return replace(found, refused={"CAM": "it has no head."})


# ---- intervals


def test_one_training_and_all_scenes_is_a_mean_with_students_interval():
    torch.manual_seed(0)
    values = torch.rand(200)
    found = drawn.estimate([values])
    assert math.isclose(found.mean, float(values.mean()), abs_tol=1e-6)
    half = 1.972 * float(values.std()) / 200**0.5
    assert half < (found.high - found.low) / 2 < 1.1 * half


def test_the_interval_covers_with_scenes_that_are_missing():
    """1000 studies of 3 trainings and 60 scenes, of which a third is missing more often
    where the numbers are small: 95 % hold the truth, or more."""
    generator = np.random.default_rng(0)
    hits, studies, truth = 0, 1000, None
    of_training, of_scene = 0.04, 0.1

    def study(scenes, trainings):
        ease = generator.normal(0, of_scene, scenes)
        level = generator.normal(0, of_training, (trainings, 1))
        rest = generator.normal(0, 0.1, (trainings, scenes))
        values = 0.5 + ease + level + rest
        there = generator.random((trainings, scenes)) < 0.66 + ease
        return np.where(there, values, np.nan)

    truth = np.nanmean(study(400_000, 20))
    for _ in range(studies):
        found = drawn.estimate([torch.from_numpy(row) for row in study(60, 3)])
        hits += found.low <= truth <= found.high
    assert hits / studies > 0.93


def test_networks_share_what_is_known_of_trainings():
    """Five networks, of which four have few trainings: the true mean is within the
    interval of each as often as it should be, also of the one that was trained once."""
    generator = np.random.default_rng(1)
    hits, studies = np.zeros(5), 300
    for _ in range(studies):
        ease = generator.normal(0, 0.1, 50)
        cells = []
        for trainings in (1, 2, 2, 3, 3):
            level = generator.normal(0, 0.05, (trainings, 1))
            rest = generator.normal(0, 0.1, (trainings, 50))
            cells.append([torch.from_numpy(r) for r in 0.5 + ease + level + rest])
        for k, found in enumerate(drawn.estimates(cells)):
            hits[k] += found.low <= 0.5 <= found.high
    assert (hits / studies > 0.92).all()
    alone = drawn.estimate(cells[0])
    assert found.high - found.low > 0
    assert drawn.estimates(cells)[0].low < alone.low  # trainings would differ


def test_a_difference_covers_both_rows():
    generator = np.random.default_rng(2)
    hits, studies = 0, 300
    for _ in range(studies):
        ease, other = generator.normal(0, 0.1, (2, 50))
        rows = []
        for mean, of_scene in ((0.2, ease), (0.5, ease + other)):
            level = generator.normal(0, 0.05, (3, 1))
            rest = generator.normal(0, 0.1, (3, 50))
            rows.append([torch.from_numpy(r) for r in mean + of_scene + level + rest])
        found = drawn.difference(*rows, drawn.spreads_of(rows))
        hits += found.low <= 0.3 <= found.high
        means = [float(torch.stack(row).mean()) for row in rows]
        assert found.mean == pytest.approx(means[1] - means[0], abs=1e-9)
    assert hits / studies > 0.92


def test_there_is_no_interval_of_nothing():
    nothing = drawn.estimate([torch.full((5,), torch.nan)])
    assert nothing.text() == "–"
    assert nothing.signed() == "–"
    one = drawn.estimate([torch.tensor([torch.nan, 0.25])])
    assert one.text() == "0.25"
    sure = drawn.estimate([torch.tensor([0.0, 0.0, 0.1])])
    assert sure.low == 0.0  # a share is not below 0


# ---- tables


def test_tables_say_what_was_found(scores):
    found = {"one": [scores, scores], "two": [scores, scores]}
    table = drawn.network_table(found)
    right = float(scores.network["right"].mean())
    assert f"{right:.2f} (" in table.text
    assert "8 scenes, 2 trainings a network" in table.text
    assert "other scenes and trainings" in table.text
    assert "fgbook-illustration" in table.html

    maps = drawn.maps_table(found)
    for title in drawn.CONTROLS.values():
        assert maps.html.count(f"<td>{title}</td>") == 1
    assert maps.html.count("<td>brightness</td>") == 2
    assert "Not to be had: CAM of one, CAM of two." in maps.text
    effects = drawn.of_maps([scores, scores], "brightness", "effects")
    assert effects.text() in maps.html


def test_parts_of_photographs():
    assert "Not run yet" in drawn.parts_table(None).text
    torch.manual_seed(0)
    edits = {edit: {"CAM": torch.rand(20)} for edit in ("deleted", "swapped")}
    shown = drawn.parts_table({**edits, "both": {"effects": torch.rand(20)}})
    for edit in edits.values():
        assert f"{float(edit['CAM'].mean()):.2f} (" in shown.text
    assert "20 test pictures" in shown.text


# ---- pictures


def test_pairs_that_follow_are_shown(pairs, monkeypatch):
    model = Colours()
    maps = {"brightness": lambda images, _: images.mean(1)}
    monkeypatch.setattr(causal, "causes", lambda *_: torch.ones(8, 2) > 0)
    shown = drawn.pairs_figure(model, pairs, maps, NAMES, 2)
    assert "2 drawn birds" in shown.html
    assert NAMES[int(pairs.siblings[0, 0])] in shown.html
    monkeypatch.setattr(causal, "causes", lambda *_: torch.zeros(8, 2) > 0)
    nothing = drawn.pairs_figure(model, pairs, maps, NAMES, 2)
    assert "In none of the scenes" in nothing.text


def test_a_shortcut_is_drawn_with_all_its_numbers(scores):
    shown = drawn.shortcut_figure({0: [scores], 1.0: [scores]})
    ground = drawn.of_maps([scores], "brightness", "ground").text()
    assert f"brightness: 0 %: {ground}, 100 %: {ground}" in shown.html
    assert "follows the background: 0 %:" in shown.html


def test_an_explanation_that_notices_is_told_from_one_that_does_not():
    def network(follows, sharp):
        ground = {"sharp": torch.full((40,), sharp), "blind": torch.rand(40)}
        return Scores(
            {"planted": torch.full((40,), follows)},
            {name: {"ground": values} for name, values in ground.items()},
            {},
            torch.zeros(40, 15),
        )

    torch.manual_seed(0)
    networks = {0.0: [network(0.1, 0.3)], 0.5: [network(0.4, 0.3)]}
    said = drawn.shortcut_finding({**networks, 1.0: [network(0.9, 0.5)]}).text
    assert "in 0.10 (0.10 to 0.10) of the pictures without" in said
    assert "and in 0.90 (0.90 to 0.90) with the largest" in said
    assert "of those that notice it: sharp +0.20" in said
    assert "of those that do not, that we can tell: blind" in said


def test_trainings_with_and_without_a_shortcut_are_no_pairs():
    """Whatever their seeds, and however many: two levels that lie far apart on both
    sides leave a small difference open."""

    def network(ground):
        maps = {"CAM": {"ground": torch.full((40,), ground)}}
        return Scores({"planted": torch.zeros(40)}, maps, {}, torch.zeros(40, 15))

    least, most = [network(0.1), network(0.5)], [network(0.2), network(0.6)]
    for some in (most, most[:1], [*most, network(0.4)]):
        said = drawn.shortcut_finding({0.0: least, 1.0: some}).text
        change = drawn.more_ground(least, some, "CAM").signed()
        assert f"do not, that we can tell: CAM {change}" in said


def test_effects_are_drawn_for_each_change(scores):
    shown = drawn.effects_figure({"one": [scores], "two": [scores, scores]})
    for k, name in enumerate(causal.EDITS):
        mean = float(scores.effects[:, k].nanmean())
        assert shown.html.count(f"{name} {mean:.2f}") >= 2
