"""The picture on the first page: the rings are where the birds differ."""

import numpy as np
from PIL import Image

from fgbook.data import fieldguide
from fgbook.figures import hero


def test_the_birds_differ_where_the_ring_is():
    """And nowhere else: each from the one before it, the first from the last."""
    size = hero.SIDE
    plate = fieldguide.plate(4, size).int()[list(hero.ORDER)]
    for place, portrait in enumerate(hero.portraits()):
        changed = (plate[place] - plate[place - 1]).abs().amax(0) > 12
        y, x = np.nonzero(changed.numpy())
        left, top, right, bottom = (size * edge for edge in portrait.box)
        inside = (x >= left - 2) & (x < right + 2) & (y >= top - 2) & (y < bottom + 2)
        assert len(x) > 10
        assert inside.all(), portrait.name


def test_birds_without_paper_are_the_plate_on_any_paper():
    paper = (0.2, 0.5, 0.9)
    on_paper = fieldguide.plate(2, 64, paper=paper)
    for bird, expected in zip(hero.cut_out(2, 64), on_paper, strict=True):
        sheet = Image.new("RGBA", bird.size, tuple(round(255 * c) for c in paper))
        sheet.alpha_composite(bird)
        found = np.array(sheet)[..., :3].transpose(2, 0, 1).astype(int)
        assert abs(found - expected.numpy()).max() <= 3
