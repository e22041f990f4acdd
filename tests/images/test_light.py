"""Light falls where a map is high, and nowhere else."""

import torch

from fgbook.images import light


def test_light_falls_where_a_map_is_high():
    image, one = torch.ones(3, 4, 4), torch.zeros(4, 4)
    one[1, 2], one[0, 0] = 5.0, -5.0  # less than 0 counts as 0
    lit = light.lit(image, one)[0]
    assert lit[1, 2] == 1
    assert lit[0, 0] == lit[3, 3] == light.DUSK


def test_a_map_that_speaks_for_nothing_stays_dark():
    image = torch.rand(3, 8, 8)
    for one in (torch.zeros(2, 2), torch.full((8, 8), 3.0), -torch.rand(4, 4)):
        assert torch.equal(light.lit(image, one), image * light.DUSK)


def test_cells_are_enlarged_evenly():
    lit = light.lit(torch.ones(3, 8, 8), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert (lit[:, :, :2] == light.DUSK).all()
    assert (lit[:, :, 6:] == 1).all()
    assert (lit[0, 0, 2:6].diff() > 0).all()
