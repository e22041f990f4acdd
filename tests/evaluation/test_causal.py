"""The causal evaluation: right explanations score 1, wrong ones as chance, and each
number is that of a slow computation.
"""

import re

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import nn

from fgbook import paths
from fgbook.data import fieldguide, species
from fgbook.errors import InputError
from fgbook.evaluation import blame, causal
from fgbook.evaluation.explanation import TOLERANCE

SIZE = 48


@pytest.fixture(scope="module")
def pairs():
    return causal.experiment(SIZE, 60, store=54)


class Oracle(nn.Module):
    """Knows each picture of the experiment and who is in it, as a lookup: a network
    that follows every change of species and nothing else."""

    def __init__(self, pairs, blind_to=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.known = {}
        for i in range(len(pairs)):
            for k in range(pairs.images.shape[1]):
                named = int(pairs.labels[i])
                for which in (0, 1):
                    if k == int(pairs.telling[i, which]) and which not in blind_to:
                        named = int(pairs.siblings[i, which])
                picture = self.hash(pairs.images[i, k].float() / 255)
                self.known.setdefault(picture, named)

    @staticmethod
    def hash(image):
        return (image * 255).round().to(torch.uint8).numpy().tobytes()

    def predict(self, images):
        named = torch.tensor([self.known[self.hash(image)] for image in images])
        return nn.functional.one_hot(named, 20).float() * 5 + self.weight


def the_causes(pairs, which=0):
    return pairs.changed[torch.arange(len(pairs)), pairs.telling[:, which]]


# ---- the experiment


def test_the_scenes_are_the_test_pictures(pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path))
    data = fieldguide.load(54, per_class=(1, 1, 3))
    assert torch.equal(data.test.labels, pairs.labels)
    cut = data.test.images[..., 3:51, 3:51]
    assert torch.equal(cut, pairs.images[:, 0])
    assert torch.equal(data.test.masks[:, 3:51, 3:51] > 0, pairs.birds)


