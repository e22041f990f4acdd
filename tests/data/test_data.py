"""Data sets of real files: official layouts, folders, splits, fingerprints, what is
refused.
"""

import hashlib
import shutil
import unicodedata
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from fgbook import data
from fgbook.data import cub, fieldguide, folder, photos, split
from fgbook.data.dataset import Split, concatenate
from fgbook.errors import InputError


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("FGBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FGBOOK_RUNS", str(tmp_path / "runs"))
    return tmp_path / "data"


def sizes(d) -> list[int]:
    return [len(d.train), len(d.val), len(d.test)]


def save(path, seed, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    ).save(path)


def write_cub(root, classes=(1, 2, 50, 51), each=12):
    """A small data set in the layout of CUB-200-2011, with numbers that skip: each
    picture is black with a green box and a red dot, where its lists say.
    """
    rng = np.random.default_rng(0)
    lists = {
        name: []
        for name in (
            "images",
            "image_class_labels",
            "train_test_split",
            "bounding_boxes",
            "classes",
        )
    }
    parts, number = [], 3
    for c in classes:
        lists["classes"].append(f"{c} {c:03}.Bird_{c}")
        for k in range(each):
            number += int(rng.integers(1, 5))
            w, h = (int(v) for v in rng.integers(60, 120, 2))
            bw, bh = (int(v) for v in rng.integers(20, 40, 2))
            x, y = int(rng.integers(0, w - bw)), int(rng.integers(0, h - bh))
            px, py = x + bw // 4, y + bh // 2
            pixels = np.zeros((h, w, 3), np.uint8)
            pixels[y : y + bh, x : x + bw, 1] = 255
            pixels[py - 3 : py + 4, px - 3 : px + 4] = (255, 0, 0)
            file = f"{c:03}.Bird_{c}/Bird_{number}_{k}.png"
            (root / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / "images" / file)
            lists["images"].append(f"{number} {file}")
            lists["image_class_labels"].append(f"{number} {c}")
            lists["train_test_split"].append(f"{number} {int(k % 3 > 0)}")
            lists["bounding_boxes"].append(f"{number} {x}.0 {y}.0 {bw}.0 {bh}.0")
            parts += [
                f"{number} {p} {px}.5 {py}.5 1" if p == 2 else f"{number} {p} 0.0 0.0 0"
                for p in range(1, 16)
            ]
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    for place, lines in (
        ("parts/part_locs.txt", parts),
        (
            "attributes/class_attribute_labels_continuous.txt",
            [f"{c} 0.0 {100 - c}" for c in classes],
        ),
    ):
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).write_text("\n".join(lines) + "\n")


# CUB


def test_cub_layout_splits_and_ground_truth(places):
    write_cub(places / "cub")
    d = data.load("cub", 64)
    assert d.classes == ["001.Bird_1", "002.Bird_2", "050.Bird_50", "051.Bird_51"]
    assert d.size == 64
    # 8 training pictures a class, 2 of them validation
    assert sizes(d) == [24, 8, 16]
    listed = dict(
        line.split()
        for line in (places / "cub" / "images.txt").read_text().splitlines()
    )
    flag = dict(
        line.split()
        for line in (places / "cub" / "train_test_split.txt").read_text().splitlines()
    )
    assert set(d.test.files) == {listed[i] for i in listed if flag[i] == "0"}
    assert set(d.train.files) | set(d.val.files) == {
        listed[i] for i in listed if flag[i] == "1"
    }
    for s in (d.train, d.val, d.test):
        assert s.images.shape == (len(s), 3, 64, 64)
        assert s.images.dtype == torch.uint8
        assert s.part_boxes is None
        assert s.parts.shape == (len(s), 15, 3)
        assert s.parts[:, :, 2].sum(1).eq(1).all()
        for i in range(len(s)):
            assert s.files[i].startswith(d.classes[s.labels[i]])
            number = int(d.classes[s.labels[i]][:3])
            assert d.class_attributes[s.labels[i]].tolist() == pytest.approx(
                [number / 100, 0, 1 - number / 100]
            )
            # the picture itself says where its box and part are
            ys, xs = torch.where((s.images[i, 1] > 127) | (s.images[i, 0] > 127))
            seen = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert (seen - s.boxes[i]).abs().max() <= 1.01
            ys, xs = torch.where(s.images[i, 0] > 127)
            middle = torch.stack([xs.float().mean(), ys.float().mean()]) + 0.5
            assert (middle - s.parts[i, 1, :2]).abs().max() <= 1
    half = data.load("cub", 32)
    assert half.fingerprint == d.fingerprint
    torch.testing.assert_close(half.test.boxes * 2, d.test.boxes)


