"""Methods with several optimiser steps a batch: what the loop does with them."""

import copy
import json
from pathlib import Path

import fault_worker as tiny
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgbook.errors import InputError
from fgbook.images.augment import augment
from fgbook.recipe import Recipe
from fgbook.training import loop, schedule

BASE = Recipe(**tiny.RECIPE).but(train_on="train+val", epochs=2)


def fit(folder: Path, recipe: Recipe = BASE, model: nn.Module | None = None):
    model = model or tiny.make(norm=False, dropout=0.0, in_turns=True)
    outcome = loop.fit(
        model, tiny.dataset(), recipe, folder, seed=3, device="cpu", progress=False
    )
    return outcome, model.state_dict()


def same(a, b) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "adamw", "weight_decay": 0.5, "ema": 0.8},
        {"clip_norm": 0.5, "loss_weights": (("second", 3.0),)},
    ],
    ids=str,
)
def test_rounds_are_those_of_a_plain_loop(tmp_path, changes):
    """Each round has its own forward pass, gradient, clipping and optimiser step, all
    on the same views; what a round does not use does not move in it."""
    recipe, data = BASE.but(**changes), tiny.dataset()
    outcome, fitted = fit(tmp_path, recipe)

    model, split = (
        tiny.make(norm=False, dropout=0.0, in_turns=True),
        data.split("train+val"),
    )
    heads = [*model.head.parameters(), *model.second.parameters()]
    groups = [{"params": model.backbone.parameters(), "rate": 0.5}]
    groups.append({"params": heads, "rate": 1.0})
    if recipe.optimiser == "adamw":
        optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    else:
        optimiser = torch.optim.SGD(
            groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    weights = dict(recipe.loss_weights)
    steps, step, average, cut = 6, 0, None, []
    for epoch in range(recipe.epochs):
        model.train()
        for index in schedule.order(3, epoch, 48).split(8):
            for group in optimiser.param_groups:
                factor = schedule.factor(recipe, step, steps)
                group["lr"] = group["rate"] * recipe.lr * factor
            views = augment(split.images[index], index, recipe, 3, epoch)
            for name in ("image", "second"):
                optimiser.zero_grad()
                logits = model(views)[name]
                loss = F.cross_entropy(logits, split.labels[index])
                (weights.get(name, 1.0) * loss).backward()
                other = model.second if name == "image" else model.head
                before = copy.deepcopy(other.state_dict())
                if recipe.clip_norm:
                    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                    cut.append(float(norm > 0.5))
                optimiser.step()
                assert same(other.state_dict(), before)
            now = {name: value.double() for name, value in model.state_dict().items()}
            if average is None:
                average = now
            for name, value in now.items():
                average[name] = recipe.ema * average[name] + (1 - recipe.ema) * value
            step += 1

    assert outcome.steps == step  # batches
    if recipe.clip_norm:
        assert 0 < outcome.clipped < 1
        assert outcome.clipped == pytest.approx(sum(cut) / len(cut))
    for name, value in fitted.items():
        expected = average[name].float()
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


class OneRound(tiny.Tiny):
    rounds = ("image",)

    def forward(self, images, targets=None, only=None):
        assert only == "image" or not self.training
        return super().forward(images)

    def losses(self, logits, targets, criterion):
        return {"image": criterion(logits["image"], targets)}


class NoRounds(OneRound):
    rounds = ()

    def forward(self, images, targets=None):
        return tiny.Tiny.forward(self, images)


def test_one_round_is_a_step_as_usual_to_the_bit(tmp_path):
    found = []
    for kind in (OneRound, NoRounds):
        torch.manual_seed(0)
        recipe = BASE.but(clip_norm=0.5, ema=0.7, accumulate=2)
        found.append(fit(tmp_path / kind.__name__, recipe, kind())[1])
    assert same(*found)


def test_rounds_do_not_change_what_other_runs_are():
    """Keys of runs and checkpoints hold the loop's version."""
    assert loop.VERSION == 1


def test_parts_of_a_batch_give_the_same_rounds(tmp_path):
    whole, cut = (fit(tmp_path / str(n), BASE.but(accumulate=n))[1] for n in (1, 4))
    assert not same(whole, cut)  # other sums: it was really cut
    for name, value in whole.items():
        torch.testing.assert_close(value, cut[name], rtol=1e-5, atol=1e-6)


def test_mixed_precision_learns_in_rounds(tmp_path):
    recipe = BASE.but(precision="bf16")
    before = tiny.make(norm=False, dropout=0.0, in_turns=True).state_dict()
    outcome, after = fit(tmp_path, recipe)
    assert outcome.finished
    assert not any(torch.equal(after[name], before[name]) for name in after)


class Watched(tiny.InTurns):
    """Notes what it is shown."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.shown = []

    def forward(self, images, targets=None, only=None):
        if self.training:
            self.shown.append((only, images))
        return super().forward(images, targets, only)


def test_all_rounds_learn_from_the_same_views(tmp_path):
    model = Watched()
    fit(tmp_path, BASE.but(accumulate=2, epochs=1), model)
    assert [only for only, _ in model.shown[:4]] == ["image", "image", *["second"] * 2]
    for i in range(0, len(model.shown), 4):
        first, second, again, and_again = (images for _, images in model.shown[i:][:4])
        assert torch.equal(first, again)
        assert torch.equal(second, and_again)
        assert not torch.equal(first, second)


def test_memory_is_that_of_the_largest_round(tmp_path):
    class Larger(tiny.InTurns):
        def forward(self, images, targets=None, only=None):
            twice = torch.cat([images] * (2 if only == self.larger else 1))
            logits = super().forward(twice, targets, only)
            return {name: value[: len(images)] for name, value in logits.items()}

    found = []
    for larger in ("image", "second", "none"):
        torch.manual_seed(0)
        model = Larger()
        model.larger = larger
        fit(tmp_path / larger, BASE.but(epochs=1), model)
        line = (tmp_path / larger / "log.jsonl").read_text()
        found.append(json.loads(line)["activations_mib"])
    assert found[0] == pytest.approx(found[1], rel=0.05)
    assert found[0] > 1.5 * found[2]


def test_weights_are_those_of_the_rounds(tmp_path):
    with pytest.raises(InputError, match="loss in loss_weights 'secnd'; did you mean"):
        fit(tmp_path, BASE.but(loss_weights=(("secnd", 2.0),)))
