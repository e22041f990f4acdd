"""What the book's page about data says, compared with what the code does."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from fgbook import data, papers, paths
from fgbook.data import (
    aircraft,
    cars,
    cub,
    dogs,
    fieldguide,
    flowers,
    imagewoof,
    species,
    split,
    store,
)
from fgbook.data.dataset import PART_NAMES
from fgbook.papers.spec import PROFILES

PAGE = (paths.REPOSITORY / "book" / "data.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())  # lines are broken anywhere

ROWS = [(key, row) for key in papers.names() for row in papers.get(key).rows]


def table() -> dict[str, dict[str, str]]:
    """What the page says that each paper's rows train on, by profile."""
    found = {}
    for line in PAGE.splitlines():
        match = re.match(r"\| \[(\w+)\]\(\w+\.md\) \| (.*) \|$", line)
        if match:
            cells = match.group(2).split(" | ")
            found[match.group(1)] = dict(zip(PROFILES, cells, strict=True))
    return found


def section(title: str) -> str:
    """The text under a heading, in one line."""
    after = PAGE.split(f"# {title}\n", 1)[1]
    return " ".join(re.split(r"\n#+ ", after)[0].split())


# Fieldguide


@pytest.mark.parametrize("attribute", species.ATTRIBUTES)
def test_every_attribute_is_named(attribute):
    assert attribute in section("Fieldguide: drawn birds")


def test_genera_have_as_many_species_as_the_page_says():
    assert species.SIBLINGS == 4
    assert "genera of four" in WORDS


@pytest.mark.parametrize("scene", fieldguide.SCENES)
def test_every_background_is_named(scene):
    assert scene in section("Fieldguide: drawn birds")


def test_there_are_fifteen_parts():
    assert len(PART_NAMES) == 15
    assert "CUB's fifteen parts" in WORDS


def test_all_settings_of_a_picture_are_named():
    """Of a picture: per_class only says how many there are."""
    settings = set(inspect.signature(fieldguide.load).parameters) - {"per_class"}
    named = section("Same picture everywhere")
    assert [name for name in settings if name not in named] == []


# Photographs


@pytest.mark.parametrize("name", data.names())
def test_every_data_set_is_on_the_page(name):
    assert f"`{name}`" in PAGE


def test_the_page_names_no_other_data_set():
    quoted = set(re.findall(r"(?<!})`([a-z]+[a-z0-9]*(?:-[a-z]+)?)`", PAGE))
    others = {"small", "train", "val", "test"}  # a backbone and folders
    assert quoted - others - set(data.names()) == set()


@pytest.mark.parametrize("what", ["classes", "train", "test"])
def test_the_numbers_of_cub_are_its_authors(what):
    assert re.search(rf"\b{cub.OFFICIAL['cub'][what]}\b", section("Photographs"))


@pytest.mark.parametrize("format_", store.FORMATS)
def test_every_format_is_named(format_):
    assert format_.lower() in section("Photographs").lower()


def test_a_folder_without_parts_is_divided_as_the_page_says():
    shares = re.search(
        r"(\d+) % of each class are for training, (\d+) % for validation and (\d+) %",
        WORDS,
    )
    parts = split.three_parts([f"{i}.png" for i in range(100)], np.zeros(100, int))
    counts = [int((parts == part).sum()) for part in ("train", "val", "test")]
    assert [int(share) for share in shares.groups()] == counts


# Protocol


def test_validation_is_a_fifth():
    assert split.SHARE == 0.2
    assert "a fifth of each class" in section("Protocol of the splits")


def test_the_sets_with_an_official_validation_part_are_named():
    kept = re.search(r"validation part \(([^)]*)\) keep it", WORDS).group(1)
    official = {
        "aircraft": aircraft.OFFICIAL,
        "cars": cars.OFFICIAL,
        "cub": cub.OFFICIAL["cub"],
        "dogs": dogs.OFFICIAL,
        "flowers": flowers.OFFICIAL,
        "imagewoof": imagewoof.OFFICIAL,
    }
    assert set(re.findall(r"`(\w+)`", kept)) == {
        name for name, counts in official.items() if "val" in counts
    }


def test_the_table_has_every_paper():
    assert set(table()) == set(papers.names())


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("key", papers.names())
def test_the_table_says_what_the_rows_train_on(key, profile):
    rows = papers.get(key).rows_at(profile)
    assert {row.recipes[profile].train_on for row in rows} == {table()[key][profile]}


def test_only_first_stages_keep_their_last_epoch():
    first_stages = {(key, row.after) for key, row in ROWS if row.after}
    keep_last = {
        (key, row.name)
        for key, row in ROWS
        for recipe in row.recipes.values()
        if recipe.train_on == "train" and recipe.keep == "last"
    }
    assert keep_last <= first_stages


def test_tuning_holds_validation_out():
    held_out = set()
    for key in papers.names():
        paper = papers.get(key)
        for tuning in paper.tuning.values():
            for name in tuning.tries:
                for _, recipe, _ in tuning.of(paper.row(name)):
                    held_out.add(recipe.train_on)
    assert held_out == {"train"}


RESULTS = paths.REPOSITORY / "results"
TUNING = sorted((RESULTS / "tuning").rglob("*.json"))


def kept(files: list[Path]) -> list[dict]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_tuning_records_carry_no_test_number():
    assert TUNING
    assert {record["metrics"].get("test") for record in kept(TUNING)} == {None}


def test_tuning_uses_a_seed_that_no_reported_run_uses():
    reported = [f for f in RESULTS.rglob("*.json") if f not in TUNING]
    seeds = {record["seed"] for record in kept(reported)}
    assert seeds.isdisjoint(record["seed"] for record in kept(TUNING))
