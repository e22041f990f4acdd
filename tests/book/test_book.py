"""The book, built strictly from notebooks that are executed here on a few real
pictures: every number, every picture, every link."""

import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from filelock import FileLock

import samples
from fgbook import papers, paths, reproduce
from fgbook.evidence import records, runs, verdicts
from fgbook.images import corruptions

SMALL = {
    "backbone": "small",
    "weights": "none",
    "image_size": 32,
    "store_size": 36,
    "epochs": 1,
    "batch_size": 8,
}
SMOKE = {
    "feng_accuracy": {
        'dataset: str = ""': 'dataset: str = "cub"',
        'rows: str = ""': 'rows: str = "plain,hybrid"',
        "epochs: int = 0": "epochs: int = 1",
        '"cub50"': '"cub"',
    },
    "feng_regions": {
        'dataset: str = ""': 'dataset: str = "cub"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 4": "images: int = 2",
    },
    "peng_resolution": {
        'dataset: str = ""': 'dataset: str = "cub"',
        'rows: str = ""': 'rows: str = "high,high-low,restorer"',
        "epochs: int = 0": "epochs: int = 1",
        '"cars98"': '"cub"',
        '"fieldguide"': '"cub"',
    },
    "peng_amounts": {
        'dataset: str = ""': 'dataset: str = "cub"',
        'rows: str = ""': 'rows: str = "H2,H2-L2,M2"',
        "epochs: int = 0": "epochs: int = 1",
        '"cars98"': '"cub"',
    },
    "golodov_transfer": {
        'dataset: str = ""': 'dataset: str = "cub"',
        '"fc,gap,adam,adamax,gap-features,linear,plain"': '"gap,adam,adamax"',
        "epochs: int = 0": "epochs: int = 1",
        '"imagewoof10"': '"cub"',
    },
    "golodov_latency": {
        '"small,mobilenet_v2,resnet50,vgg16,inception_v3:299"': (
            '"small:48,inception_v3:96"'
        ),
        '"1,32"': '"1,2"',
        "repeats: int = 5": "repeats: int = 2",
        '"fieldguide"': '"cub"',
        "width: int = 500": "width: int = 100",
    },
    "golodov_levels": {
        'dataset: str = ""': 'dataset: str = "cub"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 4": "images: int = 2",
        '"cub50"': '"cub"',
    },
    "gautam_ablation": {
        'dataset: str = ""': 'dataset: str = "cub"',
        '"plain,attention,mixup,all"': '"plain,attention,all,no-mixup"',
        "epochs: int = 0": "epochs: int = 1",
        '"cub50"': '"cub"',
        "size: int = 224": "size: int = 64",
        'networks: str = ""': 'networks: str = "mobilenet_v2,vit_ti_16"',
        "repeats: int = 3": "repeats: int = 1",
    },
    "gautam_robustness": {
        'dataset: str = ""': 'dataset: str = "cub"',
        '"plain,triplet,all,plain-quarter,all-quarter"': (
            '"plain,all,plain-half,all-half"'
        ),
        "epochs: int = 0": "epochs: int = 1",
        '"cub50"': '"cub"',
    },
    "gautam_explain": {
        'dataset: str = ""': 'dataset: str = "cub"',
        '"plain,attention,all"': '"plain,attention"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 4": "images: int = 2",
        "curved: int = 32": "curved: int = 4",
        "checked: int = 64": "checked: int = 4",
        '"cub50"': '"cub"',
    },
    "gautam_pretraining": {
        'dataset: str = ""': 'dataset: str = "cub"',
        '"plain,semantic,scratch,simsiam-scratch,simsiam"': '"plain,semantic,simsiam"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 4": "images: int = 2",
        '"cub50"': '"cub"',
    },
    "liang_accuracy": {
        'dataset: str = ""': 'dataset: str = "cub"',
        "epochs: int = 0": "epochs: int = 1",
        '"cub50"': '"cub"',
    },
    "liang_localisation": {
        'dataset: str = ""': 'dataset: str = "cub"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 4": "images: int = 2",
        '"cub50"': '"cub"',
    },
    "liang_granularity": {
        'dataset: str = ""': 'dataset: str = "cub"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 3": "images: int = 2",
        '"cub50"': '"cub"',
    },
    "fieldguide": {
        "species: int = 20": "species: int = 4",
        "size: int = 224": "size: int = 64",
    },
    "peng_heatmaps": {
        'dataset: str = ""': 'dataset: str = "cub"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 3": "images: int = 1",
        '"0.1,0.167,0.25"': '"0.25"',
        '"2,3,5,8"': '"8"',
        "limit: int = 16": "limit: int = 4",
        "exact: int = 2": "exact: int = 1",
        '"cars98"': '"cub"',
    },
}


