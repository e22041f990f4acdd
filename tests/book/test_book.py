"""The book, built strictly from notebooks that are executed here on a few real
pictures: every number, every picture, every link.
"""

import ast
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
from fgbook.evidence import causes, families, records, runs, sortable, verdicts
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
        '"feng/plain,gautam/attention"': '""',
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
        '"fieldguide"': '"cub"',
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
    "causal": {
        "epochs: int = 0": "epochs: int = 1",
        "scenes: int = 16": "scenes: int = 10",
        "pictures: int = 3": "pictures: int = 2",
        '"0,9"': '"0"',
        'photographs: str = ""': 'photographs: str = "cub"',
        'photo_profile: str = "photo"': 'photo_profile: str = "quick"',
        "checked: int = 64": "checked: int = 4",
    },
    "comparison": {
        'dataset: str = ""': 'dataset: str = "cub"',
        'rows: str = ""': 'rows: str = "probe,plain,pmg,nts-net"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 8": "images: int = 2",
        '"cub50"': '"cub"',
    },
    "fieldguide": {
        "species: int = 20": "species: int = 4",
        "size: int = 224": "size: int = 64",
    },
    "tutorial": {
        '"fieldguide"': '"cub"',
        "epochs: int = 0": "epochs: int = 1",
        "images: int = 4": "images: int = 2",
        "species: int = 6": "species: int = 2",
        "pictures: int = 30": "pictures: int = 10",
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


PUBLISHED = (
    ("feng", "plain"),
    ("feng", "image"),
    ("feng", "hybrid"),
    ("golodov", "gap"),
    ("golodov", "adam"),
    ("golodov", "adamax"),
)


def make(where: Path) -> None:
    """A clone with smaller parameters, published records on those pictures, executed
    notebooks, and the book.
    """
    samples.cub(where / "data" / "cub", count=18, train=10)
    for paper, row in PUBLISHED:
        for seed in (0, 1):
            run = runs.resolve(paper, row, "photo", "cub", seed, SMALL)
            records.publish(runs.execute(run, device="cpu", progress=False))
    copy_clone(where)
    results = reproduce.execute(where, reproduce.notebooks(where), jobs=1)
    failed = [(r.name, r.state, r.message) for r in results if r.state != "done"]
    assert failed == []
    reproduce.build_book(where)


def copy_clone(where: Path, only: set[str] | None = None) -> None:
    """What the book is built from, with the notebooks' parameters of SMOKE; of the
    notebooks `only` some.
    """
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(paths.REPOSITORY / name, where)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("book", "fgbook"):
        shutil.copytree(paths.REPOSITORY / name, where / name, ignore=ignored)
    (where / "notebooks").mkdir()
    for path in sorted((paths.REPOSITORY / "notebooks").glob("*.ipynb")):
        if only is not None and path.stem not in only:
            continue
        notebook = nbformat.read(path, 4)
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []):
                for old, new in SMOKE[path.stem].items():
                    assert old in cell.source, f"{path.stem} no longer says {old}"
                    cell.source = cell.source.replace(old, new)
        nbformat.write(notebook, where / "notebooks" / path.name)


@pytest.fixture(scope="session")
def book(tmp_path_factory, request):
    """The clone with the built book in ``_build/html``; made once, also for several
    test processes.
    """
    worker = getattr(request.config, "workerinput", {}).get("workerid")
    if worker:
        top = tmp_path_factory.getbasetemp().parent
    else:
        top = tmp_path_factory.mktemp("book")
    where = top / "smoke-book"
    with pytest.MonkeyPatch.context() as patch, FileLock(top / "smoke-book.lock"):
        for name in ("data", "runs", "results"):
            patch.setenv(f"FGBOOK_{name.upper()}", str(where / name))
        runs._load.cache_clear()
        if not (where / "_build" / "html" / "index.html").is_file():
            make(where)
        yield where


def pages(book: Path) -> list[Path]:
    found = sorted((book / "_build" / "html").rglob("*.html"))
    return [path for path in found if "_static" not in path.parts]


def page(book: Path, name: str) -> Path:
    return book / "_build" / "html" / f"{name}.html"


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


def elements(path: Path, *names: str) -> list[dict]:
    parser = Elements(*names)
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.found


def measured(path: Path) -> list[dict]:
    spans = elements(path, "span")
    return [span for span in spans if span.get("class") == "fgbook-measured"]


