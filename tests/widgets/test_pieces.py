"""Each piece to play with: the frame of some settings shows what the method, or the
evidence, itself says of them.
"""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import samples
from fgbook import explain, papers, widgets
from fgbook.backbones import create
from fgbook.errors import InputError
from fgbook.evaluation import causal, heatmaps
from fgbook.figures import regions
from fgbook.images import augment
from fgbook.methods.flrdf import Flrdf
from fgbook.methods.focus import Focus
from fgbook.methods.levels import Levels
from fgbook.methods.plain import Plain
from fgbook.recipe import Recipe
from fgbook.widgets.tiles import Picture

SIZE = 40
RECIPE = Recipe(image_size=SIZE, store_size=44, low_side=12, backbone="small")
DATA = samples.spots(8, 4, 12)


def network(kind, classes=2, **options):
    torch.manual_seed(0)
    return kind(create("small", weights="none"), classes, **options).eval()


def paths(frame):
    """The coordinates of every box that stands on a tile, tile by tile."""
    found = []
    for tile in frame.shown.split("<svg ")[1:]:
        boxes = []
        # the dark line below has a class
        for drawn in re.findall(r'<path d="([^"]+)"', tile):
            for one in drawn.rstrip("z").split("z"):
                left, top, across, down, _ = map(float, re.findall(r"-?[\d.]+", one))
                boxes.append([left, top, left + across, top + down])
        found.append(torch.tensor(boxes))
    return found


# ---- feng


@pytest.mark.parametrize("settings", [(0.2, 0.1, 1), (0.5, 0.9, 4)])
def test_regions_are_the_methods_own(settings):
    box, threshold, m = settings
    model = network(Focus)
    piece = widgets.feng.regions(model, DATA, RECIPE, many=3)
    shown = paths(piece.frame(box=box, threshold=threshold, m=m))

    other = network(Focus, m=m, l=1, threshold=threshold, box=box)
    index = torch.tensor([2, 6, 10])
    images = augment.centre(DATA.test.images[index], SIZE)
    expected = other.regions(images)
    for of_tile, boxes in zip(shown, expected, strict=True):
        # the best one is drawn last
        assert torch.allclose(of_tile.flip(0), boxes, atol=0.01)


# ---- liang


def test_one_patch_is_the_picture_and_more_are_the_same_pixels():
    views = torch.rand(2, 3, 24, 24)
    assert torch.equal(widgets.liang.shuffled(views, 1), views)
    moved = widgets.liang.shuffled(views, 4)
    assert not torch.equal(moved, views)
    assert torch.equal(moved.flatten(2).sort().values, views.flatten(2).sort().values)
    assert torch.equal(moved, widgets.liang.shuffled(views, 4))  # every time


def test_the_third_look_at_one_patch_is_the_second_and_suppression_is_a_choice():
    model = network(Flrdf, controller="fixed", bound=0.3)
    piece = widgets.liang.looks(model, DATA, RECIPE, many=1)
    whole = piece.frame(pressed=True, n=1)
    _, second, third = re.findall(r'href="(data:[^"]+)"', whole.shown)
    assert second == third
    image = augment.centre(DATA.test.images[6:7], SIZE)
    boxes = model.locate(image)
    for pressed, name in ((False, "cam"), (True, "foreground")):
        shown = paths(piece.frame(pressed=pressed, n=2))[0]
        assert torch.allclose(shown[-1], boxes[name][0], atol=0.01)
    plain = network(Flrdf, controller="none")
    (choice, _) = widgets.liang.looks(plain, DATA, RECIPE, many=1).choices
    assert not choice.is_free


# ---- gautam


def test_pictures_are_mixed_as_in_training():
    first, second = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
    labels = torch.zeros(4, dtype=torch.int64)
    recipe = Recipe(mixup=0.4)
    made, targets = augment.mix(
        first, second, labels, labels + 1, 2, torch.arange(4), recipe, seed=0, epoch=0
    )
    for i, share in enumerate(targets[:, 1].tolist()):
        pair = first[i : i + 1], second[i : i + 1]
        mine = widgets.gautam.mixed(*pair, share)
        assert torch.allclose(mine[0], made[i], atol=1e-5)


def test_without_damage_networks_see_the_pictures_themselves():
    models = {"one": network(Plain), "two": network(Plain)}
    nn.init.constant_(models["two"].image_head.bias, 0.0)
    models["two"].image_head.bias.data[1] = 9.0
    piece = widgets.gautam.damage(models, DATA, RECIPE, many=2)
    undamaged = {
        piece.frame(kind=kind, severity=0, second_share=0.0).shown
        for kind in widgets.gautam.KINDS
    }
    assert len(undamaged) == 1
    (shown,) = undamaged
    index = torch.tensor([1, 7])  # the first of each pair
    images = augment.centre(DATA.test.images[index], SIZE)
    for name, model in models.items():
        chances, named = model.predict(images).softmax(1).max(1)
        for chance, label in zip(chances.tolist(), named.tolist(), strict=True):
            assert f"{name}: {DATA.classes[label]}, {100 * chance:.0f} %" in shown
    damaged = piece.frame(kind="occlusion", severity=5, second_share=0.0)
    assert damaged.shown != shown


