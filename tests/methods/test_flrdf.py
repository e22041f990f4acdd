"""Paper D: suppression, boxes and shuffles against loops, numpy and scipy; what each
option leaves out. (tests/test_models.py has what holds of every method.)"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fgbook.errors import InputError
from fgbook.evaluation import cost
from fgbook.images import regions
from fgbook.methods import build
from fgbook.methods.flrdf import Suppression, shuffle_patches
from fgbook.recipe import Recipe

CLASSES, SIDE = 5, 40


def make(backbone="small", seed=0, **options):
    torch.manual_seed(seed)
    model = build("flrdf", CLASSES, Recipe(backbone=backbone, weights="none"), options)
    nn.init.normal_(model.image_head.weight)  # maps of different classes differ
    return model


def batch(count=4, side=SIDE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        F.interpolate(
            torch.rand(count, 3, 6, 6, generator=generator), side, mode="bicubic"
        ).clamp(0, 1),
        torch.arange(count) % CLASSES,
    )


# ---- shuffling -------------------------------------------------------------------------------------------------------


def numbered(count, n, side):
    """Images whose pixels say which patch they are of, and where in it."""
    patch = (
        torch.arange(n * n)
        .view(n, n)
        .repeat_interleave(side, 0)
        .repeat_interleave(side, 1)
    )
    within = torch.arange(side * side).view(side, side).repeat(n, n)
    return torch.stack([patch, within]).float().expand(count, -1, -1, -1)


def permutations(count, n, seed=0):
    """The patch at each place (count, n * n), read from shuffled images of one pixel a
    patch."""
    torch.manual_seed(seed)
    return shuffle_patches(numbered(count, n, 1), n)[:, 0].flatten(1).long()


@pytest.mark.parametrize(("n", "side"), [(2, 5), (4, 3), (7, 2)])
def test_whole_patches_change_places(n, side):
    torch.manual_seed(0)
    for one in shuffle_patches(numbered(6, n, side), n):
        found = []
        for y, x in itertools.product(range(0, n * side, side), repeat=2):
            patch, within = one[:, y : y + side, x : x + side]
            # in one piece, as it was
            assert patch.unique().numel() == 1 and torch.equal(
                within.flatten(), torch.arange(side * side).float()
            )
            found.append(int(patch[0, 0]))
        assert sorted(found) == list(range(n * n))  # each patch once


def test_every_permutation_is_equally_likely():
    """All 24 of four patches; and of 4 x 4 patches, every patch at every place, with as
    many fixed points as a uniform permutation has."""
    counts = np.unique(permutations(12_000, 2).numpy(), axis=0, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 0.001
    many = permutations(8_000, 4).numpy()
    for place in range(16):
        assert stats.chisquare(np.bincount(many[:, place], minlength=16)).pvalue > 1e-4
    fixed = (many == np.arange(16)).sum(1)
    # a single cycle would have none
    assert fixed.mean() == pytest.approx(1, abs=0.05) and fixed.var() == pytest.approx(
        1, abs=0.08
    )


def test_images_are_shuffled_by_themselves_and_again_the_same_from_one_seed():
    assert len(permutations(50, 4).unique(dim=0)) == 50
    assert torch.equal(
        permutations(5, 4, seed=3), permutations(5, 4, seed=3)
    ) and not torch.equal(permutations(5, 4, seed=3), permutations(5, 4, seed=4))


def test_one_patch_is_the_image_and_a_remainder_stays():
    images, _ = batch(3, 23)
    assert torch.equal(shuffle_patches(images, 1), images)
    before = images.clone()
    # 5 patches of 4 pixels, one row more above and two below
    shuffled = shuffle_patches(images, 5)
    assert torch.equal(images, before) and shuffled.shape == images.shape
    frame = torch.ones(23, 23, dtype=torch.bool)
    frame[1:21, 1:21] = False
    assert torch.equal(shuffled[..., frame], images[..., frame]) and not torch.equal(
        shuffled, images
    )
    # no pixel is lost
    torch.testing.assert_close(
        shuffled.flatten(2).sort(2).values,
        images.flatten(2).sort(2).values,
        rtol=0,
        atol=0,
    )
    with pytest.raises(InputError, match="24 patches a side do not fit into 23 pixels"):
        shuffle_patches(images, 24)


# ---- suppression -----------------------------------------------------------------------------------------------------


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
            control = 1 / (
                1
                + np.exp(
                    -sum(
                        block.controller.weight[channel, i].item() * x[i].mean()
                        for i in range(6)
                    )
                )
            )
        tau = x[channel].max() * control
        for y, column in np.ndindex(4, 5):
            assert found[image, channel, y, column].item() == pytest.approx(
                x[channel, y, column] if x[channel, y, column] < tau else tau, abs=1e-6
            )


def test_the_controller_starts_near_a_half_and_learns():
    torch.manual_seed(0)
    block, maps = Suppression(200), torch.rand(2, 200, 4, 4, requires_grad=True)
    weight = block.controller.weight
    assert (
        block.controller.bias is None
        and weight.mean().abs() < 1e-3
        and weight.std().item() == pytest.approx(0.01, rel=0.05)
    )
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


# ---- maps and boxes --------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("attention", ["true", "predicted", "max", "channels"])
def test_maps_are_sums_over_channels(attention):
    model = make(attention=attention).eval()
    images, targets = batch()
    maps = model.backbone(images)
    for name, of in (("foreground", model.suppression(maps)), ("cam", maps)):
        # (B, C, h, w)
        every = torch.stack(
            [
                sum(
                    model.image_head.weight[k, i] * of[:, i] for i in range(of.shape[1])
                )
                for k in range(CLASSES)
            ],
            1,
        )
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
    labels, count = ndimage.label(
        fine > (model.level * fine.max() if model.threshold == "max" else fine.mean()),
        np.ones((3, 3)),
    )
    if not count:
        return [0, 0, size, size]
    rows, columns = ndimage.find_objects(labels)[
        np.bincount(labels.flatten())[1:].argmax()
    ]
    edges = []
    for cell in (columns.start, rows.start, columns.stop, rows.stop):
        # the edge before the cell, in pixels
        middle = model.backbone.first + model.backbone.stride * (cell / finer - 0.5)
        edges.append(size if cell == len(fine) else min(max(middle, 0), size))
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
    assert (
        list(located)
        == list(maps)
        == (["foreground"] if "controller" in options else ["foreground", "cam"])
    )
    for name, boxes in located.items():
        assert boxes.shape == (6, 4) and boxes.dtype == torch.float32
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
    again = model._closer_look(
        "foreground", regions.crop_zoom(images, boxes[:2, None], SIDE)[:, 0]
    )
    torch.testing.assert_close(logits, again)


# ---- the whole -------------------------------------------------------------------------------------------------------


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
    boxes = [
        model.box(model.activation_maps(images, targets)["foreground"], SIDE)[b]
        for b in range(4)
    ]
    views = torch.cat(
        [
            (
                images[b : b + 1]
                if options.get("foreground") is False
                else regions.crop_zoom(images[b : b + 1], boxes[b].view(1, 1, 4), SIDE)[
                    :, 0
                ]
            )
            for b in range(4)
        ]
    )
    torch.manual_seed(5)
    seen = {
        "image": images,
        "foreground": views,
        "shuffled": shuffle_patches(views, model.n),
    }
    left_out = {
        name
        for name, option in (("foreground", "foreground"), ("shuffled", "shuffle"))
        if options.get(option) is False
    }
    assert list(logits) == [name for name in seen if name not in left_out]
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
        model = make(**options)
        return {name.split(".")[0] for name, _ in model.named_parameters()} - {
            "backbone"
        }

    every = {"image_head", "foreground_head", "shuffled_head", "suppression"}
    assert parts() == every
    assert (
        parts(controller="none") == parts(controller="fixed") == every - {"suppression"}
    )
    assert parts(shuffle=False) == every - {"shuffled_head"}
    assert parts(foreground=False) == {"image_head", "shuffled_head"}
    # With nothing on it is the plain backbone, which can also be asked where it looks.
    images, _ = batch()
    model = make(foreground=False, shuffle=False).eval()
    plain = build("plain", CLASSES, Recipe(backbone="small", weights="none"), {}).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.predict(images), plain.predict(images)) and list(
        model.locate(images)
    ) == ["foreground"]


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
    assert seen == [4] * looks and torch.equal(torch.get_rng_state(), before)
    expected = (
        (logits["image"] + logits["foreground"]) / 2 if test == "both" else logits[test]
    )
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
    one, two = (
        dict(model.statistics[name].named_buffers())
        for name in ("foreground", "shuffled")
    )
    key = next(name for name in one if name.endswith("running_mean"))
    assert not torch.equal(one[key], two[key]) and not torch.equal(
        one[key], model.backbone.get_buffer(key.replace("/", "."))
    )
    shared = make()
    shared(images, targets)
    assert not shared.statistics and not torch.equal(
        shared.backbone.get_buffer(key.replace("/", ".")),
        model.backbone.get_buffer(key.replace("/", ".")),
    )


def test_maps_stay_float32_under_mixed_precision():
    model = make().eval()
    images, targets = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(
            value.dtype == torch.float32
            for value in (
                *model.activation_maps(images).values(),
                *model.locate(images).values(),
            )
        )
        losses = model.train().losses(model(images, targets), targets)
    sum(losses.values()).backward()
    assert (
        model.suppression.controller.weight.grad.isfinite().all()
        and model.suppression.controller.weight.grad.any()
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"threshold": "mean", "attention": "max", "n": 3}, {"foreground": False}],
    ids=str,
)
def test_a_training_step_never_asks_the_device_for_a_value(options):
    with FakeTensorMode():  # tensors without values: reading one fails
        model = make(**options)
        images, targets = (
            torch.rand(4, 3, SIDE, SIDE),
            torch.zeros(4, dtype=torch.int64),
        )
        sum(model.losses(model(images, targets), targets).values()).backward()
        assert model.eval().predict(images).shape == (4, CLASSES)
        assert all(boxes.shape == (4, 4) for boxes in model.locate(images).values())


def test_wrong_options_and_images_are_told():
    for wrong, text in (
        ({"n": 0}, "n 0"),
        ({"finer": 0}, "finer 0"),
        ({"bound": 1.2}, "bound 1.2"),
        ({"level": 1.0}, "level 1.0"),
        ({"controller": "learnt"}, "unknown controller"),
        ({"attention": "trues"}, "did you mean 'true'"),
        ({"threshold": "otsu"}, "unknown threshold"),
        ({"test": "shuffled"}, "unknown test"),
    ):
        with pytest.raises(InputError, match=text):
            make(**wrong)
    with pytest.raises(InputError, match="square"):
        make()(torch.rand(2, 3, 40, 48))


def test_size_counts_the_looks_of_a_prediction():
    (few, once), (_, twice) = (
        cost.size(make(test=test), SIDE) for test in ("image", "both")
    )
    assert (
        few == sum(p.numel() for p in make().parameters()) and 1.9 < twice / once < 2.1
    )
