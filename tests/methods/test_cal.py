"""CAL: pooling, effect, views and centres against slow references."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgbook.data.dataset import DataSet, Split
from fgbook.errors import InputError
from fgbook.images.enlarge import enlarge
from fgbook.methods import build, cal
from fgbook.recipe import Recipe
from fgbook.training.loop import fit

CLASSES = 3
SIZE = 40
RECIPE = Recipe(backbone="small", weights="none", image_size=SIZE, store_size=SIZE)


def make(**options):
    torch.manual_seed(0)
    return build("cal", CLASSES, RECIPE, {"m": 4} | options)


def batch(size=4):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(size, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)
    return images, torch.arange(size) % CLASSES


def slow_pooling(maps, attention):
    batch, n, h, w = maps.shape
    rows = []
    for b in range(batch):
        row = []
        for m in range(attention.shape[1]):
            for c in range(n):
                row.append((attention[b, m] * maps[b, c]).sum() / (h * w))
        row = torch.stack(row)
        row = torch.sign(row) * torch.sqrt(row.abs() + 1e-6)
        rows.append(row / row.norm())
    return torch.stack(rows)


def test_attention_pooling_is_a_mean_for_each_pair_of_maps():
    maps, attention = torch.randn(3, 5, 4, 4), torch.rand(3, 2, 4, 4)
    v = cal.attention_pooling(maps, attention)
    torch.testing.assert_close(v, slow_pooling(maps, attention))
    torch.testing.assert_close(v.norm(dim=1), torch.ones(3))


class Even(nn.Module):
    """Attention that is 1 everywhere."""

    def forward(self, maps):
        return torch.ones(len(maps), 4, *maps.shape[2:])


@torch.no_grad()
def test_even_attention_has_no_effect_at_test_time():
    model = make(scale=10.0).eval()
    images, targets = batch()
    assert model(images, targets)["effect"].abs().max() > 1e-3
    model.attention = Even()
    assert not model(images, targets)["effect"].any()


@torch.no_grad()
def test_the_effect_is_what_attention_adds_to_the_logits():
    model = make(scale=10.0).eval()
    images, targets = batch()
    maps = model.backbone(images)
    with_it = slow_pooling(maps, model.attention(maps))
    without = slow_pooling(maps, torch.ones(4, 4, *maps.shape[2:]))
    outputs = model(images, targets)
    logits = model.view_head(10 * with_it)
    torch.testing.assert_close(outputs["views"][:, 0], logits, atol=1e-4, rtol=1e-4)
    expected = 10 * (with_it - without) @ model.view_head.weight.T
    torch.testing.assert_close(outputs["effect"][:, 0], expected, atol=1e-4, rtol=1e-4)


def test_in_training_the_counterfactual_is_random():
    model = make().train()
    images, targets = batch()
    torch.manual_seed(1)
    first = model(images, targets)["effect"]
    torch.manual_seed(2)
    assert not torch.allclose(first[:, 0], model(images, targets)["effect"][:, 0])


def test_maps_are_drawn_by_the_roots_of_their_sums():
    attention = torch.tensor([1.0, 4.0, 9.0]).view(1, 3, 1, 1).expand(20_000, 3, 1, 1)
    torch.manual_seed(0)
    which = cal.drawn(attention, 2).flatten()
    for value, share in ((1.0, 1 / 6), (4.0, 2 / 6), (9.0, 3 / 6)):
        assert (which == value).float().mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_box_holds_all_that_reaches_the_level_and_a_margin(level, margin):
    model, (images, _) = make(), batch()
    attention = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(2)) ** 4
    boxes = model._box(attention, images, level, margin)
    depth = model.backbone.depth_at(SIZE)
    over = enlarge(attention, SIZE, depth.stride, depth.first)
    for b in range(4):
        limit = level * attention[b].max()
        y, x = (over[b] >= limit).nonzero().T
        expected = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
        out = margin * SIZE * torch.tensor([-1, -1, 1, 1])
        torch.testing.assert_close(boxes[b], (expected + out).clamp(0, SIZE))


def test_levels_differ_from_image_to_image():
    model, (images, _) = make(), batch()
    attention = torch.rand(1, 5, 5).expand(4, 5, 5)
    level = torch.tensor([0.2, 0.4, 0.6, 0.8])
    size = model._mask(attention, images, level).sum((1, 2))
    assert (size.diff() < 0).all()


def test_a_dropped_part_has_the_mean_colour_and_the_rest_stays(monkeypatch):
    monkeypatch.setattr(cal, "DROP", (0.3, 0.3))
    model, (images, _) = make(), batch()
    attention = torch.rand(4, 1, 5, 5)
    rest = model._augmented(images, attention)[4:]
    dropped = model._mask(attention[:, 0], images, 0.3)
    assert dropped.any() and not dropped.all()
    mean = model.backbone.mean.expand_as(images)
    dropped = dropped[:, None].expand_as(images)
    assert torch.equal(rest[dropped], mean[dropped])
    assert torch.equal(rest[~dropped], images[~dropped])


def test_centres_follow_the_images_of_their_classes():
    model = make().train()
    v = F.normalize(torch.rand(4, model.centres.shape[1]), dim=1)
    targets = torch.tensor([0, 2, 0, 2])
    model.centres.normal_()
    before = model.centres.clone()
    offset = model._from_centre(v, targets)
    expected = before.clone()
    for b, k in enumerate(targets):
        unit = before[k] / before[k].norm()
        torch.testing.assert_close(offset[b], v[b] - unit)
        expected[k] += 0.05 * (v[b] - unit)
    torch.testing.assert_close(model.centres, expected)
    assert torch.equal(model.centres[1], before[1])

    loss = model.losses({"views": torch.zeros(4, 3, 3), "centre": offset}, targets)
    squared = sum((offset[b] ** 2).sum() for b in range(4))
    torch.testing.assert_close(loss["centre"], squared / 4)


def test_centres_stay_in_evaluation():
    model = make().eval()
    model(*batch())
    assert not model.centres.any()


def test_losses_are_the_thirds_of_the_code():
    model, (_, targets) = make(), batch()
    views, effect = torch.randn(4, 3, CLASSES), torch.randn(4, 3, CLASSES)
    losses = model.losses({"views": views, "effect": effect}, targets)
    both = torch.cat([views[:, 1], views[:, 2]])
    expected = F.cross_entropy(views[:, 0], targets) / 3
    expected = expected + F.cross_entropy(both, targets.repeat(2)) * 2 / 3
    torch.testing.assert_close(losses["views"], expected)
    every = torch.cat([effect[:, i] for i in range(3)])
    of_effect = F.cross_entropy(every, targets.repeat(3))
    torch.testing.assert_close(losses["effect"], of_effect)


@torch.no_grad()
def test_predict_is_the_mean_of_the_image_and_its_crop():
    model = make(level=0.8).eval()
    images, _ = batch()
    boxes = model.locate(images)["crop"]
    assert (boxes[:, 2:] - boxes[:, :2] < SIZE).any()
    of_image = model(images)["views"][:, 0]
    crops = cal.regions.crop_zoom(images, boxes[:, None], SIZE)[:, 0]
    expected = (of_image + model(crops)["views"][:, 0]) / 2
    torch.testing.assert_close(model.predict(images), expected, atol=1e-5, rtol=1e-4)


def tiny_data() -> DataSet:
    generator = torch.Generator().manual_seed(0)

    def split(name):
        images = torch.randint(0, 255, (9, 3, 33, 33), generator=generator)
        files = [f"{name}{i}" for i in range(9)]
        return Split(images.to(torch.uint8), torch.arange(9) % CLASSES, files)

    parts = [split(name) for name in "abc"]
    return DataSet("tiny", ["a", "b", "c"], 33, "f00d", *parts)


def test_a_run_that_stops_after_each_step_ends_with_the_same_centres(tmp_path):
    recipe = RECIPE.but(image_size=33, store_size=33, batch_size=3, epochs=2)
    told = {"seed": 3, "device": "cpu", "progress": False}
    whole = make()
    fit(whole, tiny_data(), recipe, tmp_path / "whole", **told)
    while True:
        model = make()
        part = fit(
            model, tiny_data(), recipe, tmp_path / "cut", budget_minutes=0, **told
        )
        if part.finished:
            break
    assert whole.centres.any(1).all()
    expected = whole.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_bad_input_is_told():
    with pytest.raises(InputError, match="level"):
        make(level=1.0)
    with pytest.raises(InputError, match="cal needs square images"):
        make().eval().predict(torch.rand(2, 3, 40, 48))
