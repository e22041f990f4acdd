"""Focus (paper B): its equations against slow references."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fgbook.errors import InputError
from fgbook.images import regions
from fgbook.methods import build
from fgbook.methods.focus import Focus
from fgbook.recipe import Recipe

CLASSES = 7
RECIPE = Recipe(backbone="small", weights="none", image_size=40)
each_focus = pytest.mark.parametrize(
    "options",
    Focus.VARIANTS,
    ids=lambda options: ",".join(f"{k}={v}" for k, v in options.items()) or "default",
)


def make(method="focus", **options):
    torch.manual_seed(0)
    return build(method, CLASSES, RECIPE, options)


def focus(**options):
    """In eval mode, with weights of the image head that matter."""
    model = make(**options).eval()
    with torch.no_grad():
        model.image_head.weight.normal_()
        model.image_head.bias.normal_()
    return model


def batch():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, 40, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) % CLASSES


@each_focus
def test_heads_are_those_of_the_paper(options):
    model = make(**options)
    logits = model(*batch())
    assert logits["image"].shape == (4, CLASSES)
    assert logits["region"].shape == (4, model.m, CLASSES)
    assert ("hybrid" in logits) == ("heads" not in options)
    if "hybrid" in logits:
        assert logits["hybrid"].shape == (4, CLASSES)


@each_focus
def test_all_heads_start_near_equal_probabilities(options):
    heads = [m for m in make(**options).modules() if isinstance(m, nn.Linear)]
    assert len(heads) == (2 if "heads" in options else 3)
    for head in heads:
        assert head.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not head.bias.any()


def slow_class_maps(model, images):
    """M_k of every class by loops over classes and channels: (B, C, h, w)."""
    maps = model.backbone(images)
    weight = model.image_head.weight
    result = torch.zeros(len(images), CLASSES, *maps.shape[2:])
    for k in range(CLASSES):
        for i in range(maps.shape[1]):
            result[:, k] += weight[k, i] * maps[:, i]
    return result


@torch.no_grad()
def test_the_mean_of_a_class_map_is_its_score():
    """Eq. 1, but for the bias: the reason why the map says where the evidence is."""
    images, _ = batch()
    model = focus()
    scores = model(images)["image"] - model.image_head.bias
    means = slow_class_maps(model, images).mean((2, 3))
    torch.testing.assert_close(means, scores, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_attention_is_equation_2():
    images, _ = batch()
    model = focus(sigma=0.0)
    expected = slow_class_maps(model, images).max(1).values
    found = model.attention_map(images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_is_smoothed_by_a_share_of_the_maps_side():
    images, _ = batch()
    model = focus(sigma=0.2)
    class_maps = slow_class_maps(model, images)
    sigma = 0.2 * class_maps.shape[-1]
    expected = regions.gaussian_smooth(class_maps.max(1).values, sigma)
    found = model.attention_map(images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["predicted", "true"])
@pytest.mark.parametrize("given", [False, True])
def test_ablations_follow_one_class(attention, given):
    images, targets = batch()
    model = focus(sigma=0.0, attention=attention)
    predicted = model(images)["image"].argmax(1)
    assert (predicted != targets).any()
    k = targets if given and attention == "true" else predicted
    expected = slow_class_maps(model, images)[torch.arange(len(images)), k]
    found = model.attention_map(images, targets if given else None)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@each_focus
def test_forward_is_the_paper_step_by_step(options):
    """The same numbers from single images, single crops and plain slices."""
    model = focus(**options)
    images, targets = batch()
    logits = model(images, targets)
    size = images.shape[-1]
    maps = model.attention_map(images, targets)
    h, w = maps.shape[1:]
    boxes = regions.centre_boxes(h, w, size, size * 160 / 448, 8, 0.5)
    overlaps = regions.iou_matrix(boxes)
    chosen = boxes[regions.select(maps.flatten(1), overlaps, model.m, 0.25)]
    close = {"atol": 1e-5, "rtol": 1e-4}
    for b in range(len(images)):
        image = images[b : b + 1]
        features = [model.backbone(image).mean((2, 3))]
        for r in range(model.m):
            crop = regions.crop_zoom(image, chosen[b : b + 1, r : r + 1], size // 2)[0]
            features.append(model.backbone(crop).mean((2, 3)))
            of_region = model.region_head(features[-1])[0]
            torch.testing.assert_close(of_region, logits["region"][b, r], **close)
        of_image = model.image_head(features[0])[0]
        torch.testing.assert_close(of_image, logits["image"][b], **close)
        if "hybrid" in logits:
            hybrid = model.hybrid_head(torch.cat(features[: 1 + model.l], 1))[0]
            torch.testing.assert_close(hybrid, logits["hybrid"][b], **close)


@torch.no_grad()
@each_focus
def test_regions_are_boxes_within_the_image(options):
    model = focus(**options)
    images, _ = batch()
    boxes = model.regions(images)
    assert boxes.shape == (4, model.m, 4)
    assert boxes.min() >= 0
    assert boxes.max() <= images.shape[-1]
    sides = boxes[..., 2:] - boxes[..., :2]
    torch.testing.assert_close(sides, torch.full_like(sides, 40 * 160 / 448))


@torch.no_grad()
@each_focus
def test_prediction_looks_no_further_than_it_must(options):
    model = focus(**options)
    images, _ = batch()
    seen = []
    model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    logits = model(images)
    assert seen == [4, 4 * model.m]
    seen.clear()
    prediction = model.predict(images)
    # image head: no crops; hybrid head: l, not m
    head = "image" if "heads" in options else "hybrid"
    assert seen == ([4] if head == "image" else [4, 4 * model.l])
    torch.testing.assert_close(prediction, logits[head], atol=1e-5, rtol=1e-4)


def test_the_region_loss_is_the_mean_over_regions():
    model = make()
    images, targets = batch()
    logits = model(images, targets)
    losses = model.losses(logits, targets)
    slow = [
        F.cross_entropy(logits["region"][b, r], targets[b])
        for b in range(4)
        for r in range(6)
    ]
    torch.testing.assert_close(losses["region"], torch.stack(slow).mean())
    hybrid = F.cross_entropy(logits["hybrid"], targets)
    torch.testing.assert_close(losses["hybrid"], hybrid)


def test_every_loss_takes_the_criterion():
    model = make()
    images, targets = batch()
    logits = model(images, targets)
    losses = model.losses(logits, targets)
    smoothed = model.losses(logits, targets, nn.CrossEntropyLoss(label_smoothing=0.1))
    for name in losses:
        assert not torch.equal(smoothed[name], losses[name]), name


def test_separate_statistics_are_used_for_regions_only():
    images, targets = batch()
    model = make(separate_statistics=True)
    plain = make("plain")
    plain.backbone.load_state_dict(model.backbone.state_dict())
    model(images, targets), plain(images)
    # the image's statistics are as if there were no regions
    for key, value in plain.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value)
    model.eval()
    with torch.no_grad():
        before = model(images)
        for value in model.second.buffers():
            value.add_(1)
        after = model(images)
    assert torch.equal(before["image"], after["image"])
    assert not torch.equal(before["region"], after["region"])


@torch.no_grad()
def test_attention_stays_float32_under_mixed_precision():
    model = focus()
    images, _ = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model.backbone(images)
        attention = model.attention_map(images)
    assert maps.dtype == torch.bfloat16
    assert attention.dtype == torch.float32
    weight = model.image_head.weight
    expected = torch.einsum("cn,bnhw->bchw", weight, maps.float()).amax(1)
    smooth = regions.gaussian_smooth(expected, model.sigma * expected.shape[-1])
    torch.testing.assert_close(attention, smooth, atol=1e-3, rtol=1e-4)


@each_focus
def test_regions_are_chosen_without_asking_the_device_for_a_value(options):
    with FakeTensorMode():  # tensors without values: reading one fails
        model = make(**options).eval()
        assert model.regions(torch.rand(4, 3, 40, 40)).shape == (4, model.m, 4)


def test_constants_are_made_once_for_a_size(monkeypatch):
    made = []
    iou_matrix = regions.iou_matrix
    monkeypatch.setattr(
        regions,
        "iou_matrix",
        lambda boxes: made.append(len(boxes)) or iou_matrix(boxes),
    )
    model = focus()
    with torch.no_grad():
        for size in (40, 40, 64, 40, 64):
            model(torch.rand(2, 3, size, size))
        assert made == [25, 64]
        model.box = 0.25  # an option changed afterwards, as for a figure
        boxes = model.regions(torch.rand(2, 3, 40, 40))
    torch.testing.assert_close(boxes[..., 2] - boxes[..., 0], torch.full((2, 6), 10.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "maximum"}, "unknown attention 'maximum'"),
        ({"heads": "images"}, "unknown heads 'images'"),
        ({"l": 5, "m": 4}, "l is 5 and m is 4"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"box": 0.0}, "box 0.0"),
        ({"zoom": 0.0}, "zoom 0.0"),
        ({"sigma": -1.0}, "sigma -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_images_that_cannot_have_regions_are_refused():
    model = make()
    with pytest.raises(InputError, match="6 regions are asked for, but the map has"):
        model(torch.rand(2, 3, 16, 16))
    with pytest.raises(InputError, match="square"):
        model(torch.rand(2, 3, 40, 48))
