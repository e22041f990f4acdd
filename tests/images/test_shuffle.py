"""Shuffled patches: whole, every permutation as likely as any other, an image by
itself."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from fgbook.errors import InputError
from fgbook.images.shuffle import shuffle_patches


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
