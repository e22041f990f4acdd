"""The geometry against slow references and torchvision, on drawn sizes; and that it
never asks the device for a value."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torchvision import ops

from fgbook.errors import InputError
from fgbook.images import regions

QUICK = settings(max_examples=40, deadline=None)


@st.composite
def geometries(draw):
    """h, w, image side, box side, stride, centre of the first cell, as a network would
    give them."""
    stride = draw(st.sampled_from([4, 8, 16, 32]))
    size = draw(st.integers(stride, 14 * stride))
    cells = math.ceil(size / stride)
    box = draw(st.floats(0.05, 1.0)) * size
    first = draw(st.sampled_from([0.5, stride / 2, stride - 0.5]))
    return cells, cells, size, box, stride, first


@QUICK
@given(geometries())
def test_boxes_lie_inside_the_image_have_one_size_and_stay_centred_where_they_can(
    geometry,
):
    h, w, size, box, stride, first = geometry
    boxes = regions.centre_boxes(*geometry)
    assert boxes.shape == (h * w, 4)
    assert boxes.dtype == torch.float32
    assert boxes.min() >= 0
    assert boxes.max() <= size * (1 + 1e-6)
    torch.testing.assert_close(
        boxes[:, 2:] - boxes[:, :2], torch.full((h * w, 2), box), rtol=0, atol=1e-4
    )
    for y in range(h):
        for x in range(w):
            for cell, axis in ((x, 0), (y, 1)):
                centre = first + cell * stride
                got = boxes[y * w + x, [axis, axis + 2]].mean().item()
                # nearest place at which the box is inside
                expected = min(max(centre, box / 2), size - box / 2)
                assert got == pytest.approx(expected, abs=1e-3)


@QUICK
@given(geometries())
def test_iou_matrix_is_torchvisions(geometry):
    boxes = regions.centre_boxes(*geometry)
    iou = regions.iou_matrix(boxes)
    torch.testing.assert_close(iou, ops.box_iou(boxes, boxes))
    assert torch.equal(iou, iou.T)
    assert torch.allclose(iou.diagonal(), torch.ones(len(boxes)))


def test_box_iou_broadcasts_and_survives_empty_boxes():
    a = torch.tensor([[0.0, 0, 4, 4], [2, 2, 2, 2]])
    b = torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4], [9, 9, 10, 10], [2, 2, 2, 2]])
    iou = regions.box_iou(a[:, None], b[None])
    assert iou.shape == (2, 4)
    torch.testing.assert_close(iou[0], torch.tensor([8 / 24, 1.0, 0.0, 0.0]))
    assert torch.equal(iou[1], torch.zeros(4))


@QUICK
@given(geometries(), st.integers(1, 8), st.floats(0.0, 0.9), st.integers(0, 10**6))
def test_selection_is_torchvisions_nms_and_then_the_best_of_the_rest(
    geometry, m, threshold, seed
):
    boxes = regions.centre_boxes(*geometry)
    assume(len(boxes) >= m)
    iou = regions.iou_matrix(boxes)
    # rounding may decide otherwise exactly at the threshold
    assume(not ((iou - threshold).abs() < 1e-5).any() or threshold == 0)
    generator = torch.Generator().manual_seed(seed)
    # distinct
    scores = torch.rand(5, len(boxes), generator=generator, dtype=torch.float64)
    chosen = regions.select(scores, iou, m, threshold)
    assert chosen.shape == (5, m)
    assert chosen.dtype == torch.int64
    for row, score in zip(chosen, scores, strict=True):
        kept = ops.nms(boxes, score.float(), threshold).tolist()[:m]
        rest = [i for i in score.argsort(descending=True).tolist() if i not in kept]
        assert row.tolist() == kept + rest[: m - len(kept)]


def test_selection_does_not_depend_on_the_rest_of_the_batch():
    torch.manual_seed(0)
    iou = regions.iou_matrix(regions.centre_boxes(14, 14, 448, 160, 32, 0.5))
    scores = torch.rand(7, 196)
    together = regions.select(scores, iou, 6, 0.25)
    for one, row in zip(scores, together, strict=True):
        assert torch.equal(regions.select(one[None], iou, 6, 0.25)[0], row)
        # fewer regions: the same first ones
        assert torch.equal(regions.select(one[None], iou, 4, 0.25)[0], row[:4])


def test_selection_breaks_ties_by_index():
    chosen = regions.select(torch.zeros(1, 4), torch.eye(4), 4, 0.25)
    assert chosen.tolist() == [[0, 1, 2, 3]]


def test_more_regions_than_cells_are_refused():
    with pytest.raises(InputError, match="6 regions.*4 cells"):
        regions.select(torch.rand(1, 4), torch.eye(4), 6, 0.25)


def test_boxes_larger_than_the_image_are_refused():
    with pytest.raises(InputError, match="does not fit"):
        regions.centre_boxes(2, 2, 64, 65, 32, 0.5)


@QUICK
@given(
    st.integers(1, 20), st.integers(1, 20), st.floats(0.2, 4.0), st.integers(0, 10**6)
)
def test_smoothing_is_scipys(h, w, sigma, seed):
    maps = np.random.default_rng(seed).normal(size=(3, h, w))
    found = regions.gaussian_smooth(torch.from_numpy(maps), sigma).numpy()
    for one, smooth in zip(maps, found, strict=True):
        expected = ndimage.gaussian_filter(one, sigma, mode="nearest", truncate=4.0)
        np.testing.assert_allclose(smooth, expected, atol=1e-10)


def test_smoothing_keeps_constants_and_zero_sigma_keeps_all():
    torch.testing.assert_close(
        regions.gaussian_smooth(torch.full((2, 5, 7), 3.0), 1.0),
        torch.full((2, 5, 7), 3.0),
    )
    maps = torch.rand(2, 5, 7)
    assert torch.equal(regions.gaussian_smooth(maps, 0), maps)


def slow_crop(image: torch.Tensor, box: list[float], size: int) -> torch.Tensor:
    """One crop, pixel by pixel: bilinear between the four nearest pixel centres, the
    border continued."""
    channels, height, width = image.shape
    out = torch.zeros(channels, size, size, dtype=image.dtype)
    for i in range(size):
        for j in range(size):
            y = box[1] + (i + 0.5) * (box[3] - box[1]) / size - 0.5
            x = box[0] + (j + 0.5) * (box[2] - box[0]) / size - 0.5
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = min(int(y), height - 2), min(int(x), width - 2)
            dy, dx = y - top, x - left
            out[:, i, j] = (
                (1 - dy) * (1 - dx) * image[:, top, left]
                + (1 - dy) * dx * image[:, top, left + 1]
                + dy * (1 - dx) * image[:, top + 1, left]
                + dy * dx * image[:, top + 1, left + 1]
            )
    return out


def test_crops_are_the_slow_loops():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 20, 26)
    first = [[0.0, 0, 10, 10], [16, 10, 26, 20], [3.3, 4.7, 13.3, 14.7]]
    second = [[0.5, 0.5, 8.5, 8.5], [5, 2, 15, 12], [0, 0, 26, 20]]
    boxes = torch.tensor([first, second])
    crops = regions.crop_zoom(images, boxes, 14)
    assert crops.shape == (2, 3, 3, 14, 14)
    for i in range(2):
        for r in range(3):
            expected = slow_crop(images[i], boxes[i, r].tolist(), 14)
            torch.testing.assert_close(crops[i, r], expected, atol=1e-5, rtol=0)


@QUICK
@given(
    st.integers(4, 40), st.integers(4, 40), st.integers(1, 24), st.integers(0, 10**6)
)
def test_crops_are_torchvisions_roi_align(height, width, size, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, height, width, generator=generator)
    corners = torch.rand(2, 4, 2, 2, generator=generator).sort(2).values
    corners = corners * torch.tensor([width, height])
    boxes = corners.flatten(2)  # (2, 4, 4) anywhere inside
    expected = ops.roi_align(images, list(boxes), size, sampling_ratio=1, aligned=True)
    found = regions.crop_zoom(images, boxes, size).flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_whole_image_at_its_own_size_is_the_image():
    images = torch.rand(2, 3, 16, 16)
    boxes = torch.tensor([0.0, 0, 16, 16]).expand(2, 1, 4)
    torch.testing.assert_close(
        regions.crop_zoom(images, boxes, 16)[:, 0], images, atol=1e-5, rtol=0
    )


def test_nothing_asks_the_device_for_a_value():
    """Under FakeTensorMode tensors have no values, so whatever reads one fails; the
    first lines show that it would."""
    with FakeTensorMode():
        with pytest.raises(DataDependentOutputException):
            torch.rand(3).argmax().item()
        boxes = regions.centre_boxes(9, 9, 72, 25.7, 8, 0.5)
        scores = regions.gaussian_smooth(torch.rand(4, 9, 9), 1.0).flatten(1)
        chosen = boxes[regions.select(scores, regions.iou_matrix(boxes), 6, 0.25)]
        crops = regions.crop_zoom(torch.rand(4, 3, 72, 72), chosen, 36)
        assert crops.shape == (4, 6, 3, 36, 36)


# ---- oblong boxes and windows of cells


def test_oblong_boxes_lie_inside_and_are_centred_where_they_can():
    boxes = regions.centre_boxes(5, 5, 80, (40.0, 10.0), 16, 0.5)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert torch.equal(sides, torch.tensor([10.0, 40.0]).expand(25, 2))
    assert boxes.min() >= 0
    assert boxes.max() <= 80
    # cell (2, 3) looks at (32.5, 48.5)
    assert boxes[2 * 5 + 3].tolist() == [43.5, 12.5, 53.5, 52.5]
    assert boxes[0].tolist() == [0, 0, 10, 40]  # shifted, not cut
    with pytest.raises(InputError, match="a box of 90 pixels"):
        regions.centre_boxes(5, 5, 80, (10.0, 90.0), 16, 0.5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2), (5, 7)])
def test_windows_are_in_the_order_of_average_pooling(shape):
    maps = torch.rand(1, 1, 5, 7)
    windows = regions.windows(5, 7, *shape)
    means = torch.nn.functional.avg_pool2d(maps, shape, 1).flatten()
    assert len(windows) == len(means)
    for (left, top, right, bottom), mean in zip(windows.tolist(), means, strict=True):
        assert (bottom - top, right - left) == shape
        torch.testing.assert_close(maps[0, 0, top:bottom, left:right].mean(), mean)
