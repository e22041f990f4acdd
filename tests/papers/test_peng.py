"""Paper E: its stages and amounts, its tables from real records, and pictures cut to
their boxes."""

import html
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

import samples
from fgbook import data, papers, paths
from fgbook.data import cub, photos
from fgbook.errors import InputError
from fgbook.evidence import measures, records, runs
from fgbook.figures import peng as drawn
from fgbook.papers import peng
from fgbook.papers.spec import PROFILES

PAPER = papers.get("peng")
TINY = {
    "image_size": 36,
    "store_size": 40,
    "low_side": 9,
    "epochs": 1,
    "batch_size": 8,
    "weights": "none",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A data folder with a small CUB."""
    root = tmp_path_factory.mktemp("data") / "cub"
    samples.cub(root, count=26, train=20)
    return root.parent


@pytest.fixture
def places(sets, tmp_path, monkeypatch):
    for name, place in (
        ("DATA", sets),
        ("RUNS", tmp_path / "runs"),
        ("RESULTS", tmp_path / "results"),
    ):
        monkeypatch.setenv(f"FGBOOK_{name}", str(place))
    runs._load.cache_clear()


def resolve(row, seed=0, profile="quick", **overrides):
    if row == "probe":  # sees high resolution alone
        overrides = {"low_side": 0} | overrides
    return runs.resolve(
        "peng",
        row,
        profile,
        "cub-cropped",
        seed,
        TINY | {"backbone": "none" if row == "lr-cnn" else "small"} | overrides,
    )


def execute(row, seed=0, **overrides):
    return runs.execute(resolve(row, seed, **overrides), device="cpu", progress=False)


# ---- rows


def test_rows_stages_claims_and_tables_fit_together():
    names = [row.name for row in PAPER.rows]
    assert len(set(names)) == len(names)
    for row in PAPER.rows:
        assert row.recipes, row.name
        assert not row.after or set(row.recipes) <= set(PAPER.row(row.after).recipes), (
            row.name
        )
        # no stage learns from images that another one is validated on
        for profile, recipe in row.recipes.items():
            assert (
                not row.after
                or PAPER.row(row.after).recipes[profile].train_on == recipe.train_on
            ), row.name
    for claim in PAPER.claims:
        assert "photo" in PAPER.row(claim.better).recipes, claim.key
        assert "photo" in PAPER.row(claim.worse).recipes, claim.key
    for table in PAPER.tables:
        assert all(len(values) == len(table.columns) for values in table.cells.values())
        assert set(table.rows) <= set(table.cells)
        assert set(table.rows.values()) <= set(names)
    for profile in PROFILES:
        assert set(peng.grid(profile)) | set(peng.MAIN) == {
            row.name for row in PAPER.rows_at(profile)
        }
        n = len(peng.AMOUNTS[profile])
        assert (
            len(peng.grid(profile))
            == len(set(peng.grid(profile)))
            == n + (n + 1) * n + n
        )


def test_printed_effects_are_differences_of_table_1():
    """Claims name the difference of what the paper prints for their two rows."""
    table = PAPER.tables[0]
    printed = {ours: table.cells[label] for label, ours in table.rows.items()}

    def value(row, metric):
        return printed[row][metric == "low_top1"]

    for claim in PAPER.claims:
        if claim.printed_effect is None or claim.key == "E5b":
            continue
        assert claim.printed_effect == pytest.approx(
            value(claim.better, claim.metric)
            - value(claim.worse, claim.worse_metric or claim.metric),
            abs=0.01,
        )
    cells = PAPER.tables[1].cells
    assert cells["H2k"][1] - cells["Mixed"][1] == pytest.approx(
        next(c for c in PAPER.claims if c.key == "E5b").printed_effect
    )
    # all images: Table 2 repeats Table 1
    for label, corner in (("H8k", "high-low"), ("H0k", "low"), ("Mixed", "mixed")):
        assert cells[label][-1] == value(corner, "low_top1")


def test_low_resolution_is_the_papers_share_at_every_profile():
    for row in PAPER.rows:
        for recipe in row.recipes.values():
            if row.name == "probe":  # sees high resolution alone
                assert recipe.low_side == 0
                continue
            assert recipe.low_side == round(50 / 227 * recipe.image_size)
            assert math.isclose(row.options.get("low", peng.LOW), 50 / 227)
            assert recipe.resolution in (
                ("high",)
                if row.name in ("high", "low-high", "restorer")
                or re.fullmatch(r"H\d", row.name)
                else ("low", "mixed")
            )


@pytest.mark.parametrize("profile", PROFILES)
def test_staged_and_mixed_training_take_equally_many_steps(profile):
    for amount in peng.AMOUNTS[profile]:
        first, second, both = (
            PAPER.row(name).recipes[profile]
            for name in (
                peng.staged(amount, 0),
                peng.staged(amount, amount),
                peng.mixed(amount),
            )
        )
        assert first.epochs + second.epochs == both.epochs
        assert first.fraction == second.fraction == both.fraction
        assert (first.resolution, second.resolution, both.resolution) == (
            "high",
            "low",
            "mixed",
        )
        # at photo each has the best of three rates on validation
        assert second.lr < first.lr == both.lr or profile == "photo"
        assert (
            first.but(resolution="low")
            == PAPER.row(peng.staged(0, amount)).recipes[profile]
        )


def test_stages_are_shared_and_no_two_rows_are_the_same_run(places):
    found = {row.name: resolve(row.name) for row in PAPER.rows_at("quick")}
    keys = {name: run.key for name, run in found.items()}
    assert len(set(keys.values())) == len(keys)
    for high in peng.AMOUNTS["quick"]:
        assert {
            found[peng.staged(high, low)].after.key for low in peng.AMOUNTS["quick"]
        } == {keys[peng.staged(high, 0)]}
    assert found["low-high"].after.key == found["low-low"].after.key == keys["low"]
    assert found["high-low"].after.key == keys["high"]
    # equal recipes after other first stages
    assert measures.wanted(found["high-low"]) == {"heat"}
    assert not measures.wanted(found["H4-L8"])
    assert found["super-resolution"].after.key == keys["restorer"]
    assert found["H2"].after is found["M2"].after is found["lr-cnn"].after is None


def test_amounts_are_nested_and_the_same_for_staged_mixed_and_every_seed(places):
    files = {
        name: resolve(name).data().train.files
        for name in ("H2", "H4", "high", "H2-L2", "M2", "H4-L2", "H2-L4")
    }
    assert set(files["H2"]) < set(files["H4"]) < set(files["high"])
    assert (
        files["H2"]
        == files["H2-L2"]
        == files["M2"]
        == files["H4-L2"]
        == resolve("M2", seed=3).data().train.files
    )
    assert files["H2-L4"] == files["H4"]


def test_every_kind_of_row_trains_and_is_measured_twice(places):
    """One run of each kind; the second stage of super-resolution keeps the restorer
    that the first one learned."""
    for row in ("H2-L2", "super-resolution", "lr-cnn"):
        record = execute(
            row, **({"image_size": 48, "store_size": 48} if row == "lr-cnn" else {})
        )
        kept = records.load_predictions(record)
        assert (
            record["metrics"]["test"]["n"]
            == record["metrics"]["test_low"]["n"]
            == len(kept["low_prediction"])
            == 12
        )
        assert ("psnr_restored" in kept) == (row == "super-resolution")
    made = {record["row"]: record for record in records.fresh()}
    assert made.keys() == {"H2", "H2-L2", "restorer", "super-resolution", "lr-cnn"}
    from safetensors.torch import load_file

    first, second = (
        load_file(paths.runs() / made[row]["key"] / "model.safetensors")
        for row in ("restorer", "super-resolution")
    )
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert {name for name in first if name.startswith("restorer.")} <= same
    assert not any(name == "image_head.weight" for name in same)
    assert first["restorer.body.10.weight"].any()  # it has learned something


# ---- tables and figures


def published(rows, seeds=(0,), profile="photo"):
    """Records with made-up predictions, some right and some wrong, published as runs
    would be."""
    found = []
    for row in rows:
        for seed in seeds:
            generator = np.random.default_rng([seed, *row.encode()])
            label = generator.integers(0, 5, 40).astype(np.uint16)
            label[:] = np.arange(40) % 5
            high, low = (
                np.where(generator.random(40) < 0.6, label, (label + 1) % 5)
                for resolution in ("high", "low")
            )
            run = runs.resolve(
                "peng",
                row,
                profile,
                "cub-cropped",
                seed,
                TINY | {"backbone": "none" if row == "lr-cnn" else "small"},
            )
            kept = {
                "prediction": high.astype(np.uint16),
                "low_prediction": low.astype(np.uint16),
                "label": label,
                "confidence": np.ones(40, np.float16),
                "nll": np.ones(40, np.float32),
                "psnr_low": generator.random(40),
                "psnr_restored": generator.random(40),
            }
            record = {
                "key": records.key({"row": row, "seed": seed, "profile": profile}),
                "purpose": "result",
                "paper": "peng",
                "row": row,
                "method": run.method,
                "options": run.options,
                "profile": profile,
                "dataset": "cub-cropped",
                "seed": seed,
                "recipe": run.recipe.as_dict(),
                "overrides": run.overrides,
                "weights": "none",
                "data_fingerprint": "f",
                "num_classes": 5,
                "images": {"train": 9, "val": 0, "test": 40},
                "metrics": {"test": {}, "test_low": {}},
                "train": {"epochs": 1, "seconds": 1.0},
                "hardware": {"cpu": "c", "threads": 1, "cores": 1},
                "command": f"fgbook run peng --row {row}",
                "printed": None,
            }
            found.append(
                records.save(
                    record, kept, paths.results() / "peng" / f"{row}-{seed}.json"
                )
            )
    return found


def spans(shown) -> list[tuple[str, str, str]]:
    return [
        (field, keys, html.unescape(text))
        for field, keys, text in re.findall(
            r'data-field="([^"]*)" data-records="([^"]*)"[^>]*>([^<]*)</span>',
            shown.html,
        )
    ]


def right(record, metric) -> np.ndarray:
    kept = records.load_predictions(record)
    return kept["prediction" if metric == "top1" else "low_prediction"] == kept["label"]


def test_the_table_of_resolutions_puts_each_number_in_its_column(places):
    found = published(["high", "low", "low-low"])
    shown = drawn.resolution_table(PAPER, found, "cars-cropped")
    for record in found:
        for metric in ("top1", "low_top1"):
            assert (
                metric,
                record["key"],
                f"{100 * right(record, metric).mean():.1f}",
            ) in spans(shown)
    lines = re.findall(r"<tr>\s*<td>(.*?)</tr>", shown.html, re.S)
    cells = {
        re.sub("<.*?>", "", cells[0]): [re.sub("<.*?>", "", cell) for cell in cells[1:]]
        for cells in (re.split(r"</td>\s*<td>", line) for line in lines)
    }
    assert cells["high resolution only"][0] == "80.3"
    assert cells["high resolution only"][2] == "1.7"
    assert cells["high resolution only"][1].startswith(
        f"{100 * right(found[0], 'top1').mean():.1f} ("
    )
    assert cells["BB-3D-G"][:4] == ["67.6", "–", "–", "–"]
    assert cells["both resolutions at once"][1] == "not run"
    assert cells[PAPER.row("low-low").title][0] == "–"
    assert "restoring network" not in str(list(cells))
    quick = drawn.resolution_table(PAPER, published(["high"], profile="quick"))
    assert "printed" not in quick.html
    assert "BB-3D-G" not in quick.html
    assert "fgbook-illustration" in quick.html
    assert "not run" in drawn.resolution_table(PAPER, [], "cub-cropped").text
    assert "55.3" in drawn.resolution_table(PAPER, [], "cub-cropped").text


def test_the_grid_puts_each_run_in_its_cell(places):
    found = published(
        [
            "low",
            "high-low",
            "mixed",
            "M2",
            "H3-L2",
            "H3-L3",
            "H3-L4",
            "H8-L2",
            "H2-L8",
            "high",
        ]
    )
    by_row = {
        record["row"]: f"{100 * right(record, 'low_top1').mean():.1f}"
        for record in found
    }
    amounts = peng.AMOUNTS["photo"]
    lines = [
        [re.sub("<.*?>", "", cell) for cell in re.split(r"</td>\s*<td>", line)]
        for line in re.findall(
            r"<tr>\s*<td>(.*?)</tr>", drawn.amounts_table(found).html, re.S
        )
    ]
    assert [line[0] for line in lines] == [
        "none",
        *(f"H {a}/8" for a in amounts),
        "both at once",
    ]
    for high, line in zip((0, *amounts), lines[:-1], strict=True):
        assert [cell.strip() for cell in line[1:]] == [
            by_row.get(peng.staged(high, low), "not run") for low in amounts
        ]
    assert [cell.strip() for cell in lines[-1][1:]] == [
        by_row["M2"],
        "not run",
        "not run",
        "not run",
        by_row["mixed"],
    ]
    said = html.unescape(drawn.amounts_figure(PAPER, found).html)
    assert "H2k: 17.2, 24.3" in said
    assert (
        f"H 3/8: {by_row['H3-L2']}, {by_row['H3-L3']}, {by_row['H3-L4']}, not run"
        in said
    )
    assert (
        "printed"
        not in drawn.amounts_figure(
            PAPER, published(["high", "low"], profile="quick")
        ).html
    )
    assert drawn.amounts_figure(PAPER, []).html
    assert drawn.difference_figure(PAPER, []).html


def test_differences_compare_the_same_images(places):
    found = published(["H2-L2", "M2", "high-low", "mixed", "H4-L4"], seeds=(0, 1))
    said = html.unescape(drawn.difference_figure(PAPER, found).html)
    for amount, pair in ((2, ("H2-L2", "M2")), (8, ("high-low", "mixed"))):
        means = [
            100 * np.mean([right(r, "low_top1") for r in found if r["row"] == row])
            for row in pair
        ]
        assert f"{amount}/8: {means[0] - means[1]:+.1f} (" in said
    assert (
        "printed: 2/8: +0.9, 3/8: +2.1, 4/8: +3.1, 5/8: +2.1, 6/8: +1.8, 7/8: +1.0,"
        " 8/8: +0.2." in said
    )
    assert said.count("4/8:") == 1  # H4-L4 alone is no pair


def test_the_sentence_below_the_amounts_compares_the_same_images(places):
    def sentence(rows):
        table = drawn.amounts_table(published(rows, seeds=(0, 1))).html
        found = re.search(r"Staged minus mixed, on the same images: (.*?)\.", table)
        return re.findall(r"(\d)/8", found[1]) if found else []

    assert sentence(["H2-L2", "M2", "high-low"]) == ["2"]
    # a first stage with all images has seen more than mixed training with a quarter
    assert sentence(["H8-L2", "M2", "high-low"]) == []


def test_the_restoration_table_shows_means_over_images_and_seeds(places):
    found = published(["restorer"], seeds=(0, 1))
    values = [records.load_predictions(record) for record in found]
    keys = " ".join(record["key"] for record in found)
    for name in ("psnr_low", "psnr_restored"):
        assert (
            name,
            keys,
            f"{np.mean([v[name].mean() for v in values]):.2f}",
        ) in spans(drawn.restoration_table(found))
    assert "not run" in drawn.restoration_table([]).text


# ---- pictures cut to their boxes


def test_cropped_pictures_are_what_the_box_says(places):
    """Against Pillow, picture by picture: the box rounded outwards, inside the picture,
    squashed to a square."""
    root, size = cub.folder("cub"), 24
    found = data.load("cub-cropped", size)
    boxes = {
        int(line.split()[0]): [float(v) for v in line.split()[1:]]
        for line in (root / "bounding_boxes.txt").read_text().splitlines()
    }
    ids = {
        line.split()[1]: int(line.split()[0])
        for line in (root / "images.txt").read_text().splitlines()
    }
    seen = 0
    for split in (found.train, found.val, found.test):
        for i, file in enumerate(split.files):
            x, y, w, h = boxes[ids[file]]
            with Image.open(root / "images" / file) as picture:
                cut = (
                    math.floor(x),
                    math.floor(y),
                    min(math.ceil(x + w), picture.width),
                    min(math.ceil(y + h), picture.height),
                )
                expected = np.asarray(
                    picture.convert("RGB")
                    .crop(cut)
                    .resize((size, size), Image.Resampling.BILINEAR)
                ).transpose(2, 0, 1)
            assert np.array_equal(split.images[i].numpy(), expected), file
            scale = np.array([size / (cut[2] - cut[0]), size / (cut[3] - cut[1])] * 2)
            inside = (np.array([x, y, x + w, y + h]) - np.tile(cut[:2], 2)) * scale
            assert split.boxes[i].numpy() == pytest.approx(
                inside.clip(0, size), abs=1e-3
            )
            seen += 1
    assert seen == 52
    part = (
        (
            np.array([math.floor(boxes[1][0]) + 5 + 1, math.floor(boxes[1][1]) + 9])
            - np.floor(boxes[1][:2])
        )
        * size
        / np.array([50, 41])
    )
    train = found.train.files + found.val.files
    parts = torch.cat([found.train.parts, found.val.parts])
    assert parts[train.index("001.Red_Blob/00.png"), 0, :2].numpy() == pytest.approx(
        part, abs=1e-3
    )


def test_cropped_and_whole_pictures_are_different_data(places):
    whole, cut = data.load("cub", 24), data.load("cub-cropped", 24)
    assert whole.fingerprint != cut.fingerprint
    assert (whole.name, cut.name) == ("cub", "cub-cropped")
    assert whole.train.files == cut.train.files
    assert torch.equal(whole.train.labels, cut.train.labels)
    assert not torch.equal(whole.train.images, cut.train.images)


def test_without_boxes_or_with_a_box_outside_nothing_is_cut(places, tmp_path):
    some = cub.photos("cub")
    some.boxes[3] = [500, 500, 520, 520]
    with pytest.raises(InputError, match="lies outside"):
        photos.load(photos.cropped(some), 24)
    some.boxes = None
    with pytest.raises(InputError, match="no boxes"):
        photos.cropped(some)
