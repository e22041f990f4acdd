"""MMAL-Net: objects and parts against slow references."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from fgbook.errors import InputError
from fgbook.images import regions
from fgbook.methods import build
from fgbook.methods.mmal import GRID, MMAL, WINDOWS, _in_cells
from fgbook.recipe import Recipe

CLASSES = 7
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def make(backbone="small", size=40, **options):
    torch.manual_seed(0)
    recipe = Recipe(backbone=backbone, weights="none", image_size=size)
    return build("mmal", CLASSES, recipe, options)


def batch(size=40):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return images, torch.arange(4) % CLASSES


# ---- the object


def slow_object(last, before):
    """AOLM of one image, as it is usually written: edges xyxy in cells."""
    last, before = last.sum(0), before.clamp(min=0).sum(0)
    labels, count = ndimage.label((last > last.mean()).numpy(), np.ones((3, 3)))
    areas = [(labels == label).sum() for label in range(1, count + 1)]
    mask = labels == 1 + int(np.argmax(areas))
    mask &= (before > before.mean()).numpy()
    if not mask.any():
        return [0, 0, *last.shape[::-1]]
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def in_pixels(edges, cells, stride, first, size):
    """Half a stride round where cells look; the border of the map is the image's."""
    found = []
    for edge in edges:
        pixel = min(max((edge - 0.5) * stride + first, 0), size)
        found.append({0: 0, cells: size}.get(edge, pixel))
    return found


@torch.no_grad()
def test_the_object_is_found_as_by_scipy():
    """Maps of random numbers, of which many have several components and one has no
    cell that both hold."""
    model = make(size=73)
    torch.manual_seed(3)
    last, before = torch.rand(60, 4, 10, 10) ** 8, torch.randn(60, 4, 10, 10)
    before[7] = torch.where(last[7].sum(0) > last[7].sum(0).mean(), -1.0, 1.0)
    images = torch.rand(60, 3, 73, 73)
    found = model._find(images, [before, last])
    for i in range(60):
        edges = slow_object(last[i], before[i])
        assert found[i].tolist() == in_pixels(edges, 10, 8, 0.5, 73)
    assert found[7].tolist() == [0, 0, 73, 73]


@torch.no_grad()
def test_the_box_of_the_last_map_alone_holds_that_of_both():
    both, one = make(size=73), make(size=73, both=False)
    torch.manual_seed(4)
    stages = [torch.randn(30, 4, 10, 10), torch.rand(30, 4, 10, 10) ** 8]
    images = torch.rand(30, 3, 73, 73)
    inner, outer = both._find(images, stages), one._find(images, stages)
    assert (inner[:, :2] >= outer[:, :2]).all()
    assert (inner[:, 2:] <= outer[:, 2:]).all()
    assert not torch.equal(inner, outer)


@torch.no_grad()
def test_a_finer_map_before_is_read_where_the_last_ones_cells_look():
    """13 x 13 cells at stride 16 for 7 x 7 at stride 32: every second one."""
    model = make("mobilenet_v2", 193).eval()
    last, before = torch.rand(30, 4, 7, 7), torch.randn(30, 4, 13, 13)
    found = model._find(torch.rand(30, 3, 193, 193), [before, last])
    for i in range(30):
        edges = slow_object(last[i], before[i, :, ::2, ::2])
        assert found[i].tolist() == in_pixels(edges, 7, 32, 0.5, 193)


@torch.no_grad()
def test_without_the_crop_the_object_is_the_image():
    images, _ = batch()
    model = make(crop=False).eval()
    assert (model.locate(images)["object"] == torch.tensor([0, 0, 40, 40])).all()
    outputs = model(images)
    torch.testing.assert_close(outputs["object"], outputs["image"], **CLOSE)


# ---- the parts


@pytest.mark.parametrize("windows", list(WINDOWS))
def test_on_the_papers_map_windows_are_the_papers(windows):
    for _, shapes in WINDOWS[windows]:
        assert _in_cells(shapes, GRID, GRID) == list(shapes)


def test_on_half_the_map_windows_have_half_the_cells():
    small, middle, _ = (_in_cells(shapes, 7, 7) for _, shapes in WINDOWS["birds"])
    assert small == [(2, 2), (2, 3), (3, 2)]
    assert middle == [(3, 3), (3, 4), (4, 3)]