def test_validation_rule_against_its_words(places):
    write_cub(places / "cub")
    d = data.load("cub", 16)
    for c in range(4):
        official = sorted(
            s.files[i]
            for s in (d.train, d.val)
            for i in range(len(s))
            if s.labels[i] == c
        )
        order = sorted(official, key=lambda f: hashlib.sha256(f.encode()).digest())
        assert {
            d.val.files[i] for i in range(len(d.val)) if d.val.labels[i] == c
        } == set(order[: round(Fraction(len(official), 5))])


@pytest.mark.parametrize(
    "n, expected", [(1, 0), (2, 1), (3, 1), (7, 1), (8, 2), (30, 6)]
)
def test_validation_takes_a_fifth_and_never_the_last(n, expected):
    files = [f"c/{i}" for i in range(n)]
    chosen = split.validation(files, np.zeros(n, int))
    assert chosen.sum() == expected
    backwards = split.validation(files[::-1], np.zeros(n, int))
    assert (backwards[::-1] == chosen).all()


def test_cub50_from_either_source_agrees_on_the_split(places):
    write_cub(places / "cub")
    whole, part = data.load("cub", 16), data.load("cub50", 16)
    assert part.num_classes == 3
    assert part.class_attributes.shape == (3, 3)
    for name in ("train", "val", "test"):
        assert part.split(name).files == [
            f for f in whole.split(name).files if not f.startswith("051")
        ]
    write_cub(places / "cub50", classes=(1, 2, 50))
    assert data.path("cub50") == places / "cub50" / "images"
    assert data.load("cub50", 16).val.files == part.val.files
    shutil.rmtree(places / "cub50")
    (places / "cub").rename(places / "CUB_200_2011")
    assert data.load("cub", 16).fingerprint == whole.fingerprint


def test_fingerprint_sees_every_change_and_nothing_else(places):
    write_cub(places / "cub")
    first = data.load("cub", 16).fingerprint

    def changed(file: str, old: str, new: str) -> str:
        path = places / "cub" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        found = data.load("cub", 16).fingerprint
        path.write_text(text)
        return found

    seen = [first]
    for file, old, new in [
        ("classes.txt", "Bird_2", "Bird_two"),
        ("bounding_boxes.txt", ".0\n", ".5\n"),
        ("train_test_split.txt", " 0\n", " 1\n"),
        ("image_class_labels.txt", " 1\n", " 2\n"),
        ("parts/part_locs.txt", ".5 1", ".5 0"),
        ("attributes/class_attribute_labels_continuous.txt", "0.0", "7.0"),
    ]:
        seen.append(changed(file, old, new))
    assert len(set(seen)) == len(seen)
    shutil.copytree(places / "cub", places / "copy")
    shutil.rmtree(places / "cub")
    (places / "copy").rename(places / "cub")
    assert data.load("cub", 16).fingerprint == first
    image = next((places / "cub" / "images").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"\0")
    assert data.load("cub", 16).fingerprint != first


