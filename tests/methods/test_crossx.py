"""Cross-X: excitations, separation and agreement against loops."""

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.crossx import Excitations, separation
from fgbook.recipe import Recipe

CLASSES = 4


def make(backbone="small", **options):
    torch.manual_seed(0)
    recipe = Recipe(backbone=backbone, weights="none")
    return build("crossx", CLASSES, recipe, options)


def batch(size=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 3, 40, 40, generator=generator), torch.arange(size)


def slow_separation(parts):
    """Section 3.2, over all pairs of images and of excitations."""
    images, count, _ = parts.shape
    total = 0.0
    for p in range(count):
        for q in range(p, count):
            cosines = [
                F.cosine_similarity(parts[i, p], parts[j, q], dim=0)
                for i in range(images)
                for j in range(images)
            ]
            mean = sum(cosines) / len(cosines)
            total += 1 - mean if p == q else mean
    return total


def test_separation_is_the_double_loop_over_images_and_excitations():
    parts = torch.randn(5, 3, 7)
    torch.testing.assert_close(separation(parts), slow_separation(parts))


def test_separation_is_zero_for_parts_that_agree_within_and_differ_between():
    parts = torch.eye(3, 8).expand(4, 3, 8) * torch.rand(4, 3, 1).add(0.1)
    assert separation(parts).abs() < 1e-6
    # the same vector for all excitations: only the pairs between them count
    same = torch.ones(4, 3, 8)
    torch.testing.assert_close(separation(same), torch.tensor(3.0))


def test_each_excitation_has_its_own_weights_on_one_squeeze():
    torch.manual_seed(5)
    gates = Excitations(8, parts=2, reduction=4)
    maps = torch.rand(3, 8, 5, 4)
    found = gates(maps)
    assert found.shape == (3, 2, 8, 1, 1)
    squeezed = maps.mean((2, 3))
    first, last = gates.first.weight.flatten(1), gates.last.weight.flatten(1)
    for p in range(2):
        units = slice(2 * p, 2 * p + 2)
        hidden = F.linear(squeezed, first[units], gates.first.bias[units]).relu()
        channels = slice(8 * p, 8 * p + 8)
        expected = F.linear(hidden, last[channels], gates.last.bias[channels]).sigmoid()
        torch.testing.assert_close(found[:, p, :, 0, 0], expected)


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_parts_and_heads_are_those_of_a_loop_over_excitations(pool):
    model = make("mobilenet_v2", pool=pool).eval()
    images = torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = model(images)
        early, late = model.backbone.stages(images)[-2:]  # 5 x 5, 3 x 3
        early_gates, late_gates = model.early_gates(early), model.late_gates(late)
        for p in range(2):
            u, l = late * late_gates[:, p], early * early_gates[:, p]  # noqa: E741
            torch.testing.assert_close(outputs["image_parts"][:, p], u.mean((2, 3)))
            pooled = l.amax((2, 3)) if pool == "max" else l.mean((2, 3))
            torch.testing.assert_close(outputs["early_parts"][:, p], pooled)
            own = slice(96 * p, 96 * p + 96)
            narrow = F.conv2d(u, model.narrow.weight[own])
            # nearest of 3 cells for each of 5
            cells = torch.tensor([0, 0, 1, 1, 2])
            sum_ = l + narrow[:, :, cells][:, :, :, cells]
            convolved = F.conv2d(sum_, model.join[0].weight[own], padding=1)
            normed = convolved / (1 + 1e-5) ** 0.5  # BatchNorm as it starts
            torch.testing.assert_close(
                outputs["both_parts"][:, p], normed.mean((2, 3)), atol=1e-5, rtol=1e-4
            )
        for name in ("image", "early", "both"):
            features = outputs[f"{name}_parts"].flatten(1)
            if name == "early":  # its maxima can be large
                features = features - features.mean(1, keepdim=True)
                features = features / (features.var(1, False, True) + 1e-5).sqrt()
            torch.testing.assert_close(outputs[name], model.heads[name](features))


def test_losses_are_those_of_the_paper():
    model = make(gammas=(0.5, 0.25, 2.0)).eval()
    for head in model.heads.values():
        torch.nn.init.normal_(head.weight)
    images, targets = batch()
    outputs = model(images)
    losses = model.losses(outputs, targets)
    summed = outputs["image"] + outputs["early"] + outputs["both"]
    torch.testing.assert_close(losses["classes"], F.cross_entropy(summed, targets))
    torch.testing.assert_close(model.predict(images), summed)
    expected = torch.tensor(0.0)
    p = outputs["image"].softmax(1)
    for name in ("early", "both"):
        q = outputs[name].softmax(1)
        expected = expected + (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(losses["agree"], expected)
    apart = (
        0.5 * slow_separation(outputs["image_parts"])
        + 0.25 * slow_separation(outputs["early_parts"])
        + 2.0 * slow_separation(outputs["both_parts"])
    )
    torch.testing.assert_close(losses["parts"], apart)


def test_layers_that_are_certain_of_different_classes_have_a_gradient():
    """A probability of exactly 0 has no logarithm."""
    logits = {}
    for number, name in enumerate(("image", "early", "both")):
        certain = torch.zeros(1, 3)
        certain[0, number] = 200
        logits[name] = certain.requires_grad_()
        logits[f"{name}_parts"] = torch.rand(1, 2, 4)
    losses = make().losses(logits, torch.tensor([0]))
    assert losses["agree"] == 400
    losses["agree"].backward()
    for name in ("image", "early", "both"):
        assert logits[name].grad.isfinite().all(), name


def test_layers_that_say_the_same_agree_and_both_sides_learn_otherwise():
    model = make()
    images, targets = batch()
    outputs = model(images)
    equal = outputs | {name: outputs["image"] for name in ("early", "both")}
    assert model.losses(equal, targets)["agree"].abs() < 1e-6
    model.losses(outputs, targets)["agree"].backward()
    for head in model.heads.values():
        assert head.weight.grad.any()


@pytest.mark.parametrize(
    "options",
    [{"parts": 0}, {"reduction": 0}, {"gammas": (1.0,)}, {"gammas": (1.0, -1.0, 0.0)}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        make(**options)


def test_a_backbone_with_one_depth_is_refused():
    with pytest.raises(InputError, match="one depth"):
        make("vit_b_16")