@torch.no_grad()
@pytest.mark.parametrize("windows", list(WINDOWS))
@pytest.mark.parametrize("size", [32, 73, 112])
def test_parts_are_the_strongest_windows_of_each_scale(windows, size):
    """Scored by loops over their cells, chosen one after the other."""
    model = make(size=size, windows=windows)
    cells = -(-size // 8)
    maps = torch.rand(5, 6, cells, cells)
    found = model._choose(maps, size)
    for i in range(len(maps)):
        expected = []
        for count, shapes in WINDOWS[windows]:
            scored = []
            for height, width in _in_cells(shapes, cells, cells):
                for y in range(cells - height + 1):
                    for x in range(cells - width + 1):
                        inside = maps[i, :, y : y + height, x : x + width]
                        edges = [x, y, x + width, y + height]
                        box = in_pixels(edges, cells, 8, 0.5, size)
                        scored.append((inside.sum().item() / (height * width), box))
            expected += best_apart(sorted(scored, key=lambda pair: -pair[0]), count)
        assert found[i].tolist() == expected


def best_apart(scored, count):
    """Greedy suppression at 0.25; where none is left, the best of the dropped."""
    taken = []
    for _ in range(count):
        left = [box for _, box in scored if box not in taken]
        apart = [box for box in left if all(iou(box, one) <= 0.25 for one in taken)]
        taken.append((apart or left)[0])
    return taken


def iou(a, b):
    return regions.box_iou(torch.tensor(a).float(), torch.tensor(b).float()).item()


@torch.no_grad()
def test_parts_lie_in_the_object_and_show_what_was_looked_at():
    images, _ = batch(73)
    model = make(size=73).eval()
    box = model.locate(images)["object"]
    parts = model.regions(images)
    assert parts.shape == (4, 7, 4)
    assert (parts[..., :2] >= box[:, None, :2] - 1e-3).all()
    assert (parts[..., 2:] <= box[:, None, 2:] + 1e-3).all()
    # a crop of the crop is the crop of the box, but for sampling twice
    objects = model._cut_out(images, box)
    inside = model._choose(model.backbone(objects), 73)
    twice = regions.crop_zoom(objects, inside, 36)
    once = regions.crop_zoom(images, parts, 36)
    assert (twice - once).abs().mean() < 0.01


# ---- the whole


@torch.no_grad()
@pytest.mark.parametrize("options", MMAL.VARIANTS, ids=["default", "rigid", "no crop"])
def test_forward_is_the_paper_step_by_step(options):
    """The same numbers from single images and single crops, with one classifier."""
    model = make(**options).eval()
    images, _ = batch()
    outputs = model(images)
    boxes = model.locate(images)["object"]
    assert outputs["part"].shape[1] == (6 if "windows" in options else 7)

    def classify(view):
        return model.image_head(model.backbone(view).mean((2, 3)))[0]

    for b in range(len(images)):
        image = images[b : b + 1]
        torch.testing.assert_close(classify(image), outputs["image"][b], **CLOSE)
        seen = regions.crop_zoom(image, boxes[b : b + 1, None], 40)[0]
        torch.testing.assert_close(classify(seen), outputs["object"][b], **CLOSE)
        parts = model._choose(model.backbone(seen), 40)
        for p, view in enumerate(regions.crop_zoom(seen, parts, 20)[0]):
            of_part = classify(view[None])
            torch.testing.assert_close(of_part, outputs["part"][b, p], **CLOSE)


def test_losses_are_one_a_branch():
    model = make()
    images, targets = batch()
    outputs = model(images)
    losses = model.losses(outputs, targets)
    assert set(losses) == {"image", "object", "part"}
    parts = [
        F.cross_entropy(outputs["part"][b, p], targets[b])
        for b in range(4)
        for p in range(7)
    ]
    torch.testing.assert_close(losses["part"], torch.stack(parts).mean())
    expected = F.cross_entropy(outputs["object"], targets)
    torch.testing.assert_close(losses["object"], expected)


def test_there_is_one_classifier_and_no_layer_besides():
    names = {name.split(".")[0] for name, _ in make().named_parameters()}
    assert names == {"backbone", "image_head"}


@torch.no_grad()
def test_prediction_takes_two_passes_and_no_part():
    model = make().eval()
    images, _ = batch()
    seen = []
    # the stem: `stages` is no forward of the backbone
    model.backbone.network.stem.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    prediction = model.predict(images)
    assert seen == [4, 4]
    torch.testing.assert_close(prediction, model(images)["object"], **CLOSE)


@torch.no_grad()
def test_the_object_is_found_in_float32_under_mixed_precision():
    model = make(size=73).eval()
    images, _ = batch(73)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stages = model.backbone.stages(images)
        found = model._find(images, stages)
        parts = model._choose(stages[-1], 73)
    in_full = [stage.float() for stage in stages]
    assert torch.equal(found, model._find(images, in_full))
    assert torch.equal(parts, model._choose(in_full[-1], 73))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": "bird"}, "unknown windows 'bird'"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"zoom": 0.0}, "zoom 0.0"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(InputError, match="square"):
        make()(torch.rand(2, 3, 40, 48))
