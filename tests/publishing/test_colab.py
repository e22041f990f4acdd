"""Colab, simulated: an environment with what Colab brings and nothing of ours, in which
the first cell installs the package, built here, and a notebook is executed."""

import json
from pathlib import Path

import nbformat
import pytest
from environments import Environment, distributions, needed, repacked
from nbclient import NotebookClient

from fgbook import paths

pytestmark = pytest.mark.slow

# What is there when a notebook is opened in Colab, as far as it concerns us.
BROUGHT = (
    "torch torchvision numpy pandas matplotlib seaborn scipy tqdm ipywidgets ipython"
    " ipykernel accelerate timm safetensors pip setuptools"
).split()
NOTEBOOKS = sorted((paths.REPOSITORY / "notebooks").glob("*.ipynb"))


def first_cell(path: Path) -> str:
    cells = nbformat.read(path, 4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


class Colab(Environment):
    """With the module by which notebooks recognise Colab, and a kernel of that name. A
    folder of wheels stands for the package index: what we need beyond Colab's."""

    def __init__(self, folder: Path):
        lent = needed(BROUGHT)
        super().__init__(folder, lent)
        module = self.site / "google" / "colab" / "__init__.py"
        module.parent.mkdir(parents=True)
        module.touch()
        (self.site / "colab.pth").write_text("import google.colab\n")
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.missing = needed(["fgbook"]) - lent - {"fgbook"}
        for name in self.missing:
            repacked(name, self.wheels)
        kernel = folder / "jupyter" / "kernels" / "colab" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        words = [self.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        about = {"argv": words, "display_name": "Colab", "language": "python"}
        kernel.write_text(json.dumps(about))

    def execute(self, cells: list[nbformat.NotebookNode]) -> None:
        """Run cells, one after the other, as in a notebook of their own."""
        notebook = nbformat.v4.new_notebook(cells=cells)
        client = NotebookClient(notebook, timeout=1800, kernel_name="colab")
        told = self.variables(PIP_FIND_LINKS=self.wheels, PYTHONSAFEPATH="1")
        client.execute(env=told, cwd=str(self.home))


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Colab:
    return Colab(tmp_path_factory.mktemp("colab") / "there")


def test_nothing_of_ours_is_there_before(colab):
    assert "fgbook" not in colab.own()
    assert colab.call("python", "-c", "import fgbook").returncode != 0
    assert colab.call("python", "-c", "import torch").returncode == 0
    assert {"torchmetrics", "pooch"} <= colab.missing


def test_the_first_cell_of_every_notebook_is_the_same():
    assert len({first_cell(path) for path in NOTEBOOKS}) == 1


def test_a_notebook_runs_after_its_first_cell_and_torch_stays_as_it_was(
    colab, built, monkeypatch
):
    monkeypatch.setenv("JUPYTER_PATH", str(colab.folder / "jupyter"))
    address = f"git+{paths.address()}"
    notebook = nbformat.read(paths.REPOSITORY / "notebooks" / "fieldguide.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells[0].source.count(address) == 1
    cells[0].source = cells[0].source.replace(address, f'"{built.wheel}"')
    where = "import fgbook, torch\nprint(fgbook.__file__, torch.__file__)"
    cells.append(nbformat.v4.new_code_cell(where))

    colab.execute(cells)
    assert not cells[0].outputs, cells[0].outputs  # pip complained of nothing
    (output,) = cells[-1].outputs
    of_fgbook, of_torch = output.text.split()
    assert Path(of_fgbook).is_relative_to(colab.site)
    assert Path(of_torch).is_relative_to(colab.folder / "lent")
    # what was installed is the package and what Colab lacks: nothing was replaced
    assert colab.own() == {"fgbook"} | colab.missing
    assert "torch" in distributions()
