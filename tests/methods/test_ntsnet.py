"""NTS-Net: its steps against slow references."""

from math import ceil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.images import regions
from fgbook.methods import build
from fgbook.methods.ntsnet import NTSNet, rank_loss
from fgbook.recipe import Recipe

CLASSES = 7
RECIPE = Recipe(backbone="small", weights="none", image_size=40)
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def make(**options):
    torch.manual_seed(0)
    return build("ntsnet", CLASSES, RECIPE, options)


def batch(size=40):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) % CLASSES


def scores_of(model, images):
    return model.navigator(model.backbone(images))


# ---- where boxes lie


def paper_boxes(size):
    """The anchors of the public code at any size, by loops: (A, 4) yxyx, before they
    are cut to the image or shifted, centred where a map of stride 32 with half a stride
    as its first place looks."""
    found = []
    for stride, base, powers in (
        (32, 48, (1, 2)),
        (64, 96, (1, 2)),
        (128, 192, (0, 1, 2)),
    ):
        for power in powers:
            for ratio in (2 / 3, 1, 3 / 2):
                for y in range(ceil(size / stride)):
                    for x in range(ceil(size / stride)):
                        side = base * 2 ** (power / 3)
                        height, width = side / ratio**0.5, side * ratio**0.5
                        top = stride / 2 + stride * y - height / 2
                        left = stride / 2 + stride * x - width / 2
                        found.append([left, top, left + width, top + height])
    return torch.tensor(found)


def test_the_pyramid_has_the_papers_boxes_at_448_pixels():
    """1614 of them, of its sizes and in its order; where one lies within the image, its
    centre is where the cell of our map looks."""
    torch.manual_seed(0)
    recipe = Recipe(backbone="resnet18", weights="none", image_size=448, store_size=512)
    model = build("ntsnet", 2, recipe, {})
    images = torch.rand(1, 3, 448, 448)
    boxes, overlaps = model._geometry(images, 14, 14)
    theirs = paper_boxes(448)
    assert boxes.shape == theirs.shape == (1614, 4)
    ours, expected = boxes[:, 2:] - boxes[:, :2], theirs[:, 2:] - theirs[:, :2]
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)
    # a ResNet's cell 0 looks at pixel 0.5, theirs is meant to look at half its stride
    shift = torch.cat(
        [
            torch.full((6 * 196,), 15.5),
            torch.full((6 * 49,), 31.5),
            torch.full((144,), 63.5),
        ]
    )
    moved = theirs - shift[:, None]
    inside = (moved >= 0).all(1) & (moved <= 448).all(1)
    assert inside.sum() > 800
    torch.testing.assert_close(boxes[inside], moved[inside], atol=1e-3, rtol=0)
    assert boxes.min() >= 0
    assert boxes.max() <= 448 + 1e-3
    assert overlaps.shape == (1614, 1614)


@pytest.mark.parametrize("size", [32, 33, 40, 57, 73])
def test_every_score_has_its_box(size):
    for options in NTSNet.VARIANTS:
        model = make(**options)
        images = torch.rand(1, 3, size, size)
        cells = model.backbone(images).shape[2:]
        boxes, _ = model._geometry(images, *cells)
        assert scores_of(model, images).shape == (1, len(boxes))


def test_a_score_is_of_the_box_over_its_cell():
    """What lies at cell (y, x) of a level's map moves the scores of the boxes centred
    there, shape after shape."""
    model = make()
    with torch.no_grad():
        for convolution in model.navigator.convolutions:
            convolution.weight.zero_()
            convolution.weight[:, :, 1, 1] = 1.0  # each cell on its own
        for head in model.navigator.heads:
            head.weight.fill_(1.0)
    maps = torch.zeros(1, 192, 5, 5)
    maps[0, :, 2, 4] = 1.0
    boxes, _ = model._geometry(torch.rand(1, 3, 40, 40), 5, 5)
    lit = model.navigator(maps)[0] > 0
    # cell (2, 4) of level 1; (1, 2) of level 2; of level 3 none, it looks at even ones
    assert lit.sum() == 6 + 6
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    small = lit & (boxes[:, 2] - boxes[:, 0] < 6)  # far enough from the border
    assert small.any()
    # where cell (2, 4) looks: pixel 0.5 + 8 * its number, shifted in from the border
    torch.testing.assert_close(
        middle[small][:, 1], torch.full((int(small.sum()),), 16.5)
    )


# ---- which are chosen


