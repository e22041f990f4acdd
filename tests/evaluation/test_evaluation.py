"""Classification numbers against slow counts, localisation against pixel counts and
drawn examples."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from fgbook import backbones
from fgbook.data.dataset import Split
from fgbook.errors import InputError
from fgbook.evaluation import classification, localisation
from fgbook.methods import build
from fgbook.methods.focus import Focus
from fgbook.recipe import Recipe

# ---- classification


def slow_metrics(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> dict:
    """The definitions, image by image and class by class."""
    n = len(labels)
    order = [
        sorted(range(classes), key=lambda c, i=i: -probabilities[i, c])
        for i in range(n)
    ]
    prediction = [o[0] for o in order]
    precision, recall, f1 = [], [], []
    for c in range(classes):
        hit = sum(p == c and t == c for p, t in zip(prediction, labels, strict=True))
        predicted, present = prediction.count(c), int((labels == c).sum())
        if predicted + present == 0:
            continue
        precision.append(hit / predicted if predicted else 0)
        recall.append(hit / present if present else 0)
        f1.append(2 * hit / (predicted + present))
    gap = 0.0
    for b in range(15):
        inside = [
            i for i in range(n) if b / 15 < probabilities[i].max() <= (b + 1) / 15
        ]
        if inside:
            right = np.mean([prediction[i] == labels[i] for i in inside])
            gap += (
                len(inside)
                / n
                * abs(right - np.mean([probabilities[i].max() for i in inside]))
            )
    return {
        "top1": np.mean([p == t for p, t in zip(prediction, labels, strict=True)]),
        "top5": np.mean([t in o[:5] for o, t in zip(order, labels, strict=True)]),
        "precision": np.mean(precision),
        "recall": np.mean(recall),
        "f1": np.mean(f1),
        "ece": gap,
    }


@pytest.mark.parametrize(
    ("n", "classes", "sharpness"),
    [(400, 20, 3.0), (7, 50, 1.0), (60, 2, 2.0), (90, 4, 0.3)],
)
def test_metrics_are_the_slow_counts(n, classes, sharpness):
    random = torch.Generator().manual_seed(n)
    labels = torch.randint(classes, (n,), generator=random)
    logits = torch.randn(n, classes, generator=random) * sharpness
    logits[torch.arange(n), labels] += sharpness
    probabilities = logits.softmax(1)
    found = classification.metrics(probabilities, labels, classes)
    expected = slow_metrics(
        probabilities.numpy().astype(np.float64), labels.numpy(), classes
    )
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
    assert found["n"] == n
    assert found["top1_low"] <= found["top1"] < found["top1_high"]
    assert json.loads(json.dumps(found)) == found  # plain numbers, ready for a record


def test_perfect_and_confident_is_one_and_calibrated():
    labels = torch.arange(12) % 6
    found = classification.metrics(torch.eye(6)[labels], labels, 6)
    assert [found[name] for name in ("top1", "top5", "precision", "recall", "f1")] == [
        1
    ] * 5
    assert found["ece"] == 0
    assert found["top1_high"] == 1
    wrong = classification.metrics(torch.eye(6)[(labels + 1) % 6], labels, 6)
    assert wrong["top1"] == wrong["f1"] == wrong["top1_low"] == 0
    assert wrong["ece"] == pytest.approx(1)


def test_wilson_is_scipys():
    for n in (1, 2, 10, 347):
        for correct in {0, 1, n // 3, n - 1, n}:
            for level in (0.9, 0.95):
                expected = binomtest(correct, n).proportion_ci(level, method="wilson")
                low, high = classification.wilson(correct, n, level)
                assert (low, high) == pytest.approx(
                    (expected.low, expected.high), abs=1e-9
                )
                assert 0 <= low <= correct / n <= high <= 1
    for wrong in ((1, 0), (3, 2), (-1, 5)):
        with pytest.raises(InputError):
            classification.wilson(*wrong)


GOOD = torch.full((4, 3), 1 / 3)


@pytest.mark.parametrize(
    ("probabilities", "labels", "says"),
    [
        (
            GOOD.index_fill(1, torch.tensor([1]), float("nan")),
            torch.zeros(4, dtype=torch.long),
            "not finite",
        ),
        (GOOD * 3, torch.zeros(4, dtype=torch.long), "softmax"),
        (
            GOOD - torch.tensor([0.0, 1.0, -1.0]),
            torch.zeros(4, dtype=torch.long),
            "softmax",
        ),
        (GOOD[:, :2], torch.zeros(4, dtype=torch.long), r"\(N, 3\)"),
        (GOOD, torch.zeros(3, dtype=torch.long), r"\(N, 3\)"),
        (GOOD, torch.tensor([0, 1, 2, 3]), "0..2"),
        (GOOD, torch.tensor([0, -1, 2, 1]), "0..2"),
        (GOOD, torch.zeros(4), "whole numbers"),
        (GOOD[:0], torch.zeros(0, dtype=torch.long), "no images"),
    ],
)
def test_metrics_refuse_what_is_not_a_distribution_over_classes(
    probabilities, labels, says
):
    with pytest.raises(InputError, match=says):
        classification.metrics(probabilities, labels, 3)


# ---- localisation

SIDE = 24


def random_case(n: int, m: int, seed: int):
    """Boxes and objects with whole-pixel corners (pixels can be counted), ragged masks,
    parts of which some are missing."""
    random = np.random.default_rng(seed)

    def corners(*shape):
        a, b = (
            random.integers(0, SIDE - 1, (*shape, 2)),
            random.integers(1, SIDE, (*shape, 2)),
        )
        return np.concatenate([np.minimum(a, b), np.maximum(a, b) + 1], -1)

    points = random.uniform(0, SIDE, (n, 3, 2))
    points[random.random((n, 3)) < 0.4] = np.nan
    masks = random.random((n, SIDE, SIDE)) < 0.3
    masks[0] = False
    return [
        torch.as_tensor(x)
        for x in (
            corners(n, m).astype(np.float32),
            corners(n).astype(np.float32),
            masks,
            points,
        )
    ]


def test_score_is_the_count_of_pixels_and_points():
    boxes, objects, masks, points = random_case(n=60, m=4, seed=1)
    found = localisation.score(boxes, objects, masks, points)
    without_mask = localisation.score(boxes, objects)["hit_object"]
    for i in range(60):
        object_pixels = np.zeros((SIDE, SIDE), bool)
        x1, y1, x2, y2 = objects[i].int().tolist()
        object_pixels[y1:y2, x1:x2] = True
        together = np.zeros_like(object_pixels)
        for k in range(4):
            left, top, right, bottom = boxes[i, k].int().tolist()
            together[top:bottom, left:right] = True
            iou = (together & object_pixels).sum() / (together | object_pixels).sum()
            assert found["union_iou"][i, k].item() == pytest.approx(iou, abs=1e-12)
            x, y = (left + right) / 2, (top + bottom) / 2
            assert without_mask[i, k] == (x1 <= x <= x2 and y1 <= y <= y2)
            if masks[i].any():
                assert found["hit_object"][i, k] == masks[i, int(y), int(x)]
            seen = [p for p in points[i].tolist() if not np.isnan(p[0])]
            if seen:
                assert found["hit_part"][i, k] == any(
                    left <= px <= right and top <= py <= bottom for px, py in seen
                )
            else:
                assert found["hit_part"][i, k].isnan()
    assert found["hit_object"][0].isnan().all()
    assert found["hit_object"][1:].isfinite().all()
    # both answers occur, so that the comparison means something
    for name in localisation.MEASURES:
        values = found[name][found[name].isfinite()]
        assert values.min() < 0.2, name
        assert values.max() > 0.5, name


def test_union_iou_with_fractions_of_pixels_and_without_object():
    boxes = torch.tensor([[[0, 0, 2.5, 1], [1.5, 0, 4, 1], [1, 0, 2, 1]]]).repeat(
        2, 1, 1
    )
    objects = torch.tensor([[0, 0, 4, 2], [float("nan")] * 4])
    found = localisation.score(boxes, objects)["union_iou"]
    assert found[0].tolist() == pytest.approx([2.5 / 8, 4 / 8, 4 / 8])
    assert found[1].isnan().all()
    assert localisation.score(boxes, objects)["hit_object"][1].isnan().all()
    with pytest.raises(InputError, match="do not fit"):
        localisation.score(boxes, objects[:1])


def test_ground_truth_moves_with_the_centre_crop():
    split = Split(
        images=torch.zeros(3, 3, 10, 10, dtype=torch.uint8),
        labels=torch.zeros(3, dtype=torch.long),
        files=list("abc"),
        boxes=torch.tensor([[0.0, 3, 5, 9], [0, 0, 2, 9], [4, 4, 6, 6]]),
        parts=torch.tensor([[[1.0, 5, 1], [4, 5, 1], [5, 5, 0]]] * 3),
    )
    split.masks = torch.zeros(3, 10, 10, dtype=torch.uint8)
    split.masks[:, 2, 7] = 1
    index = torch.tensor([0, 1, 2])
    # two pixels are cut off on each side
    truth = localisation.ground_truth(split, index, 6)
    assert truth["objects"][0].tolist() == [0, 1, 3, 6]
    assert truth["objects"][2].tolist() == [2, 2, 4, 4]
    assert truth["objects"][1].isnan().all()  # it ends where the crop begins
    assert truth["masks"].shape == (3, 6, 6)
    assert truth["masks"].nonzero().tolist() == [[i, 0, 5] for i in range(3)]
    assert truth["points"][0, 0].isnan().all()
    assert truth["points"][0, 1].tolist() == [2, 3]
    assert truth["points"][0, 2].isnan().all()  # not visible
    # the parts that tell siblings apart come first
    split.part_boxes = torch.tensor([[[2.0, 2, 8, 4], [float("nan")] * 4]] * 3)
    assert localisation.ground_truth(split, index, 6)["points"][0].nan_to_num(
        -1
    ).tolist() == [[3, 1], [-1, -1]]


class Pointer(torch.nn.Module):
    """Its regions lie at the brightest pixel of the image, so what it sees decides
    where they are. They are squares of side 4."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def regions(self, images):
        assert not self.training
        place = images.sum(1).flatten(1).argmax(1)
        x, y = place % images.shape[-1] + 0.5, place // images.shape[-1] + 0.5
        near = torch.stack([x - 2, y - 2, x + 2, y + 2], -1)
        far = near.clone()
        far[:, ::2] += torch.where(x < images.shape[-1] / 2, 12.0, -12.0)[:, None]
        return torch.stack([near, far], 1)


