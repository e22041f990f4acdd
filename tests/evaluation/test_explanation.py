"""Where a network looks: scores against loops over pixels, maps whose answer is known,
captum; from a run to the record."""

import re
from dataclasses import replace
from itertools import pairwise

import captum.attr
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import samples
from fgbook import explain, papers
from fgbook.data.dataset import Split
from fgbook.errors import InputError
from fgbook.evaluation import explanation
from fgbook.evidence import records, runs, verdicts
from fgbook.figures import explain as drawn
from fgbook.images import augment
from fgbook.methods import build
from fgbook.papers import gautam
from fgbook.recipe import Recipe

RECIPE = Recipe(image_size=24, store_size=28, backbone="small", weights="none")


def network(method: str = "plain", classes: int = 4, **options):
    """A network whose gates and head say something."""
    torch.manual_seed(0)
    model = build(method, classes, RECIPE, options)
    for parameter in (
        p for name, p in model.named_parameters() if not name.startswith("backbone")
    ):
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def split(count: int = 6, masks: bool = False, part_boxes: bool = False) -> Split:
    """Noise; boxes and parts at random places, some of them outside the crop."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(
        0, 256, (count, 3, 28, 28), generator=generator, dtype=torch.uint8
    )
    corner, side = (
        16 * torch.rand(count, 2, generator=generator),
        2 + 9 * torch.rand(count, 2, generator=generator),
    )
    boxes = torch.cat([corner, corner + side], 1)
    parts = torch.cat(
        [
            28 * torch.rand(count, 15, 2, generator=generator),
            (torch.rand(count, 15, 1, generator=generator) < 0.2).float(),
        ],
        2,
    )
    parts[0, :, 2] = 0  # none visible
    boxes[1] = torch.tensor([0.0, 0.0, 1.5, 9.0])  # cut away: the crop begins at 2
    about = Split(
        images,
        torch.arange(count) % 4,
        [f"{i}.png" for i in range(count)],
        boxes,
        parts,
    )
    if masks:
        about.masks = (
            torch.rand(count, 28, 28, generator=generator).gt(0.8).to(torch.uint8)
        )
        about.masks[2] = 0
    if part_boxes:
        about.part_boxes = torch.cat([parts[:, :2, :2], parts[:, :2, :2] + 3], 2)
        about.part_boxes[3, 1] = torch.nan
    return about


def slow(split: Split, i: int, values: np.ndarray) -> dict[str, float]:
    """The definitions, pixel by pixel, for a map (24, 24) of image i."""
    best, total = values.max(), values.sum()
    box = split.boxes[i].tolist()
    energy, inside, chosen, on_object, on_part, middle_in = 0.0, 0.0, 0, 0, 0, 0
    places = []
    if split.part_boxes is not None:
        for left, top, right, bottom in split.part_boxes[i].tolist():
            if (
                left == left
                and 2 <= (left + right) / 2 <= 26
                and 2 <= (top + bottom) / 2 <= 26
            ):
                places.append((left, top, right, bottom))
    else:
        places = [
            (x, y, x, y)
            for x, y, seen in split.parts[i].tolist()
            if seen and 2 <= x <= 26 and 2 <= y <= 26
        ]
    for row in range(24):
        for column in range(24):
            x, y = column + 2, row + 2  # in the stored image
            part = max(0, min(box[2], x + 1) - max(box[0], x)) * max(
                0, min(box[3], y + 1) - max(box[1], y)
            )
            energy, inside = energy + values[row, column] * part, inside + part
            if values[row, column] == best:
                chosen += 1
                middle_in = box[0] <= x + 0.5 <= box[2] and box[1] <= y + 0.5 <= box[3]
                on_object += (
                    bool(split.masks[i, y, x]) if split.masks is not None else middle_in
                )
                on_part += any(
                    max(a - x - 0.5, 0, x + 0.5 - c) ** 2
                    + max(b - y - 0.5, 0, y + 0.5 - d) ** 2
                    <= (24 * 15 / 224) ** 2
                    for a, b, c, d in places
                )
    known = (
        bool(split.masks[i, 2:26, 2:26].any())
        if split.masks is not None
        else inside > 0
    )
    return {
        "energy": energy / total if inside else np.nan,
        "object": on_object / chosen if known else np.nan,
        "part": on_part / chosen if places else np.nan,
    }


@pytest.mark.parametrize(("masks", "part_boxes"), ((False, False), (True, True)))
def test_scores_pixel_by_pixel(masks, part_boxes):
    """Maps with one highest pixel, with several, even ones; an image without an object
    in the crop, one without a part."""
    about = split(8, masks, part_boxes)
    random = torch.rand(8, 24, 24, generator=torch.Generator().manual_seed(1))
    for maps in (random, (6 * random).round(), torch.full((8, 24, 24), 3.0)):
        found = explanation.score(maps, **explanation.truth(about, torch.arange(8), 24))
        for i in range(8):
            for name, value in slow(about, i, maps[i].double().numpy()).items():
                assert found[name][i].item() == pytest.approx(
                    value, abs=1e-5, nan_ok=True
                ), (name, i)


def test_maps_whose_scores_are_known():
    """All of the map in the box; none of it; nothing at all, which counts as an even
    map: a quarter of this image is object, and a disc is part."""
    maps = torch.zeros(3, 32, 32)
    maps[0, 8:24, 8:24], maps[1, 0, 0] = 2.0, 1.0
    box, part = (
        torch.tensor([8.0, 8.0, 24.0, 24.0]),
        torch.tensor([16.0, 16.0, 16.0, 16.0]),
    )
    found = explanation.score(maps, box.expand(3, 4), parts=part.expand(3, 1, 4))
    assert found["energy"].tolist() == [1, 0, 0.25]
    assert found["object"].tolist() == [1, 0, 0.25]
    disc = sum(
        (x - 15.5) ** 2 + (y - 15.5) ** 2 <= (32 * 15 / 224) ** 2
        for x in range(32)
        for y in range(32)
    )
    assert found["part"].tolist() == pytest.approx([disc / 256, 0, disc / 1024])


def test_enlarged_maps_are_straight_between_their_cells():
    maps = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    large = explain.enlarge(maps, 32, 8, 0.5)
    # a cell that looks at 0.5 is pixel 0
    torch.testing.assert_close(large[:, 0:17:8, 0:25:8], maps)
    torch.testing.assert_close(large[:, 4, 8], (maps[:, 0, 1] + maps[:, 1, 1]) / 2)
    torch.testing.assert_close(large[:, 16:, 24:], maps[:, -1:, -1:].expand(2, 16, 8))
    # looks between pixels 3 and 4, half a pixel before the middle of the latter
    between = explain.enlarge(maps, 32, 8, 4.0)
    torch.testing.assert_close(between[:, 3, 3], maps[:, 0, 0])
    torch.testing.assert_close(
        between[:, 3, 4], maps[:, 0, 0] * 15 / 16 + maps[:, 0, 1] / 16
    )
    torch.testing.assert_close(
        explain.enlarge(torch.ones(1, 3, 3), 20, 7, 2.0), torch.ones(1, 20, 20)
    )


@pytest.mark.parametrize("method", ("plain", "attention"))
def test_focus_is_grad_cam_of_the_predicted_class(method):
    """Behind the gates: captum's, up to the number of cells. Before them: captum's at
    the backbone."""
    model, images = (
        network(method),
        torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(2)),
    )
    classes = model.predict(images).argmax(1)

    class Pooled(torch.nn.Module):  # gives captum a layer to hook
        def __init__(self):
            super().__init__()
            self.model, self.last = model, torch.nn.Identity()

        def forward(self, images):
            maps = (
                model.maps(images) if method == "attention" else model.backbone(images)
            )
            return model.image_head(self.last(maps).mean((2, 3)))

    pooled = Pooled()
    for gated, net, layer in (
        (True, pooled, pooled.last),
        (False, pooled, model.backbone),
    ):
        wanted = (
            captum.attr.LayerGradCam(net, layer)
            .attribute(images, classes, relu_attributions=True)[:, 0]
            .detach()
        )
        maps = explanation.focus(model, images, gated).detach()
        cells = maps[0].numel() if gated else 1
        torch.testing.assert_close(maps / cells, wanted, rtol=1e-4, atol=1e-6)
    assert maps.amax() > 0


@torch.no_grad()
def test_insertion_and_deletion_pixel_by_pixel():
    model, images = (
        network(),
        torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(2)),
    )
    # many are equal
    maps = (
        5 * torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(4))
    ).round()
    found = explanation.insertion_deletion(model, images, maps, 7)
    blurred = augment.degrade(images, 1, "bilinear")
    for i in range(3):
        label = model.predict(images[i : i + 1]).argmax().item()
        # stable: equal ones stay in order
        order = sorted(range(576), key=lambda place: -maps[i].flatten()[place].item())
        for name, before, after in (
            ("insertion", blurred[i], images[i]),
            ("deletion", images[i], torch.full_like(images[i], 128 / 255)),
        ):
            wanted = []
            for step in range(8):
                seen = before.clone()
                for place in order[: step * 576 // 7]:
                    seen[:, place // 24, place % 24] = after[:, place // 24, place % 24]
                wanted.append(model.predict(seen[None]).softmax(1)[0, label].item())
            assert found[name][i].tolist() == pytest.approx(wanted, abs=1e-5)
            assert explanation.area(found[name])[i].item() == pytest.approx(
                sum((a + b) / 2 / 7 for a, b in pairwise(wanted)),
                abs=1e-5,
            )
    torch.testing.assert_close(found["insertion"][:, -1], found["deletion"][:, 0])


class Spot(torch.nn.Module):
    """Knows class 1 by the light in one corner: what it looks at is known."""

    def predict(self, images):
        light = images[:, :, :8, :8].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(light), 20 * (light - 0.6)], 1)


def test_a_right_map_beats_a_random_one_and_a_wrong_one():
    images = torch.zeros(4, 3, 32, 32)
    images[:, :, :8, :8] = 1
    right, random = (
        images[:, 0],
        torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0)),
    )
    areas = [
        {
            name: explanation.area(curve).mean()
            for name, curve in explanation.insertion_deletion(
                Spot(), images, maps
            ).items()
        }
        for maps in (right, random, 1 - right)
    ]
    insertion, deletion = (
        [each[name] for each in areas] for name in ("insertion", "deletion")
    )
    assert insertion[0] > insertion[1] > insertion[2]
    assert deletion[0] < deletion[1] < deletion[2]


@pytest.mark.parametrize("method", ("plain", "attention"))
def test_measures_of_a_split_image_by_image(method, monkeypatch):
    """Five of seven images, curves of two, in batches of three; each number against the
    functions above, one image at a time."""
    monkeypatch.setattr(explanation, "BATCH", 3)
    model, about = network(method), split(7)
    found = explanation.measure(model, about, RECIPE, 5, 2)
    maps, few = explanation.sample(7, 5).tolist(), explanation.sample(7, 2).tolist()
    names = {
        f"focus_{name}{suffix}"
        for name in ("energy", "object", "part")
        for suffix in ("", "_backbone", "_chance", "_others")
    }
    curves = {
        f"focus_{name}{suffix}"
        for name in ("insertion", "deletion")
        for suffix in ("", "_random")
    }
    assert set(found) == names | curves
    assert all(
        values.shape == (7,) and values.dtype == np.float32 for values in found.values()
    )
    views = augment.centre(about.images, 24)
    large = {
        i: (
            explain.enlarge(
                explanation.focus(model, views[i : i + 1]), 24, 8, model.backbone.first
            ).detach()[0]
        )
        for i in maps
    }
    before = {
        i: explain.enlarge(
            explanation.focus(model, views[i : i + 1], False),
            24,
            8,
            model.backbone.first,
        )[0]
        for i in maps
    }
    for i in range(7):
        if i not in maps:
            assert all(np.isnan(found[name][i]) for name in names)
            continue
        others = torch.stack([large[j] / large[j].sum() for j in maps if j != i]).mean(
            0
        )
        for suffix, each in (
            ("", large[i]),
            ("_backbone", before[i]),
            ("_chance", torch.ones(24, 24)),
            ("_others", others),
        ):
            for name, value in slow(about, i, each.double().numpy()).items():
                assert found[f"focus_{name}{suffix}"][i] == pytest.approx(
                    value, abs=1e-4, nan_ok=True
                ), (name, suffix, i)
    for name in curves:
        assert np.flatnonzero(np.isfinite(found[name])).tolist() == few
    for i in few:
        with torch.no_grad():
            alone = explanation.insertion_deletion(
                model, views[i : i + 1], large[i][None]
            )
        for name, curve in alone.items():
            assert found[f"focus_{name}"][i] == pytest.approx(
                explanation.area(curve).item(), abs=1e-4
            )
            assert found[f"focus_{name}"][i] != found[f"focus_{name}_random"][i]
    if method == "plain":
        np.testing.assert_allclose(
            found["focus_energy"], found["focus_energy_backbone"], rtol=1e-4
        )
    else:
        # the gates choose places
        assert (
            np.nanmax(np.abs(found["focus_energy"] - found["focus_energy_backbone"]))
            > 1e-3
        )


def test_without_ground_truth_there_are_curves_only():
    about = split(3)
    about.boxes = about.parts = None
    found = explanation.measure(network(), about, RECIPE, 3, 3)
    assert set(found) == {
        "focus_insertion",
        "focus_deletion",
        "focus_insertion_random",
        "focus_deletion_random",
    }
    with pytest.raises(InputError, match="no images"):
        explanation.measure(network(), about.subset(torch.arange(0)), RECIPE, 3, 3)


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Records of two rows on pictures in CUB's layout; an older one of the first,
    without these measures, replaces it."""
    samples.cub(tmp_path / "data" / "cub", count=12, train=8)
    for name in ("RUNS", "RESULTS", "DATA"):
        monkeypatch.setenv(f"FGBOOK_{name}", str(tmp_path / name.lower()))
    monkeypatch.setitem(explanation.IMAGES, "quick", 6)
    monkeypatch.setitem(explanation.CURVED, "quick", 2)
    runs._load.cache_clear()
    small = {
        "weights": "none",
        "epochs": 1,
        "batch_size": 4,
        "image_size": 24,
        "store_size": 28,
    }
    plain, attention = runs.rows(
        "gautam",
        ["plain", "attention"],
        "quick",
        "cub",
        1,
        overrides=small,
        device="cpu",
        progress=False,
    )
    older = {
        name: values
        for name, values in records.load_predictions(plain).items()
        if not name.startswith("focus")
    }
    yield records.save(plain, older, tmp_path / "older.json"), attention
    runs._load.cache_clear()