def test_what_cub_refuses(places):
    with pytest.raises(
        InputError, match="fgbook data get cub.*CUB_200_2011.tgz.*images.txt"
    ):
        data.load("cub50", 16)
    root = places / "cub"
    write_cub(root)

    def refused(file: str, text: str | None, message: str):
        before = (root / file).read_bytes()
        (root / file).unlink() if text is None else (root / file).write_text(text)
        with pytest.raises(InputError, match=message):
            data.load("cub", 16)
        (root / file).write_bytes(before)

    lines = {
        name: (root / f"{name}.txt").read_text().splitlines(True)
        for name in ("images", "image_class_labels", "bounding_boxes", "classes")
    }
    refused("classes.txt", None, "classes.txt is missing")
    refused(
        "bounding_boxes.txt",
        "".join(lines["bounding_boxes"][1:]),
        "bounding_boxes.txt says nothing about picture",
    )
    refused(
        "image_class_labels.txt",
        "".join(lines["image_class_labels"][:-1]),
        "image_class_labels.txt says nothing about picture",
    )
    refused("bounding_boxes.txt", "1 2 3\n", r"bounding_boxes.txt, line 1: '1 2 3'")
    refused(
        "bounding_boxes.txt",
        "".join(lines["bounding_boxes"]).replace(
            lines["bounding_boxes"][4].split(maxsplit=1)[1], "1.0 1.0 0.0 9.0\n"
        ),
        "without area",
    )
    refused(
        "image_class_labels.txt",
        "".join(lines["image_class_labels"]).replace(" 50\n", " fifty\n"),
        "image_class_labels.txt says nothing",
    )
    refused(
        "classes.txt",
        "".join(lines["classes"][:-1]),
        "class 51, which classes.txt lacks",
    )
    refused(
        "attributes/class_attribute_labels_continuous.txt",
        "0 0 0\n",
        "1 rows for the 4 classes",
    )
    refused(
        "attributes/class_attribute_labels_continuous.txt",
        "many few\n",
        "not a table of numbers",
    )
    refused(
        "images.txt",
        "".join(lines["images"]) + "9999 gone.png\n",
        "says nothing about picture 9999",
    )
    refused(
        "parts/part_locs.txt",
        f"{lines['images'][0].split()[0]} 16 1.0 1.0 1\n",
        "part_locs.txt.*part 16",
    )
    broken = root / "images" / lines["images"][5].split()[1]
    content = broken.read_bytes()
    broken.unlink()
    with pytest.raises(InputError, match=broken.name):
        data.load("cub", 16)
    for rubbish in (b"no picture", content[: len(content) // 2]):
        broken.write_bytes(rubbish)
        with pytest.raises(InputError, match=broken.name):
            data.load("cub", 16)
    broken.write_bytes(content)
    assert len(data.load("cub", 16).test) == 16


# Folders


def test_a_plain_folder_is_divided_by_the_rule(tmp_path):
    names = [
        "with space",
        "Ünïcödé 鳥",
        "dots..in..it",
        "x" * 250,
        "(brackets) & 'quotes'",
        "train",
    ]
    root = tmp_path / "my birds"
    for c, name in enumerate(names):
        for i in range(10):
            save(root / name / f"{i} é.{('jpg', 'png', 'JPEG')[i % 3]}", 100 * c + i)
    (root / "train" / "notes.txt").write_text("not a picture")
    (root / ".cache").mkdir()
    (root / "train" / "._0.jpg").write_bytes(b"resource fork")
    d = data.load(f"folder:{root}", 16)
    assert d.classes == sorted(names)
    assert sizes(d) == [36, 12, 12]
    for c, name in enumerate(d.classes):
        order = sorted(
            (f"{name}/{i} é.{('jpg', 'png', 'JPEG')[i % 3]}" for i in range(10)),
            key=lambda f: hashlib.sha256(f.encode()).digest(),
        )
        for s, expected in (
            (d.test, order[:2]),
            (d.val, order[2:4]),
            (d.train, order[4:]),
        ):
            assert sorted(
                f for f, label in zip(s.files, s.labels, strict=True) if label == c
            ) == sorted(expected)
    moved = tmp_path / "elsewhere"
    root.rename(moved)
    assert data.load(f"folder:{moved}", 16).fingerprint == d.fingerprint


def test_names_that_differ_only_in_unicode_form_are_split_alike():
    files = [f"é/{i}" for i in range(20)]
    apart = [unicodedata.normalize("NFD", f) for f in files]
    assert apart != files
    labels = np.zeros(20, int)
    same = split.three_parts(files, labels) == split.three_parts(apart, labels)
    assert same.all()


def test_given_splits_are_kept(tmp_path):
    def write(*parts):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        for p, part in enumerate(parts):
            for c in "ab":
                for i in range(5):
                    save(
                        tmp_path / "set" / part / c / "deeper" / f"{i}.png",
                        p * 100 + i + 10 * ord(c),
                    )
        d = data.load(f"folder:{tmp_path / 'set'}", 16)
        return {
            s: sorted(f.split("/")[0] for f in d.split(s).files)
            for s in ("train", "val", "test")
        }, d

    found, d = write("train", "val", "test")
    assert found == {s: [s] * 10 for s in ("train", "val", "test")}
    assert d.classes == ["a", "b"]
    found, d = write("Train", "Test")
    assert found == {
        "train": ["Train"] * 8,
        "val": ["Train"] * 2,
        "test": ["Test"] * 10,
    }
    order = sorted(
        (f"Train/a/deeper/{i}.png" for i in range(5)),
        key=lambda f: hashlib.sha256(f.encode()).digest(),
    )
    assert d.val.files[0] == order[0]
    found, _ = write("train", "valid")
    assert found == {
        "train": ["train"] * 8,
        "val": ["train"] * 2,
        "test": ["valid"] * 10,
    }


def test_what_folders_refuse(tmp_path):
    root = tmp_path / "set"

    def refused(message, *files):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for i, file in enumerate(files):
            save(root / file, i)
        with pytest.raises(InputError, match=message):
            data.load(f"folder:{root}", 16)

    both = [
        f"{s}/{c}/{i}.png" for s in ("train", "test") for c in "ab" for i in range(3)
    ]
    refused("no pictures in class folders")
    refused("no pictures in class folders", "loose.png")
    refused("only one class, 'a'", *(f"a/{i}.png" for i in range(9)))
    refused("only one class, 'a'", *(f for f in both if "/a/" in f))
    refused("no test folder", *(f for f in both if f.startswith("train")))
    refused(r"class\(es\) 'c' of .* no training pictures", *both, "test/c/0.png")
    refused(
        "of the three that are needed",
        "a/0.png",
        "a/1.png",
        "b/0.png",
        "b/1.png",
        "b/2.png",
    )
    shutil.rmtree(root)
    for file in both:
        save(root / file, 1)
    shutil.rmtree(root / "test")
    (root / "test" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="the test split.*no pictures"):
        data.load(f"folder:{root}", 16)
    (root / "val" / "a").mkdir(parents=True)
    shutil.copytree(root / "train", root / "test", dirs_exist_ok=True)
    with pytest.raises(InputError, match="val split.*empty"):
        data.load(f"folder:{root}", 16)
    with pytest.raises(InputError, match="is not a folder"):
        data.load(f"folder:{root / 'nowhere'}", 16)
    with pytest.raises(InputError, match="needs a path"):
        data.load("folder:", 16)


def test_two_folders_of_the_same_name_do_not_evict_each_other(tmp_path):
    for place in "xy":
        for c in "ab":
            for i in range(3):
                save(
                    tmp_path / place / "birds" / c / f"{i}.png",
                    1000 * ord(place) + 10 * ord(c) + i,
                )
        data.load(f"folder:{tmp_path / place / 'birds'}", 8)
    assert len([f for f in (tmp_path / "runs" / "store").iterdir() if f.is_dir()]) == 2


# Check, names


def test_check_counts_decodes_and_finds_duplicates(places):
    write_cub(places / "cub")
    report = data.check("cub")
    assert report["images"] == {"train": 24, "val": 8, "test": 16}
    assert report["classes"] == 4
    assert report["duplicates"] == []
    assert report["fingerprint"] == data.load("cub", 16).fingerprint
    # the small set is not the official one: its three numbers are said to differ, and
    # nothing else is wrong
    assert [sentence.split(",")[0] for sentence in report["problems"]] == [
        "classes: 4",
        "train: 32",
        "test: 16",
    ]
    d = data.load("cub", 16)
    root = data.path("cub")
    shutil.copy(root / d.train.files[3], root / d.test.files[5])
    (root / d.val.files[0]).write_bytes(b"rubbish")
    (root / d.val.files[1]).unlink()
    report = data.check("cub")
    assert report["duplicates"] == [(d.train.files[3], d.test.files[5])]
    assert report["fingerprint"] is None
    for file in d.val.files[:2]:
        assert any(str(root / file) in sentence for sentence in report["problems"])
    assert len(report["problems"]) == 5


def test_names():
    assert {"fieldguide", "cub", "cub50", "folder:PATH"} <= set(data.names())
    with pytest.raises(InputError, match="did you mean 'cub50'"):
        data.load("cub_50", 16)
    for ask in (data.path, data.check):
        with pytest.raises(InputError, match="unknown data set 'brids'"):
            ask("brids")
    for name in data.names():
        if name not in (*data.DRAWN, "folder:PATH"):
            # missing data are said under the name to get
            with pytest.raises(InputError, match=name.removesuffix("-cropped")):
                data.load(name, 16)


def test_loading_again_reads_no_picture(places, monkeypatch):
    write_cub(places / "cub")
    first = data.load("cub", 16)

    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(photos.store, "decode", never)
    again = data.load("cub", 16)
    assert torch.equal(first.train.images, again.train.images)
    assert cub.photos("cub").files == folder_order(again)


def folder_order(d):
    return d.train.files + d.val.files + d.test.files


def test_size_must_be_positive(tmp_path):
    for c in "ab":
        for i in range(3):
            save(tmp_path / "set" / c / f"{i}.png", i)
    with pytest.raises(InputError, match="at least 1 pixel"):
        photos.load(folder.photos(tmp_path / "set"), 0)


def test_train_and_val_are_joined_without_a_copy_where_they_follow_each_other():
    stored = torch.arange(5 * 3 * 2 * 2, dtype=torch.uint8).view(5, 3, 2, 2)
    first, second = (
        Split(
            stored[part], torch.zeros(len(stored[part]), dtype=torch.int64), list(names)
        )
        for part, names in ((slice(0, 3), "abc"), (slice(3, 5), "de"))
    )
    joined = concatenate(first, second)
    assert joined.images.data_ptr() == stored.data_ptr()
    assert (joined.images == stored).all()
    assert joined.files == list("abcde")
    swapped = concatenate(second, first)
    assert (swapped.images == torch.cat([stored[3:], stored[:3]])).all()
    assert swapped.images.data_ptr() != stored.data_ptr()
    with_boxes = Split(stored[3:], second.labels, second.files, boxes=torch.zeros(2, 4))
    # ground truth that half of the images lack is none
    assert concatenate(first, with_boxes).boxes is None


# ---- a data set as a folder of pictures


@pytest.fixture(scope="module")
def drawn():
    return fieldguide.load(32, species=3, per_class=(3, 1, 2))


def test_a_written_set_is_read_back_pixel_by_pixel(drawn, tmp_path):
    place = folder.write(drawn, tmp_path / "new" / "my birds")
    again = data.load(f"folder:{place}", 32)
    assert again.classes == sorted(drawn.classes)
    seen = 0
    for part in ("train", "val", "test"):
        split = again.split(part)
        for image, label, file in zip(
            split.images, split.labels, split.files, strict=True
        ):
            name, _, rest = file.partition("/")
            assert name == again.classes[label]
            of, _, number = rest.removesuffix(".png").partition("-")
            there = drawn.split(of)
            assert drawn.classes[there.labels[int(number)]] == name
            assert torch.equal(image, there.images[int(number)])
            seen += 1
    assert seen == 3 * (3 + 1 + 2)


def test_a_folder_that_is_there_stays_as_it_is(drawn, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.txt").write_text("kept")
    assert folder.write(drawn, tmp_path / "mine") == tmp_path / "mine"
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "one.txt"]


def test_where_no_pictures_can_be_written_one_sentence_says_so(drawn, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write pictures to .*name another"):
        folder.write(drawn, tmp_path / "file" / "birds")


def test_a_broken_off_writing_leaves_nothing(drawn, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(InputError, match="No space left"):
        folder.write(drawn, tmp_path / "birds")
    assert list(tmp_path.iterdir()) == []
