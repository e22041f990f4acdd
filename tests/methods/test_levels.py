"""Multi-level attention: maps against loops, boxes against a slow path of its own,
scores against boxes known by construction."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

import samples
from fgbook import data as sets
from fgbook.backbones import Depth
from fgbook.data.dataset import Split
from fgbook.errors import InputError
from fgbook.evaluation import localisation
from fgbook.evidence import records, runs
from fgbook.figures import levels as drawing
from fgbook.images import regions
from fgbook.methods import build
from fgbook.methods.levels import Levels
from fgbook.recipe import Recipe

CLASSES, SIDE = 5, 72


def make(backbone="small", seed=0, **options):
    torch.manual_seed(seed)
    return build("levels", CLASSES, Recipe(backbone=backbone, weights="none"), options)


def batch(count=4, side=SIDE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    return images, torch.arange(count) % CLASSES


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("small", {}),
        ("small", {"levels": 1}),
        ("mobilenet_v2", {"levels": 4}),
        ("resnet18", {"cam": 6}),
    ],
)
def test_shapes_and_gradients_reach_every_parameter(backbone, options):
    model = make(backbone, **options)
    images, targets = batch()
    logits = model(images, targets)
    names = [f"level{i}" for i in range(1, options.get("levels", 3))] + ["image"]
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        name: (4, CLASSES) for name in names
    }
    losses = model.losses(logits, targets)
    assert list(losses) == names
    sum(losses.values()).backward()
    assert not [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    found = model.eval().locate(images)
    assert list(found) == names
    for boxes in found.values():
        assert boxes.shape == (4, 4)
        assert boxes.dtype == torch.float32
        assert ((boxes >= 0) & (boxes <= SIDE)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_the_losses_are_cross_entropies_also_of_soft_targets():
    model = make()
    images, targets = batch()
    logits = model(images)
    soft = F.one_hot(targets, CLASSES).float() * 0.7 + 0.3 / CLASSES
    for name, loss in model.losses(logits, soft).items():
        expected = -(soft * logits[name].log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(loss, expected)


def test_the_deepest_level_is_the_plain_backbone():
    """Equal weights, equal predictions; the other levels change nothing of it."""
    model = make(levels=3).eval()
    plain = build("plain", CLASSES, Recipe(backbone="small", weights="none"), {}).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    plain.image_head.load_state_dict(model.heads["image"].state_dict())
    images, _ = batch()
    assert torch.equal(model.predict(images), plain.predict(images))


@torch.no_grad()
@pytest.mark.parametrize(("backbone", "cam"), [("small", 0), ("resnet18", 6)])
@pytest.mark.parametrize("given", [True, False])
def test_a_map_averages_to_the_logit_of_its_class(backbone, cam, given):
    """Pooling is linear: the mean of a class activation map is that class's logit
    without the bias, at every level."""
    model = make(backbone, cam=cam).eval()
    images, targets = batch()
    logits = model(images)
    of = targets if given else logits["image"].argmax(1)
    maps = model.activation_maps(images, targets if given else None)
    for name, found in maps.items():
        without_bias = logits[name] - model.heads[name].bias
        expected = without_bias.gather(1, of[:, None])[:, 0]
        torch.testing.assert_close(found.mean((1, 2)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_map_is_a_weighted_sum_over_channels():
    model = make("resnet18", cam=6).eval()
    images, _ = batch()
    predicted = model(images)["image"][2].argmax()
    deep = model.cam(model.backbone(images))
    value = 0.0
    for i in range(deep.shape[1]):
        value += model.heads["image"].weight[predicted, i] * deep[2, i, 1, 0]
    found = model.activation_maps(images)["image"][2, 1, 0]
    torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-4)


def test_boxes_are_those_of_the_slow_path():
    """Otsu over all cuts, and scipy's components, cell by cell."""
    model = make().eval()
    images, _ = batch(6)
    boxes = model.locate(images)
    for name, maps in model.activation_maps(images).items():
        depth = model.depths_at(SIDE)[name]
        for one, box in zip(maps.numpy(), boxes[name], strict=True):
            bins = np.floor((one - one.min()) / np.ptp(one) * 256).clip(max=255)
            variances = []
            for cut in range(255):
                above, below = bins[bins > cut], bins[bins <= cut]
                weight = len(above) * len(below) / bins.size**2
                variances.append(weight * (above.mean() - below.mean()) ** 2)
            labels, _ = ndimage.label(bins > np.argmax(variances), np.ones((3, 3)))
            largest = np.bincount(labels.flatten())[1:].argmax()
            rows, columns = ndimage.find_objects(labels)[largest]

            expected = []
            for edge in (columns.start, rows.start, columns.stop, rows.stop):
                if edge == 0:
                    expected.append(0)
                elif edge == len(one):
                    expected.append(SIDE)
                else:
                    expected.append(depth.first + (edge - 0.5) * depth.stride)
            assert box.tolist() == expected