def dots(n: int) -> Split:
    """A dot on each stored 32 px image, inside the central 24 px; the object is the
    square of side 4 around it."""
    random = torch.Generator().manual_seed(5)
    place = torch.randint(7, 25, (n, 2), generator=random)
    images = torch.zeros(n, 3, 32, 32, dtype=torch.uint8)
    images[torch.arange(n), :, place[:, 1], place[:, 0]] = 255
    middle = place + 0.5
    parts = torch.cat([middle, torch.ones(n, 1)], 1)[:, None]
    return Split(
        images,
        torch.zeros(n, dtype=torch.long),
        [str(i) for i in range(n)],
        torch.cat([middle - 2, middle + 2], 1),
        parts,
    )


def test_measure_finds_what_the_model_points_at_and_random_boxes_do_not(monkeypatch):
    split, recipe = dots(150), Recipe(image_size=24, store_size=32)
    model = Pointer().train()
    found = localisation.measure(model, split, recipe)
    assert model.training  # restored
    assert found["hit_object_by_rank"] == [1, 0]
    assert found["hit_part_by_rank"] == [1, 0]
    assert found["hit_object"] == 0.5
    assert found["union_iou_by_rank"] == pytest.approx([1, 0.5])
    assert found["union_iou"] == pytest.approx(0.5)
    assert (
        found["n"]
        == found["hit_object_n"]
        == found["hit_part_n"]
        == found["union_iou_n"]
        == 150
    )
    # A square of 4 anywhere in 24 pixels: its centre is uniform over 20 x 20, where the
    # object has 16 square pixels, fewer at the rim.
    assert 0.02 < found["hit_object_random"] < 0.045
    assert found["hit_object_random_low"] < 16 / 400
    assert found["hit_object_random_high"] > 0.03
    assert found["union_iou_random"] < 0.1
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    monkeypatch.setattr(localisation, "BATCH", 7)
    again = localisation.measure(model, split, recipe)
    assert {k: pytest.approx(v, abs=1e-12) for k, v in again.items()} == found


