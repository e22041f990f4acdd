"""Paper D: suppression and boxes against loops, numpy and scipy; what each option
leaves out. (tests/methods/test_methods.py has what holds of every method.)"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fgbook.errors import InputError
from fgbook.evaluation import cost
from fgbook.images import regions
from fgbook.images.shuffle import shuffle_patches
from fgbook.methods import build
from fgbook.methods.suppression import Suppression
from fgbook.recipe import Recipe

CLASSES, SIDE = 5, 40


def make(backbone="small", seed=0, **options):
    torch.manual_seed(seed)
    model = build("flrdf", CLASSES, Recipe(backbone=backbone, weights="none"), options)
    nn.init.normal_(model.image_head.weight)  # maps of different classes differ
    return model


def batch(count=4, side=SIDE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    return images, torch.arange(count) % CLASSES


# ---- suppression


@pytest.mark.parametrize("bound", [None, 0.7, 0.0, 1.0])
def test_suppression_is_equation_1_and_a_clamp_from_above(bound):
    torch.manual_seed(0)
    block, maps = Suppression(6, bound), torch.randn(3, 6, 4, 5)
    if bound is None:
        nn.init.normal_(block.controller.weight)
    with torch.no_grad():
        found = block(maps)
    for image, channel in np.ndindex(3, 6):
        x = maps[image].clamp(min=0).double().numpy()
        control = bound
        if bound is None:
            weight = block.controller.weight[channel].detach().double().numpy()
            control = 1 / (1 + np.exp(-(weight * x.mean((1, 2))).sum()))
        tau = x[channel].max() * control
        for y, column in np.ndindex(4, 5):
            expected = min(x[channel, y, column], tau)
            got = found[image, channel, y, column].item()
            assert got == pytest.approx(expected, abs=1e-6)


def test_the_controller_starts_near_a_half_and_learns():
    torch.manual_seed(0)
    block, maps = Suppression(200), torch.rand(2, 200, 4, 4, requires_grad=True)
    weight = block.controller.weight
    assert block.controller.bias is None
    assert weight.mean().abs() < 1e-3
    assert weight.std().item() == pytest.approx(0.01, rel=0.05)
    pressed = block(maps)
    assert (pressed.amax((2, 3)) / maps.amax((2, 3))).mean().item() == pytest.approx(
        0.5, abs=0.02
    )
    pressed.sum().backward()
    # d min(x, max * G) / d G is the maximum wherever the clamp acts, times sigmoid's
    # slope
    control = block.controller(maps.mean((2, 3))).sigmoid()
    acts = (maps > maps.amax((2, 3), keepdim=True) * control[..., None, None]).sum(
        (2, 3)
    )
    slope = maps.amax((2, 3)) * acts * control * (1 - control)  # (2, 200)
    torch.testing.assert_close(
        weight.grad, slope.T @ maps.mean((2, 3)), rtol=1e-4, atol=1e-5
    )


# ---- maps and boxes


@torch.no_grad()
@pytest.mark.parametrize("attention", ["true", "predicted", "max", "channels"])
def test_maps_are_sums_over_channels(attention):
    model = make(attention=attention).eval()
    images, targets = batch()
    maps = model.backbone(images)
    for name, of in (("foreground", model.suppression(maps)), ("cam", maps)):
        every = torch.zeros(4, CLASSES, *of.shape[2:])  # (B, C, h, w)
        for k in range(CLASSES):
            for i in range(of.shape[1]):
                every[:, k] += model.image_head.weight[k, i] * of[:, i]
        predicted = model(images)["image"].argmax(1)
        assert (predicted != targets).any()
        soft = F.one_hot(targets, CLASSES) * 0.6 + 0.4 / CLASSES
        for given in (None, targets, soft):
            k = predicted if given is None or attention == "predicted" else targets
            expected = {"max": every.amax(1), "channels": of.sum(1)}.get(
                attention, every[torch.arange(4), k]
            )
            torch.testing.assert_close(
                model.activation_maps(images, given)[name],
                expected,
                atol=1e-4,
                rtol=1e-4,
            )


def slow_box(model, one, size):
    """Of a map (h, w): scipy's linear interpolation, threshold, components, and edges
    one by one."""
    cells, finer = len(one), model.finer
    at = np.clip((np.arange(cells * finer) + 0.5) / finer - 0.5, 0, cells - 1)
    fine = ndimage.map_coordinates(one, np.meshgrid(at, at, indexing="ij"), order=1)
    limit = model.level * fine.max() if model.threshold == "max" else fine.mean()
    labels, count = ndimage.label(fine > limit, np.ones((3, 3)))
    if not count:
        return [0, 0, size, size]
    largest = np.bincount(labels.flatten())[1:].argmax()
    rows, columns = ndimage.find_objects(labels)[largest]
    depth = model.backbone.depth_at(size)
    edges = []
    for cell in (columns.start, rows.start, columns.stop, rows.stop):
        if cell == 0:
            edges.append(0)
        elif cell == len(fine):
            edges.append(size)
        else:  # the edge before the cell, in pixels
            edges.append(depth.first + depth.stride * (cell / finer - 0.5))
    return edges


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threshold": "mean"},
        {"finer": 1, "level": 0.6},
        {"finer": 3, "controller": "none"},
    ],
    ids=str,
)
def test_boxes_are_those_of_the_slow_path(options):
    model = make(**options).eval()
    images, _ = batch(6, 72)
    located = model.locate(images)
    maps = model.activation_maps(images)
    names = ["foreground"] if "controller" in options else ["foreground", "cam"]
    assert list(located) == names
    assert list(maps) == names
    for name, boxes in located.items():
        assert boxes.shape == (6, 4)
        assert boxes.dtype == torch.float32
        for one, box in zip(maps[name].double().numpy(), boxes, strict=True):
            assert box.tolist() == pytest.approx(slow_box(model, one, 72))


def test_a_spot_is_found_and_a_map_without_one_gives_the_whole_image():
    model = make(finer=1).eval()  # cells of 8 pixels round 0.5, 8.5, ...
    maps = torch.full((4, 9, 9), -1.0)
    maps[0, 2:5, 3:7] = 1  # the larger of two
    maps[0, 7, 0] = 9 / 8
    maps[1, 6:, 8:] = 1  # in the corner: to the border of the image
    maps[3] = 2.0
    assert model.box(maps, 72).tolist() == [
        [20.5, 12.5, 52.5, 36.5],
        [60.5, 44.5, 72, 72],
        [0, 0, 72, 72],
        [0, 0, 72, 72],
    ]


def test_the_control_looks_at_the_middle_square_whatever_the_map_says():
    model = make(threshold="middle").eval()
    boxes = model.box(torch.rand(3, 9, 9), SIDE)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    torch.testing.assert_close(width * height, torch.full((3,), SIDE**2 / 2))
    torch.testing.assert_close(width, height)
    torch.testing.assert_close(
        (boxes[:, :2] + boxes[:, 2:]) / 2, torch.full((3, 2), SIDE / 2)
    )
    images = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(model.locate(images)["foreground"], boxes[:2])
    logits = model(images, torch.tensor([0, 1]))["foreground"]
    views = regions.crop_zoom(images, boxes[:2, None], SIDE)[:, 0]
    again = model.foreground_head(model.backbone(views).mean((2, 3)))
    torch.testing.assert_close(logits, again)


# ---- the whole


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"foreground": False},
        {"shuffle": False},
        {"controller": "fixed", "n": 2, "attention": "max"},
    ],
    ids=str,
)
def test_forward_is_the_paper_step_by_step(options):
    """The same numbers from single images."""
    model = make(**options).eval()
    images, targets = batch()
    torch.manual_seed(5)
    logits = model(images, targets)

    views = []
    activation = model.activation_maps(images, targets)["foreground"]
    boxes = model.box(activation, SIDE)
    for b in range(4):
        view = images[b : b + 1]
        if options.get("foreground", True):
            view = regions.crop_zoom(view, boxes[b].view(1, 1, 4), SIDE)[:, 0]
        views.append(view)
    views = torch.cat(views)

    torch.manual_seed(5)
    seen = {
        "image": images,
        "foreground": views,
        "shuffled": shuffle_patches(views, model.n),
    }
    if not options.get("foreground", True):
        del seen["foreground"]
    if not options.get("shuffle", True):
        del seen["shuffled"]
    assert list(logits) == list(seen)
    for name, of_view in logits.items():
        for b in range(4):
            maps = model.backbone(seen[name][b : b + 1])
            if name == "image" and model.suppression is not None:
                maps = model.suppression(maps)
            torch.testing.assert_close(
                getattr(model, f"{name}_head")(maps.mean((2, 3)))[0],
                of_view[b],
                atol=1e-5,
                rtol=1e-4,
            )


def test_options_leave_out_what_they_say():
    def parts(**options):
        names = [name.split(".")[0] for name, _ in make(**options).named_parameters()]
        return set(names) - {"backbone"}

    every = {"image_head", "foreground_head", "shuffled_head", "suppression"}
    assert parts() == every
    assert parts(controller="none") == every - {"suppression"}
    assert parts(controller="fixed") == every - {"suppression"}
    assert parts(shuffle=False) == every - {"shuffled_head"}
    assert parts(foreground=False) == {"image_head", "shuffled_head"}


def test_with_nothing_on_it_is_the_plain_backbone_which_can_be_asked_where_it_looks():
    images, _ = batch()
    model = make(foreground=False, shuffle=False).eval()
    plain = build("plain", CLASSES, Recipe(backbone="small", weights="none"), {}).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.predict(images), plain.predict(images))
    assert list(model.locate(images)) == ["foreground"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("test", "looks"), [("both", 2), ("foreground", 2), ("image", 1)]
)
def test_prediction_shuffles_nothing_and_looks_no_further_than_it_must(test, looks):
    model = make(test=test).eval()
    images, _ = batch()
    seen = []
    model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    logits = model(images)
    assert seen == [4] * 3
    seen.clear()
    before = torch.get_rng_state()
    prediction = model.predict(images)
    assert seen == [4] * looks
    assert torch.equal(torch.get_rng_state(), before)
    expected = (logits["image"] + logits["foreground"]) / 2
    if test != "both":
        expected = logits[test]
    torch.testing.assert_close(prediction, expected)


def test_losses_are_cross_entropies_also_of_soft_targets():
    model = make()
    images, targets = batch()
    soft = F.one_hot(targets, CLASSES) * 0.7 + 0.3 / CLASSES
    for given, shares in ((targets, F.one_hot(targets, CLASSES)), (soft, soft)):
        logits = model(images, given)
        losses = model.losses(logits, given)
        assert list(losses) == ["image", "foreground", "shuffled"]
        for name, loss in losses.items():
            torch.testing.assert_close(
                loss, -(shares * logits[name].log_softmax(1)).sum(1).mean()
            )


def test_each_view_can_keep_its_own_statistics():
    model = make(separate_statistics=True)
    alone = make(foreground=False, shuffle=False)
    alone.backbone.load_state_dict(model.backbone.state_dict())
    images, targets = batch()
    model(images, targets), alone(images)
    # the image's are as if there were no other views
    for key, value in alone.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value)
    foreground = dict(model.statistics["foreground"].named_buffers())
    shuffled = dict(model.statistics["shuffled"].named_buffers())
    key = next(name for name in foreground if name.endswith("running_mean"))
    own = model.backbone.get_buffer(key.replace("/", "."))
    assert not torch.equal(foreground[key], shuffled[key])
    assert not torch.equal(foreground[key], own)

    shared = make()
    shared(images, targets)
    assert not shared.statistics
    assert not torch.equal(shared.backbone.get_buffer(key.replace("/", ".")), own)


def test_maps_stay_float32_under_mixed_precision():
    model = make().eval()
    images, targets = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [*model.activation_maps(images).values()]
        found += model.locate(images).values()
        losses = model.train().losses(model(images, targets), targets)
    assert {value.dtype for value in found} == {torch.float32}
    sum(losses.values()).backward()
    gradient = model.suppression.controller.weight.grad
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize(
    "options",
    [{}, {"threshold": "mean", "attention": "max", "n": 3}, {"foreground": False}],
    ids=str,
)
def test_a_training_step_never_asks_the_device_for_a_value(options):
    with FakeTensorMode():  # tensors without values: reading one fails
        model = make(**options)
        images = torch.rand(4, 3, SIDE, SIDE)
        targets = torch.zeros(4, dtype=torch.int64)
        sum(model.losses(model(images, targets), targets).values()).backward()
        assert model.eval().predict(images).shape == (4, CLASSES)
        for boxes in model.locate(images).values():
            assert boxes.shape == (4, 4)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("n", 0, "n 0"),
        ("finer", 0, "finer 0"),
        ("bound", 1.2, "bound 1.2"),
        ("level", 1.0, "level 1.0"),
        ("controller", "learnt", "unknown controller"),
        ("attention", "trues", "did you mean 'true'"),
        ("threshold", "otsu", "unknown threshold"),
        ("test", "shuffled", "unknown test"),
    ],
)
def test_wrong_options_are_told(option, value, text):
    with pytest.raises(InputError, match=text):
        make(**{option: value})


def test_images_that_are_not_square_are_told():
    with pytest.raises(InputError, match="square"):
        make()(torch.rand(2, 3, 40, 48))


def test_a_box_of_all_cells_is_the_whole_image_in_levels_too():
    """One rule from cells to pixels, wherever the outermost cells look."""
    model = make().eval()
    levels = build("levels", CLASSES, Recipe(backbone="small", weights="none"), {})
    even = torch.zeros(1, 3, 72, 72)
    for network in levels.modules():  # maps without contrast
        if isinstance(network, nn.Linear):
            nn.init.zeros_(network.weight)
    for box in levels.eval().locate(even).values():
        assert box.tolist() == [[0, 0, 72, 72]]
    assert model.box(torch.ones(1, 9, 9), 72).tolist() == [[0, 0, 72, 72]]


def test_size_counts_the_looks_of_a_prediction():
    parameters, once = cost.size(make(test="image"), SIDE)
    _, twice = cost.size(make(test="both"), SIDE)
    assert parameters == sum(p.numel() for p in make().parameters())
    assert 1.9 < twice / once < 2.1