class Looks(nn.Module):
    """Stands for a backbone: averages of the image itself, in tiles, at three
    depths."""

    name, channels = "looks", 3

    def __init__(self):
        super().__init__()
        self.depths = tuple(Depth(3, stride, stride / 2) for stride in (4, 8, 16))

    def depths_at(self, size):
        return self.depths

    def stages(self, images):
        maps = []
        for depth in self.depths:
            maps.append(F.avg_pool2d(images, depth.stride, ceil_mode=True))
        return maps


def test_a_blob_is_found_where_it_is():
    """Maps that are bright where the image is red: the box goes round the larger of two
    red spots, at every depth within its stride."""
    model = Levels(Looks(), CLASSES)
    for head in model.heads.values():
        nn.init.zeros_(head.weight)
        head.weight.data[:, 0] = 1
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[0, 0, 16:56, 24:48] = 1
    images[0, 0, 64:70, 2:8] = 1
    blob = torch.tensor([24.0, 16.0, 48.0, 56.0])
    depths = model.depths_at(SIDE)
    for name, box in model.eval().locate(images).items():
        assert (box[0] - blob).abs().max() <= depths[name].stride, name


def test_boxes_ask_where_cells_look_at_the_size_of_the_image():
    """A backbone whose cells look a stride further in larger images."""
    model = Levels(Looks(), CLASSES, levels=1)

    def depths_at(size):
        return (Depth(3, 16, 8.0 if size == 64 else 24.0),)

    model.backbone.depths_at = depths_at
    nn.init.zeros_(model.heads["image"].weight)
    model.heads["image"].weight.data[:, 0] = 1
    for size, expected in ((64, [16, 16, 32, 32]), (80, [32, 32, 48, 48])):
        images = torch.zeros(1, 3, size, size)
        images[0, 0, 16:32, 16:32] = 1
        assert model.locate(images)["image"].tolist() == [expected]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"levels": 0}, "levels"), ({"levels": 4}, "3 depths"), ({"cam": -1}, "cam")],
)
def test_options_out_of_range(options, text):
    with pytest.raises(InputError, match=text):
        make(**options)


def test_images_that_are_not_square_are_told():
    with pytest.raises(InputError, match="square"):
        make().eval().locate(torch.rand(1, 3, 32, 40))


# ---- scores


class Told(nn.Module):
    """Locates what it is told, image after image."""

    def __init__(self, boxes):
        super().__init__()
        self.parameter, self.boxes, self.at = nn.Parameter(torch.zeros(1)), boxes, 0

    def locate(self, images):
        assert not self.training
        assert images.shape[-1] == 64
        start, self.at = self.at, self.at + len(images)
        return {"told": self.boxes[start : self.at]}