# ---- peng


def test_the_size_is_that_of_the_degradation():
    views = augment.centre(DATA.test.images, SIZE)
    for side in (4, 12):
        expected = augment.degrade(views, side, RECIPE.upsample)
        assert torch.equal(widgets.peng.reduced(views, side, RECIPE), expected)
    assert torch.equal(widgets.peng.reduced(views, SIZE, RECIPE), views)


def test_the_share_named_rightly_is_counted():
    class Blue(Plain):
        def predict(self, images):
            means = images.mean((2, 3))
            return means[:, :2]  # the brighter channel

    models = {"blue": network(Blue)}
    piece = widgets.peng.resolution(models, DATA, RECIPE, many=2, tested=12)
    views = augment.centre(DATA.test.images, SIZE)
    right = (views.mean((2, 3))[:, :2].argmax(1) == DATA.test.labels).float().mean()
    shown = piece.frame(side=SIZE, answers=True)
    assert f"by blue {100 * float(right):.0f} %" in shown.says
    assert "blue: ✓" in shown.shown
    assert "✓" not in piece.frame(side=SIZE, answers=False).shown
    assert piece.start()["side"] == RECIPE.low_side


def test_what_the_grey_square_hides_is_occlusion():
    models = {"a": network(Plain)}
    piece = widgets.peng.occlusion(models, DATA, RECIPE, many=2)
    side = piece.start()["side"]
    shown = piece.frame(network="a", side=side)
    index = torch.tensor([3, 9])
    views = heatmaps.views(DATA.test, index, RECIPE, torch.device("cpu"))
    maps = explain.occlusion(models["a"], views, side, widgets.peng.STRIDE)
    measures = heatmaps.measures(maps, heatmaps.logits(models["a"], views))
    assert f"strength {float(measures['strength'].mean()):+.1f}" in shown.says
    square = paths(shown)[0][0]
    assert torch.equal(square[2:] - square[:2], torch.tensor([float(side)] * 2))


# ---- golodov


def test_the_map_of_another_class_is_its_map():
    model = network(Levels)
    piece = widgets.golodov.other_class(model, DATA, RECIPE, many=2)
    bird = piece.choices[0].values[1]
    index = torch.tensor([9])
    image = augment.centre(DATA.test.images[index], SIZE)
    deepest = model.names[-1]
    cells = model.depths_at(SIZE)[deepest]
    shown = set()
    for label, name in enumerate(DATA.classes):
        found = piece.frame(bird=bird, of=name).shown
        maps = model.activation_maps(image, torch.tensor([label]))[deepest]
        light = regions.lit(image[0], maps[0], cells)
        assert Picture(light).svg in found
        shown.add(found)
    assert len(shown) == 2


# ---- verdicts


@pytest.mark.parametrize(
    ("effect", "seeds", "spread", "outcome"),
    [
        (0.0, 20, 0.3, "no difference"),
        (2.0, 3, 1.0, "inconclusive"),
        (5.0, 2, 2.0, "holds"),
        (4.0, 2, 2.0, "inconclusive"),
    ],
)
def test_a_verdict_is_that_of_the_page_s_formula(effect, seeds, spread, outcome):
    """Computed once more, from the variances that the page prints."""
    n, rows = widgets.verdicts.IMAGES, widgets.verdicts.ROWS
    decided = widgets.verdicts.DIFFER * n  # by one of the rows alone
    # as if two images more had been seen; in points
    squares = 100**2 * (decided + 2) - n * effect**2
    by_images = squares / (n - 1) / n
    by_seeds = 2 * spread**2 / seeds

    def half(level):
        wide = stats.t.ppf((1 + level) / 2, rows * (seeds - 1)) ** 2 * by_seeds
        return (wide + stats.t.ppf((1 + level) / 2, n - 1) ** 2 * by_images) ** 0.5

    found = widgets.verdicts.verdict(effect, seeds, spread)
    assert math.isclose(found.effect.low, effect - half(0.95), abs_tol=1e-6)
    assert math.isclose(found.effect.high, effect + half(0.95), abs_tol=1e-6)
    assert found.outcome == outcome
    assert (outcome == "holds") == (effect > half(0.95))
    assert (outcome == "no difference") == (abs(effect) + half(0.9) < 1)
    width = f"interval {effect - half(0.95):+.1f} to {effect + half(0.95):+.1f}"
    piece = widgets.verdicts.piece()
    frame = piece.frame(spread=spread, seeds=seeds, effect=effect)
    assert width in frame.says
    assert outcome in frame.says


