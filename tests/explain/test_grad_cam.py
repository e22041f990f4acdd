"""Grad-CAM against class activation maps and captum; hooks."""

import captum.attr
import pytest
import torch
from networks import images, network, tiny
from torch import nn

from fgbook import explain
from fgbook.errors import InputError


def test_of_the_last_map_it_is_the_positive_part_of_cam():
    model, batch, classes = network("small"), images(2, 40, 40), torch.tensor([1, 3])
    with torch.no_grad():  # Grad-CAM works there too
        cam = explain.cam(model, batch, classes)
        grad_cam = explain.grad_cam(model, batch, classes, model.backbone)
    torch.testing.assert_close(grad_cam, cam.clamp(min=0) / (5 * 5))


# a BatchNorm that an in-place ReLU follows
def inner(model):
    return model.backbone.network.features[8].conv[0][1]


@pytest.mark.parametrize("learns", [False, True])
def test_it_is_captums(learns):
    model, batch = network("mobilenet_v2"), images(2, 64, 64)
    classes = torch.tensor([2, 0])
    model.backbone.requires_grad_(learns)
    maps = explain.grad_cam(model, batch, classes, inner(model))
    model.backbone.requires_grad_(True)
    theirs = captum.attr.LayerGradCam(model.predict, inner(model)).attribute(
        batch, target=classes, relu_attributions=True
    )
    torch.testing.assert_close(maps, theirs[:, 0].detach())
    assert maps.max() > 0


def test_it_leaves_no_traces():
    model, batch = network("mobilenet_v2"), images(2, 64, 64)
    explain.grad_cam(model, batch, torch.tensor([2, 0]), inner(model))
    assert not inner(model)._forward_hooks
    for parameter in model.parameters():
        assert parameter.grad is None


def test_hooks_are_released_when_a_model_fails():
    model = tiny()
    model.predict = lambda images: model.layer(images).no_such_thing
    with pytest.raises(AttributeError):
        explain.grad_cam(model, images(1, 8, 8), torch.tensor([0]), model.layer)
    assert not model.layer._forward_hooks


def test_a_layer_that_does_not_run_is_refused():
    with pytest.raises(InputError, match="ran 0 times"):
        explain.grad_cam(tiny(), images(1, 8, 8), torch.tensor([0]), nn.Identity())


def test_a_layer_that_runs_twice_is_refused():
    model = tiny()
    once = model.predict
    model.predict = lambda images: once(images) + once(images)
    with pytest.raises(InputError, match="ran 2 times"):
        explain.grad_cam(model, images(1, 8, 8), torch.tensor([0]), model.layer)
