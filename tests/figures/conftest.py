"""Records made by hand, of rows of paper C, and tables read back."""

import html
import re

import numpy as np
import pytest

from fgbook import papers
from fgbook.evaluation import robustness
from fgbook.evidence import records, verdicts
from fgbook.images import corruptions

PAPER = papers.get("gautam")
LABELS = np.arange(60) % 3
SEEN = robustness.sample(60, 20).numpy()  # the images that are damaged


def answers(random, quality):
    """Right or wrong (61, 20): twenty images undamaged, then twelve kinds at five
    severities.
    """
    right = random.random((61, 20)) < quality
    right[1:6] &= random.random((5, 20)) < 0.5
    right[1::5, 0] = False  # every kind costs something
    return right


def under_damage(right):
    """The arrays that a record keeps of damaged images, from the answers."""
    by_kind = right[1:].reshape(12, 5, 20).mean(1)
    kinds = dict(zip(corruptions.NAMES, by_kind, strict=True))
    values = {"robust": by_kind.mean(0)}
    for kind, share in kinds.items():
        values[f"robust_{kind}"] = share
    for group, members in robustness.GROUPS.items():
        values[f"robust_{group}"] = np.mean([kinds[kind] for kind in members], 0)
    values["robust_change"] = values["robust"] - right[0]

    kept = {"damaged": right}
    for name, value in values.items():
        kept[name] = np.full(60, np.nan, np.float32)
        kept[name][SEEN] = value
    return kept


@pytest.fixture
def make(tmp_path):
    """make(row, seed, quality, damage=, margin=, profile=, **fields) -> a record;
    `quality` in [0, 1] is about its accuracy.
    """

    def one(row, seed, quality, damage=True, margin=0.0, profile="photo", **fields):
        random = np.random.default_rng([seed, int(1000 * quality), len(row)])
        right = random.random(60) < quality
        kept = {
            "prediction": np.where(right, LABELS, (LABELS + 1) % 3).astype(np.uint16),
            "label": LABELS.astype(np.uint16),
            "confidence": np.full(60, 0.5, np.float16),
            "nll": random.gamma(2, 1 - quality, 60).astype(np.float32),
        }
        test = {
            "precision": quality / 2,
            "recall": quality / 3,
            "f1": quality / 4,
            "ece": quality / 5,
        }
        metrics = {"val": None, "test": test}
        if damage:
            kept |= under_damage(answers(random, quality))
        if margin:
            kept["margin"] = (margin + random.normal(0, 0.1, 60)).astype(np.float32)
            metrics["classes"] = {"inter": margin, "intra": 1.0, "ratio": margin}
        line = PAPER.row(row)
        key = records.key({"row": row, "seed": seed} | fields)
        record = {
            "key": key,
            "purpose": "result",
            "paper": "gautam",
            "row": row,
            "method": line.method,
            "options": line.options,
            "profile": profile,
            "dataset": "cub50",
            "seed": seed,
            "recipe": line.recipes[profile].as_dict(),
            "weights": "w",
            "data_fingerprint": "d",
            "num_classes": 3,
            "images": {"train": 9, "val": 3, "test": 60},
            "metrics": metrics,
            "localisation": None,
            "after": None,
            "parameters": 1,
            "flops": 10**9,
            "printed": None,
            "overrides": {},
            "train": {"epochs": 6, "seconds": 3.0},
            "hardware": {"cpu": "chip", "cores": 2, "threads": 1},
            "command": f"fgbook run gautam --row {row}",
        }
        path = tmp_path / f"{row}-{profile}-{seed}-{key}.json"
        return records.save(record | fields, kept, path)

    return one


def _plain(cell):
    return html.unescape(re.sub("<.*?>", "", cell)).strip()


@pytest.fixture
def lines():
    """lines(shown) -> the first cell of each line of a table -> its cells by heading,
    as text.
    """

    def read(shown):
        heads = [
            _plain(head) for head in re.findall(r"<th>(.*?)</th>", shown.html, re.S)
        ]
        found = {}
        for line in re.findall(r"<tr>\s*<td>.*?</tr>", shown.html, re.S):
            cells = [_plain(cell) for cell in re.findall(r"<td>(.*?)</td>", line, re.S)]
            found[cells[0]] = dict(zip(heads, cells, strict=True))
        return found

    return read


@pytest.fixture
def values():
    """values(found, row, metric) -> the metric of each record and image, (S, N)."""

    def of(found, row, metric):
        rows = [verdicts.per_image(r, metric) for r in found if r["row"] == row]
        return np.stack(rows).astype(float)

    return of
