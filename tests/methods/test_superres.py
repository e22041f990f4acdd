"""Super-resolution before the classifier: what its untrained restorer gives, which half
learns, and that it learns to restore."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgbook.data import fieldguide
from fgbook.data.dataset import DataSet
from fgbook.errors import InputError
from fgbook.evaluation import restoration
from fgbook.methods import build
from fgbook.methods.superres import Restorer
from fgbook.recipe import Recipe
from fgbook.training import loop

RECIPE = Recipe(
    image_size=40,
    store_size=44,
    low_side=10,
    backbone="small",
    weights="none",
    epochs=4,
    batch_size=8,
    lr=0.003,
    schedule="onecycle",
    optimiser="adamw",
    backbone_lr_factor=1.0,
    train_on="train+val",
)


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> DataSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RUNS", str(tmp_path_factory.mktemp("birds")))
        return fieldguide.load(44, species=4, per_class=(30, 2, 10))


def make(seed=0, **options):
    torch.manual_seed(seed)
    return build("superres", 4, RECIPE, {"low": 0.25, **options})


def smooth(*shape) -> torch.Tensor:
    """Random images with structure larger than a pixel."""
    generator = torch.Generator().manual_seed(1)
    return F.interpolate(
        torch.rand(*shape[:2], 9, 9, generator=generator), shape[2:], mode="bicubic"
    ).clamp(0, 1)


@pytest.mark.parametrize("side", [40, 41, 43, 227])
def test_the_untrained_restorer_returns_the_enlarged_image(side):
    images = smooth(2, 3, side, side)
    assert torch.equal(Restorer()(images), images)


def test_every_pixel_is_restored_in_its_place():
    """A residual that is each pixel's own (centred) value, by the centre tap of a
    single convolution: no cell is moved or turned."""
    restorer = Restorer()
    with torch.no_grad():
        last = torch.nn.Conv2d(48, 48, 3, padding=1, bias=False)
        last.weight.zero_()
        last.weight[range(48), range(48), 1, 1] = 1
        restorer.body = last
        images = smooth(1, 3, 41, 38)
        torch.testing.assert_close(restorer(images), 2 * images - 0.5)


def test_reducing_is_what_rows_of_low_resolution_see():
    from fgbook.images.augment import evaluation_view

    stored = (smooth(3, 3, 44, 44) * 255).to(torch.uint8)
    seen = evaluation_view(stored, torch.arange(3), RECIPE, "low")
    sharp = evaluation_view(stored, torch.arange(3), RECIPE, "high")
    assert torch.equal(make().reduce(sharp), seen)
    assert not torch.equal(sharp, seen)


def test_each_part_learns_alone(birds, tmp_path):
    """After real training of either part everything else is as it was, running
    statistics included."""
    for part, moved in (
        ("restorer", ("restorer.",)),
        ("classifier", ("backbone.", "image_head.")),
    ):
        model = make(part=part)
        if part == "classifier":  # a restorer that does something
            torch.nn.init.normal_(model.restorer.body[-1].weight, std=0.01)
        before = copy.deepcopy(model.state_dict())
        loop.fit(
            model,
            birds,
            RECIPE.but(epochs=1),
            tmp_path / part,
            device="cpu",
            progress=False,
        )
        changed = {
            name
            for name, value in model.state_dict().items()
            if not torch.equal(value, before[name])
        }
        assert changed
        assert all(name.startswith(moved) for name in changed)
        assert {name for name in before if name.startswith(moved)} == changed


def test_the_classifier_is_the_plain_one_on_restored_images():
    model = make().eval()
    torch.nn.init.normal_(model.restorer.body[-1].weight, std=0.05)
    images = smooth(3, 3, 40, 40)
    plain = build("plain", 4, RECIPE, {}).eval()
    plain.load_state_dict(
        {
            name: value
            for name, value in model.state_dict().items()
            if not name.startswith("restorer.")
        }
    )
    with torch.no_grad():
        restored = model.restorer(images)
        expected = plain.predict(restored.clamp(0, 1))
        torch.testing.assert_close(model.predict(images), expected)
        torch.testing.assert_close(model(images)["image"], expected)
    # so that the clamp is in the comparison
    assert restored.min() < 0 or restored.max() > 1
    assert not torch.allclose(expected, plain.predict(images))


def test_both_parts_fit_each_others_weights_and_start_with_the_plain_rows_head():
    first, second = make(part="restorer"), make(part="classifier")
    assert {n: v.shape for n, v in first.state_dict().items()} == {
        n: v.shape for n, v in second.state_dict().items()
    }
    torch.manual_seed(0)
    assert torch.equal(
        build("plain", 4, RECIPE, {}).image_head.weight, second.image_head.weight
    )


def test_it_learns_to_restore(birds, tmp_path):
    model = make(part="restorer")
    start = {
        name: value.mean().item()
        for name, value in restoration.psnr(model, birds.test, RECIPE).items()
    }
    assert start["psnr_restored"] == pytest.approx(start["psnr_low"], abs=1e-4)
    loop.fit(model, birds, RECIPE, tmp_path / "run", device="cpu", progress=False)
    found = restoration.psnr(model, birds.test, RECIPE)
    assert found["psnr_low"].mean().item() == pytest.approx(start["psnr_low"], abs=1e-4)
    # of test images, not only on average
    assert (found["psnr_restored"] > found["psnr_low"]).float().mean() > 0.8


def test_psnr_against_a_loop(birds):
    model = make()
    torch.nn.init.normal_(model.restorer.body[-1].weight, std=0.01)
    found = restoration.psnr(model, birds.test, RECIPE)
    for i in (0, 7, len(birds.test) - 1):
        sharp = birds.test.images[i : i + 1, :, 2:42, 2:42].float() / 255
        low = model.reduce(sharp)
        for name, image in (("psnr_low", low), ("psnr_restored", model.restore(low))):
            error = np.mean(
                [
                    (float(a) - float(b)) ** 2
                    for a, b in zip(image.flatten(), sharp.flatten(), strict=True)
                ]
            )
            assert found[name][i].item() == pytest.approx(
                10 * np.log10(1 / error), abs=1e-3
            )
    assert restoration.decibels(sharp, sharp).item() == pytest.approx(120)


@pytest.mark.parametrize(
    "options",
    [
        {"part": "both"},
        {"upsample": "nearest"},
        {"low": 1.0},
        {"depth": 1},
        {"channels": 0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError):
        make(**options)
