"""DFL-CNN: the filter bank and the side branch against loops."""

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.recipe import Recipe

CLASSES = 4


def make(**options):
    torch.manual_seed(0)
    return build("dflcnn", CLASSES, Recipe(backbone="small", weights="none"), options)


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, 40, 40, generator=generator), torch.arange(3)


def test_an_answer_is_that_of_the_best_place_and_the_side_branch_is_their_mean():
    model = make(k=3).eval()
    torch.nn.init.normal_(model.bank.bias)
    torch.nn.init.normal_(model.filter_head.weight)
    images, _ = batch()
    with torch.no_grad():
        logits = model(images)
        stages = model.backbone.stages(images)
    weight = model.bank.weight[:, :, 0, 0]
    answers = torch.empty(3, CLASSES * 3)
    for image, maps in enumerate(stages[-2]):  # (96, 5, 5)
        for filter_, row in enumerate(weight):
            places = [row @ maps[:, y, x] for y in range(5) for x in range(5)]
            answers[image, filter_] = max(places) + model.bank.bias[filter_]
    even = answers - answers.mean(1, keepdim=True)
    even = even / (even.square().mean(1, keepdim=True) + 1e-5).sqrt()
    for label in range(CLASSES):
        own = answers[:, 3 * label : 3 * label + 3]
        torch.testing.assert_close(logits["side"][:, label], own.mean(1))
    torch.testing.assert_close(
        logits["filters"], F.linear(even, model.filter_head.weight)
    )
    torch.testing.assert_close(
        logits["image"], F.linear(stages[-1].mean((2, 3)), model.image_head.weight)
    )


def test_equal_filters_of_a_class_answer_as_one():
    model = make(k=3)
    with torch.no_grad():
        model.bank.weight[3:6] = model.bank.weight[4]
    maps = torch.rand(2, 96, 4, 5)
    answers = model.answers(maps)
    side = answers.unflatten(1, (CLASSES, 3)).mean(2)
    torch.testing.assert_close(side[:, 1], answers[:, 4])
    assert not torch.allclose(side[:, 0], answers[:, 0])


def test_where_a_peak_is_does_not_matter():
    model = make()
    maps = torch.zeros(1, 96, 5, 5)
    maps[0, :, 1, 1] = torch.rand(96) * 10
    moved = maps.roll((2, 1), (2, 3))
    assert torch.equal(model.answers(maps), model.answers(moved))
    assert not torch.equal(model.answers(maps), model.answers(2 * maps))


def test_what_the_filters_say_does_not_depend_on_how_long_their_maps_are():
    model = make().eval()
    images, _ = batch()
    with torch.no_grad():
        before = model(images)
        model.bank.weight *= 1000
        after = model(images)
    torch.testing.assert_close(after["filters"], before["filters"], atol=1e-4, rtol=0.1)
    assert after["filters"].abs().max() < 2  # near equal probabilities
    torch.testing.assert_close(after["side"], 1000 * before["side"])


def test_filters_start_with_length_one_and_apart():
    weight = make().bank.weight.flatten(1)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
    cosines = weight @ weight.T - torch.eye(len(weight))
    assert cosines.abs().max() < 0.5


@torch.no_grad()
def test_filters_start_as_centres_of_strong_places_of_their_own_class():
    model = make(k=2).eval()
    width = model.bank.in_channels
    before = model.bank.weight.clone()
    # class 0 shows two patches, of other lengths in each image; class 1 two in one
    # image; class 2 one only, class 3 none
    shown = [(0, [1, 5]), (0, [5, 1]), (1, [2, 3]), (2, [4])]
    maps = 0.01 * torch.rand(len(shown), width, 7, 7)
    for image, (_, channels) in enumerate(shown):
        for place, channel in enumerate(channels):
            maps[image, channel, 2, 1 + 4 * place] = 5.0 + image
    # places without neighbours as long as they are count: here only those
    maps *= maps.norm(dim=1, keepdim=True) > 1
    labels = torch.tensor([label for label, _ in shown])
    model.backbone.stages = lambda images: [None, images, None]
    model.prepare(zip(maps.split(3), labels.split(3), strict=True))
    after = model.bank.weight[:, :, 0, 0]
    torch.testing.assert_close(after.norm(dim=1), torch.ones(8))
    strongest = [sorted(of_class.argmax(1).tolist()) for of_class in after.split(2)]
    assert strongest[:2] == [[1, 5], [2, 3]]
    assert torch.equal(model.bank.weight[4:], before[4:])

    drawn = make(start="random").eval()
    before = drawn.bank.weight.clone()
    drawn.prepare(iter(()))
    assert torch.equal(drawn.bank.weight, before)


def test_only_their_own_class_moves_the_filters_by_way_of_the_side_branch():
    model = make(k=2)
    images, _ = batch()
    model(images)["side"][:, 1].sum().backward()
    moved = model.bank.weight.grad.flatten(1).any(1)
    assert moved.tolist() == [False, False, True, True] + 4 * [False]


def test_losses_and_prediction_weigh_the_side_branch_alike():
    model = make(side=0.25).eval()
    torch.nn.init.normal_(model.filter_head.weight)
    images, targets = batch()
    logits = model(images)
    losses = model.losses(logits, targets)
    assert list(losses) == ["image", "filters", "side"]
    expected = 0.25 * F.cross_entropy(logits["side"], targets)
    torch.testing.assert_close(losses["side"], expected)
    torch.testing.assert_close(
        losses["filters"], F.cross_entropy(logits["filters"], targets)
    )
    torch.testing.assert_close(
        model.predict(images),
        logits["image"] + logits["filters"] + 0.25 * logits["side"],
    )


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"side": -0.1}, {"depth": 4}, {"start": "far"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        make(**options)