def test_measure_says_none_where_ground_truth_is_missing():
    split, recipe = dots(5), Recipe(image_size=24, store_size=32)
    split.boxes = None
    found = localisation.measure(Pointer(), split, recipe)
    assert (
        found["hit_object"]
        is found["union_iou"]
        is found["union_iou_random"]
        is found["union_iou_by_rank"]
        is None
    )
    assert found["union_iou_n"] == 0
    assert found["hit_part"] == 0.5
    split.parts[..., 2] = 0
    assert localisation.measure(Pointer(), split, recipe)["hit_part"] is None
    split.parts = None
    with pytest.raises(InputError, match="ground|boxes"):
        localisation.measure(Pointer(), split, recipe)


@pytest.mark.parametrize(
    ("method", "offered"),
    [
        ("focus", {"ProposesRegions"}),
        ("levels", {"Locates"}),
        ("flrdf", {"Locates", "ShowsMaps"}),
        ("plain", set()),
    ],
)
def test_what_is_scored_is_what_a_method_offers(method, offered):
    recipe = Recipe(image_size=24, store_size=32, backbone="small", weights="none")
    model = build(method, 3, recipe, {})
    for name in ("ProposesRegions", "Locates", "ShowsMaps"):
        protocol = getattr(localisation, name)
        assert isinstance(model, protocol) == (name in offered), name
    if "ProposesRegions" not in offered:
        with pytest.raises(InputError, match=f"{type(model).__name__} proposes no"):
            localisation.measure(model, dots(3), recipe)
    if "Locates" not in offered:
        with pytest.raises(InputError, match=f"{type(model).__name__} draws no boxes"):
            localisation.boxes(model, dots(3), recipe)


