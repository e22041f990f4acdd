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
from fgbook.data.dataset import Split
from fgbook.errors import InputError
from fgbook.evaluation import localisation
from fgbook.evidence import records, runs
from fgbook.figures import levels as drawing
from fgbook.images import regions
from fgbook.methods import build
from fgbook.recipe import Recipe

CLASSES, SIDE = 5, 72


def make(backbone="small", seed=0, **options):
    torch.manual_seed(seed)
    return build("levels", CLASSES, Recipe(backbone=backbone, weights="none"), options)


def batch(count=4, side=SIDE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        F.interpolate(
            torch.rand(count, 3, 6, 6, generator=generator), side, mode="bicubic"
        ).clamp(0, 1),
        torch.arange(count) % CLASSES,
    )


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
    assert list(found) == names and all(
        boxes.shape == (4, 4) and boxes.dtype == torch.float32
        for boxes in found.values()
    )
    for boxes in found.values():
        assert ((boxes >= 0) & (boxes <= SIDE)).all() and (
            boxes[:, 2:] > boxes[:, :2]
        ).all()


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


def test_a_map_averages_to_the_logit_of_its_class():
    """Pooling is linear: the mean of a class activation map is that class's logit
    without the bias, at every level; checked at places by a loop."""
    for model in (make().eval(), make("resnet18", cam=6).eval()):
        images, targets = batch()
        logits = model(images)
        for classes in (targets, None):
            maps = model.activation_maps(images, classes)
            for name, found in maps.items():
                of = targets if classes is not None else logits["image"].argmax(1)
                expected = (logits[name] - model.heads[name].bias).gather(
                    1, of[:, None]
                )[:, 0]
                torch.testing.assert_close(
                    found.mean((1, 2)), expected, atol=1e-5, rtol=1e-4
                )
        deep = model.cam(model.backbone(images))
        value = sum(
            model.heads["image"].weight[logits["image"][2].argmax(), i]
            * deep[2, i, 1, 0]
            for i in range(deep.shape[1])
        )
        torch.testing.assert_close(
            maps["image"][2, 1, 0], value.detach(), atol=1e-5, rtol=1e-4
        )


def test_boxes_are_those_of_the_slow_path():
    """Otsu over all cuts, and scipy's components, cell by cell."""
    model = make().eval()
    images, _ = batch(6)
    boxes = model.locate(images)
    for name, maps in model.activation_maps(images).items():
        depth = model.depths[name]
        for one, box in zip(maps.numpy(), boxes[name], strict=True):
            bins = np.floor((one - one.min()) / np.ptp(one) * 256).clip(max=255)
            variance = [
                np.mean(bins > c)
                * np.mean(bins <= c)
                * (bins[bins > c].mean() - bins[bins <= c].mean()) ** 2
                for c in range(255)
            ]
            labels, _ = ndimage.label(bins > np.argmax(variance), np.ones((3, 3)))
            rows, columns = ndimage.find_objects(labels)[
                np.bincount(labels.flatten())[1:].argmax()
            ]
            edges = np.array([columns.start, rows.start, columns.stop, rows.stop])
            assert (
                box.tolist()
                == (depth.first + (edges - 0.5) * depth.stride).clip(0, SIDE).tolist()
            )


def test_a_blob_is_found_where_it_is():
    """A network whose map is bright where the image is red: the box goes round the
    larger of two red spots, at every depth within its stride."""
    model = make("resnet18", levels=4).eval()
    model.backbone.features = lambda network, x: [
        F.avg_pool2d(F.pad(x, (0, 8) * 2, mode="replicate"), d.stride, d.stride)[
            :, :, : -(-SIDE // d.stride), : -(-SIDE // d.stride)
        ]
        for d in model.backbone.depths
    ]
    for name in model.depths:
        model.depths[name] = type(model.depths[name])(
            3, model.depths[name].stride, model.depths[name].stride / 2
        )
        model.heads[name] = nn.Linear(3, CLASSES)
        nn.init.constant_(model.heads[name].weight, 0)
        model.heads[name].weight.data[:, 0] = 1
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[0, 0, 16:56, 24:48] = 1
    images[0, 0, 64:70, 2:8] = 1
    for name, box in model.locate(images).items():
        if model.depths[name].stride <= 16:
            assert (
                box[0] - torch.tensor([24.0, 16.0, 48.0, 56.0])
            ).abs().max() <= model.depths[name].stride, name


def test_options_out_of_range():
    for options, text in (
        ({"levels": 0}, "levels"),
        ({"levels": 4}, "3 depths"),
        ({"cam": -1}, "cam"),
    ):
        with pytest.raises(InputError, match=text):
            make(**options)
    with pytest.raises(InputError, match="square"):
        make().eval().locate(torch.rand(1, 3, 32, 40))


# ---- scores ----------------------------------------------------------------------------------------------------------


class Told(nn.Module):
    """Locates what it is told, image after image."""

    def __init__(self, boxes):
        super().__init__()
        self.parameter, self.boxes, self.at = nn.Parameter(torch.zeros(1)), boxes, 0

    def locate(self, images):
        assert not self.training and images.shape[-1] == 64
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
    assert model.training and result["n"] == seen.sum() < n and not seen[7]
    expected = [
        (
            float("nan")
            if not seen[i]
            else regions.iou_matrix(torch.stack([told[i], cut[i]]))[0, 1].item()
        )
        for i in range(n)
    ]
    np.testing.assert_allclose(kept["iou_told"], expected, rtol=1e-5)
    right = np.array(expected)[seen]
    for measure, value in (
        ("iou", right),
        ("hit50", right >= 0.5),
        ("average", np.mean([right >= t for t in (0.3, 0.5, 0.7)], 0)),
    ):
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
        patch.setattr(runs, "_load", lambda name, size: data)
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
        assert kept[f"iou_{name}"].shape == (len(data.test),) and np.isnan(
            kept[f"iou_{name}"][-1]
        )
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
        assert (
            f"{record['localisation'][f'{name}_hit50']:.2f}" in table.html
            and f'data-field="localisation {name}_iou"' in table.html
        )
    other = copy.deepcopy(record)
    other["localisation"] = None  # a data set without boxes
    assert "not run" in drawing.boxes_table([other]).html
    for shown in (
        drawing.levels_figure(model, data, run.recipe, 2),
        drawing.success_figure(record),
    ):
        assert (
            "<img" in shown.html
            and len(shown.html.split('alt="')[1].split('"')[0]) > 40
        )