def test_boxes_are_scored_against_the_object_in_the_crop():
    generator = torch.Generator().manual_seed(3)
    n, margin = 150, 4  # more than a batch; stored images of 72 pixels, crops of 64
    corners = torch.rand(n, 2, 2, generator=generator) * 72
    objects = torch.cat([corners.amin(1), corners.amax(1) + 3], 1).clamp(max=72)
    objects[7] = torch.tensor([0.0, 0.0, 3.0, 3.0])  # outside the crop
    told = torch.cat([corners.amin(1), corners.amax(1)], 1) - margin
    split = Split(
        torch.zeros(n, 3, 72, 72, dtype=torch.uint8),
        torch.zeros(n, dtype=torch.int64),
        [str(i) for i in range(n)],
        objects,
    )
    model = Told(told).train()
    result, kept = localisation.boxes(
        model, split, Recipe(image_size=64, store_size=72)
    )
    cut = (objects - margin).clamp(0, 64)
    seen = (cut[:, 2:] > cut[:, :2]).all(1).numpy()
    assert model.training
    assert result["n"] == seen.sum()
    assert not seen[7]
    expected = []
    for i in range(n):
        iou = regions.iou_matrix(torch.stack([told[i], cut[i]]))[0, 1].item()
        expected.append(iou if seen[i] else float("nan"))
    np.testing.assert_allclose(kept["iou_told"], expected, rtol=1e-5)
    right = np.array(expected)[seen]
    values = {
        "iou": right,
        "hit50": right >= 0.5,
        "average": np.mean([right >= t for t in (0.3, 0.5, 0.7)], 0),
    }
    for measure, value in values.items():
        mean, half = value.mean(), 1.96 * value.std(ddof=1) / np.sqrt(len(right))
        assert result[f"told_{measure}"] == pytest.approx(mean, rel=1e-5)
        assert result[f"told_{measure}_low"] == pytest.approx(mean - half, rel=1e-4)
    area = (cut[:, 2:] - cut[:, :2]).prod(1) / 64**2
    np.testing.assert_allclose(kept["iou_whole"][seen], area[seen], rtol=1e-5)
    assert set(result) == {"n"} | {
        f"{name}_{m}{end}"
        for name in ("told", "centre", "whole")
        for m in ("iou", "hit30", "hit50", "hit70", "average")
        for end in ("", "_low", "_high")
    }
    middle = torch.tensor([32 - 32 / 2**0.5] * 2 + [32 + 32 / 2**0.5] * 2)
    assert kept["iou_centre"][seen][0] == pytest.approx(
        regions.iou_matrix(torch.stack([middle, cut[seen.argmax()]]))[0, 1].item(),
        rel=1e-5,
    )
    with pytest.raises(InputError, match="boxes"):
        localisation.boxes(
            model,
            Split(split.images, split.labels, split.files),
            Recipe(image_size=64, store_size=72),
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run by the usual path, on pictures that are at hand."""
    data = samples.spots(16, 6, 30)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("data", "runs", "results"):
            patch.setenv(f"FGBOOK_{name.upper()}", str(tmp_path_factory.mktemp(name)))
        patch.setattr(sets, "load", lambda name, size: data)
        patch.setattr(sets, "stamp", lambda name: "made here")
        run = runs.resolve(
            "golodov",
            "levels",
            "quick",
            "spots",
            overrides={
                "image_size": 40,
                "store_size": 44,
                "epochs": 2,
                "weights": "none",
            },
        )
        yield (
            run,
            runs.execute(run, device="cpu", progress=False),
            *runs.model(run, device="cpu"),
        )


def test_a_record_holds_the_scores_of_every_level(trained):
    run, record, model, data = trained
    kept = records.load_predictions(record)
    assert record["localisation"]["n"] == len(data.test) - 1
    for name in ("level1", "level2", "image", "centre", "whole"):
        assert kept[f"iou_{name}"].shape == (len(data.test),)
        assert np.isnan(kept[f"iou_{name}"][-1])
        assert record["localisation"][f"{name}_iou"] == pytest.approx(
            np.nanmean(kept[f"iou_{name}"].astype(float))
        )
    again, _ = localisation.boxes(model, data.test, run.recipe)
    # another memory layout rounds otherwise, and a box may take in one cell more
    assert again == pytest.approx(record["localisation"], abs=0.1)


def test_tables_and_figures(trained):
    run, record, model, data = trained
    table = drawing.boxes_table([record])
    for name in ("level1", "level2", "image", "centre", "whole"):
        assert f"{record['localisation'][f'{name}_hit50']:.2f}" in table.html
        assert f'data-field="localisation {name}_iou"' in table.html
    other = copy.deepcopy(record)
    other["localisation"] = None  # a data set without boxes
    assert "not run" in drawing.boxes_table([other]).html
    for shown in (
        drawing.levels_figure(model, data, run.recipe, 2),
        drawing.success_figure(record),
    ):
        assert "<svg" in shown.html
        assert len(samples.words(shown)) > 40
