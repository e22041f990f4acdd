"""Small data that several test files make: pictures in class folders, in CUB's layout,
and images with one object each.
"""

import html
import html.parser
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgbook import data
from fgbook.data.dataset import DataSet, Split
from fgbook.evidence import runs

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def folder(root: Path, names=("red", "blue"), count: int | dict[str, int] = 12) -> str:
    """PNG files of coloured noise in class folders below `root`, so many a class, or so
    many in each split's folder; the data set's name.

    A class called after a colour has it; any other name gets one of the three.
    """
    generator = np.random.default_rng(0)
    parts = count if isinstance(count, dict) else {"": count}
    for split, each in parts.items():
        for i, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            colour = np.array(COLOURS.get(name) or list(COLOURS.values())[i % 3])
            for j in range(each):
                noise = generator.integers(-40, 40, (40, 48, 3))
                pixels = (colour + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{j}.png")
    return f"folder:{root}"


@contextmanager
def trained(
    top: Path, paper: str, rows: tuple[str, ...], count: dict[str, int], overrides: dict
) -> Iterator[list[dict]]:
    """Records of these rows at the photo profile, shrunk by `overrides`, two seeds, on
    three classes of coloured noise. Runs and results lie below `top`, also for whoever
    uses the records, until the end.
    """
    dataset = folder(top / "set", COLOURS, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RUNS", str(top / "runs"))
        patch.setenv("FGBOOK_RESULTS", str(top / "results"))
        runs._load.cache_clear()
        yield runs.rows(
            paper,
            list(rows),
            "photo",
            dataset,
            2,
            overrides=overrides,
            device="cpu",
            progress=False,
        )
        runs._load.cache_clear()


def cub(root: Path, count: int, train: int) -> None:
    """A CUB in its official layout: two classes of `count` coloured rectangles on
    noise, in pictures of different sizes, the first `train` of them for training. Boxes
    are not whole pixels; the last of each class sticks out of its picture, as some
    official ones do.
    """
    generator = np.random.default_rng(0)
    (root / "parts").mkdir(parents=True)
    lists: dict[str, list[str]] = {
        "images": [],
        "image_class_labels": [],
        "train_test_split": [],
        "bounding_boxes": [],
        "parts/part_locs": [],
    }
    classes = {"001.Red_Blob": COLOURS["red"], "002.Blue_Blob": COLOURS["blue"]}
    for label, (name, colour) in enumerate(classes.items(), 1):
        (root / "images" / name).mkdir(parents=True)
        for i in range(count):
            number = len(lists["images"]) + 1
            height, width = generator.integers(70, 110, 2).tolist()
            x, y = generator.integers(0, 20, 2).tolist()
            pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
            noise = generator.integers(-25, 25, (41, 50, 3))
            pixels[y : y + 41, x : x + 50] = np.array(colour) + noise
            Image.fromarray(pixels).save(root / "images" / name / f"{i:02d}.png")
            lists["images"].append(f"{number} {name}/{i:02d}.png")
            lists["image_class_labels"].append(f"{number} {label}")
            lists["train_test_split"].append(f"{number} {int(i < train)}")
            box = (x + 0.4, y + 0.6, 49.2, 40.1)
            if i == count - 1:
                box = (width - 20.0, height - 10.0, 30.0, 30.0)
            lists["bounding_boxes"].append(" ".join(map(str, (number, *box))))
            for part in range(1, 16):
                lists["parts/part_locs"].append(
                    f"{number} {part} {x + 5 + part}.0 {y + 9}.0 {int(part < 3)}"
                )
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text("1 001.Red_Blob\n2 002.Blue_Blob\n")
    (root / "attributes").mkdir()
    (root / "attributes" / "attributes.txt").write_text(
        "1 has_color::red\n2 has_color::blue\n3 has_shape::blob\n"
    )
    (root / "attributes" / "class_attribute_labels_continuous.txt").write_text(
        "95.5 0.0 100.0\n2.5 97.0 100.0\n"
    )


def spots(train: int, val: int, test: int) -> DataSet:
    """Noise of 44 pixels with a bright square of 16 in each image, whose colour is its
    class, and its box; the last box of a split lies in the corner that a centre crop of
    40 cuts off.
    """

    def split(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(
            0, 60, (count, 3, 44, 44), generator=generator, dtype=torch.uint8
        )
        corners = torch.randint(2, 24, (count, 2), generator=generator)
        labels = torch.arange(count) % 2
        for image, (x, y), label in zip(
            images, corners.tolist(), labels.tolist(), strict=True
        ):
            image[label, y : y + 16, x : x + 16] += 150
        boxes = torch.cat([corners, corners + 16], 1).float()
        boxes[-1] = torch.tensor([0.0, 0.0, 2.0, 2.0])
        return Split(images, labels, [f"{seed}-{i}" for i in range(count)], boxes)

    return DataSet(
        "spots",
        ["red", "green"],
        44,
        "0123456789abcdef",
        split(train, 0),
        split(val, 1),
        split(test, 2),
    )


def stand_in(patch: pytest.MonkeyPatch, found: DataSet) -> None:
    """Let every data set's name mean this one, as long as the patch lasts."""
    patch.setattr(data, "load", lambda name, size: found)
    patch.setattr(data, "stamp", lambda name: found.fingerprint)
    runs._load.cache_clear()


def words(shown) -> str:
    """A figure's alternative text as a whole: folded below it where it is long."""
    folded = re.search(r"in words</summary><p>(.*?)</p>", shown.html, re.S)
    named = re.search(r'role="img" aria-label="([^"]*)"', shown.html)
    return html.unescape((folded or named)[1])


class Page(html.parser.HTMLParser):
    """A page of HTML: tags with their attributes, and text. What is not closed is
    refused."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.said = ""
        self.feed(text)
        assert not self.open, "not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.said += data
