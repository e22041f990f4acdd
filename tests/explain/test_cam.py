"""Class activation maps: their mean is the logit, or the model is refused; which class;
maps over pixels."""

import pytest
import torch
from networks import images, network, tiny
from torch import nn

from fgbook import explain
from fgbook.errors import InputError
from fgbook.methods import METHODS, build
from fgbook.methods.attention import Attention
from fgbook.recipe import Recipe

CASES = [
    (name, options) for name, method in METHODS.items() for options in method.VARIANTS
]


def name_of(value):
    if isinstance(value, str):
        return value
    return ",".join(f"{k}={v}" for k, v in value.items()) or "default"


def stirred(method, options):
    """A model in eval mode whose parameters and statistics are all other than those of
    a fresh one, so that no part of it does nothing."""
    torch.manual_seed(0)
    recipe = Recipe(backbone="small", weights="none", image_size=40, store_size=40)
    model = build(method, 5, recipe, options, torch.rand(5, 9)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.no_grad()
@pytest.mark.parametrize(("method", "options"), CASES, ids=name_of)
def test_the_mean_is_the_logit_of_the_prediction_or_the_model_is_refused(
    method, options
):
    model = stirred(method, options)
    batch = images(3, 40, 40).float()
    classes = torch.tensor([4, 0, 2])
    try:
        maps = explain.cam(model, batch, classes)
    except InputError as error:
        assert "use grad_cam" in str(error)
        return
    found = maps.mean((1, 2)) + model.image_head.bias[classes]
    wanted = model.predict(batch).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("plain", {}),
        ("attention", {}),
        ("simsiam", {}),
        ("superres", {}),
        ("focus", {"heads": "image"}),
        ("flrdf", {"foreground": False}),
    ],
    ids=name_of,
)
def test_methods_that_predict_with_the_head_on_pooled_maps_have_one(method, options):
    maps = explain.cam(stirred(method, options), images(2, 40, 40).float())
    assert maps.shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("focus", {}),
        ("flrdf", {}),
        ("flrdf", {"test": "foreground"}),
        ("semantic", {}),
        ("semantic", {"softmax": True}),
        ("transfer", {}),
        ("simple", {}),
    ],
    ids=name_of,
)
def test_methods_that_predict_otherwise_have_none(method, options):
    """Also where they have an image head, whose map would look like one."""
    with pytest.raises(InputError, match="use grad_cam"):
        explain.cam(stirred(method, options), images(2, 40, 40).float())


def test_the_map_is_the_sum_over_channels_of_weights_times_maps():
    model, batch = network("small"), images(2, 40, 48)
    maps = explain.cam(model, batch, torch.tensor([4, 1]))
    assert maps.shape == (2, 5, 6)
    features = model.backbone(batch)
    for i, k in ((0, 4), (1, 1)):
        expected = torch.zeros(5, 6, dtype=torch.float64)
        for channel, weight in enumerate(model.image_head.weight[k]):
            expected += weight * features[i, channel]
        torch.testing.assert_close(maps[i], expected)


def test_mixed_precision_is_no_reason_to_refuse():
    model, batch = network("small").float(), images(3, 40, 40).float()
    exact = explain.cam(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = explain.cam(model, batch)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() / exact.norm() < 0.2


def test_a_model_without_a_linear_head_has_no_class_activation_map():
    model = tiny()
    model.image_head = nn.Identity()
    with pytest.raises(InputError, match="Tiny has none: use grad_cam"):
        explain.cam(model, images(1, 8, 8), torch.tensor([0]))


def test_a_model_that_pools_otherwise_has_no_class_activation_map():
    # its head reads the maximum of squares
    with pytest.raises(InputError, match="Tiny does not predict with its image head"):
        explain.cam(tiny(), images(1, 8, 8), torch.tensor([0]))


def test_the_price_is_two_images_more():
    model, batch, seen = network("small"), images(4, 40, 40), []
    model.backbone.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0]))
    )
    explain.cam(model, batch)
    assert sum(seen) == 4 + 2


# ---- which class


def both(model, batch, classes):
    """CAM and Grad-CAM of the same maps."""
    yield explain.cam(model, batch, classes)
    yield explain.grad_cam(model, batch, classes, model.backbone)


def test_no_class_is_the_predicted_one():
    model, batch = network("small"), images(3, 40, 40)
    predicted = model.predict(batch).argmax(1)
    for found, expected in zip(
        both(model, batch, None), both(model, batch, predicted), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("one", [torch.tensor([3]), torch.tensor(3)], ids=["1", "0"])
def test_one_class_counts_for_all_images(one):
    model, batch = network("small"), images(2, 40, 40)
    each = torch.tensor([3, 3])
    for found, expected in zip(
        both(model, batch, one), both(model, batch, each), strict=True
    ):
        torch.testing.assert_close(found, expected)
        assert found[1].abs().max() > 0


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (torch.tensor([1, 2]), "one class for all of them, or one for each"),
        (torch.tensor([1, 2, 3, 4]), "one class for all of them, or one for each"),
        (torch.tensor([[1], [2], [3]]), "one class for all of them, or one for each"),
        (torch.tensor([1.0, 2.0, 3.0]), "whole numbers"),
        (torch.tensor([1, 2, 5]), "between 0 and 4"),
        (torch.tensor([-1]), "between 0 and 4"),
    ],
)
def test_classes_that_cannot_be_are_refused(classes, message):
    model, batch = network("small"), images(3, 40, 40)
    with pytest.raises(InputError, match=message):
        explain.cam(model, batch, classes)
    with pytest.raises(InputError, match=message):
        explain.grad_cam(model, batch, classes, model.backbone)


# ---- attention's gates


def test_attentions_map_is_that_behind_the_gates():
    model = stirred("attention", {})
    assert isinstance(model, Attention)
    batch = images(2, 40, 40).float()
    behind = model.maps(batch)
    weight = model.image_head.weight[3]
    expected = torch.einsum("n,bnhw->bhw", weight, behind)
    found = explain.cam(model, batch, torch.tensor(3))
    # sums of hundreds of products, in another order
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


# ---- over the pixels


def test_a_cell_has_its_value_where_it_looks_and_lines_lie_between():
    maps = torch.tensor([[[0.0, 2.0, 1.0]]]).expand(1, 3, 3)
    row = explain.enlarge(maps, 12, 4, 1.5)[0, 0]
    expected = [0, 0, 0.5, 1, 1.5, 2, 1.75, 1.5, 1.25, 1, 1, 1]
    torch.testing.assert_close(row, torch.tensor(expected))
