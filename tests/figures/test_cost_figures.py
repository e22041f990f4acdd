"""Claim C5 from costs made by hand, and costs against counts by another way."""

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from fgbook.errors import InputError
from fgbook.evaluation import cost
from fgbook.evaluation.cost import Cost
from fgbook.figures import gautam as drawing

MACHINE = {"cpu": "chip", "cores": 2, "threads": 1}


def costs(name, flops, seconds):
    times = np.array([seconds, seconds, 9.0])
    return Cost(name, 224, 10**6, flops, 2**20, times, 1, "cpu")


OTHERS = [
    costs("vit_ti_16", 2, 2.0),
    costs("vit_b_16", 10, 10.0),
    costs("mobilenet_v2", 1, 0.5),
]


@pytest.mark.parametrize(
    ("flops", "seconds", "outcome"),
    [
        (1, 1, "holds"),
        (5, 5, "depends"),
        (50, 50, "does not hold"),
        (1, 50, "does not hold"),
    ],
)
def test_less_is_less_in_operations_and_in_time(lines, flops, seconds, outcome):
    found = [costs(cost.GATED, flops, seconds), *OTHERS]
    less, _ = drawing.judge_cost(found)
    assert less.outcome == outcome
    table = lines(drawing.cost_verdict_table(found))
    assert outcome in table["C5 less computation than transformers"]["verdict"]


def test_a_yardstick_decides_nothing():
    _, edge = drawing.judge_cost([costs(cost.GATED, 5, 5.0), *OTHERS])
    assert edge.outcome == "no limit given"
    assert "5 times the operations" in edge.why


@pytest.mark.parametrize(
    "found", [OTHERS, [costs(cost.GATED, 1, 1.0)], []], ids=["others", "ours", "none"]
)
def test_one_side_alone_is_not_judged(found):
    outcomes = [finding.outcome for finding in drawing.judge_cost(found)]
    assert outcomes == ["not run", "not run"]


def test_costs_are_shown_in_their_units(lines):
    larger = {one.name: 4 * 10**9 for one in OTHERS}
    table = lines(drawing.cost_table(OTHERS, MACHINE, larger))
    assert table["vit b 16"]["milliseconds, median"] == "10000"
    assert table["vit b 16"]["GFLOP at 448 px"] == "4.0"


# ---- costs themselves


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def networks():
    names = ("mobilenet_v2", "resnet50", cost.GATED, "vit_ti_16")
    return dict(cost.networks(7, names))


@pytest.fixture(scope="module")
def small_cost(networks):
    mobile = networks["mobilenet_v2"]
    return cost.measure("mobilenet_v2", mobile, 64, repeats=2, warm_up=0)


def test_mobilenet_is_torchvisions(networks):
    theirs = torchvision.models.mobilenet_v2(num_classes=7)
    assert parameters(networks["mobilenet_v2"]) == parameters(theirs)


def test_gates_cost_a_perceptron_a_convolution_and_its_batchnorm(networks):
    more = parameters(networks[cost.GATED]) - parameters(networks["resnet50"])
    assert more == 2 * 2048 * 128 + 2 * 49 + 2


def test_the_tiny_transformer_is_that_of_touvron_et_al(networks):
    blocks = 12 * (12 * 192**2 + 13 * 192)
    patches, places, norm, head = (3 * 256 + 1) * 192, 198 * 192, 2 * 192, 193 * 7
    expected = blocks + patches + places + norm + head
    assert parameters(networks["vit_ti_16"]) == expected


def test_operations_are_those_of_torchs_counter(small_cost):
    theirs = torchvision.models.mobilenet_v2(num_classes=7).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(torch.rand(1, 3, 64, 64))
    assert small_cost.flops == counter.get_total_flops()


def test_a_cost_counts_parameters_and_leaves_the_network_alone(networks, small_cost):
    assert small_cost.parameters == parameters(networks["mobilenet_v2"])
    assert not networks["mobilenet_v2"].training


def test_every_repeat_has_a_time(small_cost):
    assert small_cost.seconds.shape == (2,)
    assert (small_cost.seconds > 0).all()


def test_activations_are_more_than_the_image_and_grow_with_it(networks, small_cost):
    assert 3 * 4 * 64**2 < small_cost.activations < 2**25
    mobile = networks["mobilenet_v2"]
    larger = cost.measure("mobilenet_v2", mobile, 128, repeats=1)
    assert larger.activations > 3 * small_cost.activations


def test_a_network_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="resnet51"):
        list(cost.networks(7, ("resnet51",)))


@pytest.fixture(scope="module")
def transformer():
    return dict(cost.networks(7, ("vit_b_16",)))["vit_b_16"]


def test_operations_of_a_transformer_count_its_attention(transformer):
    tokens, width, heads = 197, 768, 12
    projections = 4 * width * width * tokens  # queries, keys, values, and the last one
    attention = 2 * heads * tokens * tokens * (width // heads)
    perceptron = 2 * 4 * width * width * tokens
    patches = 196 * width * 3 * 16 * 16
    expected = 2 * (12 * (projections + attention + perceptron) + patches + 7 * width)
    assert cost.size(transformer, 224) == (parameters(transformer), expected)


def test_counting_operations_leaves_nothing_behind(transformer):
    fast = torch.backends.mha.get_fastpath_enabled()
    cost.size(transformer, 64)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    with torch.no_grad():
        assert transformer.predict(torch.rand(1, 3, 64, 64)).isfinite().all()
