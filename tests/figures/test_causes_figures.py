"""The causal table: numbers and words are those of the scores that it is made from."""

import re

import pytest
import torch

from fgbook.evaluation.causal import EDITS, Scores
from fgbook.figures import causal
from fgbook.figures import causes as drawn

SCENES = 30
MEASURES = ("energy", "pointing", "rank", "within", "ground", "effects")


def scores(right=0.8, planted=0.1, maps=None, seed=0):
    """A training with shares that are right on average, and maps with constant
    measures.
    """
    generator = torch.Generator().manual_seed(seed)

    def share(value):
        return (torch.rand(SCENES, generator=generator) < value).float()

    def constant(value):
        noise = 0.01 * torch.rand(SCENES, generator=generator)
        return {name: value + noise for name in MEASURES}

    reactions = {name: share(0.1) for name in ("other", "perch", "background")}
    reactions |= {"right": share(right), "follows": share(right)}
    reactions |= {"planted": share(planted)}
    found = {name: constant(v) for name, v in (maps or {"CAM": 0.3}).items()}
    blind = {name: constant(0.1) for name in ("bird", "edges", "even")}
    return Scores(reactions, found, blind, torch.rand(SCENES, len(EDITS)))


@pytest.fixture
def table():
    sharp = {"CAM": 0.3, "occlusion": 0.05, "own boxes": 0.1, "rollout": 0.4}
    return {
        ("plain", 0): [scores(seed=k) for k in range(3)],
        ("plain", 100): [scores(0.3, 0.8, {"CAM": 0.5}, seed=9)],
        ("transfg", 0): [scores(maps=sharp, seed=k) for k in range(2)],
    }


def line(network, share):
    return {"key": network, "network": network, "share": share, "command": "x"}


def test_a_line_a_network_and_a_cell_an_explanation(table):
    lines = [line("plain", 0), line("plain", 100), line("transfg", 0)]
    shown = drawn.measure_table(table, "energy", lines)
    cells = re.sub(r"</?span[^>]*>", "", shown.html)
    both = [table["plain", 0], table["transfg", 0]]
    plain, transfg = (one.text() for one in drawn.of_each(both, "CAM", "energy"))
    assert cells.count(f"<td><b>{plain}</b></td>") >= 1  # more than the bird's
    assert f"<td><b>{transfg}</b></td>" in cells
    boxes, best, below = (
        drawn.of_each(both[1:], name, "energy")[0].text()
        for name in ("own boxes", "rollout", "occlusion")
    )
    assert f"boxes: {boxes}<br>rollout: <b>{best}</b></td>" in cells
    assert f"<td>{below}</td>" in cells
    assert "30 scenes, 2 to 3 trainings a network" in shown.text
    assert shown.html.count("<li ") == 2  # not the shortcut's
    within = drawn.measure_table(table, "within")
    assert "<b>" not in within.html  # all below one half
    assert "above chance" in within.html
    follows = causal.of_networks(both, "follows")
    reactions = drawn.reactions_table(table)
    assert follows[0].text() in reactions.text
    assert follows[1].text() in reactions.text


def test_a_number_says_which_lines_it_is_the_mean_of(table):
    lines = [line("plain", 0), line("plain", 100), line("transfg", 0)]
    shown = drawn.measure_table(table, "energy", lines)
    found = re.findall(r'data-field="([^"]*)" data-records="([^"]*)"', shown.html)
    of_transfg = [field for field, keys in found if keys == "transfg"]
    maps = ("edges", "bird", "CAM", "occlusion", "own boxes", "rollout")
    assert of_transfg == [f"causal energy {name}" for name in maps]
    short = drawn.in_short(table, "plain", lines)
    assert short.html.count('data-field="causal planted"') == 2
    assert short.html.count("<li ") == 2
    assert "span" not in short.text
    assert "data-field" not in drawn.in_short(table, "plain").html


def test_a_dose_is_put_in_words(table):
    said = drawn.dose(table, "plain").text
    assert "The planted background is followed:" in said
    assert said.count("beyond its interval in 1 of 1") == 3
    assert "it rises with every step" in said
    assert said.count("it falls with every step") == 2
    table["plain", 50] = [scores(0.95, 0.0, seed=4)]
    said = drawn.dose(table, "plain").text
    assert "trained with 0, 50 and 100 % planted" in said
    assert "it does not rise every time" in said
    shown = drawn.shares_table(table)
    assert shown.html.count("<td>plain</td>") == 3
    assert "transfg" not in shown.html  # was not trained with a shortcut
    assert "planted background" in drawn.dose_figure(table, "plain").html


def test_who_notices_is_told_apart(table):
    said = drawn.noticing(table, "plain").text
    assert "CAM notices it: 0.30 of the map on the background, +0.20" in said
    table["plain", 100] = [scores(0.3, 0.8, {"CAM": 0.1})]
    assert "CAM goes the wrong way" in drawn.noticing(table, "plain").text


def test_the_finding_counts_networks(table):
    said = drawn.finding(table).text
    assert "2 networks, 5 trainings" in said
    assert "CAM: 0.3" in said
    assert "clearly more in 2 of 2 networks, less in 0" in said
    assert "clearly more in 0 of 1 network, less in 1" in said  # occlusion
    assert "Grad-CAM" not in said
    own = drawn.own_finding(table).text
    assert own.startswith("Own boxes: 0.1")
    blind = torch.full((SCENES,), torch.nan)
    for one in table["transfg", 0]:
        one.maps["rollout"]["energy"] = blind
    said = drawn.own_finding(table).text
    assert "Rollout: its network follows in no picture" in said


def test_in_short(table):
    said = drawn.in_short(table, "plain").text
    assert "Of 2 networks" in said
    assert "bird's mask has, which knows no network: CAM in 2 of 2" in said
    assert "occlusion in 0 of 1" in said
    follows = causal.of_network(table["plain", 100], "planted").mean
    assert f"follows the background in {follows:.2f} of the test pictures" in said
    assert said.endswith("More of itself is then there of CAM.")


def test_nothing_yet():
    for shown in (
        drawn.in_short({}, "plain"),
        drawn.reactions_table({}),
        drawn.measure_table({}, "within"),
        drawn.shares_table({}),
        drawn.finding({}),
        drawn.own_finding({}),
        drawn.dose({}, "plain"),
        drawn.dose_figure({}, "plain"),
        drawn.noticing({}, "plain"),
    ):
        assert shown.text == "Not run yet."
