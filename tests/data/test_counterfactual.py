"""Pairs of pictures: what an edit reaches, and that nothing else moves by a bit."""

import hashlib

import pytest
import torch
import torch.nn.functional as F

from fgbook import data
from fgbook.data import fieldguide, species
from fgbook.data.counterfactual import CHOICES, counterfactual, drawn, sibling
from fgbook.data.scenery import BARKS, SCENES, Nuisance, Scene
from fgbook.errors import InputError

SIZE = 48
COUNT = species.limit() // species.SIBLINGS * species.SIBLINGS


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))


def scenes(count, start=0):
    """Scenes, and the labels and species of their birds, taken in turns."""
    index = torch.arange(start, start + count)
    label = index % COUNT
    scene = Scene(fieldguide.keys(0, "target", "test", index))
    return scene, label, species.table("target", COUNT).of(label)


def inside(boxes):
    """Pixels that boxes (B, 4) touch: (B, S, S)."""
    place = torch.arange(SIZE)
    x0, y0, x1, y1 = (boxes[:, k, None] for k in range(4))
    across, down = (place + 1 > x0) & (place < x1), (place + 1 > y0) & (place < y1)
    return down[:, :, None] & across[:, None]


def test_a_telling_edit_makes_the_sibling_and_moves_no_other_pixel():
    """1000 scenes, both contrasts of each: the picture of the sibling bit by bit,
    different only in the box of the attribute that was changed.
    """
    scene, label, birds = scenes(1000)
    table = species.table("target", COUNT)
    drawing = fieldguide.render(scene, birds, SIZE)
    edits = []
    for which in (0, 1):
        other = table.values[sibling(label, which)]
        # the same attribute for all pictures of an edit: others keep their values
        edit = {}
        for place in birds.differ[:, which].unique().tolist():
            name = species.LOCAL[place]
            edit[name] = other[:, species.ATTRIBUTES.index(name)].long()
        edits.append(edit)
    made = counterfactual(scene, birds, edits, SIZE)
    changed = made.changed()

    assert torch.equal(made.images[:, 0], drawing.images)
    assert torch.equal(made.masks[:, 0], drawing.masks)
    assert not changed[:, 0].any()
    for which in (0, 1):
        as_sibling = table.of(sibling(label, which))
        there = fieldguide.render(scene, as_sibling, SIZE)
        assert torch.equal(made.images[:, 1 + which], there.images)
        assert torch.equal(made.masks[:, 1 + which], there.masks)
        told = inside(drawing.part_boxes[:, which])
        assert not (changed[:, 1 + which] & ~told).any()
        # leaves and turned heads hide some
        assert changed[:, 1 + which].flatten(1).any(1).float().mean() > 0.9


@pytest.mark.parametrize("which", [0, 1])
def test_a_sibling_differs_in_one_attribute(which):
    table = species.table("target", COUNT)
    label = torch.arange(COUNT)
    other = sibling(label, which)
    assert torch.equal(sibling(other, which), label)
    for i, j in zip(label.tolist(), other.tolist(), strict=True):
        (place,) = (table.values[i] != table.values[j]).nonzero().flatten().tolist()
        assert species.ATTRIBUTES[place] == species.LOCAL[table.differ[i, which]]


@pytest.mark.parametrize("name", species.LOCAL)
def test_any_attribute_changes_its_own_part_of_the_bird(name):
    scene, _, birds = scenes(120, start=500)
    own = birds.values[:, species.ATTRIBUTES.index(name)].long()
    edit = {name: (own + 1) % CHOICES[name]}
    changed = counterfactual(scene, birds, [edit], SIZE).changed()[:, 1]
    assert changed.flatten(1).any(1).float().mean() > 0.6

    stage = fieldguide.Stage(scene, birds, SIZE)
    values = birds.values.clone()
    values[:, species.ATTRIBUTES.index(name)] = edit[name].float()
    own, other = (
        fieldguide.Bird(v, stage.pose).areas()[:, species.LOCAL.index(name)]
        for v in (birds.values, values)
    )
    corners = [torch.minimum(own, other)[:, :2], torch.maximum(own, other)[:, 2:]]
    both = torch.cat(corners, 1)[:, None]  # (B, 1, 4)
    box = fieldguide.pixel_boxes(stage, both, SIZE)[:, 0]
    assert not (changed & ~inside(box)).any()


@pytest.mark.parametrize("name", ["perch", "background"])
def test_a_distractor_leaves_the_bird_alone(name):
    scene, _, birds = scenes(200)
    nuisance = Nuisance(scene)
    own = nuisance.bark if name == "perch" else nuisance.background
    edits = [{name: own}, {name: (own + 1) % CHOICES[name]}]
    made = counterfactual(scene, birds, edits, SIZE)
    _, same, other = made.changed().unbind(1)
    assert not same.any()
    assert torch.equal(made.masks[:, 0], made.masks[:, 2])
    assert other.flatten(1).any(1).all()
    # at its blurred edge the bird lets the ground shine through
    within = -F.max_pool2d(-made.masks[:, 0].float(), 5, 1, 2) > 0
    assert not (other & within).any()
    if name == "background":
        assert other.float().mean() > 0.4
    else:
        assert other.float().mean() < 0.2