def test_interval_of_the_mean_covers_images():
    scores = torch.rand(
        400, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    found = localisation._summary("x", scores, cumulative=False)
    half = 1.96 * scores.mean(1).std().item() / 20
    assert (found["x_low"], found["x_high"]) == pytest.approx(
        (scores.mean().item() - half, scores.mean().item() + half)
    )
    assert localisation._summary("x", scores, cumulative=True)["x"] == pytest.approx(
        scores[:, 2].mean().item()
    )


def test_random_boxes_stay_inside_keep_their_size_and_depend_on_the_image_only():
    random = torch.Generator().manual_seed(3)
    sides = 2 + 20 * torch.rand(500, 3, 2, generator=random)
    boxes = torch.cat([torch.zeros_like(sides), sides], -1)
    index = torch.arange(500)
    placed = localisation.random_boxes(boxes, index, 0, 24)
    assert torch.allclose(placed[..., 2:] - placed[..., :2], sides, atol=1e-4)
    assert placed.min() >= 0
    assert placed.max() <= 24 + 1e-4
    assert torch.equal(
        localisation.random_boxes(boxes[100:103], index[100:103], 0, 24),
        placed[100:103],
    )
    assert not torch.equal(localisation.random_boxes(boxes, index, 1, 24), placed)
    # uniform in 0..1, in both directions, without a pattern between them
    share = placed[..., :2] / (24 - sides)
    assert share.mean((0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=0.04)
    assert torch.corrcoef(share.flatten(1).T).fill_diagonal_(0).abs().max() < 0.2


def test_measure_scores_the_boxes_of_the_real_method():
    torch.manual_seed(0)
    model, split = Focus(backbones.create("small", "none"), 5, m=3, l=2), dots(6)
    found = localisation.measure(model, split, Recipe(image_size=32, store_size=32))
    boxes = model.eval().regions(split.images.float() / 255)
    assert found["union_iou"] == pytest.approx(
        localisation.score(boxes, split.boxes)["union_iou"][:, 2].mean().item()
    )
    assert len(found["hit_object_by_rank"]) == 3
    assert found["hit_object_n"] == 6
