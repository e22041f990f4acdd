"""Boosted heads: weights against the gradient of the risk, the step against the
parabola, and rounds that lower the risk."""

import math

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.methods.boosted import newton_step, probabilities, weights
from fgbook.recipe import Recipe

CLASSES = 5


def make(**options):
    torch.manual_seed(0)
    return build("boosted", CLASSES, Recipe(backbone="small", weights="none"), options)


def scores(count=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, CLASSES, generator=generator, dtype=torch.float64)


def mixed(count=6, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, CLASSES, generator=generator, dtype=torch.float64).softmax(
        1
    )


def weights_at(f, q):
    u = (f / 2).exp()
    return weights(u, q / u)


def risk(f, q):
    """Of all images together; by the definition, class by class."""
    total = torch.zeros((), dtype=f.dtype)
    for of_image, shares in zip(f, q, strict=True):
        for k in range(CLASSES):
            for j in range(CLASSES):
                if j != k:
                    total = total + shares[k] * (-(of_image[k] - of_image[j]) / 2).exp()
    return total


def test_weights_are_minus_twice_the_gradient_of_the_risk_and_add_up_to_zero():
    for q in (mixed(), probabilities(torch.arange(6) % CLASSES, CLASSES).double()):
        f = scores().requires_grad_()
        (gradient,) = torch.autograd.grad(risk(f, q), f)
        w = weights_at(f.detach(), q)
        torch.testing.assert_close(w, -2 * gradient)
        torch.testing.assert_close(w.sum(1), torch.zeros(6, dtype=torch.float64))


def test_weights_of_a_label_at_the_start():
    q = probabilities(torch.tensor([2]), CLASSES)
    w = weights_at(torch.zeros(1, CLASSES), q)
    assert w.tolist() == [[-1.0, -1.0, CLASSES - 1.0, -1.0, -1.0]]
    step = newton_step(torch.zeros(1, CLASSES), q)
    assert step[0, 2] - step[0, 0] == pytest.approx(2)


def test_the_step_is_the_minimum_of_the_parabola_along_the_weights():
    f, q = scores(), mixed()
    w = weights_at(f, q)
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = risk(f + s * w, q)
    (slope,) = torch.autograd.grad(value, s, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, s)
    torch.testing.assert_close(newton_step(f, q), (-slope / curvature).detach() * w)


def test_the_step_stays_finite_where_scores_are_far_apart():
    f = torch.zeros(2, CLASSES)
    f[0, :2] = torch.tensor([300.0, -300.0])
    step = newton_step(f, probabilities(torch.tensor([1, 0]), CLASSES))
    assert step.isfinite().all()
    assert step[0, 1] > 0 > step[0, 0]
    # and where nothing is left to do
    assert (
        newton_step(f[:1], probabilities(torch.tensor([0]), CLASSES)).isfinite().all()
    )


def test_a_constant_added_to_an_images_scores_changes_nothing():
    f, q = scores(), mixed()
    torch.testing.assert_close(newton_step(f + 7, q), newton_step(f, q))


def test_rounds_that_take_their_steps_lower_the_risk_each_time():
    q = probabilities(torch.arange(6) % CLASSES, CLASSES).double()
    f = torch.zeros(6, CLASSES, dtype=torch.float64)
    risks = [risk(f, q).item()]
    for _ in range(5):
        f = f + newton_step(f, q)
        risks.append(risk(f, q).item())
    assert risks == sorted(risks, reverse=True)
    assert risks[0] == pytest.approx(6 * (CLASSES - 1))
    # equal images: each round takes the whole of its step, 2 above the other classes
    assert risks[1] == pytest.approx(risks[0] * math.exp(-1))
    assert risks[2] == pytest.approx(risks[0] * math.exp(-2))


def test_losses_are_least_squares_on_what_the_rounds_before_leave():
    model = make(heads=3, shrinkage=0.5)
    generator = torch.Generator().manual_seed(3)
    rounds = torch.randn(4, 3, CLASSES, generator=generator, requires_grad=True)
    targets = torch.tensor([0, 3, 3, 1])
    losses = model.losses({"rounds": rounds}, targets)
    assert list(losses) == ["round1", "round2", "round3"]
    q = probabilities(targets, CLASSES)
    f = torch.zeros(4, CLASSES)
    for t in range(3):
        step = newton_step(f, q)
        expected = F.mse_loss(rounds[:, t], step, reduction="sum") / 4
        torch.testing.assert_close(losses[f"round{t + 1}"], expected)
        f = f + 0.5 * rounds[:, t].detach()
    # a round learns from its own loss alone
    losses["round3"].backward()
    assert rounds.grad[:, 2].any()
    assert not rounds.grad[:, :2].any()


def test_the_image_head_is_the_shrunken_sum_of_the_rounds():
    model = make(heads=3, shrinkage=0.5).eval()
    images = torch.rand(2, 3, 40, 40)
    outputs = model(images)
    assert outputs["rounds"].shape == (2, 3, CLASSES)
    torch.testing.assert_close(outputs["image"], 0.5 * outputs["rounds"].sum(1))
    torch.testing.assert_close(model.predict(images), outputs["image"])
    # each round has channels of its own
    features = model.views(model.backbone(images)).relu().mean((2, 3))  # (B, 3 * 128)
    second = model.heads[1](features[:, 128:256])
    torch.testing.assert_close(outputs["rounds"][:, 1], second)


@pytest.mark.parametrize(
    "options", [{"heads": 0}, {"width": 0}, {"shrinkage": 0.0}, {"shrinkage": 1.5}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        make(**options)