def test_more_seeds_and_calmer_trainings_make_intervals_narrower():
    def width(seeds, spread):
        about = widgets.verdicts.verdict(1.0, seeds, spread).effect
        return about.high - about.low

    assert width(2, 1.0) > width(3, 1.0) > width(20, 1.0) > width(20, 0.3)
    piece = widgets.verdicts.piece()
    outcomes = {piece.frame(**settings).says for settings in piece.grid()}
    for outcome in ("holds", "no difference", "inconclusive"):
        assert any(outcome in said for said in outcomes), outcome


def test_the_drawing_has_the_interval_in_its_place():
    drawn = widgets.verdicts.drawing(0.0, 2.0, 4.0, "holds")
    left, right = re.search(r"M([\d.]+) 26H([\d.]+)", drawn).groups()
    zero = re.search(r"M([\d.]+) 6V52", drawn)[1]
    assert left == zero
    middle = float(re.search(r'cx="([\d.]+)"', drawn)[1])
    assert math.isclose(middle, (float(left) + float(right)) / 2, abs_tol=0.11)


# ---- compare


@pytest.fixture
def rows(monkeypatch):
    """Two rows' records on DATA: the first right on the images 0 to 8, the second on 6
    to 11.
    """
    paper = papers.get("compare")
    label = DATA.test.labels.numpy()
    wrong = {"plain": np.arange(12) > 8, "pmg": np.arange(12) < 6}
    found = [{"row": name} for name in wrong]

    def kept(record):
        prediction = np.where(wrong[record["row"]], 1 - label, label)
        return {"prediction": prediction, "label": label}

    monkeypatch.setattr(widgets.compare.records, "load_predictions", kept)
    monkeypatch.setattr(
        widgets.compare,
        "by_row",
        lambda found, _: {record["row"]: [record] for record in found},
    )
    return paper, found


def test_images_are_marked_on_which_one_of_two_methods_is_right(rows):
    paper, found = rows
    piece = widgets.compare.differences(paper, found, DATA, RECIPE, many=12)
    first, second = piece.choices[0].values
    frame = piece.frame(first=first, second=second)
    assert "3 are named rightly by both, 0 by neither, 6 only by" in frame.says
    only_first, only_second = re.findall(r'd="([^"]*)" stroke', frame.shown)
    assert only_first == "M0 0h6v1h-6z"
    assert only_second == "M1 1h3v1h-3z"
    swapped = piece.frame(first=second, second=first)
    assert re.findall(r'd="([^"]*)" stroke', swapped.shown)[0] == only_second


def test_one_method_alone_is_refused(rows):
    paper, found = rows
    with pytest.raises(InputError, match="two rows are compared, but 1 record"):
        widgets.compare.differences(paper, found[:1], DATA, RECIPE)


# ---- causal


def test_one_thing_is_changed_and_named_as_the_network_names_it():
    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.look = nn.Linear(3 * SIZE * SIZE, 20)

        def predict(self, images):
            return self.look(images.flatten(1))

    pairs = causal.experiment(SIZE, 4)
    names = [f"species {k}" for k in range(20)]
    maps = {"brightness": lambda images, _: images.mean(1)}
    model = Look()
    piece = widgets.causal.change(model, pairs, maps, names, [0, 3])
    birds, changes = piece.choices
    assert len(birds.values) == 4
    assert len(list(piece.grid())) == 2 * len(changes.values)

    for place, changed in enumerate(changes.values):
        edit = widgets.causal.edit_of(pairs, 3, changed)
        image = pairs.images[3:4, edit].float() / 255
        sure, named = model.predict(image).detach().softmax(1).max(1)
        says = piece.frame(bird=birds.values[3], changed=changed).says
        assert f"named {names[int(named)]} with {100 * float(sure):.0f} %" in says
        assert (edit == 0) == (place == 0)
    with pytest.raises(InputError, match="no scene 4; 4 are drawn.*from 0 to 3"):
        widgets.causal.change(model, pairs, maps, names, [0, 4])
    told = [widgets.causal.edit_of(pairs, 3, each) for each in changes.values[1:3]]
    assert told == pairs.telling[3].tolist()


def test_the_yellow_box_holds_all_that_changed():
    mask = torch.zeros(9, 9, dtype=torch.bool)
    assert widgets.causal.box_of(mask).shape == (0, 4)
    mask[2, 3] = mask[6, 5] = True
    assert widgets.causal.box_of(mask).tolist() == [[3, 2, 6, 7]]
