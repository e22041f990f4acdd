"""Every method on several backbones, and paper B's equations against slow
references."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fgbook.errors import InputError
from fgbook.images import regions
from fgbook.methods import build
from fgbook.recipe import Recipe

CLASSES = 7
# maps of 5 x 5 and 3 x 3 cells
SIZES = {"small": 40, "mobilenet_v2": 80, "resnet18": 80}
CASES = [
    ("plain", {}),
    ("focus", {}),
    ("focus", {"attention": "predicted", "m": 3, "l": 1}),
    ("focus", {"attention": "true", "separate_statistics": True}),
    ("focus", {"heads": "image"}),
    ("simple", {"head": "fc"}),
    ("simple", {"head": "gap"}),
    ("transfer", {}),
    ("transfer", {"pool": "gap", "hidden": 0}),
    ("flrdf", {}),
    (
        "flrdf",
        {
            "controller": "fixed",
            "attention": "max",
            "threshold": "mean",
            "separate_statistics": True,
        },
    ),
    ("flrdf", {"foreground": False}),
    (
        "flrdf",
        {
            "shuffle": False,
            "controller": "none",
            "attention": "predicted",
            "test": "foreground",
        },
    ),
    ("attention", {}),
    ("attention", {"start": "usual", "triplet": True}),
    ("semantic", {}),
    ("semantic", {"softmax": True}),
    ("simsiam", {}),
]
# what a data set says of its classes
ATTRIBUTES = torch.rand(CLASSES, 9, generator=torch.Generator().manual_seed(2))
# their backbone, with heads as in plain.linear
LEARNING = [
    (method, options)
    for method, options in CASES
    if method not in ("simple", "transfer", "attention", "semantic", "simsiam")
]
FOCUS = [options for method, options in CASES if method == "focus"]


def name_of(value):
    return (
        value
        if isinstance(value, str)
        else ",".join(f"{k}={v}" for k, v in value.items()) or "default"
    )


def make(method, options, backbone="small", seed=0, **recipe):
    torch.manual_seed(seed)
    return build(
        method,
        CLASSES,
        Recipe(backbone=backbone, weights="none", image_size=SIZES[backbone], **recipe),
        options,
        ATTRIBUTES,
    )


def batch(backbone="small", size=4):
    generator = torch.Generator().manual_seed(1)
    images = F.interpolate(
        torch.rand(size, 3, 6, 6, generator=generator), SIZES[backbone], mode="bicubic"
    ).clamp(0, 1)
    return images, torch.arange(size) % CLASSES


def total(model, images, targets):
    torch.manual_seed(3)  # dropout
    return sum(model.losses(model(images, targets), targets).values())


each_case = pytest.mark.parametrize(("method", "options"), CASES, ids=name_of)
each_learning = pytest.mark.parametrize(("method", "options"), LEARNING, ids=name_of)
each_focus = pytest.mark.parametrize("options", FOCUS, ids=name_of)
each_backbone = pytest.mark.parametrize("backbone", SIZES)
two_backbones = pytest.mark.parametrize("backbone", ["small", "mobilenet_v2"])


@each_backbone
@each_case
def test_shapes_finite_and_gradients_reach_every_parameter(method, options, backbone):
    model = make(method, options, backbone)
    images, targets = batch(backbone)
    logits = model(images, targets)
    expected = {"image": (4, CLASSES)}
    if method == "focus":
        expected["region"] = (4, model.m, CLASSES)
        if "heads" not in options:
            expected["hybrid"] = (4, CLASSES)
    if method == "flrdf":
        expected |= {
            head: (4, CLASSES)
            for head, option in (("foreground", "foreground"), ("shuffled", "shuffle"))
            if options.get(option, True)
        }
    if "triplet" in options:
        expected["triplet"] = (4, model.backbone.channels)
    assert {head: tuple(value.shape) for head, value in logits.items()} == expected
    losses = model.losses(logits, targets)
    assert list(losses) == list(expected) and all(
        loss.ndim == 0 and loss.isfinite() for loss in losses.values()
    )
    sum(losses.values()).backward()
    learning = {
        key: parameter
        for key, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    # Gates that start as the identity end in a layer of zeros; what lies before it
    # learns from the second step on (tests/test_attention.py).
    later = (
        {"channel.perceptron.0.weight", "spatial.convolution.weight"}
        if (method, options) == ("attention", {})
        else set()
    )
    assert (
        learning
        and {
            key
            for key, parameter in learning.items()
            if parameter.grad is None or not parameter.grad.any()
        }
        == later
    )
    predicted = model.eval().predict(images)
    assert predicted.shape == (4, CLASSES) and predicted.isfinite().all()


@two_backbones
@each_case
def test_eval_depends_on_each_image_alone(method, options, backbone):
    model = make(method, options, backbone).eval()
    images, _ = batch(backbone)
    with torch.no_grad():
        together = model.predict(images)
        for i in range(len(images)):
            torch.testing.assert_close(
                model.predict(images[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-4
            )


# Not semantic on an untrained MobileNetV2: its features are so short (1e-8) that any
# step turns their direction, which is all that a cosine sees.
@pytest.mark.parametrize(
    ("method", "options", "backbone"),
    [
        (*case, backbone)
        for case in CASES
        for backbone in SIZES
        if (case[0], backbone) != ("semantic", "mobilenet_v2")
    ],
    ids=name_of,
)
def test_a_small_step_lowers_the_loss(method, options, backbone):
    model = make(method, options, backbone, batchnorm="frozen")
    images, targets = batch(backbone)
    before = total(model, images, targets)
    before.backward()
    learning = [
        parameter for parameter in model.parameters() if parameter.requires_grad
    ]
    norm = (
        torch.stack([parameter.grad.square().sum() for parameter in learning])
        .sum()
        .sqrt()
    )
    with torch.no_grad():
        for parameter in learning:
            parameter -= 1e-2 * parameter.grad / norm
    assert total(model, images, targets) < before


@two_backbones
@each_case
def test_saved_and_loaded_it_is_bit_identical(method, options, backbone, tmp_path):
    model = make(method, options, backbone)
    images, targets = batch(backbone)
    model(images, targets)  # moves the running statistics
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = make(method, options, backbone, seed=5)
    with torch.no_grad():
        expected = model.eval().predict(images)
        assert not torch.equal(other.eval().predict(images), expected)
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(other.predict(images), expected)
        assert torch.equal(copy.deepcopy(model).predict(images), expected)


@each_case
def test_two_steps_from_one_seed_are_identical(method, options):
    images, targets = batch()

    def run():
        model = make(method, options)
        optimiser = torch.optim.SGD(model.parameters(), 0.05)
        for _ in range(2):
            optimiser.zero_grad()
            total(model, images, targets).backward()
            optimiser.step()
        return model.state_dict()

    assert all(
        torch.equal(a, b) for a, b in zip(run().values(), run().values(), strict=True)
    )


@each_learning
def test_frozen_statistics_freeze_the_backbones_only(method, options):
    model = make(method, options, batchnorm="frozen").train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(module.training for module in norms)
    before = {key: value.clone() for key, value in model.named_buffers()}
    images, targets = batch()
    total(model, images, targets).backward()
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers())
    assert all(parameter.requires_grad for parameter in model.parameters())
    trained = make(method, options).train()
    trained(images, targets)
    assert [
        key
        for key, value in trained.named_buffers()
        if not torch.equal(value, before[key])
    ]


@each_learning
def test_new_heads_start_as_stated(method, options):
    heads = {
        key: module
        for key, module in make(method, options).named_modules()
        if isinstance(module, nn.Linear)
    }
    assert heads
    for head in heads.values():
        assert head.weight.std().item() == pytest.approx(0.01, rel=0.1) and (
            head.bias is None or not head.bias.any()
        )


@each_case
def test_export_and_compile_take_the_whole_forward(method, options):
    """torch.export and fullgraph refuse whatever would make the host wait for a
    value."""
    torch._dynamo.reset()
    model = make(method, options)
    images, targets = batch()
    exported = torch.export.export(copy.deepcopy(model), (images, targets)).module()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
    for mode in (True, False):
        model.train(mode), compiled.train(mode)
        if not mode:
            exported = torch.export.export(
                copy.deepcopy(model), (images, targets)
            ).module()
        torch.manual_seed(3)  # dropout
        expected = model(images, targets)
        for network in (exported, compiled):
            torch.manual_seed(3)
            for head, value in network(images, targets).items():
                torch.testing.assert_close(value, expected[head], atol=1e-5, rtol=1e-4)
    # no traced tensor was kept
    assert torch.equal(copy.deepcopy(model).predict(images), model.predict(images))


# ---- focus -----------------------------------------------------------------------------------------------------------


def focus(**options):
    model = make("focus", options).eval()
    with torch.no_grad():
        model.image_head.weight.normal_()
        model.image_head.bias.normal_()
    return model


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
def test_attention_is_equation_2_and_its_ablations():
    images, targets = batch()
    model = focus(sigma=0.0)
    class_maps = slow_class_maps(model, images)
    scores = model(images)["image"]
    # GAP of a class's map is its score (eq. 1), but for the bias: the reason why the
    # map says where the evidence is.
    torch.testing.assert_close(
        class_maps.mean((2, 3)), scores - model.image_head.bias, atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(
        model.attention_map(images), class_maps.max(1).values, atol=1e-4, rtol=1e-4
    )
    predicted = scores.argmax(1)
    assert (predicted != targets).any()
    for attention, with_targets in (("predicted", predicted), ("true", targets)):
        model.attention = attention
        for given, k in ((None, predicted), (targets, with_targets)):
            expected = class_maps[torch.arange(len(images)), k]
            torch.testing.assert_close(
                model.attention_map(images, given), expected, atol=1e-4, rtol=1e-4
            )
    model.attention, model.sigma = "max", 0.2  # of the map's side
    smoothed = regions.gaussian_smooth(
        class_maps.max(1).values, 0.2 * class_maps.shape[-1]
    )
    torch.testing.assert_close(
        model.attention_map(images), smoothed, atol=1e-4, rtol=1e-4
    )


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
    chosen = boxes[
        regions.select(maps.flatten(1), regions.iou_matrix(boxes), model.m, 0.25)
    ]
    for b in range(len(images)):
        features = [model.backbone(images[b : b + 1]).mean((2, 3))]
        for r in range(model.m):
            crop = regions.crop_zoom(
                images[b : b + 1], chosen[b : b + 1, r : r + 1], size // 2
            )[0]
            features.append(model.backbone(crop).mean((2, 3)))
            torch.testing.assert_close(
                model.region_head(features[-1])[0],
                logits["region"][b, r],
                atol=1e-5,
                rtol=1e-4,
            )
        torch.testing.assert_close(
            model.image_head(features[0])[0], logits["image"][b], atol=1e-5, rtol=1e-4
        )
        if "hybrid" in logits:
            hybrid = model.hybrid_head(torch.cat(features[: 1 + model.l], 1))[0]
            torch.testing.assert_close(
                hybrid, logits["hybrid"][b], atol=1e-5, rtol=1e-4
            )


@torch.no_grad()
@each_focus
def test_regions_are_ordered_boxes_and_prediction_looks_no_further_than_it_must(
    options,
):
    model = focus(**options)
    images, _ = batch()
    boxes = model.regions(images)
    assert (
        boxes.shape == (4, model.m, 4)
        and boxes.min() >= 0
        and boxes.max() <= images.shape[-1]
    )
    torch.testing.assert_close(
        boxes[..., 2:] - boxes[..., :2],
        torch.full((4, model.m, 2), images.shape[-1] * 160 / 448),
    )
    seen = []
    model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    logits = model(images)
    assert seen == [4, 4 * model.m]
    seen.clear()
    prediction = model.predict(images)
    # image head: no crops; hybrid head: l, not m
    assert seen == ([4] if "heads" in options else [4, 4 * model.l])
    torch.testing.assert_close(
        prediction,
        logits["image" if "heads" in options else "hybrid"],
        atol=1e-5,
        rtol=1e-4,
    )


def test_losses_are_cross_entropies_and_take_a_criterion():
    model = make("focus", {})
    images, targets = batch()
    logits = model(images, targets)
    losses = model.losses(logits, targets)
    slow = torch.stack(
        [
            F.cross_entropy(logits["region"][b, r], targets[b])
            for b in range(4)
            for r in range(6)
        ]
    ).mean()
    torch.testing.assert_close(losses["region"], slow)
    torch.testing.assert_close(
        losses["hybrid"], F.cross_entropy(logits["hybrid"], targets)
    )
    smoothed = model.losses(logits, targets, nn.CrossEntropyLoss(label_smoothing=0.1))
    assert all(not torch.equal(smoothed[name], losses[name]) for name in losses)


def test_separate_statistics_are_used_for_regions_only():
    images, targets = batch()
    model = make("focus", {"separate_statistics": True})
    plain = make("plain", {})
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
    assert torch.equal(before["image"], after["image"]) and not torch.equal(
        before["region"], after["region"]
    )


@torch.no_grad()
def test_attention_stays_float32_under_mixed_precision():
    model = focus()
    images, _ = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model.backbone(images)
        attention = model.attention_map(images)
    assert maps.dtype == torch.bfloat16 and attention.dtype == torch.float32
    expected = torch.einsum(
        "cn,bnhw->bchw", model.image_head.weight, maps.float()
    ).amax(1)
    torch.testing.assert_close(
        attention,
        regions.gaussian_smooth(expected, model.sigma * expected.shape[-1]),
        atol=1e-3,
        rtol=1e-4,
    )


@each_focus
def test_a_training_step_never_asks_the_device_for_a_value(options):
    with FakeTensorMode():  # tensors without values: reading one fails
        model = make("focus", options)
        images, targets = torch.rand(4, 3, 40, 40), torch.zeros(4, dtype=torch.int64)
        total(model, images, targets).backward()
        assert model.eval().predict(images).shape == (4, CLASSES)
        assert model.regions(images).shape == (4, model.m, 4)


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


@each_case
def test_prediction_in_inference_mode_leaves_the_model_trainable(method, options):
    model = make(method, options)
    images, targets = batch()
    with torch.inference_mode():
        model.eval().predict(images)
    total(model.train(), images, targets).backward()


def test_bad_options_and_images_are_told():
    recipe = Recipe(backbone="small", weights="none")
    with pytest.raises(
        InputError, match="unknown method 'focsu'; did you mean 'focus'"
    ):
        build("focsu", 5, recipe, {})
    with pytest.raises(
        InputError, match="unknown option of focus 'tresh'; did you mean 'threshold'"
    ):
        build("focus", 5, recipe, {"tresh": 0.3})
    with pytest.raises(InputError, match="unknown option of plain 'm'"):
        build("plain", 5, recipe, {"m": 3})
    with pytest.raises(InputError, match="unknown attention 'maximum'"):
        build("focus", 5, recipe, {"attention": "maximum"})
    with pytest.raises(InputError, match="unknown heads"):
        build("focus", 5, recipe, {"heads": "images"})
    with pytest.raises(InputError, match="l is 5 and m is 4"):
        build("focus", 5, recipe, {"l": 5, "m": 4})
    for wrong in ({"threshold": 1.5}, {"box": 0.0}, {"zoom": 0.0}, {"sigma": -1.0}):
        with pytest.raises(
            InputError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}"
        ):
            build("focus", 5, recipe, wrong)
    model = build("focus", 5, recipe, {})
    with pytest.raises(
        InputError, match="6 regions are asked for, but the map has only 4 cells"
    ):
        model(torch.rand(2, 3, 16, 16))
    with pytest.raises(InputError, match="square"):
        model(torch.rand(2, 3, 40, 48))
