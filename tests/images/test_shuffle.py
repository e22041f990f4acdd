"""Shuffled patches: whole, every permutation as likely as any other, an image by
itself."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from fgbook.errors import InputError
from fgbook.images.shuffle import move_patches, near_places, shuffle_patches


def numbered(count, n, side):
    """Images whose pixels say which patch they are of, and where in it."""
    patch = torch.arange(n * n).view(n, n)
    patch = patch.repeat_interleave(side, 0).repeat_interleave(side, 1)
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
            assert patch.unique().numel() == 1  # in one piece
            # as it was
            assert torch.equal(within.flatten(), torch.arange(side * side).float())
            found.append(int(patch[0, 0]))
        assert sorted(found) == list(range(n * n))  # each patch once


def test_all_permutations_of_four_patches_are_equally_likely():
    found = permutations(12_000, 2).numpy()
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 0.001


def test_every_patch_comes_to_every_place_equally_often():
    many = permutations(8_000, 4).numpy()
    for place in range(16):
        counts = np.bincount(many[:, place], minlength=16)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_as_many_patches_stay_as_in_a_uniform_permutation():
    stay = (permutations(8_000, 4).numpy() == np.arange(16)).sum(1)
    assert stay.mean() == pytest.approx(1, abs=0.05)  # of a single cycle, none
    assert stay.var() == pytest.approx(1, abs=0.08)


def test_images_are_shuffled_by_themselves():
    assert len(permutations(50, 4).unique(dim=0)) == 50


def test_the_seed_decides():
    assert torch.equal(permutations(5, 4, seed=3), permutations(5, 4, seed=3))
    assert not torch.equal(permutations(5, 4, seed=3), permutations(5, 4, seed=4))


def test_one_patch_is_the_image():
    images = torch.rand(3, 3, 23, 23)
    assert torch.equal(shuffle_patches(images, 1), images)


def test_a_remainder_stays_where_it_is():
    """5 patches of 4 pixels in 23: one row above them and two below."""
    images = torch.rand(3, 3, 23, 23)
    before = images.clone()
    shuffled = shuffle_patches(images, 5)
    assert torch.equal(images, before)
    frame = torch.ones(23, 23, dtype=torch.bool)
    frame[1:21, 1:21] = False
    assert torch.equal(shuffled[..., frame], images[..., frame])
    assert not torch.equal(shuffled, images)
    # no pixel is lost
    before, after = images.flatten(2).sort(2), shuffled.flatten(2).sort(2)
    assert torch.equal(before.values, after.values)


def test_more_patches_than_pixels_are_refused():
    with pytest.raises(InputError, match="24 patches a side do not fit into 23 pixels"):
        shuffle_patches(torch.rand(1, 3, 23, 23), 24)


# ---- moved by a few places


@pytest.mark.parametrize(("n", "k"), [(7, 2), (7, 1), (4, 1), (5, 3), (3, 0), (1, 1)])
def test_near_places_are_permutations_within_reach(n, k):
    torch.manual_seed(0)
    source = near_places(500, n, k)
    own = torch.arange(n * n)
    assert torch.equal(source.sort(1).values, own.expand(500, -1))
    rows, columns = source // n - own // n, source % n - own % n
    furthest = max(rows.abs().max(), columns.abs().max())
    assert furthest < 2 * k or furthest == 0
    if k > 0 and 2 * k <= n:
        assert furthest == 2 * k - 1  # and as far as that
        assert len(source.unique(dim=0)) > 100  # each image by itself


def slow_near_places(rows, columns, n):
    """Sorts each row by its numbers, then each column, patch by patch."""
    places = [[y * n + x for x in range(n)] for y in range(n)]
    for y in range(n):
        order = sorted(range(n), key=lambda x: rows[y][x])
        places[y] = [places[y][x] for x in order]
    for x in range(n):
        order = sorted(range(n), key=lambda y: columns[x][y])
        column = [places[y][x] for y in order]
        for y in range(n):
            places[y][x] = column[y]
    return [place for row in places for place in row]


def test_near_places_are_rows_and_then_columns_sorted_by_hand():
    n, k = 7, 2
    torch.manual_seed(4)
    found = near_places(20, n, k)
    torch.manual_seed(4)
    line = torch.arange(n)
    rows = (line + k * (2 * torch.rand(20, n, n) - 1)).tolist()
    columns = (line + k * (2 * torch.rand(20, n, n) - 1)).tolist()
    for image in range(20):
        expected = slow_near_places(rows[image], columns[image], n)
        assert found[image].tolist() == expected


def test_the_inverse_restores_the_image_bit_by_bit():
    torch.manual_seed(0)
    images = torch.rand(6, 3, 193, 193)
    source = near_places(6, 7, 2)
    destroyed = move_patches(images, source, 7)
    assert not torch.equal(destroyed, images)
    assert torch.equal(move_patches(destroyed, source.argsort(1), 7), images)
