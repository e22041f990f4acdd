"""Each benchmark runs as a command, prints a ratio, and saves a file that the README
can be made from. No time is asserted."""

import importlib
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

import samples
from fgbook import papers, paths
from fgbook.errors import InputError
from fgbook.evidence import records

FOLDER = paths.REPOSITORY / "benchmarks"
KEYS = {
    "benchmark",
    "title",
    "command",
    "date",
    "hardware",
    "load",
    "clock",
    "versions",
    "layout",
    "settings",
    "columns",
    "rows",
    "ratios",
}


def run(script: str, folder, *arguments: str, **environment: str) -> tuple[str, dict]:
    """What a benchmark prints and saves."""
    saved = folder / "saved"
    done = subprocess.run(
        [sys.executable, FOLDER / script, *arguments, "--save", str(saved)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = saved.iterdir()  # one, and nothing temporary
    text = file.read_text()
    content = json.loads(text)
    assert set(content) >= KEYS
    assert file.name.startswith(content["benchmark"])
    version = torch.__version__.split("+")[0]
    assert file.name.endswith(f"-torch{version}-{content['layout']}.json")

    assert content["rows"]
    for row in content["rows"]:
        assert len(row) == len(content["columns"])
    assert content["ratios"]
    for found in content["ratios"]:
        assert math.isfinite(found["value"])
        assert found["what"] in done.stdout

    begin = f"python benchmarks/{script} {arguments[0]} "
    assert content["command"].startswith(begin)
    assert content["command"].endswith(" --save")
    for private in (str(folder), os.uname().nodename, os.path.expanduser("~") + "/"):
        assert private not in text
    return done.stdout, content


def test_input_from_the_store_and_from_files(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("one", "two"):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = torch.randint(0, 256, (40, 50, 3), generator=generator)
            picture = Image.fromarray(pixels.to(torch.uint8).numpy())
            picture.save(folder / f"{name}{number}.png")
    options = f"--data folder:{tmp_path / 'set'} --size 24 --store 32 --batch 4"
    options += " --images 8 --threads 1 --seconds 0"
    runs = str(tmp_path / "runs")
    _, content = run("input.py", tmp_path, *options.split(), FGBOOK_RUNS=runs)
    assert [row[0] for row in content["rows"]] == [
        "crop of 24 from 32",
        "zoomed crop of 24",
        "zoomed crop of 24 from 32",
    ]
    for _, ours, theirs, _, our_work, their_work, more_work in content["rows"]:
        assert min(ours, theirs, our_work, their_work) > 0
        assert more_work == pytest.approx(their_work / our_work, rel=2e-3)


def test_throughput_by_method(tmp_path):
    options = "--backbone small --size 32 --batch 2 --seconds 0 --methods plain focus"
    _, content = run("throughput.py", tmp_path, *options.split())
    plain, focus = content["rows"]
    assert plain[2:5] == [1, 1, 1]
    _, _, time, flops, overhead = focus[:5]
    assert 2 < flops < 3  # of a step: the image, and six crops of half its side
    assert overhead == pytest.approx(time / flops, rel=2e-3)


def test_memory_by_method(tmp_path):
    options = "--backbone small --sizes 32 --batches 4 12 --methods plain"
    _, content = run("memory.py", tmp_path, *options.split())
    ((_, size, kept, peak, kept_again, _, left),) = content["rows"]
    assert size == 32
    assert left > 0
    assert kept_again < kept  # with recomputing less is kept
    # two ways of looking at one step
    assert peak is None or 0.5 * kept < peak < 4 * kept


def test_drawing(tmp_path):
    options = "--size 48 --images 8 --threads 1 --seconds 0"
    _, content = run("render.py", tmp_path, *options.split())
    ((size, rate, work),) = content["rows"]
    assert size == "48 px"
    assert rate > 0
    assert work > 0
    assert content["ratios"][0]["value"] == pytest.approx(rate / 150, rel=0.01)


def test_drawing_pairs(tmp_path):
    options = "--pairs --size 40 --images 8 --threads 1 --seconds 0"
    _, content = run("render.py", tmp_path, *options.split())
    ((size, rate, work),) = content["rows"]
    assert size == "40 px"
    assert rate > 0
    per_pair = content["ratios"][0]["value"] * 500 * work / 1e3
    assert per_pair == pytest.approx(1, rel=0.05)


def test_regions_batched_and_as_a_loop(tmp_path):
    _, content = run("regions.py", tmp_path, "--batch", "2", "--seconds", "0")
    for name, *_, ratio, waits, loops in content["rows"][:3]:
        assert name.startswith("regions")
        assert ratio > 0
        assert waits == 0
        assert loops > 0


def test_methods_as_their_repositories_write_them_and_ours(tmp_path):
    options = "--backbone small --size 96 --batch 2 --seconds 0"
    _, content = run("peers.py", tmp_path, *options.split())
    regions, steps = content["rows"][:4], content["rows"][4:]
    assert [row[0].split(",")[0] for row in steps] == ["ntsnet", "pmg", "dcl"]
    for _, ours, usual, ratio, _, waits, usual_waits in content["rows"]:
        assert min(ours, usual, ratio) > 0
        assert waits == 0
        assert usual_waits >= 0
    # losses are read after every step there; PMG has four
    assert all(row[-1] >= least for row, least in zip(steps, (1, 4, 1), strict=True))
    assert all(row[4] is None for row in regions)


def test_the_usual_ways_choose_and_move_what_they_should():
    """Boxes: by NMS on the host, those that ours chooses. Jigsaws: patches of the
    image, each once. DCL: a permutation of patches, which colours tell apart."""
    usual, peers = module("usual"), module("peers")
    images = torch.rand(3, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        network = peers.model_of("ntsnet", "small", 96)
        # compares what is chosen
        (ours, theirs), _ = peers.region_steps(network, images)
        assert ours()[1].shape == theirs()[1].shape == (3, 6, 3, 48, 48)

    numbers = torch.arange(16.0).view(1, 1, 4, 4).repeat(1, 1, 2, 2)
    moved = usual.jigsaw(numbers, 2)
    assert torch.equal(moved, numbers)  # four equal patches
    numbers = torch.arange(64.0).view(1, 1, 8, 8)
    moved = usual.jigsaw(numbers, 4)
    assert not torch.equal(moved, numbers)
    assert moved.flatten().sort()[0].tolist() == list(range(64))

    colours = 40 * torch.arange(4, dtype=torch.uint8).view(2, 2)
    pixels = colours.repeat_interleave(60, 0).repeat_interleave(60, 1)
    picture = Image.fromarray(pixels[..., None].repeat(1, 1, 3).numpy())
    law = usual.guessed(picture, usual.destroy(picture, 2), 2)
    assert sorted(law) == [-0.5, -0.25, 0.0, 0.25]


def test_the_plain_row_from_files_to_its_accuracy(tmp_path):
    for part in ("train", "test"):
        for number, name in enumerate(("one", "two")):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for place in range(4):
                pixels = torch.full((40, 50, 3), 60 + 100 * number, dtype=torch.uint8)
                pixels += torch.randint(0, 20, pixels.shape, dtype=torch.uint8)
                picture = Image.fromarray(pixels.numpy())
                picture.save(folder / f"{name}{place}.png")
    options = f"--data folder:{tmp_path / 'set'} --backbone small --size 33"
    options += " --classes 2 --train 3 --test 2 --epochs 1"
    _, content = run("epoch.py", tmp_path, *options.split())
    assert content["rows"][0][0] == "fgbook"
    assert [found["wanted"] for found in content["ratios"]] == [">= 1.5"] * 4
    for _, seconds, ratio, right in content["rows"]:
        assert min(seconds, ratio) > 0
        assert 0 <= right <= 4


def test_start_up_of_imports_and_commands(tmp_path):
    _, content = run("startup.py", tmp_path, "--seconds", "0")
    first, *others = content["rows"]
    assert first[::2] == ["import torch", 1]
    for name, seconds, ratio in others:
        assert seconds > 0, name
        assert ratio > 0, name
    assert content["clock"] == "processor time"


def test_published_records_are_trained_again(tmp_path):
    """One is as it was made, the other claims what its run does not give."""
    small = {"image_size": 24, "store_size": 32, "epochs": 1, "weights": "none"}
    counts = {"train": 4, "val": 2, "test": 4}
    with samples.trained(tmp_path, "feng", ("plain",), counts, small) as (
        honest,
        second,
    ):
        published = records.load(records.publish(honest))
        records.publish(second)
        (other,) = (tmp_path / "results").rglob(f"*-{second['key']}.json")
        made = records.load(other)
        top1 = 0.0 if made["metrics"]["test"]["top1"] else 1.0
        made["metrics"]["test"] |= {"top1": top1, "top1_low": top1, "top1_high": top1}
        records.save(made, records.load_predictions(made), other)
        before = {
            path: path.read_bytes()
            for path in (tmp_path / "results").rglob("*")
            if path.is_file()
        }
        where = {"FGBOOK_RESULTS": str(tmp_path / "results")}
        where["FGBOOK_RUNS"] = str(tmp_path / "runs")
        _, content = run("rerun.py", tmp_path, "--draw", "5", **where)

    rows = {row[0]: row for row in content["rows"]}
    assert set(rows) == {f"feng, plain, folder:PATH, {seed}" for seed in (0, 1)}
    for record in (published, made):
        _, was, _, now, same, _ = rows[f"feng, plain, folder:PATH, {record['seed']}"]
        assert float(was) == round(100 * record["metrics"]["test"]["top1"], 2)
        assert same == "100.0"
        assert (was == now) == (record is published)
    shares = {ratio["what"]: ratio["value"] for ratio in content["ratios"]}
    assert shares["inside the record's interval"] == 0.5
    assert shares["every test image named as in the record"] == 1
    # what is published stays as it is; the trainings are elsewhere
    assert {path: path.read_bytes() for path in before} == before
    found = (tmp_path / "runs" / "rerun").glob("*/record.json")
    made_again = {path.parent.name for path in found}
    assert made_again == {published["key"], made["key"]}


def module(name: str):
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_flops_of_a_step_are_three_forward_passes_also_for_grouped_convolutions(groups):
    flops = module("throughput").flops
    images = torch.rand(2, 8, 6, 6, requires_grad=True)
    layer = torch.nn.Conv2d(8, 16, 3, padding=1, groups=groups)
    # batch, channels, places, inputs of each, window; two operations
    once = 2 * 2 * 16 * 6 * 6 * (8 // groups) * 9
    assert flops(lambda: layer(images)) == once
    assert flops(lambda: layer(images).sum().backward()) == 3 * once


def test_a_slow_spell_of_the_machine_does_not_move_a_ratio():
    found = module("common").ratio(
        [2.0, 2.0, 20.0, 2.2, 2.0], [1.0, 1.0, 10.0, 1.0, 1.0]
    )
    assert found == pytest.approx((2, 2, 2))


def test_the_readme_shows_the_saved_results():
    readme = module("readme")
    text = readme.README.read_text(encoding="utf-8")
    assert text == readme.filled(text), "run: python benchmarks/readme.py"


@pytest.mark.parametrize(
    ("wanted", "said"), [(">= 2", "yes"), (">= 3", "no"), ("<= 1.5", "no"), ("", "-")]
)
def test_the_readme_says_whether_a_ratio_is_what_was_wanted(wanted, said):
    assert module("readme").met({"value": 2.0, "wanted": wanted}) == said


def test_scale_counts_operations_as_the_networks_authors_do(tmp_path):
    """ResNet-50 takes 4.1 G multiply-adds at 224 px (He et al. 2016); at twice the side
    four times as many."""
    published = {"FGBOOK_RESULTS": str(FOLDER.parent / "results")}
    chosen = ("--seeds", "2", "--papers", "feng")
    _, content = run("scale.py", tmp_path, *chosen, **published)
    paper = papers.get("feng")
    at_paper, sets = paper.rows_at("paper"), paper.datasets["paper"]
    about = dict(zip(content["columns"], content["rows"][0], strict=True))
    assert about["runs"] == 2 * len(at_paper) * len(sets)

    plain = paper.row("plain").recipes["paper"]
    assert (plain.backbone, plain.image_size) == ("resnet50", 448)
    one = 2 * 4.1e9 * 4 * (3 * 5994 * plain.epochs + 5794)
    scale = module("scale")
    assert scale.operations(paper.row("plain"), "cub") == pytest.approx(one, rel=0.03)
    assert about["EFLOP"] > 2 * one / 1e18 * len(at_paper)


def test_scale_measures_by_what_was_done(monkeypatch):
    """Operations of frozen parts are counted, but not done: such records, and those of
    several threads, do not tell how fast a thread is."""

    def record(seconds: float, recipe: dict | None = None, **changes) -> dict:
        about = {
            "method": "plain",
            "flops": 1000,
            "hardware": {"device": "cpu", "threads": 1},
            "train": {"steps": 5, "seconds": seconds},
            "recipe": {"batch_size": 10, "backbone_lr_factor": 0.1} | (recipe or {}),
        }
        return about | changes

    whole = [record(1.0), record(2.0), record(30.0)]
    partly = [
        record(0.01, {"backbone_lr_factor": 0.0}),
        record(0.01, {"frozen_stages": 2}),
        record(0.01, method="transfer"),
        record(0.01, hardware={"device": "cpu", "threads": 2}),
        record(0.01, hardware={"device": "cuda", "threads": 1}),
        record(0.0),
    ]
    scale = module("scale")
    monkeypatch.setattr(scale.records, "published", lambda: [*partly, *whole])
    assert scale.measured() == (3 * 1000 * 10 * 5 / 2.0, 3)
    monkeypatch.setattr(scale.records, "published", lambda: partly)
    with pytest.raises(InputError, match="no published record of a network"):
        scale.measured()
