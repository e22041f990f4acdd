"""Thresholds, components and boxes against slow loops and scipy, down to the mask that
takes longest."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fgbook.images.components import (
    BINS,
    bounding_box,
    components,
    largest_component,
    otsu,
    to_pixels,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


# ---- thresholds


def between(values, upper):
    """Variance between the two classes that `upper` makes of binned values."""
    if upper.all() or not upper.any():
        return 0.0
    a, b = values[upper], values[~upper]
    return len(a) * len(b) / len(values) ** 2 * (a.mean() - b.mean()) ** 2


def test_otsu_finds_the_best_of_all_cuts():
    maps = torch.cat(
        [
            torch.rand(6, 7, 9, generator=generator(0)),
            torch.randn(6, 7, 9, generator=generator(1)) * 1e-4 - 3,
            torch.where(torch.rand(6, 7, 9, generator=generator(2)) < 0.3, 5.0, -2.0)
            + torch.randn(6, 7, 9, generator=generator(3)),
            # two values only: 254 empty bins
            torch.rand(2, 7, 9, generator=generator(4)).gt(0.9).float(),
        ]
    )
    found = otsu(maps)
    assert found.shape == (20,)
    for values, threshold in zip(
        maps.double().flatten(1).numpy(), found.tolist(), strict=True
    ):
        low, high = values.min(), values.max()
        bins = np.minimum(np.floor((values - low) / (high - low) * BINS), BINS - 1)
        variances = [between(bins, bins > cut) for cut in range(BINS - 1)]
        # float32 may put a value into the next bin
        assert between(bins, values > threshold) == pytest.approx(
            max(variances), rel=1e-3
        )
    assert torch.equal(maps[18:] > found[18:, None, None], maps[18:] == 1)


def test_otsu_depends_on_each_map_alone_and_not_on_its_scale():
    maps = torch.rand(5, 8, 8, generator=generator(5))
    found = otsu(maps)
    assert torch.equal(torch.stack([otsu(one[None])[0] for one in maps]), found)
    upper = maps > found[:, None, None]
    # powers of two: exact
    assert torch.equal(maps * 8 > otsu(maps * 8)[:, None, None], upper)


def test_nothing_of_a_constant_map_lies_above():
    for value in (0.0, -2.5, 1e30):
        maps = torch.full((2, 4, 4), value)
        assert not (maps > otsu(maps)[:, None, None]).any()


# ---- components


TOUCHING = np.ones((3, 3))  # also by a corner


def spiral(side):
    """One path of cells from the corner inwards, a cell wide and a cell apart."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True

    def free(y, x, dy, dx):
        ahead, beyond = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
        return (
            all(0 <= k < side for k in ahead)
            and not (all(0 <= k < side for k in beyond) and mask[beyond])
            and not mask[ahead]
        )

    while free(y, x, dy, dx) or free(y, x, dx, -dy):
        if not free(y, x, dy, dx):
            dy, dx = dx, -dy
        y, x = y + dy, x + dx
        mask[y, x] = True
    return mask


def comb(side):
    """Rows joined at alternate ends: the longest snake in reading order."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


def masks():
    for seed, share in enumerate((0.2, 0.4, 0.5, 0.6, 0.9)):
        yield torch.rand(8, 23, 17, generator=generator(seed)) < share
    long = [spiral(33), comb(33)]
    turned = [torch.rot90(mask, k) for mask in long for k in range(4)]
    yield torch.stack(
        [
            *turned,
            *(mask.flip(0) for mask in turned),
            torch.zeros_like(long[0]),
            torch.ones_like(long[0]),
        ]
    )
    yield torch.rand(40, 1, 31, generator=generator(9)) < 0.8
    yield torch.ones(2, 1, 1, dtype=torch.bool)


def numbered(labels):
    """Labels by order of the component's last cell in reading order."""
    last = {}
    for place, label in enumerate(labels.flatten().tolist()):
        last[label] = place + 1
    last[0] = 0
    return np.vectorize(last.get)(labels)


