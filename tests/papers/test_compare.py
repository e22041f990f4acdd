"""The comparison of methods: its rows, their costs, and what they are asked."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from fgbook import methods, papers
from fgbook.papers import compare, feng
from fgbook.papers.photo import TRIES

PAPER = papers.get("compare")
# what learns in steps, at the profile of the comparison
TRAINED = [row for row in PAPER.rows_at("photo") if row.method != "probe"]


def test_every_row_is_in_one_family():
    listed = sum(compare.FAMILIES.values(), ())
    assert sorted(listed) == sorted(row.name for row in PAPER.rows)


def test_every_method_starts_from_one_recipe():
    """But for the batches that need several images of a class, transformers, and the
    three rows that paper B's chapter has tuned.
    """
    tuned = ("plain", "focus", "nts-net")
    for row in PAPER.rows:
        if row.name in (*tuned, "vit", "dinov2", "transfg"):
            continue
        for profile in ("photo", "paper"):
            assert row.recipes[profile].but(per_class=0) == feng.METHOD[profile], (
                row.name
            )


@pytest.mark.parametrize(
    ("name", "there"),
    [("probe",) * 2, ("plain",) * 2, ("nts-net",) * 2, ("focus", "hybrid")],
)
def test_rows_of_another_chapter_are_the_same_runs(name, there):
    theirs, ours = papers.get("feng").row(there), PAPER.row(name)
    assert (theirs.method, theirs.options) == (ours.method, ours.options)
    assert theirs.recipes["photo"] == ours.recipes["photo"]


def test_each_row_has_as_many_tries_and_the_common_ones_first():
    tries = PAPER.tuning["photo"].tries
    assert sorted(tries) == sorted(row.name for row in TRAINED)
    assert {len(of_row) for of_row in tries.values()} == {len(TRIES) + 4}
    for of_row in tries.values():
        assert of_row[: len(TRIES)] == TRIES


@pytest.mark.parametrize("name", sorted(PAPER.tuning["photo"].tries))
def test_tries_are_options_that_differ_from_those_before(name):
    row = PAPER.row(name)
    (_, _, before), *others = PAPER.tuning["photo"].of(row)
    whole = methods.options_of(row.method) | before
    for change, recipe, options in others[len(TRIES) - 1 :]:
        fitting = methods.check_options(row.method, options)
        changed = whole | fitting != whole
        assert changed or recipe.but(train_on="train+val") != feng.PHOTO, change


def said(row, recipe, options):
    """What a network that learns, and one that predicts, make of the same images."""
    torch.manual_seed(0)
    recipe = feng.QUICK_RECIPE.but(frozen_stages=0, loss_weights=recipe.loss_weights)
    model = methods.build(row.method, 6, recipe, options)
    images = F.interpolate(torch.rand(4, 3, 9, 9), 73, mode="bilinear")
    labels = torch.tensor([0, 0, 1, 2])
    with torch.no_grad():
        model.eval().prepare(iter([(images, labels)]))
    model.train()
    found = [model.rounds]  # a step of its own for each
    for name in model.rounds or (None,):
        outputs = model(images, labels, *[name] * bool(name))
        found += [loss.detach() for loss in model.losses(outputs, labels).values()]
    with torch.no_grad():
        return [*found, *model.eval().predict(images).flatten()]


@pytest.mark.parametrize("name", sorted(PAPER.tuning["photo"].tries))
def test_an_option_that_is_tried_is_one_that_the_row_s_network_reads(name):
    row = PAPER.row(name)
    first, *others = PAPER.tuning["photo"].of(row)
    before = said(row, *first[1:])
    assert said(row, *first[1:]) == before
    for change, recipe, options in others:
        if change.get("options"):
            assert said(row, recipe, options) != before, change


def test_each_method_is_asked_whether_it_beats_the_plain_backbone():
    asked = {claim.better for claim in PAPER.claims}
    assert asked == {row.name for row in TRAINED} - {"plain"}
    assert {claim.worse for claim in PAPER.claims} == {"plain"}


def forward(row):
    """Operations of a training image, forward, on the network of the photo profile."""
    recipe = row.recipes["photo"].but(weights="none")
    torch.manual_seed(0)
    model = methods.build(row.method, 50, recipe, row.options).train()
    images = torch.rand(2, 3, recipe.image_size, recipe.image_size)
    labels = torch.tensor([0, 0])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for name in model.rounds or (None,):
            words = (name,) if name else ()
            model(images, labels, *words)
    return counter.get_total_flops() / len(images)


def test_passes_are_what_training_costs():
    plain = forward(PAPER.row("plain"))
    for row in TRAINED:
        said = compare.PASSES.get(row.name, 1.0)
        assert forward(row) / plain == pytest.approx(said, abs=0.06), row.name
