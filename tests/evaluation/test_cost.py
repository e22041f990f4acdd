"""How long a prediction takes: of every method, from its record alone."""

import numpy as np
import pytest
import torch
from torch import nn

from fgbook import papers
from fgbook.evaluation import cost

ROWS = papers.get("compare").rows_at("quick")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_timed_from_its_record_without_weights(row):
    recipe = row.recipes["quick"].but(image_size=65, weights="not here")
    record = {
        "row": row.name,
        "method": row.method,
        "options": dict(row.options),
        "num_classes": 4,
        "recipe": recipe.as_dict(),
    }
    times = cost.milliseconds([record, record | {"num_classes": 0}], "cpu", repeats=1)
    assert list(times) == [row.name]
    assert 0 < times[row.name] < 60_000


class Slow(nn.Module):
    """Takes as long as its turn says; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def predict(self, images):
        self.seen.append((images.shape, self.training, torch.is_grad_enabled()))
        return images.mean((2, 3)) * self.weight


def test_a_prediction_is_timed_in_evaluation_without_gradient(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 10.5, 20.0, 20.25])  # the first pair is warm-up
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    network = Slow().train()
    seconds = cost.prediction_seconds(network, 8, repeats=2, warm_up=1)
    assert np.array_equal(seconds, [0.5, 0.25])
    assert network.seen == [((1, 3, 8, 8), False, False)] * 3