def test_from_a_run_to_its_record_and_the_tables(found):
    plain, attention = found
    kept = records.load_predictions(attention)
    models = {r["row"]: runs.model(runs.of(r), device="cpu")[0] for r in found}
    data, recipe = runs.of(plain).data(), runs.of(plain).recipe
    for name, values in explanation.measure(
        models["attention"], data.test, recipe, 6, 2
    ).items():
        np.testing.assert_allclose(kept[name], values, rtol=1e-3, atol=1e-5)
    assert np.isfinite(kept["focus_energy"]).sum() == 6
    assert verdicts.holds(attention, "focus_part")
    assert not verdicts.holds(plain, "focus_part")

    paper = papers.get("gautam")
    shown = drawn.focus_table(paper, found)
    spans = dict(
        re.findall(
            r'data-field="mean ([^"]+)"[^>]*>([^<]+)<',
            shown.html + drawn.curves_table(paper, found).html,
        )
    )
    assert {
        "focus_energy",
        "focus_energy_others",
        "focus_part_backbone",
        "focus_object_chance",
        "focus_deletion_random",
    } < set(spans)
    for name, text in spans.items():
        assert text == f"{np.nanmean(kept[name].astype(float)):.3f}"
    # the plain row's three measures, and others' maps
    assert shown.text.count("not measured") == 6
    assert "illustration" in shown.html
    assert "not run" in drawn.focus_table(paper, []).text
    assert "not run" in drawn.curves_table(paper, []).text

    maps, curves = (
        drawn.maps_figure(models, data, recipe, 2).html,
        drawn.curves_figure(models, data, recipe, 2).html,
    )
    assert maps.count("<svg") == 1
    in_words = maps.split("<details")[1]
    assert len(re.findall("plain, named (rightly|wrongly), [01]", in_words)) == 2
    assert "share of the map in the box" in maps
    unmarked = replace(data.test, boxes=None, parts=None, part_boxes=None, masks=None)
    bare = drawn.maps_figure(models, replace(data, test=unmarked), recipe, 2).html
    assert "Left: the image." in bare and "in the box" not in bare
    values = [
        float(v)
        for v in (
            re.findall(r"inserted \(attention\): ([^<]+?)\. ", curves)[0]
            .replace(":", ",")
            .split(",")[1::2]
        )
    ]
    assert len(values) == explanation.STEPS + 1
    assert np.trapezoid(values, dx=1 / explanation.STEPS) == pytest.approx(
        np.nanmean(kept["focus_insertion"]), abs=1e-3
    )
    sanity = drawn.sanity_table(models, data, recipe, 4).text
    assert re.search(r"nothing +\+1\.00", sanity)
    assert "everything" in sanity


