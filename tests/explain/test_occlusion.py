"""Occlusion maps against a loop over pixels and captum, on every path."""

import captum.attr
import numpy as np
import pytest
import torch
from networks import images, network, tiny
from scipy.interpolate import RegularGridInterpolator
from torch import nn

from fgbook import explain
from fgbook.errors import InputError


@torch.no_grad()
def slow(model, image, patch: int, row: int, column: int) -> torch.Tensor:
    """The paper's sentence for one pixel of one image."""
    half = patch // 2
    copy = image.clone()
    rows = slice(max(0, row - half), row + half + 1)
    columns = slice(max(0, column - half), column + half + 1)
    copy[:, rows, columns] = 128 / 255
    return (model.predict(image[None]) - model.predict(copy[None])).square().sum()


@pytest.mark.parametrize("patch", (1, 5, 31))  # the last one is larger than the image
def test_every_pixel_as_in_the_paper(patch):
    model, batch = tiny(), images(2, 11, 14)
    maps = explain.occlusion(model, batch, patch, chunk=7)
    assert maps.shape == (2, 11, 14)
    assert maps.dtype == torch.float32
    for i in range(2):
        for y in range(11):
            for x in range(14):
                expected = slow(model, batch[i], patch, y, x).float()
                torch.testing.assert_close(maps[i, y, x], expected)


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
    maps = explain.occlusion(model, batch, patch, 24)  # at 12, 36, 60, ...
    right = (width - 13) // 24 * 24 + 12
    second_row = 36 if height > 36 else 12
    second_column = 36 if width > 36 else 12
    for i, y, x in ((0, 12, 12), (1, 12, second_column), (1, second_row, right)):
        expected = slow(model, batch[i], patch, y, x)
        torch.testing.assert_close(maps[i, y, x].double(), expected, rtol=1e-5, atol=0)
    assert model.predict(batch).grad_fn is not None  # the model itself was left alone


def test_corners_and_edges_near_the_patch_only():
    model, batch = network("small"), images(1, 49, 45)
    maps = explain.occlusion(model, batch, 7, 4)
    for y, x in ((2, 2), (46, 2), (2, 42), (46, 42), (22, 2), (46, 22)):
        expected = slow(model, batch[0], 7, y, x)
        torch.testing.assert_close(maps[0, y, x].double(), expected, rtol=1e-5, atol=0)


def test_strides_are_enlarged_bilinearly():
    model, batch = tiny(), images(1, 12, 15)
    exact = explain.occlusion(model, batch, 3)
    maps = explain.occlusion(model, batch, 3, 4)
    rows, columns = np.arange(2, 12, 4), np.arange(2, 15, 4)
    known = exact[0].numpy()[np.ix_(rows, columns)]
    inside = RegularGridInterpolator((rows, columns), known)
    for y in range(12):
        for x in range(15):
            # beyond the outermost: equal to it
            wanted = inside((min(max(y, 2), 10), min(max(x, 2), 14))).item()
            assert maps[0, y, x].item() == pytest.approx(wanted, rel=1e-5)


def test_a_stride_larger_than_the_image_gives_one_value():
    maps = explain.occlusion(tiny(), images(1, 9, 9), 3, 50)
    assert (maps == maps[0, 0, 0]).all()
    expected = slow(tiny(), images(1, 9, 9)[0], 3, 4, 4)
    torch.testing.assert_close(maps[0, 0, 0].double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("chunk", (1, 10, 1000))
def test_chunks_change_nothing_and_bound_the_copies(chunk):
    model, batch, seen = tiny(), images(3, 8, 8), []
    model.layer.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0]))
    )
    maps = explain.occlusion(model, batch, 3, 2, chunk=chunk)
    assert max(seen) <= chunk
    assert sum(seen) == 3 + 3 * 16
    torch.testing.assert_close(maps, explain.occlusion(model, batch, 3, 2))


def test_mixed_precision_comes_near():
    model = network("small").float()
    batch = images(2, 48, 48).float()
    exact = explain.occlusion(model, batch, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rough = explain.occlusion(model, batch, 9, 8)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() / exact.norm() < 0.2


@torch.no_grad()
def captum_maps(model, batch, patch: int, stride: int) -> torch.Tensor:
    """captum's attribution of a model whose output is the squared distance to the
    untouched logits: minus the mean over windows on a pixel."""

    def distance(copies, logits):
        return (model.predict(copies) - logits).square().sum(1)

    attributed = captum.attr.Occlusion(distance).attribute(
        batch,
        sliding_window_shapes=(3, patch, patch),
        strides=(3, stride, stride),
        baselines=128 / 255,
        additional_forward_args=model.predict(batch),
    )
    return -attributed[:, 0]


def test_disjoint_windows_as_captum():
    """Where windows do not overlap, captum gives all pixels of a window its value: ours
    at the middle."""
    model, batch = network("small"), images(2, 35, 35)
    theirs = captum_maps(model, batch, 7, 7)[:, 3::7, 3::7]
    ours = explain.occlusion(model, batch, 7, 7)[:, 3::7, 3::7]
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=0)
    assert theirs.std() > 0


def test_overlapping_windows_as_captum():
    """At stride 1 captum's value is the mean over the windows that cover a pixel and
    lie inside the image."""
    model, batch = tiny(), images(1, 10, 12)
    # windows inside the image
    ours = explain.occlusion(model, batch, 3)[:, None, 1:-1, 1:-1]
    covering = torch.ones(1, 1, 3, 3)
    sums = nn.functional.conv2d(nn.functional.pad(ours, (2,) * 4), covering)
    counts = nn.functional.conv2d(
        nn.functional.pad(torch.ones_like(ours), (2,) * 4), covering
    )
    theirs = captum_maps(model, batch, 3, 1).float()
    torch.testing.assert_close((sums / counts)[:, 0], theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("patch", "stride", "chunk"), ((4, 1, None), (0, 1, None), (3, 0, None), (3, 1, 0))
)
def test_impossible_sizes_are_refused(patch, stride, chunk):
    with pytest.raises(InputError, match="occlu"):
        explain.occlusion(tiny(), images(1, 8, 8), patch, stride, chunk=chunk)
