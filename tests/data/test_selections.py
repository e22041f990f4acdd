"""Selections are made from official layouts, and their lists are those of our runs."""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fgbook import data
from fgbook.data import fetch, selections
from fgbook.errors import InputError

OURS = os.environ.get("FGBOOK_DATA")  # as it is before a test changes it


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(selections, "LISTS", tmp_path)
    return tmp_path / "data"


def draw(path: Path, size: tuple[int, int], box: tuple[int, ...] | None = None):
    """A black picture, red inside the box."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    if box:
        pixels[box[1] : box[3], box[0] : box[2], 0] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")  # whatever the name says


def list_as(name: str, rows: list[tuple[str, str, str]], place: Path) -> None:
    with open(place / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("class", "file", "split"), *rows])


def write_kit(root: Path, boxes: list[tuple[int, ...]]) -> None:
    """Cars of two models in turn, 600 x 300 pixels, each red in its box."""
    (root / "devkit").mkdir(parents=True)
    names = np.array(["One 2000", "Two 2001"], object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})
    fields = [f"bbox_{side}" for side in ("x1", "y1", "x2", "y2")]
    fields += ["class", "fname"]
    rows = np.zeros((1, len(boxes)), [(field, object) for field in fields])
    for place, box in enumerate(boxes):
        file = f"{place + 1:05}.jpg"
        for part in ("train", "test"):
            draw(root / f"cars_{part}" / file, (600, 300), box)
        left, top, right, bottom = box
        label = float(place % 2 + 1)
        rows[0, place] = (left + 1.0, top + 1.0, right, bottom, label, file)
    savemat(root / "devkit/cars_train_annos.mat", {"annotations": rows})
    savemat(root / "cars_test_annos_withlabels.mat", {"annotations": rows})


BOXES = [(100, 50, 580, 290), (0, 0, 90, 60), (310, 10, 400, 200), (5, 7, 605, 99)] * 4


def test_cars_are_cut_to_their_boxes(places, tmp_path):
    write_kit(places / "cars", BOXES)
    rows = []
    for place in range(len(BOXES) - 2):  # the last two are not in the list
        label = ("001.One", "003.Two")[place % 2]
        part = "test" if place >= 8 else "train"
        rows.append((label, f"{place + 1:05}.jpg", part))
    list_as("cars98", rows, tmp_path)

    place = selections.make("cars98")
    assert place == places / "cars98"
    for label, file, part in rows:
        picture = Image.open(place / part / label / file)
        left, top, right, bottom = BOXES[int(file[:5]) - 1]
        wide, high = min(right, 600) - left, bottom - top
        scale = min(1, 240 / max(wide, high))
        assert picture.format == "JPEG"
        assert picture.size == (round(scale * wide), round(scale * high))
        assert np.asarray(picture)[..., 0].min() > 240  # nothing but the box
    made = data.load("cars98", 16)
    assert made.classes == ["001.One", "003.Two"]
    assert [len(made.train), len(made.val), len(made.test)] == [6, 2, 6]
    assert selections.make("cars98") == place  # and left as it is


def test_dogs_are_found_in_both_parts_and_made_smaller(places, tmp_path):
    rows = []
    for label in ("n1", "n2"):
        for i in range(9):
            part = "val" if i % 3 == 0 else "train"
            draw(places / f"imagewoof/{part}/{label}/{label}_{i}.JPEG", (427, 320))
            wanted = ("train", "val", "test")[i % 3]
            rows.append((f"{label}-Breed", f"{label}_{i}.jpg", wanted))
    list_as("imagewoof10", rows, tmp_path)
    place = selections.make("imagewoof10")
    sizes = {Image.open(file).size for file in place.glob("*/*/*.jpg")}
    assert sizes == {(299, 224)}
    made = data.load("imagewoof10", 16)
    assert [len(made.train), len(made.val), len(made.test)] == [6, 6, 6]

    torn = places / "imagewoof/train/n2/n2_8.JPEG"
    whole = torn.read_bytes()
    place.rename(places / "other")
    torn.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="n2_8.JPEG cannot be read"):
        selections.make("imagewoof10")
    torn.write_bytes(whole)
    place.mkdir()  # left behind by somebody
    with pytest.raises(InputError, match="not all of data set imagewoof10"):
        selections.make("imagewoof10")
    place.rmdir()

    list_as("imagewoof10", [*rows, ("n1-Breed", "n1_77.jpg", "test")], tmp_path)
    with pytest.raises(InputError, match="lacks 1 pictures .* such as n1_77"):
        selections.make("imagewoof10")
    assert sorted(p.name for p in places.iterdir()) == ["imagewoof", "other"]


def test_what_is_missing_is_fetched(places, monkeypatch):
    def offline(name: str) -> Path:
        raise InputError(f"{name} cannot be had")

    monkeypatch.setattr(fetch, "get", offline)
    with pytest.raises(InputError, match="imagewoof cannot be had"):
        selections.make("imagewoof10")
    with pytest.raises(InputError, match="cars cannot be had"):
        selections.make("cars98")


def test_cars_without_boxes_are_refused(places):
    for part in ("train", "test"):
        for label in "ab":
            for i in range(5):
                draw(places / f"cars/{part}/{label}/{part}{i}.jpg", (40, 30))
    with pytest.raises(InputError, match="without their boxes"):
        selections.make("cars98")


def test_the_lists_are_whole():
    cars, dogs = selections.read("cars98"), selections.read("imagewoof10")
    assert len({picture.label for picture in cars}) == 98
    assert {int(picture.label[:3]) % 2 for picture in cars} == {1}
    assert len({picture.file for picture in cars}) == len(cars) == 4108
    each = Counter((picture.label, picture.part) for picture in dogs)
    assert len(each) == 30
    assert {part: each[label, part] for label, part in each} == {
        "train": 150,
        "val": 30,
        "test": 30,
    }


@pytest.mark.parametrize("name", selections.SELECTIONS)
def test_the_lists_are_those_of_the_pictures_that_runs_saw(name):
    if not OURS or not (Path(OURS) / name / "split.csv").is_file():
        pytest.skip(f"needs the photographs of {name}")
    with open(Path(OURS) / name / "split.csv", newline="", encoding="utf-8") as file:
        rows = [
            (row["class"], row["file"], row["split"]) for row in csv.DictReader(file)
        ]
    assert rows == [tuple(picture) for picture in selections.read(name)]
