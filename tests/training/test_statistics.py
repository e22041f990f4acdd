"""Running statistics made anew, against what each layer's input says by itself."""

import copy

import fault_worker as tiny
import pytest
import torch
from torch import nn

from fgbook import backbones
from fgbook.images.augment import centre
from fgbook.methods.focus import Focus
from fgbook.methods.simsiam import SimSiam
from fgbook.recipe import Recipe
from fgbook.training import checkpoints, loop, schedule, statistics
from fgbook.training.devices import Images

RECIPE = Recipe(**tiny.RECIPE)
STATISTICS = ("running_mean", "running_var")


def recompute(model: nn.Module, recipe: Recipe = RECIPE) -> nn.Module:
    images = Images(tiny.dataset().train.images, torch.device("cpu"))
    statistics.recompute(model, images, recipe)
    return model


def unused(model: nn.Module) -> nn.Module:
    """With statistics that no images have, to see which are replaced."""
    for name, buffer in model.named_buffers():
        if name.endswith(STATISTICS):
            buffer.fill_(7.0)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(99)
    return model


def plain_batches(recipe: Recipe = RECIPE) -> list[torch.Tensor]:
    """Whole batches of the training images' centres, as the pass takes them."""
    pictures = tiny.dataset().train.images
    views = centre(pictures, recipe.image_size)
    taken = schedule.order(0, 0, len(pictures)).split(recipe.batch_size)
    return [views[index] for index in taken if len(index) == recipe.batch_size]


def test_statistics_are_those_of_plain_views():
    """By hand: the means over batches of the mean and the unbiased variance of what
    goes into the layer, of 32 of 35 images in batches of 8."""
    model = recompute(unused(tiny.make()))
    convolution, layer = model.backbone[0], model.backbone[1]
    means, variances = [], []
    for batch in plain_batches():
        into = convolution(batch).detach().double().transpose(0, 1).flatten(1)
        means.append(into.mean(1))
        variances.append(into.var(1))
    assert len(means) == 4
    torch.testing.assert_close(
        layer.running_mean.double(), torch.stack(means).mean(0), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        layer.running_var.double(), torch.stack(variances).mean(0), rtol=1e-5, atol=1e-6
    )
    assert layer.num_batches_tracked.item() == 4


def test_one_batch_gives_what_an_evaluation_of_it_normalises_to_0_and_1():
    """Deep in a network, where a layer's input depends on all layers before it: with a
    single batch, evaluation and training see the same statistics."""
    torch.manual_seed(0)
    model = tiny.Tiny(dropout=0.9)  # which would disturb the layers behind it
    model.backbone = backbones.create("small", "none")
    model.head = nn.Linear(model.backbone.channels, 3)
    recipe = RECIPE.but(batch_size=35, image_size=40, store_size=40)
    pictures = tiny.split(35, 0, 40).images
    statistics.recompute(model, Images(pictures, torch.device("cpu")), recipe)
    assert not model.training

    seen, layers = {}, []
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layers.append(layer)
            layer.register_forward_hook(
                lambda layer, given, made: seen.update({layer: given[0]})
            )
    reference = copy.deepcopy(model)
    model.train()
    model.backbone(centre(pictures, 40))
    assert len(seen) == len(layers)
    assert len(layers) > 3
    names = {id(layer): name for name, layer in model.named_modules()}
    for layer in layers:
        into = seen[layer].detach().transpose(0, 1).flatten(1)
        kept = reference.get_submodule(names[id(layer)])
        torch.testing.assert_close(kept.running_mean, into.mean(1))
        torch.testing.assert_close(kept.running_var, into.var(1))


def test_nothing_else_changes_and_the_pass_can_be_repeated():
    model = tiny.make()
    before = copy.deepcopy(model.state_dict())
    recompute(model)
    once = copy.deepcopy(model.state_dict())
    recompute(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, once[name]), name
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, before[name]), name
    for parameter in model.parameters():
        assert parameter.grad is None
    assert model.backbone[1].momentum == 0.1


def changed(model: nn.Module) -> dict[str, bool]:
    """Whether each set of statistics was replaced, by name."""
    found = {}
    for name, value in model.named_buffers():
        if name.endswith(STATISTICS):
            found[name] = not (value == 7.0).any()
        elif name.endswith("num_batches_tracked"):
            found[name] = value.item() != 99
    return found


def test_frozen_statistics_stay():
    model = tiny.Tiny()
    model.backbone = backbones.create("small", "none")
    model.head = nn.Linear(model.backbone.channels, 3)
    backbones.freeze_statistics(model)
    found = changed(recompute(unused(model)))
    assert found
    assert not any(found.values())


def test_layers_that_predictions_do_not_pass_stay():
    """SimSiam's projector and predictor: whoever goes on with the first stage has them
    as they were."""
    model = SimSiam(backbones.create("small", "none"), 3, part="pretrain", views=2)
    found = changed(recompute(unused(model)))
    for name, replaced in found.items():
        assert replaced == name.startswith("backbone."), name
    assert not all(found.values())


def test_a_second_set_of_statistics_is_made_anew_too():
    network = backbones.create("small", "none")
    model = Focus(network, 3, m=2, l=1, separate_statistics=True)
    recipe = RECIPE.but(image_size=32, store_size=36)
    pictures = Images(tiny.split(35, 0, 36).images, torch.device("cpu"))
    statistics.recompute(unused(model), pictures, recipe)
    found = changed(model)
    assert any(name.startswith("second.") for name in found)
    assert all(found.values())


@pytest.mark.parametrize("stopped", [False, True])
def test_fit_ends_with_it(tmp_path, stopped):
    """The weights are those of a run without, the statistics those of plain views; a
    run that is stopped on its way ends alike."""
    options = {"seed": 3, "device": "cpu", "progress": False}
    plain, model = tiny.make(), tiny.make()
    loop.fit(plain, tiny.dataset(), RECIPE, tmp_path / "plain", **options)
    recipe = RECIPE.but(recompute_statistics=True)
    folder = tmp_path / "recomputed"
    if stopped:
        early = tiny.make()
        for _ in range(7):
            cut = {**options, "budget_minutes": 0}
            loop.fit(early, tiny.dataset(), recipe, folder, **cut)
    loop.fit(model, tiny.dataset(), recipe, folder, **options)

    before = plain.backbone[1].running_mean.clone()
    recompute(plain)
    assert not torch.equal(before, plain.backbone[1].running_mean)
    kept = checkpoints.load_model(folder / "model.safetensors")
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
        assert torch.equal(value, kept[name]), name
