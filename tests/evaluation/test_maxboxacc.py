"""MaxBoxAccV2 against a slow path of its own: flood fill by hand, torchvision's
overlap, loops over images, levels and thresholds."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import box_iou as torchvision_iou

from fgbook.data.dataset import Split
from fgbook.evaluation import localisation
from fgbook.evaluation.localisation import LEVELS, best_ious, max_box_acc
from fgbook.methods import build
from fgbook.recipe import Recipe

PIXELS = 4  # a cell's side


def to_pixels(edges):
    return edges * PIXELS


def boxes_of(mask):
    """The box round each component of a mask (h, w), in cells: flood fill from every
    cell that has not been seen."""
    todo = {(y, x) for y, x in mask.nonzero().tolist()}
    boxes = []
    while todo:
        front, component = [todo.pop()], []
        while front:
            y, x = front.pop()
            component.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            front += near
        ys, xs = [y for y, _ in component], [x for _, x in component]
        boxes.append([min(xs), min(ys), max(xs) + 1, max(ys) + 1])
    return boxes


def slow_iou(one, box, level):
    """The overlap of the best box of one map (h, w), cut at a level."""
    stretched = (one - one.min()) / (one.max() - one.min())
    boxes = boxes_of(stretched >= level)
    return (
        torchvision_iou(torch.tensor(boxes).float() * PIXELS, box[None]).max()
        if boxes
        else torch.tensor(0.0)
    )


def slow_score(maps, objects):
    """MaxBoxAccV2 in three loops: the best share over levels, for each of three
    overlaps, averaged."""
    ious = [
        [slow_iou(one, box, level) for level in LEVELS]
        for one, box in zip(maps, objects, strict=True)
    ]
    best = []
    for needed in (0.3, 0.5, 0.7):
        best.append(
            max(
                sum(float(of_image[i] >= needed) for of_image in ious) / len(maps)
                for i in range(len(LEVELS))
            )
        )
    return sum(best) / 3, best


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    # several hills each
    return F.interpolate(
        torch.randn(9, 1, 4, 4, generator=generator), 12, mode="bicubic"
    )[:, 0]


@pytest.fixture
def objects():
    generator = torch.Generator().manual_seed(1)
    corner = torch.randint(0, 20, (9, 2), generator=generator).float()
    return torch.cat(
        [corner, corner + torch.randint(12, 28, (9, 2), generator=generator)], 1
    )


def test_the_measure_is_that_of_the_slow_path(maps, objects):
    found = best_ious(maps, objects, to_pixels)
    assert found.shape == (9, len(LEVELS))
    assert found.dtype == torch.float32
    for i in range(9):
        for at in (0, 7, 50, 99):
            assert float(found[i, at]) == pytest.approx(
                float(slow_iou(maps[i], objects[i], LEVELS[at])), abs=1e-6
            )
    numbers, per_image, shares = max_box_acc(found)
    whole, parts = slow_score(maps, objects)
    assert numbers["maxboxaccv2"] == pytest.approx(whole)
    assert [numbers[f"maxboxacc{i}"] for i in (30, 50, 70)] == pytest.approx(parts)
    assert float(per_image.mean()) == pytest.approx(whole)
    assert shares.shape == (3, len(LEVELS))
    for row, number in enumerate((30, 50, 70)):
        at = round(100 * numbers[f"level{number}"])
        assert (
            float(shares[row, at])
            == pytest.approx(numbers[f"maxboxacc{number}"])
            == float(shares[row].max())
        )
        # the lowest of equally good levels
        assert (shares[row, :at] < shares[row, at]).all()


def test_the_best_component_counts_and_not_the_largest():
    one = torch.zeros(1, 8, 8)
    one[0, 0:4, 0:6], one[0, 6:8, 6:8] = 1.0, 0.9
    found = best_ious(one, torch.tensor([[24.0, 24.0, 32.0, 32.0]]), to_pixels)[0]
    # 0.9 >= 0.90: at its level a cell still counts
    assert found[10] == 1
    assert found[90] == 1
    assert found[91] == 0
    assert found[0] == pytest.approx(4 / 64)  # everything
    one[0, 4, 6], one[0, 5, 7] = 1.0, 1.0  # corner to corner, the two are one component
    assert (
        best_ious(one, torch.tensor([[24.0, 24.0, 32.0, 32.0]]), to_pixels)[0, 10] < 0.1
    )


def test_the_levels_do_not_depend_on_the_maps_scale(maps, objects):
    found = best_ious(maps, objects, to_pixels)
    assert torch.equal(
        best_ious(maps * 4 - 8, objects, to_pixels),
        best_ious(maps * 4, objects, to_pixels),
    )
    torch.testing.assert_close(best_ious(maps * 4, objects, to_pixels), found)


def test_images_without_an_object_are_left_out(maps, objects):
    some = objects.clone()
    some[[2, 5]] = torch.nan
    numbers, per_image, shares = max_box_acc(best_ious(maps, some, to_pixels))
    rest = [i for i in range(9) if i not in (2, 5)]
    expected, kept, expected_shares = max_box_acc(
        best_ious(maps[rest], objects[rest], to_pixels)
    )
    assert numbers == expected
    assert torch.equal(per_image[rest], kept)
    assert torch.equal(shares, expected_shares)
    assert per_image[[2, 5]].isnan().all()
    none = max_box_acc(torch.full((3, len(LEVELS)), torch.nan))
    assert set(none[0].values()) == {None}
    assert none[1].isnan().all()
    assert none[2].isnan().all()


def test_flat_maps_and_maps_of_nan_have_an_answer():
    box = torch.tensor([[0.0, 0.0, 16.0, 32.0]])
    flat = best_ious(torch.full((1, 8, 8), 3.0), box, to_pixels)[0]
    assert flat[0] == 0.5
    assert (flat[1:] == 0).all()
    assert (best_ious(torch.full((1, 8, 8), math.nan), box, to_pixels) == 0).all()


def test_a_models_maps_are_scored_for_the_true_class_from_the_same_look_as_its_boxes():
    torch.manual_seed(0)
    model = build("flrdf", 4, Recipe(backbone="small", weights="none"), {})
    nn.init.normal_(model.image_head.weight)
    seen = []
    counted = model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(len(output))
    )
    images = torch.randint(0, 256, (10, 3, 44, 44), dtype=torch.uint8)
    objects = torch.tensor([[6.0, 4.0, 30.0, 40.0]]).repeat(10, 1)
    split = Split(images, torch.arange(10) % 4, [str(i) for i in range(10)], objects)
    result, kept = localisation.boxes(
        model, split, Recipe(image_size=40, store_size=44)
    )
    assert sum(seen) == 10
    counted.remove()
    model.eval()
    crops = images[:, :, 2:42, 2:42].float() / 255
    for name in ("foreground", "cam"):
        assert torch.allclose(
            kept[f"iou_{name}"],
            torchvision_iou(model.locate(crops)[name], objects[:1] - 2)[:, 0],
            atol=1e-4,
        )
        for rule in ("max", "mean"):
            other = copy.copy(model)
            other.threshold = rule
            assert torch.allclose(
                kept[f"iou_{name}_{rule}"],
                torchvision_iou(other.locate(crops)[name], objects[:1] - 2)[:, 0],
                atol=1e-4,
            )
        assert torch.equal(kept[f"iou_{name}"], kept[f"iou_{name}_max"])
        assert not torch.equal(kept[f"iou_{name}"], kept[f"iou_{name}_mean"])
        of_true = model.enlarged(model.activation_maps(crops, split.labels)[name])
        expected, per_image, shares = max_box_acc(
            best_ious(
                of_true, objects - 2, lambda edges: model.to_pixels(edges, 20, 40)
            )
        )
        assert {key: result[f"{name}_{key}"] for key in expected} == pytest.approx(
            expected
        )
        assert torch.equal(kept[f"maxbox_{name}"], per_image)
        assert torch.equal(kept[f"boxacc_{name}"], shares)
        of_predicted = model.enlarged(model.activation_maps(crops)[name])
        assert not torch.allclose(of_true, of_predicted)
    assert result["whole_average"] == pytest.approx(
        sum(t <= 24 * 36 / 1600 for t in (0.3, 0.5, 0.7)) / 3
    )
