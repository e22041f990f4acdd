"""WSDL: pathways against one image at a time, gradients, and what is predicted."""

import pytest
import torch

from fgbook.errors import InputError
from fgbook.images.regions import crop_zoom
from fgbook.methods import build
from fgbook.recipe import Recipe

CLASSES, SIDE = 5, 72


def make(**options):
    torch.manual_seed(0)
    recipe = Recipe(backbone="small", weights="none", image_size=SIDE)
    return build("wsdl", CLASSES, recipe, options)


def batch(count=4):
    images = torch.rand(
        count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)
    )
    return images, torch.arange(count) % CLASSES


@torch.no_grad()
@pytest.mark.parametrize("zoom", [1.0, 0.5])
def test_each_pathway_sees_the_box_of_its_level_through_the_same_backbone(zoom):
    model = make(zoom=zoom, levels=3).eval()
    images, _ = batch()
    logits = model(images)
    boxes = model.locate(images)
    assert list(boxes) == ["level1", "level2", "image"]
    assert len({tuple(box.flatten().tolist()) for box in boxes.values()}) > 1
    for level, path in zip(boxes, model.paths, strict=True):
        for i, image in enumerate(images):
            side = round(zoom * SIDE)
            crop = crop_zoom(image[None], boxes[level][i][None, None], side)[0]
            feature = model.backbone(crop).mean((2, 3))[0]
            head = model.pathways[path]
            expected = head.weight @ feature + head.bias
            torch.testing.assert_close(logits[path][i], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_the_prediction_is_the_mean_of_the_pathways_probabilities(whole):
    model = make(whole=whole).eval()
    images, _ = batch()
    logits = model(images)
    names = ["path1", "path2"] + ["image"] * whole
    expected = sum(logits[name].softmax(1) for name in names) / len(names)
    torch.testing.assert_close(model.predict(images).exp(), expected)


def test_in_training_the_box_is_that_of_the_true_class():
    model = make().train().requires_grad_(False)
    images, targets = batch()
    for shift in (0, 1):
        wanted = (targets + shift) % CLASSES
        model.eval()
        maps = model.activation_maps(images, wanted)
        boxes = torch.stack(list(model._boxes(maps, SIDE).values()), 1)
        # frozen statistics, so that both modes see the same maps
        model.training = True
        logits = model(images, wanted)
        crops = crop_zoom(images, boxes, SIDE)
        for number, path in enumerate(model.paths):
            feature = model.backbone(crops[:, number]).mean((2, 3))
            expected = model.pathways[path](feature)
            torch.testing.assert_close(logits[path], expected, atol=1e-4, rtol=1e-4)


def test_a_pathway_teaches_its_own_head_and_the_backbone_but_no_map():
    model = make(cam=6)
    images, targets = batch()
    losses = model.losses(model(images, targets), targets)
    losses["path1"].backward()
    taught = {
        name.split(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert taught == {"backbone", "pathways"}
    assert model.pathways["path2"].weight.grad is None


def test_bad_options_are_told():
    with pytest.raises(InputError, match="zoom is 0.0; a share above 0"):
        make(zoom=0.0)
    with pytest.raises(InputError, match="9 levels are asked for"):
        make(levels=9)
