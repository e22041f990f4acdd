"""Integrated gradients against captum, a slow loop and their own law; what a model is
offered.
"""

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from fgbook import methods
from fgbook.errors import InputError
from fgbook.explain import (
    GREY,
    coverage,
    grad_cam,
    integrated_gradients,
    offered,
)
from fgbook.recipe import Recipe

SIZE = 49


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def build(name, **options):
    torch.manual_seed(0)
    recipe = Recipe(backbone="small", weights="none", image_size=SIZE, store_size=SIZE)
    return methods.build(name, 5, recipe, options).eval()


def test_it_is_captums(images):
    model = build("plain")
    classes = torch.tensor([4, 0, 2])
    ours = integrated_gradients(model, images, classes, steps=6)
    theirs = IntegratedGradients(model.predict).attribute(
        images,
        torch.full_like(images, GREY),
        target=classes,
        n_steps=6,
        method="riemann_middle",
    )
    torch.testing.assert_close(ours, theirs.sum(1), atol=1e-5, rtol=1e-3)
    assert all(p.grad is None for p in model.parameters())


def test_values_add_up_to_the_change_of_the_logit(images):
    model = build("plain")
    with torch.no_grad():
        logits = model.predict(images)
        grey = model.predict(torch.full_like(images, GREY))
    classes = logits.argmax(1)
    expected = (logits - grey).gather(1, classes[:, None])[:, 0]
    maps = integrated_gradients(model, images, steps=64)
    torch.testing.assert_close(maps.sum((1, 2)), expected, atol=0.01, rtol=0.02)


def test_of_a_linear_network_it_is_weight_times_change(images):
    """Any module will do, without a method called predict."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    maps = integrated_gradients(model, images, torch.tensor(1), steps=1)
    weight = model[1].weight[1].view(3, SIZE, SIZE)
    slow = torch.stack([((image - GREY) * weight).sum(0) for image in images])
    torch.testing.assert_close(maps, slow.detach(), atol=1e-6, rtol=1e-4)


class Blind(nn.Module):
    @torch.no_grad()
    def forward(self, images):
        return images.mean((2, 3))


def test_what_it_cannot_do(images):
    with pytest.raises(InputError, match="at least 1 step"):
        integrated_gradients(Blind(), images, steps=0)
    with pytest.raises(InputError, match="Blind lets no gradient through"):
        integrated_gradients(Blind(), images)


# ---- what a model is offered


OWN = {
    "plain": set(),
    "attention": set(),
    "focus": {"own attention", "own regions"},
    "flrdf": {"own boxes", "own map, foreground", "own map, cam"},
    "levels": {"own boxes", *(f"own map, {k}" for k in ("level1", "level2", "image"))},
    "pmg": {"Grad-CAM, stage1", "Grad-CAM, stage2", "Grad-CAM, stage3"},
    "transfg": {"own attention", "rollout", "own regions"},
    "mmal": {"own regions", "own boxes"},
    "ntsnet": {"own regions"},
    "simple": set(),
    "transfer": set(),
}
NO_GRADIENT = ("transfer",)


@pytest.mark.parametrize("name", OWN)
def test_all_that_a_model_is_offered_are_maps_over_the_pixels(name, images):
    model = build(name)
    explanations, refused = offered(model, images[:1])
    general = {"CAM", "Grad-CAM", "occlusion", "integrated gradients"}
    assert set(explanations) | set(refused) == general | OWN[name]
    assert {"occlusion"} | OWN[name] <= set(explanations)
    assert ("integrated gradients" in refused) == (name in NO_GRADIENT)
    if name in ("plain", "attention"):
        assert not refused
    for why in refused.values():
        assert why.endswith(".")
    classes = torch.tensor([0, 1, 2])
    for each in explanations.values():
        maps = each(images, classes)
        assert maps.shape == (3, SIZE, SIZE)
        assert maps.isfinite().all()


@pytest.mark.parametrize("name", ["pmg", "levels", "crossx", "bilinear"])
def test_methods_that_read_several_maps_at_once_have_grad_cam(name, images):
    """Against a slow computation: the gradient of each image's logit alone."""
    model = build(name)
    maps = grad_cam(model, images, torch.tensor([0, 1, 2]), model.backbone)
    features = model.backbone.features
    for i in range(3):
        (*_, last) = model.backbone.stages(images[i : i + 1])
        leaf = last.detach().requires_grad_()

        def stages(network, x, leaf=leaf):
            return [*features(network, x)[:-1], leaf]

        model.backbone.features = stages
        model.predict(images[i : i + 1])[0, i].backward()
        model.backbone.features = features
        weight = leaf.grad.mean((2, 3), keepdim=True)
        expected = (weight * leaf).sum(1).clamp(min=0)[0].detach()
        torch.testing.assert_close(maps[i], expected, atol=1e-6, rtol=1e-3)
    assert maps.max() > 0
    assert model.backbone.features is features  # no trace


def test_a_map_of_a_crop_is_not_taken_for_one_of_the_picture(images):
    """MMAL's backbone is called once, as a module: on what it has cut out."""
    _, refused = offered(build("mmal"), images[:1])
    assert "at the whole picture" in refused["Grad-CAM"]


def test_coverage_counts_boxes_by_area():
    boxes = torch.tensor([[[0.0, 0.0, 4.0, 2.0], [1.5, 0.5, 3.0, 4.0]]])
    found = coverage(boxes, 4)[0]
    fine = torch.zeros(40, 40)
    fine[0:20, 0:40] += 1
    fine[5:40, 15:30] += 1
    expected = fine.unflatten(0, (4, 10)).unflatten(2, (4, 10)).mean((1, 3))
    torch.testing.assert_close(found, expected)
    assert float(found.sum()) == 4 * 2 + 1.5 * 3.5
