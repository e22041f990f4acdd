"""Installation where there is no network, as book/batches.md says: wheels are made in a
folder here, and installed from it there. "There" is a process without a network."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from fgbook import paths

# Of Linux: run a command without a network.
CUT_OFF = ["unshare", "--net", "--map-root-user"]


def can_be_cut_off() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CUT_OFF, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(
    not (os.environ.get("FGBOOK_AIR_GAPPED") and can_be_cut_off()),
    reason="downloads PyTorch, gigabytes; needs FGBOOK_AIR_GAPPED=1 and unshare",
)
def test_wheels_in_a_folder_are_all_that_an_installation_needs(tmp_path):
    source = tmp_path / "clone"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(paths.REPOSITORY / name, source)
    shutil.copytree(paths.PACKAGE, source / "fgbook")
    wheels = tmp_path / "wheels"
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "-w", str(wheels), str(source)], check=True)
    assert list(wheels.glob("fgbook-*.whl"))

    there = tmp_path / "there"
    venv.create(there, with_pip=True)
    told = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    told |= {"HOME": str(tmp_path / "home"), "PIP_CONFIG_FILE": os.devnull}
    told |= {"OMP_NUM_THREADS": "1"}

    def cut_off(*words: str | Path) -> str:
        command = [*CUT_OFF, str(there / "bin" / words[0]), *map(str, words[1:])]
        ended = subprocess.run(
            command, env=told, cwd=tmp_path, text=True, capture_output=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    cut_off("pip", "install", "-q", "--no-index", "--find-links", wheels, "fgbook")
    said = cut_off("fgbook", *"run feng --row plain --set epochs=1".split())
    assert "feng   plain  quick" in said
    assert list((tmp_path / "home/.cache/fgbook/runs").glob("*/record.json"))
