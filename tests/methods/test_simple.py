"""The simple sequential network against the paper's line of layers, written out by
hand."""

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.simple import Simple
from fgbook.recipe import Recipe


@pytest.mark.parametrize("head", ["fc", "gap"])
@pytest.mark.parametrize("size", [32, 37])  # 37: poolings leave a rest
def test_it_is_the_papers_line_of_layers(head, size):
    torch.manual_seed(0)
    model = Simple(None, 5, head=head, filters=(4, 6, 8), image_size=size).eval()
    images = torch.rand(3, 3, size, size)
    x = images
    for i in (0, 3, 6):
        x = F.max_pool2d(
            F.conv2d(x, model.layers[i].weight, model.layers[i].bias, padding=1).clamp(
                min=0
            ),
            2,
        )
    side = size // 8
    assert x.shape == (3, 8, side, side)
    if head == "fc":
        features = x.reshape(3, 8 * side * side)
    else:
        features = torch.stack(
            [torch.stack([x[b, c].sum() / side**2 for c in range(8)]) for b in range(3)]
        )
    expected = features @ model.image_head.weight.T + model.image_head.bias
    torch.testing.assert_close(model.predict(images), expected, atol=1e-5, rtol=1e-4)


def test_averaging_does_away_with_most_weights():
    """The paper's reason for global average pooling: fewer parameters."""
    sizes = {
        head: sum(p.numel() for p in Simple(None, 21, head=head).parameters())
        for head in ("fc", "gap")
    }
    convolutions = (3 * 16 + 16 * 32 + 32 * 64) * 9 + 16 + 32 + 64
    assert sizes == {
        "fc": convolutions + 64 * 28 * 28 * 21 + 21,
        "gap": convolutions + 64 * 21 + 21,
    }


def test_it_starts_as_keras_does():
    torch.manual_seed(0)
    for module in Simple(None, 100, head="fc", image_size=64).modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            weight = module.weight
            area = weight[0, 0].numel()
            # Glorot and Bengio 2010, eq. 16
            limit = (6 / (area * (weight.shape[0] + weight.shape[1]))) ** 0.5
            assert not module.bias.any()
            assert weight.abs().max() <= limit
            assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.1)


def test_it_needs_no_backbone_and_takes_its_size_from_the_recipe():
    model = build(
        "simple",
        5,
        Recipe(backbone="none", weights="none", image_size=48, store_size=48),
        {"head": "fc"},
    )
    assert model.image_head.in_features == 64 * 6 * 6
    assert not hasattr(model, "backbone")
    with pytest.raises(InputError, match="unknown backbone 'none'"):
        build("plain", 5, Recipe(backbone="none", weights="none"), {})


def test_bad_options_are_told():
    with pytest.raises(InputError, match="unknown head 'gpa'"):
        Simple(None, 5, head="gpa")
    for wrong in ({"filters": ()}, {"filters": (4, 0)}, {"image_size": 7}):
        with pytest.raises(InputError, match="filters are"):
            Simple(None, 5, **wrong)
