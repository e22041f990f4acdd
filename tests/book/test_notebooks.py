"""The notebooks as they are stored: what readers in Colab, papermill and reviewers rely
on. They are executed in test_book.py."""

import ast
import io
import tokenize

import nbformat
import pytest
from papermill import inspect_notebook

from fgbook import paths

NOTEBOOKS = sorted((paths.REPOSITORY / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def parameters(path):
    tagged = [
        cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])
    ]
    assert len(tagged) == 1, "exactly one cell is tagged `parameters`"
    return tagged[0].source


def test_it_is_stored_without_outputs(path):
    nbformat.validate(nbformat.read(path, 4))
    for cell in code(path):
        assert not cell.outputs and cell.execution_count is None


def test_every_parameter_is_annotated_and_commented(path):
    source = parameters(path)
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and len(token.string) > 10
    }
    for line in ast.parse(source).body:
        assert isinstance(line, ast.AnnAssign) and isinstance(
            line.annotation, ast.Name
        ), f"line {line.lineno}: name: type = value"
        assert line.lineno == line.end_lineno and line.lineno in comments, (
            f"{line.target.id} has no comment"
        )
        assert isinstance(
            ast.literal_eval(line.value),
            {"str": str, "int": int, "float": float, "bool": bool}[line.annotation.id],
        )


def test_papermill_sees_every_parameter_with_its_type_and_help(path):
    declared = [line.target.id for line in ast.parse(parameters(path)).body]
    seen = inspect_notebook(path)
    assert sorted(seen) == sorted(declared)
    for name, about in seen.items():
        assert (
            about["inferred_type_name"] in ("str", "int", "float", "bool")
            and about["help"]
        ), name


def test_the_first_cell_acts_in_colab_only_and_leaves_torch_alone(path):
    lines = code(path)[0].source.splitlines()
    guard = lines.index('if "google.colab" in sys.modules:')
    assert all(
        line.startswith(("#", "import sys")) or not line for line in lines[:guard]
    ), "nothing happens before the guard"
    assert all(line.startswith("    ") for line in lines[guard + 1 :]), (
        "nothing happens outside it"
    )
    assert "https://github.com/fgbook/fgbook" in code(path)[0].source
    assert not any("install" in line and "torch" in line for line in lines)
    for cell in code(path)[1:]:
        assert "pip install" not in cell.source and "git clone" not in cell.source


def test_markdown_is_plain(path):
    """MyST's directives and roles do not render in Colab."""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            assert (
                "```{" not in cell.source
                and "{cite}" not in cell.source
                and ":::" not in cell.source
                and "{glue" not in cell.source
            )


def test_nothing_but_runs_trains(path):
    """A number of the book comes from a run: notebooks never build or fit a model of
    their own."""
    for cell in code(path)[1:]:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("fit", "backward", "build"), cell.source