def test_components_are_scipys():
    for batch in masks():
        found = components(batch)
        for mask, labels in zip(batch, found, strict=True):
            assert np.array_equal(
                numbered(ndimage.label(mask.numpy(), TOUCHING)[0]),
                labels.numpy(),
            )


def test_the_spiral_is_one_long_path():
    mask = spiral(33)
    assert ndimage.label(mask.numpy())[1] == 1
    assert mask.sum() > 33 * 33 / 2 - 40
    neighbours = ndimage.convolve(
        mask.int().numpy(), [[0, 1, 0], [1, 0, 1], [0, 1, 0]], mode="constant"
    )[mask.numpy()]
    assert sorted(neighbours)[:2] == [1, 1]
    assert set(neighbours) == {1, 2}


def test_every_mask_of_three_by_four_cells():
    batch = (torch.arange(2**12)[:, None] >> torch.arange(12) & 1).bool().view(-1, 3, 4)
    for mask, labels in zip(batch, components(batch), strict=True):
        assert np.array_equal(
            numbered(ndimage.label(mask.numpy(), TOUCHING)[0]),
            labels.numpy(),
        )


def test_the_largest_component():
    for batch in masks():
        for mask, kept in zip(batch, largest_component(batch), strict=True):
            labels = numbered(ndimage.label(mask.numpy(), TOUCHING)[0])
            sizes = np.bincount(labels.flatten())
            sizes[0] = 0
            expected = (
                labels == sizes.argmax()
                if mask.any()
                else np.zeros_like(labels, dtype=bool)
            )
            assert np.array_equal(expected, kept.numpy())


def test_nothing_looks_at_a_value():
    """Fake tensors have no values: whatever would make the host wait for a GPU
    fails."""
    with FakeTensorMode():
        maps = torch.rand(3, 6, 5)
        assert bounding_box(
            largest_component(maps > otsu(maps)[:, None, None])
        ).shape == (3, 4)
        with pytest.raises(DataDependentOutputException):
            maps.sum().item()


# ---- boxes


def test_boxes_hold_every_cell_and_no_empty_margin():
    batch = torch.rand(60, 9, 7, generator=generator(7)) < 0.04
    for mask, box in zip(batch, bounding_box(batch).tolist(), strict=True):
        y, x = np.nonzero(mask.numpy())
        assert box == (
            [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 7, 9]
        )
    assert not batch.flatten(1).any(1).all()  # an empty one was among them


EDGES = torch.tensor([[0, 0, 1, 1], [1, 2, 3, 4], [0, 0, 5, 5], [4, 4, 5, 5]])


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        # patches of 16 pixels tile an image of 80
        (8, [[0, 0, 16, 16], [16, 32, 48, 64], [0, 0, 80, 80], [64, 64, 80, 80]]),
        # windows centred on pixel 0: cells lie half a stride further up and left
        (
            0.5,
            [
                [0, 0, 8.5, 8.5],
                [8.5, 24.5, 40.5, 56.5],
                [0, 0, 80, 80],
                [56.5, 56.5, 80, 80],
            ],
        ),
        # TensorFlow's padding: half a stride further down and right
        (
            15.5,
            [
                [0, 0, 23.5, 23.5],
                [23.5, 39.5, 55.5, 71.5],
                [0, 0, 80, 80],
                [71.5, 71.5, 80, 80],
            ],
        ),
    ],
)
def test_pixels_of_cells(first, expected):
    """Between the borders, half a stride from where a cell looks; what touches a border
    of the map reaches to the border of the image."""
    assert to_pixels(EDGES, 5, 16, first, 80).tolist() == expected


def test_cells_that_look_outside_end_at_the_border():
    """Of five cells with a stride of 20 only four look into 80 pixels."""
    assert to_pixels(torch.tensor([[3, 4, 4, 5]]), 5, 20, 10, 80).tolist() == [
        [60, 80, 80, 80]
    ]
