"""The official layouts of aircraft, cars, dogs and flowers, written small, with real
pictures and MATLAB files.
"""

import csv
import hashlib
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from fgbook import data
from fgbook.data import dogs, photos
from fgbook.errors import InputError


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    return tmp_path / "data"


def sizes(d) -> list[int]:
    return [len(d.train), len(d.val), len(d.test)]


def draw(path, box, size=(80, 60), banner=0):
    """A black picture, red inside `box` (x1, y1, x2, y2; the right and lower ends
    excluded), white in the last `banner` rows.
    """
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2], 0] = 255
    if banner:
        pixels[-banner:] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    # the name may say .jpg: the content counts
    Image.fromarray(pixels).save(path, format="PNG")


def boxes_fit(d):
    """The drawn rectangle is where the box says, in every picture."""
    for s in (d.train, d.val, d.test):
        for image, box in zip(s.images, s.boxes, strict=True):
            ys, xs = torch.where((image[0] > 127) & (image[1] < 127))
            seen = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert (seen - box).abs().max() <= 1.01


def random_boxes(n, seed=0):
    rng = np.random.default_rng(seed)
    corner, extent = rng.integers(0, 15, (n, 2)), rng.integers(15, 22, (n, 2))
    return np.concatenate([corner, corner + extent], 1)


def write_aircraft(root):
    variants = ["707-320", "737-700", "F/A-18", "DR-400"]
    lists = {"variants": variants, "images_box": []}
    number = 0
    for part in ("train", "val", "test"):
        lists[f"images_variant_{part}"] = []
        for v, box in zip(range(8), random_boxes(8, len(part)), strict=True):
            number += 7
            draw(root / "images" / f"{number:07}.jpg", box, banner=20)
            lists[f"images_variant_{part}"].append(f"{number:07} {variants[v % 4]}")
            lists["images_box"].append(
                f"{number:07} {box[0] + 1} {box[1] + 1} {box[2]} {box[3]}"
            )
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_aircraft(places):
    root = places / "aircraft" / "fgvc-aircraft-2013b" / "data"
    write_aircraft(root)
    d = data.load("aircraft", 40)
    assert d.classes == ["707-320", "737-700", "F/A-18", "DR-400"]
    for name in ("train", "val", "test"):
        listed = [
            line.split(" ", 1)
            for line in (root / f"images_variant_{name}.txt").read_text().splitlines()
        ]
        s = d.split(name)
        assert [
            (f"{f[:-4]}", d.classes[c]) for f, c in zip(s.files, s.labels, strict=True)
        ] == [tuple(row) for row in listed]
        assert (s.images[:, 1] == 0).all()  # nothing of the white banner is left
    boxes_fit(d)
    report = data.check("aircraft")
    # only the four counts differ
    assert len(report["problems"]) == 4
    assert report["fingerprint"] == d.fingerprint
    (root / "images_box.txt").write_text("0000007 1 2 3\n")
    with pytest.raises(InputError, match="0000007.jpg"):
        data.load("aircraft", 40)
    (root / "images_box.txt").unlink()
    with pytest.raises(InputError, match="images_box.txt is missing"):
        data.load("aircraft", 40)


def write_cars(root, labelled=True, first="class"):
    names = np.array(
        [
            "AM General Hummer SUV 2000",
            "Ram C/V Cargo Van Minivan 2012",
            "smart fortwo Convertible 2012",
        ],
        object,
    )
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    for part, n in (("train", 30), ("test", 12)):
        fields = [(f"bbox_{side}", object) for side in ("x1", "y1", "x2", "y2")] + [
            (first, object),
            ("fname", object),
        ]
        rows = np.zeros((1, n), fields)
        for i, box in enumerate(random_boxes(n, n)):
            draw(root / f"cars_{part}" / f"{i + 1:05}.jpg", box)
            rows[0, i] = (
                float(box[0] + 1),
                float(box[1] + 1),
                float(box[2]),
                float(box[3]),
                float(i % 3 + 1),
                f"{i + 1:05}.jpg",
            )
        savemat(
            (
                root / "devkit" / "cars_train_annos.mat"
                if part == "train"
                else root / "cars_test_annos_withlabels.mat"
            ),
            {"annotations": rows},
        )