def make(where: Path) -> None:
    """A clone with smaller parameters, published records on those pictures, executed
    notebooks, and the book."""
    samples.cub(where / "data" / "cub", count=18, train=10)
    for paper, row in (
        ("feng", "plain"),
        ("feng", "image"),
        ("feng", "hybrid"),
        ("golodov", "gap"),
        ("golodov", "adam"),
        ("golodov", "adamax"),
    ):
        for seed in (0, 1):
            records.publish(
                runs.execute(
                    runs.resolve(paper, row, "photo", "cub", seed, SMALL),
                    device="cpu",
                    progress=False,
                )
            )
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(paths.REPOSITORY / name, where)
    for name in ("book", "fgbook"):
        shutil.copytree(
            paths.REPOSITORY / name,
            where / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    (where / "notebooks").mkdir()
    for path in sorted((paths.REPOSITORY / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, 4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                for old, new in SMOKE[path.stem].items():
                    assert old in cell.source, f"{path.stem} no longer says {old}"
                    cell.source = cell.source.replace(old, new)
        nbformat.write(notebook, where / "notebooks" / path.name)
    results = reproduce.execute(where, reproduce.notebooks(where), jobs=1)
    assert [(r.name, r.state, r.message) for r in results if r.state != "done"] == []
    reproduce.build_book(where)


@pytest.fixture(scope="session")
def book(tmp_path_factory, request):
    """The clone with the built book in ``_build/html``; made once, also for several
    test processes."""
    worker = getattr(request.config, "workerinput", {}).get("workerid")
    top = (
        tmp_path_factory.getbasetemp().parent
        if worker
        else tmp_path_factory.mktemp("book")
    )
    where = top / "smoke-book"
    with pytest.MonkeyPatch.context() as patch, FileLock(top / "smoke-book.lock"):
        for name in ("data", "runs", "results"):
            patch.setenv(f"FGBOOK_{name.upper()}", str(where / name))
        runs._load.cache_clear()
        if not (where / "_build" / "html" / "index.html").is_file():
            make(where)
        yield where


def pages(book: Path) -> list[Path]:
    return sorted(
        path
        for path in (book / "_build" / "html").rglob("*.html")
        if "_static" not in path.parts
    )


class Elements(HTMLParser):
    """Attributes of every element of the names asked for, with the text inside."""

    def __init__(self, *names: str):
        super().__init__()
        self.names, self.found, self.open = names, [], []

    def handle_starttag(self, tag, attributes):
        if tag in self.names:
            self.found.append({**dict(attributes), "": ""})
            if tag not in ("img", "link"):
                self.open.append((tag, self.found[-1]))

    def handle_endtag(self, tag):
        if self.open and self.open[-1][0] == tag:
            self.open.pop()

    def handle_data(self, text):
        for _, element in self.open:
            element[""] += text


def elements(page: Path, *names: str) -> list[dict]:
    parser = Elements(*names)
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.found


def measured(page: Path) -> list[dict]:
    return [
        span
        for span in elements(page, "span")
        if span.get("class") == "fgbook-measured"
    ]


def expected(span: dict) -> str:
    """The text that a measured number must have, computed from its records' predictions
    and not from anything that wrote it."""

    def values(keys: str, metric: str = "top1") -> np.ndarray:
        found = sorted(
            (records.find(key) for key in keys.split()),
            key=lambda record: record["seed"],
        )
        predictions = [records.load_predictions(record) for record in found]
        if metric in ("top1", "low_top1"):
            name = "prediction" if metric == "top1" else "low_prediction"
            return np.stack([p[name] == p["label"] for p in predictions])
        return np.stack(
            [
                -p["nll"].astype(float) if metric == "nll" else p[metric]
                for p in predictions
            ]
        )

    field = span["data-field"]
    if field == "val top1":  # tuning: no test number exists
        return (
            f"{100 * records.find(span['data-records'])['metrics']['val']['top1']:.1f}"
        )
    if field.startswith("localisation"):
        about = [
            records.find(key)["localisation"] for key in span["data-records"].split()
        ]
        name = field.split()[1]
        if field.endswith("interval"):
            return f"{about[0][f'{name}_low']:.2f} to {about[0][f'{name}_high']:.2f}"
        return f"{np.mean([a[name] for a in about]):.2f}"
    if field.startswith("effect"):
        metrics = [name for name in field.split()[1:] if name != "interval"] or ["top1"]
        scale, digits = (100.0, 1) if metrics[0] in ("top1", "low_top1") else (1.0, 3)
        difference = scale * values(span["data-records"], metrics[0]) - scale * values(
            span["data-versus"], metrics[-1]
        )
        difference = difference[:, np.isfinite(difference).all(0)]
        if not field.endswith("interval"):
            return f"{difference.mean():+.{digits}f}"
        mean, half = verdicts.interval(
            difference, scale if scale > 1 else np.abs(difference).max()
        )
        return f"{mean - half:+.{digits}f} to {mean + half:+.{digits}f}"
    if field in ("precision", "recall", "f1"):
        kept = [
            records.load_predictions(records.find(key))
            for key in span["data-records"].split()
        ]
        return f"{100 * np.mean([macro(p['prediction'], p['label'])[field] for p in kept]):.1f}"
    # kept with the record, and tested where they are computed
    if field.startswith(("ece", "classes")):
        kept = [records.find(key)["metrics"] for key in span["data-records"].split()]
        return (
            f"{np.mean([100 * about['test']['ece'] for about in kept]):.1f}"
            if field == "ece"
            else (
                f"{np.mean([about['classes'][field.split()[1]] for about in kept]):.3f}"
            )
        )
    if field == "corruption error":
        wrong = lambda keys, kind: (
            1 - np.nanmean(values(keys, f"robust_{kind}").astype(float))
        )
        return f"{100 * np.mean([wrong(span['data-records'], kind) / wrong(span['data-versus'], kind) for kind in corruptions.NAMES]):.1f}"
    if field.startswith("mean "):
        return f"{np.nanmean(values(span['data-records'], field.removeprefix('mean ')).astype(float)):.3f}"
    if field == "loss":
        return f"{-values(span['data-records'], 'nll').mean():.2f}"
    right = values(
        span["data-records"], "low_top1" if field.startswith("low_top1") else "top1"
    )
    if field in ("top1", "low_top1"):
        return f"{100 * right.sum() / right.size:.1f}"
    if field in ("top1 interval", "low_top1 interval"):
        if len(right) == 1:
            low, high = wilson(int(right.sum()), right.size)
        else:
            mean, half = verdicts.interval(100.0 * right, 100)
            low, high = max(mean - half, 0), min(mean + half, 100)
        return f"{low:.1f} to {high:.1f}"
    if field.startswith("psnr"):
        return f"{values(span['data-records'], field).mean(dtype=float):.2f}"
    raise AssertionError(f"no independent way to compute {field!r}")


def macro(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Means over the classes that occur: of the images said to be of a class, those
    that are; of those that are, the ones said to be; and of both."""
    found = {"precision": [], "recall": [], "f1": []}
    for k in set(prediction) | set(label):
        hit, said, there = (
            ((prediction == k) & (label == k)).sum(),
            (prediction == k).sum(),
            (label == k).sum(),
        )
        found["precision"].append(hit / max(said, 1))
        found["recall"].append(hit / max(there, 1))
        found["f1"].append(2 * hit / (said + there))
    return {name: float(np.mean(values)) for name, values in found.items()}


def wilson(right: int, n: int) -> tuple[float, float]:
    """In percent: the proportions p from which `right` of n is no further away than
    1.96 standard errors."""
    p = np.linspace(0, 1, 2_000_001)
    near = p[np.abs(right / n - p) <= 1.959964 * np.sqrt(p * (1 - p) / n)]
    return 100 * near[0], 100 * near[-1]


def test_every_page_is_there(book):
    chapters = re.findall(
        r"(?:file|root): (\S+)", (paths.REPOSITORY / "_toc.yml").read_text()
    )
    for chapter in chapters:
        assert (book / "_build" / "html" / f"{chapter}.html").is_file()
    assert len(chapters) > 6


def test_every_measured_number_equals_its_record(book):
    fields = {}
    for page in pages(book):
        for span in measured(page):
            assert span[""].strip() == expected(span), (page.name, span)
            fields.setdefault(page.name, set()).add(span["data-field"].split()[0])
    assert fields["feng.html"] == {"top1", "effect", "localisation"}
    assert fields["feng_accuracy.html"] >= {"top1", "effect"}


def test_no_measured_column_holds_a_number_without_its_records(book):
    rows = 0
    for page in pages(book):
        for table in re.findall(
            r'<figure class="fgbook-table">.*?</figure>',
            page.read_text(encoding="utf-8"),
            re.S,
        ):
            heads = re.findall(r"<th>(.*?)</th>", table, re.S)
            for line in re.findall(r"<tr>\s*<td>.*?</tr>", table, re.S):
                for head, cell in zip(
                    heads, re.findall(r"<td>(.*?)</td>", line, re.S), strict=True
                ):
                    if (
                        "measured" in head
                        or "validation" in head
                        or "interval" in head
                        or head in ("regions", "random boxes")
                    ):
                        rows += 1
                        assert not re.search(
                            r"\d",
                            re.sub(
                                r'<span class="fgbook-measured".*?</span>',
                                "",
                                cell,
                                flags=re.S,
                            ),
                        ), (page.name, cell)
    assert rows > 10


def test_tables_name_the_command_of_each_record(book):
    text = (book / "_build" / "html" / "book" / "feng.html").read_text(encoding="utf-8")
    used = {
        key
        for span in measured(book / "_build" / "html" / "book" / "feng.html")
        for key in span["data-records"].split()
    }
    assert used
    for key in used:
        assert key in text and html.escape(records.find(key)["command"]) in text


def test_a_quick_number_is_marked_and_never_beside_a_printed_one(book):
    quick = {
        path.parent.name
        for path in (book / "runs").glob("*/record.json")
        if records.load(path)["profile"] == "quick"
    }
    seen = 0
    for page in pages(book):
        for table in re.findall(
            r'<figure class="fgbook-table">.*?</figure>',
            page.read_text(encoding="utf-8"),
            re.S,
        ):
            keys = set(re.findall(r'data-records="([^"]*)"', table))
            if any(set(group.split()) & quick for group in keys):
                seen += 1
                assert "fgbook-illustration" in table and "printed" not in "".join(
                    re.findall(r"<th>.*?</th>", table)
                )
    assert seen >= 2


def test_every_picture_says_what_it_shows(book):
    shown = 0
    for page in pages(book):
        for image in elements(page, "img"):
            if "_static/" in image["src"]:  # the theme's own, such as Colab's logo
                assert image["alt"]
                continue
            shown += 1
            assert len(image.get("alt") or "") > 25, (
                page.name,
                image.get("alt"),
                image.get("src", "")[:60],
            )
            assert not re.fullmatch(r"\S*[0-9a-f]{16,}\S*", image["alt"])
    assert shown >= 8


def test_figures_come_with_their_text_and_in_no_other_way(book):
    """A bare picture output would lose its caption and its alternative text."""
    for path in (book / "_build" / "executed").glob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                assert not any(
                    kind.startswith("image/") for kind in output.get("data", {})
                ), (path.name, cell.source)


def test_the_book_needs_no_network(book):
    """No script, style, font or picture from elsewhere: formulas are MathML, widgets
    are not used."""
    for page in pages(book):
        for element in elements(page, "script", "img", "iframe"):
            assert not re.match(r"(https?:)?//", element.get("src") or ""), (
                page.name,
                element["src"],
            )
        for element in elements(page, "link"):
            assert element.get("rel") == "canonical" or not re.match(
                r"(https?:)?//", element["href"]
            ), (page.name, element["href"])
    assert "<math" in (book / "_build" / "html" / "book" / "feng.html").read_text(
        encoding="utf-8"
    )


def test_notebook_pages_open_in_colab(book):
    page = (book / "_build" / "html" / "notebooks" / "feng_accuracy.html").read_text(
        encoding="utf-8"
    )
    assert (
        "colab.research.google.com/github/fgbook/fgbook/blob/main/notebooks/feng_accuracy.ipynb"
        in page
    )


def test_accuracies_are_not_typed_by_hand():
    """A percentage in a page's source stands in the paper's tables, or a citation
    stands beside it."""
    printed = {
        f"{value:g}"
        for name in papers.names()
        for table in papers.get(name).tables
        for cells in table.cells.values()
        for value in cells
        if value
    }
    for path in sorted((paths.REPOSITORY / "book").glob("*.md")):
        for paragraph in re.split(
            r"\n\s*\n|\n(?=[*-] )", path.read_text(encoding="utf-8")
        ):
            for value in re.findall(r"(\d+(?:\.\d+)?)\s?%", paragraph):
                assert value in printed or "{cite}" in paragraph or value == "95", (
                    path.name,
                    value,
                )


def test_every_page_is_in_the_contents():
    contents = yaml.safe_load((paths.REPOSITORY / "_toc.yml").read_text())
    listed = set(re.findall(r"'(?:file|root)': '(\S+?)'", str(contents)))
    there = {
        f"book/{path.stem}" for path in (paths.REPOSITORY / "book").glob("*.md")
    } | {
        f"notebooks/{path.stem}"
        for path in (paths.REPOSITORY / "notebooks").glob("*.ipynb")
    }
    assert listed == there