def test_several_things_at_once_are_each_thing():
    scene, _, birds = scenes(16)
    one = {"throat": 1, "crown": 1}
    two = {"background": 2, "throat": 1}
    made = counterfactual(scene, birds, [one, two, {"background": 2}, {}], SIZE)
    assert made.images.shape == (16, 5, 3, SIZE, SIZE)
    assert not made.changed()[:, 4].any()
    # a scene with another background is a scene like any other
    elsewhere = Scene(scene.key, background=torch.full((16,), 2))
    assert torch.equal(
        made.images[:, 3], fieldguide.render(elsewhere, birds, SIZE).images
    )
    again = counterfactual(elsewhere, birds, [{"throat": 1}], SIZE)
    assert torch.equal(made.images[:, 2], again.images[:, 1])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"thoat": 1}, "did you mean 'throat'"),
        ({"palette": 1}, "unknown thing to change"),
        ({"throat": 2}, "throat has the values 0 to 1"),
        ({"throat": torch.tensor([0, 1, 7])}, "got \\[0, 1, 7\\]"),
        ({"perch": 0.5}, "whole numbers"),
    ],
)
def test_what_cannot_be_changed(edit, words):
    scene, _, birds = scenes(3)
    with pytest.raises(InputError, match=words):
        counterfactual(scene, birds, [edit], SIZE)


# ---- shortcuts


def test_scenes_know_nothing_of_species():
    """Backgrounds and perches are as common with each sibling as with all birds."""
    scene, label, _ = scenes(40_000)
    nuisance = Nuisance(scene)
    of_genus = label % species.SIBLINGS
    for chosen, count in (
        (nuisance.background, len(SCENES)),
        (nuisance.bark, len(BARKS)),
    ):
        for k in range(species.SIBLINGS):
            share = chosen[of_genus == k].bincount(minlength=count) / 10_000
            assert (share - 1 / count).abs().max() < 5 * 0.5 / 100


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_shortcut_is_planted_in_training_and_broken_in_the_test(share):
    per_class = (40, 10, 5)
    plain = fieldguide.load(32, species=8, per_class=per_class)
    made = fieldguide.load(32, species=8, per_class=per_class, shortcut=share)
    assert made.name == f"fieldguide-shortcut{100 * share:g}"
    assert made.fingerprint != plain.fingerprint
    assert torch.equal(made.test.images, plain.test.images)
    for split in ("train", "val"):
        one, other = plain.split(split), made.split(split)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.masks, other.masks)
        key = fieldguide.keys(0, "target", split, torch.arange(len(other)))
        wanted = fieldguide.planted(other.labels)
        scene = Scene(key, background=wanted)
        birds = species.table("target", 8).of(other.labels)
        planted = fieldguide.render(scene, birds, 32).images
        has_it = (other.images == planted).flatten(1).all(1)
        as_before = (other.images == one.images).flatten(1).all(1)
        assert (has_it | as_before).all()
        expected = share + (1 - share) / len(SCENES)
        assert abs(has_it.float().mean() - expected) < 5 * 0.5 / len(other) ** 0.5


def test_each_sibling_has_a_background_of_its_own():
    planted = fieldguide.planted(torch.arange(20)).view(5, species.SIBLINGS)
    assert all(len(set(row)) == species.SIBLINGS for row in planted.tolist())


def test_the_data_set_without_a_shortcut_is_what_it_was():
    """Keys of runs that were made before there were shortcuts still hold."""
    known = {"target": "fcc5895d5009c806", "source": "bcca970a4ce1e5fc"}
    for pool, fingerprint in known.items():
        made = fieldguide.load(32, pool, species=4, per_class=(2, 1, 1))
        assert made.fingerprint == fingerprint


def test_shortcuts_are_data_sets_with_names():
    for name, settings in data.DRAWN.items():
        if "shortcut" in settings:
            assert name == f"fieldguide-shortcut{100 * settings['shortcut']:g}"
    with pytest.raises(InputError, match="shortcut 1.5"):
        fieldguide.load(32, shortcut=1.5)


# ---- only what differs is drawn again


@pytest.mark.parametrize("size", [30, 73])
def test_what_is_not_drawn_again_is_what_a_whole_drawing_gives(size):
    """Every attribute, and two at once: the bytes of pictures that are drawn whole."""
    scene, _, birds = scenes(60, start=2000)
    values = [birds.values]
    for name in species.LOCAL:
        values.append(edited(birds.values, name))
    values.append(edited(edited(birds.values, "tail tip"), "bill length"))
    values.append(birds.values)  # nothing
    values = torch.stack(values, 1)
    found = drawn(scene, birds, values, size)
    for some in (slice(0, 25), slice(25, 60)):
        stage = fieldguide.Stage(scene.part(some), birds.part(some), size)
        for k, whole in enumerate(values[some].unbind(1)):
            images, masks = stage.shoot(whole)
            assert torch.equal(found.images[some, k], images), k
            assert torch.equal(found.masks[some, k], masks), k


def edited(values, name):
    """Birds with the next value of an attribute."""
    values, place = values.clone(), species.ATTRIBUTES.index(name)
    values[:, place] = (values[:, place] + 1) % CHOICES[name]
    return values


def test_pairs_are_the_bytes_that_they_were():
    """Before only what differs was drawn again: three scenes, several edits each."""
    scene, _, birds = scenes(3)
    edits = [{"throat": 1, "wing bars": 2}, {"background": 1}, {"crest": 2}]
    made = counterfactual(scene, birds, edits, 36)
    content = made.images.numpy().tobytes() + made.masks.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "693070e86e04cf74"
