"""Bilinear CNN: products against loops over places, the tensor sketch against count
sketches multiplied in Fourier space and against the inner products that it stands for.
"""

import pytest
import torch

from fgbook import backbones
from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.bilinear import EPSILON, Sketch, products, rooted
from fgbook.recipe import Recipe


def make(backbone="small", **options):
    torch.manual_seed(0)
    return build("bilinear", 4, Recipe(backbone=backbone, weights="none"), options)


def maps(count=2, channels=5, h=3, w=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, h, w, generator=generator)


def sum_of_outer_products(one):
    """Lin et al., section 2.1: (n, h, w) -> (n, n), place by place."""
    total = torch.zeros(len(one), len(one), dtype=one.dtype)
    for y in range(one.shape[1]):
        for x in range(one.shape[2]):
            total += torch.outer(one[:, y, x], one[:, y, x])
    return total


def count_sketch(vector, hashes, signs, size):
    sketch = torch.zeros(size, dtype=vector.dtype)
    for value, bucket, sign in zip(vector, hashes, signs, strict=True):
        sketch[bucket] += sign * value
    return sketch


def test_products_are_the_outer_products_of_all_places():
    x = maps()
    found = products(x)
    assert torch.equal(found, found.transpose(1, 2))
    for one, of_one in zip(x, found, strict=True):
        torch.testing.assert_close(12 * of_one, sum_of_outer_products(one))


def test_the_feature_has_length_one_and_the_signs_of_the_products():
    model = make(width=6).eval()
    x = torch.rand(3, 3, 40, 40)
    feature = model.describe(x)
    assert feature.shape == (3, 36)
    torch.testing.assert_close(feature.norm(dim=1), torch.ones(3))
    reduced = model.reduce(model.backbone(x))
    for one, of_one in zip(reduced, feature, strict=True):
        expected = sum_of_outer_products(one).flatten().sqrt()  # none is negative
        expected = expected / expected.norm()
        # EPSILON is felt where a product is small beside the others
        torch.testing.assert_close(of_one, expected, atol=5e-3, rtol=0.02)

    signed = products(maps()).flatten(1)
    assert torch.equal(rooted(signed).sign(), signed.sign())
    assert (signed < 0).any()


def test_the_head_reads_the_feature_at_the_length_that_is_asked_for():
    model = make(width=6, length=3.0).eval()
    x = torch.rand(2, 3, 40, 40)
    expected = 3 * model.describe(x) @ model.head.weight.T
    torch.testing.assert_close(model(x)["image"], expected)


def test_the_root_is_the_signed_root_and_has_a_finite_slope_at_zero():
    x = torch.tensor([[0.0, 0.6, -0.8, 0.0]], requires_grad=True)
    expected = torch.tensor([[0.0, 0.6**0.5, -(0.8**0.5), 0.0]])
    expected = expected / expected.norm()
    found = rooted(x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    found.sum().backward()
    assert x.grad.isfinite().all()
    # towards 0 from both sides it goes to 0
    near = torch.tensor([[1e-12, 1.0], [-1e-12, 1.0]])
    assert rooted(near)[:, 0].abs().max() < 1e-12 / EPSILON


@pytest.mark.parametrize("sketch", [0, 40])
def test_order_of_places_and_scale_of_the_maps_do_not_matter(sketch):
    x = maps(channels=6)
    torch.manual_seed(2)
    describe = Sketch(6, sketch) if sketch else torch.nn.Flatten()
    feature = rooted(describe(products(x)))
    order = torch.randperm(12)
    shuffled = x.flatten(2)[:, :, order].unflatten(2, (3, 4))
    torch.testing.assert_close(rooted(describe(products(shuffled))), feature)
    torch.testing.assert_close(rooted(describe(products(30 * x))), feature)
    assert not torch.allclose(rooted(describe(products(x.abs()))), feature)


def test_the_sketch_is_the_product_of_two_count_sketches_in_fourier_space():
    torch.manual_seed(3)
    sketch = Sketch(5, 16)
    x = maps()
    found = sketch(products(x))
    assert found.shape == (2, 16)
    for one, of_one in zip(x, found, strict=True):
        total = torch.zeros(16)
        for place in one.flatten(1).T:
            first = count_sketch(place, sketch.hashes[0], sketch.signs[0], 16)
            second = count_sketch(place, sketch.hashes[1], sketch.signs[1], 16)
            both = torch.fft.fft(first) * torch.fft.fft(second)
            total += torch.fft.ifft(both).real
        torch.testing.assert_close(of_one, total / 12, atol=1e-6, rtol=1e-5)


def test_inner_products_of_sketches_are_squared_inner_products_in_the_mean():
    """Pham and Pagh: over hashes and signs, <ts(x), ts(y)> is <x, y>^2 in the mean."""
    x, y = maps(2, 8, 1, 1).abs()
    pairs = products(torch.stack([x, y]))
    expected = torch.dot(x.flatten(), y.flatten()).square()
    torch.manual_seed(4)
    found = []
    for _ in range(4000):
        of_x, of_y = Sketch(8, 64)(pairs)
        found.append(torch.dot(of_x, of_y))
    found = torch.stack(found)
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - expected) < 4 * error
    assert error < 0.05 * expected


def test_hashes_are_saved_with_the_weights_and_do_not_learn():
    model = make(sketch=32)
    assert {"sketch.hashes", "sketch.signs"} <= set(model.state_dict())
    assert set(model.sketch.signs.flatten().tolist()) == {-1.0, 1.0}
    assert not list(model.sketch.parameters())
    assert model.head.in_features == 32


def test_a_shallower_map_leaves_what_is_behind_it_unlearned():
    model = make(depth=2, width=0)
    assert model.head.in_features == 96**2
    learning = {
        name
        for name, parameter in model.backbone.named_parameters()
        if parameter.requires_grad
    }
    plain = backbones.create("small", "none")
    assert learning == {
        name
        for name, _ in plain.named_parameters()
        if name.startswith(("network.stem", "network.blocks.0", "network.blocks.1"))
    }


@pytest.mark.parametrize(
    "options",
    [{"width": -1}, {"sketch": -1}, {"depth": 0}, {"depth": 4}, {"length": 0.0}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        make(**options)