def slow_nms(scores, boxes, m, threshold):
    """Hard suppression of one image, as it is usually written."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order) and len(kept) < m:
        best = order[0]
        kept.append(int(best))
        upper = np.maximum(boxes[order, :2], boxes[best, :2])
        lower = np.minimum(boxes[order, 2:], boxes[best, 2:])
        shared = np.prod(np.clip(lower - upper, 0, None), 1)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
        iou = shared / (area[order] + area[best] - shared)
        order = order[(iou <= threshold) & (order != best)]
    return kept


@torch.no_grad()
def test_regions_are_those_of_hard_suppression():
    model = make().eval()
    images, _ = batch(73)
    boxes, _ = model._geometry(images, 10, 10)
    scores = scores_of(model, images).numpy()
    found = model.regions(images)
    for i in range(len(images)):
        kept = slow_nms(scores[i], boxes.numpy(), model.m, 0.25)
        assert len(kept) == model.m
        torch.testing.assert_close(found[i], boxes[kept])


@torch.no_grad()
def test_scores_are_those_of_the_chosen_regions():
    model = make(dropout=0.0).eval()
    images, _ = batch(73)
    boxes, _ = model._geometry(images, 10, 10)
    scores = scores_of(model, images)
    of_chosen, chosen = model(images)["score"], model.regions(images)
    for i in range(len(images)):
        for j in range(model.m):
            same = (boxes == chosen[i, j]).all(1)
            assert (scores[i][same] - of_chosen[i, j]).abs().min() < 1e-5
    assert (of_chosen[:, 0] == scores.amax(1)).all()  # the best first


# ---- what is learnt


def slow_rank(scores, losses):
    total = 0.0
    for s, loss in zip(scores.tolist(), losses.tolist(), strict=True):
        for i in range(len(s)):
            for j in range(len(s)):
                if loss[j] > loss[i]:
                    total += max(0.0, 1.0 - s[i] + s[j])
    return total / len(scores)


def test_rank_loss_is_the_loop_over_pairs():
    torch.manual_seed(0)
    scores, losses = torch.randn(5, 6), torch.rand(5, 6)
    losses[2, 1] = losses[2, 4]  # equal: no pair
    assert rank_loss(scores, losses).item() == pytest.approx(slow_rank(scores, losses))


def test_rank_loss_gives_the_better_region_the_higher_score():
    scores = torch.zeros(1, 2, requires_grad=True)
    rank_loss(scores, torch.tensor([[0.1, 2.0]])).backward()
    assert scores.grad[0, 0] < 0 < scores.grad[0, 1]  # a step down the gradient
    # enough apart, in the right order: nothing to learn
    assert rank_loss(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.1, 2.0]])) == 0


def test_losses_are_those_of_the_public_code():
    model = make(dropout=0.0).eval()
    images, targets = batch()
    with torch.no_grad():
        outputs = model(images)
    losses = model.losses(outputs, targets)
    teacher = torch.tensor(
        [
            [F.cross_entropy(outputs["part"][b, i], targets[b]) for i in range(model.m)]
            for b in range(4)
        ]
    )
    torch.testing.assert_close(losses["part"], teacher.mean())
    assert losses["rank"].item() == pytest.approx(slow_rank(outputs["score"], teacher))
    for name in ("image", "concat"):
        expected = F.cross_entropy(outputs[name], targets)
        torch.testing.assert_close(losses[name], expected)


def gradients(name):
    """The parameters that one of the losses reaches."""
    model = make()
    images, targets = batch()
    model.losses(model(images), targets)[name].backward()
    return {
        parameter
        for parameter, value in model.named_parameters()
        if value.grad is not None and value.grad.any()
    }


def test_rank_reaches_the_navigator_alone():
    reached = gradients("rank")
    assert reached
    assert all(name.startswith("navigator.") for name in reached)


@pytest.mark.parametrize("name", ["image", "part", "concat"])
def test_no_classifier_reaches_the_navigator(name):
    reached = gradients(name)
    assert any(parameter.startswith("backbone.") for parameter in reached)
    assert not any(parameter.startswith("navigator.") for parameter in reached)


def test_a_level_learns_where_one_of_its_boxes_was_chosen():
    for seed in range(4):
        model = make(threshold=0.1)
        images, targets = batch()
        torch.manual_seed(seed)
        for head in model.navigator.heads:
            torch.nn.init.normal_(head.weight)
        outputs = model(images)
        scores = scores_of(model, images)
        model.losses(outputs, targets)["rank"].backward()
        ends = torch.tensor([6 * 25, 6 * 25 + 6 * 9, 6 * 25 + 6 * 9 + 9 * 4])
        chosen = (scores[:, None] == outputs["score"][..., None]).nonzero()[:, 2]
        levels = set(torch.bucketize(chosen, ends, right=True).tolist())
        for level, head in enumerate(model.navigator.heads):
            learns = head.weight.grad is not None and head.weight.grad.any().item()
            assert not learns or level in levels
    assert levels


# ---- the whole


@torch.no_grad()
@pytest.mark.parametrize("options", NTSNet.VARIANTS, ids=["default", "one level"])
def test_forward_is_the_paper_step_by_step(options):
    """The same numbers from single images and single crops; the image comes last."""
    model = make(**options).eval()
    images, _ = batch()
    outputs, boxes = model(images), model.regions(images)
    for b in range(len(images)):
        image = images[b : b + 1]
        features = []
        for r in range(model.m):
            crop = regions.crop_zoom(image, boxes[b : b + 1, r : r + 1], 20)[0]
            features.append(model.backbone(crop).mean((2, 3)))
            of_part = model.part_head(features[-1])[0]
            torch.testing.assert_close(of_part, outputs["part"][b, r], **CLOSE)
        joined = [*features[: model.k], model.backbone(image).mean((2, 3))]
        concat = model.concat_head(torch.cat(joined, 1))[0]
        torch.testing.assert_close(concat, outputs["concat"][b], **CLOSE)
        of_image = model.image_head(joined[-1])[0]
        torch.testing.assert_close(of_image, outputs["image"][b], **CLOSE)


@torch.no_grad()
def test_prediction_crops_k_regions_and_drops_nothing_out():
    model = make().eval()
    images, _ = batch()
    seen = []
    model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    prediction = model.predict(images)
    assert seen == [4, 4 * model.k]
    torch.testing.assert_close(prediction, model(images)["concat"], **CLOSE)
    assert torch.equal(prediction, model.predict(images))


def test_dropout_acts_in_training():
    model = make()
    images, _ = batch()
    model.backbone.eval()
    assert not torch.equal(model(images)["image"], model(images)["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 5, "m": 4}, "k is 5 and m is 4"),
        ({"sides": ()}, r"sides are \(\)"),
        ({"sides": (0.3, 0.9)}, "up to 0.82 are needed"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"zoom": 0.0}, "zoom 0.0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"channels": 0}, "channels 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(InputError, match="square"):
        make()(torch.rand(2, 3, 40, 48))
