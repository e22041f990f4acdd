"""DCL: its steps against slow references."""

import pytest
import torch
import torch.nn.functional as F

from fgbook.errors import InputError
from fgbook.images.shuffle import move_patches, near_places
from fgbook.methods import build
from fgbook.recipe import Recipe

CLASSES = 7
RECIPE = Recipe(backbone="small", weights="none", image_size=56)


def make(**options):
    torch.manual_seed(0)
    return build("dcl", CLASSES, RECIPE, options)


def batch(size=56):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) % CLASSES


def run(model, images):
    torch.manual_seed(5)
    return model(images)


def destroyed_by(model, images):
    """What the model's next forward makes of the images, and where patches come
    from."""
    torch.manual_seed(5)
    source = near_places(len(images), model.n, model.k)
    return move_patches(images, source, model.n), source


def test_both_kinds_of_images_are_classified_as_if_alone():
    model = make().eval()
    images, _ = batch()
    outputs = run(model, images)
    destroyed, _ = destroyed_by(model, images)
    assert not torch.equal(destroyed, images)
    for name, seen in (("image", images), ("destroyed", destroyed)):
        torch.testing.assert_close(outputs[name], model.predict(seen))


def test_halves_change_places_with_the_two_kinds():
    """The heads know an image, not its place in the batch."""
    model = make().eval()
    images, _ = batch()
    outputs = run(model, images)
    destroyed, _ = destroyed_by(model, images)
    maps = model.backbone(torch.cat([destroyed, images]))
    adversarial = model.adversarial_head(maps.mean((2, 3)))
    location = model._locate(maps, model.location_head)
    close = {"atol": 1e-5, "rtol": 1e-4}
    for kind, half in ((1, slice(0, 4)), (0, slice(4, 8))):
        ours = outputs["adversarial"][:, kind]
        torch.testing.assert_close(adversarial[half], ours, **close)
        torch.testing.assert_close(
            location[half], outputs["location"][:, kind], **close
        )


@pytest.mark.parametrize("n", [4, 7])
def test_places_are_where_patches_come_from(n):
    model = make(n=n)
    images, _ = batch()
    place = run(model, images)["place"]
    _, source = destroyed_by(model, images)
    assert place.shape == (4, 2, n * n, 2)
    for b in range(4):
        for i in range(n * n):
            own = [(i // n - (n - 1) / 2) / n, (i % n - (n - 1) / 2) / n]
            assert place[b, 0, i].tolist() == pytest.approx(own)
            s = int(source[b, i])
            theirs = [(s // n - (n - 1) / 2) / n, (s % n - (n - 1) / 2) / n]
            assert place[b, 1, i].tolist() == pytest.approx(theirs)


def test_the_index_is_the_public_codes_target():
    model = make(n=7, location="index")
    images, _ = batch()
    place = run(model, images)["place"]
    _, source = destroyed_by(model, images)
    code = [(i - 49 // 2) / 49 for i in range(49)]
    assert place[0, 0, :, 0].tolist() == pytest.approx(code)
    assert place[3, 1, :, 0].tolist() == pytest.approx([code[s] for s in source[3]])


def test_losses_are_the_loops():
    model = make(n=4)
    images, targets = batch()
    outputs = run(model, images)
    losses = model.losses(outputs, targets)

    of_class = [F.cross_entropy(outputs["image"][b], targets[b]) for b in range(4)]
    of_class += [F.cross_entropy(outputs["destroyed"][b], targets[b]) for b in range(4)]
    found = losses["image"] + losses["destroyed"]
    torch.testing.assert_close(found, torch.stack(of_class).mean())

    apart, number = 0.0, 0
    for b in range(4):
        for kind in range(2):
            for i in range(16):
                for c in range(2):
                    at = (b, kind, i, c)
                    apart += (
                        (outputs["location"][at] - outputs["place"][at]).abs().item()
                    )
                    number += 1
    assert losses["location"].item() == pytest.approx(apart / number, rel=1e-5)

    kinds = [
        F.cross_entropy(outputs["adversarial"][b, kind], torch.tensor(kind))
        for b in range(4)
        for kind in range(2)
    ]
    torch.testing.assert_close(losses["adversarial"], torch.stack(kinds).mean())


def test_classes_are_those_of_originals_and_then_those_of_destroyed_ones():
    model = make(adversarial="classes").eval()
    images, targets = batch()
    outputs = run(model, images)
    assert outputs["adversarial"].shape == (4, 2, 2 * CLASSES)
    expected = [
        F.cross_entropy(outputs["adversarial"][b, kind], targets[b] + kind * CLASSES)
        for b in range(4)
        for kind in range(2)
    ]
    found = model.losses(outputs, targets)["adversarial"]
    torch.testing.assert_close(found, torch.stack(expected).mean())
    # at test time both halves speak for their class
    of_image = outputs["adversarial"][:, 0]
    together = outputs["image"] + of_image[:, :CLASSES] + of_image[:, CLASSES:]
    torch.testing.assert_close(model.predict(images), together)


def test_location_is_read_where_the_patch_lies():
    """A map of n x n cells needs no pooling; a finer one is pooled patch by patch."""
    model = make(n=4)
    torch.nn.init.normal_(model.location_head.weight)
    maps = torch.randn(2, 192, 8, 8)
    found = model._locate(maps, model.location_head)
    slow = model.location_head(maps)
    for i in range(16):
        y, x = 2 * (i // 4), 2 * (i % 4)
        expected = slow[:, :, y : y + 2, x : x + 2].mean((2, 3)).tanh()
        torch.testing.assert_close(found[:, i], expected)


def test_without_destruction_both_kinds_are_the_same():
    outputs = run(make(k=0).eval(), batch()[0])
    torch.testing.assert_close(outputs["image"], outputs["destroyed"])
    assert torch.equal(outputs["place"][:, 0], outputs["place"][:, 1])


def test_ablations_have_no_head_and_no_loss():
    images, targets = batch()
    model = make(adversarial="none", location="none")
    outputs = run(model, images)
    assert set(outputs) == {"image", "destroyed"}
    assert set(model.losses(outputs, targets)) == {"image", "destroyed"}
    assert {n.split(".")[0] for n, _ in model.named_parameters()} == {
        "backbone",
        "image_head",
    }


def test_prediction_is_one_pass_of_the_plain_backbone():
    model = make().eval()
    images, _ = batch()
    seen = []
    model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    expected = model.image_head(model.backbone(images).mean((2, 3)))
    seen.clear()
    torch.testing.assert_close(model.predict(images), expected)
    assert seen == [4]
    model(images)
    assert seen == [4, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adversarial": "true"}, "unknown adversarial 'true'"),
        ({"location": "row"}, "unknown location 'row'"),
        ({"n": 4, "k": 5}, "n is 4 and k is 5"),
        ({"n": 0, "k": 0}, "n is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_images_of_fewer_pixels_than_patches_are_refused():
    with pytest.raises(InputError, match="60 patches a side do not fit into 56 pixels"):
        make(n=60)(batch()[0])