def test_claims_are_about_rows_that_are_measured():
    claims = [
        claim
        for claim in (*papers.get("gautam").claims, *gautam.LOOKS)
        if claim.metric.startswith("focus")
    ]
    assert {"C1 focus", "C1 parts"} <= {claim.key for claim in claims}
    for claim in claims:
        assert all(
            "focus" in papers.get("gautam").row(row).measures
            for row in (claim.better, claim.worse)
        )


def test_shuffling_starts_at_the_head_and_keeps_the_numbers():
    model = network("attention")
    for share in drawn.RANDOMISED:
        other = drawn.shuffled(model, share)
        changed = [
            name
            for name, value in model.state_dict().items()
            if not torch.equal(value, other.state_dict()[name])
        ]
        for name, value in model.state_dict().items():
            torch.testing.assert_close(
                value.flatten().sort().values,
                other.state_dict()[name].flatten().sort().values,
            )
        if share <= 0.25:
            assert ("image_head.weight" in changed) == (share > 0)
            assert share > 1e-3 or all(
                name.startswith("image_head") for name in changed
            )
            assert "backbone.network.stem.0.weight" not in changed
    # the last share is all
    assert {
        name for name, value in model.named_parameters() if value.unique().numel() > 1
    } <= set(changed)


def test_rank_correlation_is_scipys_with_ties():
    a, b = (
        (4 * torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(seed))).round()
        for seed in (0, 1)
    )
    found = drawn.rank_correlation(a, b)
    for i in range(3):
        assert found[i] == pytest.approx(
            spearmanr(a[i].flatten(), b[i].flatten()).statistic
        )
    assert drawn.rank_correlation(
        torch.ones(1, 2, 2), torch.rand(1, 2, 2)
    ).tolist() == [0]
