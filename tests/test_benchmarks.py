"""Each benchmark runs as a command, prints a ratio, and saves a file that the README can be made from. No time is asserted."""

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
KEYS = {"benchmark", "title", "command", "date", "hardware", "load", "clock", "versions", "layout", "settings", "columns", "rows", "ratios"}


def run(script: str, folder, *arguments: str, **environment: str) -> tuple[str, dict]:
    """What a benchmark prints and saves."""
    saved = folder / "saved"
    done = subprocess.run([sys.executable, FOLDER / script, *arguments, "--save", str(saved)], capture_output=True, text=True, cwd=folder,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **environment})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = saved.iterdir()  # one, and nothing temporary
    content = json.loads(file.read_text())
    assert KEYS <= set(content)
    assert file.name.startswith(content["benchmark"]) and file.name.endswith(f"-torch{torch.__version__.split('+')[0]}-{content['layout']}.json")
    assert content["rows"] and all(len(row) == len(content["columns"]) for row in content["rows"])
    assert content["ratios"] and all(math.isfinite(found["value"]) for found in content["ratios"])
    assert all(found["what"] in done.stdout for found in content["ratios"])
    assert content["command"] == f"python benchmarks/{script} {' '.join(arguments)} --save"
    assert not any(private in file.read_text() for private in (str(folder), os.uname().nodename, os.path.expanduser("~") + "/"))
    return done.stdout, content


def test_input_from_the_store_and_from_files(tmp_path):
    pixels = torch.Generator().manual_seed(0)
    for split in ("train", "val", "test"):
        for name in ("one", "two"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(4):
                picture = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8, generator=pixels).numpy()
                Image.fromarray(picture).save(tmp_path / "set" / split / name / f"{split}{number}.png")
    data = f"folder:{tmp_path / 'set'}"
    _, content = run_with_data(tmp_path, data)
    assert [row[0] for row in content["rows"]] == ["crop of 24 from 32", "zoomed crop of 24", "zoomed crop of 24 from 32"]


@pytest.mark.parametrize("compiled", [False])
def test_throughput_by_method(tmp_path, compiled):
    _, content = run("throughput.py", tmp_path, *"--backbone small --size 32 --batch 2 --seconds 0 --methods plain focus".split())
    plain, focus = content["rows"]
    assert plain[2:5] == [1, 1, 1] and focus[3] > 2  # FLOPs of a step: an image, and six crops of half its side
    time, flops, overhead = focus[2:5]
    assert overhead == pytest.approx(time / flops, rel=2e-3)
