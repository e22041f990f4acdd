"""Edited parts of photographs: pixels that are exchanged, and explanations that are
known to be right.
"""

import pytest
import torch
from torch import nn

from fgbook.data.dataset import Split
from fgbook.errors import InputError
from fgbook.evaluation import part_edits
from fgbook.recipe import Recipe

SIZE = 42
RECIPE = Recipe(image_size=SIZE, store_size=SIZE)


@pytest.fixture(scope="module")
def split():
    """Noise, with five parts a picture, of which one or two are hidden in some."""
    generator = torch.Generator().manual_seed(0)
    count = 20
    images = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator)
    places = torch.tensor([[6, 6], [34, 8], [20, 21], [8, 34], [35, 35]]).float() + 0.5
    parts = torch.cat([places, torch.ones(5, 1)], 1).repeat(count, 1, 1)
    parts[::3, 1, 2] = 0
    return Split(
        images.to(torch.uint8),
        torch.arange(count) % 4,
        [str(i) for i in range(count)],
        parts=parts,
    )


class Weighed(nn.Module):
    """Looks at each part's middle pixels, with weights that are known."""

    def __init__(self, split):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE, SIZE))
        for k, (x, y, _) in enumerate(split.parts[0].long().tolist()):
            self.weight.data[y - 1 : y + 2, x - 1 : x + 2] = 4.0**-k

    def predict(self, images):
        seen = (images.mean(1) * self.weight).sum((1, 2))
        return torch.stack([seen, -seen], 1)


def test_the_weights_explain_and_what_knows_nothing_does_not(split):
    model = Weighed(split)
    known = model.weight.detach()
    maps = {"the weights": lambda images, _: known.expand(len(images), -1, -1)}
    found = part_edits.measure(model, split, RECIPE, maps, 20)
    for edit in ("deleted", "swapped"):
        mean = {name: v.nanmean() for name, v in found[edit].items()}
        assert mean["the weights"] > 0.8, edit
        assert mean["the weights"] > mean["edges"] + 0.4, edit
        assert found[edit]["the weights"].shape == (20,)
    assert found["both"]["effects"].nanmean() > 0.6


def test_a_disc_is_all_that_changes_and_the_other_bird_is_in_it():
    one, other = torch.rand(2, 1, 3, SIZE, SIZE)
    mine, theirs = torch.tensor([[[10.5, 20.5]]]), torch.tensor([[[30.5, 12.5]]])
    moved = part_edits.shifted(other, (theirs - mine)[:, 0])
    assert torch.equal(moved[0, :, 20, 10], other[0, :, 12, 30])
    assert torch.equal(moved[0, :, 22, 9], other[0, :, 14, 29])
    covered = part_edits.disc(mine, SIZE)[0, 0]
    radius = part_edits.RADIUS * SIZE
    for y, x in ((20, 10), (20, 13), (17, 10), (23, 13), (20, 14), (0, 0)):
        near = (x + 0.5 - 10.5) ** 2 + (y + 0.5 - 20.5) ** 2 <= radius**2
        assert bool(covered[y, x]) == near
    assert not part_edits.disc(torch.full((1, 1, 2), torch.nan), SIZE).any()
    assert one.shape == moved.shape


def test_parts_come_from_another_class(split):
    chosen = torch.tensor([0, 4, 8, 1, 5, 2])
    donors = part_edits._of_another_class(split, chosen)
    assert donors.tolist() == [1, 1, 1, 2, 2, 0]


def test_a_split_without_parts_is_refused(split):
    without = split.subset(torch.arange(4))
    without.parts = None
    with pytest.raises(InputError, match="marked parts, such as cub50"):
        part_edits.measure(Weighed(split), without, RECIPE, {}, 4)
