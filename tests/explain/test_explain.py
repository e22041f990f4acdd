"""Occlusion maps against a loop over pixels and captum, on every path; CAM and Grad-CAM
against their equations and captum; hooks."""

import captum.attr
import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import nn

from fgbook import backbones, explain
from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.recipe import Recipe


class Tiny(nn.Module):
    """Any model with predict; its logits depend on where the light is."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True))
        self.image_head = nn.Linear(4, 3)

    def backbone(self, images):
        return self.layer(images)

    def predict(self, images):
        return self.image_head(self.layer(images).square().flatten(2).amax(2))


def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny().double().eval()


def network(backbone: str, classes: int = 5):
    """A plain model in float64 with the BatchNorm statistics of random images, and
    other parameters than those of a fresh one."""
    torch.manual_seed(0)
    model = build(
        "plain", classes, Recipe(backbone=backbone, weights="none"), {}
    ).double()
    for module in model.modules():
        if isinstance(module, backbones.BatchNorm):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 1.0  # the statistics of one batch
    nn.init.normal_(model.image_head.weight)
    with torch.no_grad():
        model.train().predict(torch.rand(8, 3, 64, 64, dtype=torch.float64))
    return model.eval()


def images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(
        count,
        3,
        height,
        width,
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )


@torch.no_grad()
def slow(model, image, patch: int, row: int, column: int) -> torch.Tensor:
    """The paper's sentence for one pixel of one image."""
    half, copy = patch // 2, image.clone()
    copy[
        :,
        max(0, row - half) : row + half + 1,
        max(0, column - half) : column + half + 1,
    ] = 128 / 255
    return (model.predict(image[None]) - model.predict(copy[None])).square().sum()


@pytest.mark.parametrize("patch", (1, 5, 31))  # the last one is larger than the image
def test_every_pixel_as_in_the_paper(patch):
    model, batch = tiny(), images(2, 11, 14)
    maps = explain.occlusion(model, batch, patch, chunk=7)
    assert maps.shape == (2, 11, 14) and maps.dtype == torch.float32
    expected = torch.tensor(
        [
            [[slow(model, image, patch, y, x) for x in range(14)] for y in range(11)]
            for image in batch
        ]
    )
    torch.testing.assert_close(maps, expected.float())


# Sides that are and are not multiples of the stride at the cut; patches that leave most
# of the map as it was, and that change all of it.
@pytest.mark.parametrize(
    ("backbone", "height", "width", "patch"),
    [
        ("small", 72, 72, 13),
        ("small", 71, 90, 3),
        ("small", 40, 40, 39),
        ("mobilenet_v2", 64, 73, 9),
        ("mobilenet_v2", 66, 91, 21),
        ("mobilenet_v2", 32, 32, 5),
    ],
)
def test_working_near_the_patch_only_changes_nothing(backbone, height, width, patch):
    model, batch = network(backbone), images(2, height, width)
    stride = 24
    maps = explain.occlusion(model, batch, patch, stride)
    for i, y, x in [
        (0, 12, 12),
        (1, 12, 36 if width > 36 else 12),
        (1, 36 if height > 36 else 12, (width - 1 - 12) // 24 * 24 + 12),
    ]:
        torch.testing.assert_close(
            maps[i, y, x].double(),
            slow(model, batch[i], patch, y, x),
            rtol=1e-5,
            atol=0,
        )
    assert model.predict(batch).grad_fn is not None  # the model itself was left alone


def test_corners_and_edges_near_the_patch_only():
    model, batch = network("small"), images(1, 49, 45)
    maps = explain.occlusion(model, batch, 7, 4)
    for y, x in ((2, 2), (46, 2), (2, 42), (46, 42), (22, 2), (46, 22)):
        torch.testing.assert_close(
            maps[0, y, x].double(), slow(model, batch[0], 7, y, x), rtol=1e-5, atol=0
        )


def test_strides_are_enlarged_bilinearly():
    model, batch = tiny(), images(1, 12, 15)
    exact, maps = (
        explain.occlusion(model, batch, 3),
        explain.occlusion(model, batch, 3, 4),
    )
    rows, columns = np.arange(2, 12, 4), np.arange(2, 15, 4)
    inside = RegularGridInterpolator(
        (rows, columns), exact[0].numpy()[np.ix_(rows, columns)]
    )
    wanted = [
        [inside((min(max(y, 2), 10), min(max(x, 2), 14))).item() for x in range(15)]
        for y in range(12)
    ]
    torch.testing.assert_close(maps[0], torch.tensor(wanted), check_dtype=False)


def test_a_stride_larger_than_the_image_gives_one_value():
    maps = explain.occlusion(tiny(), images(1, 9, 9), 3, 50)
    assert (maps == maps[0, 0, 0]).all()
    torch.testing.assert_close(
        maps[0, 0, 0].double(),
        slow(tiny(), images(1, 9, 9)[0], 3, 4, 4),
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("chunk", (1, 10, 1000))
def test_chunks_change_nothing_and_bound_the_copies(chunk):
    model, batch, seen = tiny(), images(3, 8, 8), []
    model.layer.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0]))
    )
    maps = explain.occlusion(model, batch, 3, 2, chunk=chunk)
    assert max(seen) <= chunk and sum(seen) == 3 + 3 * 16
    torch.testing.assert_close(maps, explain.occlusion(model, batch, 3, 2))


