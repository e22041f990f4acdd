"""Attention that is rolled out, against whole products of matrices, on both kinds of
transformer.
"""

import pytest
import torch

from fgbook import explain, methods
from fgbook.errors import InputError
from fgbook.methods.transfg import attention
from fgbook.recipe import Recipe

SIZE = 80


def build(backbone, name="transfg", **options):
    torch.manual_seed(0)
    recipe = Recipe(backbone=backbone, weights="none", image_size=SIZE, store_size=SIZE)
    model = methods.build(name, 5, recipe, options).eval()
    for parameter in model.parameters():  # attention that is far from even
        if parameter.ndim == 2:
            parameter.data *= 4
    return model


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def slowly(matrices):
    """The whole product, a matrix an image and layer, heads averaged one by one."""
    product = torch.eye(matrices[0].shape[-1], dtype=torch.float64)
    for of_layer in matrices:  # (K, T, T)
        mean = sum(head.double() for head in of_layer) / len(of_layer)
        product = (mean + torch.eye(len(mean))) / 2 @ product
    return product


def test_the_row_is_that_of_the_whole_product():
    generator = torch.Generator().manual_seed(0)
    layers = [
        (3 * torch.randn(2, 3, 7, 7, generator=generator)).softmax(3) for _ in range(4)
    ]
    found = explain.rolled(layers)
    for i in range(2):
        product = slowly([layer[i] for layer in layers])
        torch.testing.assert_close(found[i].double(), product[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


@pytest.mark.parametrize(
    ("backbone", "options", "side", "first", "stride"),
    [
        ("small", {"layers": 3, "width": 16, "heads": 2}, 10, 0.5, 8),
        ("timm:vit_tiny_patch16_224", {"stride": 12}, 6, 8, 12),
    ],
)
def test_a_map_has_its_patches_where_they_look(
    images, backbone, options, side, first, stride
):
    model = build(backbone, **options)
    maps = explain.rollout(model, images)
    assert maps.shape == (2, side, side)

    tokens, matrices = model._embedded(images), []
    for layer in model.layers:
        matrices.append(attention(layer, tokens).detach())
        tokens = layer(tokens)
    expected = slowly([layer[1] for layer in matrices])[0, model.prefix :]
    torch.testing.assert_close(maps[1].flatten().double(), expected, atol=1e-6, rtol=0)

    explanations, _ = explain.offered(model, images[:1])
    classes = torch.tensor([0, 1])
    over_pixels = explanations["rollout"](images, classes)
    place = int(first + stride * 3)  # the pixel that the fourth patch looks at
    cell = maps[0, 3, 3]
    if first % 1 == 0:  # between two pixels
        pixels = over_pixels[0, place - 1 : place + 1, place - 1 : place + 1]
        assert pixels.min() <= cell <= pixels.max() + 1e-6
    else:
        torch.testing.assert_close(over_pixels[0, place, place], cell)

    own = model.attention_map(images)
    heads = torch.stack([m[1] for m in matrices])  # (L - 1, K, T, T)
    rows = [torch.eye(heads.shape[-1])[0] for _ in range(heads.shape[1])]
    for of_layer in heads.flip(0):
        rows = [row @ head for row, head in zip(rows, of_layer, strict=True)]
    mean = torch.stack(rows).mean(0)[model.prefix :]
    torch.testing.assert_close(own[1].flatten(), mean, atol=1e-6, rtol=1e-4)


def test_what_is_no_transformer_is_refused(images):
    with pytest.raises(InputError, match="Plain"):
        explain.rollout(build("small", "plain"), images)