def tables(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(r'<figure class="fgbook-table">.*?</figure>', text, re.S)


# ---- measured numbers, computed once more


def expected(span: dict) -> str:
    """The text that a measured number must have, computed from its records' predictions
    and not from anything that wrote it.
    """
    field = span["data-field"]
    name, _, rest = field.partition(" ")
    if name == "causal":
        return of_causes(span["data-records"].split(), *rest.split(maxsplit=1))
    found = [records.find(key) for key in span["data-records"].split()]
    if field in PLAIN:
        return PLAIN[field](found)
    if name in ("top1", "low_top1") and rest:
        return accuracy_interval(span, name)
    if name in WITH_NAME:
        return WITH_NAME[name](found, rest)
    if name == "effect":
        return effect(span, rest.split())
    if name == "across":
        return across(span, rest.split())
    if name == "corruption":
        return corruption_error(span)
    raise AssertionError(f"no independent way to compute {field!r}")


def of_causes(keys: list[str], measure: str, name: str = "") -> str:
    """The mean over all pictures of some trainings that have the measure; `name`: of
    this map, or none: of what the network does.
    """
    by_key = {line["key"]: line["found"] for line in causes.lines()}
    pictures = []
    for key in keys:
        of_one = by_key[key]["network"]
        if name:
            of_one = (by_key[key]["maps"] | by_key[key]["controls"])[name]
        pictures += [value for value in of_one[measure] if value is not None]
    return f"{np.float32(pictures).astype(float).mean():.2f}"


def values(keys: str, metric: str = "top1") -> np.ndarray:
    """A metric of every image, (seeds, images), by seed."""
    found = [records.find(key) for key in keys.split()]
    by_seed = sorted(found, key=lambda record: record["seed"])
    return np.stack([of_images(record, metric) for record in by_seed])


def of_images(record: dict, metric: str) -> np.ndarray:
    kept = records.load_predictions(record)
    if metric == "top1":
        return kept["prediction"] == kept["label"]
    if metric == "low_top1":
        return kept["low_prediction"] == kept["label"]
    if metric == "nll":
        return -kept["nll"].astype(float)
    return kept[metric]


def validation(found: list[dict]) -> str:
    (one,) = found  # tuning: no test number exists
    return f"{100 * one['metrics']['val']['top1']:.1f}"


def localisation(found: list[dict], rest: str) -> str:
    name, _, interval = rest.partition(" ")
    about = [record["localisation"] for record in found]
    if interval.isdigit():  # of the first, second, ... region
        return f"{np.mean([one[name][int(interval) - 1] for one in about]):.2f}"
    if interval:
        return f"{about[0][f'{name}_low']:.2f} to {about[0][f'{name}_high']:.2f}"
    return f"{np.mean([one[name] for one in about]):.2f}"


def of_span(span: dict, keys: str) -> list[dict]:
    """Records as the chapter has them: rows of several papers may share a run."""
    found = [records.find(key) for key in span[keys].split()]
    return [{**record, "paper": span["data-paper"]} for record in found]


def others(found: list[dict]) -> list[dict]:
    """The published records of all rows there, which tell how much trainings differ."""
    here = found[0]
    known = records.published(here["paper"], here["profile"])
    return records.select(known, dataset=here["dataset"])


def compared(better: list[dict], worse: list[dict], metrics: list[str]):
    among = others(better)
    return verdicts.compare(better, worse, metrics[0], metrics[-1], among)


def is_share(metric: str) -> bool:
    """Whether a metric is a share of images or of a map: its effects are in points."""
    return metric.startswith(("robust", "focus_", "maxbox_"))


def effect(span: dict, words: list[str]) -> str:
    metrics = [word for word in words if word != "interval"] or ["top1"]
    in_points = metrics[0] in ("top1", "low_top1") or is_share(metrics[0])
    scale, digits = (100.0, 1) if in_points else (1.0, 3)
    if "interval" in words:
        better, worse = of_span(span, "data-records"), of_span(span, "data-versus")
        about = compared(better, worse, metrics)
        unit = 100.0 if is_share(metrics[0]) else 1.0
        low, high = unit * about.low, unit * about.high
        return f"{low:+.{digits}f} to {high:+.{digits}f}"
    better = scale * values(span["data-records"], metrics[0])
    worse = scale * values(span["data-versus"], metrics[-1])
    known = np.isfinite(better).all(0) & np.isfinite(worse).all(0)
    return f"{better[:, known].mean() - worse[:, known].mean():+.{digits}f}"


def across(span: dict, words: list[str]) -> str:
    """The mean of the effects on several data sets, by their precision."""
    metrics = [word for word in words if word != "interval"] or ["top1"]
    unit = 100.0 if is_share(metrics[0]) else 1.0
    digits = 1 if metrics[0] in ("top1", "low_top1") or unit > 1 else 3
    better, worse = of_span(span, "data-records"), of_span(span, "data-versus")
    effects = []
    for dataset in sorted({record["dataset"] for record in better}):
        pair = [records.select(rows, dataset=dataset) for rows in (better, worse)]
        effects.append(compared(*pair, metrics))
    weights = np.array([1 / (e.parts.seeds + e.parts.images) for e in effects])
    mean = np.average([e.effect for e in effects], weights=weights)
    if "interval" not in words:
        return f"{unit * mean:+.{digits}f}"
    half = families.fixed_effect(effects).parts.half()
    low, high = unit * (mean - half), unit * (mean + half)
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def losses(found: list[dict], rest: str) -> str:
    name, when = rest.rsplit(" ", 1)
    place = {"first": 0, "last": -1}[when]
    return f"{np.mean([r['train']['losses'][place][name] for r in found]):.2f}"


def of_classes(field: str):
    def mean(found: list[dict]) -> str:
        kept = [records.load_predictions(record) for record in found]
        scores = [macro(each["prediction"], each["label"])[field] for each in kept]
        return f"{100 * np.mean(scores):.1f}"

    return mean


# Calibration and distances are kept with the record, and tested where they are made.
def calibration(found: list[dict]) -> str:
    errors = [record["metrics"]["test"]["ece"] for record in found]
    return f"{100 * np.mean(errors):.1f}"


def distances(found: list[dict], name: str) -> str:
    return f"{np.mean([r['metrics']['classes'][name] for r in found]):.3f}"


def corruption_error(span: dict) -> str:
    def wrong(keys: str, kind: str) -> float:
        return 1 - np.nanmean(values(keys, f"robust_{kind}").astype(float))

    ratios = []
    for kind in corruptions.NAMES:
        ours = wrong(span["data-records"], kind)
        ratios.append(ours / wrong(span["data-versus"], kind))
    return f"{100 * np.mean(ratios):.1f}"


def mean(found: list[dict], metric: str) -> str:
    each = [of_images(record, metric).astype(float) for record in found]
    return f"{np.nanmean(each):.3f}"


def loss(found: list[dict]) -> str:
    each = [of_images(record, "nll") for record in found]
    return f"{-np.mean(each):.2f}"


def accuracy(metric: str):
    def of(found: list[dict], _: str) -> str:
        right = np.stack([of_images(record, metric) for record in found])
        return f"{100 * right.sum() / right.size:.1f}"

    return of


def accuracy_interval(span: dict, metric: str) -> str:
    found = of_span(span, "data-records")
    if len(found) == 1:
        right = of_images(found[0], metric)
        low, high = wilson(int(right.sum()), right.size)
    else:
        _, low, high = verdicts.accuracy(found, metric, others(found))
    return f"{low:.1f} to {high:.1f}"


def noise_ratio(field: str):
    def mean(found: list[dict]) -> str:
        each = [of_images(record, field) for record in found]
        return f"{np.mean(each, dtype=float):.2f}"

    return mean


# Field -> its text from records.
PLAIN = {
    "val top1": validation,
    "precision": of_classes("precision"),
    "recall": of_classes("recall"),
    "f1": of_classes("f1"),
    "ece": calibration,
    "loss": loss,
    "psnr_low": noise_ratio("psnr_low"),
    "psnr_restored": noise_ratio("psnr_restored"),
}
# First word of a field -> its text from records and the words that follow.
WITH_NAME = {
    "localisation": localisation,
    "losses": losses,
    "classes": distances,
    "mean": mean,
    "top1": accuracy("top1"),
    "low_top1": accuracy("low_top1"),
}


def macro(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Means over the classes that occur: of the images said to be of a class, those
    that are; of those that are, the ones said to be; and of both.
    """
    found = {"precision": [], "recall": [], "f1": []}
    for k in set(prediction) | set(label):
        hit = ((prediction == k) & (label == k)).sum()
        said, there = (prediction == k).sum(), (label == k).sum()
        found["precision"].append(hit / max(said, 1))
        found["recall"].append(hit / max(there, 1))
        found["f1"].append(2 * hit / (said + there))
    return {name: float(np.mean(values)) for name, values in found.items()}


def wilson(right: int, n: int) -> tuple[float, float]:
    """In percent: the proportions p from which `right` of n is no further away than
    1.96 standard errors.
    """
    p = np.linspace(0, 1, 2_000_001)
    near = p[np.abs(right / n - p) <= 1.959964 * np.sqrt(p * (1 - p) / n)]
    return 100 * near[0], 100 * near[-1]


# ---- pages


def test_every_page_is_there(book):
    contents = (paths.REPOSITORY / "_toc.yml").read_text()
    chapters = re.findall(r"(?:file|root): (\S+)", contents)
    assert len(chapters) > 6
    for chapter in chapters:
        assert page(book, chapter).is_file()


def test_every_measured_number_equals_its_record(book):
    for path in pages(book):
        for span in measured(path):
            assert span[""].strip() == expected(span), (path.name, span)


def fields(path: Path) -> set[str]:
    return {span["data-field"].split()[0] for span in measured(path)}


def test_the_chapter_and_its_notebook_hold_measured_numbers(book):
    said = {"top1", "effect", "localisation", "losses"}
    assert fields(page(book, "book/feng")) == said
    assert fields(page(book, "notebooks/feng_accuracy")) >= {"top1", "effect"}


def cells(table: str) -> list[tuple[str, str]]:
    """(heading, cell) of all cells, as HTML."""
    heads = re.findall(r"<th>(.*?)</th>", table, re.S)
    found = []
    for line in re.findall(r"<tr>\s*<td>.*?</tr>", table, re.S):
        of_line = re.findall(r"<td>(.*?)</td>", line, re.S)
        found += zip(heads, of_line, strict=True)
    return found


def is_measured(head: str) -> bool:
    if head in ("regions", "random boxes"):
        return True
    return any(word in head for word in ("measured", "validation", "interval"))


def test_no_measured_column_holds_a_number_without_its_records(book):
    seen = 0
    marked = re.compile(r'<span class="fgbook-measured".*?</span>', re.S)
    for path in pages(book):
        for table in tables(path):
            for head, cell in cells(table):
                if is_measured(head):
                    seen += 1
                    assert not re.search(r"\d", marked.sub("", cell)), (path.name, cell)
    assert seen > 10


def test_tables_name_the_command_of_each_record(book):
    path = page(book, "book/feng")
    text = path.read_text(encoding="utf-8")
    used = {key for span in measured(path) for key in span["data-records"].split()}
    assert used
    for key in used:
        assert key in text
        assert html.escape(records.find(key)["command"]) in text


@pytest.fixture(scope="module")
def quick_tables(book):
    """The tables that hold a number of a quick run."""
    quick = set()
    for path in (book / "runs").glob("*/record.json"):
        if records.load(path)["profile"] == "quick":
            quick.add(path.parent.name)
    found = []
    for path in pages(book):
        for table in tables(path):
            keys = " ".join(re.findall(r'data-records="([^"]*)"', table))
            if quick & set(keys.split()):
                found.append(table)
    assert len(found) >= 2
    return found


def test_a_quick_number_is_marked(quick_tables):
    for table in quick_tables:
        assert "fgbook-illustration" in table


def test_a_quick_number_is_never_beside_a_printed_one(quick_tables):
    for table in quick_tables:
        assert "printed" not in "".join(re.findall(r"<th>.*?</th>", table))


def test_every_picture_says_what_it_shows(book):
    shown = 0
    for path in pages(book):
        for image in elements(path, "img"):
            if "_static/" in image["src"]:  # the theme's own, such as Colab's logo
                assert image["alt"]
                continue
            alt, source = image.get("alt") or "", image["src"][:60]
            assert len(alt) > 25, (path.name, alt, source)
            assert not re.fullmatch(r"\S*[0-9a-f]{16,}\S*", alt), (path.name, source)
        text = path.read_text(encoding="utf-8")
        for drawn in re.finditer(r'<svg\b[^>]*role="img"[^>]*>', text):
            shown += 1
            # its label or, of a diagram, its title, which comes first
            (label,) = re.findall('aria-label="([^"]*)"', drawn[0]) or [""]
            title = re.match(r"\s*<title>(.*?)</title>", text[drawn.end() :])
            name = html.unescape(label or (title[1] if title else ""))
            # the shortest are strips in tables: "A2: not run"
            assert 8 < len(name) <= 300, (path.name, drawn[0])
    assert shown >= 8


def test_pictures_are_files_and_leave_no_copy_in_the_page(book):
    for path in pages(book):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(src|href)=[\"']data:image/(png|jpeg|webp)", text), path
    assert list((book / "_build" / "html" / "_images").glob("*.webp"))


def test_pages_load_no_script_that_they_do_not_need(book):
    for path in pages(book):
        for element in elements(path, "script"):
            said = (element.get("src") or "") + element[""]
            assert "thebe" not in said.lower(), path
            assert "fontawesome" not in said, path
            # 250 kB, of which only the page of results reads anything
            assert "searchindex" not in said or path.name == "search.html", path


def test_search_knows_tables_but_no_lists_of_records(book):
    index = (book / "_build" / "html" / "searchindex.js").read_text(encoding="utf-8")
    terms = index[index.index("terms:") if "terms:" in index else 0 :]
    assert '"cutmix"' in terms or "cutmix:" in terms
    for path in pages(book):
        for span in measured(path):
            for key in span["data-records"].split():
                assert key not in terms, path


def test_figures_come_with_their_text_and_in_no_other_way(book):
    """A bare picture output would lose its caption and its alternative text."""
    for path in (book / "_build" / "executed").glob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                kinds = list(output.get("data", {}))
                bare = [kind for kind in kinds if kind.startswith("image/")]
                assert not bare, (path.name, cell.source)


ELSEWHERE = re.compile(r"(https?:)?//")


def test_the_book_loads_nothing_from_the_network(book):
    """No script, style, font or picture from elsewhere: widgets are not used."""
    for path in pages(book):
        for element in elements(path, "script", "img", "iframe"):
            source = element.get("src") or ""
            assert not ELSEWHERE.match(source), (path.name, source)
        for element in elements(path, "link"):
            if element.get("rel") != "canonical":
                assert not ELSEWHERE.match(element["href"]), (path.name, element)


CHAPTERS = ("golodov", "feng", "gautam", "liang", "peng")


def test_the_page_on_which_networks_run_does_without_them(book):
    """None of them was trained here."""
    text = page(book, "book/try").read_text(encoding="utf-8")
    assert re.search(r"do not run: the weights of run \w+ are not on this mach", text)
    assert "<code" in text.split("do not run")[1].split("</p>")[0]  # what trains it
    assert "try.js" not in text
    assert len(elements(page(book, "book/try"), "figure")) == 2


def test_formulas_are_mathml(book):
    assert "<math" in page(book, "book/feng").read_text(encoding="utf-8")


def test_links_are_made_from_the_address_of_the_repository(book):
    """To sources and issues; and notebook pages open in Colab and on Binder."""
    feng = page(book, "book/feng").read_text(encoding="utf-8")
    assert f'"{paths.address()}/blob/main/fgbook/methods/focus.py"' in feng
    assert f'"{paths.address()}/issues/new?' in feng
    notebook = page(book, "notebooks/feng_accuracy").read_text(encoding="utf-8")
    repository = paths.address().removeprefix("https://github.com/")
    in_colab = f"/github/{repository}/blob/main/notebooks/feng_accuracy.ipynb"
    assert f"https://colab.research.google.com{in_colab}" in notebook
    on_binder = f"/v2/gh/{repository}/main?urlpath=lab/tree/notebooks/feng_accuracy"
    assert f"https://mybinder.org{on_binder}" in notebook


def test_the_first_page_has_every_verdict_and_its_places(book):
    first = page(book, "book/index")
    text = first.read_text(encoding="utf-8")
    claims = [papers.get(name).claims for name in papers.names() if name != "compare"]
    assert text.count('data-label="outcome"') >= sum(map(len, claims))
    assert 'href="feng.html#claim-b1"' in text
    assert 'id="claim-b1"' in page(book, "book/feng").read_text(encoding="utf-8")
    assert "page:" not in text  # every link was found


def test_chapters_open_with_what_came_out(book):
    for name in (*CHAPTERS, "methods", "causal"):
        text = page(book, f"book/{name}").read_text(encoding="utf-8")
        sections = re.findall(r'<section id="([^"]+)">', text)
        assert sections[0] == "in-short", name  # the page's own has a class
        short = text.split('<section id="in-short">')[1].split("</section>")[0]
        for said in ("The question.", "What to distrust.", "Minutes.", "Open in Colab"):
            assert said in short, (name, said)
    assert "The answer." in page(book, "book/feng").read_text(encoding="utf-8")
    assert elements(page(book, "book/golodov"), "svg")


def test_the_numbers_are_all_published_records(book):
    text = page(book, "book/numbers").read_text(encoding="utf-8")
    there = {record["key"] for record in records.published(purpose=None)}
    assert set(re.findall(r'data-record="(\w+)"', text)) == there
    beside = page(book, "book/numbers").with_suffix(".csv")
    assert len(beside.read_text(encoding="utf-8").splitlines()) == 1 + len(there)
    assert "data-sortable" in text
    assert sortable.script() in text


def test_every_public_name_of_the_package_has_its_entry(book):
    ids = set()
    for path in (book / "_build" / "html" / "book" / "api").glob("*.html"):
        ids |= set(re.findall(r' id="(fgbook[\w.]*)"', path.read_text("utf-8")))
    seen = 0
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        words = path.relative_to(paths.REPOSITORY).with_suffix("").parts
        module = ".".join(word for word in words if word != "__init__")
        if module in ("fgbook", "fgbook.__main__"):
            continue
        assert module in ids
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name in names(tree.body):
            if not re.search(r"(^|\.)_", name):
                seen += 1
                assert f"{module}.{name}" in ids
    assert seen > 1000


def test_quoted_code_leads_to_its_entry(book):
    text = page(book, "book/feng").read_text(encoding="utf-8")
    quoted = re.findall(r'<p class="fgbook-quoted">.*?href="([^"]+)"', text, re.S)
    assert "api/methods.html#fgbook.methods.focus.Focus" in quoted
    assert "api/images.html#fgbook.images.regions.crop_zoom" in quoted
    assert len(quoted) == text.count('class="fgbook-quoted"')  # each is a link


# ---- the pages' source


def printed_values() -> set[str]:
    """Every number of the papers' tables."""
    found = set()
    for name in papers.names():
        for table in papers.get(name).tables:
            for row in table.cells.values():
                found |= {f"{value:g}" for value in row if value}
    return found


def test_accuracies_are_not_typed_by_hand():
    """A percentage in a page's source stands in the paper's tables, or a citation
    stands beside it.
    """
    printed = printed_values()
    for path in sorted((paths.REPOSITORY / "book").glob("*.md")):
        if path.stem == "data":
            continue  # it says how images are divided
        text = path.read_text(encoding="utf-8")
        for paragraph in re.split(r"\n\s*\n|\n(?=[*-] )", text):
            if "{cite}" in paragraph:
                continue
            for value in re.findall(r"(\d+(?:\.\d+)?)\s?%", paragraph):
                assert value in printed or value == "95", (path.name, value)


QUOTE = re.compile(r"```\{literalinclude\} (\S+)\n((?::.*\n)*)```")


def quotes() -> list[tuple[Path, dict[str, str]]]:
    """The file and the options of every piece of code that a page quotes."""
    found = []
    for path in sorted((paths.REPOSITORY / "book").glob("*.md")):
        for source, options in QUOTE.findall(path.read_text(encoding="utf-8")):
            named = dict(re.findall(r":([\w-]+): (.*)", options))
            found.append((path.parent / source, named))
    return found


def names(body: list, before: str = "") -> set[str]:
    """The functions and classes of a file, and methods as Class.method."""
    found = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(f"{before}{node.name}")
        if isinstance(node, ast.ClassDef):
            found |= names(node.body, f"{before}{node.name}.")
    return found


def test_quoted_code_is_there():
    assert len(quotes()) > 20
    for path, options in quotes():
        assert path.is_file(), path
        source = path.read_text(encoding="utf-8")
        for place in ("start-at", "end-at", "start-after", "end-before"):
            assert options.get(place, "") in source, (path.name, place)
        if "pyobject" in options:
            there = names(ast.parse(source).body)
            assert options["pyobject"] in there, (path.name, options["pyobject"])


def test_code_is_quoted_by_name_not_by_line():
    """Line numbers go on pointing somewhere when the code has moved."""
    for path, options in quotes():
        assert "lines" not in options, path.name


def test_every_page_is_in_the_contents():
    contents = yaml.safe_load((paths.REPOSITORY / "_toc.yml").read_text())
    listed = set(re.findall(r"'(?:file|root)': '(\S+?)'", str(contents)))
    pages = (paths.REPOSITORY / "book").rglob("*.md")
    notebooks = (paths.REPOSITORY / "notebooks").glob("*.ipynb")
    there = set()
    for path in pages:
        name = path.relative_to(paths.REPOSITORY).with_suffix("")
        there.add(name.as_posix())
    there |= {f"notebooks/{path.stem}" for path in notebooks}
    assert listed == there