def test_mixed_precision_comes_near():
    model = network("small").float()
    batch = images(2, 48, 48).float()
    exact = explain.occlusion(model, batch, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rough = explain.occlusion(model, batch, 9, 8)
    assert (
        rough.dtype == torch.float32
        and 0 < ((rough - exact).norm() / exact.norm()) < 0.2
    )


@torch.no_grad()
def captum_maps(model, batch, patch: int, stride: int) -> torch.Tensor:
    """captum's attribution of a model whose output is the squared distance to the
    untouched logits: minus the mean over windows on a pixel."""
    distance = lambda copies, logits: (model.predict(copies) - logits).square().sum(1)
    return -captum.attr.Occlusion(distance).attribute(
        batch,
        sliding_window_shapes=(3, patch, patch),
        strides=(3, stride, stride),
        baselines=128 / 255,
        additional_forward_args=model.predict(batch),
    )[:, 0]


def test_disjoint_windows_as_captum():
    """Where windows do not overlap, captum gives all pixels of a window its value: ours
    at the middle."""
    model, batch = network("small"), images(2, 35, 35)
    theirs, ours = (
        captum_maps(model, batch, 7, 7),
        explain.occlusion(model, batch, 7, 7),
    )
    torch.testing.assert_close(
        ours[:, 3::7, 3::7], theirs[:, 3::7, 3::7].float(), rtol=1e-5, atol=0
    )
    assert theirs.std() > 0


def test_overlapping_windows_as_captum():
    """At stride 1 captum's value is the mean over the windows that cover a pixel and
    lie inside the image."""
    model, batch = tiny(), images(1, 10, 12)
    # windows inside the image
    ours = explain.occlusion(model, batch, 3)[:, None, 1:-1, 1:-1]
    sums, counts = (
        nn.functional.conv2d(
            nn.functional.pad(values, (2,) * 4), torch.ones(1, 1, 3, 3)
        )
        for values in (ours, torch.ones_like(ours))
    )
    torch.testing.assert_close(
        (sums / counts)[:, 0],
        captum_maps(model, batch, 3, 1).float(),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize(
    ("patch", "stride", "chunk"), ((4, 1, None), (0, 1, None), (3, 0, None), (3, 1, 0))
)
def test_impossible_sizes_are_refused(patch, stride, chunk):
    with pytest.raises(InputError, match="occlu"):
        explain.occlusion(tiny(), images(1, 8, 8), patch, stride, chunk=chunk)


def test_the_mean_of_a_class_activation_map_is_the_logit():
    model, batch, classes = network("small"), images(3, 40, 48), torch.tensor([4, 0, 2])
    with torch.no_grad():
        maps = explain.cam(model, batch, classes)
        assert maps.shape == (3, 5, 6)
        wanted = model.predict(batch).gather(1, classes[:, None])[:, 0]
        torch.testing.assert_close(
            maps.mean((1, 2)) + model.image_head.bias[classes], wanted
        )


def test_a_model_without_a_linear_head_has_no_class_activation_map():
    model = tiny()
    model.image_head = nn.Identity()
    with pytest.raises(InputError, match="Tiny has none: use grad_cam"):
        explain.cam(model, images(1, 8, 8), torch.tensor([0]))


def test_grad_cam_of_the_last_map_is_the_positive_part_of_cam():
    model, batch, classes = network("small"), images(2, 40, 40), torch.tensor([1, 3])
    with torch.no_grad():  # Grad-CAM works there too
        cam, grad_cam = (
            f(model, batch, classes, *more)
            for f, more in ((explain.cam, ()), (explain.grad_cam, (model.backbone,)))
        )
    torch.testing.assert_close(grad_cam, cam.clamp(min=0) / (5 * 5))


def test_grad_cam_as_captum_and_without_traces():
    model, batch, classes = (
        network("mobilenet_v2"),
        images(2, 64, 64),
        torch.tensor([2, 0]),
    )
    # a BatchNorm that an in-place ReLU follows
    layer = model.backbone.network.features[8].conv[0][1]
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    maps = explain.grad_cam(model, batch, classes, layer)
    assert not layer._forward_hooks and all(
        parameter.grad is None for parameter in model.parameters()
    )
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(True)
    theirs = captum.attr.LayerGradCam(model.predict, layer).attribute(
        batch, target=classes, relu_attributions=True
    )
    torch.testing.assert_close(maps, theirs[:, 0].detach())
    assert maps.max() > 0


def test_hooks_are_released_when_a_model_fails():
    model = tiny()
    model.predict = lambda images: model.layer(images).no_such_thing
    with pytest.raises(AttributeError):
        explain.grad_cam(model, images(1, 8, 8), torch.tensor([0]), model.layer)
    assert not model.layer._forward_hooks


def test_a_layer_that_does_not_run_is_refused():
    with pytest.raises(InputError, match="ran 0 times"):
        explain.grad_cam(tiny(), images(1, 8, 8), torch.tensor([0]), nn.Identity())
