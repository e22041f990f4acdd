"""TransFG: roll-out against products of matrices, selection and contrast against loops,
patches that overlap, and what of a transformer learns."""

import pytest
import torch

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.transfg import attention, contrast, places, rolled_out
from fgbook.recipe import Recipe

VIT = "timm:vit_tiny_patch16_224"
CLASSES, SIDE = 5, 80


def make(backbone=VIT, seed=0, **options):
    torch.manual_seed(seed)
    recipe = Recipe(backbone=backbone, weights="none", image_size=SIDE)
    return build("transfg", CLASSES, recipe, options)


def batch(count=4, side=SIDE):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, side, side, generator=generator)
    return images, torch.arange(count) % 2


def stochastic(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator).softmax(-1)


def test_the_row_that_is_rolled_out_is_that_of_the_product_of_all_matrices():
    attentions = [stochastic(2, 3, 7, 7, seed=i) for i in range(4)]
    found = rolled_out(attentions)
    for b in range(2):
        for head in range(3):
            product = torch.eye(7)
            for layer in attentions:  # a_3 a_2 a_1 a_0
                product = layer[b, head] @ product
            torch.testing.assert_close(found[b, head], product[0])


def test_attention_that_looks_at_itself_alone_rolls_out_to_the_last_layers_row():
    last = stochastic(1, 2, 5, 5)
    same = torch.eye(5).expand(1, 2, 5, 5)
    torch.testing.assert_close(rolled_out([same, same, last]), last[:, :, 0])


def test_attention_is_what_the_layer_mixes_its_values_by():
    model = make()
    layer, tokens = model.layers[0], torch.randn(2, 6, 192)
    own = layer.attn
    value = own.qkv(layer.norm1(tokens)).view(2, 6, 3, 3, 64)[:, :, 2]  # (B, T, K, d)
    mixed = torch.einsum("bkst,btkd->bskd", attention(layer, tokens), value)
    expected = own(layer.norm1(tokens))
    torch.testing.assert_close(own.proj(mixed.flatten(2)), expected)


def test_the_last_layer_sees_the_class_token_and_the_patch_that_each_head_chose():
    model = make().eval().requires_grad_(False)
    images, _ = batch()
    network = model.backbone.network
    found = model(images)
    for i, image in enumerate((images - model.backbone.mean) / model.backbone.std):
        tokens = network.norm_pre(network._pos_embed(network.patch_embed(image[None])))
        row = None
        matrices = []
        for layer in network.blocks[:-1]:
            matrices.append(attention(layer, tokens)[0])
            tokens = layer(tokens)
        chosen = [tokens[0, 0]]
        for head in range(3):
            row = torch.linalg.multi_dot([m[head] for m in reversed(matrices)])[0]
            chosen.append(tokens[0, 1 + int(row[1:].argmax())])
        token = network.norm(model.last(torch.stack(chosen)[None]))[0, 0]
        torch.testing.assert_close(found["token"][i], token, atol=1e-4, rtol=1e-4)
        logits = model.head.weight @ token + model.head.bias
        torch.testing.assert_close(found["image"][i], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_contrast_is_the_mean_over_all_pairs(mixed):
    tokens = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    tokens[3] = tokens[0] + 0.1  # of different classes, and alike
    labels = torch.tensor([0, 1, 2, 1, 0, 2])
    shares = torch.eye(3)[labels]
    if mixed:
        shares[1] = torch.tensor([0.25, 0.75, 0.0])
    total = 0.0
    for i in range(6):
        for j in range(6):
            cosine = float(tokens[i] @ tokens[j] / tokens[i].norm() / tokens[j].norm())
            same = float(shares[i] @ shares[j])
            total += same * (1 - cosine) + (1 - same) * max(0.0, cosine - 0.4)
    found = contrast(tokens, shares if mixed else labels, 0.4)
    assert found.item() == pytest.approx(total / 36, rel=1e-5)


def test_contrast_is_least_where_classes_are_apart():
    labels = torch.tensor([0, 0, 1, 1])
    tokens = torch.tensor([[2.0, 0], [1, 0], [0, 3], [0, 1]])
    assert contrast(tokens, labels, 0.4).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("stride", "cells"), [(0, 5), (16, 5), (12, 6), (8, 9)])
def test_overlapping_patches_are_more_patches(stride, cells):
    model = make(stride=stride).eval()
    images, _ = batch(2)
    tokens, parts = model._read(images)
    assert tokens.shape == (2, 1 + cells**2, 192)
    assert parts.shape == (2, 3)
    boxes = model.regions(images)
    assert boxes.shape == (2, 3, 4)
    # the boxes are the pixels that the patches' tokens were made of
    y, x = parts // cells * (stride or 16), parts % cells * (stride or 16)
    expected = torch.stack([x, y, x + 16, y + 16], 2).float()
    assert torch.equal(boxes, expected)


def test_of_a_transformer_all_but_its_own_last_layer_learns():
    model = make()
    images, targets = batch()
    sum(model.losses(model(images, targets), targets).values()).backward()
    idle = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    of_last = {
        f"backbone.network.blocks.11.{name}"
        for name, _ in model.backbone.network.blocks[-1].named_parameters()
    }
    assert idle == of_last
    assert not any(model.get_parameter(name).requires_grad for name in idle)


@pytest.mark.parametrize("side", [64, 65, 79])
def test_what_is_left_over_beside_the_patches_is_not_seen(side):
    model = make().eval()
    images, _ = batch(2, side)
    changed = images.clone()
    changed[..., 64:, :] = 0
    assert model.predict(images).isfinite().all()
    assert torch.equal(model.predict(images), model.predict(changed)) == (side < 80)


def test_places_of_a_map_are_all_different_and_know_rows_from_columns():
    found = places(4, 5, 16, torch.device("cpu"))
    assert found.shape == (20, 16)
    assert torch.cdist(found, found).add(torch.eye(20)).min() > 0.1
    grid = found.view(4, 5, 16)
    assert torch.equal(grid[1, :, :8], grid[1, :1, :8].expand(5, 8))
    assert torch.equal(grid[:, 2, 8:], grid[:1, 2, 8:].expand(4, 8))


def test_bad_options_are_told():
    small = {"backbone": "small"}
    for wrong, said in (
        ({"stride": 17}, "patches of 16 px"),
        (small | {"stride": 4}, "small is no transformer.*stride=0"),
        (small | {"width": 18}, "multiple of 4 and of heads"),
        (small | {"layers": 1}, "at least 2 layers"),
        ({"margin": 1.0}, "a cosine below 1"),
        ({"backbone": "vit_b_16"}, "cannot see inside vit_b_16"),
    ):
        with pytest.raises(InputError, match=said):
            make(**wrong)