def test_edits_are_what_they_are_called(pairs):
    table = species.table("target", 20)
    assert pairs.images.shape[1] == 1 + len(causal.EDITS)
    assert not pairs.changed[:, 0].any()
    for i in range(20):
        for which in (0, 1):
            told = causal.EDITS[int(pairs.telling[i, which]) - 1]
            one = table.values[pairs.labels[i]]
            other = table.values[pairs.siblings[i, which]]
            assert [species.ATTRIBUTES[k] for k in (one != other).nonzero()] == [told]
    # another background is always another one, and it is the planted one of the species
    assert pairs.changed[:, -1].flatten(1).any(1).all()
    genus = species.SIBLINGS
    assert torch.equal(pairs.planted // genus, pairs.labels // genus)
    assert not (pairs.planted == pairs.labels).any()


def test_a_network_that_knows_follows_every_visible_change(pairs):
    logits = causal.answers(Oracle(pairs), pairs)
    found = causal.reactions(logits, pairs)
    assert found["right"].mean() == 1
    # two edits of one scene can be the same picture, when both are hidden
    assert found["follows"].nanmean() > 0.99
    for name in ("other", "perch", "background", "planted"):
        assert found[name].nanmean() == 0, name


def test_a_network_that_sees_one_contrast_follows_half(pairs):
    found = causal.reactions(causal.answers(Oracle(pairs, (1,)), pairs), pairs)
    assert 0.4 < found["follows"].nanmean() < 0.6


def test_effects_are_changes_of_log_odds(pairs):
    torch.manual_seed(0)
    logits = torch.randn(len(pairs), 1 + len(causal.EDITS), 20)
    found = causal.effects(logits, pairs)
    for i in range(5):
        k = int(logits[i, 0].argmax())
        odds = logits[i].double().softmax(1)[:, k].logit()
        for edit in range(len(causal.EDITS)):
            if pairs.changed[i, edit + 1].any():
                moved = abs(odds[edit + 1] - odds[0])
                assert abs(found[i, edit] - moved) < 1e-4
            else:
                assert found[i, edit].isnan()


# ---- explanations that are known to be right or wrong


def test_the_cause_itself_scores_one_and_what_knows_nothing_scores_chance(pairs):
    torch.manual_seed(0)
    one = Oracle(pairs, blind_to=(1,))  # the first contrast is the only cause
    causes = the_causes(pairs)
    explanations = {
        "the cause": causes.float(),
        "uniform": torch.ones(len(pairs), SIZE, SIZE),
        "nothing": torch.zeros(len(pairs), SIZE, SIZE),
        "noise": torch.rand(len(pairs), SIZE, SIZE),
        "of another scene": causes.float().roll(7, 0),
        "the rest": (~causes).float(),
    }
    order = {
        Oracle.hash(pairs.views(torch.tensor([i]))[0]): i for i in range(len(pairs))
    }

    def lookup(maps):
        def explain(images, classes):
            return maps[[order[Oracle.hash(image)] for image in images]]

        return explain

    known = {name: lookup(maps) for name, maps in explanations.items()}
    scores = causal.score(one, pairs, known)
    mean = {
        name: {k: float(v.nanmean()) for k, v in found.items()}
        for name, found in {**scores.maps, **scores.controls}.items()
    }
    area = float(causes[scores.maps["uniform"]["energy"].isfinite()].float().mean())

    for measure in blame.MEASURES:
        assert mean["the cause"][measure] == 1, measure
        assert mean["the rest"][measure] < 0.2, measure
    for name in ("uniform", "nothing", "noise", "even"):
        assert abs(mean[name]["energy"] - area) < 0.01, name
        assert abs(mean[name]["rank"] - 0.5) < 0.02, name
        assert abs(mean[name]["within"] - 0.5) < 0.03, name
        assert mean[name]["pointing"] < 0.15, name
    assert mean["uniform"]["rank"] == mean["uniform"]["within"] == 0.5
    # They know that there is a bird, and where details are; nothing about the network.
    # To know the bird is worth more than all of them.
    for name in ("of another scene", "centre", "edges", "random box"):
        assert mean[name]["energy"] < mean["bird"]["energy"] < 0.15, name
        assert mean[name]["rank"] < mean["bird"]["rank"] < 0.9, name
        assert mean[name]["within"] < 0.66, name
    assert 0.4 < mean["bird"]["within"] <= 0.5
    assert scores.maps["the cause"]["energy"].isfinite().sum() > 40


def test_pictures_without_a_cause_count_for_nothing(pairs):
    stubborn = Oracle(pairs, blind_to=(0, 1))
    scores = causal.score(
        stubborn, pairs, {"even": lambda x, _: torch.ones(len(x), 3, 3)}
    )
    for measure in blame.MEASURES:
        assert scores.maps["even"][measure].isnan().all()
    assert scores.maps["even"]["ground"].isfinite().all()


# ---- measures against slow references


def test_rank_is_the_share_of_pairs_in_the_right_order():
    torch.manual_seed(0)
    maps = torch.randint(0, 4, (6, 7, 7)).float()  # with ties
    causes = torch.rand(6, 7, 7) < 0.2
    some = causes | (torch.rand(6, 7, 7) < 0.4)
    for among in (torch.ones_like(causes), some):
        found = blame.rank(maps, causes, among)
        for i in range(6):
            inside, outside = maps[i][causes[i]], maps[i][among[i] & ~causes[i]]
            wins = [(a > b) + (a == b) / 2 for a in inside for b in outside]
            assert abs(float(found[i]) - float(torch.stack(wins).mean())) < 1e-6


def test_energy_and_pointing():
    torch.manual_seed(1)
    maps, causes = torch.randn(5, 40, 40), torch.zeros(5, 40, 40, dtype=torch.bool)
    causes[:, 10:14, 20:22] = True
    birds = torch.zeros_like(causes)
    found = blame.blame(maps, causes, birds)
    reach = round(TOLERANCE * 40)
    for i in range(5):
        image = maps[i].clamp(min=0)
        inside = image[10:14, 20:22].sum() / image.sum()
        assert abs(found["energy"][i] - inside) < 1e-6
        y, x = divmod(int(image.argmax()), 40)
        hit = 10 - reach <= y < 14 + reach and 20 - reach <= x < 22 + reach
        assert found["pointing"][i] == float(hit)
    two = torch.zeros(1, 40, 40)
    two[0, 12, 21] = two[0, 35, 3] = 1.0
    assert blame.blame(two, causes[:1], birds[:1])["pointing"] == 0.5


def test_agreement_is_spearmans():
    generator = np.random.default_rng(0)
    a = generator.integers(0, 6, (8, 15)).astype(np.float32)
    b = generator.normal(size=(8, 15)).astype(np.float32)
    b[0, 3] = a[1, 0] = a[1, 9] = np.nan
    a[2, 2:] = np.nan  # too few
    a[3] = 1  # all alike
    found = blame.agreement(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    for i in (0, 1, 4, 5, 6, 7):
        both = np.isfinite(a[i]) & np.isfinite(b[i])
        assert abs(found[i] - spearmanr(a[i][both], b[i][both])[0]) < 1e-6
    assert np.isnan(found[[2, 3]]).all()
    assert rankdata(b[4]).std() > 0


def test_a_random_box_has_the_causes_sides_and_lies_anywhere():
    causes = torch.zeros(400, 30, 30, dtype=torch.bool)
    causes[:, 4:9, 10:12] = True
    boxes = blame.random_box(causes)
    assert (boxes.sum((1, 2)) == 10).all()
    assert (boxes.amax(2).sum(1) == 5).all()
    assert (boxes.mean(0) > 0).float().mean() > 0.9
    assert not blame.random_box(causes[:1] & False).any()


def test_the_lines_in_the_chapter_work(pairs, monkeypatch):
    """With a network that is no Method, and maps of cells."""
    page = (paths.REPOSITORY / "book" / "causal.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 20))
    names = {
        "my_network": network,
        "my_maps": lambda images, classes: images.mean(1)[:, ::8, ::8],
    }
    real = causal.experiment
    monkeypatch.setattr(causal, "experiment", lambda size, count: real(size, 6))
    *before, last = lines.strip().splitlines()
    exec("\n".join(before), names)
    shown = eval(last, names)
    assert "mine" in shown.text
    assert "my network" in shown.html


# ---- what a user may get wrong


@pytest.mark.parametrize(
    "maps",
    [lambda x, _: x, lambda x, _: x[:1, 0], lambda x, _: x[:, 0] / 0, lambda *_: None],
)
def test_maps_of_another_form_are_refused(pairs, maps):
    with pytest.raises(InputError, match="an explanation gives maps \\(16, h, w\\)"):
        causal.score(Oracle(pairs), pairs, {"wrong": maps})


def test_a_network_of_other_classes_is_refused(pairs):
    class Other(Oracle):
        def predict(self, images):
            return super().predict(images)[:, :7]

    with pytest.raises(InputError, match="tells 7 classes"):
        causal.score(Other(pairs), pairs, {})


def test_an_experiment_needs_scenes():
    for settings in ({"count": 0}, {"size": 48, "store": 40}):
        with pytest.raises(InputError, match="at least 1 scene"):
            causal.experiment(**settings)