def test_cars_with_the_development_kit(places):
    with pytest.raises(
        InputError,
        match="official link is dead.*devkit.*cars_test_annos_withlabels.mat",
    ):
        data.load("cars", 40)
    write_cars(places / "cars")
    d = data.load("cars", 40)
    assert d.classes[1] == "Ram C/V Cargo Van Minivan 2012"
    assert sizes(d) == [24, 6, 12]
    for s in (d.train, d.val, d.test):
        for file, label in zip(s.files, s.labels.tolist(), strict=True):
            assert int(file[-9:-4]) % 3 == (label + 1) % 3
    assert {f.split("/")[0] for f in d.train.files + d.val.files} == {"cars_train"}
    assert {f.split("/")[0] for f in d.test.files} == {"cars_test"}
    boxes_fit(d)
    (places / "cars" / "cars_test_annos_withlabels.mat").rename(
        places / "cars" / "devkit" / "cars_test_annos_withlabels.mat"
    )
    assert data.load("cars", 40).fingerprint == d.fingerprint
    (places / "cars" / "devkit" / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(InputError, match="cars_test_annos_withlabels.mat is missing"):
        data.load("cars", 40)
    (places / "cars" / "devkit" / "cars_test_annos_withlabels.mat").write_bytes(
        b"MATLAB 5.0 MAT-file, but not really"
    )
    with pytest.raises(InputError, match="cannot be read as a MATLAB file"):
        data.load("cars", 40)


def test_cars_without_labels_are_refused(places):
    write_cars(places / "cars", first="other")
    with pytest.raises(InputError, match="cars_train_annos.mat lacks"):
        data.load("cars", 40)


def test_cars_as_class_folders(places):
    for part, n in (("train", 5), ("test", 2)):
        for name in ("Acura TL Sedan 2012", "Ram C-V Cargo Van Minivan 2012"):
            for i in range(n):
                folder = places / "cars/car_data/car_data" / part / name
                draw(folder / f"{i}.jpg", (i, 1, 9, 9))
    d = data.load("cars", 16)
    assert d.classes == ["Acura TL Sedan 2012", "Ram C-V Cargo Van Minivan 2012"]
    assert sizes(d) == [8, 2, 4]
    assert d.test.boxes is None


@pytest.mark.parametrize("name", ["cars98", "imagewoof10"])
def test_listed_folders_must_hold_what_their_list_names(places, name):
    root, rows = places / name, []
    for part, n in (("train", 5), ("val", 2), ("test", 2)):
        for c in "ab":
            for i in range(n):
                draw(root / part / c / f"{i}.jpg", (i, 1, 9, 9))
                rows.append((c, f"{i}.jpg", part))
    with pytest.raises(InputError, match=f"data set {name} is not in"):
        data.load(name, 16)
    with open(root / "split.csv", "w", newline="") as file:
        csv.writer(file).writerows([("class", "file", "split"), *rows])
    d = data.load(name, 16)
    assert sizes(d) == [10, 4, 4]
    assert data.check(name)["problems"] == []
    whole = (root / "split.csv").read_text()
    (root / "split.csv").write_text(whole + "a,2.jpg\n")
    with pytest.raises(InputError, match="must have the columns class"):
        data.load(name, 16)
    (root / "split.csv").write_text(whole)
    (root / "test" / "b" / "1.jpg").rename(root / "test" / "b" / "7.jpg")
    with pytest.raises(InputError, match="test/b/1.jpg is not there"):
        data.load(name, 16)
    (root / "test" / "b" / "7.jpg").rename(root / "test" / "b" / "1.jpg")
    draw(root / "train" / "a" / "extra.jpg", (0, 0, 2, 2))
    with pytest.raises(InputError, match="train/a/extra.jpg is not listed"):
        data.load(name, 16)


def write_dogs(root, breeds, each, boxes=True):
    lists = {"train": [], "test": []}
    for b in range(breeds):
        breed = f"n{2085620 + b:08}-Breed_{b}"
        for i, box in enumerate(random_boxes(each[b], b)):
            name = f"{breed}/{breed[:9]}_{i}"
            lists["train" if i < each[b] * 0.6 else "test"].append(f"{name}.jpg")
            if not boxes:
                continue
            draw(root / "Images" / f"{name}.jpg", box)
            (root / "Annotation" / breed).mkdir(parents=True, exist_ok=True)
            half = (box[0] + box[2]) // 2  # two dogs side by side
            found = (
                [(box[0], box[1], half, box[3]), (half, box[1], box[2], box[3])]
                if i % 2
                else [box]
            )
            note = ElementTree.Element("annotation")
            for dog in found:
                node = ElementTree.SubElement(note, "object")
                node = ElementTree.SubElement(node, "bndbox")
                sides = ("xmin", "ymin", "xmax", "ymax")
                for side, value in zip(sides, dog, strict=True):
                    ElementTree.SubElement(node, side).text = str(value)
            ElementTree.ElementTree(note).write(root / "Annotation" / name)
    root.mkdir(parents=True, exist_ok=True)
    for part, files in lists.items():
        cells = np.empty((len(files), 1), object)
        cells[:, 0] = files
        savemat(
            root / f"{part}_list.mat",
            {"file_list": cells, "labels": np.zeros((len(files), 1))},
        )


def test_dogs(places):
    root = places / "dogs"
    write_dogs(root, 3, [10, 10, 10])
    d = data.load("dogs", 40)
    assert d.num_classes == 3
    assert sizes(d) == [15, 3, 12]
    for s in (d.train, d.test):
        for file, label in zip(s.files, s.labels, strict=True):
            assert file.startswith(d.classes[label])
    assert {int(f[:-4].rsplit("_", 1)[1]) for f in d.test.files} == {6, 7, 8, 9}
    boxes_fit(d)
    note = root / "Annotation" / d.test.files[0][:-4]
    for text in (
        "<annotation></annotation>",
        "no xml",
        "<annotation><bndbox><xmin>1</xmin></bndbox></annotation>",
    ):
        note.write_text(text)
        with pytest.raises(InputError, match=note.name):
            data.load("dogs", 40)
    shutil.rmtree(root / "Annotation")
    assert data.load("dogs", 40).test.boxes is None


def test_the_21_breeds_follow_their_rule(places):
    """On lists alone, of 30 breeds with 150 to 252 pictures as in Stanford Dogs, and
    some with more.
    """
    rng = np.random.default_rng(0)
    each = [int(n) for n in rng.integers(150, 253, 28)] + [252, 300]
    write_dogs(places / "dogs", 30, each, boxes=False)
    found = dogs.twenty_one()
    names = [f"n{2085620 + b:08}-Breed_{b}" for b in range(30)]
    expected = sorted(sorted(range(30), key=lambda b: (-each[b], names[b]))[:21])
    assert found.classes == [names[b] for b in expected]
    assert (found.count("test"), found.count("val")) == (210, 850)
    assert found.count("train") <= 4260
    for i, b in enumerate(expected):
        order = sorted(
            (f"{names[b]}/{names[b][:9]}_{k}.jpg" for k in range(each[b])),
            key=lambda f: hashlib.sha256(f.encode()).digest(),
        )
        own = {
            part: {
                f
                for f, c, p in zip(found.files, found.labels, found.splits, strict=True)
                if c == i and p == part
            }
            for part in ("train", "val", "test")
        }
        most = 40 + (i < 10)
        assert own["test"] == set(order[:10])
        assert own["val"] == set(order[10 : 10 + most])
        assert own["train"] == set(order[10 + most : 10 + most + 202 + (i < 18)])
    assert any(
        len({f for f, c in zip(found.files, found.labels, strict=True) if c == i})
        < each[b]
        for i, b in enumerate(expected)
    )  # the cap was needed
    write_dogs(places / "dogs", 20, each[:20], boxes=False)
    with pytest.raises(InputError, match="needs 21 breeds"):
        dogs.twenty_one()


def test_flowers(places):
    root = places / "flowers"
    labels = np.array([[i % 4 + 1 for i in range(40)]])
    order = np.random.default_rng(0).permutation(40) + 1
    parts = {"trnid": order[:12], "valid": order[12:20], "tstid": order[20:]}
    for i in range(40):
        draw(root / "jpg" / f"image_{i + 1:05}.jpg", (i, 1, 60, 9))
    savemat(root / "imagelabels.mat", {"labels": labels})
    savemat(root / "setid.mat", {name: ids[None] for name, ids in parts.items()})
    d = data.load("flowers", 16)
    assert d.classes == ["001", "002", "003", "004"]
    for name, ids in zip(("train", "val", "test"), parts.values(), strict=True):
        s = d.split(name)
        assert s.files == [f"image_{i:05}.jpg" for i in ids]
        assert s.labels.tolist() == [(i - 1) % 4 for i in ids]
    savemat(
        root / "setid.mat",
        {**{name: ids[None] for name, ids in parts.items()}, "tstid": np.array([[41]])},
    )
    with pytest.raises(InputError, match="setid.mat lists picture 41"):
        data.load("flowers", 16)
    savemat(root / "setid.mat", {"trnid": order})
    with pytest.raises(InputError, match="no variable 'valid'"):
        photos.read_mat(root / "setid.mat", "trnid", "valid")


def test_imagewoof_keeps_its_test_part_and_cuts_validation(places):
    for part, n in (("train", 10), ("val", 4)):
        for c in ("n02086240", "n02087394"):
            for i in range(n):
                draw(places / "imagewoof2-320" / part / c / f"{i}.JPEG", (i, 1, 30, 9))
    (places / "imagewoof2-320" / "noisy_imagewoof.csv").write_text("path\n")
    d = data.load("imagewoof", 16)
    assert sizes(d) == [16, 4, 8]
    assert {f.split("/")[0] for f in d.test.files} == {"val"}
