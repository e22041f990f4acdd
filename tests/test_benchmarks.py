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

from fgbook import paths

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
    content = json.loads(file.read_text())
    assert KEYS <= set(content)
    assert file.name.startswith(content["benchmark"]) and file.name.endswith(
        f"-torch{torch.__version__.split('+')[0]}-{content['layout']}.json"
    )
    assert content["rows"] and all(
        len(row) == len(content["columns"]) for row in content["rows"]
    )
    assert content["ratios"] and all(
        math.isfinite(found["value"]) for found in content["ratios"]
    )
    assert all(found["what"] in done.stdout for found in content["ratios"])
    assert content["command"].startswith(
        f"python benchmarks/{script} {arguments[0]} "
    ) and content["command"].endswith(" --save")
    assert not any(
        private in file.read_text()
        for private in (str(folder), os.uname().nodename, os.path.expanduser("~") + "/")
    )
    return done.stdout, content


def test_input_from_the_store_and_from_files(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("one", "two"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(12):
            pixels = torch.randint(
                0, 256, (40, 50, 3), dtype=torch.uint8, generator=generator
            ).numpy()
            Image.fromarray(pixels).save(
                tmp_path / "set" / name / f"{name}{number}.png"
            )
    options = (
        f"--data folder:{tmp_path / 'set'} --size 24 --store 32 --batch 4 --images 8"
        " --threads 1 --seconds 0".split()
    )
    _, content = run("input.py", tmp_path, *options, FGBOOK_RUNS=str(tmp_path / "runs"))
    assert [row[0] for row in content["rows"]] == [
        "crop of 24 from 32",
        "zoomed crop of 24",
        "zoomed crop of 24 from 32",
    ]
    for _, ours, theirs, _, our_work, their_work, more_work in content["rows"]:
        assert min(ours, theirs, our_work, their_work) > 0
        assert more_work == pytest.approx(their_work / our_work, rel=2e-3)


def test_throughput_by_method(tmp_path):
    _, content = run(
        "throughput.py",
        tmp_path,
        *[
            "--backbone",
            "small",
            "--size",
            "32",
            "--batch",
            "2",
            "--seconds",
            "0",
            "--methods",
            "plain",
            "focus",
        ],
    )
    plain, focus = content["rows"]
    assert plain[2:5] == [1, 1, 1]
    _, _, time, flops, overhead = focus[:5]
    assert 2 < flops < 3  # of a step: the image, and six crops of half its side
    assert overhead == pytest.approx(time / flops, rel=2e-3)


def test_memory_by_method(tmp_path):
    _, content = run(
        "memory.py",
        tmp_path,
        *[
            "--backbone",
            "small",
            "--sizes",
            "32",
            "--batches",
            "4",
            "12",
            "--methods",
            "plain",
        ],
    )
    ((_, size, kept, peak, kept_again, _, left),) = content["rows"]
    assert size == 32 and 0 < left
    assert kept_again < kept  # with recomputing less is kept
    # two ways of looking at one step
    assert peak is None or 0.5 * kept < peak < 4 * kept


def test_drawing(tmp_path):
    _, content = run(
        "render.py",
        tmp_path,
        *["--size", "48", "--images", "8", "--threads", "1", "--seconds", "0"],
    )
    ((size, rate, work),) = content["rows"]
    assert size == "48 px" and rate > 0 and work > 0
    assert content["ratios"][0]["value"] == pytest.approx(rate / 150, rel=0.01)


def test_regions_batched_and_as_a_loop(tmp_path):
    _, content = run("regions.py", tmp_path, *["--batch", "2", "--seconds", "0"])
    for name, *_, ratio, waits, loops in content["rows"][:3]:
        assert name.startswith("regions") and ratio > 0
        assert waits == 0 < loops


def module(name: str):
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


def test_flops_of_a_step_are_three_forward_passes_also_for_grouped_convolutions():
    flops, images = (
        module("throughput").flops,
        torch.rand(2, 8, 6, 6, requires_grad=True),
    )
    for groups in (1, 2, 8):
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
    found = {"what": "", "value": 2.0, "low": None, "high": None}
    assert [
        readme.met({**found, "wanted": wanted})
        for wanted in (">= 2", ">= 3", "<= 1.5", "")
    ] == ["yes", "no", "no", "-"]
