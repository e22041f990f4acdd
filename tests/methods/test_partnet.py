"""PartNet: votes, boxes and scores against loops."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.partnet import centres, class_scores, votes
from fgbook.recipe import Recipe

CLASSES = 5
SIZE = 40


def make(**options):
    torch.manual_seed(0)
    recipe = Recipe(backbone="small", weights="none", image_size=SIZE)
    return build("partnet", CLASSES, recipe, options)


def batch():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) % CLASSES


def random_maps(h=5, w=5, n=30):
    return torch.rand(3, n, h, w, generator=torch.Generator().manual_seed(2))


def slow_votes(maps):
    count = torch.zeros(len(maps), *maps.shape[2:])
    for b in range(len(maps)):
        for channel in maps[b]:
            y, x = divmod(int(channel.argmax()), maps.shape[3])
            count[b, y, x] += 1
    return count


def test_each_channel_votes_once():
    maps = random_maps()
    assert torch.equal(votes(maps), slow_votes(maps))
    assert (votes(maps).sum((1, 2)) == 30).all()


def test_a_channel_that_is_the_same_everywhere_has_no_vote():
    maps = random_maps()
    maps[:, ::2] = 0.0
    maps[1, 1] = 0.5
    assert votes(maps).sum((1, 2)).tolist() == [15.0, 14.0, 15.0]
    assert torch.equal(votes(maps)[0], slow_votes(maps[:, 1::2])[0])


@pytest.mark.parametrize("side", [4, 5, 7])
@pytest.mark.parametrize("square", [2, 3])
def test_each_square_gives_the_cell_with_most_votes(side, square):
    maps = random_maps(side, side)
    found = centres(maps, square)
    count, strength = slow_votes(maps), maps.sum(1)
    for b in range(len(maps)):
        expected = []
        for top in range(0, side, square):
            for left in range(0, side, square):
                best = max(
                    (count[b, y, x].item(), strength[b, y, x].item(), y * side + x)
                    for y in range(top, min(top + square, side))
                    for x in range(left, min(left + square, side))
                )
                expected.append(best[2])
        assert found[b].tolist() == expected


def test_without_votes_the_strongest_cell_counts():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, :, 0, 0] = 9.0  # both channels peak here
    maps[0, 0, 2, 3] = 1.0
    maps[0, :, 3, 2] = 0.7  # less in either channel than 1, and more in sum
    assert centres(maps, 2)[0, [0, 3]].tolist() == [0, 3 * 4 + 2]


def test_boxes_of_all_shapes_lie_round_the_centres():
    model = make(sizes=(0.2, 0.5))
    maps = model.backbone(batch()[0])
    boxes = model._propose(maps, SIZE)
    cells = centres(maps, 2)
    assert boxes.shape == (4, cells.shape[1] * 6, 4)
    depth = model.backbone.depth_at(SIZE)
    for b in range(4):
        expected = []
        for cell in cells[b].tolist():
            y, x = divmod(cell, maps.shape[-1])
            y, x = depth.first + depth.stride * y, depth.first + depth.stride * x
            for side in (0.2 * SIZE, 0.5 * SIZE):
                for ratio in (0.5, 1.0, 2.0):
                    w, h = side * ratio**0.5, side / ratio**0.5
                    expected.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        expected = torch.tensor(expected).clamp(0, SIZE)
        torch.testing.assert_close(boxes[b], expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 3])
def test_streams_see_what_roi_align_sees(depth):
    model = make(depth=depth).eval()
    images, _ = batch()
    _, boxes, a, d = model._look(images)
    at = model.backbone.depths_at(SIZE)[-depth]
    maps = model.narrow(model.backbone.stages(images)[-depth])
    # aligned: a map's value i lies at i + 0.5
    cells = (boxes - at.first) / at.stride + 0.5
    seen = roi_align(maps, list(cells), 3, sampling_ratio=1, aligned=True)
    features = seen.flatten(1).unflatten(0, boxes.shape[:2])
    torch.testing.assert_close(model.classification(features), a, atol=1e-4, rtol=1e-3)
    detected = model.detection(features).softmax(1)
    torch.testing.assert_close(detected, d, atol=1e-4, rtol=1e-3)


def test_scores_are_sums_over_boxes_and_means_over_parts():
    a, d = torch.rand(2, 6, CLASSES), torch.rand(2, 6, 3).softmax(1)
    for b in range(2):
        for k in range(CLASSES):
            of_parts = [
                sum(a[b, r, k] * d[b, r, p] for r in range(6)) for p in range(3)
            ]
            expected = sum(of_parts) / 3
            torch.testing.assert_close(class_scores(a, d)[b, k], expected)


@torch.no_grad()
def test_scores_are_shares_and_the_order_of_boxes_does_not_matter():
    model = make(sharpness=20.0).eval()
    for stream in (model.classification, model.detection):
        stream[-1].weight.normal_()
    _, _, a, d = model._look(batch()[0])
    score = class_scores(a, d)
    assert score.min() >= 0 and (score.sum(1) <= 1).all()
    torch.testing.assert_close(d.sum(1), torch.ones(4, 3))
    order = torch.randperm(a.shape[1])
    torch.testing.assert_close(class_scores(a[:, order], d[:, order]), score)


@torch.no_grad()
def test_sharpness_chooses_boxes():
    """In the code, 1, no box counts e times as much as another."""
    evenly, sharply = make().eval(), make(sharpness=50.0).eval()
    for model in (evenly, sharply):
        torch.manual_seed(4)
        model.detection[-1].weight.normal_()
    even = evenly._look(batch()[0])[3]
    assert (even.amax(1) < 2.72 * even.amin(1)).all()
    sharp = sharply._look(batch()[0])[3]
    assert (sharp.amax(1) > even.amax(1)).all()


def test_the_loss_is_a_binary_cross_entropy_summed_over_classes():
    model, (_, targets) = make(), batch()
    score = torch.rand(4, CLASSES)
    outputs = {"image": torch.zeros(4, CLASSES), "score": score}
    expected = F.binary_cross_entropy(
        score, F.one_hot(targets, CLASSES).float(), reduction="sum"
    )
    found = model.losses(outputs, targets)["score"]
    torch.testing.assert_close(found, expected / 4)


def test_scores_near_one_have_a_finite_loss_in_half_precision():
    """In bfloat16 0.999 is 1, and the share of the other classes times infinity is not
    a number."""
    a = torch.full((2, 7, CLASSES), 0.999, requires_grad=True)
    d = torch.full((2, 7, 3), 1 / 7)
    targets = torch.tensor([0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        logits = {"image": torch.zeros(2, CLASSES), "score": class_scores(a, d)}
        loss = make().losses(logits, targets)["score"]
    wanted = F.binary_cross_entropy(
        torch.full((2, CLASSES), 0.999), F.one_hot(targets, CLASSES).float()
    )
    torch.testing.assert_close(loss, CLASSES * wanted, rtol=1e-3, atol=0)
    loss.backward()
    assert a.grad.isfinite().all()


@torch.no_grad()
def test_predictions_are_the_mean_of_both_classifiers():
    model = make().eval()
    images, _ = batch()
    outputs = model(images)
    score = outputs["score"] / outputs["score"].sum(1, keepdim=True)
    expected = (outputs["image"].softmax(1) + score) / 2
    found = model.predict(images).softmax(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_regions_are_the_boxes_that_count_most():
    model = make().eval()
    model.detection[-1].weight.normal_()
    images, _ = batch()
    _, boxes, _, d = model._look(images)
    found = model.regions(images)
    assert found.shape == (4, 3, 4)
    for b in range(4):
        for p in range(3):
            assert torch.equal(found[b, p], boxes[b, int(d[b, :, p].argmax())])


def test_bad_input_is_told():
    with pytest.raises(InputError, match="sizes are fractions"):
        make(sizes=(0.5, 1.5))
    with pytest.raises(InputError, match="depth is 9"):
        make(depth=9)
    with pytest.raises(InputError, match="sharpness is above 0"):
        make(sharpness=0.0)
    with pytest.raises(InputError, match="partnet needs square images"):
        make().eval().predict(torch.rand(2, 3, 40, 48))
